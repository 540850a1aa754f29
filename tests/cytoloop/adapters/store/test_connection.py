"""Database files: migrations, transactions, threads and processes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from samples import make_assay, make_record
from sqlite_utils import Database

from cytoloop.adapters.store import Store
from cytoloop.adapters.store.connection import SqliteFile, to_iso
from cytoloop.adapters.store.migrations import INBOX, PREDICTIONS, STORE
from cytoloop.domain.errors import StateError


def create(table: str):  # type: ignore[no-untyped-def]
    return lambda db: db.execute(f"CREATE TABLE {table} (n INTEGER)")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteFile]:
    opened = SqliteFile(tmp_path / "a.sqlite3", {"0001": create("numbers")})
    yield opened
    opened.close()


def numbers(file: SqliteFile) -> list[int]:
    return [row["n"] for row in file.db.query("SELECT n FROM numbers ORDER BY n")]


def test_migrations_run_once_and_new_ones_are_added(tmp_path: Path, file: SqliteFile) -> None:
    file.db.execute("INSERT INTO numbers VALUES (1)")
    later = SqliteFile(file.path, {"0001": create("numbers"), "0002": create("more")})
    assert numbers(later) == [1]
    assert {"numbers", "more", "migrations"} <= set(later.db.table_names())
    assert [row["name"] for row in later.db.query("SELECT name FROM migrations ORDER BY name")] == [
        "0001",
        "0002",
    ]
    later.close()


def test_migrations_are_one_transaction(tmp_path: Path) -> None:
    def fail(db: Database) -> None:
        db.execute("CREATE TABLE half (n INTEGER)")
        raise RuntimeError("power cut")

    path = tmp_path / "a.sqlite3"
    with pytest.raises(RuntimeError, match="power cut"):
        SqliteFile(path, {"0001": create("numbers"), "0002": fail})
    with sqlite3.connect(path) as plain:
        assert plain.execute("SELECT name FROM sqlite_master").fetchall() == []
    plain.close()
    SqliteFile(path, {"0001": create("numbers"), "0002": create("half")}).close()


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"
    SqliteFile(path, {"0001": create("numbers"), "0009_from_the_future": create("later")}).close()
    with pytest.raises(StateError, match=r"a\.sqlite3: written by a newer cytoloop .*0009_from_the_future"):
        SqliteFile(path, {"0001": create("numbers"), "0002": create("other")})
    with sqlite3.connect(path) as plain:
        names = {name for (name,) in plain.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    plain.close()
    assert names == {"migrations", "numbers", "later"}


def test_what_is_no_database_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"
    path.write_bytes(b"these are not the bytes you are looking for" * 40)
    with pytest.raises(StateError, match=r"a\.sqlite3: .*not a database"):
        SqliteFile(path, {"0001": create("numbers")})


def test_a_transaction_is_all_or_nothing_and_can_be_joined(file: SqliteFile) -> None:
    def fail() -> None:
        with file.transaction() as db:
            db.execute("INSERT INTO numbers VALUES (1)")
            db["numbers"].insert({"n": 2})
            with file.transaction() as inner:
                inner["numbers"].insert_all({"n": n} for n in range(3, 400))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert numbers(file) == []
    with file.transaction() as db, file.transaction():
        db["numbers"].insert({"n": 2})
    assert numbers(file) == [2]
    assert not file.db.conn.in_transaction


def test_two_threads_have_their_own_connections_and_lose_nothing(file: SqliteFile) -> None:
    connections: set[int] = set()
    errors: list[Exception] = []

    def count(start: int) -> None:
        try:
            for n in range(start, start + 40):
                with file.transaction() as db:
                    db["numbers"].insert({"n": n})
            connections.add(id(file.db.conn))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=count, args=(start,)) for start in (0, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(connections) == 2
    assert numbers(file) == list(range(80))


def test_a_reader_is_not_blocked_by_an_open_write(file: SqliteFile) -> None:
    seen: list[list[int]] = []
    with file.transaction() as db:
        db.execute("INSERT INTO numbers VALUES (1)")
        thread = threading.Thread(target=lambda: seen.append(numbers(file)))
        thread.start()
        thread.join(timeout=10)
    assert seen == [[]]
    assert numbers(file) == [1]


def test_a_commit_that_fails_leaves_nothing_open(tmp_path: Path) -> None:
    def kept_to_the_end(db: Database) -> None:
        db.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
        db.execute(
            "CREATE TABLE halves (n INTEGER REFERENCES numbers (n) DEFERRABLE INITIALLY DEFERRED)"
        )  # looked at when a transaction is committed, and not before

    file = SqliteFile(tmp_path / "a.sqlite3", {"0001": kept_to_the_end})
    with pytest.raises(sqlite3.IntegrityError), file.transaction() as db:
        db.execute("INSERT INTO halves VALUES (7)")
    assert not file.db.conn.in_transaction
    with file.transaction() as db:
        db.execute("INSERT INTO numbers VALUES (1)")
    with sqlite3.connect(file.path) as other:
        assert other.execute("SELECT n FROM numbers").fetchall() == [(1,)], "what comes next is stored"
    other.close()
    file.close()


OPEN_AND_ADD = """
import sys
from pathlib import Path
from cytoloop.adapters.store import Store
store = Store(Path(sys.argv[1]))
for n in range(30):
    store.inbox.append(f"{sys.argv[2]} {n}".encode())
    store.corrections.add_doubt(None, "test", sys.argv[2], str(n))
