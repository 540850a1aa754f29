"""``cytoloop models``: what is in the registry, where it comes from, and as ONNX."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cytoloop import __version__
from cytoloop.commands.home import Home
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import CytoloopError, InputError, StateError
from cytoloop.domain.types import CycleKind, ModelVersion
from cytoloop.pipeline.lineage import METHOD_WORDS, STATUS_WORDS, Ancestor, Learned, Lineage, lineage_of
from cytoloop.pipeline.pruning import PRUNED

if TYPE_CHECKING:
    from trainer.schedule import Trainer

Facts = list[tuple[str, str]]
"""A name and a sentence, a line each."""


# --- list ------------------------------------------------------------------------------------------


def listed_models(home: Home) -> list[dict[str, Any]]:
    """Every version of the home, the newest last, with its status in words and its mean IoU on contest items."""
    models = [model for name in home.store.assays.names() for model in home.store.models.all(name)]
    return [
        {
            **asdict(model),
            "status_in_words": STATUS_WORDS[model.status],
            "mean_iou_contest": _mean_iou(model).get("contest"),
        }
        for model in sorted(models, key=lambda one: (one.created_at, one.version))
    ]


LIST_COLUMNS = ["Version", "Assay", "Status", "In words", "Contest mean IoU", "Parent", "Made (UTC)"]


def list_rows(listed: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Rows of the table of versions."""
    return [
        [
            one["version"],
            one["assay"],
            one["status"],
            one["status_in_words"],
            "" if one["mean_iou_contest"] is None else f"{one['mean_iou_contest']:.3f}",
            one["parent"] or "",
            f"{one['created_at']:%Y-%m-%d %H:%M}",
        ]
        for one in listed
    ]


# --- show ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A version with all that is known of it."""

    lineage: Lineage
    differs: dict[str, dict[str, Any]] | None
    """Numbers of its training that are not its preset's: ``value`` and ``preset`` by name; None where the two
    cannot be compared."""
    note: str
    """Why they cannot."""

    def to_dict(self) -> dict[str, Any]:
        """One document."""
        return {**self.lineage.to_dict(), "differs_from_preset": self.differs, "preset_note": self.note}


def describe(home: Home, version: str) -> Described:
    """Gather what there is to know of a version.

    Raises
    ------
    UnknownVersion
        If the home has no such version.
    """
    lineage = lineage_of(home.store, home.registry, version)
    model = lineage.model
    if "train" not in model.config:
        return Described(lineage=lineage, differs=None, note="nothing was trained")
    try:
        return Described(lineage=lineage, differs=preset_differences(model, home.load(model.assay)), note="")
    except CytoloopError as error:  # a preset or an assay that is no longer there
        return Described(lineage=lineage, differs=None, note=str(error))


def preset_differences(model: ModelVersion, assay: Assay) -> dict[str, dict[str, Any]]:
    """Numbers of a version's training that its preset would set otherwise here and now, the seed left out.

    Raises
    ------
    ConfigError
        If there is no such preset any more, or the stored numbers are not known to this code.
    """
    from cytoloop.nn.train_config import TrainConfig
    from trainer.presets import preset

    config = TrainConfig.from_dict(model.config["train"])
    stored = _flat(config.to_dict())
    usual = _flat(preset(model.config.get("preset", ""), model.method, assay, config.seed).to_dict())
    return {
        name: {"value": value, "preset": usual[name]}
        for name, value in stored.items()
        if value != usual[name]
    }


def facts_of(described: Described) -> Facts:
    """A version in words, a line a fact; contests are told by :func:`contest_facts`."""
    lineage = described.lineage
    model = lineage.model
    facts = [
        ("Version", f"{model.version}, assay {model.assay}"),
        ("Is", METHOD_WORDS[model.method]),
        ("Status", _status(lineage)),
        ("Made", _when(model.created_at)),
    ]
    if model.method == "cip":
        facts += _recipe_facts(model.config)
    else:
        facts.append(("Made from", _made_from(lineage.parents)))
        facts += _learned_facts(model, lineage.learned)
        facts += _training_facts(described)
        facts += _environment_facts(model.config.get("environment"))
    facts.append(("Mean IoU", _measured(model)))
    facts.append(("Digest", model.digest))
    files = lineage.files
    if files.folder is None:
        facts.append(("Files", f"none: {files.problem}"))
    else:
        state = "digest checked now, right" if not files.problem else f"NOT USABLE: {files.problem}"
        facts.append(("Files", f"{files.folder}, {_size(files.size)}; {state}"))
    return facts


