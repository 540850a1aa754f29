"""Model folders: written once under a temporary name, then never changed."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cytoloop.adapters.images import sync
from cytoloop.domain.errors import InputError, UnknownVersion
from cytoloop.domain.types import Method

MANIFEST = "manifest.json"
_VERSION = re.compile(r"^(cip|cdl|mdl|joint)-\d{8}-[0-9a-f]{8}$")


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

        Everything is on disk before the name appears: a power cut leaves a whole version or none.

        Returns
        -------
        (version, digest)
            A version that exists already (equal digest, same day) is left as it is.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=self._folder, prefix=".new-"))
        try:
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
            final = self._folder / version
            if not final.exists():
                temporary.chmod(0o755)
                for written in (*temporary.rglob("*"), temporary):
                    sync(written)
                temporary.rename(final)
                sync(self._folder)
            return version, digest
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def folder(self, version: str) -> Path:
        """Where a version lies.

        Raises
        ------
        InputError
            If the name is not a version's: it becomes part of a path.
        UnknownVersion
            If there is no such folder.
        """
        if not _VERSION.match(version):
            raise InputError(f"model {version!r}: expected <cip|cdl|mdl|joint>-<YYYYMMDD>-<8 hex>")
        folder = self._folder / version
        if not (folder / MANIFEST).is_file():
            raise UnknownVersion(f"model {version!r}: no folder {folder}")
        return folder

    def manifest(self, version: str) -> dict[str, Any]:
        """What was written down about a version when it was made."""
        document: dict[str, Any] = json.loads((self.folder(version) / MANIFEST).read_text(encoding="utf-8"))
        return document
