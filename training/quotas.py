"""The share of one user in what all learn from: whatever a user runs, the fit and the judgement rest on others too. Pure.

Owners are names: "" is the system, which has no quota, because its work is the administrator's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SYSTEM = ""
"""The owner of what has no quota."""

QUOTA = 0.25
"""Largest share of one owner (chosen): four users may have equal parts, and one who shapes traces is outweighed three to one."""

CONTAINED = 100_000
"""First uid that a container's users may have (SUB_UID_MIN of /etc/login.defs). One user can run processes under thousands of them,
so all of them share one quota."""


def quota_of(owner: int) -> str:
    """The name under which a user's work counts."""
    return str(min(owner, CONTAINED))


def shares(amounts: Mapping[str, float], most: float = QUOTA) -> dict[str, float]:
    """The factor for each owner's weight after which no owner but the system has more than `most` of the whole. Of fewer owners
    than that allows, each has at most an equal part; a single owner has everything.

    >>> shares({"": 40.0, "1000": 60.0, "1001": 1.0, "1002": 1.0})
    {'': 1.0, '1000': 0.23333333333333334, '1001': 1.0, '1002': 1.0}
    """
    there = {owner: amount for owner, amount in amounts.items() if amount > 0}
    limit, capped = max(most, 1 / max(len(there), 1)), set[str]()
    while True:
        rest, left = sum(amount for owner, amount in there.items() if owner not in capped), 1 - limit * len(capped)
        # each that is capped has `limit` of the whole, the others what is left; if there are none, all have equal parts
        cap = limit * rest / left if left > 1e-9 else min(there.values())
        over = {owner for owner in there.keys() - capped if owner != SYSTEM and there[owner] > cap * (1 + 1e-9)}
        if not over:
            return {owner: cap / amount if owner in capped else 1.0 for owner, amount in amounts.items()}
        capped |= over


def factors(owners: Sequence[str], weights: Floats, most: float = QUOTA) -> Floats:
    """The factor of each item, as `shares` gives it to its owner. `weights`: what each item counts."""
    names = np.asarray(owners)
    amounts = {name: float(weights[names == name].sum()) for name in sorted(set(owners))}
    given = shares(amounts, most)
    return np.array([given[owner] for owner in owners], dtype=np.float64)


def places(owners: Sequence[str], counts: Sequence[int], most: int) -> dict[str, int]:
    """How many of at most `most` items each owner has if all have at most their quotas. `counts`: the items of each of `owners`,
    which may name an owner more than once."""
    have: dict[str, int] = {}
    for owner, count in zip(owners, counts, strict=True):
        have[owner] = have.get(owner, 0) + count
    if sum(have.values()) <= most:
        return have
    given = shares(have)
    whole = sum(given[owner] * count for owner, count in have.items())
    return {owner: min(int(most * given[owner] * count / whole), count) for owner, count in have.items()}
