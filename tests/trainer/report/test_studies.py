"""What ``rate collect`` and ``boxes collect`` write is what the report reads."""

import numpy as np
import pytest

from cytoloop.domain.errors import InputError
from cytoloop.domain.metrics import Box, BoxCounts, box_scores
from cytoloop.domain.survey.boxing import BoxedItem, BoxSurvey, MethodBoxes
from cytoloop.domain.survey.rating import Rating, rating_report
from cytoloop.domain.survey.study import Progress
from cytoloop.domain.types import Item
from trainer.report import BoxedMethod, BoxStudy, ClassBoxes, RatingStudy

ADA = Progress(expert="ada", set=1, done=2, total=2, skipped=0, by_others=0, project_id=5)
ITEMS = [Item(image_id=name, tile=0) for name in "ab"]


def test_a_rating_reads_as_it_was_written() -> None:
    ratings = [
        Rating(expert="ada", set=1, item=item, method=method, value=value, lead_time_s=30.0)
        for method, values in (("cip-1", (2, 4)), ("cdl-1", (7, 9)))
        for item, value in zip(ITEMS, values, strict=True)
    ]
    written = rating_report("r", "rosella", ("cip-1", "cdl-1"), [ADA], ratings, np.random.default_rng(0))
    study = RatingStudy.from_document(written.to_dict())
    assert (study.name, study.method_a, study.method_b) == ("r", "cip-1", "cdl-1")
    assert study.conclusion == written.conclusion
    assert [(one.method, one.values) for one in study.distributions] == [
        ("cip-1", (2, 4)),
        ("cdl-1", (7, 9)),
    ]
    assert [(one.method, one.mean) for one in study.methods] == [("cip-1", 3.0), ("cdl-1", 8.0)]
    (test,) = study.between_methods
    assert (test.pairs, test.mean_difference, test.effect) == (2, 5.0, 1.0)
    assert (study.minutes_median, study.ratings) == (0.5, 4)


def test_ratings_that_say_nothing_yet_read_too() -> None:
    written = rating_report("r", "rosella", ("cip-1", "cdl-1"), [ADA], [], np.random.default_rng(0))
    study = RatingStudy.from_document(written.to_dict())
    assert (study.methods[0].mean, study.between_methods[0].ks_p, study.minutes_median) == (None, None, None)


def survey(boxed: list[BoxedItem], methods: list[MethodBoxes]) -> BoxSurvey:
    return BoxSurvey(
        name="b",
        assay="rosella",
        class_names=("background", "spot"),
        progress=(ADA,),
        boxed=tuple(boxed),
        methods=tuple(methods),
    )


def test_boxes_read_as_they_were_written() -> None:
    box = Box(value=1, top=0, left=0, bottom=4, right=4)
    far = Box(value=1, top=20, left=20, bottom=24, right=24)
    boxed = [BoxedItem(expert="ada", set=1, item=ITEMS[0], boxes=(box, far), lead_time_s=120.0)]
    scores = box_scores([box, far], [box], 2)
    methods = [
        MethodBoxes(method="cip-1", experts=(("ada", 1, scores), ("bob", 1, scores))),
        MethodBoxes(method="cdl-1", experts=()),
    ]
    study = BoxStudy.from_document(survey(boxed, methods).to_dict())
    assert (study.name, study.items, study.minutes_median) == ("b", 1, 2.0)
    (method,) = study.methods
    assert (method.method, method.experts) == ("cip-1", 2), "nobody drew for the other"
    (spot,) = method.classes
    assert spot.name == "spot"
    assert (spot.expert.mean, spot.predicted.mean, spot.in_upper_band.mean) == (2, 1, 1)
    assert (spot.false_negative_ratio.mean, spot.false_negative_ratio.sd) == (0.5, 0.0)
    assert spot.false_positive_ratio.mean == 0.0


def test_boxes_of_masks_have_the_same_figures_without_a_spread() -> None:
    counts = BoxCounts(expert=4, predicted=0, matched=0)
    (spot,) = BoxedMethod.from_masks("cip-1", [ClassBoxes(name="spot", counts=counts)]).classes
    assert (spot.expert.mean, spot.false_negative_ratio.mean) == (4, 1.0)
    assert (spot.false_positive_ratio.mean, spot.expert.sd) == (None, None)


def test_what_is_no_study_is_refused_by_the_field_that_is_wrong() -> None:
    with pytest.raises(InputError, match="rating: name"):
        RatingStudy.from_document({})
    with pytest.raises(InputError, match="boxes: KeyError"):
        BoxStudy.from_document({"experts": []})
    document = {**survey([], []).to_dict(), "complete": "perhaps"}
    with pytest.raises(InputError, match="boxes: complete"):
        BoxStudy.from_document(document)
