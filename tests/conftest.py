"""Fixtures for the whole suite: a clean environment, and on demand a real Label Studio and a real browser."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from places import LABEL_STUDIO, ROOT

from labelstudio_config.client import LabelStudioClient
from labelstudio_config.server import LabelStudioServer, free_port

# How long an example takes says nothing: a machine may be busy.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may find the home or the secrets of whoever runs it."""
    for name in [name for name in os.environ if name.startswith("CYTOLOOP_")]:
        monkeypatch.delenv(name)


@dataclass(frozen=True)
class Studio:
    """A running Label Studio and a client of it."""

    server: LabelStudioServer
    client: LabelStudioClient
    document_root: Path


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """One real Label Studio for the session; the migrated database is kept in ``.cache``."""
    if not LABEL_STUDIO.is_file():
        pytest.skip("no Label Studio in .venv-studio (make test installs it)")
    folder = tmp_path_factory.mktemp("studio")
    server = LabelStudioServer(
        executable=LABEL_STUDIO,
        data_dir=folder / "data",
        document_root=folder / "files",
        port=free_port(),
        username="expert@example.com",
        password=secrets.token_urlsafe(16),
        token=secrets.token_hex(20),
        template_cache=ROOT / ".cache",
    )
    with server, LabelStudioClient(server.url, server.token, timeout_s=60.0) as client:
        yield Studio(server, client, server.document_root)


@pytest.fixture(scope="session")
def chromium_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """A function that opens a page in headless Chromium; keywords go to Playwright's ``new_context``."""
    executable = next(
        (found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None
    )
    if executable is None:
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS, headless=True)

        def open_page(**options: Any) -> Any:
            return browser.new_context(**{"viewport": {"width": 1600, "height": 950}, **options}).new_page()

        yield open_page
        browser.close()
