"""A home as one archive: taken while everything runs, checked before it counts, restored whole or not at all.

The archive is a tar file. Its last member, ``backup.json``, names every other one with size and SHA-256: an archive
that was cut off has none.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cytoloop.adapters.images import sync
from cytoloop.adapters.masks import Masks
from cytoloop.adapters.registry import MANIFEST, Registry
from cytoloop.adapters.store import Store
from cytoloop.domain.documents import parse_json
from cytoloop.domain.errors import CytoloopError, InputError, StateError
from cytoloop.files import opened

INDEX = "backup.json"
FORMAT = 1
STORE, INBOX, PREDICTIONS = "cytoloop.sqlite3", "inbox.sqlite3", "predictions.sqlite3"
DERIVED = frozenset({PREDICTIONS, "renders", "runs", "locks", "logs"})
"""Made again by whoever looks next; checkpoints of interrupted runs are of this machine."""
CHUNK = 1 << 20
LARGEST_INDEX = 256 << 20
LARGEST_ARCHIVE = 1 << 43
_OF_HEADERS = (MemoryError, OverflowError, RecursionError, ValueError)
"""What headers that claim too much make the library raise."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What an archive holds."""

    path: Path
    created_at: datetime
    files: int
    bytes: int
    """Of the files, unpacked."""
    corrections: int
    """Revisions."""
    versions: int
    """Model versions with their weights."""
    home: str
    """Where the home was: images, tokens and Label Studio's data are known by this path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    name: str
    size: int
    sha256: str


def back_up(home: Path, archive: Path, progress: Progress | None = None) -> Backup:
    """Write a home into an archive, while backend and trainer go on, and verify it.

    The databases are copied first, by SQLite's online backup, then the files they name: masks and models are on disk
    before their rows are, and never change. The inbox is copied after the store, so that no event that was applied
    lacks in it. Left out is what is derived: predictions, renders, checkpoints, logs.

    Parameters
    ----------
    archive : Path
        A ``.tar`` file that does not exist yet; readable by its owner alone, for it holds secrets.

    Raises
    ------
    StateError
        If the archive exists already, lies in the home, or the home's databases are damaged.
    InputError
        If there is no home.
    """
    home, archive = home.absolute(), archive.absolute()
    if not (home / STORE).is_file():
        raise InputError(f"{home}: no {STORE} in it; expected a home of cytoloop")
    if archive.exists():
        raise StateError(f"{archive}: exists already; expected a new name")
    if archive.resolve().is_relative_to(home.resolve()):
        raise StateError(f"{archive}: lies in the home; expected a place that survives it")
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name(f".{archive.name}.{os.getpid()}.partial")
    try:
        with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".backup-") as folder:
            copies = _copy_databases(home, Path(folder))
            sources = {**copies, **_files(home, set(copies))}
            _write(partial, home, sources, progress)
        backup = verify(partial)
        sync(partial)
        partial.rename(archive)
        sync(archive.parent)
    finally:
        partial.unlink(missing_ok=True)
    return replace(backup, path=archive)


def verify(archive: Path) -> Backup:
    """Check an archive as if it were restored: every file, every database, every mask and model they name.

    Raises
    ------
    InputError
        If it is no archive of ours, or anything in it lacks or is damaged; the message names it.
    """
    with tempfile.TemporaryDirectory(dir=archive.absolute().parent, prefix=".verify-") as folder:
        return _unpack(archive, Path(folder) / "home")


def restore(archive: Path, home: Path) -> Backup:
    """Make a home from an archive; it appears whole and verified, or not at all.

    What Label Studio was told and asked since the backup is reconciled at the trainer's first look.

    Raises
    ------
    StateError
        If the home exists and is not empty.
    InputError
        As `verify`.
    """
    home = home.absolute()
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise StateError(
            f"{home}: exists and is not empty; expected a new folder: move the old home away first"
        )
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".restore-") as folder:
        made = Path(folder) / "home"
        backup = _unpack(archive, made)
        if home.exists():
            home.rmdir()
        made.rename(home)
        sync(home.parent)
    return backup


# --- writing -----------------------------------------------------------------------------------------------


def _copy_databases(home: Path, folder: Path) -> dict[str, Path]:
    """Online copies: the store, then the inbox, then those of other programs in the home (Label Studio's)."""
    others = sorted(
        path.relative_to(home).as_posix()
        for path in home.rglob("*.sqlite3")
        if path.relative_to(home).parts[0] not in DERIVED | {STORE, INBOX} and not path.is_symlink()
    )
    copies = {}
    for number, name in enumerate([STORE, *([INBOX] if (home / INBOX).is_file() else []), *others]):
        copy = folder / f"{number}.sqlite3"
        try:
            with closing(sqlite3.connect(home / name)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
                target.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.DatabaseError as error:
            raise StateError(f"{home / name}: cannot be read ({error}); run `cytoloop doctor`") from error
        copies[name] = copy
    return copies


def _files(home: Path, copied: set[str]) -> dict[str, Path]:
    """Every other file that counts, by name; links are left out, and what is being written."""
    found: dict[str, Path] = {}
    for folder, folders, files in os.walk(home):
        inside = Path(folder).relative_to(home)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not (inside == Path() and name in DERIVED)
        )
        for name in sorted(files):
            path = Path(folder) / name
            relative = (inside / name).as_posix()
            is_database = relative.removesuffix("-wal").removesuffix("-shm").endswith(".sqlite3")
            is_temporary = name.startswith(".") and name != ".env"
            if is_database or is_temporary or path.is_symlink() or relative in DERIVED | copied:
                continue
            found[relative] = path
    return found


def _write(partial: Path, home: Path, sources: dict[str, Path], progress: Progress | None) -> None:
    """The members; a file that is gone by now (a version was pruned) is left out, and `verify` asks the store why."""
    members: list[_Member] = []
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as raw, tarfile.open(fileobj=raw, mode="w") as tar:
        for done, (name, path) in enumerate(sources.items(), start=1):
            try:
                content = path.open("rb")
            except FileNotFoundError:
                continue
            with content:
                members.append(_add(tar, name, content))
            if progress:
                progress(done, len(sources))
        document = {
            "format": FORMAT,
            "created_at": datetime.now(UTC).isoformat(),
            "home": str(home),
            "files": [{"name": m.name, "size": m.size, "sha256": m.sha256} for m in members],
        }
        body = json.dumps(document, indent=1).encode()
        _add(tar, INDEX, io.BytesIO(body))


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes]) -> _Member:
    content.seek(0, os.SEEK_END)
    size = content.tell()
    content.seek(0)
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    reader = _Hashing(content, size)
    tar.addfile(info, reader)
    return _Member(name=name, size=size, sha256=reader.hexdigest())


