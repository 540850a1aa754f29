"""A folder of predicted masks: whole files only, and a journal by which a run that ended early goes on."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from cytoloop.adapters.images import PROVENANCE, write_atomically
from cytoloop.domain.errors import StateError

SCORES = "scores.csv"
DOUBT = "doubt"
"""Folder beside the masks."""
JOURNAL = ".predict.jsonl"
"""First what makes the masks, then a line an image; there while a run is, or was cut short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemScore:
    """What ``scores.csv`` says of an item."""

    tile: int
    score: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """One image that is done."""

    image_id: str
    image_key: str
    mask_sha256: str
    """Of the file."""
    doubt_sha256: str | None
    class_pixels: Mapping[str, int]
    """Pixels by class name, background included."""
    scores: tuple[ItemScore, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Predicted:
        """The reverse of ``asdict``."""
        scores = tuple(ItemScore(**one) for one in values["scores"])
        return cls(**{**values, "scores": scores})


_Run = tuple[Any, Sequence[Any]]
"""What made an earlier run's masks, and the images it did."""


class MaskFolder:
    """What one run writes; made by :func:`open_prediction_folder`. One thread writes, others may look up."""

    def __init__(
        self, folder: Path, made_by: Mapping[str, Any], known: Mapping[str, Predicted], ours: Collection[str]
    ) -> None:
        self._folder = folder
        self._ours = ours
        self._made_by = made_by
        self._known = known
        self._done: dict[str, Predicted] = {}
        self._journal: TextIO | None = None

    def found(self, image_id: str, image_key: str) -> Predicted | None:
        """What an earlier run wrote of these very pixels, if its files are still as it wrote them."""
        known = self._known.get(image_id)
        if known is None or known.image_key != image_key:
            return None
        paths = self._paths(image_id)
        wanted = (known.mask_sha256, known.doubt_sha256)
        is_whole = all(
            _sha256_of(path) == sha256 for path, sha256 in zip(paths, wanted, strict=True) if sha256
        )
        return known if is_whole else None

    def keep(self, predicted: Predicted, mask: bytes | None, doubt: bytes | None) -> None:
        """Write the files of an image, then its line; without files, it was done before."""
        for path, content in zip(self._paths(predicted.image_id), (mask, doubt), strict=True):
            if content is not None:
                _write(path, content)
        self._done[predicted.image_id] = predicted
        if mask is not None:
            self._note(asdict(predicted))

    def drop(self, image_id: str) -> None:
        """Remove what an earlier run wrote of an image that cannot be read now: it would pass for a mask of this.

        What that run did not write stays.
        """
        for path in self._paths(image_id):
            if _sha256_of(path) in self._ours:
                path.unlink(missing_ok=True)

    def finish(self, failures: Sequence[str]) -> None:
        """Write ``scores.csv`` of all images that are done, then ``provenance.json``; the journal has served."""
        done = [self._done[image_id] for image_id in sorted(self._done)]

        def scores(path: Path) -> None:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["image_id", "tile", "score", "reason", "version"])
                for one in done:
                    writer.writerows(
                        [one.image_id, item.tile, f"{item.score:.6f}", item.reason, self._made_by["version"]]
                        for item in one.scores
                    )

        document = {**self._made_by, "images": [asdict(one) for one in done], "failures": list(failures)}
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self._folder / SCORES, scores)
        write_atomically(self._folder / PROVENANCE, lambda path: path.write_text(text, encoding="utf-8"))
        (self._folder / JOURNAL).unlink()

    @contextmanager
    def journal(self) -> Iterator[None]:
        """Keep the journal open for a block. What said before that the folder was complete is gone from then on."""
        lines = [self._made_by, *(asdict(one) for one in self._known.values())]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        path = self._folder / JOURNAL
        write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))
        for name in (PROVENANCE, SCORES):
            (self._folder / name).unlink(missing_ok=True)
        with path.open("a", encoding="utf-8") as self._journal:
            yield

    def _note(self, line: Mapping[str, Any]) -> None:
        assert self._journal is not None, "within journal()"
        self._journal.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._journal.flush()

    def _paths(self, image_id: str) -> tuple[Path, Path]:
        return self._folder / f"{image_id}.png", self._folder / DOUBT / f"{image_id}.png"


@contextmanager
def open_prediction_folder(folder: Path, made_by: Mapping[str, Any]) -> Iterator[MaskFolder]:
    """Open a folder for one run, which goes on with what an earlier one left.

    Parameters
    ----------
    made_by : mapping
        JSON that decides what the masks are, with ``version``. What was made by anything else is made anew.

    Raises
    ------
    StateError
        If another process writes there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(f"{folder}: another prediction writes here; expected one at a time") from None
        _clear_leftovers(folder)
        earlier = [_of_provenance(folder / PROVENANCE), _of_journal(folder / JOURNAL)]
        opened = MaskFolder(folder, made_by, _known(earlier, made_by), _files_of(earlier))
        with opened.journal():
            yield opened
    finally:
        os.close(descriptor)


def _clear_leftovers(folder: Path) -> None:
    """Remove temporary names of a run that was killed."""
    for name in ("*.png", f"{DOUBT}/*.png", SCORES, PROVENANCE, JOURNAL):
        path = folder / name
        for leftover in path.parent.glob(f".{path.name}.*{path.suffix}"):
            leftover.unlink(missing_ok=True)


def sha256(content: bytes) -> str:
    """SHA-256 (hex) of a file's content."""
    return hashlib.sha256(content).hexdigest()


def _files_of(earlier: Sequence[_Run]) -> frozenset[str]:
    """SHA-256 of every file that earlier runs wrote, whatever made them."""
    images = [one for _, of_run in earlier for one in of_run if isinstance(one, dict)]
    return frozenset(
        one[key] for one in images for key in ("mask_sha256", "doubt_sha256") if isinstance(one.get(key), str)
    )


def _known(earlier: Sequence[_Run], made_by: Mapping[str, Any]) -> dict[str, Predicted]:
    """Images that a run by the same maker did; what cannot be read as such was none."""
    found: dict[str, Predicted] = {}
    for maker, images in earlier:
        if maker == made_by:
            try:
                found.update((one["image_id"], Predicted.from_dict(one)) for one in images)
            except (KeyError, TypeError):
                continue
    return found


def _of_provenance(path: Path) -> _Run:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {k: v for k, v in document.items() if k not in ("images", "failures")}, document["images"]
    except (OSError, ValueError, KeyError, AttributeError):
        return None, ()


def _of_journal(path: Path) -> _Run:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None, ()
    documents = []
    for line in lines:
        try:
            documents.append(json.loads(line))
        except ValueError:
            break  # the line at which the run was killed
    return (documents[0], documents[1:]) if documents else (None, ())


def _sha256_of(path: Path) -> str | None:
    try:
        return sha256(path.read_bytes())
    except OSError:
        return None


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write_bytes(content))
