"""Calibrates the anomaly scorer on traces, and checks it on later time against the baseline. Knows no files: traces in, arrays out.

The scores are the runtime's own (`models.anomaly.detectors.worker_rows` over `models.features.WorkerWindows`), replayed tick by
tick. The model learns only how high healthy workers score: for each kind the highest scores of worker-blocks, and a tail beyond.
Each user's workers are calibrated on that user's alone, so nobody's traces move the limits of another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..models.anomaly.detectors import KINDS, WorkerRows, worker_rows
from ..models.anomaly.evidence import CHANNELS
from ..models.anomaly.model import BLOCK_SECONDS, PRIOR_SHAPE, AnomalyModel, RobustZ, Scorer, Tail, alpha, judge, prior
from ..models.features import Floats, WorkerWindows
from ..models.identity import ProcId
from ..models.records import WINDOW, Anomaly
from ..scheduler.config.sections import Quarantine
from .anomaly_cases import FAULTS, WorkerTick, faulty
from .crew import Crew
from .quotas import SYSTEM

_One = TypeVar("_One")

CALIBRATED_SHARE = 0.6
"""Share of each session, from its start, that calibrates; the rest checks (chosen)."""

PRIOR_BLOCKS = 10.0
"""Weight of the baseline's tail, as a number of excesses. Chosen: a minute of traces of a small pool moves it little, an hour
overrules it."""

SHAPE_BLOCKS = 50.0
"""Excesses at which the tail's own shape counts half. Estimates of it from less than a few dozen are useless (Hosking and Wallis
1987)."""

TAIL_SHARE = 0.1
"""Share of the blocks, the highest, that make the tail, at least 2: usual for peaks over a threshold (Coles 2001, chapter 4)."""

SUSPECT_WORKERS = 0.25
"""If the baseline accuses at most this share of a kind's workers until their end, they count as faulty and are left out
(chosen)."""

EVIDENCE_SECONDS = 10.0
"""A block with evidence for less time than this is not used (chosen)."""

LOOK_SECONDS = 2.0
"""Seconds between looks at the scores: they move slowly because their windows are long (chosen)."""

MOST_LOOKED_AT = 400_000
"""Worker-looks of a calibration; longer traces are looked at less often (chosen)."""

TOGETHER = 512
"""Workers that are replayed side by side (chosen): a look at as many takes 2.5 times as long as at 30."""

PARTS, LEAST_STRETCH = 16, 4 * WINDOW
"""Stretches into which a session is cut to be replayed side by side, at most, and the fewest ticks of one (chosen): each repeats a
window."""

FAULTS_PER_KIND = 12
"""Faults injected of each kind, spread over workers and time (chosen)."""

REACTION_SECONDS = 60.0
"""A fault not found within these seconds is missed (chosen)."""


@dataclass(frozen=True, slots=True)
class WorkerTraces:
    """What workers did: one sequence of consecutive ticks for each recording session."""

    sessions: tuple[Sequence[WorkerTick], ...]
    begins: bool = False  # the first session is there from the first tick of what was read
    ends: bool = False  # the last session is there up to the last one


@dataclass(frozen=True, slots=True)
class AnomalyRow:
    """One kind's row of the table."""

    kind: Anomaly
    blocks: int  # healthy blocks it was calibrated on
    injected: int
    found: int  # named correctly, within `REACTION_SECONDS`
    delay: float | None  # median seconds until found; None: none was
    baseline_found: int
    baseline_delay: float | None
    false_alarms: int  # incidents on held-out time without injected faults
    baseline_false_alarms: int


@dataclass(frozen=True, slots=True)
class AnomalyFit:
    """The result of a calibration: the model as arrays, and how it did on held-out time."""

    arrays: Mapping[str, NDArray[np.float64]]  # what `AnomalyModel.from_arrays` takes
    features: tuple[str, ...]  # CHANNELS, for the card
    rows: tuple[AnomalyRow, ...]
    beats: bool  # no more false alarms than the baseline and at least as many faults found
    reason: str  # one sentence


