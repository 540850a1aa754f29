"""Rankings: the top of the list, the draw, and how one ranking takes the place of another."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import Item

from cytoloop.adapters.store import Scored, Store
from cytoloop.adapters.store import scores as scores_module
from cytoloop.domain.errors import CytoloopError, InputError, ShapeError, StateError
from cytoloop.domain.scoring import SCORES
from cytoloop.domain.worklist import Candidate

A, B, C, D = (Item(image_id=image, tile=tile) for image in "ab" for tile in range(2))
OLD, NEW = "cdl-20240517-00000000", "cdl-20240518-00000000"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


def scored(item: Item, score: float = 0.5, reason: str = "", values: Any = None, **changes: Any) -> Scored:
    candidate = Candidate(
        **{
            "item": item,
            "split": "train",
            "group": "P-A01",
            "plate": "P",
            "score": score,
            "confidence": 0.5,
            "lot": 0.5,
            "minutes": 6.0,
            **changes,
        }
    )
    return Scored(candidate=candidate, values=values or {}, reason=reason)


def put(store: Store, *rows: Scored, version: str = OLD, strategy: str = "entropy", **more: Any) -> int:
    return store.scores.put("rosella", version, strategy, rows, **more)


def top(store: Store, limit: int = 9, split: Any = "train", **more: Any) -> list[Item]:
    found = store.scores.top("rosella", more.pop("version", OLD), "entropy", split, limit, **more)
    return [one.item for one in found]


def tables(store: Store) -> set[str]:
    names = store.predictions.file.db.table_names()
    return {name for name in names if name.startswith("scores_")}


def test_a_ranking_comes_back_as_it_was_also_after_a_restart(tmp_path: Path, store: Store) -> None:
    values = {name: 0.125 * n for n, name in enumerate(SCORES)}
    features_F = np.array([0.6, 0.0, -0.8], np.float32)
    row = scored(A, 1.5, "14 objects differ", values, lot=0.25, confidence=0.125, features_F=features_F)
    bare = scored(B, 0.5, minutes=None, split="contest", group="", plate="")
    assert put(store, row, bare) == 2
    store.close()
    again = Store(tmp_path)
    kept = again.scores.get("rosella", OLD, "entropy", [A, B, C])
    assert list(kept) == [A, B]
    assert (kept[A].reason, kept[A].values) == ("14 objects differ", values)
    c = kept[A].candidate
    assert (c.item, c.split, c.group, c.plate) == (A, "train", "P-A01", "P")
    assert (c.score, c.confidence, c.lot, c.minutes) == (1.5, 0.125, 0.25, 6.0)
    assert c.features_F is not None
    assert c.features_F.dtype == np.float32
    np.testing.assert_allclose(c.features_F, features_F, rtol=2**-11)
    assert (kept[B].candidate.minutes, kept[B].candidate.features_F, kept[B].values) == (None, None, {})
    again.close()


def test_the_highest_score_comes_first_and_equals_by_item(store: Store) -> None:
    put(store, scored(D, 0.5), scored(B, -1.0), scored(A, 0.5), scored(C, 2.0))
    assert top(store) == [C, A, D, B]
    assert top(store, limit=2) == [C, A]


def test_the_lowest_lot_is_drawn_first_whatever_the_score(store: Store) -> None:
    put(store, scored(A, 0.9, lot=0.75), scored(B, 0.1, lot=0.25), scored(C, 0.5, lot=0.5))
    drawn = store.scores.drawn("rosella", OLD, "entropy", "train", 2)
    assert [one.item for one in drawn] == [B, C]


def test_a_list_is_of_one_split(store: Store) -> None:
    put(store, scored(A, split="contest"), scored(B), scored(C, split="sealed"))
    assert [top(store, split=split) for split in ("train", "validation", "contest", "sealed")] == [
        [B],
        [],
        [A],
        [C],
    ]


def test_what_is_closed_does_not_come_up_and_can_be_opened_again(store: Store) -> None:
    put(store, scored(A, 3), scored(B, 2), scored(C, 1), finished={B})
    put(store, scored(A, 3), scored(B, 2), version=NEW)
    assert top(store) == [A, C]
    store.scores.set_open("rosella", [A, D], False)
    assert (top(store), top(store, version=NEW)) == ([C], [B])
    store.scores.set_open("rosella", [A, B], True)
    assert (top(store), top(store, version=NEW)) == ([A, B, C], [A, B])
    store.scores.set_open("other", [A], False)
    assert top(store) == [A, B, C]


def test_flags_may_be_stale_so_what_is_looked_up_decides(store: Store) -> None:
    rows = [scored(Item(image_id="i", tile=tile), score=-tile) for tile in range(10)]
    put(store, *rows)
    asked: list[int] = []

    def closed(items: Sequence[Item]) -> set[Item]:
        asked.extend(item.tile for item in items)
        return {item for item in items if item.tile < 7 and item.tile != 1}

    assert [item.tile for item in top(store, limit=2, closed=closed)] == [1, 7]
    assert asked == list(range(8))  # no more is looked up than is needed
    assert [item.tile for item in top(store, limit=9, closed=closed)] == [1, 7, 8, 9]


def test_a_list_of_none_is_refused(store: Store) -> None:
    put(store, scored(A))
    with pytest.raises(InputError, match="limit is 0, expected at least 1"):
        top(store, limit=0)


def test_a_ranking_that_was_never_made_is_refused_with_those_that_were(store: Store) -> None:
    put(store, scored(A))
    for ask in (
        lambda: store.scores.top("rosella", NEW, "margin", "train", 1),
        lambda: store.scores.get("rosella", NEW, "margin", [A]),
        lambda: store.scores.count("rosella", NEW, "margin"),
        lambda: list(store.scores.all("rosella", NEW, "margin")),
        lambda: store.scores.add("rosella", NEW, "margin", [scored(A)]),
    ):
        with pytest.raises(
            StateError, match=rf"'rosella': no ranking of {NEW} by 'margin'; there are \['{OLD} by entropy'\]"
        ):
            ask()


def test_a_ranking_takes_the_place_of_the_one_before_and_of_no_other(store: Store) -> None:
    put(store, scored(A, 1), scored(B, 2))
    put(store, scored(A, 1), strategy="margin")
    put(store, scored(A, 1), version=NEW)
    assert put(store, scored(A, 3), scored(C, 4)) == 2
    assert top(store) == [C, A]
    assert top(store, version=NEW) == [A]
    assert store.scores.strategies("rosella", OLD) == ["entropy", "margin"]
    assert store.scores.count("rosella", OLD, "margin") == 1
    assert len(tables(store)) == 3


def test_the_ranking_before_is_read_until_the_new_one_is_whole(store: Store) -> None:
    put(store, scored(A, 1))

    def stream() -> Iterator[Scored]:
        yield scored(B, 1)
        assert top(store) == [A]
        yield scored(C, 2)

    store.scores.put("rosella", OLD, "entropy", stream())
    assert top(store) == [C, B]


def test_a_version_that_is_forgotten_leaves_nothing_and_others_stay(store: Store) -> None:
    put(store, scored(A))
    put(store, scored(A), strategy="margin")
    put(store, scored(B), version=NEW)
    store.scores.forget("rosella", OLD)
    assert store.scores.strategies("rosella", OLD) == []
    assert top(store, version=NEW) == [B]
    assert len(tables(store)) == 1


def test_items_can_be_added_and_scored_again(store: Store) -> None:
    put(store, scored(A, 1), scored(B, 2), finished={A})
    assert store.scores.add("rosella", OLD, "entropy", [scored(C, 3), scored(A, 4), scored(B, 0)]) == 3
    assert top(store) == [C, B]  # A has a score again, and is finished as before
    store.scores.set_open("rosella", [A], True)
    assert top(store) == [A, C, B]


def test_a_ranking_can_be_read_whole_to_rank_it_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores_module, "CHUNK", 2)
    every = [Item(image_id="i", tile=tile) for tile in range(7)]
    put(store, *(scored(item, score=item.tile, values={"margin": -item.tile}) for item in every))
    again = (
        scored(one.item, score=one.values["margin"]) for one in store.scores.all("rosella", OLD, "entropy")
    )
    assert store.scores.put("rosella", OLD, "margin", again) == 7
    assert [one.item for one in store.scores.top("rosella", OLD, "margin", "train", 9)] == every


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"score": math.nan}, InputError, "score is nan, expected a finite number"),
        ({"score": -math.inf}, InputError, "score is -inf, expected a finite number"),
        ({"confidence": math.inf}, InputError, "confidence is inf, expected a finite number"),
        ({"lot": math.nan}, InputError, "lot is nan, expected a finite number"),
        ({"minutes": math.nan}, InputError, "minutes is nan, expected a finite number"),
        ({"values": {"margin": math.inf}}, InputError, "margin is inf, expected a finite number"),
        ({"values": {"mean": 0.5}}, InputError, r"scores \['mean'\] are not known, expected \['entropy', "),
        ({"features_F": np.array([0, np.nan])}, ShapeError, r"features are \(2,\), largest nan; expected"),
        ({"features_F": np.array([-np.inf])}, ShapeError, r"features are \(1,\), largest inf; expected"),
        ({"features_F": np.array([7e4])}, ShapeError, r"features .* largest 70000.0; .* up to 65504"),
        (
            {"features_F": np.zeros((2, 3))},
            ShapeError,
            r"features are \(2, 3\), largest 0.0; .* vector \(F,\)",
        ),
    ],
)
def test_what_ranks_nothing_is_refused_by_name_and_the_ranking_before_stays(
    store: Store, changes: dict[str, Any], error: type[CytoloopError], message: str
) -> None:
    put(store, scored(A))
    bad = scored(C, **changes)
    with pytest.raises(error, match=f"{OLD}: image 'b' tile 0: {message}"):
        put(store, scored(B), bad)
    with pytest.raises(error, match=f"{OLD}: image 'b' tile 0: {message}"):
        store.scores.add("rosella", OLD, "entropy", [scored(B), bad])
    assert top(store) == [A]
    assert len(tables(store)) == 1


def test_an_item_that_is_scored_twice_is_refused_by_name(store: Store) -> None:
    with pytest.raises(InputError, match=f"{OLD}: image 'b' tile 0: is scored twice, expected once"):
        put(store, scored(A), scored(C, 1), scored(C, 2))
    assert tables(store) == set()


def test_the_settings_for_much_at_once_are_taken_back(store: Store) -> None:
    def now() -> list[int]:
        return [store.predictions.file.db.execute(f"PRAGMA {n}").fetchone()[0] for n in scores_module.BULK]

    before = now()
    put(store, scored(A))
    with pytest.raises(InputError, match="twice"):
        put(store, scored(A), scored(A))
    assert now() == before


def test_every_score_has_a_column() -> None:
    assert tuple(scores_module.VALUES) == tuple(SCORES)


def test_what_a_crash_left_is_dropped_after_a_day_and_not_while_it_is_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.scores._begin("rosella", OLD, "entropy")
    store.scores._begin("other", OLD, "entropy")
    put(store, scored(A), version=NEW)
    assert tables(store) == {"scores_1", "scores_2", "scores_3"}
    monkeypatch.setattr(scores_module, "ABANDONED", timedelta(0))
    put(store, scored(B))
    assert tables(store) == {"scores_2", "scores_3", "scores_4"}
    assert (top(store), top(store, version=NEW)) == ([B], [A])


def test_lists_and_draws_need_neither_a_scan_nor_a_sort(store: Store) -> None:
    put(store, scored(A))
    for order in scores_module._OPEN_ITEMS.values():
        plan = store.predictions.file.db.execute(
            f"EXPLAIN QUERY PLAN SELECT * FROM scores_1 WHERE is_open AND split = ? ORDER BY {order}",
            ["train"],
        ).fetchall()
        (step,) = [row["detail"] for row in plan]
        assert step.startswith("SEARCH scores_1 USING INDEX scores_1_by_")


@st.composite
def _rows(draw: st.DrawFn) -> list[tuple[int, float, bool]]:
    tiles = draw(st.lists(st.integers(0, 30), unique=True, max_size=20))
    finite = st.floats(allow_nan=False, allow_infinity=False)
    return [(tile, draw(finite), draw(st.booleans())) for tile in tiles]


@given(rows=_rows(), limit=st.integers(1, 25))
@settings(max_examples=40, deadline=None)
def test_the_top_is_the_sorted_list_of_what_is_open(rows: list[tuple[int, float, bool]], limit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        item_of = {tile: Item(image_id="i", tile=tile) for tile, *_ in rows}
        finished = {item_of[tile] for tile, _, is_finished in rows if is_finished}
        put(store, *(scored(item_of[tile], score) for tile, score, _ in rows), finished=finished)
        expected = sorted((-score, item_of[tile]) for tile, score, is_finished in rows if not is_finished)
        assert top(store, limit) == [item for _, item in itertools.islice(expected, limit)]
        store.close()
