"""Logging for the entry points: one line an event, to standard error and a file in the home."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def configure_logging(level: str, file: Path | None = None, *, stream: bool = True) -> None:
    """Set the handlers of this process; modules only ever call ``getLogger(__name__)``."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    handlers: list[logging.Handler] = []
    if stream:
        handlers.append(logging.StreamHandler(sys.stderr))
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(
            logging.handlers.RotatingFileHandler(file, maxBytes=10_000_000, backupCount=5, encoding="utf-8")
        )
    for handler in handlers:
        handler.setFormatter(logging.Formatter(FORMAT))
        root.addHandler(handler)
    for chatty in ("httpx", "httpcore", "urllib3", "matplotlib", "PIL", "apscheduler"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
