"""``cytoloop backup | restore | tokens`` as they are typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import Tiny, make_tiny

from cytoloop.cli import run
from cytoloop.domain.errors import AccessDenied
from ml_backend.access import ApiTokens


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path)
    yield made
    made.store.close()


def test_a_backup_is_written_verified_and_restored(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "home.tar"
    assert run(["--home", str(tiny.home), "backup", str(archive)]) == 0
    told = capsys.readouterr().out
    assert f"{archive}: written and verified" in told
    assert "0 revisions of corrections, 1 model versions." in told
    assert run(["backup", "--verify", str(archive), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["home"] == str(tiny.home)
    assert run(["--home", str(tmp_path / "new"), "restore", str(archive)]) == 0
    assert f"It was at {tiny.home}" in capsys.readouterr().out.replace("\n", " ")
    assert run(["--home", str(tiny.home), "restore", str(archive)]) == 1
    assert "exists and is not empty" in capsys.readouterr().err
    assert run(["backup", "--verify"]) == 1
    assert "no archive was named" in capsys.readouterr().err


def test_a_token_is_given_listed_and_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def cytoloop(*arguments: str) -> int:
        return run(["--home", str(tmp_path), "tokens", *arguments])

    assert cytoloop("add", "ada@lab.org") == 0
    token = capsys.readouterr().out.splitlines()[0]
    assert cytoloop("add", "robot", "--role", "service", "--json") == 0
    robot = json.loads(capsys.readouterr().out)["token"]
    path = tmp_path / "api-tokens"
    assert path.stat().st_mode & 0o777 == 0o600
    assert token not in path.read_text(), "only digests are kept"
    tokens = ApiTokens(path)
    assert (tokens.caller(token).name, tokens.caller(token).role) == ("ada@lab.org", "expert")
    assert cytoloop("list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["tokens"]
    assert listed == [{"name": "ada@lab.org", "role": "expert"}, {"name": "robot", "role": "service"}]
    assert cytoloop("remove", "ada@lab.org") == 0
    with pytest.raises(AccessDenied):
        ApiTokens(path).caller(token)
    assert ApiTokens(path).caller(robot).role == "service"
    assert cytoloop("remove", "ada@lab.org") == 1
    assert "no token of 'ada@lab.org'; expected one of ['robot']" in capsys.readouterr().err
    assert cytoloop("add", "two words") == 1
    assert cytoloop("add", "x", "--role", "king") == 2
