"""A folder that an export fills: every file whole under its name or not there, and nothing outside it.

``provenance.json`` stands there from the first moment, and names every file with its SHA-256 once all are written. So
an export that was interrupted is told from a finished one and may go on, and one that is made again removes what it
wrote before and no longer holds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cytoloop.adapters.images import write_atomically
from cytoloop.domain.errors import InputError

NOTE = "provenance.json"
STARTED = ".export.names"
"""A line a file that is new in this export; gone once it is finished."""
KIND = "cytoloop export"
_FORBIDDEN = frozenset('/\\:*?"<>|')
_LONGEST = 200
"""Bytes of an id that leave room for an ending in the 255 that file systems take."""


def file_name(image_id: str) -> str:
    """An image id that may become the name of a file.

    Raises
    ------
    InputError
        If it would lead elsewhere, be hidden, or be refused by some file system.
    """
    is_wrong = image_id != image_id.strip() or image_id.startswith(".") or not image_id
    if is_wrong or any(c in _FORBIDDEN or ord(c) < 32 for c in image_id) or len(image_id.encode()) > _LONGEST:
        raise InputError(
            f"image id {image_id!r} cannot be the name of a file; expected no dot in front, none of "
            f"{' '.join(sorted(_FORBIDDEN))} and at most {_LONGEST} bytes"
        )
    return image_id


class ExportFolder:
    """One export, from its first file to its note."""

    def __init__(self, out: Path, about: Mapping[str, Any]) -> None:
        """Claim a folder that is new, empty, or holds an export of the same assay and format.

        Parameters
        ----------
        about : mapping
            Written into the note; ``assay`` and ``format`` say whether an export that is there is the same.

        Raises
        ------
        InputError
            If the folder is a file, holds anything else, or another export.
        """
        self._out = out
        self._about = dict(about)
        self._before = self._claim()
        self._written: dict[str, str] = {}
        self._note(is_complete=False, files=self._before)

    def write(self, name: str, content: bytes) -> None:
        """Write one file, ``folder/name`` at most; one that holds the content already is left alone."""
        path = self._out / name
        if name not in self._before and name not in self._written:
            with (self._out / STARTED).open("a", encoding="utf-8") as started:
                started.write(name + "\n")  # before the file is: cut off here, the next export knows of it
        self._written[name] = hashlib.sha256(content).hexdigest()
        if path.is_file() and not path.is_symlink() and path.read_bytes() == content:
            return
        write_atomically(path, lambda file: file.write_bytes(content))

    def finish(self) -> int:
        """Remove what an earlier export wrote and this did not, and write the note; returns the number of files."""
        for name in sorted(set(self._before) - set(self._written)):
            (self._out / name).unlink(missing_ok=True)
        self._note(is_complete=True, files=self._written)
        (self._out / STARTED).unlink(missing_ok=True)
        return len(self._written)

    def _note(self, is_complete: bool, files: Mapping[str, str]) -> None:
        document = {
            "kind": KIND,
            "complete": is_complete,
            **self._about,
            "files": dict(sorted(files.items())),
        }
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self._out / NOTE, lambda file: file.write_text(text, encoding="utf-8"))

    def _started(self) -> list[str]:
        """Names that an export which was cut off wrote, or was about to."""
        path = self._out / STARTED
        if path.is_symlink() or not path.is_file():
            return []
        return [name for name in path.read_text(encoding="utf-8", errors="replace").splitlines() if name]

    def _claim(self) -> dict[str, str]:
        """Files of the export that is there."""
        if self._out.exists() and not self._out.is_dir():
            raise InputError(f"{self._out}: is a file, expected a folder to export to")
        if not self._out.is_dir() or not any(self._out.iterdir()):
            return {}
        note = self._out / NOTE
        try:
            document = json.loads(note.read_text(encoding="utf-8"))
            is_ours = document["kind"] == KIND
            files = {str(name): str(digest) for name, digest in document["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            is_ours, files = False, {}
        if not is_ours:
            raise InputError(f"{self._out}: is not empty and no export (no {NOTE}), expected an empty folder")
        for key in ("assay", "format"):
            if document.get(key) != self._about[key]:
                raise InputError(
                    f"{self._out}: holds an export of {key} {document.get(key)!r}, expected {self._about[key]!r} or "
                    "an empty folder"
                )
        files |= dict.fromkeys(self._started(), "")
        for name in files:  # a note that somebody edited must not remove what is elsewhere
            parts = PurePosixPath(name).parts
            if not 1 <= len(parts) <= 2 or ".." in parts or "\\" in name or name.startswith("/"):
                raise InputError(f"{note}: names {name!r}, expected files of the export alone")
            if (self._out / parts[0]).is_symlink():
                raise InputError(f"{self._out / parts[0]}: is a link, expected a folder of the export")
        return files
