"""What a trainer may do by itself: when it trains, with how much of the machine, and what a challenger must prove."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cytoloop.domain.errors import ConfigError

LEARNED = ("cdl", "mdl", "joint")
"""Methods that a cycle can train; CIP takes part in every comparison and is not trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Triggers:
    """When a cycle is due; any one of them suffices, None switches one off.

    Whatever asks, the cycle itself decides: where nothing is new it trains nothing and says so.
    """

    cron: str | None = None
    """Five fields as in crontab, in the machine's local time: ``0 3 * * *`` is every night at three."""
    corrections: int | None = 20
    """Corrections since the last cycle."""
    minutes: float | None = None
    """Minutes experts have spent in the editor since the last cycle."""
    agreement_fall: float | None = None
    """Fall of the mean Dice between what the active version proposed and what experts made of it, 0…1: the
    latest corrections against the first ones under this version."""

    def __post_init__(self) -> None:
        """Refuse numbers that can never hold."""
        _check(
            "triggers",
            {
                "corrections": (
                    self.corrections,
                    self.corrections is None or self.corrections >= 1,
                    "1 or more",
                ),
                "minutes": (self.minutes, self.minutes is None or self.minutes > 0, "more than 0"),
                "agreement_fall": (
                    self.agreement_fall,
                    self.agreement_fall is None or 0 < self.agreement_fall < 1,
                    "between 0 and 1",
                ),
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of the machine one training run may have; None: see each."""

    memory_gb: float | None = None
    """Resident memory, 10⁹ bytes; None: three quarters of the machine's."""
    minutes: float | None = 720.0
    """Wall time of one run; None: no limit."""
    threads: int | None = None
    """CPU threads; None: all but one, or all where there are fewer than four. A training runs at a lower priority
    than serving in any case."""
    device: str | None = None
    """``auto``, ``cpu`` or ``cuda``; ``cpu`` leaves the GPU to serving. None: ``CYTOLOOP_DEVICE``."""

    def __post_init__(self) -> None:
        """Refuse numbers that leave nothing."""
        _check(
            "limits",
            {
                "memory_gb": (self.memory_gb, self.memory_gb is None or self.memory_gb > 0, "more than 0"),
                "minutes": (self.minutes, self.minutes is None or self.minutes > 0, "more than 0"),
                "threads": (self.threads, self.threads is None or self.threads >= 1, "1 or more"),
                "device": (
                    self.device,
                    self.device in (None, "auto", "cpu", "cuda"),
                    "auto, cpu or cuda",
                ),
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestPolicy:
    """What a challenger has to prove."""

    min_groups: int = 12
    """Groups (wells) below which nothing is proved, however large the gain."""
    min_class_groups: int = 8
    """Groups whose truth must hold a class, for each class, before it can be judged."""
    confidence: float = 0.95
    """One-sided, over all contests that an active version has to stand: the share that is left of 1 is spent
    contest by contest."""
    max_class_drop: float = 0.02
    """Largest fall of one class's IoU that is accepted, as a share (0.02 = 2 percentage points)."""

    def __post_init__(self) -> None:
        """Refuse numbers that make no contest."""
        _check(
            "contest",
            {
                "min_groups": (self.min_groups, self.min_groups >= 3, "at least 3"),
                "min_class_groups": (self.min_class_groups, self.min_class_groups >= 1, "at least 1"),
                "confidence": (self.confidence, 0.5 < self.confidence < 1, "between 0.5 and 1"),
                "max_class_drop": (self.max_class_drop, 0 <= self.max_class_drop <= 1, "0…1"),
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Commands to run when a cycle has ended, as one would type them; no shell expands them.

    They find ``CYTOLOOP_EVENT`` (the key), ``CYTOLOOP_ASSAY``, ``CYTOLOOP_CYCLE``, ``CYTOLOOP_VERSION`` (in force
    after the cycle), ``CYTOLOOP_REASON`` and ``CYTOLOOP_REPORT`` in their environment, and no secret.
    """

    promoted: str | None = None
    """Another version is in force."""
    rejected: str | None = None
    """A challenger was compared, and the active version stayed."""
    failed: str | None = None
    """The cycle came to no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerPolicy:
    """The ``trainer`` block of an assay."""

    triggers: Triggers = field(default_factory=Triggers)
    limits: Limits = field(default_factory=Limits)
    contest: ContestPolicy = field(default_factory=ContestPolicy)
    hooks: Hooks = field(default_factory=Hooks)
    methods: tuple[str, ...] = LEARNED
    """What a cycle trains, out of *cdl*, *mdl* and *joint*."""
    min_new_corrections: int = 1
    """Corrections of training wells that no model has seen, below which a cycle trains nothing."""
    keep_versions: int = 8
    """Rejected and retired versions whose weights are kept, the newest; what is in use or may be gone back to is kept
    besides."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        wrong = [method for method in self.methods if method not in LEARNED]
        twice = len(set(self.methods)) != len(self.methods)
        _check(
            "",
            {
                "methods": (
                    list(self.methods),
                    bool(self.methods) and not wrong and not twice,
                    f"each of {list(LEARNED)} at most once, and one of them",
                ),
                "min_new_corrections": (self.min_new_corrections, self.min_new_corrections >= 1, "1 or more"),
                "keep_versions": (self.keep_versions, self.keep_versions >= 1, "1 or more"),
                "seed": (self.seed, self.seed >= 0, "0 or more"),
            },
        )
        if "joint" in self.methods and "cdl" not in self.methods:
            raise ConfigError(
                "trainer: methods: got 'joint' without 'cdl', which it starts from; expected both"
            )


def _check(block: str, rules: Mapping[str, tuple[object, bool, str]]) -> None:
    for key, (value, holds, expected) in rules.items():
        if not holds:
            name = f"{block}.{key}" if block else key
            raise ConfigError(f"trainer: {name}: got {value!r}, expected {expected}")
