"""The page and the document: complete, self-contained, escaped; and the way back from JSON."""

import json
import logging
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cytoloop.domain.errors import InputError
from cytoloop.domain.metrics import evaluate
from cytoloop.domain.promotion import ContestItem, decide
from cytoloop.domain.trainer_policy import ContestPolicy
from trainer.report import (
    AuditPoint,
    BoxStudy,
    CalibrationScores,
    Candidate,
    CasePanel,
    Changes,
    ClassCalibration,
    ClassErrors,
    Contest,
    CorrectedItem,
    CurvePoint,
    CycleReport,
    Epoch,
    ExpertWork,
    Failure,
    Handover,
    HumanTime,
    ItemWork,
    KnownVersion,
    LedgerEntry,
    PastContest,
    ProposalAgreement,
    ProposalErrors,
    Publication,
    RatingStudy,
    ReliabilityPoint,
    SnapshotSummary,
    SourceShare,
    Speed,
    TrainingRun,
    VersionScores,
    WellScore,
    WellsNeeded,
    WorstCase,
)
from trainer.report.figures import image_panel
from trainer.report.render import duration, moment, number, render_report, signed
from trainer.report.studies import BOX_FIGURES

NAMES = ("background", "spot")
OLD, NEW = "cip-20250101-aaaaaaaa", "joint-20250102-bbbbbbbb"
START = datetime(2025, 1, 2, 19, 0, tzinfo=UTC)


def scores(version: str, method: str, shift: int) -> VersionScores:
    truth = np.zeros((40, 40), np.uint8)
    truth[10:20, 10:20] = 1
    evaluation = evaluate([("a", truth, np.roll(truth, shift, 1))], NAMES)
    return VersionScores.from_evaluation(evaluation, version=version, method=method, split="contest")  # type: ignore[arg-type]


def contest(groups: int = 4) -> Contest:
    good, bad = np.array([[90, 0], [1, 9]]), np.array([[90, 0], [5, 5]])
    items = [
        ContestItem(image_id=str(n), tile=0, group=str(n), confusion_challenger=good, confusion_active=bad)
        for n in range(groups)
    ]
    policy = ContestPolicy(min_groups=4, min_class_groups=4)
    decision = decide(items, policy, NAMES, look=2)
    return Contest.from_decision(decision, challenger=NEW, active=OLD, max_class_drop=0.02)


SPOTS = ClassErrors(name="spot", truth=5, right=1, incomplete=1, misclassified=0, missed=3, invented=2)


def audited(cycle: str, minutes: float) -> AuditPoint:
    ranked = ProposalAgreement(
        items=3,
        mean_iou=0.555,
        minutes=6.0,
        objects_changed=14.0,
        objects_per_minute=2.5,
        work=(
            ItemWork(minutes=6.0, objects_changed=15),
            ItemWork(minutes=6.0, objects_changed=12),
            ItemWork(minutes=None, objects_changed=14),
        ),
    )
    audit = ProposalAgreement(
        items=1,
        mean_iou=0.777,
        minutes=3.0,
        objects_changed=5.0,
        objects_per_minute=5 / 3,
        work=(ItemWork(minutes=3.0, objects_changed=5),),
    )
    return AuditPoint(cycle=cycle, expert_minutes=minutes, ranked=ranked, audit=audit)


def corrected() -> tuple[CorrectedItem, ...]:
    changes = Changes(
        pixels_added=30,
        pixels_removed=10,
        pixels_relabelled=0,
        pixels_set_aside=4,
        objects_added=3,
        objects_removed=1,
        objects_relabelled=0,
        objects_reshaped=2,
        minutes_estimated=5.5,
        class_to_class=((900, 30), (10, 60)),
    )
    more = replace(changes, pixels_added=50, objects_added=5, minutes_estimated=6.5)
    item = CorrectedItem(
        image_id="B03_f1", tile=2, expert="anna@lab.example", start="prediction", version=OLD, minutes=7.0
    )
    return (
        replace(item, changes=changes, role="ranked"),
        replace(item, tile=3, start="blank", version=None, minutes=None, changes=more),
        replace(item, tile=0, start="unknown", version=None, minutes=9.0),
    )


def calibration() -> CalibrationScores:
    points = (ReliabilityPoint(lower=0.8, upper=1.0, pixels=400, confidence=0.9, accuracy=0.75),)
    return CalibrationScores(
        version=NEW,
        method="joint",
        splits=("contest", "sealed"),
        foreground_ece=0.151,
        classes=(
            ClassCalibration(name="background", ece=0.002),
            ClassCalibration(name="spot", ece=0.153, points=points),
        ),
        foreground=points,
    )