def fit_anomaly(workers: WorkerTraces, interval: float, crew: Crew | None = None) -> AnomalyFit:
    """Calibrate on the earlier part of each session, check on the later.

    `interval`: seconds a tick. `crew`: who replays; None: this process. Deterministic. Raises ValueError if there is nothing to
    learn from.
    """
    sessions = [session for session in workers.sessions if any(tick.keys for tick in session)]
    if not sessions:
        raise ValueError("the traces hold no workers of pools; record with the pools configured, then train again")
    crew = crew or Crew(1)
    stride = _stride(sessions, interval)
    cuts = [max(int(len(session) * CALIBRATED_SHARE), 1) for session in sessions]
    owners = sorted({SYSTEM} | {tick.owner(at) for session in sessions for tick in session for at in range(len(tick.keys))})
    blocks: dict[tuple[str, Anomaly], list[tuple[tuple[int, ProcId], int, float]]] = {}
    calibrating = _stretches(sessions, [(0, cut) for cut in cuts], stride)
    highs = _merged(calibrating, _flat(crew.each(_highest, ((lanes, interval, stride) for lanes in _lanes(calibrating)))))
    for number, (session, cut) in enumerate(zip(sessions, cuts, strict=True)):
        whose = {worker: tick.owner(at) for tick in session[:cut] for at, worker in enumerate(tick.keys)}
        for kind, found in _blocks(highs[number], interval, stride).items():
            for worker, block, highest in found:
                blocks.setdefault((whose[worker], kind), []).append(((number, worker), block, highest))
    tails = {
        (owner, kind): fit_tail(_healthy(blocks.get((owner, kind), []), prior(kind)), kind) for owner in owners for kind in KINDS
    }
    arrays = {
        f"{kind}_{name}{f'_{owner}' if owner else ''}": array
        for (owner, kind), tail in tails.items()
        for name, array in (("seen", tail.seen), ("tail", np.array([tail.threshold, tail.rate, tail.shape, tail.scale])))
    }
    model = AnomalyModel.from_arrays(arrays, "candidate", interval)
    scorers: tuple[Scorer, Scorer] = (model, RobustZ())
    alarms = [dict.fromkeys(KINDS, 0) for _ in scorers]
    checking = _stretches(sessions, [(cut, len(session)) for cut, session in zip(cuts, sessions, strict=True)], stride)
    trials = _trials(sessions, cuts, interval)
    broken = [
        _Stretch(at, [*trial.before, *trial.after], len(trial.before), len(trial.before) + len(trial.after))
        for at, trial in enumerate(trials)
    ]
    batches = (*_lanes(checking), *_lanes(broken))
    accused = _flat(crew.each(_accusations, ((lanes, interval, stride, scorers) for lanes in batches)))
    looks: list[list[_Accusation]] = [[] for _ in sessions]
    for stretch, its in zip(checking, accused, strict=False):
        looks[stretch.of] += its
    for its in looks:
        for counts, found_by in zip(alarms, _incidents(its, interval, len(scorers)), strict=True):
            for kind in found_by:
                counts[kind] += 1
    delays = [_delays(trial, its, interval, len(scorers)) for trial, its in zip(trials, accused[len(checking) :], strict=True)]
    outcomes = {kind: [found for trial, found in zip(trials, delays, strict=True) if trial.kind is kind] for kind in FAULTS}
    seen = {kind: sum(len(tails[owner, kind].seen) for owner in owners) for kind in KINDS}
    rows = tuple(_row(kind, seen[kind], outcomes.get(kind, []), [counts[kind] for counts in alarms]) for kind in KINDS)
    named, base_named = sum(row.found for row in rows), sum(row.baseline_found for row in rows)
    false, base_false = sum(row.false_alarms for row in rows), sum(row.baseline_false_alarms for row in rows)
    beats = false <= base_false and named >= base_named and bool(trials)
    reason = (
        f"found {named} of {len(trials)} injected faults (baseline {base_named}), "
        f"{false} false alarms on held-out time (baseline {base_false})"
        if trials
        else "held-out time has no worker that works long enough to put a fault in; record longer, under load"
    )
    return AnomalyFit(arrays, CHANNELS, rows, beats, reason)


