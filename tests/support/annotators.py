"""Annotators who submit, change, delete and skip through Label Studio's API, and note what it acknowledged.

Whoever gets no answer looks whether the work arrived before doing it again, as a person would.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from people import Person

from cytoloop.domain.assay import IGNORE, Assay
from cytoloop.domain.types import Item
from labelstudio_config.payloads import drawn_mask, prediction_result

PATIENCE_S = 120.0
"""How long somebody waits for a Label Studio that is away."""
SHARES = {"submit": 0.74, "change": 0.12, "delete": 0.07, "skip": 0.07}
SERIAL_BITS = 24


@dataclass
class Noted:
    """An annotation as its annotator knows it."""

    task_id: int
    item: Item
    expert: str
    masks: list[NDArray[np.uint8] | None]
    """What was acknowledged, the latest last; None is a skip."""
    is_deleted: bool = False


@dataclass
class Ledger:
    """What all annotators know; safe to share."""

    annotations: dict[int, Noted] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        """One more."""
        with self.lock:
            self.counts[what] += 1


class Annotator:
    """One annotator at work in a thread, from the first submission to the last; ``failed`` says what stopped one."""

    def __init__(
        self,
        person: Person,
        ledger: Ledger,
        assay: Assay,
        tasks: Sequence[tuple[int, Item]],
        size: tuple[int, int],
        submissions: int,
        seed: tuple[int, int],
    ) -> None:
        self.failed: BaseException | None = None
        self._person = person
        self._ledger = ledger
        self._assay = assay
        self._tasks = tasks
        self._size = size
        self._left = submissions
        self._rng = np.random.default_rng(seed)
        self._serial = seed[1] << 16
        self._own: list[int] = []
        self._thread = threading.Thread(target=self._work, name=person.email)
        self._http = httpx.Client(
            base_url=person.client.base_url,
            headers={"Authorization": f"Token {person.client._connection._token}"},
            timeout=60.0,
            trust_env=False,
        )

    @property
    def is_working(self) -> bool:
        """Whether something is left to do."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait until all is done."""
        self._thread.join()

    def _work(self) -> None:
        try:
            while self._left:
                self._act(str(self._rng.choice(list(SHARES), p=list(SHARES.values()))))
        except BaseException as error:
            self.failed = error
        finally:
            self._http.close()

    def _act(self, what: str) -> None:
        if what in ("change", "delete") and not self._own:
            what = "submit"
        if what == "submit":
            self._create(self._draw())
            self._left -= 1
            self._ledger.count("corrections")
        elif what == "skip":
            self._create(None)
            self._ledger.count("skips")
        elif what == "change":
            self._change(self._own[self._rng.integers(len(self._own))])
            self._ledger.count("updates")
        else:
            self._delete(self._own.pop(self._rng.integers(len(self._own))))
            self._ledger.count("deletions")

    def _draw(self) -> NDArray[np.uint8]:
        """Boxes of any class, and in the first row a serial number: no two masks are equal."""
        mask_HW = np.zeros(self._size, np.uint8)
        for _ in range(self._rng.integers(1, 5)):
            top, left = (int(self._rng.integers(0, side - 4)) for side in self._size)
            height, width = self._rng.integers(3, 16, 2)
            mask_HW[top : top + height, left : left + width] = self._rng.choice([1, 2, IGNORE])
        self._serial += 1
        mask_HW[0, :SERIAL_BITS] = [1 + (self._serial >> bit & 1) for bit in range(SERIAL_BITS)]
        return mask_HW

    def _create(self, mask_HW: NDArray[np.uint8] | None) -> None:
        task_id, item = self._tasks[self._rng.integers(len(self._tasks))]
        result = [] if mask_HW is None else prediction_result(mask_HW, self._assay)
        body = {"result": result, "was_cancelled": mask_HW is None, "lead_time": 20.0}
        number = None
        while number is None:
            answer = self._ask("POST", f"/api/tasks/{task_id}/annotations/", body)
            number = answer["id"] if answer is not None else self._find(task_id, mask_HW)
        with self._ledger.lock:
            assert number not in self._ledger.annotations, f"annotation {number} was given twice"
            self._ledger.annotations[number] = Noted(task_id, item, self._person.email.lower(), [mask_HW])
        if mask_HW is not None:
            self._own.append(number)

    def _change(self, number: int) -> None:
        mask_HW = self._draw()
        path = f"/api/annotations/{number}/"
        while self._ask("PATCH", path, {"result": prediction_result(mask_HW, self._assay)}) is None:
            held = self._look(path)
            assert held is not None, f"annotation {number} is gone, and nobody deleted it"
            if self._shows(held, mask_HW):
                self._ledger.count("found on looking")
                break
        with self._ledger.lock:
            self._ledger.annotations[number].masks.append(mask_HW)

    def _delete(self, number: int) -> None:
        path = f"/api/annotations/{number}/"
        while self._ask("DELETE", path, None) is None:
            if self._look(path) is None:
                self._ledger.count("found on looking")
                break
        with self._ledger.lock:
            self._ledger.annotations[number].is_deleted = True

    def _find(self, task_id: int, mask_HW: NDArray[np.uint8] | None) -> int | None:
        """The annotation of which no answer came, if it arrived."""
        task = self._look(f"/api/tasks/{task_id}/")
        assert task is not None, f"task {task_id} is gone"
        with self._ledger.lock:
            known = set(self._ledger.annotations)
        for annotation in task["annotations"]:
            author = annotation["completed_by"]["id"]  # the page of a task names the user in full
            is_new = author == self._person.id and annotation["id"] not in known
            if is_new and self._shows(annotation, mask_HW):
                self._ledger.count("found on looking")
                return int(annotation["id"])
        return None

    def _shows(self, annotation: dict[str, Any], mask_HW: NDArray[np.uint8] | None) -> bool:
        if mask_HW is None or annotation["was_cancelled"]:
            return mask_HW is None and bool(annotation["was_cancelled"])
        held = drawn_mask(annotation["result"], self._assay, self._size, "looking")
        return np.array_equal(held.mask_HW, mask_HW)

    def _ask(self, method: str, path: str, body: Any) -> Any:
        """What was acknowledged; None where no or no good answer came."""
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError:
            self._ledger.count("requests without an answer")
            return None
        if answer.status_code >= 500:
            self._ledger.count(f"requests answered {answer.status_code}")
            time.sleep(0.2)
            return None
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:300]}"
        return answer.json() if answer.content else {}

    def _look(self, path: str) -> Any:
        """What Label Studio has there, once it answers again; None: nothing."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                answer = self._http.get(path)
            except httpx.HTTPError:
                time.sleep(0.3)
                continue
            if answer.status_code == 404:
                return None
            if answer.is_success:
                return answer.json()
            time.sleep(0.3)
        raise AssertionError(f"GET {path}: no answer within {PATIENCE_S:.0f} s")
