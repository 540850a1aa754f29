"""Masks on disk, named by their content: equal masks are one file, and a file never changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.images import encode_mask, read_mask, write_atomically
from cytoloop.domain.digest import digest_of_pixels
from cytoloop.domain.errors import ImageUnreadable


class Masks:
    """Corrected and weak masks as indexed PNG under the SHA-256 of their pixels."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, digest: str) -> Path:
        """Where a mask lies."""
        return self._folder / digest[:2] / f"{digest}.png"

    def put(self, mask_HW: NDArray[np.uint8]) -> str:
        """Store a mask so that it survives a power cut, and return its digest."""
        digest = digest_of_pixels(mask_HW)
        path = self.path(digest)
        if not path.is_file():
            write_atomically(path, lambda file: file.write_bytes(encode_mask(mask_HW)), durable=True)
        return digest

    def get(self, digest: str) -> NDArray[np.uint8]:
        """A stored mask, checked against its name.

        Raises
        ------
        ImageUnreadable
            If the file is missing, damaged, or holds other pixels than its name says.
        """
        mask_HW = read_mask(self.path(digest))
        found = digest_of_pixels(mask_HW)
        if found != digest:
            raise ImageUnreadable(f"{self.path(digest)}: pixels have digest {found}, expected {digest}")
        return mask_HW