class _Hashing:
    """Reads so many bytes and not more (a log grows), and knows their digest afterwards."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size
        self._digest = hashlib.sha256()

    def read(self, count: int = CHUNK) -> bytes:
        data = self._file.read(min(count, self._left))
        self._left -= len(data)
        self._digest.update(data)
        return data

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


# --- reading -----------------------------------------------------------------------------------------------


def _unpack(archive: Path, home: Path) -> Backup:
    """Unpack into a new folder, checking every byte and what the databases say."""
    try:
        with opened(archive, LARGEST_ARCHIVE) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            created_at, was, members = _index(archive, tar)
            home.mkdir(mode=0o755)
            for name, member in members.items():
                _extract(archive, tar, member, home / PurePosixPath(name))
    except (tarfile.TarError, EOFError, *_OF_HEADERS) as error:
        raise InputError(
            f"{archive}: not a whole archive ({error!r}); expected one of `cytoloop backup`"
        ) from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(
            f"{archive}: two of its members cannot stand side by side: {error.filename}"
        ) from error
    corrections, versions = _check_home(archive, home)
    return Backup(
        path=archive,
        created_at=created_at,
        files=len(members),
        bytes=sum(member.size for member in members.values()),
        corrections=corrections,
        versions=versions,
        home=was,
    )


def _index(archive: Path, tar: tarfile.TarFile) -> tuple[datetime, str, dict[str, _Member]]:
    try:
        names = tar.getnames()
    except OSError as error:  # a size beyond what a file can have
        raise InputError(
            f"{archive}: not a whole archive ({error}); expected one of `cytoloop backup`"
        ) from error
    if not names or names[-1] != INDEX:
        raise InputError(f"{archive}: no {INDEX} at its end; expected a whole archive of `cytoloop backup`")
    info = tar.getmember(INDEX)
    content = tar.extractfile(info) if info.isreg() and info.size <= LARGEST_INDEX else None
    try:
        document: Any = (
            parse_json(content.read(), f"{archive}: {INDEX} is damaged") if content is not None else None
        )
        if document["format"] != FORMAT:
            raise InputError(f"{archive}: format {document['format']!r}, expected {FORMAT}: update cytoloop")
        created_at = datetime.fromisoformat(document["created_at"])
        members = {
            str(row["name"]): _Member(name=str(row["name"]), size=int(row["size"]), sha256=str(row["sha256"]))
            for row in document["files"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{archive}: {INDEX} is damaged ({error!r:.200})") from error
    if sorted(members) != sorted(names[:-1]):
        raise InputError(f"{archive}: its members are not those that {INDEX} names")
    return created_at, str(document["home"]), members


def _extract(archive: Path, tar: tarfile.TarFile, member: _Member, path: Path) -> None:
    name = PurePosixPath(member.name)
    info = tar.getmember(member.name)
    # a sparse file is its size in zeros, of which the archive holds none
    if name.is_absolute() or ".." in name.parts or not info.isreg() or info.issparse():
        raise InputError(f"{archive}: member {member.name!r} is not a plain file inside a home")
    source = tar.extractfile(info)
    assert source is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    is_secret = len(name.parts) == 1 and name.suffix not in (".sqlite3",)
    with open(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if is_secret else 0o644), "wb"
    ) as file:
        while data := source.read(CHUNK):
            digest.update(data)
            file.write(data)
    if info.size != member.size or digest.hexdigest() != member.sha256:
        raise InputError(f"{archive}: {member.name} is damaged: its SHA-256 is not that of the backup")


def _check_home(archive: Path, home: Path) -> tuple[int, int]:
    """Every mask that a correction names and every model that is not pruned; how many of either."""
    try:
        store = Store(home)
    except CytoloopError as error:
        raise InputError(f"{archive}: {error}") from error
    try:
        problems = store.check()
        if problems:
            raise InputError(f"{archive}: {'; '.join(problems)}")
        corrections = versions = 0
        for assay in store.assays.names():
            for revision in store.corrections.revisions(assay):
                corrections += 1
                if revision["mask"] is not None:
                    _expect(archive, Masks(home / "masks").path(revision["mask"]), home)
            for model in store.models.all(assay):
                if model.status != "pruned":
                    folder = home / "models" / model.version
                    _expect(archive, folder / MANIFEST, home)
                    if Registry(home / "models").manifest(model.version)["digest"] != model.digest:
                        raise InputError(
                            f"{archive}: model {model.version} is not the one that the store knows"
                        )
                    versions += 1
    finally:
        store.close()
    for name in _leftovers(home):
        name.unlink()
    return corrections, versions


def _expect(archive: Path, path: Path, home: Path) -> None:
    if not path.is_file():
        raise InputError(f"{archive}: {path.relative_to(home)} lacks, which the store names")


def _leftovers(home: Path) -> Iterator[Path]:
    """What opening a store makes: it was only looked at."""
    yield from home.glob("*.sqlite3-*")
    yield from home.glob(PREDICTIONS)
