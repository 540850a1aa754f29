"""Blind rating, experts' boxes and what everything takes in time, as the report shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from cytoloop.domain.errors import InputError
from cytoloop.domain.metrics import number_or_none
from cytoloop.domain.types import Method
from trainer.report.scores import ClassBoxes


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedMethod:
    """All ratings of one method."""

    method: str
    n: int
    mean: float | None
    sd: float | None
    median: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedBy:
    """Ratings of one method by one expert, from 1 (useless) to 10."""

    expert: str
    method: str
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingTest:
    """Both methods in the eyes of one expert; differences are the second method minus the first."""

    expert: str
    pairs: int
    mean_difference: float | None
    ks: float | None
    ks_p: float | None
    wilcoxon: float | None
    wilcoxon_p: float | None
    holm_p: float | None
    effect: float | None
    effect_low: float | None
    effect_high: float | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingStudy:
    """The last blind rating of the assay; see ``cytoloop.domain.survey.rating`` for what the figures mean."""

    name: str
    method_a: str
    method_b: str
    complete: bool
    conclusion: str
    methods: tuple[RatedMethod, ...]
    distributions: tuple[RatedBy, ...]
    between_methods: tuple[RatingTest, ...]
    minutes_median: float | None = None

    @property
    def ratings(self) -> int:
        """How many there are."""
        return sum(one.n for one in self.methods)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> RatingStudy:
        """Read what ``rating.json`` holds.

        Raises
        ------
        InputError
            Naming the first field that is not as expected.
        """
        return _read(_RATING, document, "rating")


@dataclass(frozen=True, slots=True, kw_only=True)
class OverExperts:
    """Mean and standard deviation over experts."""

    mean: float | None
    sd: float | None
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxedClass:
    """One class of one method against the experts' boxes, over experts."""

    name: str
    expert: OverExperts
    predicted: OverExperts
    in_lower_band: OverExperts
    in_upper_band: OverExperts
    overlapping_share: OverExperts
    false_positive_ratio: OverExperts
    false_negative_ratio: OverExperts


BOX_FIGURES = (
    *("expert", "predicted", "in_lower_band", "in_upper_band"),
    *("overlapping_share", "false_positive_ratio", "false_negative_ratio"),
)
"""Names of the figures of ``BoxedClass``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxedMethod:
    """One method against the experts' boxes."""

    method: str
    experts: int
    """0: the boxes are those around the objects of the experts' masks, which nobody drew."""
    classes: tuple[BoxedClass, ...]

    @classmethod
    def from_masks(cls, version: str, boxes: Sequence[ClassBoxes]) -> BoxedMethod:
        """The same figures from boxes around the objects of two masks; there is no spread."""
        return cls(
            method=version,
            experts=0,
            classes=tuple(
                BoxedClass(
                    name=one.name,
                    **{
                        figure: OverExperts(mean=number_or_none(getattr(one.counts, figure)), sd=None)
                        for figure in BOX_FIGURES
                    },
                )
                for one in boxes
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxStudy:
    """The last box survey of the assay; see ``cytoloop.domain.survey.boxing`` for what the figures mean."""

    name: str
    complete: bool
    items: int
    """Drawn in, each expert's counted."""
    methods: tuple[BoxedMethod, ...]
    minutes_median: float | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> BoxStudy:
        """Read what ``boxes.json`` holds.

        Raises
        ------
        InputError
            Naming the first field that is not as expected.
        """
        try:
            plain = {
                **document,
                "items": sum(one["images"] for one in document["experts"]),
                "methods": [
                    {
                        "method": one["method"],
                        "experts": len(one["experts"]),
                        "classes": one["over_experts"]["classes"],
                    }
                    for one in document["methods"]
                    if one["over_experts"] is not None
                ],
            }
        except (KeyError, TypeError) as error:
            raise InputError(
                f"boxes: {error!r} while reading, expected what `boxes collect` writes"
            ) from None
        return _read(_BOXES, plain, "boxes")


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanTime:
    """Minutes a person takes for one item, beside the paper's."""

    task: Literal["rate", "boxes", "correct", "scratch"]
    minutes: float | None
    """Median by the editor's clock; None where nothing was measured."""
    n: int
    """Items timed."""


PAPER_MINUTES: Mapping[str, tuple[float, float]] = {
    "rate": (0.5, 1.0),
    "boxes": (3.0, 6.0),
    "correct": (5.0, 10.0),
    "scratch": (20.0, 40.0),
}
"""Per quarter of an image, doi:10.1038/s41598-022-15623-7."""

PAPER_SECONDS: Mapping[str, tuple[float, float]] = {"cip": (900.0, 1200.0), "cdl": (2.0, 5.0)}
"""Per image, likewise; every network as the paper's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What one image costs a version, reading included."""

    version: str
    method: Method
    seconds: float
    """Median per image."""
    images: int
    """Timed."""

    @property
    def paper_seconds(self) -> tuple[float, float]:
        """What the paper's method of the kind took."""
        return PAPER_SECONDS["cip" if self.method == "cip" else "cdl"]


Study = TypeVar("Study")
_RATING: TypeAdapter[RatingStudy] = TypeAdapter(RatingStudy)
_BOXES: TypeAdapter[BoxStudy] = TypeAdapter(BoxStudy)


def _read(adapter: TypeAdapter[Study], document: Mapping[str, Any], kind: str) -> Study:
    try:
        return adapter.validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{kind}: {where}: {first['msg']}, got {first['input']!r}") from error
