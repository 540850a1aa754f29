"""What is told of one item by the number of its task: prediction, doubt map, mask."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tiny import ADA, BATCH, BOB, Tiny, make_tiny
from werkzeug.test import TestResponse

from cytoloop.adapters.images import palette_of
from cytoloop.domain.errors import StateError, UnknownImage
from cytoloop.domain.types import Correction, Item
from labelstudio_config.canvas import hidden_doubts
from labelstudio_config.doubt import doubt_folder, doubt_name, ensure_doubts, show_notice
from labelstudio_config.publish import publish
from labelstudio_config.renders import render_doubts
from ml_backend.access import Caller
from ml_backend.tasks import Tasks

TOKENS = {"expert": "ada-token", "admin": "root-token", "service": "robot-token"}
ROOT = Caller(name="root", role="admin")
FREE = Item(image_id="P-A01", tile=0)


@pytest.fixture
def web(home: Tiny, app: Flask) -> FlaskClient:
    home.publish_active()
    return app.test_client()


def ask(web: FlaskClient, path: str, status: int = 200, role: str = "admin") -> TestResponse:
    answer = web.get(f"/api/v1/tasks/{path}", headers={"Authorization": f"Bearer {TOKENS[role]}"})
    assert answer.status_code == status, answer.text
    return answer


def error(web: FlaskClient, path: str, status: int = 404, role: str = "admin") -> str:
    told: str = ask(web, path, status, role).get_json()["error"]
    return told


def pixels(answer: TestResponse) -> NDArray[np.uint8]:
    assert answer.mimetype == "image/png"
    with Image.open(io.BytesIO(answer.data)) as picture:
        return np.array(picture)


def shown_and_blind(home: Tiny) -> tuple[Item, Item]:
    """An item that experts may see, and one that they are to judge alone."""
    blind = hidden_doubts(home.store, home.assay, home.items())
    return min(set(home.held()) - blind), min(blind)


def test_the_prediction_is_that_of_the_version_in_force(home: Tiny, web: FlaskClient) -> None:
    item, _ = shown_and_blind(home)
    stored = home.store.predictions.get(home.name, home.active(), item)
    assert stored is not None
    told = ask(web, f"{home.task_of(item)}/prediction", role="expert").get_json()
    assert told == {
        "task_id": home.task_of(item),
        "assay": "tiny",
        "image_id": item.image_id,
        "tile": item.tile,
        "height": 32,
        "width": 40,
        "model_version": home.active(),
        "score": stored.score,
        "confidence": stored.confidence,
        "reason": stored.reason,
        "result": stored.result,
    }
    publish(home.studio, home.store, home.assay, home.add_version("cdl-20260101-0123abcd"))
    later = ask(web, f"{home.task_of(item)}/prediction").get_json()
    assert later["model_version"] == "cdl-20260101-0123abcd"


def test_an_item_that_the_version_in_force_has_not_predicted(home: Tiny, web: FlaskClient) -> None:
    item, version = FREE, home.active()
    home.store.predictions.forget(home.name, version)
    for what in ("prediction", "mask.png"):
        assert error(web, f"{home.task_of(item)}/{what}") == (
            f"task {home.task_of(item)}: {version} has no prediction of item 'P-A01/0' yet"
        )


@pytest.mark.parametrize("what", ["prediction", "doubt.png", "mask.png"])
@pytest.mark.parametrize("task", ["4711", "0", "-1", "x", "9" * 30, "9" * 5000, "٣", "1.0"])
def test_a_task_that_shows_nothing_of_ours(web: FlaskClient, what: str, task: str) -> None:
    told = error(web, f"{task}/{what}")
    assert told == f"task {task[:20]}: shows no item of this home's assays ['tiny']"


@pytest.mark.parametrize("assay", ["night", ""])
def test_a_task_of_an_assay_that_is_not_here(home: Tiny, web: FlaskClient, assay: str) -> None:
    told = error(web, f"{home.task_of(FREE)}/prediction?assay={assay}")
    assert told == f"task {home.task_of(FREE)}: shows no item of assay {assay!r}"
    ask(web, f"{home.task_of(FREE)}/prediction?assay=tiny")


def test_a_number_that_two_assays_know_asks_which_is_meant(home: Tiny) -> None:
    """Label Studio gives the numbers of deleted tasks again, also to another project."""
    number = home.task_of(FREE)
    other = replace(home.assay, name="other")
    home.store.assays.ensure(other)
    home.store.images.add(other, [home.store.images.get(home.name, FREE.image_id)])
    home.store.images.set_tasks("other", {FREE: number})
    tasks = Tasks(home.store, lambda name: other if name == "other" else home.assay)
    with pytest.raises(StateError, match=rf"task {number}: known in several assays; .* \['other', 'tiny'\]"):
        tasks.find(str(number), None, ROOT)
    assert tasks.find(str(number), "other", ROOT).assay.name == "other"
    with pytest.raises(UnknownImage, match="of assay 'third'"):
        tasks.find(str(number), "third", ROOT)


@pytest.mark.parametrize("what", ["prediction", "doubt.png", "mask.png"])
def test_what_is_to_be_judged_alone_is_not_told_to_experts(home: Tiny, web: FlaskClient, what: str) -> None:
    shown, blind = shown_and_blind(home)
    told = error(web, f"{home.task_of(blind)}/{what}", 403, "expert")
    assert told == (
        f"task {home.task_of(blind)}: role 'expert' may not see this: the item is to be judged without a model's "
        "word or another expert's"
    )
    for role in ("service", "admin"):
        status = 404 if what == "doubt.png" else 200
        ask(web, f"{home.task_of(blind)}/{what}", status, role)
    ask(web, f"{home.task_of(shown)}/prediction", 200, "expert")


def test_the_doubt_map_is_the_editors(home: Tiny, web: FlaskClient) -> None:
    item = FREE
    record = home.store.images.get(home.name, item.image_id)
    path = doubt_folder(home.home, home.name) / doubt_name(record, item.tile)
    where = f"task {home.task_of(item)}: item 'P-A01/0'"
    for make in (lambda: None, lambda: ensure_doubts(home.home, home.assay, record)):
        make()
        assert (
            error(web, f"{home.task_of(item)}/doubt.png")
            == f"{where} has no doubt map of {home.active()} yet"
        )
    doubt_HW = np.linspace(0, 1, 32 * 40, dtype=np.float32).reshape(32, 40)
    render_doubts(home.store, home.assay, [(record, item.tile, doubt_HW, home.truth_of(item))])
    answer = ask(web, f"{home.task_of(item)}/doubt.png", role="expert")
    assert answer.data == path.read_bytes()
    assert pixels(answer).shape == (32, 40, 3)
    show_notice(home.home, home.assay, record, item.tile, "hidden")
    assert error(web, f"{home.task_of(item)}/doubt.png") == (
        f"{where} shows no doubt map: it is to be judged without a model's word"
    )


def test_the_mask_is_the_prediction_until_somebody_corrects(home: Tiny, web: FlaskClient) -> None:
    item, _ = shown_and_blind(home)
    publish(home.studio, home.store, home.assay, home.add_version("cdl-20260101-0123abcd"))
    answer = ask(web, f"{home.task_of(item)}/mask.png", role="expert")
    assert (pixels(answer) == home.truth_of(item)).all(), "the painted network says the truth"
    assert answer.headers["X-Cytoloop-Source"] == "prediction"
    assert answer.headers["X-Cytoloop-Model-Version"] == "cdl-20260101-0123abcd"
    assert "X-Cytoloop-Annotation" not in answer.headers
    with Image.open(io.BytesIO(answer.data)) as picture:
        assert bytes(picture.getpalette()) == palette_of(home.assay)  # type: ignore[arg-type]


def test_the_mask_is_the_correction_that_stands(home: Tiny, web: FlaskClient) -> None:
    item, _ = shown_and_blind(home)
    shown = home.prediction_of(item)
    regions = [region for region in home.regions(item) if region["value"]["brushlabels"] == ["Nucleus"]]
    annotation = home.studio.annotate(home.task_of(item), regions, parent_prediction=shown)
    home.intake.drain()
    answer = ask(web, f"{home.task_of(item)}/mask.png", role="expert")
    assert (pixels(answer) == np.where(home.truth_of(item) == 2, 2, 0)).all()
    assert answer.headers["X-Cytoloop-Source"] == "correction"
    assert answer.headers["X-Cytoloop-Annotation"] == str(annotation)
    assert answer.headers["X-Cytoloop-Model-Version"] == home.active(), "what the expert began with"
    home.studio.update(annotation, result=home.regions(item))
    home.intake.drain()
    assert (pixels(ask(web, f"{home.task_of(item)}/mask.png")) == home.truth_of(item)).all(), "the newest"
    home.studio.delete_annotation(annotation)
    home.intake.drain()
    assert ask(web, f"{home.task_of(item)}/mask.png").headers["X-Cytoloop-Source"] == "prediction"


def test_before_the_first_import_is_published_there_is_no_version(home: Tiny, app: Flask) -> None:
    home.store.assays.update(home.name, active_version=None)
    told = error(app.test_client(), f"{home.task_of(FREE)}/prediction", 409)
    assert "has no active version yet" in told


# --- the store's one and all ---


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    made = make_tiny(tmp_path_factory.mktemp("kept"))
    yield made
    made.store.close()


@settings(max_examples=25)
@given(
    said=st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 5), st.sampled_from(["submit", "skip", "delete"])),
        max_size=8,
    )
)
def test_what_stands_of_one_item_is_what_stands_of_all(kept: Tiny, said: list[tuple[int, int, str]]) -> None:
    with kept.store._file.transaction() as db:
        db.execute("DELETE FROM corrections")
    for annotation, minute, kind in said:
        item = kept.items()[annotation % 2]
        at = datetime(2026, 1, 1, 12, minute, tzinfo=UTC)
        expert = (ADA, BOB)[annotation % 2].email
        if kind == "submit":
            correction = Correction(
                image_id=item.image_id,
                tile=item.tile,
                mask_HW=kept.truth_of(item),
                expert=expert,
                annotation_id=annotation,
                task_id=kept.task_of(item),
                annotated_at=at,
                parent_version=None,
                lead_time_s=1.0,
                conflict_pixels=0,
            )
            kept.store.corrections.append(kept.name, correction, f"mask-{annotation}-{minute}")
        elif kind == "skip":
            kept.store.corrections.append_skip(kept.name, item, annotation, kept.task_of(item), at, expert)
        else:
            kept.store.corrections.append_deletion(kept.name, annotation)
    standing = kept.store.corrections.standing(kept.name)
    for item in kept.items()[:3]:
        assert kept.store.corrections.standing_of(kept.name, item) == standing.get(item)


def test_a_batch_has_items_of_both_kinds(home: Tiny) -> None:
    home.publish_active(BATCH)
    shown, blind = shown_and_blind(home)
    assert shown != blind
