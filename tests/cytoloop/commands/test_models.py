"""``cytoloop models`` and ``cytoloop cycle --cancel``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from places import ROOT
from samples import make_assay, make_model, write_field

from cytoloop.adapters.plates import read_plate
from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.cli import run
from cytoloop.commands.models import describe, facts_of
from cytoloop.domain.snapshot import make_snapshot
from cytoloop.domain.types import ModelVersion
from cytoloop.nn.predict import predict_prob
from cytoloop.nn.weights import WEIGHTS_FILE, load_weights
from cytoloop.pipeline.cip_version import ensure_cip_version
from cytoloop.pipeline.provenance import provenance
from cytoloop.pipeline.pruning import PRUNED
from cytoloop.pipeline.training import train_version
from cytoloop.pipeline.weak_labels import weak_label_store, weak_masks
from trainer.presets import preset

ASSAY = make_assay(normalisation={"low": 1.0, "high": 99.8, "softness": 8.0})
SMALLER = {"steps_per_epoch": 2, "batch": 2, "crop": 32}


@dataclass
class Shelf:
    """A home with a CIP version in force and a CDL that waits."""

    home: Path
    store: Store
    registry: Registry
    cip: str
    cdl: ModelVersion
    image: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """Trained once; tests that change something work on ``shelf``."""
    folder = tmp_path_factory.mktemp("shelf")
    home = folder / "home"
    for number in range(6):
        write_field(folder / "plate" / f"P_B{number + 1:02d}_f1.tif", number)
    store, registry = Store(home), Registry(home / "models")
    store.assays.ensure(ASSAY)
    store.images.add(ASSAY, read_plate(folder / "plate", ASSAY))
    weak_label_store(store, ASSAY)
    cip = ensure_cip_version(store, registry, ASSAY)
    splits = {record.image_id: record.split for record in store.images.all("rosella")}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cdl, _ = train_version(
        store,
        registry,
        ASSAY,
        make_snapshot("rosella", "cdl", weak_masks(store, ASSAY), {}, splits),
        method="cdl",
        preset="smoke",
        config=replace(preset("smoke", "cdl", ASSAY, 0), **SMALLER),
        weak_weight=1.0,
        device="cpu",
    )
    torch.set_num_threads(threads)
    yield Shelf(home, store, registry, cip.version, cdl, folder / "plate" / "P_B01_f1.tif")
    store.close()


@pytest.fixture
def shelf(made: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.chdir(tmp_path)
    return made


def said(capsys: pytest.CaptureFixture[str], shelf: Shelf, *arguments: str, code: int = 0) -> str:
    """What a command that ends so says on stdout, or on stderr where it fails."""
    assert run([*arguments, "--home", str(shelf.home)]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err if code else captured.out


def document(capsys: pytest.CaptureFixture[str], shelf: Shelf, *arguments: str) -> Any:
    return json.loads(said(capsys, shelf, *arguments, "--json"))


# --- list, show ------------------------------------------------------------------------------------


def test_list_tells_status_in_words_and_contest_iou_the_newest_last(tmp_path: Path, capsys: Any) -> None:
    store = Store(tmp_path / "home")
    for name in ("rosella", "other"):
        store.assays.ensure(make_assay(name=name))
    later = make_model("mdl-20240601-00000000", created_at=make_model().created_at.replace(month=6))
    store.models.add(later)
    store.models.add(make_model(assay="other"))
    store.models.set_metrics(later.version, {"mean_iou": {"contest": 0.876543, "sealed": None}})
    store.close()
    shelf = SimpleNamespace(home=tmp_path / "home")
    lines = [line for line in said(capsys, shelf, "models", "list").splitlines() if "-2024" in line]  # type: ignore[arg-type]
    assert [line.split()[1] for line in lines] == [make_model().version, later.version]
    assert "waits for a contest" in lines[0]
    assert "0.877" in lines[1]
    listed = document(capsys, shelf, "models", "list")["models"]  # type: ignore[arg-type]
    assert [(one["status"], one["mean_iou_contest"]) for one in listed] == [
        ("candidate", None),
        ("candidate", 0.876543),
    ]


def test_show_tells_the_lineage_a_line_a_fact(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    cdl = shelf.cdl
    shown = said(capsys, shelf, "models", "show", cdl.version)
    facts = dict(line.split(":", 1) for line in shown.splitlines())
    assert re.fullmatch(r" +candidate since 20\d\d-.* UTC: waits for a contest", facts["Status"])
    assert facts["Made from"].strip() == f"weak labels of {shelf.cip} (active)"
    assert re.search(rf"\d weak label\(s\) of train wells; snapshot {cdl.snapshot}$", facts["Learned from"])
    assert facts["Training"].strip().startswith("preset smoke, seed 0; 2 epoch(s), epoch ")
    assert "steps_per_epoch 2 (preset 12)" in facts["Not as preset"]
    assert "batch 2 (preset 8)" in facts["Not as preset"]
    assert "network" not in facts["Not as preset"]
    assert facts["Digest"].strip() == cdl.digest
    assert facts["Files"].strip().startswith(f"{shelf.registry.folder(cdl.version)}, ")
    assert facts["Files"].endswith("digest checked now, right")
    assert facts["Contests"].strip() == "none"


def test_show_as_json_is_the_same_as_one_document(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    shown = document(capsys, shelf, "models", "show", shelf.cdl.version)
    assert (shown["version"], shown["snapshot"]) == (shelf.cdl.version, shelf.cdl.snapshot)
    assert shown["config"]["train"]["batch"] == 2
    assert shown["differs_from_preset"]["crop"] == {"value": 32, "preset": 128}
    assert shown["parents"][0]["version"] == shelf.cip
    assert shown["files"]["problem"] == ""
    assert shown["learned"]["weak"]["train"] > 0


def test_show_tells_recipe_and_parameters_of_a_cip_version(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = said(capsys, shelf, "models", "show", shelf.cip)
    assert re.search(r"^Recipe: +rosella: .*\w+ \d", shown, re.MULTILINE)
    assert "nothing learned" in shown
    assert "digest checked now, right" in shown
    assert "Training" not in shown


def test_show_tells_code_and_machine_where_they_were_recorded() -> None:
    environment = provenance("cpu", "float32")
    told = facts_in(make_model(config={"environment": environment}))
    assert f"sources {environment['code']['digest'][:12]}" in told["Code"]
    assert told["Libraries"].startswith("python 3.")
    assert told["Machine"].startswith("cpu (")
    assert "algorithms False" in told["Machine"]
    assert facts_in(make_model())["Code"] == "not recorded"
    assert facts_in(make_model(config={"environment": {}}))["Code"] == "cytoloop None"


def facts_in(model: ModelVersion) -> dict[str, str]:
    """Facts of a version that has no files, in a home of its own."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        try:
            store.assays.ensure(ASSAY)
            store.models.add(model)
            home = SimpleNamespace(
                store=store, registry=Registry(Path(folder) / "models"), load=lambda name: ASSAY
            )
            return dict(facts_of(describe(home, model.version)))  # type: ignore[arg-type]
        finally:
            store.close()


