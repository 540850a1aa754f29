"""The command line: exit codes, and what goes to stdout and stderr."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import make_assay, make_model, write_field

from cytoloop import __version__
from cytoloop.adapters.store import Store
from cytoloop.cli import main, run
from cytoloop.commands import entry
from cytoloop.commands.console import print_json
from cytoloop.domain.errors import LabelStudioUnavailable


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No command may leave anything where the tests are run."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    for number in range(2):
        write_field(tmp_path / "plate" / "images" / f"P_B0{number + 1}_f1.tif", number)
    return tmp_path / "plate"


def raising(error: BaseException):  # type: ignore[no-untyped-def]
    def command(*arguments: Any, **options: Any) -> None:
        raise error

    return command


def test_ok_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert __version__ in capsys.readouterr().out
    assert run(["--help"]) == 0
    assert run(["models", "list", "--help"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-command"], "No such command"),
        (["evaluate", "--assay", "rosella"], "Missing option"),
        (["train", "--assay", "rosella", "--method", "guess"], "Invalid value for '--method'"),
        (["weak-label", "nowhere", "out", "--assay", "rosella"], "'nowhere' does not exist"),
        (["simulate-plate", "out", "--images", "0"], "Invalid value for '--images'"),
        (["models", "show"], "Missing argument"),
        (["--home", __file__, "models", "list"], "is a file"),
    ],
)
def test_wrong_usage_is_2(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_wrong_configuration_is_2(
    plate: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["weak-label", str(plate), "out", "--assay", "rosela"]) == 2
    assert "cytoloop: assay 'rosela' not found; expected one of" in capsys.readouterr().err
    assert run(["cycle", "--home", "new"]) == 2
    assert "CYTOLOOP_LABEL_STUDIO_URL is not set" in capsys.readouterr().err
    monkeypatch.setenv("CYTOLOOP_DEVICE", "gpu")
    assert run(["models", "list"]) == 2
    assert "CYTOLOOP_DEVICE is 'gpu'" in capsys.readouterr().err


def test_bad_data_is_1(plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert run(["weak-label", str(tmp_path / "empty"), "out", "--assay", "rosella"]) == 1
    assert "empty: no image for assay 'rosella'" in capsys.readouterr().err
    image = plate / "images" / "P_B01_f1.tif"
    image.write_bytes(image.read_bytes()[:2000])
    for command, named in (
        (["weak-label", str(plate), "out"], "P_B01_f1.tif"),
        # a home without a model is told before its first image is read; bad images: commands/test_predict.py
        (["predict", str(plate), "out", "--home", "h"], "no active version yet"),
    ):
        assert run([*command, "--assay", "rosella"]) == 1
        captured = capsys.readouterr()
        assert named in captured.err
        assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    "error", [LabelStudioUnavailable("http://host:1 does not answer"), OSError(28, "No space left on device")]
)
def test_the_world_at_fault_is_1(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(entry, "models_list", raising(error))
    assert run(["models", "list"]) == 1
    assert capsys.readouterr() == ("", f"cytoloop: {error}\n")


@pytest.mark.parametrize("before", [True, False])
def test_a_bug_is_3_and_its_traceback_is_in_the_homes_log(
    before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(entry, "models_list", raising(ZeroDivisionError("by nought")))
    home = ["--home", str(tmp_path / "home")]
    assert run([*home, "models", "list"] if before else ["models", "list", *home]) == 3
    log = tmp_path / "home" / "logs" / "error.log"
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"cytoloop: a bug (ZeroDivisionError: by nought); the traceback is in {log}\n"
    assert "Traceback (most recent call last)" in log.read_text()
    assert list(Path.cwd().iterdir()) == []


def test_a_bug_without_a_place_for_its_log_is_still_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(entry, "models_list", raising(KeyError("x")))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "logs").write_text("in the way")
    assert run(["--home", str(tmp_path / "home"), "models", "list"]) == 3
    assert "the log could not be written" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), EOFError()])
def test_interrupted_is_130(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "models_list", raising(error))
    assert run(["models", "list"]) == 130


def test_main_leaves_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as left:
        main(["no-such-command"])
    assert left.value.code == 2


@pytest.mark.parametrize(("code", "expected"), [(None, 0), (0, 0), (4, 4), ("why", 1)])
def test_a_server_that_leaves_keeps_its_code(
    code: Any, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "models_list", raising(SystemExit(code)))
    assert run(["models", "list"]) == expected


@pytest.mark.parametrize("options", [["--json"], []])
def test_output_that_nobody_reads_is_no_error(tmp_path: Path, options: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "cytoloop.cli", *options, "--home", str(tmp_path / "home"), "models", "list"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


# --- --json ----------------------------------------------------------------------------------------


def strictly(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("before", [True, False])
def test_json_is_one_document_on_stdout(
    before: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    store = Store(home)
    store.assays.ensure(make_assay())
    store.models.add(make_model())
    store.close()
    arguments = ["models", "list", "--home", str(home)]
    assert run(["--json", *arguments] if before else [*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    (model,) = strictly(captured.out)["models"]
    assert model["version"] == make_model().version
    assert model["created_at"] == "2024-05-17T12:00:00+00:00"
    assert captured.err == ""


def test_json_of_longer_work_has_progress_on_stderr_only(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["simulate-plate", str(tmp_path / "sim"), "--images", "1", "--json"]) == 0
    strictly(capsys.readouterr().out)
    assert run(["weak-label", str(plate), str(out), "--assay", "rosella", "--json"]) == 0
    captured = capsys.readouterr()
    assert len(strictly(captured.out)["written"]) == 2
    assert captured.err != ""
    assert run(["evaluate", "--truth", str(out), "--pred", str(out), "--assay", "rosella", "--json"]) == 0
    strictly(capsys.readouterr().out)


def test_an_error_leaves_stdout_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", "cdl-20240517-00000000", "--json", "--home", "home"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "model 'cdl-20240517-00000000' is not in this home" in captured.err


@dataclass
class Nested:
    place: Path
    when: datetime
    values: tuple[float, ...]
    counts: dict[int, Any]


def test_what_commands_return_becomes_plain_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(
        Nested(
            place=Path("/x/µ"),
            when=datetime(2024, 5, 17, tzinfo=UTC),
            values=(1.5, math.nan, math.inf),
            counts={1: np.int64(3), 2: np.float32(0.5), 3: np.array([1, 2]), 4: {"b", "a"}},
        )
    )
    out = capsys.readouterr().out
    assert "µ" in out
    assert strictly(out) == {
        "place": "/x/µ",
        "when": "2024-05-17T00:00:00+00:00",
        "values": [1.5, None, None],
        "counts": {"1": 3, "2": 0.5, "3": [1, 2], "4": ["a", "b"]},
    }
