"""Label Studio is connected to the backend by every import, and a backend that is away loses no plate."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import make_tiny

from cytoloop.commands import importing
from cytoloop.commands.importing import connect_backend
from cytoloop.domain.errors import LabelStudioRefused


def test_an_import_connects_the_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = make_tiny(tmp_path, wells=2)
    asked: list[Any] = []
    monkeypatch.setattr(importing, "connect", lambda *given: asked.append(given))
    home: Any = SimpleNamespace(label_studio=tiny.studio, store=tiny.store, settings=tiny.settings)
    assert connect_backend(home, tiny.assay) is None
    assert asked == [(tiny.studio, tiny.store, tiny.assay, tiny.settings)]

    def away(*_: Any) -> None:
        raise LabelStudioRefused("Label Studio: POST /api/ml/ answered 400: Can't connect to ML backend")

    monkeypatch.setattr(importing, "connect", away)
    assert "Can't connect to ML backend" in str(connect_backend(home, tiny.assay))
    tiny.store.close()
