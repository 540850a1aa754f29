"""``cytoloop backend`` and ``cytoloop trainer``: the two processes alone."""

from __future__ import annotations

import ipaddress
import logging
import signal
import threading
from dataclasses import replace
from types import FrameType
from typing import Any

from gunicorn.app.base import BaseApplication

from cytoloop.config import Settings
from cytoloop.domain.errors import ConfigError
from cytoloop.log import configure_logging
from ml_backend.serving import gunicorn_settings

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 6.0


class _Gunicorn(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured by us."""

    def __init__(self, settings: Settings, host: str, port: int) -> None:
        self._settings = settings
        self._options = gunicorn_settings(host, port)
        super().__init__()

    def load_config(self) -> None:
        for key, value in self._options.items():
            self.cfg.set(key, value)

    def load(self) -> Any:
        from ml_backend.app import create_app

        return create_app(self._settings)


def run_backend(settings: Settings, host: str, port: int, is_open: bool = False) -> None:
    """Serve until told to stop.

    Raises
    ------
    ConfigError
        If Label Studio's address or what it proves itself with is not set, or an open server is to listen to others.
    """
    if is_open and not _is_loopback(host):
        raise ConfigError(f"--open with --host {host}: expected 127.0.0.1, where nobody else can ask")
    settings = replace(settings, is_open=is_open)
    settings.need_label_studio()
    settings.need_credentials()
    configure_logging(settings.log_level, settings.home / "logs" / "backend.log", stream=False)
    _Gunicorn(settings, host, port).run()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def run_trainer(settings: Settings, every: int | None, look_every_s: int) -> None:
    """Look and train until told to stop.

    Parameters
    ----------
    every : int, optional
        Corrections after which a cycle is due, instead of each assay's triggers.
    """
    from cytoloop.domain.errors import CytoloopError
    from trainer.schedule import Trainer, build

    configure_logging(settings.log_level, settings.home / "logs" / "trainer.log", stream=False)
    trainer = Trainer(settings)
    idle = threading.Lock()

    def look() -> None:
        with idle:
            try:
                trainer.look(every)
            except CytoloopError as error:
                logger.error("look failed: %s", error)
            except Exception:  # a bug in one cycle: the next look may be about another
                logger.exception("look failed")

    scheduler = build(look, look_every_s)

    def stop(number: int, frame: FrameType | None) -> None:
        trainer.stop()
        scheduler.shutdown(wait=False)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    scheduler.start()
    # A training ends at its next step; whatever takes longer is closed as abandoned by the next start.
    idle.acquire(timeout=STOP_TIMEOUT_S)
    trainer.close()
