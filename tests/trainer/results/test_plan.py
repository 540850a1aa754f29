from collections import Counter

from trainer.results.plan import AMOUNTS, REMEDIES, WEAK_AMOUNTS, Run, plan

DATASETS = [("reference-1", 1), ("u2os-hoechst-gal3", 5)]


def test_every_joint_run_finds_its_cdl_made_in_an_earlier_stage() -> None:
    first, second = plan(DATASETS, seeds=2, paper=True)
    made = set(first)
    joint = [run for run in second if run.method == "joint"]
    assert len(joint) == len(AMOUNTS) * 2 * (1 + 5)
    assert all(run.base in made for run in joint)
    assert not any(run.method == "joint" for run in first)


def test_no_two_runs_share_a_file() -> None:
    runs = [run for stage in plan(DATASETS, seeds=3, paper=True) for run in stage]
    assert max(Counter(run.key for run in runs).values()) == 1


def test_cip_is_judged_once_a_fold_for_it_has_no_seed() -> None:
    first, _ = plan(DATASETS, seeds=3, paper=False)
    assert Counter(run.dataset for run in first if run.method == "cip") == dict(DATASETS)


def test_studies_of_the_teacher_are_made_on_the_simulated_plate_alone() -> None:
    _, second = plan(DATASETS, seeds=2, paper=False)
    weak_only = [run for run in second if run.method == "cdl"]
    assert {run.dataset for run in weak_only} == {"reference-1"}
    assert len(weak_only) == 2 * (len(WEAK_AMOUNTS) + len(REMEDIES) + 1)
    assert not [run for run in second if run.variant == "paper"]
    assert [run.seed for run in second if run.variant == "long"] == [0, 1]


def test_a_key_says_what_was_learned_from() -> None:
    run = Run(dataset="d", fold=2, seed=1, method="joint", corrected=18)
    assert run.key == "d-fold2-seed1-joint-c18"
    assert Run(dataset="d", fold=0, seed=0, method="mdl").key == "d-fold0-seed0-mdl-call"
    assert Run(dataset="d", fold=0, seed=0, method="cdl", weak=30).key == "d-fold0-seed0-cdl-w30"
