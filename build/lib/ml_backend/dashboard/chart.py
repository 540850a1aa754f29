"""Geometry of the learning curve: points and ticks in the units of an SVG that a template draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Literal

from ml_backend.dashboard.curve import CurvePoint

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 14, 44
MOST_TICKS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One cycle."""

    x: float
    y: float
    words: str
    """For whoever points at it, or reads by ear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One kind of items."""

    name: str
    kind: Literal["contest", "sealed"]
    dots: tuple[Dot, ...]

    @property
    def path(self) -> str:
        """``points`` of a polyline."""
        return " ".join(f"{dot.x:.1f},{dot.y:.1f}" for dot in self.dots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """All that is drawn."""

    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def chart_of(points: Sequence[CurvePoint]) -> Chart | None:
    """Mean IoU against the minutes experts have spent; None if no point was measured."""
    measured = {
        "contest": [(p, p.contest_mean_iou) for p in points if p.contest_mean_iou is not None],
        "sealed": [(p, p.sealed_mean_iou) for p in points if p.sealed_mean_iou is not None],
    }
    known = [(p.expert_minutes, iou) for shown in measured.values() for p, iou in shown]
    if not known:
        return None
    longest = max(1.0, max(minutes for minutes, _ in known))
    step = nice_step(longest, MOST_TICKS)
    end = step * ceil(longest / step)
    low = max(0.0, floor(min(iou for _, iou in known) * 10 - 0.5) / 10)

    def x(minutes: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * minutes / end

    def y(iou: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - iou) / (1 - low)

    names: tuple[tuple[Literal["contest", "sealed"], str], ...] = (
        ("contest", "contest wells"),
        ("sealed", "sealed wells"),
    )
    return Chart(
        lines=tuple(
            Line(
                name=name,
                kind=kind,
                dots=tuple(
                    Dot(x=x(p.expert_minutes), y=y(iou), words=_told(p, iou, name))
                    for p, iou in measured[kind]
                ),
            )
            for kind, name in names
            if measured[kind]
        ),
        x_ticks=tuple(Tick(at=x(n * step), label=f"{n * step:g}") for n in range(round(end / step) + 1)),
        y_ticks=tuple(
            Tick(at=y(tenth / 10), label=f"{tenth / 10:.1f}") for tenth in range(round(low * 10), 11)
        ),
    )


def nice_step(longest: float, most: int) -> float:
    """The smallest of 1, 2, 5, 10, 20, 50, … that needs no more than ``most`` steps.

    Examples
    --------
    >>> nice_step(445, 6), nice_step(6, 6), nice_step(7, 6)
    (100.0, 1.0, 2.0)
    """
    power = 10.0 ** floor(log10(longest / most))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * most >= longest)


def _told(point: CurvePoint, iou: float, name: str) -> str:
    return (
        f"{iou:.3f} on {name} after {point.expert_minutes:.0f} minutes and {point.corrections} corrections, "
        f"{point.version}"
    )
