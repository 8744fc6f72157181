"""Infers from a program's behaviour what its users care about: latency, or only that work gets done. Pure.

`BEHAVIOUR_CHANNELS` are measured of a group in one tick. `scheduler.observer.Measurer` measures them, live and in training.
`Summaries` turns the ticks so far into one row of `BEHAVIOUR_FEATURES` per group, live and in training. `BehaviourModel` turns a
row into probabilities. `Behaviours` decides, and keeps what it decided. Must not know what is done about a class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .records import LOADING_SECONDS, Behaviour, Class, Ruled, Spared

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Arrays = Mapping[str, NDArray[Any]]

BEHAVIOUR_CHANNELS: tuple[str, ...] = (
    "processes",  # in the group
    "threads",  # of all of them
    "young",  # processes among them that are younger than YOUNG_SECONDS
    "settled",  # processes among them that are older than SETTLED_SECONDS
    "cpu",  # cores used
    "brief",  # cores used by its children that came and went
    "wait",  # cores waited for in the run queue
    "demand",  # cores it would have used without contention, its brief children included
    "timeslices",  # times put on a CPU, per second; NaN: the kernel does not tell
    "chars",  # bytes read and written per second, cached ones too; NaN: not known
    "faults",  # page faults per second; NaN: not known
    "serves",  # processes with a listening TCP or receiving UDP socket; NaN: not visible for any of them
    "serves_locally",  # processes with a listening unix socket, likewise
    "served_for",  # processes of the same unit as a parent that serves so: workers of a server that closed the socket
    "terminal",  # processes in the foreground of a terminal; NaN: not known of any of them
    "keys",  # processes that are given each key typed in it, so they answer a person; NaN: not visible for any of them
    "has_window",  # processes connected to a display or sound server, likewise
    "pipe_fed",  # processes that get their standard input from their parent, through a pipe
    "pipe_server",  # those of them that were seen waiting for it
)
"""Channels measured of a group, summed over its processes."""

YOUNG_SECONDS = 3.0
"""A process this young may still be starting: its start-up is not its behaviour (chosen)."""

SETTLED_SECONDS = 30.0
"""A process this old has started: by then a Python or Java service has read its code and listens (chosen)."""

CLASSES: tuple[Class, ...] = (Class.INTERACTIVE, Class.BATCH, Class.EXEMPT)
"""Columns of the probabilities. NONE is a class here too: behaves like neither."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the rows that the model sees."""

    name: str  # for people, with its unit
    low: float  # values below count as this
    high: float  # values above count as this
    log: bool  # the row holds the decadic logarithm


_FEATURES = (
    Feature("burst_ms", 0.01, 1e3, True),  # CPU time per time it is put on a CPU
    Feature("runs_per_second", 0.1, 1e5, True),  # times put on a CPU
    Feature("busy_per_thread", 0.0, 1.0, False),  # cores wanted per thread: at 1 it never sleeps
    Feature("cores_wanted", 0.0, 1.0, False),  # by all together, up to one
    Feature("whole_cores", 0.0, 1.0, False),  # share of the time in which it wanted 1, 2, 3... cores: threads that never sleep
    Feature("wait_per_cpu", 1e-3, 1e2, True),  # run-queue wait divided by CPU time
    Feature("bytes_per_cpu_second", 1e1, 1e10, True),
    Feature("bytes_per_run", 1e0, 1e7, True),
    Feature("faults_per_cpu_second", 1e0, 1e6, True),
    Feature("threads", 1.0, 1e3, True),
    Feature("processes", 1.0, 1e3, True),
    Feature("listens", 0.0, 1.0, False),  # has a listening TCP or receiving UDP socket
    Feature("listens_locally", 0.0, 1.0, False),  # has a listening unix socket
    Feature("works_for_listener", 0.0, 1.0, False),  # share of its processes whose parent does, and is of the same unit
    Feature("in_terminal", 0.0, 1.0, False),
    Feature("reads_keystrokes", 0.0, 1.0, False),  # its terminal gives it each key as it is typed
    Feature("young", 0.0, 1.0, False),  # share of its processes that are young
    Feature("unsteadiness", 0.0, 2.0, False),  # standard deviation of its CPU use divided by the mean
    Feature(
        "irregularity", 0.0, 2.0, False
    ),  # the same for the times it is put on a CPU: a program that runs like a clock answers nobody
    Feature("seconds_seen", 0.0, 1e3, False),  # evidence: seconds of activity not squeezed by others, of the last MEMORY_SECONDS
)
BEHAVIOUR_FEATURES: tuple[str, ...] = tuple(feature.name for feature in _FEATURES)
"""Columns of the rows that the model sees. The last says how much evidence there is, not what the group is like."""

