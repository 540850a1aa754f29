"""Figures: what is drawn, from which numbers, and that odd names do no harm."""

import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cytoloop.domain.errors import ShapeError
from cytoloop.domain.metrics import BoxCounts
from trainer.report import (
    AuditPoint,
    BoxedMethod,
    CalibrationScores,
    Candidate,
    ClassBoxes,
    ClassCalibration,
    ClassErrors,
    ClassScore,
    Contest,
    ContestClass,
    CurvePoint,
    Epoch,
    HumanTime,
    ProposalAgreement,
    RatingStudy,
    ReliabilityPoint,
    TrainingRun,
    VersionScores,
)
from trainer.report.figures import (
    BarPanel,
    agreement_curves,
    box_bands,
    box_ratios,
    class_bars,
    confusion_matrix_figure,
    difference_dots,
    doubt_panel,
    doubt_scale,
    error_bars,
    grouped_bars,
    human_time_figure,
    image_panel,
    learning_curve,
    method_dots,
    metric_bars,
    outline_panel,
    rating_violins,
    reliability_diagram,
    training_curves,
)
from trainer.report.methods import MethodRow

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


def agreement(mean_iou: float | None, items: int = 5) -> ProposalAgreement:
    return ProposalAgreement(
        items=items, mean_iou=mean_iou, minutes=None, objects_changed=None, objects_per_minute=None, work=()
    )


def audited(minutes: float, ranked: ProposalAgreement, audit: ProposalAgreement) -> AuditPoint:
    return AuditPoint(cycle="c", expert_minutes=minutes, ranked=ranked, audit=audit)


def test_agreement_of_ranked_and_random_items_is_drawn_against_expert_minutes() -> None:
    points = [
        audited(30, agreement(0.5), agreement(0.7)),
        audited(60, agreement(0.6), agreement(None, items=0)),
    ]
    svg = agreement_curves(points)
    assert svg is not None
    assert {"expert time so far (minutes)", "chosen by the ranking", "drawn at random"} <= set(texts(svg))
    ranked_alone = agreement_curves([audited(30, agreement(0.5), agreement(None, items=0))])
    assert ranked_alone is not None
    assert "drawn at random" not in texts(ranked_alone)
    assert agreement_curves([]) is None
    assert agreement_curves([audited(1, agreement(None), agreement(None))]) is None


def test_an_agreement_of_too_few_items_has_a_hollow_mark() -> None:
    def hollow(items: int) -> bool:
        svg = agreement_curves([audited(30, agreement(0.5, items), agreement(None, items=0))])
        return svg is not None and "fill: #ffffff; stroke: #d55e00" in svg

    assert hollow(4)
    assert not hollow(5)


def test_figures_without_numbers_are_none() -> None:
    run = TrainingRun(version="v", method="cdl", preset="fast", epochs=(), seconds=1)
    assert learning_curve([]) is None
    assert learning_curve([point(3, None), point(4, float("nan"))]) is None
    assert training_curves(run) is None
    assert class_bars([], []) is None


def test_training_curves_tell_clean_from_weak_validation() -> None:
    epochs = tuple(
        Epoch(epoch=n, loss=1 / n, validation_mean_iou=0.5, weak_validation=0.1 * n) for n in (1, 2)
    )
    both = TrainingRun(version="v", method="cdl", preset="fast", epochs=epochs, seconds=1, chosen_epoch=1)
    weak = replace(both, epochs=tuple(replace(e, validation_mean_iou=None) for e in epochs))
    names = {"clean validation (corrections)", "weak validation (CIP’s labels)"}
    assert names <= set(texts(training_curves(both) or ""))
    assert set(texts(training_curves(weak) or "")) & names == {"weak validation (CIP’s labels)"}


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


# --- versions side by side ---


