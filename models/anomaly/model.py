"""Judges workers of pools: how rare such scores are among healthy workers, and what kind of misbehaviour it is. Pure.

`detectors.worker_rows` and `lifecycle.Lifecycle` say how unlike its siblings and its own past each worker is, by kind. A scorer
(`RobustZ` or the calibrated `AnomalyModel`) turns that into p-values. `judge` names the kind. Must not know what becomes of a
score: thresholds, patience and actions belong to the policy.

A p-value here answers: what share of healthy worker-blocks (a worker over `BLOCK_SECONDS`, or its life if shorter) has a highest
score at least this high? Block maxima handle autocorrelation: neighbouring ticks share nearly all of their window, so counting
ticks would count one odd minute as a hundred odd events.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..features import Floats, Singles
from ..identity import ProcId
from ..records import Anomaly, Score
from .detectors import KINDS, WorkerRows, worker_rows
from .evidence import NEAR, Found, together
from .lifecycle import POOL_KINDS, Noticed
from .siblings import Ints

BLOCK_SECONDS = 60.0
"""Length of a block. Long compared with what workers do (requests, collections), short compared with an hour of traces (chosen)."""

LINE: Mapping[Anomaly, float] = {
    Anomaly.LEAK: 16.0,  # growth beyond the siblings': twice what matters, each step rising
    Anomaly.FD_LEAK: 16.0,  # the same, or once what matters where siblings do as much: `leaks.LEAKING`
    Anomaly.THREAD_LEAK: 16.0,
    Anomaly.FORK_STORM: 1.7,  # 5.5 times (usual rate + 1), per second
    Anomaly.SWITCH_STORM: 2.0,  # 7.4 times the siblings' rate for the same work
    Anomaly.SPIN: 20.0,  # times the usual stretch of work
    Anomaly.STUCK: 20.0,  # times the usual pause
    Anomaly.STARVED: 1.5,  # 4.5 times the siblings' ratio of wait to run, and waits for two thirds of what it wants
    Anomaly.SLOW: 8.0,  # standard deviations of the siblings' own pieces, and 3 times their cost
    Anomaly.OUTLIER: 12.0,  # robust standard deviations
    Anomaly.CRASH_LOOP: 2.5,  # workers that end soon, one after the other
    Anomaly.ZOMBIE: 25.0,  # seconds
}
"""The score to which `RobustZ` gives the p-value `RARE`. Pauses of Poisson work are exponential, so for one pause 20 times the
usual is e^-20. `PRIOR_SHAPE` makes it `RARE` for a block, because real pauses have heavier tails. The lines are chosen; `python -m
benchmarks.anomaly.campaign` shows what they find without a trained model."""

LINE_ALONE = 5.0
"""The same for outliers against their own past: novelty times the logarithm of how far above its past a worker stays.