SEEN = len(BEHAVIOUR_FEATURES) - 1
"""Column that holds the amount of evidence."""

KNOTS = 5
"""Points in a feature's range. Between two of them its push is a straight line (chosen)."""

MEMORY_SECONDS = 15.0
"""Seconds of activity after which earlier ones count 1/e. A start-up of 3 s is soon outweighed; minutes of pause forget nothing
(chosen)."""

QUIET_CORES = 0.001
"""CPU use in cores below which a tick says nothing: a millisecond a second is housekeeping (chosen)."""

FULL_CORES = 0.01
"""CPU use in cores at which a tick counts half: a service that answers 50 times a second uses about that (chosen)."""

SQUEEZED = 0.5
"""Share of its demand that a group must have got for a tick to count fully: four hogs on two CPUs get that. Below it, other groups
caused its behaviour: beside hogs a service, too, is always runnable (chosen)."""

STARVED = 0.25
"""Share of what it ran and waited for. Below it, a tick of a group that used less than LITTLE_CORES says nothing (chosen: half of
SQUEEZED): how it waits shows what others do, and so little CPU shows next to nothing else. Not applied to a group with a sign that
it answers somebody, such as a socket: a sign does not rest on waiting, and a service that starts beside hogs must be known."""

WHOLE = 0.04
"""Largest distance from a whole number of cores at which demand counts as whole: the collector reads a group's processes within a
few ms of each other, and a hog is off the CPU for less than 1 % (chosen)."""

CHARS_TICKS = 10
"""Ticks after which bytes are known: processes outside pools are read every `daemon.slow_every` = 10 ticks."""

UNSTEADY_TICKS = 4
"""Ticks of activity from which a standard deviation means something (chosen)."""

START_FAULTS = 12_000.0
"""Page faults per second of CPU from which a tick looks like a start. ipykernel, dask, hypercorn, uvicorn and mpd took 34,000 to
56,000 while they read their code, and 14,000 to 62,000 at a load of 60 on 2 CPUs. A Python loop took 10,000 in its first tick;
compressors and a compiler mostly took below 13,000 after theirs (2026-12-01)."""

START_SECONDS = 10.0
"""Seconds of CPU time that a start may take (chosen: several times that of large Python and Java services). Not wall-clock seconds:
an overloaded machine takes longer."""

SWARM_SECONDS = 5.0
"""Seconds for which brief children must use LITTLE_CORES to make a group batch work (chosen: a command is over by then)."""

SWARM_KEPT_SECONDS = 10.0
"""Seconds for which they may then use less than half of it before it no longer is (chosen: a link step, a slow test)."""

LITTLE_CORES = 0.25
"""Mean CPU use, in cores, below which a group is not called batch: demoting it would win little, and a program that is asked now
and then looks like it. What it waited for does not count. Once called batch, it stays so down to half of that in demand, because a
demoted group uses less. Of the moments at which training programs look like batch work and are, 7 % are below (1 % at 0.1, 21 % at
0.5). Chosen between these."""

KEPT_SECONDS = 600.0
"""Seconds for which a group that is gone is remembered, so that the next round of a periodic job is known when it starts
(chosen)."""

KEPT_GROUPS = 1024
"""Most gone groups remembered. The longest gone are forgotten first, so a storm of short programs costs no memory (chosen)."""

LOOSEN = 0.3
"""A class, once held, is kept until its probability is this far below the required certainty. Chosen: less would let a class change
with every tick at the border."""

NEWS = 0.02
"""Change of a probability below which its report stays as it is: 1,000 new reports a tick would cost more than the model
(chosen)."""

EVIDENCE = 4
"""Most features named as evidence (chosen)."""

