"""Policy of a queue: who works on it, what a batch is made of, and how long an item stays with an expert."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from cytoloop.domain.assay import Assay
from cytoloop.domain.documents import LARGEST_NUMBER, is_storable, is_whole, told
from cytoloop.domain.errors import ConfigError, InputError
from cytoloop.domain.strategies import DEFAULT_STRATEGY, STRATEGIES
from cytoloop.domain.types import Canvas, Item, Role

Return = Literal["return", "retire"]
"""What becomes of an item that an expert passed by: it *returns* to the queue, or is never asked for again."""

SHARED = "everyone"
"""Whose leases those of a queue without experts are: one list that all share."""
SHARES = (
    "contest_share",
    "validation_share",
    "sealed_share",
    "audit_share",
    "overlap_share",
    "gold_share",
    "blank_share",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expert:
    """A person who works on a queue."""

    name: str
    """For people: titles of tabs, tables."""
    email: str
    """As in Label Studio: corrections and leases are known by it."""

    def __post_init__(self) -> None:
        _check_expert(asdict(self), "expert")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePolicy:
    """How a queue's batches are made up. Shares are of the batch's items; the rest is ranked by score."""

    strategy: str = DEFAULT_STRATEGY
    """What the ranked items are ranked by, one of ``strategies.STRATEGIES``."""
    experts: tuple[Expert, ...] = ()
    """None: one list that everyone shares."""
    size: int = 40
    """Items in a batch."""
    cap: int | None = None
    """Most items leased to one expert at a time; None: ``size``."""
    lease_minutes: float = 240
    """How long an item stays with an expert who does nothing."""
    minutes: float | None = None
    """Expected minutes of work in a batch; None: ``size`` alone ends it."""
    contest_share: float = 0.25
    """Drawn at random from contest wells: without them no model can ever win a contest."""
    validation_share: float = 0.15
    """Drawn at random from validation wells: they choose the epoch and the challenger."""
    sealed_share: float = 0.05
    """Drawn at random from sealed wells: only reported."""
    audit_share: float = 0.1
    """Drawn at random from training wells: they tell what the ranking is worth."""
    overlap_share: float = 0.0
    """Ranked items that several experts read, none seeing the others' work."""
    gold_share: float = 0.0
    """Items whose mask is known already: they tell how well an expert agrees with it."""
    blank_share: float = 0.0
    """Ranked items drawn from scratch: they tell how far a proposal leads the expert (anchoring)."""
    contest_canvas: Canvas = "cip"
    """What lies on a contest item; a model that judged its own proposals would be favoured."""
    contest_readers: int | None = None
    """Experts who must read a contest item; None: 2 where the queue has two experts, else 1."""
    overlap_readers: int = 2
    """Experts who read an overlap item."""
    gold: tuple[str, ...] = ()
    """Items whose mask is known, as ``<image id>/<tile>``; they are asked for under ``gold_share`` only."""
    max_per_group: int | None = None
    """Most items of one well in a batch."""
    max_per_plate: int | None = None
    """Most items of one plate in a batch."""
    skipped: Return = "return"
    """What becomes of an item that an expert skips."""
    deleted: Return = "return"
    """What becomes of an item whose annotation an expert deletes."""

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        _check(values, "queue policy")

    @classmethod
    def all_ranked(cls, **changes: Any) -> QueuePolicy:
        """A policy whose batches are ranked from the first item to the last: every share is 0."""
        return cls(**{**dict.fromkeys(SHARES, 0.0), **changes})

    @classmethod
    def from_document(cls, document: Any, where: str) -> QueuePolicy:
        """Read a policy as it is written in YAML or JSON; what is left out is at its default.

        Parameters
        ----------
        document
            Keys are the fields of this class; ``experts`` is a list of ``{name, email}``.
        where
            File and queue, for the error.

        Raises
        ------
        ConfigError
            Naming ``where``, the key, what was got and what was expected.
        """
        if not isinstance(document, Mapping):
            raise ConfigError(f"{where}: got {_told(document)}, expected a mapping of keys {_keys(cls)}")
        unknown = [key for key in document if key not in _keys(cls)]
        if unknown:
            raise ConfigError(f"{where}: key {told(unknown[0])} is not known; expected one of {_keys(cls)}")
        values = {f.name: f.default for f in fields(cls)} | dict(document)
        for key in ("experts", "gold"):
            if isinstance(values[key], list):
                values[key] = tuple(values[key])
        if isinstance(values["experts"], tuple):
            values["experts"] = tuple(
                _expert(expert, f"{where}: key 'experts.{n}'") for n, expert in enumerate(values["experts"])
            )
        _check(values, where)
        return cls(**values)

    def document(self) -> dict[str, Any]:
        """The policy as JSON, every key; ``from_document`` reads it back."""
        document = asdict(self)
        return {**document, "experts": list(document["experts"]), "gold": list(document["gold"])}

    @property
    def most_held(self) -> int:
        """Most items leased to one expert at a time."""
        return self.size if self.cap is None else self.cap

    def canvas_of(self, role: Role) -> Canvas:
        """What lies on an item of that role when an expert opens it."""
        if role == "contest":
            return self.contest_canvas
        return "blank" if role == "blank" else "model"

    def readers_of(self, role: Role) -> int:
        """Experts who are to read an item of that role."""
        if role == "contest":
            if self.contest_readers is not None:
                return self.contest_readers
            return min(2, max(1, len(self.experts)))
        return self.overlap_readers if role == "overlap" else 1

    def expert(self, asked: str | None, queue: str) -> Expert | None:
        """The expert of that name or e-mail; None where the queue is one list that everyone shares.

        Raises
        ------
        InputError
            If the queue has experts and ``asked`` is none of them.
        """
        if not self.experts:
            return None
        for expert in self.experts:
            if asked is not None and asked.casefold() in (expert.name.casefold(), expert.email.casefold()):
                return expert
        known = [expert.email for expert in self.experts]
        raise InputError(f"queue {queue!r}: unknown expert {asked!r}; expected one of {known}")