The highest block maximum is 0.60, of 137 real workers, each taken as if it had no siblings (23 worker-hours with enough past), and
of the healthy characters of `training.anomaly_cases` (113 hours). A score as rare as `RARE` is 2.4 to 3.6 by the highest 1 to 2 %
of the blocks and the shape below, 4.2 to 4.9 by all of them and their own shape. See docs/anomaly-sets.md."""

PRIOR_RATE, PRIOR_SHAPE, RARE = 0.2, 0.1, 5e-7
"""The baseline's tail: share of blocks that score above 0, shape of the generalised Pareto distribution beyond, and share of blocks
beyond `LINE`. One false alarm a day of 100 workers with twelve kinds is 5.8e-7. Shape 0 is an exponential tail; 0.1 decays like a
power of 10."""

LEAST_P = 1e-12
"""Lowest p-value: no amount of traces supports a lower one (chosen)."""

NOTED = 0.05
"""Highest p-value that comes with evidence: nobody asks why a healthy worker is healthy (chosen)."""

NAMED = 1e-3
"""A cause this rare hides its consequences: the worker is not reported for them meanwhile (chosen)."""

CAUSES: Mapping[Anomaly, tuple[Anomaly, ...]] = {
    Anomaly.LEAK: (Anomaly.FD_LEAK, Anomaly.THREAD_LEAK, Anomaly.FORK_STORM),  # buffers, stacks, page tables
    Anomaly.FD_LEAK: (Anomaly.THREAD_LEAK, Anomaly.FORK_STORM),  # what each thread opens, pipes to each child
    Anomaly.SWITCH_STORM: (Anomaly.THREAD_LEAK, Anomaly.FORK_STORM),
    Anomaly.SPIN: (Anomaly.FORK_STORM, Anomaly.SWITCH_STORM),
    Anomaly.STUCK: (Anomaly.STARVED,),
    Anomaly.SLOW: tuple(kind for kind in KINDS if kind not in (Anomaly.SLOW, Anomaly.OUTLIER)),
    Anomaly.OUTLIER: tuple(kind for kind in KINDS if kind is not Anomaly.OUTLIER),
}
"""Possible causes of each kind: a kind is not reported while one of its causes is `NAMED`."""


class Scorer(Protocol):
    """Turns scores into p-values, trained or not."""

    def tails(self, interval: float, owner: str = "") -> tuple[str, Mapping[Anomaly, Tail]]:
        """(`Score.source`, healthy distribution by kind) for ticks of `interval` seconds, for the workers of this user; "": of the
        system, or owners do not matter."""
        ...


@dataclass(frozen=True, slots=True)
class Tail:
    """The healthy distribution of a kind's block maxima: conformal rank among those seen, a generalised Pareto tail beyond.

    Peaks over a threshold tend to that distribution (Pickands 1975, Balkema and de Haan 1974; Coles 2001, chapter 4).
    """

    seen: Floats  # block maxima of healthy workers, rising; may be empty
    threshold: float
    rate: float  # share of blocks above the threshold
    shape: float  # above 0: heavier than exponential
    scale: float

    def p(self, scores: Floats) -> Floats:
        """Share of healthy worker-blocks that reach these scores, in (0, 1]; NaN for NaN."""
        n = len(self.seen)
        rank = (1.0 + n - np.searchsorted(self.seen, scores, side="left")) / (n + 1.0)
        over = np.maximum(scores - self.threshold, 0.0)
        beyond = self.rate * (1.0 + self.shape * over / self.scale) ** (-1.0 / self.shape)
        p = np.where(scores <= self.threshold, np.maximum(rank, self.rate), beyond)
        return np.where(np.isnan(scores), np.nan, np.clip(p, 1e-300, 1.0))


def prior(kind: Anomaly) -> Tail:
    """The baseline's tail of a kind, through (`LINE`, `RARE`). Calibration starts from it too."""
    return _through(LINE[kind])


def _through(line: float) -> Tail:
    scale = line * PRIOR_SHAPE / ((PRIOR_RATE / RARE) ** PRIOR_SHAPE - 1.0)
    return Tail(np.zeros(0), 0.0, PRIOR_RATE, PRIOR_SHAPE, scale)


ALONE = _through(LINE_ALONE)
"""The tail of outliers against their own past, for every scorer: calibration sees too few lone workers."""


class RobustZ:
    """The scorer without training: fixed, conservative tails. Finds what is blatant, not what is merely odd."""

    source = "baseline robust z"

    def __init__(self) -> None:
        self._tails = {kind: prior(kind) for kind in (*KINDS, *POOL_KINDS)}

    def tails(self, interval: float, owner: str = "") -> tuple[str, Mapping[Anomaly, Tail]]:
        """The same tails at every interval for everybody."""
        del interval, owner
        return self.source, self._tails