def fit_tail(highest: Floats, kind: Anomaly) -> Tail:
    """The healthy distribution from block maxima, starting from the baseline's.

    Scale and shape of the generalised Pareto tail by moments (Hosking and Wallis 1987), both shrunk towards the baseline's: the
    scale as if `PRIOR_BLOCKS` excesses of the baseline had been seen, the shape, never lighter than the baseline's, by
    `SHAPE_BLOCKS`.
    """
    seen, start = np.sort(highest), prior(kind)
    n = len(seen)
    if n == 0:
        return start
    threshold = float(seen[max(n - max(math.ceil(TAIL_SHARE * n), 2) - 1, 0)]) if n > 2 else 0.0
    excess = seen[seen > threshold] - threshold
    count = len(excess)
    mean, spread = (float(excess.mean()), float(excess.var())) if count else (0.0, 0.0)
    moments = 0.5 * (1.0 - mean**2 / spread) if spread > 0 else 0.0
    believed = count / (count + SHAPE_BLOCKS)
    shape = PRIOR_SHAPE + believed * min(max(moments - PRIOR_SHAPE, 0.0), 0.5)
    prior_mean = start.scale / (1.0 - start.shape)
    pooled = (count * mean + PRIOR_BLOCKS * prior_mean) / (count + PRIOR_BLOCKS)
    return Tail(seen, threshold, (count + 1.0) / (n + 1.0), shape, pooled * (1.0 - shape))


# --- replaying ----------------------------------------------------------------------------------------------------------------