def rating(first: str = OLD) -> RatingStudy:
    test = {"mean_difference": 2.0, "ks": 1.0, "ks_p": 3.2e-9, "wilcoxon": 0.0, "wilcoxon_p": 0.031}
    return RatingStudy.from_document(
        {
            "name": "blind-7",
            "method_a": first,
            "method_b": NEW,
            "complete": True,
            "conclusion": "The one expert rated the joint model higher.",
            "methods": [
                {"method": first, "n": 2, "mean": 5.5, "sd": 0.7, "median": 5.5},
                {"method": NEW, "n": 2, "mean": 7.5, "sd": 0.7, "median": 7.5},
            ],
            "distributions": [
                {"expert": "anna@lab.example", "method": first, "values": [5, 6]},
                {"expert": "anna@lab.example", "method": NEW, "values": [7, 8]},
            ],
            "between_methods": [
                {
                    **test,
                    "expert": "anna@lab.example",
                    "pairs": 2,
                    "holm_p": 0.062,
                    "effect": 1.0,
                    "effect_low": 1.0,
                    "effect_high": 1.0,
                    "note": "",
                }
            ],
            "minutes_median": 0.7,
        }
    )


def boxes() -> BoxStudy:
    figures = {name: {"mean": 0.625, "sd": 0.125, "count": 2} for name in BOX_FIGURES}
    return BoxStudy.from_document(
        {
            "name": "boxes-3",
            "complete": False,
            "experts": [{"images": 4}, {"images": 5}],
            "minutes_median": 4.2,
            "methods": [
                {
                    "method": OLD,
                    "experts": [{}, {}],
                    "over_experts": {"classes": [{"name": "spot", **figures}]},
                },
                {"method": NEW, "experts": [], "over_experts": None},
            ],
        }
    )


def full_report(picture: str) -> CycleReport:
    judged = contest()
    return CycleReport(
        cycle="2025-01-02-0001",
        assay="rosella",
        started_at=START,
        finished_at=START.replace(minute=42),
        outcome="promoted",
        reason=judged.reason,
        active_before=OLD,
        active_after=NEW,
        asked_by="schedule",
        why="24 corrections since the last cycle, 20 were waited for",
        work=(
            ExpertWork(expert="anna@lab.example", corrections=4, minutes=30.0),
            ExpertWork(expert="ben@lab.example", corrections=2, minutes=None),
        ),
        snapshot=SnapshotSummary(digest="ab" * 32, corrections=6, weak_labels=40, held_out_items=3),
        runs=(
            TrainingRun(
                version=NEW,
                method="joint",
                preset="fast",
                epochs=(Epoch(epoch=1, loss=0.9), Epoch(epoch=2, loss=0.5, validation_mean_iou=0.6)),
                seconds=61,
                chosen_epoch=2,
                resumed_after=1,
                peak_memory_gb=2.31,
                sources=(
                    SourceShare(source="corrections", items=6, weight=1.0, loss_share=0.9),
                    SourceShare(source="weak", items=40, weight=0.1, loss_share=0.1),
                ),
            ),
        ),
        scores=(scores(OLD, "cip", 4), scores(NEW, "joint", 1)),
        candidates=(
            Candidate(version=OLD, method="cip", validation_mean_iou=0.5, is_active=True),
            Candidate(
                version=NEW,
                method="joint",
                validation_mean_iou=0.6125,
                is_challenger=True,
                is_new=True,
                made_at=START,
            ),
        ),
        contest=judged,
        contests=(
            PastContest(
                held_at=START,
                cycle="0",
                challenger="cdl-20250101-cccccccc",
                active=OLD,
                promoted=False,
                reason="",
                groups=1,
            ),
            PastContest(
                held_at=START,
                cycle="1",
                challenger=NEW,
                active=OLD,
                promoted=True,
                reason="",
                difference=0.22,
                lower_bound=0.215,
                confidence=0.99,
                groups=4,
            ),
        ),
        published=Publication(version=NEW, tasks=500, seconds=12.5),
        curve=(
            CurvePoint(cycle="start", version=OLD, corrections=0, expert_minutes=0, contest_mean_iou=0.5),
            CurvePoint(cycle="1", version=NEW, corrections=6, expert_minutes=30, contest_mean_iou=0.8),
        ),
        worst_cases=(
            WorstCase(
                image_id="B03_f1",
                tile=2,
                version=NEW,
                mean_iou=0.4,
                faults="spot: 1 of 3 right, 2 missed",
                panels=(
                    CasePanel(title="image", picture=picture, caption="as the editor shows it"),
                    CasePanel(title="CIP", picture=picture, caption="spot: 0 of 3 right, 3 missed"),
                ),
            ),
        ),
        class_names=NAMES,
        class_colours={"spot": "#ff0000"},
        corrected=corrected(),
        proposals=(ProposalErrors(version=OLD, items=2, classes=(SPOTS,)),),
        audit=(audited("0", 20.0), audited("1", 30.0)),
        calibration=(calibration(),),
        rating=rating(),
        boxes=boxes(),
        human_times=(
            HumanTime(task="rate", minutes=0.7, n=4),
            HumanTime(task="correct", minutes=7.25, n=2),
            HumanTime(task="scratch", minutes=None, n=0),
        ),
        speeds=(
            Speed(version=OLD, method="cip", seconds=0.84, images=3),
            Speed(version=NEW, method="joint", seconds=0.031, images=9),
        ),
        wells=(
            WellScore(
                plate="P7",
                well="B03",
                split="contest",
                treatment="Torin 1",
                items=8,
                corrected=3,
                minutes=12.4,
                mean_iou=0.625,
            ),
            WellScore(plate="P7", well="C05", split="train", items=8, corrected=2, minutes=3.0),
            WellScore(plate="P7", well="D06", split="train", items=8, corrected=0, minutes=0.0),
        ),
        ledger=(
            LedgerEntry(step="corrections", who="person", seconds=1800),
            LedgerEntry(step="training", who="machine", seconds=61),
        ),
        notes=("A note.",),
    )