class AnomalyModel:
    """The scorer with tails calibrated on traces of healthy workers, of each user by itself: odd things of one hide nothing odd of
    another. A user without traces has the baseline's tails. So have kinds that are reported of pools, because healthy pools give
    next to nothing to calibrate on."""

    def __init__(self, tails: Mapping[str, Mapping[Anomaly, Tail]], digest: str, interval: float) -> None:
        """`tails`: by owner, as `Scorer.tails` has them."""
        self.source = f"anomaly {digest[:12]}"
        self.interval = interval
        pools = {kind: prior(kind) for kind in POOL_KINDS}
        self._tails: dict[str, Mapping[Anomaly, Tail]] = {owner: {**pools, **theirs} for owner, theirs in tails.items()}
        self._baseline = RobustZ()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], digest: str, interval: float) -> AnomalyModel:
        """The model from an artefact's arrays: KIND_seen (block maxima, rising) and KIND_tail (threshold, rate, shape, scale) of
        the system, and the same with _UID at the end for each user.

        `interval`: seconds per tick of the traces it was calibrated on. Raises ValueError for arrays that no calibration makes.
        """
        users = {name.rpartition("_")[2] for name in arrays if not name.endswith(("_seen", "_tail"))}
        if not all(map(str.isdecimal, users)):
            raise ValueError(f"anomaly model has arrays of {', '.join(sorted(users))}; train again")
        if not 0 < interval < math.inf:
            raise ValueError(f"anomaly model: interval must be seconds above 0, not {interval}; train again")
        return cls({owner: _tails(arrays, owner) for owner in ("", *sorted(users))}, digest, interval)

    def tails(self, interval: float, owner: str = "") -> tuple[str, Mapping[Anomaly, Tail]]:
        """The calibrated tails of a user; the baseline's if there are none, or if ticks are more than twice as long or short as in
        the calibration."""
        theirs = self._tails.get(owner)
        if theirs is None or not 0.5 <= interval / self.interval <= 2.0:
            return self._baseline.tails(interval)
        return self.source, theirs


def _tails(arrays: Mapping[str, NDArray[np.generic]], owner: str) -> dict[Anomaly, Tail]:
    """One owner's tails. Raises ValueError as `AnomalyModel.from_arrays`."""
    tails, end = {}, f"_{owner}" if owner else ""
    for kind in KINDS:
        names = f"{kind}_seen{end}", f"{kind}_tail{end}"
        missing = [name for name in names if name not in arrays]
        if missing:
            raise ValueError(f"anomaly model lacks {', '.join(missing)}; train again")
        seen, tail = (np.asarray(arrays[name], dtype=np.float64) for name in names)
        if seen.ndim != 1 or tail.shape != (4,) or not (np.isfinite(seen).all() and np.isfinite(tail).all()):
            raise ValueError(f"anomaly model: {kind} must have finite block maxima [n] and a tail of 4 figures; train again")
        threshold, rate, shape, scale = tail.tolist()
        if (np.diff(seen) < 0).any() or not (0 < rate <= 1 and shape > 0 and scale > 0 and threshold >= 0):
            raise ValueError(f"anomaly model: {kind} has no sensible distribution; train again")
        tails[kind] = Tail(seen, threshold, rate, shape, scale)
    return tails


def alpha(false_alarms_per_day_per_100_workers: float, kinds: int = len(KINDS) + len(POOL_KINDS)) -> float:
    """The p-value below which to alarm, so that 100 healthy workers give this many false alarms a day.

    Bonferroni over the blocks of a day, the workers and the kinds: each is a test that may err.
    """
    if not (false_alarms_per_day_per_100_workers > 0 and kinds > 0):
        raise ValueError(f"false alarms and kinds must be above 0, not {false_alarms_per_day_per_100_workers} and {kinds}")
    return min(false_alarms_per_day_per_100_workers / (86_400.0 / BLOCK_SECONDS * 100.0 * kinds), 1.0)


@dataclass(frozen=True, slots=True)
class TickOfWorkers:
    """The workers of a tick: the arguments of `score`."""

    ids: Sequence[ProcId]
    pools: Sequence[str]
    windows: Singles
    lengths: Ints
    available: float | None
    alone: Found | None  # of all ticks that are judged together, or of none
    owners: Sequence[str]


