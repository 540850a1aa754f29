"""What people ask of the trainer: a training, another version in force, a cycle called off.

Nothing is done here. A request becomes a row of ``cycles``, which the trainer finds at its next look.
"""

from __future__ import annotations

from typing import Any

from cytoloop.adapters.store import Store
from cytoloop.domain.errors import InputError, StateError
from ml_backend.access import Caller

WITHOUT_WEIGHTS: frozenset[str] = frozenset({"pruned"})
"""Statuses of versions that are only remembered: nothing is left to be brought into force."""


def ask_training(store: Store, who: Caller, assay: object) -> dict[str, Any]:
    """Ask for a training cycle now; returns its row, which may be of one that waits already.

    Raises
    ------
    Forbidden
        If this role may not.
    InputError
        If no such assay is here, or none is named and there are several.
    """
    who.check_may("train")
    return _row(store, store.cycles.ask(_assay(store, assay), who.name))


def ask_promotion(store: Store, who: Caller, version: str) -> dict[str, Any]:
    """Ask for a version to be brought into force, by a person's decision, without a contest.

    Raises
    ------
    Forbidden
        If this role may not.
    UnknownVersion
        If there is none of that name.
    StateError
        If it is in force already, or its weights are gone.
    """
    who.check_may("bring into force")
    model = store.models.get(version)
    if model.version == store.models.active(model.assay).version:
        raise StateError(f"model {version} is in force already; expected another one")
    if model.status in WITHOUT_WEIGHTS:
        raise StateError(
            f"model {version} is {model.status}: its weights are gone; expected one that has them"
        )
    why = f"{who.name} decided for {version}"
    return _row(store, store.cycles.ask(model.assay, who.name, why, kind="promote", target=version))


def ask_rollback(store: Store, who: Caller, assay: object, expected: str | None = None) -> dict[str, Any]:
    """Ask for the version to come back that was in force before the present one.

    It is named now: what comes is what was meant, though another version may come into force before.

    Parameters
    ----------
    expected : str, optional
        The version that whoever asks saw named.

    Raises
    ------
    Forbidden
        If this role may not.
    InputError
        As ``ask_training``.
    StateError
        If the present version is the first one, or going back leads to another than ``expected``.
    """
    who.check_may("bring into force")
    name = _assay(store, assay)
    active = store.models.active(name).version
    previous = store.publications.previous(name)
    if previous is None:
        raise StateError(f"assay {name!r}: {active} is the first version in force; there is none before it")
    if expected not in (None, previous):
        raise StateError(
            f"assay {name!r}: going back leads to {previous} by now, not to {expected}; look again"
        )
    why = f"{who.name} wants {previous} back in the place of {active}"
    return _row(store, store.cycles.ask(name, who.name, why, kind="rollback", target=previous))


def call_off(store: Store, who: Caller, cycle_id: str) -> dict[str, Any]:
    """Call a cycle off that waits or runs; returns its row.

    Raises
    ------
    Forbidden
        If this role may not.
    UnknownVersion
        If there is no such cycle.
    StateError
        If it is over.
    """
    who.check_may("cancel")
    return store.cycles.cancel(cycle_id, who.name)


def _assay(store: Store, asked: object) -> str:
    """The assay that is meant: the only one where none is named."""
    names = store.assays.names()
    if asked is None and len(names) == 1:
        return names[0]
    if not isinstance(asked, str) or asked not in names:
        raise InputError(f"assay is {asked!r}, expected one of {names}")
    return asked


def _row(store: Store, cycle_id: str) -> dict[str, Any]:
    return store.cycles.get(cycle_id)
