"""The folder of predicted masks: whole, resumable, one writer."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from cytoloop.adapters.images import PROVENANCE, encode_mask
from cytoloop.adapters.prediction_folder import (
    DOUBT,
    JOURNAL,
    SCORES,
    ItemScore,
    Predicted,
    open_prediction_folder,
    sha256,
)
from cytoloop.domain.errors import StateError

MADE_BY = {"version": "cdl-1", "engine": "e 1"}
MASK = encode_mask(np.eye(8, dtype=np.uint8))


def predicted(image_id: str, doubt: bytes | None = None) -> Predicted:
    return Predicted(
        image_id=image_id,
        image_key=f"key of {image_id}",
        mask_sha256=sha256(MASK),
        doubt_sha256=None if doubt is None else sha256(doubt),
        class_pixels={"background": 56, "nucleus": 8},
        scores=(
            ItemScore(tile=0, score=0.25, reason="3 objects, „so“"),
            ItemScore(tile=1, score=0.5, reason=""),
        ),
    )


def interrupted(folder: Path, *image_ids: str, made_by: dict[str, str] = MADE_BY) -> None:
    """A run that ends before it is finished."""
    with open_prediction_folder(folder, made_by) as masks:
        for image_id in image_ids:
            masks.keep(predicted(image_id), MASK, None)


def test_a_finished_folder_tells_all_and_keeps_no_journal(tmp_path: Path) -> None:
    with open_prediction_folder(tmp_path, MADE_BY) as masks:
        masks.keep(predicted("b"), MASK, None)
        masks.keep(predicted("a", doubt=b"png"), MASK, b"png")
        masks.finish(["c.tif: broken"])
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert names == ["a.png", "b.png", f"{DOUBT}/a.png", PROVENANCE, SCORES]
    with (tmp_path / SCORES).open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1:3] == [
        ["a", "0", "0.250000", "3 objects, „so“", "cdl-1"],
        ["a", "1", "0.500000", "", "cdl-1"],
    ]
    assert [row[0] for row in rows[1:]] == ["a", "a", "b", "b"]
    document = json.loads((tmp_path / PROVENANCE).read_text())
    assert (document["version"], document["failures"]) == ("cdl-1", ["c.tif: broken"])
    assert [one["image_id"] for one in document["images"]] == ["a", "b"]


@pytest.mark.parametrize("is_finished", [False, True])
def test_a_later_run_finds_what_an_earlier_one_did(tmp_path: Path, is_finished: bool) -> None:
    with open_prediction_folder(tmp_path, MADE_BY) as masks:
        masks.keep(predicted("a"), MASK, None)
        if is_finished:
            masks.finish([])
    with open_prediction_folder(tmp_path, MADE_BY) as masks:
        assert not (tmp_path / PROVENANCE).exists()
        assert not (tmp_path / SCORES).exists()
        found = masks.found("a", "key of a")
        assert found == predicted("a")
        assert masks.found("a", "other pixels") is None
        assert masks.found("b", "key of b") is None
        masks.keep(found, None, None)
        masks.finish([])
    assert [one["image_id"] for one in json.loads((tmp_path / PROVENANCE).read_text())["images"]] == ["a"]


def test_what_was_done_before_is_still_known_after_a_second_interruption(tmp_path: Path) -> None:
    interrupted(tmp_path, "a")
    interrupted(tmp_path, "b")
    with open_prediction_folder(tmp_path, MADE_BY) as masks:
        assert masks.found("a", "key of a")
        assert masks.found("b", "key of b")


def test_a_line_cut_short_and_all_after_it_is_forgotten(tmp_path: Path) -> None:
    interrupted(tmp_path, "a", "b")
    text = (tmp_path / JOURNAL).read_text()
    (tmp_path / JOURNAL).write_text(text[:-20])
    with open_prediction_folder(tmp_path, MADE_BY) as masks:
        assert masks.found("a", "key of a")
        assert masks.found("b", "key of b") is None


@pytest.mark.parametrize("content", [b"", MASK[:-10]])
def test_a_mask_that_is_not_as_it_was_written_is_made_again(tmp_path: Path, content: bytes) -> None:
    interrupted(tmp_path, "a")
    (tmp_path / "a.png").write_bytes(content)
    with open_prediction_folder(tmp_path, MADE_BY) as masks:
        assert masks.found("a", "key of a") is None


def test_masks_of_another_maker_are_made_again(tmp_path: Path) -> None:
    interrupted(tmp_path, "a", made_by={**MADE_BY, "engine": "e 2"})
    with open_prediction_folder(tmp_path, MADE_BY) as masks:
        assert masks.found("a", "key of a") is None


def test_one_run_writes_at_a_time(tmp_path: Path) -> None:
    with open_prediction_folder(tmp_path, MADE_BY) as masks:
        masks.keep(predicted("a"), MASK, None)
        with (
            pytest.raises(StateError, match="another prediction writes here"),
            open_prediction_folder(tmp_path, MADE_BY),
        ):
            pass
        assert masks.found("a", "key of a") is None  # of an earlier run there is none
        assert (tmp_path / JOURNAL).exists()


def test_half_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / DOUBT).mkdir()
    half = [
        tmp_path / ".a.png.x1y2.png",
        tmp_path / DOUBT / ".a.png.x1y2.png",
        tmp_path / ".scores.csv.q.csv",
    ]
    for path in (*half, tmp_path / "mine.png", tmp_path / ".hidden.png"):
        path.write_bytes(b"half")
    with open_prediction_folder(tmp_path, MADE_BY):
        assert not any(path.exists() for path in half)
        assert (tmp_path / "mine.png").exists()
        assert (tmp_path / ".hidden.png").exists()
