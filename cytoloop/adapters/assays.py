"""Assay YAML -> Assay; an error names file, key, what was got and what was expected."""

from __future__ import annotations

import importlib.resources
import math
import re
import shlex
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from cytoloop.adapters.cron import next_time
from cytoloop.adapters.yaml_files import read_yaml
from cytoloop.domain.assay import Assay, Channel, Cip, Display, LabelClass, Teacher
from cytoloop.domain.cip import teachers_of
from cytoloop.domain.documents import told
from cytoloop.domain.errors import ConfigError
from cytoloop.domain.queue_policy import QueuePolicy
from cytoloop.domain.trainer_policy import ContestPolicy, Hooks, Limits, TrainerPolicy, Triggers

_NAME = r"^[a-z0-9][a-z0-9_-]{0,31}$"
_MOST_TOLD = 20
_LONGEST_KEY = 100
_Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
_Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^<>\"&]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Channel(_Strict):
    name: _Name
    suffix: str | None = None
    folder: Annotated[str, Field(pattern=r"^[^/\\:.][^/\\:]*$")] | None = None
    plane: int | None = Field(default=None, ge=0)
    colour: _Colour = "#ffffff"
    recorded_as: Annotated[str, Field(min_length=1)] | Annotated[int, Field(ge=1, strict=True)] | None = None


def _own_names(channels: list[_Channel]) -> list[str]:
    return [f"{c.folder}/{c.suffix or ''}" if c.folder else c.suffix or "" for c in channels]


class _Class(_Strict):
    name: _Name
    colour: _Colour
    hotkey: str | None = Field(default=None, min_length=1, max_length=1)


class _Teacher(_Strict):
    recipe: str | None = None
    parameters: dict[str, float] = {}


class _Cip(_Strict):
    recipe: str
    parameters: dict[str, float] = {}
    teachers: list[_Teacher] = []
    agreement: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _votes(self) -> _Cip:
        if self.agreement > 0 and not self.teachers:
            raise ValueError(f"agreement is {self.agreement:g} with one teacher, expected teachers beside it")
        return self


class _Display(_Strict):
    percentiles: tuple[float, float] = (0.5, 99.8)
    ranges: dict[str, tuple[float, float]] = {}
    scope: Literal["plate", "image"] = "plate"

    @model_validator(mode="after")
    def _ordered(self) -> _Display:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles are {list(self.percentiles)}, expected 0 <= low < high <= 100")
        for channel, (low, high) in self.ranges.items():
            if not (low < high and math.isfinite(high - low)):
                raise ValueError(f"range of {channel!r} is {[low, high]}, expected low < high")
        return self


class _Normalisation(_Strict):
    low: float = Field(default=1.0, ge=0, le=100)
    high: float = Field(default=99.8, ge=0, le=100)
    softness: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _ordered(self) -> _Normalisation:
        if not self.low < self.high:
            raise ValueError(f"percentiles are {self.low} and {self.high}, expected low < high")
        return self


def _splittable(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"no command: {error}") from None
    if not words:
        raise ValueError("no command: it has no word")
    return command


_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


_Command = Annotated[str, Field(min_length=1), AfterValidator(_splittable)]


class _Triggers(_Strict):
    cron: str | None = None
    corrections: int | None = Field(default=Triggers().corrections, ge=1)
    minutes: _Positive | None = Triggers().minutes
    agreement_fall: float | None = Field(default=Triggers().agreement_fall, gt=0, lt=1)

    @model_validator(mode="after")
    def _readable(self) -> _Triggers:
        if self.cron is not None:
            try:
                next_time(self.cron, datetime.now().astimezone())
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return self


class _Limits(_Strict):
    memory_gb: _Positive | None = Limits().memory_gb
    minutes: _Positive | None = Limits().minutes
    threads: int | None = Field(default=Limits().threads, ge=1)
    device: Literal["auto", "cpu", "cuda"] | None = None


class _Contest(_Strict):
    min_groups: int = Field(default=ContestPolicy().min_groups, ge=3)
    min_class_groups: int = Field(default=ContestPolicy().min_class_groups, ge=1)
    confidence: float = Field(default=ContestPolicy().confidence, gt=0.5, lt=1)
    max_class_drop: float = Field(default=ContestPolicy().max_class_drop, ge=0, le=1)


