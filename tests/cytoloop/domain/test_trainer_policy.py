"""What the ``trainer`` block of an assay may say, and what it is told if it may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import ASSAY

from cytoloop.adapters.assays import read_assay
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import ConfigError
from cytoloop.domain.trainer_policy import TrainerPolicy


def read(folder: Path, block: str) -> Assay:
    path = folder / "tiny.yaml"
    path.write_text(ASSAY + block, encoding="utf-8")
    return read_assay(path)


def test_what_is_left_out_is_at_its_default(tmp_path: Path) -> None:
    plain = read(tmp_path, "")
    assert plain.trainer == TrainerPolicy()
    assert (plain.trainer.contest.min_groups, plain.trainer.contest.min_class_groups) == (12, 8)
    some = read(tmp_path, "trainer: {triggers: {cron: '0 3 * * *', corrections: null}, seed: 3}")
    assert (some.trainer.triggers.cron, some.trainer.triggers.corrections) == ("0 3 * * *", None)
    assert (some.trainer.seed, some.trainer.contest) == (3, TrainerPolicy().contest)
    assert some.digest == plain.digest, "when it trains is no part of what is made"


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ("{triggers: {cron: often}}", r"key 'trainer\.triggers'.*cron expression 'often'"),
        ("{triggers: {corrections: 0}}", r"key 'trainer\.triggers\.corrections'.*got 0"),
        ("{triggers: {weekly: true}}", r"key 'trainer\.triggers\.weekly' is not known"),
        ("{limits: {memory_gb: -1}}", r"key 'trainer\.limits\.memory_gb'.*got -1"),
        ("{limits: {device: tpu}}", r"key 'trainer\.limits\.device'.*got 'tpu'"),
        ("{contest: {min_groups: 2}}", r"key 'trainer\.contest\.min_groups'.*got 2"),
        ("{contest: {confidence: 95}}", r"key 'trainer\.contest\.confidence'.*got 95"),
        ("{methods: [cip]}", r"key 'trainer\.methods\.0'.*got 'cip'"),
        ("{methods: [joint]}", r"got 'joint' without 'cdl', which it starts from"),
        ("{methods: [mdl, mdl]}", r"methods: got \['mdl', 'mdl'\], expected each"),
    ],
)
def test_what_is_wrong_is_told_by_file_key_and_value(tmp_path: Path, block: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"tiny\.yaml: .*{told}"):
        read(tmp_path, f"trainer: {block}")