def bare_report() -> CycleReport:
    return CycleReport(
        cycle="c",
        assay="nuclei",
        started_at=START,
        finished_at=START,
        outcome="not-trained",
        reason="no new corrections since cycle b.",
        active_before=OLD,
        active_after=OLD,
    )


class Page(HTMLParser):
    """What a browser would fetch, and what it would show."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.shown: list[str] = []
        self.unnamed_pictures = 0
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.shown))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.addresses += [given[key] or "" for key in ("src", "href", "srcset", "data") if key in given]
        self.unnamed_pictures += tag == "img" and not given.get("alt")

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


@pytest.fixture
def picture(tmp_path: Path) -> str:
    (tmp_path / "case.png").write_bytes(image_panel(np.zeros((20, 30, 3), np.uint8)))
    return "case.png"


def test_the_page_says_what_was_decided_and_loads_nothing(tmp_path: Path, picture: str) -> None:
    html_path, json_path = render_report(full_report(picture), tmp_path)
    assert (html_path, json_path) == (tmp_path / "report.html", tmp_path / "report.json")
    html = html_path.read_text(encoding="utf-8")
    page = Page(html)
    assert "A better model is now in use" in page.text
    assert "Promoted: mean IoU 0.94 against 0.72 on 4 items of 4 wells, gain +0.22" in page.text
    assert "2 January 2025, 19:00 UTC" in page.text
    assert "took 42 min" in page.text
    for told in (
        "anna@lab.example",
        "500 tasks",
        "B03_f1",
        "A note.",
        "challenger, in use now",
        "in use before",
    ):
        assert told in page.text
    # the learning curve; methods and contest; the plate; of the contest items metrics, classes, two matrices, two of boxes, error types; two of
    # expert boxes; the doubt scale and two panels; proposals, violins, reliability; ranking; training; times
    assert len(page.addresses) == 1 + 2 + 1 + 7 + 2 + 3 + 3 + 1 + 1 + 1
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert page.unnamed_pictures == 0
    assert "script" not in page.tags
    assert "http://" not in html
    assert "https://" not in html


def test_the_first_screen_comes_before_the_details(tmp_path: Path, picture: str) -> None:
    text = Page(render_report(full_report(picture), tmp_path)[0].read_text(encoding="utf-8")).text
    order = [
        "A better model",
        "Promoted: mean IoU",
        "Why now: 24 corrections since the last cycle, 20 were waited for.",
        "the model in use reaches a mean IoU of 0.90; conventional image processing 0.69. It is weakest in spot",
        "What to do now",
        "cytoloop models rollback --assay rosella",
        "Mean BF score",
        "A note.",
        "What the experts’ time",
        "What was new",
        "The four methods",
        "class by class",
    ]
    places = [text.index(told) for told in order]
    assert places == sorted(places)


def test_json_comes_back_as_the_same_report(tmp_path: Path, picture: str) -> None:
    report = full_report(picture)
    document = json.loads(render_report(report, tmp_path)[1].read_text(encoding="utf-8"))
    assert CycleReport.from_dict(document) == report
    assert document["contest"]["lower_bound"] == pytest.approx(report.contest.lower_bound)  # type: ignore[union-attr]


def test_wells_are_on_the_page_with_what_was_corrected_in_them(tmp_path: Path, picture: str) -> None:
    page = Page(render_report(full_report(picture), tmp_path)[0].read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    begin = text.index("The plate, well by well")
    part = text[begin : begin + 900]
    assert "P7" in part
    assert "B03 Torin 1 contest 3 of 8 12.4 0.62" in part
    assert "C05 – train 2 of 8 3.0 –" in part
    assert "D06" not in part  # nothing corrected: it is in the picture alone
    assert "2 of 3 wells have corrected items" in part


def test_a_report_without_wells_says_nothing_of_them(tmp_path: Path, picture: str) -> None:
    for report in (replace(full_report(picture), wells=()), bare_report()):
        assert "well by well" not in render_report(report, tmp_path)[0].read_text(encoding="utf-8")


def test_a_cycle_without_training_has_a_page_too(tmp_path: Path) -> None:
    page = Page(render_report(bare_report(), tmp_path)[0].read_text(encoding="utf-8"))
    assert "Nothing was trained in this cycle" in page.text
    assert "No new corrections since cycle b." in page.text
    assert ".." not in page.text
    assert "No corrections since the last cycle." in page.text
    assert "What the ranking is worth Nothing to compare yet: nothing was corrected" in page.text
    assert page.addresses == []


def test_a_contest_of_too_few_wells_shows_dashes_not_nan(tmp_path: Path) -> None:
    judged = contest(groups=1)
    report = replace(bare_report(), outcome="kept", reason=judged.reason, contest=judged)
    html_path, json_path = render_report(report, tmp_path)
    text = Page(html_path.read_text(encoding="utf-8")).text
    assert "3 more" in text
    assert "too few wells to say" in text
    assert "nan" not in text.lower().split()
    assert json.loads(json_path.read_text(encoding="utf-8"))["contest"]["lower_bound"] is None


def test_what_a_contest_lacks_is_told_with_the_wells_to_begin_with(tmp_path: Path) -> None:
    judged = contest(groups=1)
    report = replace(bare_report(), outcome="kept", reason=judged.reason, contest=judged)
    text = Page(render_report(report, tmp_path)[0].read_text(encoding="utf-8")).text
    assert "It could not be judged yet. Missing: 3 more wells with corrected contest items." in text
    assert "What to do now Correct more contest wells" in text
    needs = WellsNeeded(words="No item is corrected yet in B03 and C04.", wells=("C04", "B03"))
    page = render_report(replace(report, contest_needs=needs), tmp_path)[0]
    text = Page(page.read_text(encoding="utf-8")).text
    assert "No item is corrected yet in B03 and C04. Begin with C04 B03" in text


def test_a_cycle_that_failed_has_a_short_page(tmp_path: Path) -> None:
    failure = Failure(
        step="train joint: epoch 3/8, loss 0.412",
        log="logs/trainer.log",
        then="It waits.",
        waiting=("mdl-20250102-dddddddd",),
    )
    report = replace(
        bare_report(), outcome="failed", reason="training of joint took too long", failure=failure
    )
    text = Page(render_report(report, tmp_path)[0].read_text(encoding="utf-8")).text
    for told in (
        "This cycle failed; the model in use stays",
        "Training of joint took too long.",
        "while the joint model was trained ( train joint: epoch 3/8, loss 0.412 )",
        f"{OLD} : untouched",
        "waiting for a contest: mdl-20250102-dddddddd .",
        "What happens next It waits.",
        "logs/trainer.log",
        "cytoloop cycle --assay nuclei",
    ):
        assert told in text, told
    assert "What was new" not in text
    assert CycleReport.from_dict(json.loads((tmp_path / "report.json").read_text())) == report
    changed = replace(report, active_after=NEW, failure=replace(failure, waiting=(), step="unheard of"))
    text = Page(render_report(changed, tmp_path)[0].read_text(encoding="utf-8")).text
    assert "This cycle failed after it had brought a new model into use" in text
    assert f"{OLD} until then, {NEW} now" in text
    assert "at a step without a name ( unheard of )" in text
    assert "untouched" not in text


def test_a_version_brought_in_by_hand_has_a_short_page(tmp_path: Path) -> None:
    known = KnownVersion(
        version=NEW, method="joint", made_at=START, contest_mean_iou=0.8125, sealed_mean_iou=None
    )
    report = replace(
        bare_report(),
        kind="rollback",
        asked_by="ada",
        why="ada wants it back",
        outcome="rolled-back",
        active_before=NEW,
        handover=Handover(by="ada", before=known, after=replace(known, version=OLD, method="cip")),
    )
    text = Page(render_report(report, tmp_path)[0].read_text(encoding="utf-8")).text
    for told in (
        "An older model is in use again",
        "Why now: ada wants it back.",
        "ada decided; no contest was held.",
        f"In use before Joint {NEW} 2 January 2025, 19:00 UTC 0.812 –",
        f"In use now CIP {OLD}",
        f"cytoloop models promote {NEW}",
    ):
        assert told in text, told
    assert "What was new" not in text


def test_everything_from_outside_is_escaped(tmp_path: Path, picture: str) -> None:
    evil = '"><script>alert(1)</script>'
    report = full_report(picture)
    report = replace(
        report,
        assay=evil,
        reason=evil,
        asked_by=evil,
        why=evil,
        contest_needs=WellsNeeded(words=evil, wells=(evil,)),
        contests=(replace(report.contests[0], challenger=evil, active=evil),),
        notes=(evil,),
        work=(ExpertWork(expert=evil, corrections=1, minutes=1),),
        worst_cases=(
            replace(
                report.worst_cases[0],
                image_id=evil,
                faults=evil,
                panels=(replace(report.worst_cases[0].panels[0], title=evil, caption=evil),),
            ),
        ),
        corrected=(replace(report.corrected[0], image_id=evil, expert=evil, version=evil),),
        rating=replace(rating(evil), conclusion=evil, name=evil),
        boxes=replace(boxes(), name=evil),
        class_colours={evil: evil},
    )
    html = render_report(report, tmp_path)[0].read_text(encoding="utf-8")
    assert "script" not in Page(html).tags
    assert "<script" not in html


def test_a_missing_picture_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        html = render_report(full_report("gone.png"), tmp_path)[0].read_text(encoding="utf-8")
    assert "The picture is missing: gone.png" in Page(html).text
    assert "gone.png" in caplog.text


def test_the_numbers_of_the_papers_figures_are_on_the_page(tmp_path: Path, picture: str) -> None:
    text = Page(render_report(full_report(picture), tmp_path)[0].read_text(encoding="utf-8")).text
    for told in (
        "spot: 1 of 3 right, 2 missed",  # what is wrong in the worst case
        "CIP : spot: 0 of 3 right, 3 missed",
        "2 of 3 items could be compared",
        "the prediction that was shown is no longer known",
        "objects added 8 4 ",  # 3 + 5, median 4
        "pixels added 80 40 ",
        "minutes in the editor 7.0 7.0 minutes by the effort model 5.5 5.5",  # of the one item with both
        "background to spot (60)",
        "B03_f1/3 anna@lab.example empty canvas 5",
        "B03_f1/0 anna@lab.example unknown not known",
        "The one expert rated the joint model higher.",
        "anna@lab.example 2 +2.00 1.00 3e-9 0.0 0.031 0.062 1.00 (1.00 to 1.00)",
        "boxes-3 , not complete yet",
        "standard deviations over 2 experts",
        "0.6 ± 0.1",
        "All drawn classes 0.151",
        # 15, 12, 14 twice over; 2.5 and 2 objects a minute of the timed ones
        "Ranked items needed 6.0 min and 14 changed objects each, items drawn at random 3.0 min and 5; too few",
        "Ranked 6 6.0 14.0 2.2 At random 2 3.0 5.0 1.7",
        "1 30 3 0.555 6.0 14.0 1 0.777 3.0 5.0",
        "on contest and sealed items",
        "6 corrected images, weight 1, 90 % of the gradient",
        "40 weakly labelled images, weight 0.1, 10 % of the gradient",
        "correct a prediction 7.2 2 5 to 10",
        "draw from scratch – 0 20 to 40",
        "0.8 s 3 15 to 20 min",
        "0.03 s 9 2 to 5 s",
        "Joint is the best candidate on the validation items (mean IoU 0.613), so it met the model in use",
        "not trained in use before 0.500 0.724 – spot 0.43",
        "trained in this cycle challenger, in use now 0.613 0.945 – spot 0.82",
        "It was the 2nd contest of the model that was in use",
        "background 0.947 0.989 +0.042 4 spot 0.500 0.900 +0.400 4 Mean 0.724 0.945 +0.221 4",
        "with 99.17 % confidence the gain in mean IoU is at least +0.221",
        "All contests of this assay so far (2)",
        "4 +0.220 +0.215 99 % promoted",  # the newest first
        "1 – – – too few wells: did not count",
        "It was cut off after epoch 1 and went on from there later",
        "at most 2.3 GB of memory",
    ):
        assert told in text, told


def test_a_report_from_before_these_fields_still_loads(tmp_path: Path, picture: str) -> None:
    document = full_report(picture).to_dict()
    new = (
        "corrected",
        "proposals",
        "audit",
        "calibration",
        "rating",
        "boxes",
        "human_times",
        "speeds",
        "class_names",
        "kind",
        "asked_by",
        "why",
        "candidates",
        "contest_needs",
        "contests",
        "failure",
        "handover",
        "wells",
    )
    for key in new:
        del document[key]
    for key in ("look", "max_class_drop", "lacking_groups", "lacking_classes"):
        del document["contest"][key]
    for one in document["contest"]["classes"]:
        del one["groups"]
    for score in document["scores"]:
        for key in ("mean_bf_strict", "global_accuracy", "weighted_iou", "confusion", "boxes", "errors"):
            del score[key]
        for one in score["classes"]:
            del one["bf_strict"]
    for run in document["runs"]:
        for key in ("sources", "resumed_after", "peak_memory_gb"):
            del run[key]
        for epoch in run["epochs"]:
            del epoch["weak_validation"]
    document["worst_cases"] = [
        {"image_id": "B03_f1", "tile": 2, "version": NEW, "mean_iou": 0.4, "picture": picture}
    ]
    report = CycleReport.from_dict(json.loads(json.dumps(document)))
    assert (report.corrected, report.rating, report.speeds) == ((), None, ())
    page = Page(render_report(report, tmp_path)[0].read_text(encoding="utf-8"))
    # the learning curve, the contest, metrics, classes, training, and the one wide picture of the case
    assert len(page.addresses) == 6
    assert "Why now" not in page.text
    assert "The four methods" not in page.text
    assert "No corrections to compare in this cycle." in page.text
    assert CycleReport.from_dict(json.loads((tmp_path / "report.json").read_text())) == report


def test_a_report_from_before_items_had_a_role_still_loads(tmp_path: Path, picture: str) -> None:
    document = full_report(picture).to_dict()
    del document["audit"]
    for one in document["corrected"]:
        del one["role"]
    report = CycleReport.from_dict(json.loads(json.dumps(document)))
    assert {one.role for one in report.corrected} == {None}
    page = Page(render_report(report, tmp_path)[0].read_text(encoding="utf-8"))
    assert "none of the 3 corrected items was handed out as ranked or as drawn at random" in page.text


def test_a_nan_that_slipped_in_becomes_null(tmp_path: Path, picture: str) -> None:
    report = full_report(picture)
    report = replace(report, scores=(replace(report.scores[0], mean_bf=float("nan")), report.scores[1]))
    html_path, json_path = render_report(report, tmp_path)
    assert json.loads(json_path.read_text(encoding="utf-8"))["scores"][0]["mean_bf"] is None
    assert " nan " not in Page(html_path.read_text(encoding="utf-8")).text


def test_a_document_that_is_no_report_is_refused() -> None:
    document = bare_report().to_dict()
    with pytest.raises(InputError, match="cycle report: outcome: "):
        CycleReport.from_dict({**document, "outcome": "perhaps"})


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, "–"),
        (0.25, "0.2 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (5430, "1 h 30 min"),
    ],
)
def test_durations_read_as_a_person_would_say_them(seconds: float | None, told: str) -> None:
    assert duration(seconds) == told


def test_numbers_and_times() -> None:
    assert [number(0.125, 3), number(None), number(float("nan"))] == ["0.125", "–", "–"]
    assert [signed(0.1), signed(-0.1), signed(None)] == ["+0.10", "−0.10", "–"]
    assert moment(datetime(2025, 3, 1, 9, 5)) == "1 March 2025, 09:05"