def contest_facts(lineage: Lineage) -> Facts:
    """The contests a version was in, the latest last."""
    version = lineage.model.version
    return [
        (
            _when(one.at),
            (f"challenged {one.active}" if one.challenger == version else f"challenged by {one.challenger}")
            + f": {one.reason}"
            + (f" (cycle {one.cycle})" if one.cycle else ""),
        )
        for one in lineage.contests
    ]


def _status(lineage: Lineage) -> str:
    since = "" if lineage.since is None else f" since {_when(lineage.since)}"
    return f"{lineage.model.status}{since}: {STATUS_WORDS[lineage.model.status]}"


def _made_from(parents: Iterable[Ancestor]) -> str:
    told = []
    for parent in parents:
        if parent.version is None:
            told.append(f"weak labels of CIP recipe {_short(parent.recipe)}, no version of this home")
        elif parent.method == "cip":
            told.append(f"weak labels of {parent.version} ({parent.status})")
        else:
            told.append(f"{parent.version} ({parent.status})")
    return " ← ".join(told) or "corrections alone"


def _recipe_facts(document: Mapping[str, Any]) -> Facts:
    teachers = [document, *document.get("teachers", ())]
    facts = [
        (
            "Recipe" if index == 0 else f"Teacher {index + 1}",
            f"{teacher['recipe']}: " + ", ".join(f"{k} {v:g}" for k, v in teacher["parameters"].items()),
        )
        for index, teacher in enumerate(teachers)
    ]
    return [*facts, ("Recipe code", str(document["code_version"]))]


def _learned_facts(model: ModelVersion, learned: Learned | None) -> Facts:
    if learned is None:
        return [("Learned from", f"snapshot {model.snapshot}, which is not in this home")]
    told = [
        f"{count} {noun} of {split} wells"
        for noun, counts in (("correction(s)", learned.corrections), ("weak label(s)", learned.weak))
        for split, count in counts.items()
    ]
    facts = [("Learned from", f"{', '.join(told)}; snapshot {learned.digest}")]
    if learned.first_at is not None and learned.last_at is not None:
        span = f"{learned.first_at:%Y-%m-%d} to {learned.last_at:%Y-%m-%d}"
        facts.append(("Drawn by", f"{', '.join(learned.experts)}; {span}"))
    return facts


def _training_facts(described: Described) -> Facts:
    config = described.lineage.model.config
    if "train" not in config:
        return []
    train, history = config["train"], config.get("history", [])
    kept = config.get("best_epoch")
    told = f"preset {config.get('preset')}, seed {train.get('seed')}; {len(history)} epoch(s)"
    if kept is not None and 0 < kept <= len(history):
        score = history[kept - 1].get("validation")
        told += f", epoch {kept} kept" + ("" if score is None else f", clean validation mean IoU {score:.3f}")
    if described.differs is None:
        differs = f"not comparable: {described.note}"
    else:
        differs = "; ".join(
            f"{name} {one['value']} (preset {one['preset']})" for name, one in described.differs.items()
        )
    return [("Training", told), ("Not as preset", differs or "nothing")]


def _environment_facts(environment: Mapping[str, Any] | None) -> Facts:
    if environment is None:
        return [("Code", "not recorded")]
    code = environment.get("code") or {}
    told = f"cytoloop {environment.get('cytoloop')}"
    if code.get("commit"):
        told += f", commit {code['commit'][:12]}" + (" with changes" if code.get("is_changed") else "")
    if code.get("digest"):
        told += f", sources {_short(code['digest'])}"
    libraries = ", ".join(
        f"{name} {environment[name]}"
        for name in ("python", "torch", "numpy", "safetensors")
        if environment.get(name)
    )
    switches = ", ".join(
        f"{name} {value}" for name, value in (environment.get("deterministic") or {}).items()
    )
    machine = (
        f"{environment.get('device')} ({environment.get('device_name')}), {environment.get('threads')} thread(s), "
        f"{environment.get('precision')}; {environment.get('platform')}; deterministic: {switches}"
    )
    return [("Code", told), ("Libraries", libraries), ("Machine", machine)]


