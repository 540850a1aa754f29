"""What scripts send and get, as types: requests are checked by them, answers are made of them, and the OpenAPI
document is written from them.

Every field of a request carries the words that tell what is expected of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from cytoloop.domain.errors import ConfigError, InputError
from cytoloop.domain.queue_policy import LARGEST_BATCH, LONGEST_LEASE, QueuePolicy, Return
from cytoloop.domain.strategies import STRATEGIES
from cytoloop.domain.types import Canvas, CycleKind, LeaseState, Method, ModelStatus

MOST_CLAIMED = 1000
"""Items in one claim; a policy's cap is usually far below."""
MOST_LISTED = 10_000
_LONGEST_TOLD = 100
"""Characters of a wrong value that are said again."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Beside a field's type: what it may be, in the words of the error."""

    words: str


def _whole(value: object) -> object:
    """Text of a query as a number, where it is one in plain digits."""
    return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) else value


def _sent(given: Any, place: Sequence[int | str]) -> Any:
    """What lies at a place of what was sent; None if nothing does."""
    for key in place:
        try:
            given = given[key]
        except (KeyError, IndexError, TypeError):
            return None
    return given


class Request(BaseModel):
    """What a caller sends; a key that is not known is passed over."""

    model_config = ConfigDict(strict=True, frozen=True)

    @classmethod
    def read(cls, given: object, **context: str) -> Any:
        """Check what was sent.

        Raises
        ------
        InputError
            Naming the first field that is wrong, what was got and what was expected.
        """
        try:
            return cls.model_validate(given, context=context)
        except ConfigError as error:  # of a policy: the caller's, not this server's
            raise InputError(str(error)) from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            name = ".".join(str(part) for part in first["loc"])
            field = cls.model_fields.get(str(first["loc"][0])) if first["loc"] else None
            expected = [one.words for one in (field.metadata if field else ()) if isinstance(one, Expected)]
            told = repr(_sent(given, first["loc"]))
            if len(told) > _LONGEST_TOLD:
                told = f"{told[:_LONGEST_TOLD]}…"
            raise InputError(f"{name} is {told}, expected {(expected or [first['msg']])[0]}") from error


class Answer(BaseModel):
    """What a caller gets."""

    model_config = ConfigDict(
        frozen=True, json_schema_serialization_defaults_required=True, protected_namespaces=()
    )

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return self.model_dump(mode="json")


# --- requests --------------------------------------------------------------------------------------------

Limit = Annotated[
    int,
    Field(ge=1, le=MOST_LISTED),
    Expected(f"a whole number from 1 to {MOST_LISTED}"),
    BeforeValidator(_whole),
]
QueueName = Annotated[str, Expected("a name")]
ExpertName = Annotated[str | None, Expected("a name or an e-mail")]


class WorklistQuery(Request):
    """Whose list, and how much of it."""

    queue: QueueName = Field("default", description="`queue`, or `assay/queue`", examples=["default"])
    expert: ExpertName = Field(
        None,
        description="name or e-mail of one of the queue's experts; an expert's token acts only as itself",
        examples=["ada@lab.org"],
    )
    limit: Limit = Field(100, description="most entries", examples=[4])


class CyclesQuery(Request):
    """How many."""

    limit: Limit = Field(100, description="most cycles", examples=[10])


class TaskQuery(Request):
    """Which of several assays."""

    assay: Annotated[str | None, Expected("the name of an assay")] = Field(
        None,
        description="needed only where several assays once had a task of this number",
        examples=["rosella"],
    )


class ClaimRequest(Request):
    """How much work, for whom."""

    queue: QueueName = Field("default", description="`queue`, or `assay/queue`")
    expert: ExpertName = Field(None, description="as for the worklist")
    count: Annotated[
        int | None, Expected(f"a whole number from 1 to {MOST_CLAIMED}"), Field(ge=1, le=MOST_CLAIMED)
    ] = Field(None, description="most items; null: as many as the policy's batch")
    minutes: Annotated[float | None, Expected("a number above 0"), Field(gt=0, allow_inf_nan=False)] = Field(
        None, description="expected minutes of work; null: as the policy says"
    )


class AssayRequest(Request):
    """Of which assay."""

    assay: object = Field(
        None,
        description="its name; may be left out where there is one only",
        json_schema_extra={"anyOf": [{"type": "string"}, {"type": "null"}]},
    )


Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=LARGEST_BATCH)]
Minutes = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_DEFAULT = QueuePolicy()


