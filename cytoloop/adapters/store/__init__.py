"""The store: every SQL word of cytoloop is in this package.

``Store`` is the door. It opens the three databases of a home and hands out one object a subject.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cytoloop.adapters.masks import Masks
from cytoloop.adapters.store.connection import SqliteFile
from cytoloop.adapters.store.corrections import Corrections, Reading, StoredCorrection, Totals
from cytoloop.adapters.store.figures import AssayFigures, Figures, Waiting
from cytoloop.adapters.store.handouts import Handouts, Tab
from cytoloop.adapters.store.images import Assays, Images
from cytoloop.adapters.store.imported import Imported
from cytoloop.adapters.store.inbox import Inbox
from cytoloop.adapters.store.leases import Leases
from cytoloop.adapters.store.migrations import STORE
from cytoloop.adapters.store.models import Cycles, Models, Publications
from cytoloop.adapters.store.predictions import Predictions
from cytoloop.adapters.store.queues import Queues
from cytoloop.adapters.store.reviews import Review, Reviews
from cytoloop.adapters.store.scores import Scored, Scores
from cytoloop.adapters.store.worklist import Listed, Worklist
from cytoloop.domain.errors import StateError

__all__ = [
    "AssayFigures",
    "Listed",
    "Reading",
    "Review",
    "Scored",
    "Store",
    "StoredCorrection",
    "Tab",
    "Totals",
    "Waiting",
]


class Store:
    """All that a home keeps, as subjects.

    Parameters
    ----------
    home : Path
        The home folder, on a local disk: SQLite's WAL does not work over a network.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._file = SqliteFile(home / "cytoloop.sqlite3", STORE)
        self.assays = Assays(self._file)
        self.images = Images(self._file)
        self.imported = Imported(self._file)
        self.corrections = Corrections(self._file)
        self.queues = Queues(self._file)
        self.leases = Leases(self._file, self.corrections)
        self.handouts = Handouts(self._file)
        self.reviews = Reviews(self._file, self.corrections)
        self.models = Models(self._file)
        self.cycles = Cycles(self._file)
        self.publications = Publications(self._file)
        self.predictions = Predictions(home / "predictions.sqlite3")
        self.scores = Scores(self.predictions.file)
        self.worklist = Worklist(self.images, self.corrections, self.leases, self.scores, self.predictions)
        self.inbox = Inbox(home / "inbox.sqlite3")
        self.figures = Figures(self._file, self.corrections, self.predictions.file, self.inbox.file)
        self.masks = Masks(home / "masks")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written to the store inside is written whole or not at all; not predictions and the inbox."""
        with self._file.transaction():
            yield

    def check(self) -> list[str]:
        """``PRAGMA quick_check`` of all three databases; what is wrong, empty if nothing is."""
        return [problem for file in self._files() for problem in file.check()]

    def require_sound(self) -> None:
        """Refuse to start on a damaged database: what is written to it now might be lost with it.

        Raises
        ------
        StateError
            Naming the file, what is wrong with it, and what mends it.
        """
        for file in self._files():
            problems = file.check()
            if problems:
                mend = (
                    "it is derived: delete it, and it is made again"
                    if file is self.predictions.file
                    else "expected a sound database: restore a backup (`cytoloop restore`)"
                )
                raise StateError(f"{problems[0]} ({len(problems)} problem(s)); {mend}")

    def _files(self) -> tuple[SqliteFile, ...]:
        return self._file, self.predictions.file, self.inbox.file

    def close(self) -> None:
        """Close every connection."""
        for file in self._files():
            file.close()