class _Hooks(_Strict):
    promoted: _Command | None = None
    rejected: _Command | None = None
    failed: _Command | None = None


class _Trainer(_Strict):
    triggers: _Triggers = _Triggers()
    limits: _Limits = _Limits()
    contest: _Contest = _Contest()
    hooks: _Hooks = _Hooks()
    methods: list[Literal["cdl", "mdl", "joint"]] = Field(default=["cdl", "mdl", "joint"], min_length=1)
    min_new_corrections: int = Field(default=TrainerPolicy().min_new_corrections, ge=1)
    keep_versions: int = Field(default=TrainerPolicy().keep_versions, ge=1)
    seed: int = Field(default=TrainerPolicy().seed, ge=0)


class _Assay(_Strict):
    name: Annotated[str, Field(pattern=_NAME)]
    channels: list[_Channel] = Field(min_length=1)
    classes: list[_Class] = Field(min_length=2, max_length=32)
    ignore: _Class = _Class(name="Ignore", colour="#999999", hotkey="9")
    pixel_size_um: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    tiling: Annotated[str, Field(pattern=r"^[1-9]x[1-9]$")] = "1x1"
    z_plane: int | None = Field(default=None, ge=0)
    reviewed_region: bool = False
    class_priority: list[str] = []
    cip: _Cip
    display: _Display = _Display()
    training: str = "fast"
    trainer: _Trainer = _Trainer()
    normalisation: _Normalisation = _Normalisation()
    queues: list[Annotated[str, Field(pattern=_NAME)]] = Field(default=["default"], min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> _Assay:
        names = [c.name for c in self.classes] + [self.ignore.name]
        if len(set(names)) != len(names):
            raise ValueError(f"class names are {names}, expected each once")
        channels = [c.name for c in self.channels]
        if len(set(channels)) != len(channels):
            raise ValueError(f"channel names are {channels}, expected each once")
        by_file = [c.suffix is not None or c.folder is not None for c in self.channels]
        if any(by_file) and not all(by_file):
            raise ValueError("channels: expected a suffix on every channel or on none (or a folder)")
        unplaced = [c.name for c in self.channels if c.plane is None and c.recorded_as is None]
        if not any(by_file) and len(self.channels) > 1 and unplaced:
            raise ValueError(
                f"channels {unplaced}: expected a plane (or a suffix) on every channel, or what it is recorded_as"
            )
        for what, given in (
            ("planes", [c.plane for c in self.channels if c.plane is not None]),
            ("suffixes", _own_names(self.channels) if any(by_file) else []),
            (
                "names the microscope gave",
                [c.name if c.recorded_as is None else c.recorded_as for c in self.channels],
            ),
            ("queues", self.queues),
        ):
            if len(set(given)) != len(given):
                raise ValueError(f"{what} are {given}, expected each once")
        drawn = sorted(c.name for c in self.classes[1:])
        if self.class_priority and sorted(self.class_priority) != drawn:
            raise ValueError(f"class_priority is {self.class_priority}, expected each of {drawn} once")
        unknown = sorted(set(self.display.ranges) - set(channels))
        if unknown:
            raise ValueError(f"display ranges of {unknown}, expected channels of {channels}")
        return self


def load_assay(name: str, folders: Iterable[Path] = ()) -> Assay:
    """The assay of that name: ``<folder>/<name>.yaml`` in order, then the shipped ones.

    Raises
    ------
    ConfigError
        If there is none, naming where it was looked for and which exist; or if the file is wrong.
    """
    searched = [*folders, shipped_folder()]
    for folder in searched if re.fullmatch(_NAME, name) else ():  # it becomes part of a path
        path = folder / f"{name}.yaml"
        if path.is_file():
            return read_assay(path)
    known = sorted({p.stem for folder in searched if folder.is_dir() for p in folder.glob("*.yaml")})
    raise ConfigError(
        f"assay {told(name)} not found; expected one of {known} in {', '.join(map(str, searched))}"
    )


def shipped_folder() -> Path:
    """Where the assays that come with cytoloop lie."""
    return Path(str(importlib.resources.files("labelstudio_config"))) / "assays"


def read_assay(path: Path) -> Assay:
    """One assay file, checked; see DESIGN of the keys in the README."""
    document: Any = read_yaml(path)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: got {type(document).__name__}, expected a mapping with key 'name'")
    policies: dict[str, Any] = {}
    if isinstance(document.get("queues"), dict):  # a policy each, or nothing for the defaults
        policies = {name: policy for name, policy in document["queues"].items() if policy is not None}
        document = {**document, "queues": list(document["queues"])}
    try:
        parsed = _Assay.model_validate(document)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, e) for e in error.errors()[:_MOST_TOLD])) from None
    if parsed.name != path.stem:
        raise ConfigError(f"{path}: name is {parsed.name!r}, expected {path.stem!r} as the file is called")
    for name, policy in policies.items():
        QueuePolicy.from_document(policy, f"{path}: key 'queues.{name}'")
    rows, columns = parsed.tiling.split("x")
    cip = _cip(parsed.cip)
    if cip.teachers:
        try:
            teachers_of(cip)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    return Assay(
        name=parsed.name,
        channels=tuple(Channel(**c.model_dump()) for c in parsed.channels),
        classes=tuple(LabelClass(**c.model_dump()) for c in parsed.classes),
        ignore=LabelClass(**parsed.ignore.model_dump()),
        cip=cip,
        pixel_size_um=parsed.pixel_size_um,
        tiling=(int(rows), int(columns)),
        z_plane=parsed.z_plane,
        reviewed_region=parsed.reviewed_region,
        class_priority=tuple(parsed.class_priority),
        display=Display(**parsed.display.model_dump()),
        training_preset=parsed.training,
        normalisation=parsed.normalisation.model_dump(exclude_unset=True),
        queues=tuple(parsed.queues),
        queue_policies=policies,
        trainer=_trainer(parsed.trainer, path),
    )


