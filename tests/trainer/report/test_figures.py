"""Figures: what is drawn, from which numbers, and that odd names do no harm."""

import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from cytoloop.domain.errors import ShapeError
from trainer.report import ClassScore, CurvePoint, Epoch, TrainingRun, VersionScores
from trainer.report.figures import case_picture, class_bars, learning_curve, training_curves

COLOURS = ("#000000", "#ff0000", "#00ff00")


def texts(svg: str) -> list[str]:
    return [
        "".join(e.itertext()).strip() for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("}text")
    ]


def scores(version: str, **ious: float | None) -> VersionScores:
    return VersionScores(
        version=version,
        method="mdl",
        split="contest",
        items=3,
        mean_iou=None,
        mean_accuracy=None,
        mean_bf=None,
        classes=tuple(ClassScore(name=name, iou=iou, accuracy=None, bf=None) for name, iou in ious.items()),
    )


def point(minutes: float, contest: float | None, sealed: float | None = None) -> CurvePoint:
    return CurvePoint(
        cycle="c",
        version="v",
        corrections=1,
        expert_minutes=minutes,
        contest_mean_iou=contest,
        sealed_mean_iou=sealed,
    )


def test_the_learning_curve_has_units_and_only_measured_series() -> None:
    svg = learning_curve([point(0, 0.5), point(90, None), point(200, 0.8)])
    assert svg is not None
    assert "expert time so far (minutes)" in texts(svg)
    assert "contest items" in texts(svg)
    assert "sealed items" not in texts(svg)


def test_figures_without_numbers_are_none() -> None:
    run = TrainingRun(version="v", method="cdl", preset="fast", epochs=(), seconds=1)
    assert learning_curve([]) is None
    assert learning_curve([point(3, None), point(4, float("nan"))]) is None
    assert training_curves(run) is None
    assert class_bars([], []) is None


def test_the_same_numbers_give_the_same_figure() -> None:
    points = [point(0, 0.5, 0.4), point(60, 0.7, 0.6)]
    assert learning_curve(points) == learning_curve(points)


def test_training_curves_show_validation_and_the_epoch_kept() -> None:
    epochs = tuple(
        Epoch(epoch=n, loss=1 / n, validation_loss=2 / n, validation_mean_iou=0.1 * n) for n in (1, 2, 3)
    )
    run = TrainingRun(version="v", method="cdl", preset="fast", epochs=epochs, seconds=1, chosen_epoch=2)
    svg = training_curves(run)
    assert svg is not None
    assert {"training", "validation", "epoch kept", "epoch", "loss (no unit)", "mean IoU (0–1)"} <= set(
        texts(svg)
    )
    short = TrainingRun(
        version="v", method="cdl", preset="fast", epochs=(Epoch(epoch=1, loss=0.5),), seconds=1
    )
    svg = training_curves(short)
    assert svg is not None
    assert "mean IoU (0–1)" not in texts(svg)


def test_bars_write_the_value_and_survive_odd_class_names() -> None:
    svg = class_bars(
        [scores("a", **{"<b>$x": 0.25, "y": None}), scores("b", **{"<b>$x": 0.5, "y": 0.75})], ["CIP", "a$b$"]
    )
    assert svg is not None
    assert {"<b>$x", "0.25", "0.75", "not measured", "a$b$"} <= set(texts(svg))


def panels(png: bytes, gap: int = 8) -> list[np.ndarray]:
    picture = np.asarray(Image.open(io.BytesIO(png)))
    width = (picture.shape[1] - 2 * gap) // 3
    return [picture[:, n * (width + gap) : n * (width + gap) + width] for n in range(3)]


def test_outlines_run_around_the_object_and_hide_none_of_it() -> None:
    image = np.full((300, 400, 3), 50, np.uint8)
    truth, pred = np.zeros((300, 400), np.uint8), np.zeros((300, 400), np.uint8)
    pred[100:110, 100:120] = 1
    truth[200:210, 200:220] = 2
    shown, model, expert = panels(case_picture(image, truth, pred, COLOURS))
    assert (shown == 50).all()
    assert (model[99, 100:120] == (255, 0, 0)).all()
    assert (model[100:110, 120] == (255, 0, 0)).all()
    assert (model[100:110, 100:120] == 30).all()  # dimmed, not covered
    assert (model[150:] == 30).all()
    assert (expert[210, 200:220] == (0, 255, 0)).all()
    assert (expert[:150] == 30).all()


def test_objects_at_the_edge_have_no_outline_along_it() -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    mask = np.zeros((300, 400), np.uint8)
    mask[:10, :10] = 1
    _, model, _ = panels(case_picture(image, mask, mask, COLOURS))
    assert (model[0, :10] == 0).all()
    assert (model[10, :10] == (255, 0, 0)).all()


def test_what_nobody_looked_at_is_grey() -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    truth = np.zeros((300, 400), np.uint8)
    truth[:, 200:] = 255
    shown, _, expert = panels(case_picture(image, truth, np.zeros_like(truth), COLOURS))
    assert (expert[:, 200:] > 80).all()
    assert (expert[:, :200] == 0).all()
    assert (shown == 0).all()


@pytest.mark.parametrize(("width", "shown"), [(100, 500), (340, 340), (680, 680), (2048, 512)])
def test_small_items_are_enlarged_and_large_images_thinned(width: int, shown: int) -> None:
    mask = np.zeros((64, width), np.uint8)
    found = panels(case_picture(np.zeros((64, width, 3), np.uint8), mask, mask, COLOURS))
    assert found[0].shape[1] == shown


def test_sizes_that_differ_are_refused() -> None:
    mask = np.zeros((4, 5), np.uint8)
    with pytest.raises(ShapeError, match=r"truth \(4, 5\), image \(5, 4\)"):
        case_picture(np.zeros((5, 4, 3), np.uint8), mask, mask, COLOURS)
    with pytest.raises(ShapeError, match="expected uint8"):
        case_picture(np.zeros((4, 5), np.uint8), mask, mask, COLOURS)