_PARTS = attrgetter("ids"), attrgetter("pools"), attrgetter("owners")


def score(
    scorer: Scorer,
    ids: Sequence[ProcId],
    pools: Sequence[str],
    windows: Singles,
    lengths: Ints,
    interval: float,
    available: float | None = None,
    alone: Found | None = None,
    least: float = NEAR,
    owners: Sequence[str] = (),
) -> list[Score]:
    """The most unusual kind of each worker, sorted by id. A worker of which nothing can be said yet has no score; one that is not
    unusual has no evidence.

    Arguments as of `worker_rows`. `alone`: what `self_history.SelfHistory` says of the same workers; `owners`: as `judge` takes
    them. What is rare but too small to matter has p = 1."""
    return scores_of_ticks(scorer, [TickOfWorkers(ids, pools, windows, lengths, available, alone, owners)], interval, least)[0]


def scores_of_ticks(scorer: Scorer, ticks: Sequence[TickOfWorkers], interval: float, least: float = NEAR) -> list[list[Score]]:
    """`score` of each of several ticks, the same to the bit, and for little more than the cost of one."""
    full = [tick for tick in ticks if tick.ids]
    if not full:
        return [[] for _ in ticks]
    ids, pools, owners = ([each for tick in full for each in part(tick)] for part in _PARTS)
    available: float | Floats | None = full[0].available
    windows, lengths, numbers = full[0].windows, full[0].lengths, list[int]()
    if len(full) > 1:
        windows, lengths = np.concatenate([tick.windows for tick in full], axis=2), np.concatenate([tick.lengths for tick in full])
        counts = [len(tick.ids) for tick in full]
        numbers = [number for number, count in enumerate(counts) for _ in range(count)]
        available = np.repeat([math.nan if tick.available is None else tick.available for tick in full], counts)
    rows = worker_rows(pools, windows, lengths, interval, available, least, numbers)
    alone = [tick.alone for tick in full if tick.alone is not None]
    said = _judged(scorer, ids, pools, rows.joined(together(alone)) if alone else rows, interval, least, owners)
    scores, first = [], 0
    for tick in ticks:
        theirs, first = said[first : first + len(tick.ids)], first + len(tick.ids)
        scores.append(sorted((each for each in theirs if each is not None), key=attrgetter("id")))
    return scores


def judge(
    scorer: Scorer,
    ids: Sequence[ProcId],
    pools: Sequence[str],
    rows: WorkerRows,
    interval: float,
    least: float = NEAR,
    owners: Sequence[str] = (),
) -> list[Score]:
    """`score` from given rows, so that several scorers can judge the same. Sizes below `least` are not reported. `owners`: of each
    worker, as `Scorer.tails` has them; (): all are the system's."""
    said = _judged(scorer, ids, pools, rows, interval, least, owners)
    return sorted((each for each in said if each is not None), key=attrgetter("id"))


def _judged(
    scorer: Scorer,
    ids: Sequence[ProcId],
    pools: Sequence[str],
    rows: WorkerRows,
    interval: float,
    least: float,
    owners: Sequence[str],
) -> list[Score | None]:
    """[n] `judge` for each worker; None: nothing can be said yet."""
    known = ~np.isnan(rows.scores)
    first = np.argmax(known, axis=1).tolist()  # for those that do nothing unusual
    unusual, sources = dict[int, tuple[Anomaly, float, float]](), dict[str, str]()
    for owner in sorted(set(owners)) or [""]:
        theirs = np.array([each == owner for each in owners], dtype=np.bool_) if owners else np.ones(len(ids), dtype=np.bool_)
        sources[owner], tails = scorer.tails(interval, owner)
        unusual |= _unusual(rows, tails, least, theirs)
    scores = list[Score | None]()
    for i, (id_, pool, anything) in enumerate(zip(ids, pools, np.any(known, axis=1).tolist(), strict=True)):
        source = sources[owners[i] if owners else ""]
        if i in unusual:
            kind, chance, size = unusual[i]
            noted = rows.figures(kind, i).items() if chance <= NOTED or size >= least else ()
            figures = tuple((name, round(figure, 6)) for name, figure in noted)
            scores.append(Score(id_, pool, kind, float(rows.scores[i, KINDS.index(kind)]), chance, figures, source, size))
        elif anything:
            scores.append(Score(id_, pool, KINDS[first[i]], 0.0, 1.0, (), source))
        else:
            scores.append(None)
    return scores


