"""Tiles cover an image exactly once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoloop.domain.errors import ShapeError
from cytoloop.domain.tiling import tiles_of


@given(height=st.integers(9, 70), width=st.integers(9, 70), rows=st.integers(1, 9), columns=st.integers(1, 9))
def test_every_pixel_is_in_one_tile_and_tiles_are_alike(
    height: int, width: int, rows: int, columns: int
) -> None:
    tiles = tiles_of(height, width, (rows, columns))
    seen = np.zeros((height, width), int)
    for tile in tiles:
        assert seen[tile.slices].shape == (tile.height, tile.width)
        seen[tile.slices] += 1
    assert (seen == 1).all()
    assert [tile.index for tile in tiles] == list(range(rows * columns))
    for sides in ([t.height for t in tiles], [t.width for t in tiles]):
        assert max(sides) - min(sides) <= 1


def test_tiles_go_row_by_row() -> None:
    tiles = tiles_of(5, 4, (2, 2))
    assert [(t.row_start, t.row_stop, t.column_start, t.column_stop) for t in tiles] == [
        (0, 2, 0, 2),
        (0, 2, 2, 4),
        (2, 5, 0, 2),
        (2, 5, 2, 4),
    ]


@pytest.mark.parametrize(
    ("height", "width", "tiling"), [(1, 9, (2, 1)), (9, 1, (1, 2)), (9, 9, (0, 1)), (0, 9, (1, 1))]
)
def test_what_cannot_be_cut_is_refused(height: int, width: int, tiling: tuple[int, int]) -> None:
    with pytest.raises(
        ShapeError, match=rf"image \({height}, {width}\) cannot be cut into {tiling[0]}x{tiling[1]}"
    ):
        tiles_of(height, width, tiling)
