"""The inbox: what was acknowledged is there once, whoever else sends at the same time."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlite_utils import Database

from cytoloop.adapters.store.inbox import Inbox

SENDERS = 8


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    opened = Inbox(tmp_path / "inbox.sqlite3")
    yield opened
    opened.file.close()


def events(inbox: Inbox) -> list[tuple[int, bytes]]:
    return list(inbox.after(0, limit=10_000))


def at_once(work: Callable[[int], object], count: int = SENDERS) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_the_inbox_keeps_bytes_in_order(inbox: Inbox) -> None:
    assert inbox.last() == 0
    bodies = [b"{}", b"\x00\xff not JSON", b""]
    assert [inbox.append(body) for body in bodies] == [1, 2, 3]
    assert list(inbox.after(0)) == [(1, bodies[0]), (2, bodies[1]), (3, bodies[2])]
    assert list(inbox.after(1, limit=1)) == [(2, bodies[1])]
    assert list(inbox.after(3)) == []
    assert inbox.last() == 3


def test_a_connection_keeps_little_of_what_it_wrote(inbox: Inbox) -> None:
    sizes: list[int] = []
    at_once(lambda _: sizes.append(inbox.file.db.execute("PRAGMA cache_size").fetchone()[0]), 1)[0].join()
    assert sizes == [-256], "in kilobytes, whichever thread it is"


def test_each_of_many_senders_gets_the_number_of_its_own_event(inbox: Inbox) -> None:
    told: dict[bytes, int] = {}

    def send(sender: int) -> None:
        for n in range(50):
            body = b"%d of %d" % (n, sender)
            told[body] = inbox.append(body)

    for thread in at_once(send):
        thread.join(60)
    stored = events(inbox)
    assert len(stored) == len(told) == 50 * SENDERS
    assert {body: number for number, body in stored} == told


def blocked(inbox: Inbox, send: Callable[[int], object]) -> tuple[sqlite3.Connection, list[threading.Thread]]:
    """Another process holds the database; one sender waits for it, and all others for that sender."""
    other = sqlite3.connect(inbox.file.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    threads = at_once(send)
    while len(inbox._waiting) < SENDERS - 1:
        threading.Event().wait(0.01)
    return other, threads


@contextmanager
def counted(inbox: Inbox, commits: list[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    transaction = inbox.file.transaction

    @contextmanager
    def counting() -> Iterator[Database]:
        with transaction() as db:
            before = db.conn.total_changes
            yield db
            commits.append(db.conn.total_changes - before)

    monkeypatch.setattr(inbox.file, "transaction", counting)
    yield


def test_senders_who_wait_share_one_commit(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[int] = []
    numbers: list[int] = []
    with counted(inbox, commits, monkeypatch):
        other, threads = blocked(inbox, lambda n: numbers.append(inbox.append(b"%d" % n)))
        other.rollback()
        other.close()
        for thread in threads:
            thread.join(30)
    assert commits == [1, SENDERS - 1]
    assert sorted(numbers) == list(range(1, SENDERS + 1))
    assert sorted(body for _, body in events(inbox)) == [b"%d" % n for n in range(SENDERS)]


def test_an_event_that_cannot_be_stored_takes_no_other_with_it(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox.file.db.execute(
        "CREATE TRIGGER no_room BEFORE INSERT ON events WHEN NEW.body = CAST('5' AS BLOB) "
        "BEGIN SELECT RAISE(ABORT, 'no room for this one'); END"
    )
    refused: dict[int, str] = {}
    numbers: list[int] = []

    def send(n: int) -> None:
        try:
            numbers.append(inbox.append(b"%d" % n))
        except sqlite3.Error as error:
            refused[n] = str(error)

    other, threads = blocked(inbox, send)
    other.rollback()
    other.close()
    for thread in threads:
        thread.join(30)
    assert refused == {5: "no room for this one"}
    assert sorted(body for _, body in events(inbox)) == [b"%d" % n for n in range(SENDERS) if n != 5]
    assert sorted(numbers) == sorted(number for number, _ in events(inbox))
    inbox.file.db.execute("DROP TRIGGER no_room")
    assert inbox.append(b"5") == max(numbers) + 1, "nothing is left open"
