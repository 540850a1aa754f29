"""Where things lie that tests need and may lack."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LABEL_STUDIO = ROOT / ".venv-studio" / "bin" / "label-studio"
SHARED = ROOT.parent / "shared"