def test_numbers_of_a_preset_that_is_gone_are_not_compared(shelf: Shelf) -> None:
    config = {**shelf.cdl.config, "preset": "quick"}
    assert facts_in(make_model(config=config))["Not as preset"] == (
        "not comparable: preset 'quick': expected one of fast, paper, smoke"
    )


def test_contests_are_told_with_their_sentences(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    home = shelf.home.parent / "fought"
    store = Store(home)
    store.assays.ensure(ASSAY)
    store.models.add(make_model())
    store.models.add_contest("rosella", "0a1b", make_model().version, "cip-1", False, "no [gain]", {})
    store.models.add_contest("rosella", None, "mdl-1", make_model().version, True, "better", {})
    store.close()
    shown = said(capsys, replace(shelf, home=home), "models", "show", make_model().version)
    assert "challenged cip-1: no [gain] (cycle 0a1b)\n" in shown
    assert "challenged by mdl-1: better\n" in shown


def test_weights_that_were_changed_are_told(shelf: Shelf) -> None:
    path = shelf.registry.folder(shelf.cdl.version) / WEIGHTS_FILE
    content = path.read_bytes()
    path.chmod(0o644)
    try:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        home = SimpleNamespace(store=shelf.store, registry=shelf.registry, load=lambda name: ASSAY)
        files = dict(facts_of(describe(home, shelf.cdl.version)))["Files"]  # type: ignore[arg-type]
        assert "NOT USABLE" in files
        assert "the files were changed" in files
    finally:
        path.write_bytes(content)
        path.chmod(0o444)


# --- export ----------------------------------------------------------------------------------------


def snippet() -> str:
    """The Python of docs/models.md."""
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return str(code)


def test_an_export_gives_with_the_code_of_the_docs_what_the_network_gives(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    told = said(capsys, shelf, "models", "export", shelf.cdl.version, "rosella.onnx")
    assert re.search(
        r"opset 18.*docs/models.md.*differ from PyTorch's by at most \d\.\de-0\d", told, re.DOTALL
    )
    image_CHW = tifffile.imread(shelf.image)
    tifffile.imwrite("image.tif", image_CHW[:, :61, :45], photometric="minisblack")
    names: dict[str, Any] = {}
    exec(snippet(), names)  # the code of our own page
    loaded = load_weights(shelf.registry.folder(shelf.cdl.version), shelf.cdl.digest)
    expected_KHW = predict_prob(loaded.model, image_CHW[:, :61, :45], loaded.normalisation)
    np.testing.assert_allclose(names["probabilities_NKHW"][0], expected_KHW, atol=1e-4)
    assert names["mask_HW"].shape == (61, 45)
    assert names["classes"] == ["Background", "Phagophore", "Autolysosome"]
    meta = names["said"]
    assert (meta["version"], meta["digest"], meta["assay"]) == (
        shelf.cdl.version,
        shelf.cdl.digest,
        "rosella",
    )
    assert json.loads(meta["channels"]) == ["pHluorin", "DsRed"]

    # there now, and not overwritten by accident
    before = Path("rosella.onnx").read_bytes()
    refused = said(capsys, shelf, "models", "export", shelf.cdl.version, "rosella.onnx", code=1)
    assert "rosella.onnx: is there already; expected a new file, or --force" in refused
    Path("rosella.onnx").write_text("something else")
    exported = document(capsys, shelf, "models", "export", shelf.cdl.version, "rosella.onnx", "--force")
    assert Path("rosella.onnx").read_bytes() == before
    assert exported["metadata"]["version"] == shelf.cdl.version
    assert 0 <= exported["difference"] < 1e-4
    assert sorted(path.name for path in Path().iterdir()) == ["image.tif", "rosella.onnx"]


def test_what_is_no_network_or_has_no_weights_is_not_exported(
    shelf: Shelf, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = said(capsys, shelf, "models", "export", shelf.cip, "x.onnx", code=1)
    assert f"model '{shelf.cip}': a CIP recipe" in refused
    assert "expected a cdl, mdl or joint version" in refused
    refused = said(capsys, shelf, "models", "export", "cdl-20240101-00000000", "x.onnx", code=1)
    assert "is not in this home" in refused
    real = type(shelf.store.models).get
    monkeypatch.setattr(
        type(shelf.store.models), "get", lambda self, version: replace(real(self, version), status=PRUNED)
    )
    refused = said(capsys, shelf, "models", "export", shelf.cdl.version, "x.onnx", code=1)
    assert "its weights were removed to save space; only its lineage is left" in refused
    assert list(Path().iterdir()) == []


def test_missing_packages_are_a_matter_of_the_installation(
    shelf: Shelf, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cytoloop.nn.export.find_spec", lambda name: None)
    refused = said(capsys, shelf, "models", "export", shelf.cdl.version, "x.onnx", code=2)
    assert (
        "onnx, onnxscript, onnxruntime not installed; expected after: pip install 'cytoloop[onnx]'" in refused
    )


# --- promote, rollback, cancel ---------------------------------------------------------------------


class FakeTrainer:
    """Brings into force what it is told, in the store alone."""

    asked: list[tuple[str, str, str, str | None]]
    closed = 0

    def __init__(self, settings: Any) -> None:
        self.store = Store(settings.home)
        FakeTrainer.asked = []

    def run_now(
        self,
        assay: str,
        asked_by: str,
        progress: Any = None,
        *,
        kind: str = "train",
        target: str | None = None,
    ) -> Any:
        FakeTrainer.asked.append((assay, asked_by, kind, target))
        progress("publish 1/1", 0.9)
        cycle = self.store.cycles.ask(assay, asked_by, kind=kind, target=target)  # type: ignore[arg-type]
        self.store.cycles.start(cycle)
        self.store.cycles.finish(cycle, "done", "promoted", f"{asked_by} brought it into force")
        return SimpleNamespace(cycle_id=cycle, outcome="promoted", reason="")

    def close(self) -> None:
        FakeTrainer.closed += 1
        self.store.close()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """CIP served, then a CDL; an MDL waits and another one is pruned. Nothing has weights."""
    monkeypatch.setattr("trainer.schedule.Trainer", FakeTrainer)
    monkeypatch.setattr(FakeTrainer, "closed", 0)
    home = tmp_path / "home"
    store = Store(home)
    store.assays.ensure(ASSAY)
    cip, cdl = make_model("cip-20240101-00000000"), make_model()
    for model in (cip, cdl, make_model("mdl-20240517-00000001"), make_model("mdl-20240517-00000002")):
        store.models.add(replace(model, status=PRUNED) if model.version.endswith("2") else model)
    for version, before in ((cip.version, None), (cdl.version, cip.version)):
        publication = store.publications.begin("rosella", version, before, [])
        store.models.activate("rosella", version)
        store.publications.advance(publication, "done")
    store.close()
    return Shelf(home, store, Registry(home / "models"), cip.version, cdl, tmp_path)


def test_promote_and_rollback_run_a_cycle_of_their_kind_and_tell_what_came_of_it(
    served: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    target = "mdl-20240517-00000001"
    assert said(capsys, served, "models", "promote", target) == "promoted: cli brought it into force\n"
    assert FakeTrainer.asked == [("rosella", "cli", "promote", target)]
    row = document(capsys, served, "models", "rollback")
    assert (row["kind"], row["state"], row["outcome"]) == ("rollback", "done", "promoted")
    assert FakeTrainer.asked == [("rosella", "cli", "rollback", None)]
    said(capsys, served, "models", "rollback", "--assay", "rosella")
    assert FakeTrainer.closed == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("promote", "mdl-20240101-00000000"), "model 'mdl-20240101-00000000' is not in this home; it holds"),
        (("promote", "cdl-20240517-00000000"), "cdl-20240517-00000000 is in force already"),
        (("promote", "mdl-20240517-00000002"), "its weights were removed"),
        (("rollback", "--assay", "other"), "--assay is 'other', expected one of ['rosella']"),
    ],
)
def test_what_cannot_be_brought_into_force_is_refused_before_anything_is_asked(
    served: Shelf, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in said(capsys, served, "models", *arguments, code=1)
    assert (FakeTrainer.asked, FakeTrainer.closed) == ([], 1)
    store = Store(served.home)
    assert store.cycles.all("rosella") == []
    store.close()


def test_there_is_nothing_to_go_back_to_before_the_first_version(
    served: Shelf, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cytoloop.adapters.store.models.Publications.previous", lambda self, assay: None)
    assert "is the first version in force" in said(capsys, served, "models", "rollback", code=1)
    assert FakeTrainer.asked == []


def test_a_cycle_is_called_off_and_its_row_shown(served: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(served.home)
    waiting = store.cycles.ask("rosella", "schedule")
    told = said(capsys, served, "cycle", "--cancel", waiting)
    assert told == f"cycle {waiting} of rosella: cancelled by cli before it began\n"
    running = store.cycles.ask("rosella", "schedule")
    store.cycles.start(running)
    told = said(capsys, served, "cycle", "--cancel", running)
    assert told == f"cycle {running} of rosella: cancelled by cli, ends at its next step\n"
    assert document(capsys, served, "cycle", "--cancel", running)["cancelled_by"] == "cli"
    store.close()
    assert f"cycle {waiting} is failed" in said(capsys, served, "cycle", "--cancel", waiting, code=1)
    assert "cycle 'x' is not in this home" in said(capsys, served, "cycle", "--cancel", "x", code=1)
    both = said(capsys, served, "cycle", "--cancel", running, "--assay", "rosella", code=1)
    assert "--cancel and --assay: expected one of them" in both
