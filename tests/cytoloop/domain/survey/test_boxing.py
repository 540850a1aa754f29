from __future__ import annotations

import json

import pytest

from cytoloop.domain.metrics.boxes import Box, box_scores
from cytoloop.domain.survey.boxing import BoxedItem, BoxSurvey, MethodBoxes
from cytoloop.domain.survey.study import Progress
from cytoloop.domain.types import Item

ONE = Box(value=1, top=0, left=0, bottom=4, right=4)
FAR = Box(value=1, top=20, left=20, bottom=24, right=24)


def survey(*experts: tuple[str, tuple[Box, ...]]) -> BoxSurvey:
    boxed = tuple(
        BoxedItem(expert=expert, set=1, item=Item(image_id="i", tile=0), boxes=boxes, lead_time_s=120.0 * n)
        for n, (expert, boxes) in enumerate(experts, start=1)
    )
    progress = tuple(Progress(expert=one, set=1, done=1, total=2, project_id=1) for one, _ in experts)
    scored = tuple((expert, 1, box_scores(boxes, (ONE, FAR), 3)) for expert, boxes in experts)
    return BoxSurvey(
        name="b1",
        assay="rosella",
        class_names=("Background", "Phagophore", "Autolysosome"),
        progress=progress,
        boxed=boxed,
        methods=(MethodBoxes(method="cip-1", experts=scored),),
    )


def test_mean_and_spread_over_experts() -> None:
    # ada boxes both events: no false positive of two; bob one: one false positive of two.
    document = survey(("ada", (ONE, FAR)), ("bob", (ONE,))).to_dict()
    [method] = document["methods"]
    assert [one["foreground"]["false_positive_ratio"] for one in method["experts"]] == [0.0, 0.5]
    spread = method["over_experts"]["classes"][0]
    assert spread["name"] == "Phagophore"
    assert spread["false_positive_ratio"] == {"mean": 0.25, "sd": pytest.approx(0.125**0.5), "count": 2}
    assert document["experts"][0] == {
        "expert": "ada",
        "set": 1,
        "images": 1,
        "boxes": 2,
        "minutes_median": 2.0,
    }
    assert document["minutes_median"] == 3.0
    assert not document["complete"]
    json.dumps(document, allow_nan=False)


def test_nobody_has_drawn_anything() -> None:
    empty = survey()
    assert empty.to_dict()["methods"] == [{"method": "cip-1", "experts": [], "over_experts": None}]
    assert empty.to_dict()["minutes_median"] is None
