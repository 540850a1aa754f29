"""A home as one archive: taken while it is written to, verified, restored whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import BATCH, Tiny, make_tiny, open_tiny

from cytoloop.adapters.backup import DERIVED, INDEX, back_up, restore, verify
from cytoloop.domain.errors import CytoloopError, InputError, StateError
from cytoloop.pipeline.predictors import load_predictor


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path)
    made.listen()
    made.publish_active(BATCH)
    for item in made.held()[:3]:
        made.correct(item)
    made.intake.drain()
    (made.home / "local.json").write_text("{}")
    (made.home / "logs").mkdir()
    (made.home / "logs" / "backend.log").write_text("x")
    yield made
    made.store.close()


def rewritten(archive: Path, out: Path, change: dict[str, bytes | None]) -> Path:
    """The archive with members replaced or left out; what it says of itself stays."""
    with tarfile.open(archive) as old, tarfile.open(out, "w") as new:
        for info in old.getmembers():
            body = old.extractfile(info).read()  # type: ignore[union-attr]
            if info.name in change:
                replaced = change[info.name]
                if replaced is None:
                    continue
                body = replaced
            info.size = len(body)
            new.addfile(info, io.BytesIO(body))
    return out


def test_a_home_comes_back_as_it_was(tiny: Tiny, tmp_path: Path) -> None:
    made = back_up(tiny.home, tmp_path / "b" / "home.tar")
    assert made.path.stat().st_mode & 0o777 == 0o600, "it holds secrets"
    assert (made.corrections, made.versions, made.home) == (3, 1, str(tiny.home))
    assert [p.name for p in made.path.parent.iterdir()] == ["home.tar"], "nothing half made beside it"
    restored = tmp_path / "elsewhere"
    assert restore(made.path, restored).corrections == 3
    assert not {path.name for path in restored.iterdir()} & DERIVED
    again = open_tiny(restored, tiny.studio, tiny.truth)
    assert again.store.corrections.revisions(tiny.name) == tiny.store.corrections.revisions(tiny.name)
    for item, correction in again.store.corrections.standing(tiny.name).items():
        assert (again.store.masks.get(correction.mask) == tiny.truth_of(item)).all()
    model = again.store.models.active(tiny.name)
    load_predictor(again.store, again.registry, again.assay, model)
    assert again.store.corrections.last_event() == tiny.store.corrections.last_event()
    again.store.close()


def test_what_comes_in_meanwhile_is_whole_or_waits_in_label_studio(tiny: Tiny, tmp_path: Path) -> None:
    left = [item for item in tiny.items() if item not in tiny.store.corrections.standing(tiny.name)]
    is_over = threading.Event()

    def work() -> None:
        for item in left:
            tiny.correct(item)
            tiny.intake.drain()
        is_over.set()

    expert = threading.Thread(target=work)
    expert.start()
    made = []
    while not is_over.is_set() or not made:
        made.append(back_up(tiny.home, tmp_path / f"{len(made)}.tar"))
    expert.join()
    restored = restore(made[0].path, tmp_path / "again")
    again = open_tiny(tmp_path / "again", tiny.studio, tiny.truth)
    assert len(again.store.corrections.revisions(tiny.name)) == restored.corrections
    again.intake.drain()
    again.intake.reconcile(again.assay, everything=True)
    assert set(again.store.corrections.living_annotations(tiny.name)) == set(tiny.studio.annotations)
    again.store.close()


def test_an_inbox_is_never_older_than_the_store(tiny: Tiny, tmp_path: Path) -> None:
    """Else the numbers of events that come after a restore would be taken for applied ones."""
    restore(back_up(tiny.home, tmp_path / "home.tar").path, tmp_path / "again")
    with sqlite3.connect(tmp_path / "again" / "inbox.sqlite3") as inbox:
        (highest,) = inbox.execute("SELECT max(id) FROM events").fetchone()
    assert highest >= tiny.store.corrections.last_event() > 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"local.json": b"[]"}, "local.json is damaged"),
        ({"local.json": None}, "its members are not those"),
        ({INDEX: None}, "no backup.json at its end"),
        ({INDEX: b"{"}, "backup.json is damaged"),
        ({INDEX: b'{"format": 9}'}, "format 9, expected 1"),
    ],
)
def test_a_damaged_archive_is_refused_and_makes_no_home(
    tiny: Tiny, tmp_path: Path, change: dict[str, bytes | None], told: str
) -> None:
    good = back_up(tiny.home, tmp_path / "home.tar").path
    bad = rewritten(good, tmp_path / "bad.tar", change)
    with pytest.raises(InputError, match=told):
        verify(bad)
    with pytest.raises(InputError, match=told):
        restore(bad, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    assert not list(tmp_path.glob(".*")), "nothing is left behind"


def test_an_archive_that_was_cut_off_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    whole = back_up(tiny.home, tmp_path / "home.tar").path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9):
        cut = tmp_path / "cut.tar"
        cut.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match="archive"):
            verify(cut)


def test_an_archive_that_leads_out_of_the_home_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    good = back_up(tiny.home, tmp_path / "home.tar").path
    with tarfile.open(good) as tar:
        document = json.loads(tar.extractfile(INDEX).read())  # type: ignore[union-attr]
    for name in ("../evil", "/tmp/evil-cytoloop"):
        bad = tmp_path / "bad.tar"
        with tarfile.open(bad, "w") as tar:
            row = {"name": name, "size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
            for member, body in (
                (name, b"x"),
                (INDEX, json.dumps({**document, "files": [row]}).encode()),
            ):
                info = tarfile.TarInfo(member)
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
        with pytest.raises(InputError, match="not a plain file inside a home"):
            restore(bad, tmp_path / "again")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("lost", ["mask", "model"])
def test_a_home_that_lacks_what_its_store_names_is_told(tiny: Tiny, tmp_path: Path, lost: str) -> None:
    if lost == "mask":
        correction = next(iter(tiny.store.corrections.standing(tiny.name).values()))
        tiny.store.masks.path(correction.mask).unlink()
    else:
        tiny.registry.remove(tiny.active())
    with pytest.raises(InputError, match="lacks, which the store names"):
        back_up(tiny.home, tmp_path / "home.tar")
    assert not (tmp_path / "home.tar").exists()


def test_nothing_is_overwritten(tiny: Tiny, tmp_path: Path) -> None:
    archive = back_up(tiny.home, tmp_path / "home.tar").path
    with pytest.raises(StateError, match="exists already"):
        back_up(tiny.home, archive)
    with pytest.raises(StateError, match="not empty"):
        restore(archive, tiny.home)
    with pytest.raises(StateError, match="lies in the home"):
        back_up(tiny.home, tiny.home / "home.tar")
    with pytest.raises(InputError, match=r"no cytoloop\.sqlite3"):
        back_up(tmp_path / "nowhere", tmp_path / "other.tar")
    for bad in (tmp_path / "not-there.tar", tiny.home / "local.json"):
        with pytest.raises((CytoloopError, OSError)):
            verify(bad)


# --- archives that are meant to do harm ---


def info_of(name: str, size: int = 1, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


def archive_of(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    """An archive that names its members truly, whatever they are."""
    rows = [{"name": i.name, "size": i.size, "sha256": hashlib.sha256(b).hexdigest()} for i, b in members]
    index = {"format": 1, "created_at": "2022-07-07T00:00:00+00:00", "home": "/home", "files": rows}
    body = json.dumps(index).encode()
    with tarfile.open(path, "w") as tar:
        for info, content in [*members, (info_of(INDEX, len(body)), body)]:
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, INDEX),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.DIRTYPE, ""),
        (tarfile.GNUTYPE_SPARSE, ""),
    ],
    ids=[
        "symbolic link",
        "hard link",
        "link to the index",
        "pipe",
        "device",
        "disk",
        "folder",
        "sparse file",
    ],
)
def test_a_member_that_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes, link: str) -> None:
    archive = archive_of(tmp_path / "bad.tar", [(info_of("local.json", 0, kind, link), b"")])
    with pytest.raises(InputError, match=r"'local\.json' is not a plain file inside a home"):
        restore(archive, tmp_path / "again")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tar"]


def test_a_file_through_a_link_of_the_archive_is_not_written(tmp_path: Path) -> None:
    members = [
        (info_of("out", 0, tarfile.SYMTYPE, str(tmp_path / "elsewhere")), b""),
        (info_of("out/evil"), b"x"),
    ]
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(InputError, match="is not a plain file inside a home"):
        restore(archive_of(tmp_path / "bad.tar", members), tmp_path / "again")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_sparse_file_of_terabytes_fills_no_disk(tmp_path: Path) -> None:
    """What the archive holds of it is one block; unpacked it would be zeros of the size it claims."""
    claimed = 1 << 40
    info = info_of("big", claimed)
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": f"{claimed},0",
        "GNU.sparse.size": str(claimed),
    }
    info.size = 0
    archive = archive_of(tmp_path / "bad.tar", [(info, b"")])
    with tarfile.open(archive) as tar:
        assert (tar.getmember("big").size, tar.getmember("big").issparse()) == (claimed, True)
    with pytest.raises(InputError, match="'big' is not a plain file inside a home"):
        restore(archive, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("", "b")])
def test_members_that_cannot_stand_side_by_side_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    archive = archive_of(tmp_path / "bad.tar", [(info_of(name), b"x") for name in names])
    with pytest.raises(InputError, match=r"bad\.tar: "):
        restore(archive, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def header(name: bytes, size: int, kind: bytes) -> bytes:
    info = info_of(name.decode(), size, kind)
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "content",
    [
        header(b"x", 1 << 62, tarfile.GNUTYPE_LONGNAME),
        header(b"x", 1 << 62, tarfile.XHDTYPE),
        header(b"x", 1 << 62, tarfile.REGTYPE),
        header(b"x", 0, tarfile.GNUTYPE_LONGNAME) * 5000,
        header(b"x", 0, tarfile.XHDTYPE) * 5000,
        b"\x1f\x8b" + bytes(1000),
        bytes(10240),
    ],
    ids=["long name", "long header", "long file", "names of names", "headers of headers", "gzip", "nothing"],
)
def test_headers_that_claim_much_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.tar: (not a whole archive|no backup\.json at its end)"):
        verify(tmp_path / "bad.tar")


def test_an_index_that_unfolds_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    good = back_up(tiny.home, tmp_path / "home.tar").path
    bad = rewritten(good, tmp_path / "bad.tar", {INDEX: b"[" * 100_000})
    with pytest.raises(InputError, match=r"backup\.json is damaged: JSON nested more than 64 deep"):
        verify(bad)


@pytest.mark.timeout(20)
def test_a_pipe_is_no_archive(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(InputError, match="a named pipe, expected a file"):
        verify(tmp_path / "pipe.tar")
