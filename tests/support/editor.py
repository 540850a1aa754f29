"""Label Studio's editor as a test drives it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def log_in(page: Any, url: str, user: str, password: str) -> None:
    """Log in by the form."""
    page.goto(f"{url}/user/login/")
    page.fill("input[name=email]", user)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_load_state("networkidle")


class Editor:
    """The open labeling page; positions in pixels of the image, as (x, y)."""

    def __init__(self, page: Any, width: int, height: int) -> None:
        self.page = page
        self._size = (width, height)
        page.wait_for_selector(".lsf-outliner-item", timeout=60_000)
        page.wait_for_timeout(1500)  # regions are painted after their entries in the outliner

    def at(self, x: float, y: float) -> tuple[float, float]:
        # The rectangle of the picture itself: the canvas around it is a few percent larger.
        box = self.page.locator("img[alt=image]").first.bounding_box()
        return box["x"] + x * box["width"] / self._size[0], box["y"] + y * box["height"] / self._size[1]

    def stroke(self, start: tuple[float, float], stop: tuple[float, float]) -> None:
        self.page.mouse.move(*self.at(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(*stop), steps=6)
        self.page.mouse.up()
        self.page.wait_for_timeout(300)

    def colour(self, x: float, y: float) -> np.ndarray:
        shot = np.array(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")).astype(int)
        column, row = (round(v) for v in self.at(x, y))
        return shot[row - 1 : row + 2, column - 1 : column + 2].mean(axis=(0, 1))
