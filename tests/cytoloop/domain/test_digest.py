"""Equal facts, equal digests; other facts, other digests."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cytoloop.domain.digest import digest_of, digest_of_pixels

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(document=JSON)
def test_a_document_read_back_has_the_same_digest(document: Any) -> None:
    assert digest_of(json.loads(json.dumps(document))) == digest_of(document)
    assert digest_of([document]) != digest_of(document)


@given(document=st.dictionaries(st.text(max_size=4), JSON, min_size=2, max_size=4))
def test_the_order_of_keys_does_not_matter(document: dict[str, Any]) -> None:
    assert digest_of(dict(reversed(document.items()))) == digest_of(document)


def test_a_digest_is_that_of_the_compact_json() -> None:
    assert (
        digest_of({"b": [1, "µ"], "a": None}) == hashlib.sha256(b'{"a":null,"b":[1,"\\u00b5"]}').hexdigest()
    )


@given(
    pixels=hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]), hnp.array_shapes(min_dims=2, max_dims=3, max_side=6)
    )
)
def test_neither_byte_order_nor_memory_layout_matter(pixels: Any) -> None:
    digest = digest_of_pixels(pixels)
    assert digest_of_pixels(pixels.astype(pixels.dtype.newbyteorder(">"))) == digest
    assert digest_of_pixels(np.asfortranarray(pixels)) == digest
    wide = np.repeat(pixels, 2, axis=-1)
    assert digest_of_pixels(wide[..., ::2]) == digest


@pytest.mark.parametrize(
    "other",
    [
        np.zeros((3, 2), np.uint8),
        np.zeros((6,), np.uint8),
        np.zeros((2, 3), np.uint16),
        np.eye(2, 3, dtype=np.uint8),
    ],
)
def test_shape_dtype_and_values_matter(other: Any) -> None:
    assert digest_of_pixels(other) != digest_of_pixels(np.zeros((2, 3), np.uint8))