def metrics(version: str, mean_iou: float | None, **changes: float | None) -> VersionScores:
    plain = VersionScores(
        version=version,
        method="cdl",
        split="contest",
        items=3,
        mean_iou=mean_iou,
        mean_accuracy=None,
        mean_bf=None,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_metric_bars_show_every_metric_that_was_measured_of_each_version() -> None:
    svg = metric_bars(
        [
            metrics("a", 0.25, mean_bf=0.5, mean_bf_strict=0.375, global_accuracy=0.96),
            metrics("b", 0.75, mean_bf=None, mean_bf_strict=0.625, global_accuracy=0.98),
        ],
        ["CIP", "Joint, in use now"],
    )
    assert svg is not None
    told = texts(svg)
    assert {"0.25", "0.75", "0.38", "0.62", "0.96", "0.98", "0.50", "not measured"} <= set(told)
    assert {"CIP", "Joint, in use now", "mean IoU", "mean BF, strict", "global accuracy"} <= set(told)
    assert "mean accuracy" not in told, "nobody measured it"
    assert metric_bars([], []) is None


def test_class_bars_hold_all_three_metrics() -> None:
    one = replace(scores("a", x=0.25), classes=(ClassScore(name="x", iou=0.25, accuracy=0.5, bf=0.75),))
    told = texts(class_bars([one], ["CIP"]) or "")
    assert {"IoU", "Accuracy (share found)", "BF score (outlines)", "0.25", "0.50", "0.75"} <= set(told)


def widths(svg: str, colour: str) -> list[float]:
    """How wide the bars of a colour are, left to right corner, in points."""
    found = []
    for path in re.findall(rf'<path d="([^"]+)"[^>]*style="[^"]*{colour}', svg):
        xs = [float(x) for x in re.findall(r"[ML] (-?[\d.]+) ", path)]
        found.append(max(xs) - min(xs))
    return found


def test_bars_are_as_long_as_their_values() -> None:
    panel = BarPanel(title="t", groups=("x", "y"), values=((0.25, 0.5),))
    svg = grouped_bars("test", [panel], ["CIP"])
    assert svg is not None
    *_, short, long = sorted(widths(svg, "fill: #999999"))  # the first is the legend's
    assert long == pytest.approx(2 * short, rel=1e-3)


def test_a_spread_is_written_and_drawn() -> None:
    panel = BarPanel(title="t", groups=("x",), values=((0.5,), (0.25,)), spreads=((0.125,), (None,)))
    told = texts(grouped_bars("test", [panel], ["a", "b"]) or "")
    assert "0.50 ± 0.12" in told
    assert "0.25" in told


# --- boxes and error types ---

SPOTS = ClassBoxes(
    name="spot",
    counts=BoxCounts(expert=10, predicted=8, matched=6, in_lower_band=2, in_upper_band=4, overlapping=7),
)


def test_box_figures_hold_bands_and_ratios() -> None:
    method = BoxedMethod.from_masks("cip-x", [SPOTS])
    bands = texts(box_bands([method], ["CIP"]) or "")
    assert {"0.40", "0.20", "spot", "no box", "fits well (box IoU 0.5 to 1)"} <= set(bands)
    assert bands.count("0.40") == 2, "4 of 10 fit well, 4 of 10 have no box"
    ratios = texts(box_ratios([method], ["CIP"]) or "")
    # 7 of 8 overlap, 2 of 8 are unmatched predictions, 4 of 10 unmatched expert boxes
    assert {"0.88", "0.25", "0.40"} <= set(ratios)
    assert box_bands([], []) is None
    assert box_ratios([], []) is None


def test_a_class_nobody_drew_has_no_bands() -> None:
    nothing = BoxedMethod.from_masks("cip-x", [ClassBoxes(name="spot", counts=BoxCounts(predicted=3))])
    assert not {"1.00", "0.00"} & set(texts(box_bands([nothing], ["CIP"]) or ""))
    assert "not measured" in texts(box_ratios([nothing], ["CIP"]) or "")


def test_error_bars_count_objects_and_set_the_invented_apart() -> None:
    spots = ClassErrors(
        name="spot", truth=100, right=41, incomplete=27, misclassified=19, missed=13, invented=7
    )
    svg = error_bars([[spots], [replace(spots, right=54, missed=0)]], ["CIP", "CDL"])
    assert svg is not None
    told = texts(svg)
    assert {"41", "27", "19", "13", "7", "54"} <= set(told)
    assert {"right", "incomplete", "misclassified", "missed", "invented", "CIP", "CDL", "spot"} <= set(told)
    lost = texts(error_bars([[replace(spots, invented=3735)]], ["CDL"]) or "")
    assert {"◂ 3735", "41", "objects; left of 0: invented (◂ longer than drawn)"} <= set(lost), (
        "and 41 still has room"
    )
    none = ClassErrors(name="spot", truth=0, right=0, incomplete=0, misclassified=0, missed=0, invented=0)
    assert error_bars([[none]], ["CIP"]) is None
    assert error_bars([], []) is None


# --- confusion, calibration, rating, time ---


def test_the_confusion_matrix_prints_shares_of_the_truth() -> None:
    svg = confusion_matrix_figure([[90, 10, 0], [5, 15, 0], [0, 0, 0]], ["background", "spot", "rod"], "CIP")
    assert svg is not None
    told = texts(svg)
    assert {"90.0 %", "10.0 %", "25.0 %", "75.0 %"} <= set(told), "shares of a row, and rows are the truth"
    assert told.count("none") == 3, "no pixel of the truth is a rod"
    assert {"the expert says", "the model says", "CIP", "rod"} <= set(told)
    assert confusion_matrix_figure([[0, 0], [0, 0]], ["a", "b"], "CIP") is None


def reliability(points: tuple[ReliabilityPoint, ...]) -> CalibrationScores:
    return CalibrationScores(
        version="cdl-x",
        method="cdl",
        splits=("contest",),
        foreground_ece=0.1,
        classes=(
            ClassCalibration(name="background", ece=0.0),
            ClassCalibration(name="spot", ece=0.1, points=points),
        ),
        foreground=points,
    )


def test_reliability_shows_classes_but_no_chance_points() -> None:
    sure = ReliabilityPoint(lower=0.8, upper=1.0, pixels=500, confidence=0.9, accuracy=0.7)
    few = ReliabilityPoint(lower=0.4, upper=0.6, pixels=3, confidence=0.5, accuracy=1.0)
    empty = ReliabilityPoint(lower=0.0, upper=0.2, pixels=0, confidence=None, accuracy=None)
    svg = reliability_diagram(reliability((empty, few, sure)))
    assert svg is not None
    assert {"all drawn classes", "spot", "how sure the model was"} <= set(texts(svg))
    assert "background" not in texts(svg)
    without = reliability_diagram(reliability((empty, replace(few, confidence=0.55), sure)))
    bars = svg.count("fill: #999999")
    assert without is not None
    assert without.count("fill: #999999") == bars == 3, "but the bars below count all pixels"
    assert reliability_diagram(reliability((empty, few))) is None


def rated(a: tuple[int, ...], b: tuple[int, ...]) -> RatingStudy:
    return RatingStudy.from_document(
        {
            "name": "r",
            "method_a": "cip-1",
            "method_b": "cdl-1",
            "complete": True,
            "conclusion": "All is well.",
            "methods": [
                {"method": m, "n": len(v), "mean": None, "sd": None, "median": None}
                for m, v in (("cip-1", a), ("cdl-1", b))
            ],
            "distributions": [
                {"expert": "ada", "method": m, "values": v} for m, v in (("cip-1", a), ("cdl-1", b))
            ],
            "between_methods": [],
        }
    )


def test_violins_show_every_rating_as_a_point() -> None:
    svg = rating_violins(rated((2, 3, 3, 4), (8, 9, 10)), {"cip-1": "CIP", "cdl-1": "CDL"})
    assert svg is not None
    assert {"CIP", "CDL", "ada", "mean 3.0", "mean 9.0"} <= set(texts(svg))
    marker = re.findall(r'<use xlink:href="#(m[0-9a-f]+)"[^>]*style="[^"]*fill: #ffffff', svg)
    assert len(marker) == 7 + 1, "seven ratings, and one mark in the legend"


def test_ratings_that_are_all_equal_need_no_violin() -> None:
    svg = rating_violins(rated((5, 5, 5), (7,)), {})
    assert svg is not None
    assert {"mean 5.0", "mean 7.0", "cip-1", "cdl-1"} <= set(texts(svg))
    assert rating_violins(rated((), ()), {}) is None


def test_minutes_stand_beside_the_papers() -> None:
    times = [HumanTime(task="rate", minutes=None, n=0), HumanTime(task="correct", minutes=7.25, n=4)]
    told = texts(human_time_figure(times) or "")
    assert {"rate a mask", "correct a prediction", "7.2", "here (median)", "the paper’s experts"} <= set(told)
    assert human_time_figure([times[0]]) is None


def test_the_scale_of_doubt_has_words() -> None:
    assert {"sure", "in doubt", "no idea"} <= set(texts(doubt_scale()))


# --- pictures of an item ---


def opened(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def outlined(image: np.ndarray, mask: np.ndarray, unseen: np.ndarray | None = None) -> np.ndarray:
    unseen = np.zeros(mask.shape, bool) if unseen is None else unseen
    return opened(outline_panel(image, mask, unseen, COLOURS))


def test_outlines_run_around_the_object_and_hide_none_of_it() -> None:
    image = np.full((300, 400, 3), 50, np.uint8)
    mask = np.zeros((300, 400), np.uint8)
    mask[100:110, 100:120] = 1
    mask[200:210, 200:220] = 2
    assert (opened(image_panel(image)) == 50).all()
    model = outlined(image, mask)
    assert (model[99, 100:120] == (255, 0, 0)).all()
    assert (model[100:110, 120] == (255, 0, 0)).all()
    assert (model[100:110, 100:120] == 30).all()  # dimmed, not covered
    assert (model[210, 200:220] == (0, 255, 0)).all()
    assert (model[150:199] == 30).all()


def test_objects_at_the_edge_have_no_outline_along_it() -> None:
    mask = np.zeros((300, 400), np.uint8)
    mask[:10, :10] = 1
    model = outlined(np.zeros((300, 400, 3), np.uint8), mask)
    assert (model[0, :10] == 0).all()
    assert (model[10, :10] == (255, 0, 0)).all()


def test_what_nobody_looked_at_is_grey() -> None:
    unseen = np.zeros((300, 400), bool)
    unseen[:, 200:] = True
    model = outlined(np.zeros((300, 400, 3), np.uint8), np.zeros((300, 400), np.uint8), unseen)
    assert (model[:, 200:] > 80).all()
    assert (model[:, :200] == 0).all()


@pytest.mark.parametrize(("width", "shown"), [(100, 500), (340, 340), (680, 680), (2048, 512)])
def test_small_items_are_enlarged_and_large_images_thinned(width: int, shown: int) -> None:
    image, mask = np.zeros((64, width, 3), np.uint8), np.zeros((64, width), np.uint8)
    assert opened(image_panel(image)).shape[1] == shown
    assert outlined(image, mask).shape[1] == shown
    assert opened(doubt_panel(mask.astype(np.float32))).shape[1] == shown


def test_doubt_is_brighter_the_less_a_model_knows() -> None:
    doubt = np.tile(np.linspace(0, 1, 480, dtype=np.float32), (4, 1))
    row = opened(doubt_panel(doubt))[0].astype(float)
    luminance = row @ (0.299, 0.587, 0.114)
    assert (np.diff(luminance[::8]) > 0).all(), "it must read in a grey print too"
    assert tuple(row[0]) == pytest.approx((0, 34, 78), abs=1), "the dark end of the scale beside it"


def test_sizes_and_values_that_do_not_fit_are_refused() -> None:
    mask = np.zeros((4, 5), np.uint8)
    with pytest.raises(ShapeError, match=r"mask \(4, 5\), image \(5, 4\)"):
        outline_panel(np.zeros((5, 4, 3), np.uint8), mask, mask > 0, COLOURS)
    with pytest.raises(ShapeError, match="expected uint8"):
        image_panel(np.zeros((4, 5), np.uint8))
    with pytest.raises(ShapeError, match="values 0…1"):
        doubt_panel(np.full((4, 5), np.nan, np.float32))


def method_row(version: str, *values: float | None) -> MethodRow:
    validation, contest, sealed = values
    return MethodRow(
        candidate=Candidate(version=version, method="joint", validation_mean_iou=validation),
        validation=validation,
        contest=contest,
        sealed=sealed,
        worst_class="",
        worst_iou=None,
        worst_split=None,
    )


def test_methods_are_dots_of_each_split_that_was_measured() -> None:
    svg = method_dots(
        [method_row("a", 0.5, 0.6, None), method_row("b", 0.7, None, None)], ["CIP", "Joint $x"]
    )
    assert svg is not None
    told = texts(svg)
    assert {"CIP", "Joint $x", "validation: chose the challenger", "contest: decides"} <= set(told)
    assert "sealed: only reported" not in told
    assert method_dots([method_row("a", None, None, None)], ["CIP"]) is None


def judged(lower_bound: float | None, drop: float | None = 0.02) -> Contest:
    classes = (("spot", 0.1, False), ("ring", -0.05, True), ("dot", None, False))
    return Contest(
        challenger="c",
        active="a",
        promote=False,
        reason="",
        mean_iou_challenger=0.75,
        mean_iou_active=0.7,
        difference=0.05,
        lower_bound=lower_bound,
        confidence=0.975,
        groups=3,
        items=3,
        classes=tuple(
            ContestClass(
                name=name, iou_challenger=None, iou_active=None, difference=gain, is_drop_too_large=fallen
            )
            for name, gain, fallen in classes
        ),
        max_class_drop=drop,
    )


def test_the_contest_is_drawn_with_its_bound_and_the_fall_that_is_accepted() -> None:
    svg = difference_dots(judged(-0.01))
    assert svg is not None
    told = texts(svg)
    assert {"mean of classes", "spot", "ring", "dot", "+0.050", "+0.100", "−0.050"} <= set(told)
    assert "at least so much, with 97.5 % confidence" in told
    assert "largest fall of a class that is accepted (−0.02)" in told


def test_without_a_bound_or_a_rule_none_is_drawn() -> None:
    svg = difference_dots(judged(None, drop=None))
    assert svg is not None
    assert not [text for text in texts(svg) if "at least" in text or "accepted" in text]
    assert difference_dots(replace(judged(None), difference=None)) is None
