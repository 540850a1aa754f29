"""What experts changed, summed up."""

from dataclasses import replace

from trainer.report import Changes, CorrectedItem, change_rows, class_moves

CHANGES = Changes(
    pixels_added=10,
    pixels_removed=4,
    pixels_relabelled=2,
    pixels_set_aside=0,
    objects_added=1,
    objects_removed=0,
    objects_relabelled=3,
    objects_reshaped=5,
    minutes_estimated=2.0,
    class_to_class=((80, 10, 0), (4, 20, 2), (0, 0, 9)),
)
ITEM = CorrectedItem(image_id="a", tile=0, expert="ada", start="blank", minutes=3.0, changes=CHANGES)


def rows(*items: CorrectedItem) -> dict[str, tuple[float, float]]:
    return {row.name: (row.total, row.median) for row in change_rows(items)}


def test_totals_and_medians_are_of_the_items_that_can_be_compared() -> None:
    more = replace(CHANGES, pixels_added=20, objects_added=2)
    most = replace(CHANGES, pixels_added=90, objects_added=9)
    unknown = replace(ITEM, start="unknown", changes=None)
    found = rows(ITEM, replace(ITEM, changes=more), replace(ITEM, changes=most), unknown)
    assert found["pixels added"] == (120, 20)
    assert found["objects added"] == (12, 2)
    assert found["objects given another class"] == (9, 3)


def test_measured_and_estimated_minutes_are_of_the_same_items() -> None:
    untimed = replace(ITEM, minutes=None, changes=replace(CHANGES, minutes_estimated=100.0))
    unknown = replace(ITEM, minutes=50.0, changes=None)
    found = rows(ITEM, untimed, unknown)
    assert found["minutes in the editor"] == (3.0, 3.0)
    assert found["minutes by the effort model"] == (2.0, 2.0)
    assert "minutes in the editor" not in rows(untimed)


def test_without_a_known_start_there_are_no_rows() -> None:
    assert change_rows([replace(ITEM, changes=None)]) == ()
    assert change_rows([]) == ()


def test_moves_between_classes_are_summed_and_the_largest_comes_first() -> None:
    moves = class_moves([ITEM, ITEM, replace(ITEM, changes=None)], ["background", "spot", "rod"])
    assert [(m.before, m.after, m.pixels) for m in moves] == [
        ("background", "spot", 20),
        ("spot", "background", 8),
        ("spot", "rod", 4),
    ]