def _stride(sessions: Sequence[Sequence[WorkerTick]], interval: float) -> int:
    """Ticks between looks."""
    stride = max(round(LOOK_SECONDS / interval), 1)
    looks = sum(len(tick.keys) for session in sessions for tick in session) / stride
    return stride * max(math.ceil(looks / MOST_LOOKED_AT), 1)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A part of a sequence of ticks that is looked at."""

    of: int  # number of the sequence
    ticks: Sequence[WorkerTick]  # from at most a window before the first look on
    first: int  # place in `ticks` of the first look
    last: int  # end of the looks
    before: int = 0  # ticks of the sequence before `ticks`


def _stretches(sessions: Sequence[Sequence[WorkerTick]], spans: Sequence[tuple[int, int]], stride: int) -> list[_Stretch]:
    """A span of each session in parts that can be replayed side by side. The looks are those of a replay in one piece: windows
    forget what is older than they are long."""
    found = []
    for number, (session, (start, end)) in enumerate(zip(sessions, spans, strict=True)):
        parts = min(max((end - start) // LEAST_STRETCH, 1), PARTS)
        length = -(-(end - start) // parts)
        length += -length % stride
        for first in range(start, end, length):
            last, before = min(first + length, end), max(first - WINDOW, 0)
            found.append(_Stretch(number, session[before:last], first - before, last - before, before))
    return found


def _flat(lists: Iterable[list[_One]]) -> list[_One]:
    return [one for each in lists for one in each]


def _lanes(stretches: Sequence[_Stretch]) -> list[list[_Stretch]]:
    """Stretches to be replayed side by side, in order."""
    batches: list[list[_Stretch]] = []
    room = 0
    for stretch in stretches:
        workers = max(len(tick.keys) for tick in stretch.ticks)
        if workers > room:
            batches.append([])
            room = TOGETHER
        batches[-1].append(stretch)
        room -= workers
    return batches


def _looks(
    lanes: Sequence[_Stretch], interval: float, stride: int
) -> Iterator[tuple[list[tuple[int, int, slice]], WorkerTick, WorkerRows]]:
    """([(lane, tick of its sequence, its workers)], all workers, their scores) every `stride` ticks. All lanes begin their looks at
    the same moment; the windows of each have seen its earlier ticks. Workers and pools of different lanes are different ones."""
    windows = WorkerWindows(len(CHANNELS))
    before = max(lane.first for lane in lanes)
    known: list[tuple[int, Sequence[ProcId], Sequence[str], Sequence[str]]] = []
    keys, pools, owners = list[ProcId](), list[str](), list[str]()
    for step in range(-before, max(lane.last - lane.first for lane in lanes)):
        there = [
            (at, lane.before + lane.first + step, lane.ticks[lane.first + step])
            for at, lane in enumerate(lanes)
            if 0 <= lane.first + step < lane.last and lane.ticks[lane.first + step].keys
        ]
        now = [(at, tick.keys, tick.pools, tick.owners) for at, _, tick in there]
        if now != known:
            known = now
            keys = [_apart(key, at) for at, _, tick in there for key in tick.keys]
            pools = [f"{at} {pool}" for at, _, tick in there for pool in tick.pools]
            owners = [tick.owner(worker) for _, _, tick in there for worker in range(len(tick.keys))]
        values = np.concatenate([np.empty((0, len(CHANNELS))), *(tick.values for _, _, tick in there)])
        windows.push(keys, values)
        if step >= 0 and step % stride == 0 and keys:
            edges = [0, *accumulate(len(tick.keys) for _, _, tick in there)]
            parts = [(at, number, slice(*edge)) for (at, number, _), edge in zip(there, pairwise(edges), strict=True)]
            view, lengths = windows.view()
            yield parts, WorkerTick(keys, pools, values, owners), worker_rows(pools, view, lengths, interval)


_Highs = dict[tuple[ProcId, int], tuple[Floats, NDArray[np.int64]]]
"""By worker and block: (highest score, number of scores) of each kind."""


def _highest(lanes: Sequence[_Stretch], interval: float, stride: int) -> list[_Highs]:
    """What each lane's looks say."""
    found: list[_Highs] = [{} for _ in lanes]
    nothing = np.full(len(KINDS), np.nan), np.zeros(len(KINDS), dtype=np.int64)
    for parts, _, rows in _looks(lanes, interval, stride):
        # what is too small to matter is never reported, so it counts as 0 here too
        scores = np.where(rows.material | np.isnan(rows.scores), rows.scores, 0.0)
        known = ~np.isnan(scores)
        for lane, number, workers in parts:
            block, highest, stretch = int(number * interval // BLOCK_SECONDS), found[lane], lanes[lane]
            keys = stretch.ticks[number - stretch.before].keys
            for worker, its, there in zip(keys, scores[workers], known[workers], strict=True):
                most, looks = highest.get((worker, block), nothing)
                highest[worker, block] = np.fmax(most, its), looks + there
    return found


def _merged(stretches: Sequence[_Stretch], found: Sequence[_Highs]) -> dict[int, _Highs]:
    """What the looks at each sequence say, from its stretches."""
    merged: dict[int, _Highs] = {stretch.of: {} for stretch in stretches}
    for stretch, its in zip(stretches, found, strict=True):
        highs = merged[stretch.of]
        for key, (most, looks) in its.items():
            before = highs.get(key)
            highs[key] = (most, looks) if before is None else (np.fmax(before[0], most), before[1] + looks)
    return merged


def _blocks(highest: _Highs, interval: float, stride: int) -> dict[Anomaly, list[tuple[ProcId, int, float]]]:
    """(worker, block, highest score) by kind."""
    least = min(EVIDENCE_SECONDS / (stride * interval), BLOCK_SECONDS / (stride * interval) / 2)
    return {
        kind: [
            (worker, block, float(most[column]))
            for (worker, block), (most, looks) in sorted(highest.items(), key=lambda item: item[0])
            if looks[column] >= max(least, 1)
        ]
        for column, kind in enumerate(KINDS)
    }


def _healthy(blocks: Sequence[tuple[tuple[int, ProcId], int, float]], baseline: Tail) -> Floats:
    """Block maxima without those of workers that seem truly faulty.

    A fault does not heal: the blocks that the baseline accuses and that last until the worker's end are left out, with the one
    before, in which the fault may have begun. If too many workers are accused, it must be how the pool behaves, and all stay. What
    was odd and passed is healthy, and stays.
    """
    line = alpha(Quarantine().false_alarms_per_day)
    lives: dict[tuple[int, ProcId], list[float]] = {}
    for worker, _, highest in sorted(blocks):
        lives.setdefault(worker, []).append(highest)
    kept, suspects = list[float](), 0
    everything = [highest for life in lives.values() for highest in life]
    for life in lives.values():
        accused = baseline.p(np.array(life)) < line
        end = len(life)
        while end and accused[end - 1]:
            end -= 1
        if end < len(life):
            suspects, end = suspects + 1, max(end - 1, 0)
        kept += life[:end]
    return np.array(kept if suspects <= max(SUSPECT_WORKERS * len(lives), 1) else everything, dtype=np.float64)


_Accusation = tuple[int, list[dict[ProcId, Anomaly]]]
"""(tick of a sequence, workers below the line with their kind by each scorer)."""


def _accusations(lanes: Sequence[_Stretch], interval: float, stride: int, scorers: Sequence[Scorer]) -> list[list[_Accusation]]:
    """Whom each look of each lane accuses, at the default rate of false alarms."""
    line = alpha(Quarantine().false_alarms_per_day)
    made: list[list[_Accusation]] = [[] for _ in lanes]
    for parts, whole, rows in _looks(lanes, interval, stride):
        for lane, number, _ in parts:
            made[lane].append((number, [{} for _ in scorers]))
        for column, scorer in enumerate(scorers):
            for found in judge(scorer, whole.keys, whole.pools, rows, interval, owners=whole.owners):
                if found.p < line:
                    lane, worker = _back(found.id)
                    made[lane][-1][1][column][worker] = found.kind
    return made


def _incidents(looks: Sequence[_Accusation], interval: float, scorers: int) -> list[list[Anomaly]]:
    """Kinds of the alarms that each scorer would have raised: accused throughout the default patience."""
    patience = Quarantine().patience
    since: list[dict[tuple[ProcId, Anomaly], int]] = [{} for _ in range(scorers)]
    raised: list[set[tuple[ProcId, Anomaly]]] = [set() for _ in range(scorers)]
    for number, accused in looks:
        for its, began, alarms in zip(accused, since, raised, strict=True):
            now = set(its.items())
            for key in [key for key in began if key not in now]:
                del began[key]
            for key in now:
                if (number - began.setdefault(key, number)) * interval >= patience:
                    alarms.add(key)
    return [sorted(kind for _, kind in alarms) for alarms in raised]


# --- faults -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Trial:
    """A copy of a pool in which one worker goes wrong."""

    kind: Anomaly
    worker: ProcId
    before: Sequence[WorkerTick]  # at most a window
    after: Sequence[WorkerTick]  # since the fault


def _trials(sessions: Sequence[Sequence[WorkerTick]], cuts: Sequence[int], interval: float) -> list[_Trial]:
    """Faults put into workers on held-out time: workers that work, have siblings that work, and live long enough."""
    places = []
    for session, cut in zip(sessions, cuts, strict=True):
        length = math.ceil(REACTION_SECONDS / interval)
        last = len(session) - min(length, max(len(session) - cut, 1))
        for onset in sorted({cut, (cut + last) // 2, last}):
            stop = min(onset + length, len(session))
            lives = _lifecycle(session, max(onset - WINDOW, 0), stop)
            for worker, pool, values in lives:
                if len(values) >= stop - onset and _works(values[-(stop - onset) :]):
                    siblings = sum(other != worker and name == pool and _works(theirs) for other, name, theirs in lives)
                    if siblings:
                        places.append((session, onset, stop, worker, pool))
    step = max(len(places) / FAULTS_PER_KIND, 1.0)
    chosen = [places[int(i * step)] for i in range(min(FAULTS_PER_KIND, len(places)))]
    return [_break(*place, kind, interval) for kind in FAULTS for place in chosen]


def _lifecycle(session: Sequence[WorkerTick], start: int, stop: int) -> list[tuple[ProcId, str, Floats]]:
    """(worker, pool, values up to `stop`) of the workers that exist at the end."""
    found: dict[ProcId, tuple[str, list[Floats]]] = {}
    for tick in session[start:stop]:
        for worker, pool, values in zip(tick.keys, tick.pools, tick.values, strict=True):
            found.setdefault(worker, (pool, []))[1].append(values)
    return [(worker, found[worker][0], np.array(found[worker][1])) for worker in sorted(session[stop - 1].keys)]


def _works(values: Floats) -> bool:
    """Whether a worker has something to do in at least half of its ticks."""
    return bool(np.mean(values[:, CHANNELS.index("cpu")] + values[:, CHANNELS.index("wait")] > 0.01) >= 0.5)


def _break(
    session: Sequence[WorkerTick], onset: int, stop: int, worker: ProcId, pool: str, kind: Anomaly, interval: float
) -> _Trial:
    """The pool alone, from a window before `onset` to `stop`, with a fault in one worker from `onset` on."""
    ticks = []
    for tick in session[max(onset - WINDOW, 0) : stop]:
        members = [i for i, name in enumerate(tick.pools) if name == pool]
        keys, owners = [tick.keys[i] for i in members], [tick.owner(i) for i in members]
        ticks.append(WorkerTick(keys, [pool] * len(members), np.asarray(tick.values)[members].copy(), owners))
    before, after = ticks[: onset - stop], ticks[onset - stop :]
    own = [tick.keys.index(worker) for tick in after]
    broken = faulty(kind, np.array([tick.values[i] for tick, i in zip(after, own, strict=True)]), interval)
    for tick, i, values in zip(after, own, broken, strict=True):
        tick.values[i] = values
        if kind is Anomaly.STUCK:  # the work that it holds or would have taken waits
            queued = tick.values[:, CHANNELS.index("queued")]
            tick.values[:, CHANNELS.index("queued")] = np.where(np.isnan(queued), np.nan, np.maximum(queued, 1 / len(tick.keys)))
    return _Trial(kind, worker, before, after)


def _delays(trial: _Trial, looks: Sequence[_Accusation], interval: float, scorers: int) -> list[float | None]:
    """Seconds until each scorer has named the fault throughout the patience; None: not in time."""
    patience, onset = Quarantine().patience, len(trial.before)
    since: list[int | None] = [None] * scorers
    found: list[float | None] = [None] * scorers
    for number, accused in looks:
        for column, its in enumerate(accused):
            if its.get(trial.worker) is not trial.kind:
                since[column] = None
                continue
            began = since[column]
            since[column] = began = number if began is None else began
            if found[column] is None and (number - began) * interval >= patience:
                found[column] = (number - onset) * interval
    return found


def _apart(worker: ProcId, lane: int) -> ProcId:
    """The worker under an id that is unique to its lane."""
    return ProcId(worker.pid + (lane << 32), worker.start_ticks)


def _back(id_: ProcId) -> tuple[int, ProcId]:
    """(lane, worker): the inverse of `_apart`."""
    return id_.pid >> 32, ProcId(id_.pid & 0xFFFFFFFF, id_.start_ticks)


def _row(kind: Anomaly, blocks: int, outcomes: Sequence[Sequence[float | None]], alarms: Sequence[int]) -> AnomalyRow:
    own = sorted(delays[0] for delays in outcomes if delays[0] is not None)
    base = sorted(delays[1] for delays in outcomes if delays[1] is not None)
    return AnomalyRow(
        kind=kind,
        blocks=blocks,
        injected=len(outcomes),
        found=len(own),
        delay=float(np.median(own)) if own else None,
        baseline_found=len(base),
        baseline_delay=float(np.median(base)) if base else None,
        false_alarms=alarms[0],
        baseline_false_alarms=alarms[1],
    )
