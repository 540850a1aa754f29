"""``cytoloop bench codec``: brush RLE beside Label Studio's own converter, byte for byte the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cytoloop.commands.bench.figures import BenchOptions, Figure, Measured, Tell
from cytoloop.commands.bench.material import in_turn, machine, share
from cytoloop.domain.errors import StateError
from labelstudio_config.rle import decode_rle, encode_rle

HEIGHT, WIDTH, PUNCTA = 512, 680, 250
REPEATS = 20
BAR = 0.1
"""Of the converter's time: ten times as fast."""


def measure(_: BenchOptions, tell: Tell) -> Measured:
    """Encoding and decoding of one mask, each as a share of the converter's time.

    Raises
    ------
    StateError
        If the two do not agree to the byte.
    """
    from label_studio_sdk.converter import brush

    alpha_HW = puncta()
    theirs = brush.mask2rle(alpha_HW)
    if encode_rle(alpha_HW) != theirs:
        raise StateError("bench: the encoded bytes are not the converter's")
    if not np.array_equal(
        decode_rle(theirs, HEIGHT, WIDTH), brush.decode_rle(theirs).reshape(HEIGHT, WIDTH, 4)[..., 3]
    ):
        raise StateError("bench: the decoded mask is not the converter's")
    spent = in_turn(
        {
            "encode": lambda: encode_rle(alpha_HW),
            "converter's encode": lambda: brush.mask2rle(alpha_HW),
            "decode": lambda: decode_rle(theirs, HEIGHT, WIDTH),
            "converter's decode": lambda: brush.decode_rle(theirs),
        },
        tell,
        "codec",
        REPEATS,
    )
    figures = [
        figure
        for name in ("encode", "decode")
        for figure in (
            Figure(name=name, value=1e3 * spent[name].wall, unit="ms"),
            share(
                f"{name}, share of the converter's time",
                spent[name].wall,
                spent[f"converter's {name}"].wall,
                BAR,
            ),
        )
    ]
    title = f"Brush RLE of {WIDTH} x {HEIGHT}, {PUNCTA} puncta, equal to label_studio_sdk's to the byte; {machine()}"
    return Measured(name="codec", title=title, figures=tuple(figures))


def puncta() -> NDArray[np.uint8]:
    """Round spots of 2 to 6 pixels' radius: 255 drawn, 0 not."""
    rng = np.random.default_rng(0)
    rows_H1, columns_1W = np.ogrid[:HEIGHT, :WIDTH]
    alpha_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    for row, column, radius in zip(
        rng.uniform(0, HEIGHT, PUNCTA), rng.uniform(0, WIDTH, PUNCTA), rng.uniform(2, 6, PUNCTA), strict=True
    ):
        alpha_HW[(rows_H1 - row) ** 2 + (columns_1W - column) ** 2 <= radius**2] = 255
    return alpha_HW