def _measured(model: ModelVersion) -> str:
    cycle = model.metrics.get("cycle")
    told = ", ".join(
        f"{split} {'undefined' if value is None else f'{value:.3f}'}"
        for split, value in _mean_iou(model).items()
    )
    return f"{told} (cycle {cycle})" if told and cycle else told or "not measured yet"


def _mean_iou(model: ModelVersion) -> Mapping[str, float | None]:
    measured: Mapping[str, float | None] = model.metrics.get("mean_iou") or {}
    return measured


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _short(digest: str | None) -> str:
    return "unknown" if digest is None else digest[:12]


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


# --- export ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """What was written."""

    version: str
    path: Path
    opset: int
    difference: float
    """Largest difference of a probability from PyTorch's."""
    checked: tuple[tuple[int, int, int], ...]
    """(N, H, W) of the images that both were asked about."""
    metadata: dict[str, str]


def export_version(
    home: Home,
    version: str,
    path: Path,
    force: bool = False,
    tell: Callable[[str, float], None] | None = None,
) -> ExportSummary:
    """Write a network of the registry as ONNX; some ten seconds, of which ``tell`` tells.

    Raises
    ------
    InputError
        If it is a CIP version, its files are damaged, or the file is there and ``force`` is not given.
    StateError
        If its weights were removed by policy.
    """
    model = home.store.models.get(version)
    if model.method == "cip":
        raise InputError(
            f"model {version!r}: a CIP recipe, filters and thresholds without a network; expected a cdl, mdl or "
            "joint version"
        )
    check_weights_kept(model)
    if path.exists() and not force:
        raise InputError(f"{path}: is there already; expected a new file, or --force")
    # torch costs seconds, which a refusal need not
    from cytoloop.nn.export import CHECKED_SIZES, OPSET, check_installed, write_onnx
    from cytoloop.nn.weights import load_weights

    check_installed()
    if tell is not None:
        tell("export, and check with ONNX Runtime", 0.0)
    loaded = load_weights(home.registry.folder(version), model.digest)
    described = {
        "version": model.version,
        "digest": model.digest,
        "cytoloop_version": __version__,
        **_assay_metadata(home.registry.manifest(version)["assay"]),
    }
    metadata, difference = write_onnx(path, loaded.model, loaded.normalisation, described)
    return ExportSummary(
        version=version,
        path=path,
        opset=OPSET,
        difference=difference,
        checked=CHECKED_SIZES,
        metadata=metadata,
    )


def check_weights_kept(model: ModelVersion) -> None:
    """Raise StateError if a version's weights were removed by policy."""
    if model.status == PRUNED:
        raise StateError(
            f"model {model.version!r}: its weights were removed to save space; only its lineage is left"
        )


def _assay_metadata(assay: Mapping[str, Any]) -> dict[str, str]:
    """Names in their order, as the network was trained; lists are JSON."""
    return {
        "assay": assay["name"],
        "channels": json.dumps([channel["name"] for channel in assay["channels"]]),
        "classes": json.dumps([label["name"] for label in assay["classes"]]),
    }


# --- promote, rollback -----------------------------------------------------------------------------


def bring(
    trainer: Trainer, kind: CycleKind, version: str | None, assay: str, tell: Callable[[str, float], None]
) -> dict[str, Any]:
    """Bring a version into force, forward or back, in this process; the cycle's row.

    Parameters
    ----------
    version : str, optional
        None: the one in force before.

    Raises
    ------
    UnknownVersion, StateError
        If there is no such version, it is in force already, its weights were removed, or there is none to go back
        to; nothing was asked for then.
    """
    from trainer.bringing import version_to_bring

    check_weights_kept(version_to_bring(trainer.store, assay, kind, version))
    outcome = trainer.run_now(assay, "cli", tell, kind=kind, target=version)
    return trainer.store.cycles.get(outcome.cycle_id)