LEAST_PUSH = 0.05
"""Logits below which a push is no evidence (chosen)."""

_MOST = 1e3  # chosen: logits; a table with larger ones is no model
_LARGEST = 1e15  # chosen: of any channel; a larger value was no measurement
_COLUMN = {name: column for column, name in enumerate(BEHAVIOUR_CHANNELS)}
_SUMS = (  # over ticks, weighted by how much each tick says
    *("mass", "cpu", "square", "wait", "known", "timeslices", "jitter"),
    *("faulted", "faults", "threads", "processes", "young", "busy", "wanted", "whole", "used", "demand"),
)
_IO = ("bytes", "cpu", "timeslices")  # bytes come in lumps, so they are compared with what was used in the same time
_STATE = (
    "spent",  # seconds of CPU so far
    "started",  # of them: in ticks that looked like a start
    "starts",  # 1: it looks like a start now
    "settled",  # 1: it has a process older than SETTLED_SECONDS; 2: it had one, and now has none
    "swarms",  # seconds for which brief children used enough
    "brief",  # cores that they used in the last tick
)
_ANSWERS = ("serves", "serves_locally", "served_for", "keys", "has_window", "pipe_server")  # signs that somebody waits for it
_TRAITS = ("serves", "serves_locally", "served_for", "terminal", "keys", "has_window", "pipe_fed", "pipe_server")
"""What a group has, as last seen. Too few training programs have one of the last three for a model to learn from."""


