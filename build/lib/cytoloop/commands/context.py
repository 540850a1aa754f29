"""What every command is given: where the home is, and who is listening."""

from __future__ import annotations

import os
from pathlib import Path

from cytoloop.config import Settings


class Context:
    """The options every command shares."""

    def __init__(self, home: Path | None = None, as_json: bool = False) -> None:
        self.home = home
        self.as_json = as_json

    def update(self, home: Path | None, as_json: bool) -> None:
        """Take what was said further right on the command line; the last word on the home wins."""
        self.home = home or self.home
        self.as_json = as_json or self.as_json

    @property
    def settings(self) -> Settings:
        """Places and secrets; read when needed, so that ``--help`` never fails."""
        return Settings.from_env(os.environ, self.home)
