"""What a contest cannot do without: how many wells are missing, and which are to be corrected. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cytoloop.domain.trainer_policy import ContestPolicy

GIVE_UP = 2
"""Times the wells that are needed, after which a class that none of them holds is left out."""
MOST_NAMED = 12
"""Wells that a sentence names; the document has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """Wells that are missing before anything can be judged; false where none are."""

    groups: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)
    """By class, those that lack any."""

    def __bool__(self) -> bool:
        return self.groups > 0 or bool(self.classes)

    @property
    def most(self) -> int:
        """Wells that have to be added at least: one well may serve every class."""
        return max(self.groups, *self.classes.values(), 0)


def lacking_wells(
    counted: int, class_groups: Mapping[str, int], policy: ContestPolicy, wells: int | None = None
) -> Lacking:
    """Wells that are missing, in all and by class.

    A class that no counted well holds lacks wells like any other, for the next well may show it. It would block
    the loop for ever on plates that do not show it at all. Hence it is left out once twice as many wells as are
    needed count, or every contest well there is, and still none holds it: of 24 wells drawn at random, none
    holds a class that is in one of eight or more in 4 % of cases at most; of 12, one that is in a
    quarter or more in 3 %.

    Parameters
    ----------
    counted : int
        Wells with an item that counts.
    class_groups : mapping of str to int
        For each class, background too, how many of them hold it in their truth.
    wells : int, optional
        Contest wells there are, corrected or not; None: not known.

    Examples
    --------
    >>> lacking_wells(9, {"background": 9, "nucleus": 2}, ContestPolicy())
    Lacking(groups=3, classes={'nucleus': 6})
    """
    is_all_seen = wells is not None and counted >= wells
    given_up = counted >= GIVE_UP * policy.min_groups or (is_all_seen and counted >= policy.min_groups)
    return Lacking(
        groups=max(0, policy.min_groups - counted),
        classes={
            name: policy.min_class_groups - groups
            for name, groups in class_groups.items()
            if groups < policy.min_class_groups and not (groups == 0 and given_up)
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestWell:
    """How far a contest well is."""

    group: str
    read: int = 0
    """Items of it that somebody corrected, whether they count yet or not."""
    classes: frozenset[str] | None = None
    """Classes that the truth of its items holds; None: none of its items counts."""
    waiting: str = ""
    """Why none of its corrected items counts, in words; empty otherwise."""


def lacking_of(wells: Sequence[ContestWell], class_names: Sequence[str], policy: ContestPolicy) -> Lacking:
    """What lacks, given every contest well there is."""
    counted = [well.classes for well in wells if well.classes is not None]
    class_groups = {name: sum(name in classes for classes in counted) for name in class_names}
    return lacking_wells(len(counted), class_groups, policy, len(wells))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestNeeds:
    """What a contest lacks, with the wells that can give it, by name."""

    assay: str
    policy: ContestPolicy
    lacking: Lacking
    wells: int
    """Contest wells there are, corrected or not."""
    uncorrected: tuple[str, ...]
    """Wells without a corrected item: one item of each makes it count."""
    waiting: Mapping[str, str]
    """Wells whose corrected items do not count yet, with the reason."""
    probable: Mapping[str, tuple[str, ...]]
    """For each class that lacks wells, those that probably hold it, the likeliest first; uncorrected ones go
    before those whose other items hold none."""

    def words(self) -> str:
        """Sentences for a report; empty where nothing is lacking."""
        return " ".join([*self._of_wells(), *(self._of_class(name) for name in self.lacking.classes)])

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "lacking": {"groups": self.lacking.groups, "classes": dict(self.lacking.classes)},
            "wells": self.wells,
            "uncorrected": list(self.uncorrected),
            "waiting": dict(self.waiting),
            "probable": {name: list(groups) for name, groups in self.probable.items()},
            "words": self.words(),
        }

    def _of_wells(self) -> list[str]:
        if not self.lacking.groups:
            return []
        wanted = self.policy.min_groups
        told = [f"The contest has {wanted - self.lacking.groups} of the {wanted} wells it needs."]
        if self.uncorrected:
            told.append(f"No item is corrected yet in {_named(self.uncorrected)}.")
        if self.waiting:
            told.append(f"What is corrected does not count yet in {_named(tuple(self.waiting))}.")
        if self.wells < wanted:
            told.append(
                f"The home has only {self.wells} contest well{'s' * (self.wells != 1)}, {wanted} are needed: "
                f"import more wells, or lower trainer.contest.min_groups of assay {self.assay!r}."
            )
        return told

    def _of_class(self, name: str) -> str:
        wanted = self.policy.min_class_groups
        held = wanted - self.lacking.classes[name]
        probable = self.probable.get(name, ())
        told = f"{name} is in {held} counted well{'s' * (held != 1)}, {wanted} are needed"
        if probable:
            told += f": the CIP sees it in {_named(probable)}."
        else:
            told += ": the CIP sees it in no other contest well."
        if held + len(probable) < wanted:
            told += (
                f" Import wells that show {name}, or lower trainer.contest.min_class_groups of assay "
                f"{self.assay!r}"
            )
            if held == 0:
                enough = GIVE_UP * self.policy.min_groups
                told += f"; it is left out once {enough} wells, or all there are, count and none shows it"
            told += "."
        return told


def contest_needs(
    wells: Iterable[ContestWell],
    policy: ContestPolicy,
    lacking: Lacking,
    *,
    assay: str,
    seen: Mapping[str, Mapping[str, int]],
) -> ContestNeeds:
    """Name the wells that a contest needs.

    Parameters
    ----------
    wells : iterable of ContestWell
        Every contest well there is.
    lacking : Lacking
        As a contest found it, or `lacking_of` the wells as they are now.
    assay : str
        Its name, for the advice.
    seen : mapping of str to mapping of str to int
        By class, then well: pixels of the class in items that nobody corrected, as the CIP sees them.
    """
    known = sorted(wells, key=lambda well: well.group)
    return ContestNeeds(
        assay=assay,
        policy=policy,
        lacking=lacking,
        wells=len(known),
        uncorrected=tuple(well.group for well in known if not well.read),
        waiting={well.group: well.waiting for well in known if well.waiting},
        probable={name: _probable(name, known, seen.get(name, {})) for name in lacking.classes},
    )


def _probable(name: str, wells: Sequence[ContestWell], pixels: Mapping[str, int]) -> tuple[str, ...]:
    """Wells that probably hold a class, of those whose truth is not known to hold it."""
    hopeful = [
        well
        for well in wells
        if pixels.get(well.group, 0) > 0 and (well.classes is None or name not in well.classes)
    ]
    hopeful.sort(key=lambda well: (well.read > 0, -pixels[well.group], well.group))
    return tuple(well.group for well in hopeful)


def _named(groups: Sequence[str]) -> str:
    """``a, b and c``; of many only the first, and how many more there are."""
    told = [*groups[:MOST_NAMED]]
    if len(groups) > MOST_NAMED:
        told.append(f"{len(groups) - MOST_NAMED} more")
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"