class Summaries:
    """What each group did so far, as rows of `BEHAVIOUR_FEATURES`.

    Averages over ticks, weighted by how much a tick says: by the CPU time used, and less if others squeezed the group. What a group
    has (sockets, a terminal) is as last seen. Memory is bounded: gone groups are forgotten by `KEPT_SECONDS` and `KEPT_GROUPS`.
    """

    def __init__(self, interval: float = 1.0) -> None:
        if not 0 < interval < 1e6:
            raise ValueError(f"interval must be seconds above 0, not {interval}")
        self._interval = interval
        self._tick = 0
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self._sums = np.zeros((0, len(_SUMS)))
        self._io = np.zeros((0, len(_IO)))
        self._io_ticks = np.zeros(0)
        self._active = np.zeros(0)
        self._traits = np.zeros((0, len(_TRAITS)))
        self._state = np.zeros((len(_STATE), 0))
        self._last = np.zeros(0, dtype=np.int64)
        self.forgotten: list[int] = []
        """Slots released in the last step: anything kept about them elsewhere is void."""

    @property
    def capacity(self) -> int:
        """Number of slots; it never shrinks."""
        return len(self._sums)

    def step(self, groups: Sequence[str], values: Floats) -> tuple[Ints, NDArray[np.bool_]]:
        """Take in a tick. Returns (slot of each group, whether the tick said anything about it). Groups may come in any order."""
        values = np.asarray(values, dtype=np.float64)
        if values.shape != (len(groups), len(BEHAVIOUR_CHANNELS)):
            raise ValueError(f"{values.shape} values where ({len(groups)}, {len(BEHAVIOUR_CHANNELS)}) belong")
        self._tick += 1
        self.forgotten = []
        slots = self._slots_of(groups)
        self._last[slots] = self._tick
        if self._tick % 16 == 0 or len(self._slots) > len(groups) + 2 * KEPT_GROUPS:
            self._forget()
        return slots, self._add(slots, values)

    def rows(self, slots: Ints) -> Floats:
        """[n, len(BEHAVIOUR_FEATURES)]; NaN where not known."""
        mass, cpu, square, wait, known, timeslices, jitter, faulted, faults, threads, processes, young, busy, wanted, whole, *_ = (
            self._sums[slots].T
        )
        spoken, io_cpu, io_slices = self._io[slots].T
        serves, serves_locally, served_for, terminal, keys, *_ = self._traits[slots].T
        told, often = self._io_ticks[slots] >= CHARS_TICKS, self._active[slots] >= UNSTEADY_TICKS
        counted = known > 0

        def where(known: NDArray[np.bool_], values: Floats) -> Floats:
            return np.asarray(np.where(known, values, np.nan))

        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # what is infinite is clipped
            columns = {
                "burst_ms": where(counted, known / timeslices * 1e3),
                "runs_per_second": where(counted, timeslices / mass),
                "busy_per_thread": busy / mass,
                "cores_wanted": wanted / mass,
                "whole_cores": whole / mass,
                "wait_per_cpu": where(counted, wait / cpu),
                "bytes_per_cpu_second": where(told, spoken / io_cpu),
                "bytes_per_run": where(told, spoken / io_slices),
                "faults_per_cpu_second": where(faulted > 0, faults / faulted),
                "threads": threads / mass,
                "processes": processes / mass,
                "listens": serves,
                "listens_locally": serves_locally,
                "works_for_listener": served_for,
                "in_terminal": terminal,
                "reads_keystrokes": keys,
                "young": young / mass,
                "unsteadiness": where(often, np.sqrt(np.maximum(square * mass / cpu**2 - 1.0, 0.0))),
                "irregularity": where(often & (timeslices > 0), np.sqrt(np.maximum(jitter * mass / timeslices**2 - 1.0, 0.0))),
                "seconds_seen": mass,
            }
        rows = np.stack([columns[name] for name in BEHAVIOUR_FEATURES], axis=1)
        rows[mass <= 0, :SEEN] = np.nan
        return _clipped(rows)

    def spared(self, slots: Ints, held: NDArray[np.bool_]) -> Ints:
        """[n] Why each must not be called batch, whatever it looks like: index into `SPARED`, the first that holds; 0: it may be.

        `held` [n]: it is already called batch.
        """
        columns = [_SUMS.index(name) for name in ("mass", "processes", "used", "demand")]
        mass, processes, used, demand = self._sums[slots][:, columns].T
        serves, _, served_for, terminal, keys, has_window, pipe_fed, pipe_server = self._traits[
            slots
        ].T  # NaN, not known, is no sign of anybody
        spent, _, starts, _, swarms, _ = self._state[:, slots]
        loads = self._active[slots] * self._interval < LOADING_SECONDS
        why = {
            Spared.READS_KEYSTROKES: keys > 0,
            Spared.HAS_WINDOW: has_window > 0,
            Spared.SERVER: served_for > 0,
            Spared.PIPE_SERVER: pipe_server > 0,
            Spared.UNSEEN: np.isnan(serves),
            Spared.YOUNG: (starts > 0) & (spent < START_SECONDS) & (swarms < SWARM_SECONDS) & ~held,
            Spared.LOADING: loads & ((terminal > 0) & (processes < 1.5 * mass) | (pipe_fed > 0)),
            Spared.LITTLE: np.where(held, demand < LITTLE_CORES / 2 * mass, used < LITTLE_CORES * mass),
        }
        return np.select(list(why.values()), [SPARED.index(reason) for reason in why], 0)

    def swarms(self, slots: Ints) -> Floats:
        """[n] Cores that brief children of each group use; 0 if they have not used enough for long enough to be a swarm."""
        swarms, brief = self._state[-2:, slots]
        return np.asarray(np.where(swarms >= SWARM_SECONDS, np.maximum(brief, np.finfo(np.float64).tiny), 0.0))

    def renewed(self, slots: Ints) -> NDArray[np.bool_]:
        """[n] Whether all processes of each group came lately and took the place of others."""
        return np.asarray(self._state[_STATE.index("settled"), slots] == 2)

    def _add(self, slots: Ints, values: Floats) -> NDArray[np.bool_]:
        values = np.clip(values, 0.0, _LARGEST)
        channels = {name: values[:, column] for name, column in _COLUMN.items()}
        there = channels["processes"] > 0
        cpu, wait = channels["cpu"], channels["wait"]
        used, both = cpu + channels["brief"], cpu + wait
        threads = np.maximum(channels["threads"], 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            got = np.where(both > 0, cpu / both, 0.0)
        weight = self._interval * cpu / (cpu + FULL_CORES) * np.minimum(1.0, got / SQUEEZED)
        answers = np.logical_or.reduce([channels[name] > 0 for name in _ANSWERS])
        tells = (got >= STARVED) | (used >= LITTLE_CORES) | answers
        weight = np.where(there & (cpu >= QUIET_CORES) & tells, weight, 0.0)
        told = weight > 0
        nearest = np.rint(both)
        timeslices, chars, faults = channels["timeslices"], channels["chars"], channels["faults"]
        counted, spoken, faulted = ~np.isnan(timeslices), ~np.isnan(chars), ~np.isnan(faults)
        timeslices = np.where(counted, timeslices, 0.0)
        tick = np.stack(
            [
                np.ones(len(slots)),
                cpu,
                cpu * cpu,
                wait,
                np.where(counted, cpu, 0.0),
                timeslices,
                timeslices * timeslices,
                np.where(faulted, cpu, 0.0),
                np.where(faulted, faults, 0.0),
                threads,
                channels["processes"],
                channels["young"] / np.maximum(channels["processes"], 1.0),
                np.minimum(both / threads, 1.0),
                np.minimum(both, 1.0),
                ((nearest >= 1) & (np.abs(both - nearest) <= WHOLE * nearest)).astype(np.float64),
                np.minimum(used, 1.0),
                np.minimum(channels["demand"], 1.0),
            ],
            axis=1,
        )
        fade = np.exp(-weight / MEMORY_SECONDS)[:, None]
        self._sums[slots] = self._sums[slots] * fade + np.where(told[:, None], weight[:, None] * tick, 0.0)
        self._follow(slots, channels, told)
        io = np.stack([np.where(spoken, chars, 0.0), cpu, timeslices], axis=1) * self._interval
        self._io[slots] = self._io[slots] * fade + np.where((there & spoken)[:, None], io, 0.0)
        self._io_ticks[slots] += there & spoken
        self._active[slots] += told
        had = self._traits[slots]
        share = channels["served_for"] / np.maximum(channels["processes"], 1.0)
        has = {name: channels[name] > 0 for name in _TRAITS if name != "served_for"}
        seen = np.stack([share if name == "served_for" else has[name] for name in _TRAITS], axis=1)
        unseen = np.isnan(values[:, [_COLUMN[name] for name in _TRAITS]]) | ~there[:, None]
        self._traits[slots] = np.where(unseen, had, seen)
        return np.asarray(told)

    def _follow(self, slots: Ints, channels: Mapping[str, Floats], told: NDArray[np.bool_]) -> None:
        """Update what is not averaged.

        Page faults show a start: in this tick, or in most of the CPU time used so far while all processes are young.
        """
        spent, started, starts, settled, swarms, _ = self._state[:, slots]
        there, cpu, brief = channels["processes"] > 0, channels["cpu"], channels["brief"]
        faulting = channels["faults"] >= START_FAULTS * cpu
        spent = spent + cpu * self._interval
        started = started + np.where(faulting, cpu, 0.0) * self._interval
        new = (channels["young"] >= channels["processes"]) & (started > spent / 2)
        enough = brief >= np.where(swarms >= SWARM_SECONDS, LITTLE_CORES / 2, LITTLE_CORES)
        swarms = np.clip(swarms + np.where(enough, self._interval, -self._interval), 0.0, SWARM_SECONDS + SWARM_KEPT_SECONDS)
        now = np.where(channels["settled"] > 0, 1.0, np.where(settled > 0, 2.0, 0.0))
        changed = (spent, started, np.where(told, faulting | new, starts), np.where(there, now, settled), swarms, brief)
        for row, values in zip(self._state, changed, strict=True):
            row[slots] = values

    def _slots_of(self, groups: Sequence[str]) -> Ints:
        known = self._slots
        slots = [known.get(name, -1) for name in groups]
        if -1 in slots:
            for place, slot in enumerate(slots):
                if slot < 0:
                    slots[place] = self._new(groups[place])
        return np.array(slots, dtype=np.int64)

    def _new(self, group: str) -> int:
        if not self._free:
            size, more = self.capacity, max(64, self.capacity)
            self._sums = np.vstack([self._sums, np.zeros((more, len(_SUMS)))])
            self._io = np.vstack([self._io, np.zeros((more, len(_IO)))])
            self._io_ticks = np.append(self._io_ticks, np.zeros(more))
            self._active = np.append(self._active, np.zeros(more))
            self._traits = np.vstack([self._traits, np.full((more, len(_TRAITS)), np.nan)])
            self._state = np.hstack([self._state, np.zeros((len(_STATE), more))])
            self._last = np.append(self._last, np.zeros(more, dtype=np.int64))
            self._free = list(range(size + more - 1, size - 1, -1))
        slot = self._free.pop()
        self._slots[group] = slot
        return slot

    def _forget(self) -> None:
        """Release groups that are gone for too long, and if too many are gone the longest gone."""
        gone = sorted((int(self._last[slot]), name, slot) for name, slot in self._slots.items() if self._last[slot] < self._tick)
        oldest = self._tick - KEPT_SECONDS / self._interval
        for place, (last, name, slot) in enumerate(gone):
            if last >= oldest and place >= len(gone) - KEPT_GROUPS:
                break
            self._give_up(name)
            self.forgotten.append(slot)

    def forget(self, groups: Iterable[str]) -> list[int]:
        """Forget the past of these groups; unknown ones are skipped. Returns their slots: data kept for them elsewhere is void."""
        return [self._give_up(name) for name in groups if name in self._slots]

    def _give_up(self, group: str) -> int:
        slot = self._slots.pop(group)
        self._sums[slot] = self._io[slot] = self._io_ticks[slot] = self._active[slot] = 0.0
        self._traits[slot] = np.nan
        self._state[:, slot] = 0.0
        self._free.append(slot)
        return slot


class BehaviourModel:
    """An additive model: each feature pushes towards each class by a piecewise linear function of its value; softmax of the sum.

    With little evidence the pushes count less, by seen / (seen + `halfway`). An unknown feature does not push.
    """

    def __init__(self, knots: Floats, pushes: Floats, start: Floats, halfway: float, digest: str) -> None:
        """`knots` [F, K], rising; `pushes` [F, K, 3] at the knots and `start` [3], in logits. `halfway` in seconds."""
        self._knots = knots
        self._start = start
        self._halfway = halfway
        self.digest = digest
        slopes = np.diff(pushes, axis=1) / np.diff(knots, axis=1)[:, :, None]
        bends = np.concatenate([pushes[:, :1], slopes[:, :1], np.diff(slopes, axis=1)], axis=1)
        self._bends = bends[:, :, :, None]  # of each line: level at the start, first slope, change of slope at each knot

    @classmethod
    def from_arrays(cls, arrays: Arrays, digest: str) -> BehaviourModel:
        """The model in an artefact's arrays. Raises ValueError if they are no model. Arrays called `program_*` are ignored."""
        shapes = {"knots": (SEEN, KNOTS), "pushes": (SEEN, KNOTS * len(CLASSES)), "start": (len(CLASSES),), "halfway": (1,)}
        wrong = sorted(name for name in arrays if name not in shapes and not name.startswith("program_"))
        if wrong:
            raise ValueError(f"array {wrong[0]!r} does not belong there")
        for name, shape in shapes.items():
            array = arrays.get(name)
            if array is None or array.shape != shape or array.dtype != np.float64:
                raise ValueError(f"there must be an array {name} of {shape} <f8")
            if not (np.abs(array) <= (1e12 if name == "knots" else _MOST)).all():
                raise ValueError(f"{name} has values that are not finite or absurd")
        if not (np.diff(arrays["knots"], axis=1) > 0).all():
            raise ValueError("knots do not rise")
        halfway = float(arrays["halfway"][0])
        if not halfway > 0:
            raise ValueError(f"halfway is {halfway:g} s, which must be above 0")
        return cls(arrays["knots"], arrays["pushes"].reshape(SEEN, KNOTS, len(CLASSES)), arrays["start"], halfway, digest)

    @property
    def name(self) -> str:
        """For people and the log, e.g. "behaviour 3f9a1c2d"."""
        return f"behaviour {self.digest[:8]}".rstrip()

    def probabilities(self, rows: Floats) -> Floats:
        """[n, 3] for rows [n, len(BEHAVIOUR_FEATURES)], in the order of `CLASSES`. Each result depends on its own row only."""
        columns = np.ascontiguousarray(rows[:, :SEEN].T)
        total = np.zeros((len(CLASSES), len(rows)))
        # One feature after the other: the result of numpy's sum over an axis depends on the number of rows, and small arrays stay
        # in the cache.
        for values, knots, bends in zip(columns, self._knots.tolist(), self._bends, strict=True):
            known = ~np.isnan(values)
            values = np.minimum(np.where(known, values, knots[0]), knots[-1])
            total += bends[0] * known
            for knot, bend in zip(knots[:-1], bends[1:], strict=True):
                total += bend * np.maximum(values - knot, 0.0)
        return softmax(self._start + (total * self._trust(rows)).T)

    def evidence(self, row: Floats, towards: Class | None = None) -> tuple[tuple[str, float, float], ...]:
        """(feature, its value for people, its push towards that class against the others, in logits), strongest first.

        `towards`: by default the likeliest class.
        """
        at = int(self.probabilities(row[None])[0].argmax()) if towards is None else CLASSES.index(towards)
        push = self._push(row)
        toward = push[:, at] - (push.sum(axis=1) - push[:, at]) / (len(CLASSES) - 1)
        strongest = sorted((-abs(logits), column) for column, logits in enumerate(toward.tolist()) if abs(logits) >= LEAST_PUSH)
        return tuple(
            (BEHAVIOUR_FEATURES[column], _for_people(column, float(row[column])), round(float(toward[column]), 2))
            for _, column in strongest[:EVIDENCE]
        )

    def _push(self, row: Floats) -> Floats:
        """[F, 3] in logits: linear between the knots, constant beyond them; 0 where the feature is not known."""
        known, knots = ~np.isnan(row[:SEEN, None]), self._knots
        values = np.minimum(np.where(known, row[:SEEN, None], knots[:, :1]), knots[:, -1:])
        parts = np.concatenate([known, np.maximum(values - knots[:, :-1], 0.0)], axis=1)
        return np.asarray((parts[:, :, None] * self._bends[:, :, :, 0]).sum(axis=1) * self._trust(row[None]))

    def _trust(self, rows: Floats) -> Floats:
        seen = np.nan_to_num(rows[:, SEEN])
        return np.asarray(seen / (seen + self._halfway))


class Behaviours:
    """Remembers what each group did, and reports its class. The same ticks give the same answers in any order of groups."""

    def __init__(self, model: BehaviourModel | None, certainty: float, interval: float = 1.0) -> None:
        """`certainty`: probability from which a class is believed. `interval`: seconds per tick. No model: no class is reported."""
        if not 0.5 < certainty < 1:
            raise ValueError(f"certainty {certainty} is not between 0.5 and 1")
        self._model = model
        self._certainty = certainty
        self._summaries = Summaries(interval)
        self._held = np.zeros(0, dtype=np.int64)  # by slot, like the rest
        self._reported: list[Behaviour | None] = []
        self._words = np.zeros((0, 5))  # probabilities, class, why it is spared and by which rule, as in `_reported`

    def step(self, groups: Sequence[str], values: Floats) -> list[Behaviour | None]:
        """The class of each group after this tick; None: it has done nothing yet.

        Call once per tick with all groups that exist. `values` [n, len(BEHAVIOUR_CHANNELS)] as measured.
        """
        model = self._model
        if model is None:
            return [None] * len(groups)
        slots, told = self._summaries.step(groups, values)
        self._fit_to(self._summaries)
        fresh = slots[told]
        if len(fresh):
            rows = self._summaries.rows(fresh)
            chances = model.probabilities(rows)
            before = self._held[fresh]
            held = decide(chances, before, self._certainty)
            brief = self._summaries.swarms(fresh)
            swarm = (brief > 0) & (held != _INTERACTIVE) & (chances[:, _BATCH] < self._certainty)
            held = np.where(swarm, _BATCH, held)
            spared, batch = np.zeros(len(fresh), dtype=np.int64), np.flatnonzero(held == _BATCH)
            spared[batch] = self._summaries.spared(fresh[batch], before[batch] == _BATCH)
            held[spared > 0] = _NONE
            succeeds = (before == _INTERACTIVE) & (held != _INTERACTIVE) & self._summaries.renewed(fresh)
            held[succeeds], spared[succeeds] = _INTERACTIVE, 0
            ruled = succeeds * RULED.index(Ruled.SUCCEEDS) + (swarm & (held == _BATCH)) * RULED.index(Ruled.SWARM)
            self._held[fresh] = held
            words = np.column_stack([chances[:, :2], held, spared, ruled])
            news = (np.abs(words - self._words[fresh]) > NEWS).any(axis=1)
            self._words[fresh[news]] = words[news]
            told_of = zip(fresh[news].tolist(), rows[news], words[news].tolist(), brief[news].tolist(), strict=True)
            for slot, row, (p_interactive, p_batch, at, why, rule), cores in told_of:
                class_, by = CLASSES[int(at)], RULED[int(rule)]
                evidence = () if class_ is Class.EXEMPT or by is Ruled.SUCCEEDS else model.evidence(row, class_)
                evidence = (("brief_cores", float(f"{cores:.3g}"), 0.0),) if by is Ruled.SWARM else evidence
                chances_told = round(p_interactive, 4), round(p_batch, 4)
                self._reported[slot] = Behaviour(class_, *chances_told, evidence, model.name, SPARED[int(why)], by)
        said = self._reported
        return [said[slot] for slot in slots.tolist()]

    def follow(self, before: Behaviours, forgotten: Iterable[str]) -> None:
        """Continue from another one of the same interval, except for the `forgotten` groups; that one must not be used any more.
        Classes are kept if it had the same model and certainty. Otherwise they are decided again from what each group did."""
        self._summaries = before._summaries
        same = self._model is not None and before._model is not None and self._model.digest == before._model.digest
        if same and self._certainty == before._certainty:
            self._held, self._reported, self._words = before._held, before._reported, before._words
        else:
            self._fit_to(self._summaries)
        for slot in self._summaries.forget(forgotten):
            self._drop(slot)

    def _fit_to(self, summaries: Summaries) -> None:
        more = summaries.capacity - len(self._held)
        if more > 0:
            self._held = np.append(self._held, np.full(more, _NONE, dtype=np.int64))
            self._words = np.vstack([self._words, np.full((more, 5), np.inf)])
            self._reported += [None] * more
        for slot in summaries.forgotten:
            self._drop(slot)

    def _drop(self, slot: int) -> None:
        self._held[slot], self._words[slot], self._reported[slot] = _NONE, np.inf, None


_INTERACTIVE, _BATCH, _NONE = 0, 1, 2

RULED: tuple[Ruled | None, ...] = (None, *Ruled)
"""Rules, as noted with a class."""

SPARED: tuple[Spared | None, ...] = (None, *Spared)
"""Reasons, as indexed by `Summaries.spared`."""


def decide(chances: Floats, held: Ints, certainty: float) -> Ints:
    """The class of each group as an index into `CLASSES`, from the probabilities and the class held before.

    Demotion costs a service more than being left alone costs batch work. So to be called batch, the probability that a group is
    interactive must also be at most half of what `certainty` leaves.
    """
    rows = np.arange(len(chances))
    class_ = chances[:, _INTERACTIVE] >= certainty
    batch = (chances[:, _BATCH] >= certainty) & (chances[:, _INTERACTIVE] <= (1.0 - certainty) / 2)
    kept = chances[rows, held] >= certainty - LOOSEN
    stays = np.where((held != _NONE) & kept, held, _NONE)
    return np.asarray(np.where(class_, _INTERACTIVE, np.where(batch, _BATCH, stays)))


def softmax(logits: Floats) -> Floats:
    """Probabilities of rows of logits."""
    risen = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(risen / (risen[:, :1] + risen[:, 1:2] + risen[:, 2:3]))


def _clipped(rows: Floats) -> Floats:
    """Rows within the range of each feature, on its scale."""
    low = np.array([feature.low for feature in _FEATURES])
    high = np.array([feature.high for feature in _FEATURES])
    log = np.array([feature.log for feature in _FEATURES])
    rows = np.clip(rows, low, high)
    rows[:, log] = np.log10(rows[:, log])
    return rows


def _for_people(column: int, value: float) -> float:
    """A value of a row without its logarithm, to three digits."""
    return float(f"{10.0**value if _FEATURES[column].log else value:.3g}")
