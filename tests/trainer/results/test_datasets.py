from pathlib import Path

import pytest
from places import SHARED

from cytoloop.domain.errors import ConfigError, PlateError
from trainer.results.datasets import open_dataset, reference_1

U2OS, DSB = SHARED / "data" / "u2os-hoechst-gal3", SHARED / "data" / "dsb2018-fluo"


@pytest.mark.data
@pytest.mark.skipif(not U2OS.is_dir(), reason="the real images are not beside the project")
def test_wells_of_real_cells_judge_once_and_never_teach_in_the_same_fold(tmp_path: Path) -> None:
    dataset = open_dataset("u2os-hoechst-gal3", U2OS, tmp_path)
    judged = [record.image_id for fold in dataset.folds for record in fold.test]
    assert len(judged) == len(set(judged)) == 17
    for fold in dataset.folds:
        sides = [{r.group for r in side} for side in (fold.train, fold.validation, fold.test)]
        assert all(sides)
        assert not sides[0] & sides[1]
        assert not (sides[0] | sides[1]) & sides[2]
    # the data's own split has fields of this well on both sides
    assert any(len([r for r in fold.test if r.well == "I12"]) == 2 for fold in dataset.folds)
    assert len({frozenset(r.group for r in fold.validation) for fold in dataset.folds}) == 5


@pytest.mark.data
@pytest.mark.skipif(not DSB.is_dir(), reason="the real images are not beside the project")
def test_nuclei_are_split_as_their_index_says(tmp_path: Path) -> None:
    dataset = open_dataset("dsb2018-fluo", DSB, tmp_path)
    (fold,) = dataset.folds
    assert (len(fold.train), len(fold.validation), len(fold.test)) == (344, 16, 50)
    truth_HW = dataset.truth(fold.test[0])
    assert truth_HW.shape == (fold.test[0].height, fold.test[0].width)


def test_another_plate_than_the_studys_is_refused(tiny_plate: Path, tmp_path: Path) -> None:
    with pytest.raises(PlateError, match="wells, expected the 104 of this study"):
        reference_1(tiny_plate, tmp_path)


def test_an_unknown_data_set_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'cifar': expected one of reference-1"):
        open_dataset("cifar", tmp_path, tmp_path)


@pytest.fixture
def tiny_plate(tmp_path: Path) -> Path:
    from cytoloop.commands.simulate_plate import simulate_plate_command

    simulate_plate_command(tmp_path / "plate", "reference-1", 2, 0)
    return tmp_path / "plate"
