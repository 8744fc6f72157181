"""What a demand model is made of: the network alone, or a sum of the network, trees and layers, weighted for each metric. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .answers import TrainedModel
from .demand import METRICS
from .experts import Floats, Ints, Singles
from .layers import Layers
from .network import FARTHEST, Arrays, Network
from .trees import FlatTrees

KINDS = ("network", "trees", "layers")
"""Kinds of members."""

MOST_MEMBERS = 6
"""Maximum members of a model (chosen): what each tick has to pay for."""

LIGHT = 1e-6
"""A member of less weight at a metric is not asked (chosen)."""


class Member(Protocol):
    """What a model is a sum of."""

    def more(self, made: Singles, /) -> Singles | Floats:
        """[n, Q] by how much the answers for rows [n, F] differ from the fallback's, or the network's."""
        ...


class Mixture:
    """A sum of members. Each says by how much its answers differ from the fallback's, or from the network's, and counts by its
    weight at the metric of the series."""

    def __init__(self, arrays: Arrays, digest: str) -> None:
        """`arrays`: `kinds` int32 [members], `weights` float32 [members, METRICS] from 0 to 1, `speaks`; and of member i the arrays
        of its kind, named `i-NAME`. Raises ValueError for any others."""
        kinds, weights, speaks = (arrays.get(name, np.zeros(0)) for name in ("kinds", "weights", "speaks"))
        if kinds.dtype != np.int32 or kinds.ndim != 1 or not 1 <= len(kinds) <= MOST_MEMBERS:
            raise ValueError(f"there must be 1 to {MOST_MEMBERS} members")
        if not ((kinds >= 0) & (kinds < len(KINDS))).all():
            raise ValueError("a member is of an unknown kind")
        if (
            weights.shape != (len(kinds), len(METRICS))
            or weights.dtype != np.float32
            or not ((weights >= 0) & (weights <= 1)).all()
        ):
            raise ValueError(f"weights must be float32 from 0 to 1, ({len(kinds)}, {len(METRICS)})")
        if speaks.shape != (len(METRICS),) or speaks.dtype != np.bool_:
            raise ValueError(f"speaks must be bool ({len(METRICS)},)")
        self._members: list[Member] = []
        left = set(arrays) - {"kinds", "weights", "speaks"}
        for place, kind in enumerate(kinds.tolist()):
            mine = {name.removeprefix(f"{place}-"): arrays[name] for name in left if name.startswith(f"{place}-")}
            left -= {f"{place}-{name}" for name in mine}
            self._members.append(member(KINDS[kind], mine))
        if left:
            raise ValueError(f"it has arrays that belong to no member: {', '.join(sorted(left))}")
        self._weights = weights
        self.speaks = frozenset(metric for metric, good in zip(METRICS, speaks.tolist(), strict=True) if good)
        self.digest = digest

    @property
    def name(self) -> str:
        """As in `Forecast.source`."""
        return f"demand {self.digest[:8]}"

    def answers(self, made: Singles, start: Singles, metric: Ints) -> Singles:
        """See `DemandModel`."""
        said = start.astype(np.float64)
        for each, weights in zip(self._members, self._weights, strict=True):
            weight = weights[metric]
            mine = np.flatnonzero(weight > LIGHT)
            if len(mine) == len(made):
                said += weight[:, None] * each.more(made)
            elif len(mine):
                said[mine] += weight[mine, None] * each.more(made[mine])
        return np.clip(said, -FARTHEST, FARTHEST).astype(np.float32)


def member(kind: str, arrays: Arrays) -> Member:
    """A member of one of `KINDS`. Raises ValueError for arrays that are none."""
    if kind == "network":
        return Network({**arrays, "speaks": np.ones(len(METRICS), dtype=np.bool_)}, "")
    return FlatTrees(arrays) if kind == "trees" else Layers(arrays)


def mixed(members: Sequence[tuple[str, Arrays]], weights: NDArray[np.float32], speaks: Sequence[bool]) -> Arrays:
    """Arrays of members (kind, its arrays) with these weights [members, METRICS]. Those without weight are left out; a network that
    is alone and counts fully is stored as such."""
    used = [place for place in range(len(members)) if (weights[place] > LIGHT).any()]
    kinds = [members[place][0] for place in used]
    flags = np.array(speaks, dtype=np.bool_)
    if kinds == ["network"] and (weights[used[0]] == 1).all():
        return {**members[used[0]][1], "speaks": flags}
    named = {f"{number}-{name}": array for number, place in enumerate(used) for name, array in members[place][1].items()}
    return {
        **named,
        "kinds": np.array([KINDS.index(kind) for kind in kinds], dtype=np.int32),
        "weights": weights[used].astype(np.float32),
        "speaks": flags,
    }


def trained(arrays: Arrays, digest: str) -> TrainedModel:
    """The demand model of an artefact's arrays. Raises ValueError for any that are none."""
    return Mixture(arrays, digest) if "kinds" in arrays else Network(arrays, digest)
