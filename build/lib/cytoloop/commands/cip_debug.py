"""Intermediate images of a recipe as numbered PNG and a page that explains them, a folder an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from cytoloop.adapters.images import write_atomically, write_png
from cytoloop.domain.assay import Assay
from cytoloop.domain.cip import effective_parameters, recipe_of
from cytoloop.domain.cip.pictures import (
    DROPPED,
    KEPT,
    Picture,
    enlarge,
    grey_picture,
    numbered,
    object_count,
    outlined,
    zoom_of,
)
from cytoloop.domain.cip.recipe import StepKind
from cytoloop.domain.display import composite, display_ranges

PAGE = "index.html"
_VOTE = "vote"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """One step as the page shows it."""

    title: str
    text: str
    count: str
    file: str
    rows: list[dict[str, Any]]


class DebugFolder:
    """A recipe's watch that keeps each step, and writes them when the mask is done.

    Parameters
    ----------
    folder : Path
        Of the image; pictures and page of an earlier run are replaced.
    image_CHW : ndarray of float32, shape (C, H, W)
        Raw grey values, for the pictures that outlines are drawn on.
    """

    def __init__(self, folder: Path, image_id: str, image_CHW: NDArray[np.float32], assay: Assay) -> None:
        self._folder = folder
        self._image_id = image_id
        self._assay = assay
        self._recipe = recipe_of(assay.cip)
        self._zoom = zoom_of(image_CHW.shape[2])
        self._steps: list[tuple[str, NDArray[Any], StepKind]] = []
        ranges = display_ranges([image_CHW], assay)
        # Drawn on light as it was measured: a picture of the corrected light is a step of its own.
        self._composite = enlarge(composite(image_CHW, ranges, assay), self._zoom)
        self._channels = [grey_picture(channel_HW, self._zoom) for channel_HW in image_CHW]

    def __call__(self, name: str, array: NDArray[Any], kind: StepKind) -> None:
        """Keep a step; recipes do not write into what they have told."""
        self._steps.append((name, array, kind))

    def write(self, mask_HW: NDArray[np.uint8]) -> None:
        """Write ``01-<step>.png`` … and ``index.html``.

        Parameters
        ----------
        mask_HW : ndarray of uint8, shape (H, W)
            The weak label, which several teachers may have voted on.
        """
        if self._assay.cip.teachers:
            self._steps.append((_VOTE, mask_HW, "classes"))
        clear(self._folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        parameters = {name: f"{value:g}" for name, value in effective_parameters(self._assay.cip).items()}
        shown = []
        for number, (name, array, kind) in enumerate(self._steps, start=1):
            file = f"{number:02d}-{name}.png"
            title, text, channel = self._told(name)
            write_png(self._folder / file, self._picture(array, kind, channel))
            shown.append(
                _Shown(
                    title=title,
                    text=text.format_map(parameters),
                    count=self._count(array, kind),
                    file=file,
                    rows=[dict(zip(array.dtype.names, row.item(), strict=True)) for row in array]
                    if kind == "dropped" and array.dtype.names
                    else [],
                )
            )
        environment = Environment(
            loader=PackageLoader("cytoloop.commands", "."), autoescape=True, undefined=StrictUndefined
        )
        page = environment.get_template("cip_debug.html").render(
            image_id=self._image_id,
            assay=self._assay.name,
            recipe=self._recipe.name,
            steps=shown,
            kept=KEPT,
            dropped=DROPPED,
            classes=[(label.name, label.colour) for _, label in self._assay.foreground],
            zoom=self._zoom,
            teachers=1 + len(self._assay.cip.teachers),
            height=self._composite.shape[0],
            width=self._composite.shape[1],
        )
        write_atomically(self._folder / PAGE, lambda path: path.write_text(page, encoding="utf-8"))

    def _told(self, name: str) -> tuple[str, str, int | None]:
        if name == _VOTE:
            return (
                "What the teachers decided",
                "The class most teachers give each pixel: the weak label.",
                None,
            )
        step = self._recipe.steps[name]
        return step.title, step.text, step.channel

    def _picture(self, array: NDArray[Any], kind: StepKind, channel: int | None) -> Picture:
        if kind == "grey":
            return grey_picture(array, self._zoom)
        ground = self._composite if channel is None else self._channels[channel]
        if kind == "dropped":
            places = zip(array["row"].tolist(), array["column"].tolist(), strict=True)
            return numbered(ground, places, DROPPED, self._zoom)
        if kind == "classes":
            colours = {value: label.colour for value, label in self._assay.foreground}
        elif kind == "labels":
            colours = dict.fromkeys(range(1, int(array.max(initial=0)) + 1), KEPT)
        else:  # a mask is a sieve that drops nothing
            colours = {1: KEPT, 2: DROPPED}
        return outlined(ground, array, colours, self._zoom)

    def _count(self, array: NDArray[Any], kind: StepKind) -> str:
        if kind == "sieve":
            return f"{object_count(array == 1)} kept, {object_count(array == 2)} dropped"
        if kind == "mask":
            return f"{object_count(array)} found"
        if kind == "labels":
            return f"{int(array.max(initial=0))} found"
        if kind == "classes":
            return ", ".join(
                f"{object_count(array == value)} {label.name}" for value, label in self._assay.foreground
            )
        if kind == "dropped":
            return f"{len(array)} dropped"
        return ""


def clear(folder: Path) -> None:
    """Remove what an earlier run wrote into an image's folder, and nothing else."""
    for path in folder.glob("[0-9][0-9]-*.png"):
        path.unlink()
    (folder / PAGE).unlink(missing_ok=True)
