"""An opened home: what nearly every command needs, wired in one place."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cytoloop.adapters.assays import load_assay
from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.config import Settings
from cytoloop.domain.assay import Assay
from labelstudio_config.client import LabelStudioClient


class Home:
    """Settings, store, registry and Label Studio of one home folder."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.home)
        self.registry = Registry(settings.home / "models")

    @functools.cached_property
    def label_studio(self) -> LabelStudioClient:
        """A client with this home's token."""
        return LabelStudioClient(*self.settings.need_label_studio())

    def load(self, name: str) -> Assay:
        """An assay of this home, or a shipped one."""
        return find_assay(self.settings.home, name)

    def close(self) -> None:
        """Close databases and connections."""
        if "label_studio" in self.__dict__:
            self.label_studio.close()
        self.store.close()


def find_assay(home: Path, name: str) -> Assay:
    """An assay by name: the home's own first, then the shipped ones."""
    return load_assay(name, [home / "assays"])


@contextmanager
def open_home(home: Path | None, environ: Mapping[str, str] = os.environ) -> Iterator[Home]:
    """Open a home for the length of a command."""
    opened = Home(Settings.from_env(environ, home))
    try:
        yield opened
    finally:
        opened.close()
