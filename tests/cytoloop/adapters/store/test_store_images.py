"""Images, groups, splits, items and weak labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from samples import Item, make_assay, make_record

from cytoloop.adapters.store import Store
from cytoloop.adapters.store.connection import SqliteFile
from cytoloop.adapters.store.migrations import STORE
from cytoloop.domain.errors import InputError, ShapeError, StateError, UnknownImage

ASSAY = make_assay()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


def plate(wells: int, fields: int = 2, name: str = "P1") -> list:  # type: ignore[type-arg]
    return [
        make_record(
            f"{name}_{well}_f{field}", group=f"{name}/{well}", plate=name, well=str(well), field=str(field)
        )
        for well in range(wells)
        for field in range(fields)
    ]


def test_a_record_comes_back_as_it_was_with_its_split(store: Store) -> None:
    record = make_record("a", plate="P", well="B02", field="1", treatment="Torin µ", files=("/x/a1", "/x/a2"))
    (new,) = store.images.add(ASSAY, [record])
    assert store.images.get("rosella", "a") == new == replace(record, split=new.split)
    assert [item.tile for item in store.images.tasks("rosella")] == [0, 1, 2, 3]


def test_the_same_again_is_nothing_new(store: Store) -> None:
    records = plate(4)
    assert len(store.images.add(ASSAY, records)) == 8
    assert store.images.add(ASSAY, records) == []
    assert len(store.images.add(ASSAY, [*records, make_record("new")])) == 1
    assert len(store.images.all("rosella")) == 9


def test_one_id_with_other_pixels_is_refused_and_nothing_is_added(store: Store) -> None:
    store.images.add(ASSAY, [make_record("a")])
    other = make_record("a", image_key="f" * 64, files=("/other/a.png",))
    with pytest.raises(
        InputError, match=r"/other/a\.png: image id 'a' is already stored with other pixels"
    ) as e:
        store.images.add(ASSAY, [make_record("b"), other, make_record("c")])
    assert "got ffffffffffff" in str(e.value)
    assert [r.image_id for r in store.images.all("rosella")] == ["a"]
    assert list(store.images.groups("rosella")) == ["a"]


def test_one_id_twice_in_one_import_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match=r"image id 'a' .*other pixels"):
        store.images.add(ASSAY, [make_record("a"), make_record("a", image_key="f" * 64)])
    assert store.images.all("rosella") == []
    assert len(store.images.add(ASSAY, [make_record("a"), make_record("a")])) == 1


def test_adding_is_all_or_nothing(store: Store) -> None:
    small = make_record("small", height=1, width=80)
    with pytest.raises(ShapeError, match=r"\(1, 80\) cannot be cut into 2x2 tiles"):
        store.images.add(ASSAY, [*plate(3), small])
    assert store.images.all("rosella") == []
    assert store.images.groups("rosella") == {}
    assert store.images.tasks("rosella") == {}


def test_equal_pixels_may_be_two_records(store: Store) -> None:
    blank = "0" * 64
    store.images.add(ASSAY, [make_record("a", image_key=blank), make_record("b", image_key=blank)])
    assert len(store.images.all("rosella")) == 2


def test_a_groups_split_never_changes_and_new_fields_follow_it(store: Store) -> None:
    store.images.add(ASSAY, plate(6, fields=1))
    before = store.images.groups("rosella")
    for more in range(6, 60, 6):
        store.images.add(ASSAY, plate(more, fields=2))
    after = store.images.groups("rosella")
    assert {group: after[group] for group in before} == before
    for record in store.images.all("rosella"):
        assert record.split == after[record.group]


def test_splits_do_not_depend_on_file_order(tmp_path: Path) -> None:
    drawn = []
    for number, records in enumerate((plate(20), plate(20)[::-1])):
        store = Store(tmp_path / str(number))
        store.images.add(ASSAY, records)
        drawn.append(store.images.groups("rosella"))
        store.close()
    assert drawn[0] == drawn[1]


def test_images_can_be_asked_for_by_split(store: Store) -> None:
    store.images.add(ASSAY, plate(20, fields=1))
    contest = store.images.all("rosella", ["contest"])
    assert len(contest) == 5
    assert {r.split for r in contest} == {"contest"}
    assert store.images.all("rosella", []) == []
    with pytest.raises(UnknownImage, match="image 'x' is not in assay 'rosella'"):
        store.images.get("rosella", "x")


def test_assays_do_not_see_each_other(store: Store) -> None:
    other = make_assay(name="other", tiling=(1, 1))
    store.images.add(ASSAY, [make_record("a")])
    store.images.add(other, [make_record("a", image_key="f" * 64)])
    assert len(store.images.tasks("rosella")) == 4
    assert list(store.images.tasks("other")) == [Item(image_id="a", tile=0)]


# --- tasks -----------------------------------------------------------------------------------------

A0, A1 = Item(image_id="a", tile=0), Item(image_id="a", tile=1)


def test_tasks_find_their_items(store: Store) -> None:
    store.images.add(ASSAY, [make_record("a")])
    store.images.set_tasks("rosella", {A0: 5, A1: 6})
    assert store.images.item_of_task("rosella", 6) == A1
    assert store.images.tasks("rosella")[A0] == 5
    for assay, task in (("rosella", 7), ("other", 5)):
        with pytest.raises(UnknownImage, match=f"task {task}: shows no item of assay '{assay}'"):
            store.images.item_of_task(assay, task)


def test_tasks_can_be_asked_for_by_item(store: Store) -> None:
    store.images.add(ASSAY, [make_record("a")])
    first, second, third = (Item(image_id="a", tile=tile) for tile in range(3))
    store.images.set_tasks("rosella", {first: 41, second: 42})
    assert store.images.tasks_of("rosella", [second, third, Item(image_id="b", tile=0)]) == {second: 42}
    assert store.images.tasks_of("other", [first]) == {}


def test_a_task_id_that_was_given_again_shows_the_new_item(store: Store) -> None:
    store.images.add(ASSAY, [make_record("a")])
    store.images.set_tasks("rosella", {A0: 5})
    store.images.forget_tasks("rosella", [5, 99])
    store.images.set_tasks("rosella", {A1: 5})
    assert store.images.item_of_task("rosella", 5) == A1
    # and the same where the deletion went unnoticed
    store.images.set_tasks("rosella", {A0: 5})
    assert store.images.item_of_task("rosella", 5) == A0
    assert store.images.tasks("rosella")[A1] is None


# --- weak labels, display, assays ------------------------------------------------------------------


def test_weak_labels_are_kept_by_recipe_and_code(store: Store) -> None:
    (record,) = store.images.add(ASSAY, [make_record("a")])
    for digest, code, mask in (("r1", "1", "m1"), ("r2", "1", "m2"), ("r1", "2", "m3"), ("r1", "1", "m4")):
        store.images.add_weak_label("rosella", record, "rosella", digest, code, mask)
    assert store.images.weak_labels("rosella", "r1", "1") == {"a": "m4"}
    assert store.images.weak_labels("rosella", "r1", "2") == {"a": "m3"}
    assert store.images.weak_labels("rosella", "r3", "1") == {}


def test_confidences_are_kept_beside_the_masks_that_teachers_voted_for(store: Store) -> None:
    a, b = store.images.add(ASSAY, [make_record("a"), make_record("b")])
    store.images.add_weak_label("rosella", a, "rosella", "r1", "1", "m1", "c1")
    store.images.add_weak_label("rosella", b, "rosella", "r1", "1", "m2")
    store.images.add_weak_label("rosella", a, "rosella", "r2", "1", "m3", "c3")
    assert store.images.weak_labels("rosella", "r1", "1") == {"a": "m1", "b": "m2"}
    assert store.images.weak_confidences("rosella", "r1", "1") == {"a": "c1"}
    assert store.images.weak_confidences("rosella", "r1", "2") == {}


def test_weak_labels_of_an_older_home_stay_without_confidence(tmp_path: Path) -> None:
    before = {name: step for name, step in STORE.items() if name < "0004"}
    file = SqliteFile(tmp_path / "cytoloop.sqlite3", before)
    file.db.execute(
        "INSERT INTO weak_labels VALUES ('rosella', 'a', 'k', 'rosella', 'r1', '1', 'm1', '2024-05-17')"
    )
    file.close()
    opened = Store(tmp_path)
    assert opened.images.weak_labels("rosella", "r1", "1") == {"a": "m1"}
    assert opened.images.weak_confidences("rosella", "r1", "1") == {}
    opened.close()


def test_display_ranges_are_kept_by_plate(store: Store) -> None:
    assert store.images.display_ranges("rosella", "P") == {}
    store.images.set_display_ranges("rosella", "P", {"pHluorin": (1.5, 900.0), "DsRed": (0.0, 10.0)})
    store.images.set_display_ranges("rosella", "P", {"DsRed": (0.0, 20.0)})
    assert store.images.display_ranges("rosella", "P") == {"pHluorin": (1.5, 900.0), "DsRed": (0.0, 20.0)}
    assert store.images.display_ranges("rosella", "Q") == {}


def test_an_assay_may_change_its_looks_but_not_its_meaning(store: Store) -> None:
    store.assays.ensure(ASSAY)
    store.assays.ensure(replace(ASSAY, training_preset="smoke", queues=("one",)))
    document = store.assays.get("rosella")
    assert '"smoke"' in document["document"]
    changes = (
        ({"tiling": (1, 1)}, r"tiling is \[1, 1\], this home was filled with \[2, 2\]"),
        ({"classes": ASSAY.classes[:2]}, "classes is"),
        ({"channels": ASSAY.channels[::-1]}, "channels is"),
        ({"ignore": replace(ASSAY.ignore, name="Unsure")}, "ignore is Unsure"),
    )
    for change, message in changes:
        with pytest.raises(StateError, match=message):
            store.assays.ensure(replace(ASSAY, **change))
    assert '"smoke"' in store.assays.get("rosella")["document"]


def test_assays_are_found_by_name_and_project(store: Store) -> None:
    store.assays.ensure(ASSAY)
    store.assays.update("rosella", project_id=3)
    assert store.assays.of_project(3) == "rosella"
    assert store.assays.names() == ["rosella"]
    with pytest.raises(UnknownImage, match=r"project 4: belongs to no assay of this home \(\['rosella'\]\)"):
        store.assays.of_project(4)
    with pytest.raises(UnknownImage, match=r"assay 'x' is not in this home"):
        store.assays.get("x")