def _unusual(
    rows: WorkerRows, tails: Mapping[Anomaly, Tail], least: float, among: NDArray[np.bool_]
) -> dict[int, tuple[Anomaly, float, float]]:
    """(kind, p, size) of each worker `among` them that is odd in some way: the kind of the least p, without kinds that another one
    causes. Where nothing matters, the kind that comes nearest to mattering."""
    where = np.flatnonzero(((rows.sizes >= least) & (rows.scores > 0)).any(axis=1) & among)
    if not len(where):
        return {}
    scores, material = rows.scores[where], rows.material[where]
    raw = np.column_stack([tails[kind].p(scores[:, column]) for column, kind in enumerate(KINDS)])
    lines = np.tile([LINE[kind] for kind in KINDS], (len(where), 1))
    if rows.alone is not None:
        column, theirs = KINDS.index(Anomaly.OUTLIER), ~np.isnan(rows.alone.score[where])
        raw[theirs, column], lines[theirs, column] = ALONE.p(scores[theirs, column]), LINE_ALONE
    raw = np.where(np.isnan(raw), np.inf, raw)
    p = np.where(material, np.clip(raw, LEAST_P, 1.0), 1.0)
    sizes = np.nan_to_num(np.minimum(rows.sizes[where], scores / lines))
    for consequence, causes in CAUSES.items():
        caused = raw[:, [KINDS.index(cause) for cause in causes]].min(axis=1) < NAMED
        p[caused, KINDS.index(consequence)], sizes[caused, KINDS.index(consequence)] = 1.0, 0.0
    # The least p. Among equal p: the largest size of those that do not matter, then the least raw p, then the first kind. Never a
    # kind without evidence.
    chosen = np.lexsort((raw, np.where(p < 1.0, 0.0, -sizes), np.where(np.isinf(raw), np.inf, p)), axis=1)[:, 0]
    at = np.arange(len(where)), chosen
    found = zip(where.tolist(), chosen.tolist(), p[at].tolist(), sizes[at].tolist(), strict=True)
    return {i: (KINDS[kind], chance, size) for i, kind, chance, size in found}


def judge_pools(scorer: Scorer, noticed: Sequence[Noticed], interval: float) -> list[Score]:
    """Scores of what was noticed of whole pools: kinds that no single worker causes. Sorted by id and kind."""
    source, tails = scorer.tails(interval)
    scores = []
    for seen in noticed:
        chance = float(np.clip(tails[seen.kind].p(np.array([seen.value]))[0], LEAST_P, 1.0))
        figures = tuple((name, round(figure, 6)) for name, figure in seen.figures) if chance <= NOTED else ()
        scores.append(Score(seen.id, seen.pool, seen.kind, seen.value, chance, figures, source, seen.value / LINE[seen.kind]))
    return sorted(scores, key=attrgetter("id", "kind"))


def merged(pools: Sequence[Score], workers: Sequence[Score]) -> list[Score]:
    """One score per worker, sorted by id: the least p; among equals the pool's score. Masters keep all their scores: a master whose
    workers crash may leave zombies too, and neither explains the other."""
    least, others = {said.id: said for said in workers}, list[Score]()
    for said in reversed(pools):
        if said.id not in least:
            others.append(said)
        elif said.p <= least[said.id].p:
            least[said.id] = said
    return sorted([*least.values(), *others], key=attrgetter("id", "kind"))
