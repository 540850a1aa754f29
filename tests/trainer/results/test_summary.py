from typing import Any

import pytest

from cytoloop.domain.errors import InputError
from trainer.results.summary import Arm, Study, bars_of, told

RIGHT, WRONG = [[90, 10], [10, 90]], [[50, 50], [50, 50]]
CDL, CIP = Arm(method="cdl"), Arm(method="cip")


def document(
    method: str, seed: int = 0, groups: str = "ABC", confusion: Any = RIGHT, fold: int = 0, **run: Any
) -> dict[str, Any]:
    return {
        "run": {
            "method": method,
            "corrected": None,
            "weak": None,
            "variant": "",
            "seed": seed,
            "fold": fold,
            **run,
        },
        "train_s": 10.0,
        "items": [
            {"group": group, "confusion": confusion, "bf": [0.5, None], "bf_strict": [0.5, 0.0]}
            for group in groups
        ],
    }


def test_seeds_are_averaged_and_their_spread_is_told() -> None:
    result = Study([document("cdl"), document("cdl", 1, confusion=WRONG)]).result(CDL)
    assert result.seeds == 2
    assert result.mean_iou.value == pytest.approx((90 / 110 + 50 / 150) / 2)
    assert result.seed_sd == pytest.approx(abs(90 / 110 - 50 / 150) / 2**0.5)
    assert result.class_bf[0] == 0.5
    assert (result.mean_bf, result.mean_bf_strict) == (0.5, 0.25)


def test_a_seed_that_lacks_a_fold_is_left_out() -> None:
    runs = [
        document("cdl", 0, "AB", fold=0),
        document("cdl", 0, "CD", fold=1),
        document("cdl", 1, "AB", WRONG, fold=0),
    ]
    study = Study(runs, folds=2)
    assert study.seeds(CDL) == {0}
    assert study.groups == ("A", "B", "C", "D")
    assert study.result(CDL).mean_iou.value == pytest.approx(90 / 110)
    with pytest.raises(InputError, match="no finished run"):
        Study(runs[2:], folds=2)


def test_a_gain_is_taken_over_the_seeds_both_have() -> None:
    runs = [
        document("mdl", 0),
        document("mdl", 1, confusion=WRONG),
        document("joint", 1, confusion=WRONG),
        document("cip", 0, confusion=WRONG),
    ]
    study = Study(runs)
    assert study.gain(Arm(method="joint"), Arm(method="mdl")).value == 0.0
    expected = (90 / 110 + 50 / 150) / 2 - 50 / 150
    assert study.gain(Arm(method="mdl"), CIP).value == pytest.approx(expected)


def test_a_bar_that_is_missed_says_so() -> None:
    better = bars_of(Study([document("cip", confusion=WRONG), document("cdl")]))
    worse = bars_of(Study([document("cip"), document("cdl", confusion=WRONG)]))
    assert [bar.is_met for bar in (*better, *worse)] == [True, False]
    assert worse[0].figure.startswith("−0.485")


def test_joint_against_full_supervision_and_against_mdl() -> None:
    runs = [
        document("mdl"),
        document("mdl", corrected=18, confusion=WRONG),
        document("joint", corrected=18),
    ]
    bars = {bar.text: bar for bar in bars_of(Study(runs))}
    assert any("95 %" in text and bar.figure == "100.0 %" and bar.is_met for text, bar in bars.items())
    assert any("on 18 corrected" in text and bar.is_met for text, bar in bars.items() if "MDL" in text)


def test_told_keeps_the_sign_of_each_end() -> None:
    study = Study([document("cip"), document("cdl", confusion=WRONG)])
    assert told(study.gain(CDL, CIP), signed=True) == "−0.485 (−0.485 … −0.485)"
