"""Events in any order, twice, late or never: after a look the store says what it would say had they come in order."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from fakes import EXPERT, OTHER_EXPERT
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import Tiny, make_tiny, open_tiny

from cytoloop.domain.types import Item
from labelstudio_config.payloads import prediction_result

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(0, 3)),  # expert and item
        st.tuples(st.just("skip"), st.integers(0, 3)),
        st.tuples(st.just("change"), st.integers(0, 5)),  # which of the living
        st.tuples(st.just("delete"), st.integers(0, 5)),
        st.tuples(st.just("deliver"), st.integers(0, 9)),  # which of the events, however old
        st.tuples(st.just("look"), st.just(0)),
    ),
    min_size=1,
    max_size=14,
)


class Laboratory:
    """One Label Studio, a store that hears of it in disorder, and one that hears of everything at once."""

    def __init__(self, folder: Path) -> None:
        self.tiny = make_tiny(folder / "disorder", wells=1)
        copied = make_tiny(folder / "order", wells=1)
        copied.store.close()
        self.orderly = open_tiny(copied.home, self.tiny.studio, self.tiny.truth)
        self.sent: list[bytes] = []
        self.tiny.studio.listener = self.sent.append
        self.drawn = 0

    def regions(self, item: Item) -> list[dict[str, Any]]:
        """A mask that no other annotation has."""
        self.drawn += 1
        mask_HW = self.tiny.truth_of(item).copy()
        mask_HW.flat[: self.drawn] = 1
        return prediction_result(mask_HW, self.tiny.assay)

    def do(self, step: tuple[str, int]) -> None:
        what, which = step
        studio, items = self.tiny.studio, self.tiny.items()[:2]
        studio.advance(60)  # further apart than looks overlap
        living = sorted(studio.annotations)
        heard = len(self.sent)
        if what in ("submit", "skip"):
            item, expert = items[which % 2], (EXPERT, OTHER_EXPERT)[which // 2]
            is_skip = what == "skip"
            studio.annotate(
                self.tiny.task_of(item),
                [] if is_skip else self.regions(item),
                was_cancelled=is_skip,
                completed_by=expert["id"],
            )
        elif what == "change" and living:
            number = living[which % len(living)]
            item = next(i for i in items if self.tiny.task_of(i) == studio.annotations[number]["task"])
            studio.update(number, result=self.regions(item), was_cancelled=False)
        elif what == "delete" and living:
            studio.delete_annotation(living[which % len(living)])
        elif what == "deliver" and self.sent:
            self.deliver(self.tiny, self.sent[which % len(self.sent)])
        elif what == "look":
            self.look(self.tiny)
        for body in self.sent[heard:]:
            self.deliver(self.orderly, body)

    def deliver(self, tiny: Tiny, body: bytes) -> None:
        tiny.store.inbox.append(body)
        tiny.intake.drain()

    def look(self, tiny: Tiny) -> None:
        tiny.intake.drain()
        tiny.intake.reconcile(tiny.assay)

    def close(self) -> None:
        self.tiny.store.close()
        self.orderly.store.close()


def what_stands(tiny: Tiny) -> dict[str, Any]:
    """All that anybody asks the store about corrections."""
    said = tiny.store.corrections
    return {
        "standing": {
            item: (one.annotation_id, one.annotated_at, one.expert, one.mask)
            for item, one in said.standing(tiny.name).items()
        },
        "readings": {
            item: [(one.annotation_id, one.mask) for one in readings]
            for item, readings in said.readings(tiny.name).items()
        },
        "finished": said.finished_items(tiny.name),
        "living": said.living_annotations(tiny.name),
    }


@settings(max_examples=40)
@given(steps=STEPS, again=st.randoms(use_true_random=False))
def test_disorder_ends_as_order_does(steps: list[tuple[str, int]], again: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        laboratory = Laboratory(Path(folder))
        try:
            for step in steps:
                laboratory.do(step)
            tiny = laboratory.tiny
            laboratory.look(tiny)
            expected = what_stands(laboratory.orderly)
            assert set(expected["living"]) == set(tiny.studio.annotations), "in order, all is known"
            assert what_stands(tiny) == expected
            once_more = laboratory.sent.copy()
            again.shuffle(once_more)
            for body in once_more:
                laboratory.deliver(tiny, body)
            assert what_stands(tiny) == expected, "delivered again"
            revisions = tiny.store.corrections.revisions(tiny.name)
            laboratory.look(tiny)
            for body in once_more:
                laboratory.deliver(tiny, body)
            assert tiny.store.corrections.revisions(tiny.name) == revisions
            named = [(r["annotation_id"], r["annotated_at"], r["kind"]) for r in revisions if r["mask"]]
            assert len(named) == len(set(named)), "a revision twice"
            assert tiny.store.corrections.doubts() == []
        finally:
            laboratory.close()