def policy_in_force(assay: Assay, queue: str, applied: Mapping[str, Any] | None) -> QueuePolicy:
    """The policy that holds for a queue: as applied to the home, else the assay file's, else the defaults.

    Raises
    ------
    ConfigError
        If a document is wrong; what was applied may be of an older version of cytoloop.
    """
    if applied is not None:
        return QueuePolicy.from_document(applied, f"queue {assay.name}/{queue}, as applied")
    return QueuePolicy.from_document(assay.queue_policies.get(queue, {}), f"assay {assay.name!r}, {queue!r}")


def item_name(item: Item) -> str:
    """An item in one word: ``<image id>/<tile>``."""
    return f"{item.image_id}/{item.tile}"


def item_named(name: str) -> Item:
    """The reverse of `item_name`."""
    image_id, _, tile = name.rpartition("/")
    return Item(image_id=image_id, tile=int(tile))


# --- what each key may be --------------------------------------------------------------------------------

_ITEM = re.compile(r".+/\d{1,9}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_LONGEST_NAME = 64
LONGEST_LEASE = 365 * 24 * 60
LARGEST_BATCH = 10_000
"""Of what a queue counts in items. A batch is chosen and leased at once, and a tab lists all that an expert holds."""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_BATCH


def _is_count_or_none(value: Any) -> bool:
    return value is None or _is_count(value)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_number(value: Any) -> bool:
    # a whole number may be beyond what a float holds
    return is_whole(value, -LARGEST_NUMBER) or (isinstance(value, float) and math.isfinite(value))


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _one_of(names: Sequence[str]) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: isinstance(value, str) and value in names), f"one of {list(names)}"


_COUNT = (_is_count, f"a whole number of at least 1 (at most {LARGEST_BATCH})")
_COUNT_OR_NONE = (_is_count_or_none, f"a whole number of at least 1, or nothing (at most {LARGEST_BATCH})")
_RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "strategy": _one_of(tuple(STRATEGIES)),
    "experts": (lambda value: isinstance(value, tuple), "a list of name and email"),
    "size": _COUNT,
    "cap": _COUNT_OR_NONE,
    "lease_minutes": (
        lambda value: _is_positive(value) and value <= LONGEST_LEASE,
        "minutes above 0, up to a year",
    ),
    "minutes": (lambda value: value is None or _is_positive(value), "minutes above 0, or nothing"),
    **dict.fromkeys(SHARES, (_is_share, "a share from 0 to 1")),
    "contest_canvas": _one_of(get_args(Canvas)),
    "contest_readers": (lambda value: value is None or (_is_count(value) and value <= 2), "1, 2 or nothing"),
    "overlap_readers": (lambda value: _is_count(value) and value >= 2, "a whole number of at least 2"),
    "gold": (lambda value: isinstance(value, tuple), "a list of <image id>/<tile>"),
    "max_per_group": _COUNT_OR_NONE,
    "max_per_plate": _COUNT_OR_NONE,
    "skipped": _one_of(get_args(Return)),
    "deleted": _one_of(get_args(Return)),
}


