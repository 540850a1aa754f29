"""Tiles: what an expert corrects is a tile of an image (the paper's quarters)."""

from __future__ import annotations

from dataclasses import dataclass

from cytoloop.domain.errors import ShapeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A rectangle of an image, rows and columns half-open, in pixels of the raw image."""

    index: int
    """Row-major position in the tiling, from 0."""
    row_start: int
    row_stop: int
    column_start: int
    column_stop: int

    @property
    def height(self) -> int:
        """Rows of the tile."""
        return self.row_stop - self.row_start

    @property
    def width(self) -> int:
        """Columns of the tile."""
        return self.column_stop - self.column_start

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the tile in an (H, W) array."""
        return slice(self.row_start, self.row_stop), slice(self.column_start, self.column_stop)


def tiles_of(height: int, width: int, tiling: tuple[int, int]) -> tuple[Tile, ...]:
    """Cut an image into ``tiling`` = (rows, columns) tiles that cover it without overlap.

    Where a side is not divisible, earlier tiles are the smaller ones by at most a pixel.

    Examples
    --------
    >>> [(t.row_start, t.column_start, t.height, t.width) for t in tiles_of(512, 680, (2, 2))]
    [(0, 0, 256, 340), (0, 340, 256, 340), (256, 0, 256, 340), (256, 340, 256, 340)]
    """
    rows, columns = tiling
    if rows < 1 or columns < 1 or height < rows or width < columns:
        raise ShapeError(f"image ({height}, {width}) cannot be cut into {rows}x{columns} tiles")
    row_edges = [height * r // rows for r in range(rows + 1)]
    column_edges = [width * c // columns for c in range(columns + 1)]
    return tuple(
        Tile(
            index=r * columns + c,
            row_start=row_edges[r],
            row_stop=row_edges[r + 1],
            column_start=column_edges[c],
            column_stop=column_edges[c + 1],
        )
        for r in range(rows)
        for c in range(columns)
    )