class ExpertEntry(Request):
    """A person who works on a queue."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64, description="for people: titles of tabs, tables")
    email: str = Field(min_length=3, description="as in Label Studio")


class Policy(Request):
    """Policy of a queue: who works on it, and what a batch is made of; what is left out is at its default."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)

    strategy: Literal[tuple(STRATEGIES)] = Field(  # type: ignore[valid-type]
        _DEFAULT.strategy, description="what ranked items are ranked by"
    )
    experts: list[ExpertEntry] = Field([], description="none: one list that everyone shares")
    size: Count = Field(_DEFAULT.size, description="items in a batch")
    cap: Count | None = Field(None, description="most items leased to one expert at a time; null: `size`")
    lease_minutes: Annotated[Minutes, Field(le=LONGEST_LEASE)] = Field(
        _DEFAULT.lease_minutes, description="how long an item stays with an expert who does nothing"
    )
    minutes: Minutes | None = Field(None, description="expected minutes of work in a batch")
    contest_share: Share = Field(_DEFAULT.contest_share, description="drawn at random from contest wells")
    validation_share: Share = Field(
        _DEFAULT.validation_share, description="drawn at random from validation wells"
    )
    sealed_share: Share = Field(_DEFAULT.sealed_share, description="drawn at random from sealed wells")
    audit_share: Share = Field(_DEFAULT.audit_share, description="training items drawn at random")
    overlap_share: Share = Field(_DEFAULT.overlap_share, description="items that several experts read")
    gold_share: Share = Field(_DEFAULT.gold_share, description="items whose mask is known already")
    blank_share: Share = Field(_DEFAULT.blank_share, description="items drawn from scratch")
    contest_canvas: Canvas = Field(_DEFAULT.contest_canvas, description="what lies on a contest item")
    contest_readers: Annotated[int, Field(ge=1, le=2)] | None = Field(
        None, description="experts who read a contest item; null: 2 where the queue has two experts, else 1"
    )
    overlap_readers: Annotated[int, Field(ge=2, le=LARGEST_BATCH)] = Field(
        _DEFAULT.overlap_readers, description="experts who read an overlap item"
    )
    gold: list[str] = Field([], description="gold items as `<image id>/<tile>`")
    max_per_group: Count | None = Field(None, description="most items of one well in a batch")
    max_per_plate: Count | None = Field(None, description="most items of one plate in a batch")
    skipped: Return = Field(_DEFAULT.skipped, description="what becomes of an item that an expert skips")
    deleted: Return = Field(
        _DEFAULT.deleted, description="what becomes of an item whose annotation is deleted"
    )

    @model_validator(mode="before")
    @classmethod
    def _as_the_domain_reads_it(cls, given: Any, info: ValidationInfo) -> Any:
        """What it may be is the domain's to say, in its words; the fields above tell it to programs."""
        if info.context is not None:
            QueuePolicy.from_document(given, info.context["where"])
        return given


# --- answers ---------------------------------------------------------------------------------------------


class Problem(Answer):
    """Why a request was refused."""

    error: str = Field(description="where, what was got, what was expected")
    request_id: str = Field(description="the log has it under this id")


class Entry(Answer):
    """A place in an expert's list: what to open next, and why."""

    rank: int = Field(ge=1)
    task_id: int = Field(ge=1, description="Label Studio's number of the task")
    image_id: str
    tile: int = Field(ge=0)
    score: float = Field(description="higher = ask sooner")
    reason: str = Field(description="in words, for the expert")
    strategy: str
    model_version: str
    lease: str | None = Field(description="null: nobody holds the item yet")
    url: str = Field(description="where the item is opened in Label Studio")


class Entries(Answer):
    """Items in the order in which they are asked for."""

    entries: list[Entry]


class Released(Answer):
    """A lease after it was given back."""

    lease: str
    state: LeaseState


class PolicyInForce(Answer):
    """A queue and the policy by which its next batch is made."""

    queue: str = Field(description="`assay/queue`")
    policy: Policy


class TaskPrediction(Answer):
    """What the version in force says of one item."""

    task_id: int = Field(ge=1)
    assay: str
    image_id: str
    tile: int = Field(ge=0)
    height: int = Field(ge=1, description="pixels of the item")
    width: int = Field(ge=1)
    model_version: str
    score: float = Field(description="higher = ask sooner")
    confidence: float = Field(ge=0, le=1, description="Label Studio's score: lowest first")
    reason: str = Field(description="in words, for the expert")
    result: list[dict[str, Any]] = Field(description="Label Studio's regions: one brush RLE a class")


class Model(Answer):
    """A model version: where it came from, how it did."""

    version: str = Field(description="`<method>-<YYYYMMDD>-<8 hex>`")
    assay: str
    method: Method
    status: ModelStatus
    digest: str = Field(description="SHA-256 of the weights, or of the CIP recipe")
    parent: str | None
    snapshot: str | None = Field(description="digest of the training snapshot")
    config: dict[str, Any]
    metrics: dict[str, Any]
    created_at: str = Field(json_schema_extra={"format": "date-time"})


class Models(Answer):
    """Every version of every assay, oldest first."""

    models: list[Model]


Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class Cycle(Answer):
    """What the trainer was asked for, and how far it is."""

    id: str
    assay: str
    state: Literal["queued", "running", "done", "failed"]
    step: str
    progress: float = Field(ge=0, le=1)
    kind: CycleKind
    target: str | None = Field(description="the version to bring into force")
    asked_by: str
    why: str
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    outcome: str | None
    reason: str | None
    cancelled_by: str | None


class Cycles(Answer):
    """Cycles, newest first."""

    cycles: list[Cycle]


class Report(Answer):
    """A cycle's report; its keys are those of the page."""

    model_config = ConfigDict(extra="allow")


class Alive(Answer):
    """The process answers."""

    status: Literal["alive"]


class Ready(Answer):
    """The loop can do its work."""

    status: Literal["ready"]
    assays: list[str]
    inbox_waiting: int = Field(ge=0, description="events that are stored and not applied yet")


class NotReady(Answer):
    """Why the loop cannot do its work."""

    status: Literal["not ready"]
    reasons: list[str] = Field(min_length=1)
