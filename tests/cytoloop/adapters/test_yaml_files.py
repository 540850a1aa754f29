"""YAML of people: what is taken, and what each mistake and each malice is answered with."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from appetite import appetites

from cytoloop.adapters.assays import load_assay
from cytoloop.adapters.yaml_files import DEEPEST, LARGEST, parse_yaml, read_yaml
from cytoloop.domain.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1\nb: [x, 2.5, true, null]", {"a": 1, "b": ["x", 2.5, True, None]}),
        ('{"a": {"b": [1, "ü"]}}', {"a": {"b": [1, "ü"]}}),
        (
            "team: &team [ada, bob]\none: *team\ntwo: *team",
            {k: ["ada", "bob"] for k in ("team", "one", "two")},
        ),
        ("base: &b {x: 1, y: 2}\nmine: {<<: *b, y: 3}", {"base": {"x": 1, "y": 2}, "mine": {"x": 1, "y": 3}}),
        ("[" * DEEPEST + "]" * DEEPEST, json.loads("[" * DEEPEST + "]" * DEEPEST)),
        ("1: a\n'1': b", {1: "a", "1": "b"}),
    ],
)
def test_what_people_write_is_taken(text: str, value: Any) -> None:
    assert parse_yaml(text.encode(), "here") == value


LAUGHS = "a0: &a0 [ha]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
BAD = {
    "laughs": (LAUGHS, "more than 20000 values, aliases followed"),
    "merges": (
        "a0: &a0 {x: 1}\n"
        + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 10)),
        "more than 20000 values",
    ),
    "circle": ("a: &a [*a]", "an alias leads to what it is part of"),
    "deep": ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"nested more than {DEEPEST} deep"),
    "deeper": ("[" * 100_000, "nested more than"),
    "deep maps": ("".join(" " * n + "a:\n" for n in range(600)), "nested"),
    "wide": ("[" + "1," * 30_000 + "]", "more than 20000 values"),
    "twice": ("a: 1\nb: 2\na: 3", r"key 'a' is there twice, expected each once\n.*line 3"),
    "twice below": ("q: {size: 1, size: 2}", "key 'size' is there twice"),
    "no such day": ("a: 2022-13-45", "a value cannot be read"),
    "no number": ("a: !!int x", "a value cannot be read"),
    "no truth": ("a: !!bool x", "a value cannot be read"),
    "digits": ("a: " + "9" * 5000, "a value cannot be read"),
    "a program": ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
    "a name": ("a: !!python/name:os.system", "could not determine a constructor"),
    "a module": ("a: !!python/module:os", "could not determine a constructor"),
    "no end": ('a: "x', "found unexpected end of stream"),
    "two documents": ("a: 1\n---\nb: 2", "expected a single document"),
    "control": ("a: \x01", "special characters are not allowed"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_harm_is_refused_in_exact_words(name: str) -> None:
    text, message = BAD[name]
    with pytest.raises(ConfigError, match=re.compile(f"^here: not YAML: .*{message}", re.DOTALL)) as caught:
        parse_yaml(text.encode(), "here")
    assert len(str(caught.value)) < 2000


def test_a_file_is_refused_by_its_size_and_kind(tmp_path: Path) -> None:
    large, pipe = tmp_path / "large.yaml", tmp_path / "pipe.yaml"
    with large.open("wb") as file:
        file.truncate(LARGEST + 1)
    os.mkfifo(pipe)
    for path, message in (
        (large, f"{LARGEST + 1} bytes, expected at most {LARGEST}"),
        (pipe, "a named pipe, expected a file"),
        (tmp_path / "none.yaml", r"cannot be read \(No such file"),
        (tmp_path, "a folder, expected a file"),
    ):
        with pytest.raises(ConfigError, match=f"^{path}: {message}"):
            read_yaml(path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe4")
    with pytest.raises(ConfigError, match=r"latin\.yaml: not UTF-8: "):
        read_yaml(tmp_path / "latin.yaml")


@pytest.mark.skipif(sys.platform != "linux", reason="memory of a process is counted otherwise elsewhere")
def test_no_assay_file_takes_much_memory(tmp_path: Path) -> None:
    for name, (text, _) in BAD.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "full.yaml").write_text("[" + "[],\n" * (LARGEST // 4 - 1) + "]", encoding="utf-8")
    readings = appetites(sorted(tmp_path.iterdir()), "assay")
    assert len(readings) == len(BAD) + 1
    for reading in readings:
        assert "not YAML" in reading.outcome, reading
        assert reading.grown_mb < 100, reading


@pytest.mark.parametrize(
    "name", ["../rosella", "/etc/passwd", "a/b", "", "A", "rosella\n", "x" * 100_000, "a\0b"]
)
def test_an_assay_is_no_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "rosella.yaml").write_text("name: rosella", encoding="utf-8")
    with pytest.raises(ConfigError, match="not found; expected one of") as caught:
        load_assay(name, [tmp_path / "assays"])
    assert len(str(caught.value)) < 2000