def _check(values: Mapping[str, Any], where: str) -> None:
    """Refuse values that are wrong, one by one and together; those of ``experts`` are experts already."""
    for key, (holds, expected) in _RULES.items():
        if not holds(values[key]):
            raise ConfigError(f"{where}: key {key!r}: got {_told(values[key])}, expected {expected}")
    for n, name in enumerate(values["gold"]):
        if not (isinstance(name, str) and _ITEM.fullmatch(name) and is_storable(name)):
            raise ConfigError(f"{where}: key 'gold.{n}': got {_told(name)}, expected <image id>/<tile>")
    _check_each_once("gold", "item", values["gold"], where)
    experts: Sequence[Expert] = values["experts"]
    # Label Studio keeps e-mails in lower case
    _check_each_once("experts", "name", [expert.name.casefold() for expert in experts], where)
    _check_each_once("experts", "e-mail", [expert.email.casefold() for expert in experts], where)
    shares = {key: values[key] for key in SHARES if values[key]}
    total = math.fsum(shares.values())
    if total > 1 + 1e-9:
        parts = " + ".join(f"{key} {share:.4g}" for key, share in shares.items())
        raise ConfigError(f"{where}: shares are {100 * total:.4g} % in all ({parts}), expected at most 100 %")
    people = max(1, len(experts))
    for key, share in (("contest_readers", "contest_share"), ("overlap_readers", "overlap_share")):
        if values[share] and values[key] is not None and values[key] > people:
            whose = f"{people} expert{'s' * (people > 1)}" if experts else "one list that everyone shares"
            raise ConfigError(
                f"{where}: key {key!r}: got {values[key]}, the queue has {whose}; "
                f"expected as many experts, or {share} 0"
            )


def _check_each_once(key: str, what: str, given: Sequence[str], where: str) -> None:
    seen: set[str] = set()
    for value in given:
        if value in seen:
            raise ConfigError(
                f"{where}: key {key!r}: {what} {told(value)} is there twice, expected each once"
            )
        seen.add(value)


def _expert(document: Any, where: str) -> Expert:
    if isinstance(document, Expert):
        return document
    if not isinstance(document, Mapping):
        raise ConfigError(f"{where}: got {_told(document)}, expected a mapping of name and email")
    keys = _keys(Expert)
    unknown = [key for key in document if key not in keys]
    if unknown:
        raise ConfigError(f"{where}: key {told(unknown[0])} is not known; expected one of {keys}")
    missing = [key for key in keys if key not in document]
    if missing:
        raise ConfigError(f"{where}: key {missing[0]!r} is missing; expected {keys}")
    _check_expert(document, where)
    return Expert(**document)


def _check_expert(values: Mapping[str, Any], where: str) -> None:
    name, email = values["name"], values["email"]
    if not (isinstance(name, str) and name.strip() == name and name.isprintable()):
        raise ConfigError(f"{where}: name is {_told(name)}, expected printable text without spaces around it")
    if not 1 <= len(name) <= _LONGEST_NAME or name.casefold() == SHARED:
        raise ConfigError(
            f"{where}: name is {told(name)}, expected 1 to {_LONGEST_NAME} characters, and not {SHARED!r}"
        )
    if not (isinstance(email, str) and email.isprintable() and _EMAIL.fullmatch(email)):
        raise ConfigError(f"{where}: email is {_told(email)}, expected <name>@<host> as in Label Studio")


def _keys(owner: type[QueuePolicy] | type[Expert]) -> list[str]:
    return [f.name for f in fields(owner)]


def _told(value: Any) -> str:
    """A value and its type, so that ``'40'`` is not taken for 40."""
    return "nothing" if value is None else f"{told(value)} ({type(value).__name__})"
