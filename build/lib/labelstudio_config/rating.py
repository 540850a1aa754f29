"""Blind rating in Label Studio's language: the page an expert rates on, its pictures, the answer.

A task knows its token and three pictures. Which method made the mask is in the design, on our side alone;
the files are named by the token and written in the order of the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.images import write_png
from cytoloop.domain.assay import Assay
from cytoloop.domain.display import outlined, painted
from cytoloop.domain.errors import InputError
from cytoloop.domain.survey.rating import SCALE
from cytoloop.domain.survey.rating_design import Showing

CONTROL = "rating"
ON = "overlay"
TOKEN_KEY = "token"  # noqa: S105 - a name, no secret
INSTRUCTION = (
    "<p>Each page shows one image, the segmentation of somebody or something you do not know, and the outlines "
    "of that segmentation on the image. Say how well it fits, from <b>1</b> (useless) to <b>10</b> (nothing to "
    "correct): are objects missed, invented, of the wrong class, or badly outlined?</p><p>Judge each page on "
    "its own. The same image comes twice, and on which side the segmentation stands is left to chance.</p>"
)
_STARS = (
    ".ant-rate { counter-reset: star; } "
    ".ant-rate-star { counter-increment: star; } "
    ".ant-rate-star::after { content: counter(star); display: block; text-align: center; font-size: 16px; color: #555; } "
    ".ant-rate-star-zero .ant-rate-star-second { color: #999; } "
    ".ant-rate-star-full { color: #b45309; } "
    ".ant-rate-star-full::after { font-weight: bold; color: #b45309; }"
)
"""A number under each star, and chosen ones darker than the editor's pale yellow."""
_PARTS = ("image", "mask", ON)
_LONG_SIDE = 1000
"""Pixels that the longer side of a picture is enlarged to, so that an outline hides no object."""


def rating_config(assay: Assay, *, with_ignored: bool = False) -> str:
    """XML of a project that rates masks of this assay: three pictures, the classes' colours, 1 to 10.

    ``with_ignored`` where some mask has pixels that nobody looked at: the legend then tells their colour.
    """
    root = ET.Element("View")
    ET.SubElement(root, "Style").text = _STARS
    legend = ET.SubElement(root, "View", style="display: flex; gap: 24px; margin-bottom: 4px")
    labels = [label for _, label in assay.foreground] + ([assay.ignore] if with_ignored else [])
    for label in labels:
        swatch = f"border-left: 18px solid {label.colour}; padding-left: 8px; margin: 0"
        ET.SubElement(legend, "Header", value=label.name, size="5", style=swatch)
    row = ET.SubElement(root, "View", style="display: flex; align-items: flex-start; gap: 12px")
    for name, title in (
        ("left", "$left_title"),
        ("right", "$right_title"),
        (ON, "Segmentation on the image"),
    ):
        column = ET.SubElement(row, "View", style="flex: 1 1 0; min-width: 0")
        ET.SubElement(column, "Header", value=title, size="5")
        # Enlarged already, pixel by pixel; shown smaller without smoothing, the lines would break up.
        options = {"name": name, "value": f"${name}", "zoom": "true", "zoomControl": "true"}
        ET.SubElement(column, "Image", {**options, "smoothing": "true"})
    low, high = SCALE
    ask = f"How well does the segmentation fit? {low} = useless, {high} = nothing to correct"
    ET.SubElement(root, "Header", value=ask, size="4")
    ET.SubElement(
        root,
        "Rating",
        name=CONTROL,
        toName=ON,
        maxRating=str(high),
        icon="star",
        size="large",
        required="true",
        requiredMessage=f"Please rate from {low} to {high}",
    )
    ET.indent(root)
    return ET.tostring(root, encoding="unicode")


def rating_folder(home: Path, name: str) -> Path:
    """Where the pictures of a rating lie, below Label Studio's document root."""
    return home / "renders" / "ratings" / name


def render_rating(
    folder: Path, token: str, picture: NDArray[np.uint8], mask_HW: NDArray[np.uint8], assay: Assay
) -> None:
    """Write the three pictures of one token, all enlarged alike: the editor lays out small ones otherwise.

    Parameters
    ----------
    picture : ndarray of uint8, shape (H, W, 3)
        The item as the expert knows it: the composite.
    mask_HW : ndarray of uint8, shape (H, W)
        Label mask of the method.
    """
    zoom = max(1, round(_LONG_SIDE / max(mask_HW.shape)))
    plain = (view.repeat(zoom, axis=0).repeat(zoom, axis=1) for view in (picture, painted(mask_HW, assay)))
    for part, view in zip(_PARTS, (*plain, outlined(picture, mask_HW, assay, zoom)), strict=True):
        write_png(folder / _file(token, part), view)


def rating_task(name: str, showing: Showing) -> dict[str, Any]:
    """The ``data`` of a task of the rating ``name``."""
    urls = {part: _url(name, showing.token, part) for part in _PARTS}
    sides = [("Image", urls["image"]), ("Segmentation", urls["mask"])]
    if showing.is_mask_left:
        sides.reverse()
    (left_title, left), (right_title, right) = sides
    return {
        TOKEN_KEY: showing.token,
        "left": left,
        "left_title": left_title,
        "right": right,
        "right_title": right_title,
        ON: urls[ON],
    }


def parse_rating(result: Sequence[Mapping[str, Any]], where: str) -> int:
    """The rating in an annotation's result, 1…10.

    Raises
    ------
    InputError
        If there is none or more than one, or it is no whole number of the scale.

    Examples
    --------
    >>> parse_rating([{"type": "rating", "from_name": "rating", "value": {"rating": 7}}], "task 3")
    7
    """
    given = [one for one in result if one.get("type") == "rating" and one.get("from_name") == CONTROL]
    if len(given) != 1:
        raise InputError(f"{where}: {len(given)} ratings, expected one")
    value = given[0].get("value")
    rating = value.get("rating") if isinstance(value, Mapping) else value
    low, high = SCALE
    if isinstance(rating, bool) or not isinstance(rating, int) or not low <= rating <= high:
        raise InputError(f"{where}: rating is {rating!r}, expected a whole number {low}…{high}")
    return rating


def _file(token: str, part: str) -> str:
    return f"{token}-{part}.png"


def _url(name: str, token: str, part: str) -> str:
    return f"/data/local-files/?d=ratings/{quote(name)}/{quote(_file(token, part))}"
