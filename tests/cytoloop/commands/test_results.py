from pathlib import Path

import pytest

from cytoloop.cli import run


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CYTOLOOP_HOME", str(tmp_path / "home"))


def test_an_unknown_data_set_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = run(["results", "--dataset", "cifar", "--out", str(tmp_path / "out")])
    assert code == 2
    assert (
        "['cifar']: expected any of reference-1, u2os-hoechst-gal3, dsb2018-fluo" in capsys.readouterr().err
    )


def test_data_that_is_not_at_hand_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = run(
        ["results", "--dataset", "dsb2018-fluo", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    )
    assert code == 1
    assert "holds none of dsb2018-fluo" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
