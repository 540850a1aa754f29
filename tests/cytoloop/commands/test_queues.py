"""Policies from a file: applied whole or not at all, and shown as they can be applied again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from samples import make_assay, make_record

from cytoloop.adapters.store import Store
from cytoloop.cli import run
from cytoloop.commands.home import Home
from cytoloop.commands.queues import apply_queues, queues_in_force
from cytoloop.config import Settings
from cytoloop.domain.errors import ConfigError
from cytoloop.domain.queue_policy import QueuePolicy

ADA = {"name": "Ada", "email": "ada@lab.org"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A home that serves two assays; one has a policy in its file and an item."""
    home = tmp_path / "home"
    (home / "assays").mkdir(parents=True)
    shipped = yaml.safe_load(
        (Path(__file__).parents[3] / "labelstudio_config/assays/nuclei.yaml").read_text()
    )
    mine = {**shipped, "name": "mine", "queues": {"day": {"size": 12, "experts": [ADA]}, "night": None}}
    (home / "assays" / "mine.yaml").write_text(yaml.safe_dump(mine))
    store = Store(home)
    rosella = make_assay()
    store.assays.ensure(rosella)
    store.images.add(rosella, [make_record("A")])
    store.assays.ensure(Home(Settings.from_env({}, home)).load("mine"))
    store.close()
    return home


@pytest.fixture
def home(folder: Path) -> Iterator[Home]:
    opened = Home(Settings.from_env({}, folder))
    yield opened
    opened.close()


def write(folder: Path, queues: Any) -> Path:
    path = folder / "queues.yaml"
    path.write_text(yaml.safe_dump({"queues": queues}))
    return path


def test_what_holds_is_applied_or_of_the_assay_file_or_the_default(home: Home, tmp_path: Path) -> None:
    assert [(q.name, q.source, q.policy.size) for q in queues_in_force(home)] == [
        ("mine/day", "assay file", 12),
        ("mine/night", "defaults", 40),
        ("rosella/default", "defaults", 40),
    ]
    apply_queues(home, write(tmp_path, {"day": {"minutes": 30}, "rosella/default": {"gold": ["A/3"]}}))
    day, night, rosella = queues_in_force(home)
    assert (day.source, day.policy) == ("applied", QueuePolicy(minutes=30)), (
        "the file's policy is not mixed in"
    )
    assert (night.source, night.policy) == ("defaults", QueuePolicy())
    assert (rosella.source, rosella.policy) == ("applied", QueuePolicy(gold=("A/3",)))
    assert [q.name for q in queues_in_force(home, "night")] == ["mine/night"]


@pytest.mark.parametrize(
    ("queues", "message"),
    [
        ({"day": {"size": 0}}, "queues.yaml: key 'queues.day': key 'size': got 0 (int), expected a whole"),
        ({"day": [1]}, "queues.yaml: key 'queues.day': got [1] (list), expected a mapping of keys"),
        ({"evening": {}}, "key 'queues.evening': queue 'evening' is not known; expected one of ['mine/day'"),
        ({"day": {}, "mine/day": {}}, "key 'queues.mine/day': queue mine/day is there twice"),
        (
            {"rosella/default": {"gold": ["A/4"]}},
            "key 'queues.rosella/default': key 'gold': item 'A/4' is not in assay 'rosella'; "
            "expected <image id>/<tile> of one of its 4 items",
        ),
        ([], "queues.yaml: key 'queues': got [], expected a mapping of queue to policy"),
        ({}, "queues.yaml: key 'queues': got {}, expected a mapping of queue to policy"),
        ({3: {}}, "key 'queues': got {3: {}}, expected a mapping"),
    ],
)
def test_a_wrong_file_changes_nothing_and_is_answered_exactly(
    home: Home, tmp_path: Path, queues: Any, message: str
) -> None:
    if isinstance(queues, dict) and "day" in queues:
        queues = {"night": {"size": 5}, **queues}
    with pytest.raises(ConfigError) as caught:
        apply_queues(home, write(tmp_path, queues))
    assert message in str(caught.value)
    assert {q.source for q in queues_in_force(home)} == {"assay file", "defaults"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- day", "got list, expected a mapping with the one key 'queues'"),
        ("day: {size: 3}", "got ['day'], expected a mapping with the one key 'queues'"),
        ("", "got NoneType"),
        ("queues: [", "not YAML"),
    ],
)
def test_a_file_of_another_shape_is_refused(home: Home, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "queues.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message.replace("[", r"\[").replace("]", r"\]")):
        apply_queues(home, path)
    path.write_bytes(b"queues: \xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        apply_queues(home, path)


def test_what_is_shown_as_json_can_be_applied(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, {"day": {"experts": [ADA], "strategy": "random", "minutes": 12.5}, "night": None})
    assert run(["queues", "apply", str(path), "--home", str(folder)]) == 0
    assert f"{path}: applied to mine/day, mine/night" in capsys.readouterr().out.replace("\n", "")
    assert run(["queues", "show", "--home", str(folder), "--json"]) == 0
    shown = capsys.readouterr().out
    document = json.loads(shown)["queues"]
    assert list(document) == ["mine/day", "mine/night", "rosella/default"]
    assert document["mine/day"] == QueuePolicy.from_document(document["mine/day"], "shown").document()
    (tmp_path / "again.json").write_text(shown)
    assert run(["queues", "apply", str(tmp_path / "again.json"), "--home", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["queues"] == document


def test_a_table_for_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["queues", "show", "--queue", "day", "--home", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "Ada <ada@lab.org>" in shown
    assert "assay file" in shown
    told = {line.split()[1]: line.split()[-2] for line in shown.splitlines() if line.count("│") == 3}
    assert (told["size"], told["cap"], told["contest_readers"]) == ("12", "12", "1")
    assert run(["queues", "strategies"]) == 0
    assert "entropy/minute+diverse" in capsys.readouterr().out


def test_an_unknown_queue_is_1_and_a_wrong_policy_2(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["queues", "show", "--queue", "evening", "--home", str(folder)]) == 1
    assert "queue 'evening' is not known; expected one of" in capsys.readouterr().err
    path = write(tmp_path, {"day": {"contest_share": 0.9, "audit_share": 0.3}})
    assert run(["queues", "apply", str(path), "--home", str(folder)]) == 2
    captured = capsys.readouterr()
    assert (captured.out, "shares are 140 % in all" in captured.err) == ("", True)
