"""Which groups teach and which judge: drawn once, when a group is first seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from cytoloop.domain.errors import ConfigError
from cytoloop.domain.types import SPLITS, Split

FRACTIONS: Mapping[Split, float] = {"train": 0.5, "validation": 0.15, "contest": 0.25, "sealed": 0.1}
"""Aimed-at shares of the groups. A small plate needs a large share to judge anything at all."""

CAPS: Mapping[Split, int] = {"validation": 16, "contest": 24, "sealed": 12}
"""No split but *train* grows past this many groups: a whole 384-well plate mostly teaches."""


def assign_splits(
    existing: Mapping[str, Split],
    groups: Iterable[str],
    salt: str = "",
    *,
    fractions: Mapping[Split, float] = FRACTIONS,
    caps: Mapping[Split, int] = CAPS,
) -> dict[str, Split]:
    """Draw a split for each group not in ``existing``.

    Groups are taken in the order of a hash of ``salt`` and their name, not of their place on the
    plate, and each goes to the split that is furthest behind its share. So the outcome depends
    neither on file order nor on a random state, every split of a small plate gets its part, and
    a group once drawn stays where it is.

    Parameters
    ----------
    existing : mapping of group to Split
        Drawn before.
    groups : iterable of str
        Names; may repeat, and may hold some of ``existing``.
    salt : str
        Another salt, another draw.
    fractions : mapping of Split to float
        Aimed-at shares of the groups, 0…1, together 1; a split that is not named gets none.
    caps : mapping of Split to int
        Most groups of a split; a split that is not named has no limit.

    Raises
    ------
    ConfigError
        If a share is negative, or they do not add up to 1.

    Examples
    --------
    >>> from collections import Counter
    >>> drawn = assign_splits({}, [f"P/{w}" for w in range(20)])
    >>> sorted(Counter(drawn.values()).items())
    [('contest', 5), ('sealed', 2), ('train', 10), ('validation', 3)]
    """
    if min(fractions.values()) < 0.0 or abs(sum(fractions.values()) - 1.0) > 1e-9:
        raise ConfigError(f"splits: shares {dict(fractions)}, expected none below 0, and a sum of 1")
    counts: dict[Split, int] = dict.fromkeys(SPLITS, 0)
    for split in existing.values():
        counts[split] += 1
    drawn: dict[str, Split] = {}
    new = {group for group in groups if group not in existing}
    for group in sorted(new, key=lambda name: hashlib.sha256(f"{salt}\0{name}".encode()).hexdigest()):
        total = sum(counts.values()) + 1
        open_splits = [s for s in SPLITS if fractions.get(s, 0.0) > 0.0 and counts[s] < caps.get(s, total)]
        split = max(open_splits, key=lambda s: fractions[s] * total - counts[s])
        counts[split] += 1
        drawn[group] = split
    return drawn
