"""Digests: one fact, one name, for recipes, snapshots, pixels and masks."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray


def digest_of(document: Any) -> str:
    """SHA-256 (hex) of a JSON document, independent of key order and white space.

    Examples
    --------
    >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    True
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def digest_of_pixels(array: NDArray[Any]) -> str:
    """SHA-256 (hex) of an array's shape, dtype and values: equal pixels, equal digest.

    The byte order is normalised, so that a big-endian TIFF and its little-endian copy agree.
    """
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{little.dtype.str}{little.shape}".encode("ascii"))
    digest.update(little.data)  # not a copy of them: an image is compared whenever it is read
    return digest.hexdigest()
