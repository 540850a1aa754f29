"""Model folders: written once under a temporary name, then never changed; removed whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cytoloop.adapters.images import sync
from cytoloop.domain.documents import told
from cytoloop.domain.errors import InputError, StateError, UnknownVersion
from cytoloop.domain.types import Method
from cytoloop.files import read_json

MANIFEST = "manifest.json"
_VERSION = re.compile(r"(cip|cdl|mdl|joint)-\d{8}-[0-9a-f]{8}")
_NEW, _GONE = ".new-", ".gone-"
YOUNG_S = 60.0
"""Seconds in which a half-written folder is left alone, lock or not: it may have been made this very moment."""


def version_name(method: Method, digest: str, day: datetime) -> str:
    """``<method>-<YYYYMMDD>-<8 hex of the digest>``.

    Examples
    --------
    >>> version_name("cdl", "0123456789abcdef", datetime(2022, 7, 7))
    'cdl-20220707-01234567'
    """
    return f"{method}-{day:%Y%m%d}-{digest[:8]}"


class Registry:
    """The ``models/`` folder of a home."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(
        self, method: Method, write: Callable[[Path], str], manifest: Mapping[str, Any]
    ) -> tuple[str, str]:
        """Write a version with ``write(folder) -> digest``; half-written folders never get a name.

        Everything is on disk before the name appears: a power cut leaves a whole version or none. Its files
        are read-only from then on.

        Returns
        -------
        (version, digest)
            A version that exists already (equal digest, same day) is left as it is.

        Raises
        ------
        StateError
            If the name is taken by a version of another digest.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self.clear_leftovers()
        temporary = Path(tempfile.mkdtemp(dir=self._folder, prefix=_NEW))
        try:
            with _locked(temporary):
                digest = write(temporary)
                created = datetime.now(UTC)
                version = version_name(method, digest, created)
                document = {
                    **manifest,
                    "version": version,
                    "method": method,
                    "digest": digest,
                    "created_at": created.isoformat(),
                }
                (temporary / MANIFEST).write_text(
                    json.dumps(document, indent=2, sort_keys=True), encoding="utf-8"
                )
                if not self._name(temporary, self._folder / version):
                    self._expect_digest(version, digest)
                return version, digest
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def versions(self) -> list[str]:
        """Names of the versions that lie here, by method and day."""
        found = (manifest.parent.name for manifest in self._folder.glob(f"*/{MANIFEST}"))
        return sorted(name for name in found if _VERSION.fullmatch(name))

    def holds(self, version: str) -> bool:
        """Whether there is a folder of that name, whatever is in it."""
        return self._path(version).is_dir()

    def folder(self, version: str) -> Path:
        """Where a version lies.

        Raises
        ------
        InputError
            If the name is not a version's: it becomes part of a path.
        UnknownVersion
            If there is no such folder, or it has no manifest.
        """
        folder = self._path(version)
        if not folder.is_dir():
            raise UnknownVersion(
                f"model {version!r}: no folder {folder}; `cytoloop models show {version}` tells what became of it"
            )
        if not (folder / MANIFEST).is_file():
            raise UnknownVersion(
                f"model {version!r}: no {MANIFEST} in {folder}; expected a whole version: restore a backup"
            )
        return folder

    def manifest(self, version: str) -> dict[str, Any]:
        """What was written down about a version when it was made.

        Raises
        ------
        InputError
            If the file is damaged, or is that of another version.
        UnknownVersion
            As :meth:`folder`.
        """
        path = self.folder(version) / MANIFEST
        try:
            document = read_json(path)
        except InputError as error:
            raise InputError(f"{error}; the file was changed: restore a backup") from error
        if not isinstance(document, dict) or document.get("version") != version:
            got = document.get("version") if isinstance(document, dict) else type(document).__name__
            raise InputError(f"{path}: is of {told(got)}, expected {version!r}; the file was changed")
        missing = sorted({"method", "digest", "created_at"} - set(document))
        if missing:
            raise InputError(f"{path}: lacks {missing}, expected a whole manifest: restore a backup")
        return document

    def remove(self, version: str) -> bool:
        """Remove a version's folder; False if there was none.

        It loses its name first: whatever happens meanwhile, a half-removed folder is never a version.
        """
        folder = self._path(version)
        gone = self._folder / f"{_GONE}{version}-{uuid.uuid4().hex[:8]}"
        try:
            folder.rename(gone)
        except FileNotFoundError:
            return False
        sync(self._folder)
        shutil.rmtree(gone, ignore_errors=True)
        return True

    def clear_leftovers(self) -> list[str]:
        """Remove what killed processes left half written or half removed; the names of these folders.

        A folder that is being written is held by its writer, and the kernel frees it when that dies.
        """
        left = [*self._folder.glob(f"{_GONE}*"), *filter(_is_abandoned, self._folder.glob(f"{_NEW}*"))]
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        return sorted(folder.name for folder in left)

    def _path(self, version: str) -> Path:
        if not _VERSION.fullmatch(version):
            raise InputError(f"model {version!r}: expected <cip|cdl|mdl|joint>-<YYYYMMDD>-<8 hex>")
        return self._folder / version

    def _name(self, temporary: Path, final: Path) -> bool:
        """Give a written folder its name, once all of it is on disk; False if the name is taken."""
        temporary.chmod(0o755)
        for written in (*temporary.rglob("*"), temporary):
            if written.is_file():
                written.chmod(0o444)  # nobody edits a version by accident; its folder still lets us remove it
            sync(written)
        try:
            temporary.rename(final)
        except OSError:
            if final.is_dir():
                return False
            raise
        sync(self._folder)
        return True

    def _expect_digest(self, version: str, digest: str) -> None:
        held = self.manifest(version)["digest"]
        if held != digest:
            raise StateError(f"model {version!r}: is there already with digest {held}, got {digest}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder, so that others can tell that its writer lives."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_abandoned(folder: Path) -> bool:
    """Whether a half-written folder has lost its writer."""
    try:
        if time.time() - folder.stat().st_mtime < YOUNG_S:
            return False
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # it has just got its name
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