store.close()
"""


def test_processes_can_open_one_new_home_at_once_and_lose_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_ADD, str(home), name], stderr=subprocess.PIPE, text=True
        )
        for name in ("one", "two", "three")
    ]
    for process in processes:
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, "")
    store = Store(home)
    assert len(store.corrections.doubts()) == store.inbox.last() == 90
    bodies = [body.decode() for _, body in store.inbox.after(0, limit=1000)]
    for name in ("one", "two", "three"):
        assert [b for b in bodies if b.startswith(f"{name} ")] == [f"{name} {n}" for n in range(30)]
    store.close()


def test_a_store_survives_being_closed_and_opened(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.images.add(make_assay(), [make_record("a")])
    store.close()
    again = Store(tmp_path)
    assert [r.image_id for r in again.images.all("rosella")] == ["a"]
    assert again.check() == []
    again.close()


def test_what_must_not_be_lost_is_synced_at_every_commit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for file, level in zip(store._files(), (2, 0, 2), strict=True):
        assert next(iter(file.db.query("PRAGMA synchronous")))["synchronous"] == level
        assert next(iter(file.db.query("PRAGMA journal_mode")))["journal_mode"] == "wal"
        assert next(iter(file.db.query("PRAGMA foreign_keys")))["foreign_keys"] == 1
    store.close()


@pytest.mark.parametrize("migrations", [STORE, PREDICTIONS, INBOX])
def test_migrations_are_named_in_order(migrations: dict[str, object]) -> None:
    assert list(migrations) == sorted(migrations)
    assert [name[:4] for name in migrations] == [f"{n:04d}" for n in range(1, len(migrations) + 1)]


def test_times_sort_as_text() -> None:
    from datetime import UTC, datetime, timedelta, timezone

    moment = datetime(2024, 5, 17, 12, tzinfo=UTC)
    assert to_iso(moment) == "2024-05-17T12:00:00.000000+00:00"
    assert to_iso(moment.astimezone(timezone(timedelta(hours=2)))) == to_iso(moment)
    assert to_iso(moment) < to_iso(moment + timedelta(microseconds=1))


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("cytoloop.sqlite3", "restore a backup"),
        ("inbox.sqlite3", "restore a backup"),
        ("predictions.sqlite3", "delete it, and it is made again"),
    ],
)
def test_a_damaged_database_is_refused_before_anything_is_written_to_it(
    tmp_path: Path, name: str, mend: str
) -> None:
    Store(tmp_path).close()
    sound = Store(tmp_path)
    sound.require_sound()
    sound.close()
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[4096 + 100 : 2 * 4096] = b"\xff" * (4096 - 100)  # the second page: an index or a table
    path.write_bytes(content)
    damaged = Store(tmp_path)  # nothing of that page is needed to open it
    with pytest.raises(StateError, match=mend) as told:
        damaged.require_sound()
    assert str(path) in str(told.value)
    damaged.close()
