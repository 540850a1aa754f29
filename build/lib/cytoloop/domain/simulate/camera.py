"""The microscope and its two cameras: light in display units becomes 16-bit grey values.

Legend: C channels (0 pHluorin, 1 DsRed), H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoloop.domain.simulate.canvas import Canvas
from cytoloop.domain.simulate.presets import CameraModel, StructureModel

Floats = NDArray[np.float64]
UNFOCUSED_SIGMA = 7.0
"""Blur of what lies far from the focal plane, pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Illumination:
    """How light falls off over the field, the same for all fields of a plate."""

    centre: tuple[float, float]
    """Brightest point, rows and columns, as shares of the field."""
    loss: float
    """Loss of light in the corner farthest from the centre."""

    def field(self, shape: tuple[int, int]) -> Floats:
        """Relative light of each pixel, 1 at the centre."""
        rows_HW, columns_HW = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
        squared_HW = (rows_HW - self.centre[0] * shape[0]) ** 2 + (
            columns_HW - self.centre[1] * shape[1]
        ) ** 2
        light_HW: Floats = 1.0 - self.loss * squared_HW / squared_HW.max()
        return light_HW


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """How the green camera is turned, stretched and shifted against the red one; the same for a plate."""

    rows: float
    columns: float
    """Shift at the centre of the field, pixels."""
    stretch: float
    turn: float
    """Share of the distance from the centre by which it is off, outwards and around."""

    def seen(self, light_HW: Floats) -> Floats:
        """The light as the green camera sees it, interpolated linearly."""
        matrix = np.array([[1.0 + self.stretch, -self.turn], [self.turn, 1.0 + self.stretch]])
        middle = 0.5 * (np.array(light_HW.shape) - 1.0)
        start = middle + np.array([self.rows, self.columns]) - matrix @ middle
        moved_HW: Floats = ndimage.affine_transform(light_HW, matrix, start, order=1, mode="nearest")
        return moved_HW


def draw_registration(rng: np.random.Generator, model: CameraModel) -> Registration:
    """Draw how well the cameras of a plate are aligned."""
    angle, reach = rng.uniform(0.0, 2 * np.pi), rng.uniform(*model.camera_shift)
    return Registration(
        rows=reach * np.sin(angle),
        columns=reach * np.cos(angle),
        stretch=rng.uniform(-model.camera_distortion, model.camera_distortion),
        turn=rng.uniform(-model.camera_distortion, model.camera_distortion),
    )


def draw_illumination(rng: np.random.Generator, model: CameraModel) -> tuple[Illumination, Illumination]:
    """Draw the illumination of a plate, for green and for red."""
    green, red = (
        Illumination(
            centre=(rng.uniform(0.38, 0.62), rng.uniform(0.38, 0.62)), loss=rng.uniform(*model.falloff)
        )
        for _ in range(2)
    )
    return green, red


def expose(
    rng: np.random.Generator,
    canvas: Canvas,
    model: CameraModel,
    structures: StructureModel,
    *,
    light: float,
    defocus: float,
    margin: int,
    illumination: tuple[Illumination, Illumination],
    registration: Registration,
) -> NDArray[np.uint16]:
    """Take the picture: blur, fall-off, bleed-through, photon noise, read noise, camera offset.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the noise comes from.
    canvas : Canvas
        Light before any blur, larger than the field by ``margin`` pixels on each side.
    model, structures : CameraModel, StructureModel
        The microscope, and how far structures lie out of focus.
    light : float
        Factor on all light, 1 for a typical field.
    defocus : float
        Blur added to the point spread function, pixels.
    margin : int
        Pixels of the canvas beyond each edge of the field.
    illumination : (Illumination, Illumination)
        Of green and red.
    registration : Registration
        Where the green camera looks; the truth is what the red one sees.

    Returns
    -------
    image_CHW : ndarray of uint16, shape (2, H, W)
        Grey values with the camera's offset.
    """
    sigma = float(np.hypot(rng.uniform(*model.psf_sigma), defocus))
    deep_sigmas = [float(np.hypot(sigma, plane.sigma)) for plane in structures.planes[1:]]
    layers = (
        (canvas.green_HW, canvas.deep_green_PHW, canvas.unfocused_green_HW),
        (canvas.red_HW, canvas.deep_red_PHW, canvas.unfocused_red_HW),
    )
    seen: list[Floats] = []
    for (sharp_HW, deep_PHW, unfocused_HW), lamp in zip(layers, illumination, strict=True):
        blurred_HW = ndimage.gaussian_filter(sharp_HW, sigma)
        for deep_HW, deep_sigma in zip(deep_PHW, deep_sigmas, strict=True):
            blurred_HW += ndimage.gaussian_filter(deep_HW, deep_sigma)
        blurred_HW += ndimage.gaussian_filter(unfocused_HW, UNFOCUSED_SIGMA, truncate=3.0)
        # The shade of a vesicle is blurred more than the cytoplasm it darkens: at an edge it may exceed it.
        blurred_HW = np.clip(blurred_HW, 0.0, None)
        if not seen:
            blurred_HW = registration.seen(blurred_HW)
        halo_HW = ndimage.gaussian_filter(blurred_HW, model.halo_sigma, truncate=3.0)
        mixed_HW = (1.0 - model.halo_share) * blurred_HW + model.halo_share * halo_HW
        inner_HW = mixed_HW[margin:-margin, margin:-margin]
        seen.append(light * inner_HW * lamp.field((inner_HW.shape[0], inner_HW.shape[1])))
    green_HW = seen[0] + model.bleed_red_to_green * seen[1]
    red_HW = seen[1] + model.bleed_green_to_red * seen[0]
    channels = [
        _record(rng, units_HW * grey, model)
        for units_HW, grey in zip((green_HW, red_HW), model.grey_per_unit, strict=True)
    ]
    return np.stack(channels)


def _record(rng: np.random.Generator, grey_HW: Floats, model: CameraModel) -> NDArray[np.uint16]:
    """Noise of one camera on the expected grey values."""
    grid = model.expectation_grid
    expected_HW = np.rint(grey_HW / model.grey_per_electron / grid) * grid
    electrons_HW = rng.poisson(expected_HW)
    noise_HW = np.rint(rng.normal(model.offset, model.read_noise, expected_HW.shape))
    recorded_HW = np.floor(electrons_HW * model.grey_per_electron) + noise_HW
    image_HW: NDArray[np.uint16] = np.clip(recorded_HW, 0, np.iinfo(np.uint16).max).astype(np.uint16)
    return image_HW
