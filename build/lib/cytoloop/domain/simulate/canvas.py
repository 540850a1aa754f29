"""The drawing board of one field: truth and light grow together, so that they cannot disagree.

Legend: P planes out of focus, H rows, W columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoloop.domain.simulate.cells import Cells
from cytoloop.domain.simulate.shapes import Shape

GAP = 1
"""Pixels kept free around a structure, unless another is meant to touch it."""
MOSTLY = 0.8
"""Share of a structure that must lie in a cell."""


class Canvas:
    """Light in display units before any blur, and the class of each pixel."""

    def __init__(self, cells: Cells, planes: int = 1) -> None:
        """Start from the light of the cells; ``planes`` is the number of depths, the focal one included."""
        shape = cells.owner_HW.shape
        self.truth_HW: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        self.green_HW = cells.green_HW.copy()
        self.red_HW = cells.red_HW.copy()
        self.deep_green_PHW = np.zeros((planes - 1, *shape))
        self.deep_red_PHW = np.zeros((planes - 1, *shape))
        self.unfocused_green_HW = np.zeros(shape)
        self.unfocused_red_HW = np.zeros(shape)
        self._in_cell_HW = cells.depth_HW < 1.0
        self._taken_HW = np.zeros(shape, np.bool_)

    def place(
        self,
        shape: Shape,
        centre: tuple[int, int],
        *,
        value: int,
        red: float,
        green: float,
        green_left: float = 1.0,
        plane: int = 0,
        may_touch: bool = False,
    ) -> bool:
        """Draw a structure, if there is room for it.

        Parameters
        ----------
        shape : Shape
            Outline and relative brightness.
        centre : (int, int)
            Row and column of the window's middle pixel; the window may reach over the edge.
        value : int
            Class written to the truth, 0 for what is not drawn.
        red, green : float
            Display units added.
        green_left : float
            Share of the cytoplasm's green that remains inside.
        plane : int
            Depth: 0 in focus, then those of ``StructureModel.planes``.
        may_touch : bool
            Draw right beside other structures; pixels already taken are left out.

        Returns
        -------
        bool
            Whether it was drawn.
        """
        window, inside = self._windows(shape, centre)
        mask_HW = shape.mask_HW[inside]
        profile_HW = shape.profile_HW[inside]
        if may_touch:
            free_HW = mask_HW & (self.truth_HW[window] == 0)
            labels_HW, parts = ndimage.label(free_HW)
            if parts == 0:
                return False
            sizes = np.bincount(labels_HW.ravel())[1:]
            mask_HW = labels_HW == 1 + int(np.argmax(sizes))
            # Half hidden under its neighbour, it would be a sliver and not a structure.
            if 2 * np.count_nonzero(mask_HW) < np.count_nonzero(shape.mask_HW):
                return False
        else:
            in_cell = np.count_nonzero(mask_HW & self._in_cell_HW[window])
            if not mask_HW.any() or (mask_HW & self._taken_HW[window]).any():
                return False
            if value and in_cell < MOSTLY * np.count_nonzero(mask_HW):
                return False
        light_HW = np.where(mask_HW, profile_HW, 0.0)
        # What keeps the dye out of a place is blurred as the structure is: at its depth, not in focus.
        shade_HW = np.where(mask_HW, (1.0 - green_left) * self.green_HW[window], 0.0)
        red_HW = self.deep_red_PHW[plane - 1] if plane else self.red_HW
        green_HW = self.deep_green_PHW[plane - 1] if plane else self.green_HW
        red_HW[window] += red * light_HW
        green_HW[window] += green * light_HW - shade_HW
        if value:
            self.truth_HW[window][mask_HW] = value
        self._take(window, mask_HW)
        return True

    def glow(self, shape: Shape, centre: tuple[int, int], *, red: float, green: float) -> None:
        """Add light from far out of focus; it takes no room and is not in the truth."""
        window, inside = self._windows(shape, centre)
        self.unfocused_red_HW[window] += red * shape.profile_HW[inside]
        self.unfocused_green_HW[window] += green * shape.profile_HW[inside]

    def _windows(
        self, shape: Shape, centre: tuple[int, int]
    ) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Where the shape's window lies on the canvas, and the part of it that does."""
        on_canvas, of_shape = [], []
        for middle, side, length in zip(centre, shape.mask_HW.shape, self.truth_HW.shape, strict=True):
            start = middle - side // 2
            low, high = max(start, 0), max(min(start + side, length), 0)
            on_canvas.append(slice(low, max(high, low)))
            of_shape.append(slice(low - start, max(high, low) - start))
        return (on_canvas[0], on_canvas[1]), (of_shape[0], of_shape[1])

    def _take(self, window: tuple[slice, slice], mask_HW: NDArray[np.bool_]) -> None:
        """Mark the structure and a gap around it as occupied."""
        rows, columns = window
        low_row, low_column = max(rows.start - GAP, 0), max(columns.start - GAP, 0)
        wide = (slice(low_row, rows.stop + GAP), slice(low_column, columns.stop + GAP))
        around_HW = np.zeros(self._taken_HW[wide].shape, np.bool_)
        row, column = rows.start - low_row, columns.start - low_column
        around_HW[row : row + mask_HW.shape[0], column : column + mask_HW.shape[1]] = mask_HW
        self._taken_HW[wide] |= ndimage.binary_dilation(around_HW, iterations=GAP)
