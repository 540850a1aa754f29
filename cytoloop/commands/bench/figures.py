"""What a benchmark gives: figures, each beside the bar it has to meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Tell = Callable[[str, int, int], None]
"""(what is being done, done, total)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """How large the benchmarks are."""

    items: int = 1_000_000
    """Items of the synthetic home."""
    minutes: float = 1.0
    """Of mixed requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number; lower is better, unless its bar is a floor."""

    name: str
    value: float
    unit: str
    bar: float | None = None
    """What it may be at most; None: told, not judged."""
    is_floor: bool = False
    """The bar is what it must be at least."""

    @property
    def is_met(self) -> bool | None:
        """Whether it is within its bar; None where there is none."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.is_floor else self.value <= self.bar

    @property
    def bar_told(self) -> str:
        """The bar in words; empty where there is none."""
        return "" if self.bar is None else f"{'>=' if self.is_floor else '<='} {self.bar:g} {self.unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a benchmark found."""

    name: str
    title: str
    figures: tuple[Figure, ...]

    def document(self) -> dict[str, object]:
        """As JSON, with what is met."""
        return {
            "name": self.name,
            "title": self.title,
            "figures": [
                {
                    "name": f.name,
                    "value": f.value,
                    "unit": f.unit,
                    "bar": f.bar,
                    "is_floor": f.is_floor,
                    "is_met": f.is_met,
                }
                for f in self.figures
            ],
        }
