"""What the ranking is worth: ranked items beside items drawn at random, counted and in words."""

from dataclasses import replace

import pytest

from cytoloop.domain.types import Role
from trainer.report import AuditPoint, Changes, CorrectedItem, audit_point
from trainer.report.ranking import together, worth_in_words

CHANGES = Changes(
    pixels_added=10,
    pixels_removed=5,
    pixels_relabelled=0,
    pixels_set_aside=0,
    objects_added=1,
    objects_removed=1,
    objects_relabelled=1,
    objects_reshaped=1,
    minutes_estimated=2.0,
    class_to_class=((80, 10, 0), (5, 5, 0), (0, 0, 0)),
)


def item(role: Role | None, minutes: float | None = 2.0, objects: int = 4) -> CorrectedItem:
    return CorrectedItem(
        image_id="a",
        tile=0,
        expert="ada",
        start="prediction",
        version="cdl-1",
        minutes=minutes,
        changes=replace(CHANGES, objects_reshaped=objects - 3),
        role=role,
    )


def point(*items: CorrectedItem) -> AuditPoint:
    found = audit_point("c1", 30.0, items)
    assert found is not None
    return found


def words(*items: CorrectedItem) -> str:
    return worth_in_words([point(*items)], items)


def test_each_kind_is_counted_for_itself() -> None:
    found = point(
        item("ranked", 2.0, 4),
        item("ranked", 4.0, 20),
        item("ranked", 8.0, 16),
        item("audit", 2.0, 3),
        item("contest", 99.0, 99),
        item("overlap", 99.0, 99),
        item(None, 99.0, 99),
    )
    assert (found.cycle, found.expert_minutes) == ("c1", 30.0)
    assert (found.ranked.items, found.ranked.minutes, found.ranked.objects_changed) == (3, 4.0, 16.0)
    assert found.ranked.objects_per_minute == 2.0, "of 4 / 2, 20 / 4 and 16 / 8"
    assert (found.audit.items, found.audit.minutes, found.audit.objects_changed) == (1, 2.0, 3.0)
    assert found.audit.objects_per_minute == 1.5


def test_agreement_is_of_all_pixels_together_over_the_classes_there_are() -> None:
    # 80 / 95 and 5 / 20 of the two classes; the third is in neither mask
    assert point(item("audit")).audit.mean_iou == pytest.approx((80 / 95 + 5 / 20) / 2)
    perfect = replace(
        item("audit"), changes=replace(CHANGES, class_to_class=((0, 0, 0), (0, 40, 0), (0, 0, 0)))
    )
    # background 80 / 95, the class 45 / 60: summed first
    assert point(item("audit"), perfect).audit.mean_iou == pytest.approx((80 / 95 + 45 / 60) / 2)


@pytest.mark.parametrize(
    "unfit",
    [
        replace(item("ranked"), start="blank", version=None),
        replace(item("ranked"), start="unknown", version=None, changes=None),
        replace(item("ranked"), changes=None),
        item("validation"),
        item(None),
    ],
)
def test_without_a_proposal_or_the_role_there_is_no_point(unfit: CorrectedItem) -> None:
    assert audit_point("c", 1.0, [unfit]) is None
    assert audit_point("c", 1.0, [unfit, item("ranked")]) == audit_point("c", 1.0, [item("ranked")])


def test_items_without_a_time_count_in_all_but_minutes() -> None:
    ranked = point(item("ranked", None, 10), item("ranked", 2.0, 4), item("ranked", 0.0, 0)).ranked
    assert (ranked.items, ranked.minutes, ranked.objects_changed, ranked.objects_per_minute) == (
        3,
        1.0,
        4.0,
        2.0,
    )
    untimed = point(item("ranked", None, 10)).ranked
    assert (untimed.minutes, untimed.objects_per_minute) == (None, None)


def test_cycles_are_put_together_item_by_item() -> None:
    first = point(item("ranked", 1.0, 3), item("ranked", 1.0, 3))
    second = point(item("ranked", 9.0, 90), item("audit"))
    both = together([first.ranked, second.ranked])
    assert (both.items, both.minutes, both.objects_changed) == (3, 1.0, 3.0), "medians of three items"
    assert both.mean_iou is None, "of two versions"


def test_the_sentence_says_what_each_kind_needed() -> None:
    found = words(*[item("ranked", 6.1, 14)] * 5, *[item("audit", 3.2, 5)] * 5)
    assert found == (
        "Ranked items needed 6.1 min and 14 changed objects each, items drawn at random 3.2 min and 5: a minute of "
        "work changed 2.3 objects of a ranked item and 1.6 of one drawn at random."
    )


def test_fewer_than_five_of_either_are_too_few_to_tell() -> None:
    few = words(*[item("ranked", 6.1, 14)] * 5, *[item("audit", 3.2, 5)] * 4)
    assert "items drawn at random 3.2 min and 5; too few to tell: 5 ranked items and 4 drawn at random" in few
    assert "too few to tell: 1 ranked item and 5 drawn" in words(item("ranked"), *[item("audit")] * 5)


def test_the_sentence_is_of_all_cycles() -> None:
    items = [item("ranked", 6.1, 14), item("ranked", 6.1, 14), item("audit", 3.2, 5), item("audit", 3.2, 5)]
    assert "too few" in worth_in_words([point(*items)] * 2, items)
    assert "a minute of work" in worth_in_words([point(*items)] * 3, items)
    assert "a minute of work" in worth_in_words([point(*items)] * 3, []), "nothing new in this cycle"


def test_without_times_objects_are_told() -> None:
    found = words(*[item("ranked", None, 14)] * 5, *[item("audit", None, 5)] * 5)
    assert found.startswith("Ranked items needed 14 changed objects each, items drawn at random 5. ")
    assert "not recorded" in found


def test_where_nothing_can_be_compared_it_is_said_why() -> None:
    assert "nothing was corrected" in worth_in_words([], [])
    assert "none of the 2 corrected items was handed out as ranked" in worth_in_words(
        [], [item(None), item("contest")]
    )
    unknown = [replace(item("ranked"), changes=None), item(None)]
    assert "1 item ranked or drawn at random had no proposal" in worth_in_words([], unknown)
    assert "no item drawn at random has been corrected" in words(item("ranked"), item("ranked"))
    assert "Nothing to compare the 1 item drawn at random with" in words(item("audit"))