def _trainer(parsed: _Trainer, path: Path) -> TrainerPolicy:
    try:
        return TrainerPolicy(
            triggers=Triggers(**parsed.triggers.model_dump()),
            limits=Limits(**parsed.limits.model_dump()),
            contest=ContestPolicy(**parsed.contest.model_dump()),
            hooks=Hooks(**parsed.hooks.model_dump()),
            methods=tuple(parsed.methods),
            min_new_corrections=parsed.min_new_corrections,
            keep_versions=parsed.keep_versions,
            seed=parsed.seed,
        )
    except ConfigError as error:  # what holds key by key and not together
        raise ConfigError(f"{path}: {error}") from None


def _cip(parsed: _Cip) -> Cip:
    return Cip(
        recipe=parsed.recipe,
        parameters=parsed.parameters,
        teachers=tuple(Teacher(**teacher.model_dump()) for teacher in parsed.teachers),
        agreement=parsed.agreement,
    )


def cip_text(cip: Cip) -> str:
    """The ``cip:`` block of an assay file, as ``read_assay`` reads it; what is at its default is left out."""
    block: dict[str, Any] = {"recipe": cip.recipe}
    if cip.parameters:
        block["parameters"] = dict(cip.parameters)
    if cip.teachers:
        block["teachers"] = [
            {
                **({} if teacher.recipe is None else {"recipe": teacher.recipe}),
                "parameters": dict(teacher.parameters),
            }
            for teacher in cip.teachers
        ]
        block["agreement"] = cip.agreement
    text: str = yaml.safe_dump({"cip": block}, sort_keys=False)
    return text


def _explain(path: Path, error: Any) -> str:
    key = ".".join(str(part)[:_LONGEST_KEY] for part in error["loc"]) or "(document)"
    if error["type"] == "extra_forbidden":
        return f"{path}: key {key!r} is not known"
    if error["type"] == "missing":
        return f"{path}: key {key!r} is missing"
    got = error.get("input")
    shown = f", got {told(got)}" if not isinstance(got, dict) else ""
    return f"{path}: key {key!r}: {error['msg']}{shown}"
