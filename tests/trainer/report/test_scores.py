"""The numbers of the report are those of the evaluation."""

import numpy as np
import pytest

from cytoloop.domain.metrics import calibration_of, evaluate
from trainer.report import CalibrationScores, VersionScores

NAMES = ("background", "spot", "rod")


def test_scores_hold_the_matrix_boxes_and_error_types() -> None:
    truth, pred = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    truth[2:6, 2:6] = 1
    pred[2:6, 2:6] = 1  # right
    truth[10:14, 2:6] = 1  # missed
    truth[2:6, 12:16] = 2
    pred[2:6, 12:16] = 1  # misclassified
    pred[14:18, 14:18] = 2  # invented
    scores = VersionScores.from_evaluation(
        evaluate([("a", truth, pred)], NAMES), version="cdl-x", method="cdl", split="sealed"
    )
    assert scores.confusion == ((400 - 64, 0, 16), (16, 16, 0), (0, 16, 0))
    spot, rod = scores.errors
    assert (spot.name, spot.truth, spot.right, spot.missed, spot.invented) == ("spot", 2, 1, 1, 0)
    assert (rod.name, rod.truth, rod.misclassified, rod.invented) == ("rod", 1, 1, 1)
    assert [
        (one.name, one.counts.expert, one.counts.predicted, one.counts.matched) for one in scores.boxes
    ] == [
        ("spot", 2, 2, 1),
        ("rod", 1, 1, 0),
    ]
    assert scores.global_accuracy == pytest.approx((336 + 16) / 400)
    assert [one.bf_strict for one in scores.classes][2] == pytest.approx(0.0)


def test_calibration_keeps_classes_apart_and_what_is_undefined_is_none() -> None:
    prob = np.array([[[0.9, 0.2, 0.3]], [[0.1, 0.8, 0.7]], [[0.0, 0.0, 0.0]]])
    sums = calibration_of(prob, np.array([[0, 1, 0]], np.uint8))
    scores = CalibrationScores.from_calibration(
        sums, NAMES, version="cdl-x", method="cdl", splits=("contest", "sealed")
    )
    background, spot, rod = scores.classes
    assert background.ece == pytest.approx(0.1)
    # two pixels given to it, 0.8 and right, 0.7 and wrong
    assert spot.ece == scores.foreground_ece == pytest.approx((0.2 + 0.7) / 2)
    assert rod.ece is None
    told = [(point.pixels, point.confidence, point.accuracy) for point in scores.foreground if point.pixels]
    assert told == [(1, pytest.approx(0.7), 0.0), (1, pytest.approx(0.8), 1.0)]
    assert scores.foreground[0].confidence is None
