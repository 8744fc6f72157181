"""Latency of a service beside batch work: under nicety, under no control, under a rule daemon, and under the best control by hand.

    python -m benchmarks.latency.beside_batch [--rounds 6] [--seconds 12] [--json FILE] [--plot FILE]
    python -m benchmarks.latency.beside_batch --turns 30 [--pinned] [--json FILE]
    python -m benchmarks.latency.beside_batch --periodic [--json FILE]

The service is redis-server, under open-loop load at 20 % and 60 % of a CPU. A request takes about 0.2 ms of its CPU and comes at a
random time; its latency counts from the planned time. The batch work is four CPU hogs. Service and hogs share a session, or have
sessions of their own, or cgroups of their own. The conditions:

    alone      no hogs
    nothing    hogs, and no control
    rule       nice 19 on each hog: what ananicy and the like do
    hand       the best control by hand: the least weight for the hogs, and a slice of 0.1 ms for the service
    again      `hand` once more: how far two runs of one control differ on this machine
    weight     `hand` without the slice
    cold       nicety with an empty state directory and no configuration, started before the hogs
    pinned     nicety with the classes in its configuration

Without an option each condition runs in a scene of its own. The conditions of a round are interleaved and get the same arrivals;
alone, nothing, rule and weight, which have no claim, run in every third round. The service runs alone for some seconds, then the
hogs start. The window that is compared begins ten seconds later: by then nicety must have learned the programs. It ends before
nicety tries the service without its short slice, which it does after a minute, for five seconds; `weight` shows those seconds.

p99 and p99.9 are reported over all rounds, as the median of the rounds, and round by round beside the same round of `hand`, because
one disturbed round decides the first of these. Batch work follows the speed of the machine, which differs by 2 to 3 % from one
quarter of a minute to the next. So the CPU time of the batch is reported too.

`--turns` compares nicety, started cold, with `hand` in one scene: four seconds of each in turn. After every six such pairs alone,
rule and nothing run once. Scenes of their own run in different minutes, and their processes land on different CPUs. Turns differ
only in whether nicety runs (it is stopped by SIGSTOP) and in what is set by hand. With `--pinned` the configuration has the
classes.

`--periodic` has hogs that work for 8 s of every 30. nicety, with a demand model trained on earlier periods, takes turns with
`hand`, some bursts each. A fresh nicety that meets its first burst is measured too. What counts is the first 5 s of each burst.
One phase of 50 ms in which the CPUs run at half their speed, as virtual CPUs do, decides the p99 of 5 s. In such a burst a request
costs the service more CPU, so the figures are given with and without these bursts.

Needs root for nice and cgroups. Touches only processes that it starts.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nicety.scheduler.decision import Set
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.knobs.slices import Slices
from nicety.scheduler.hands.places import Control
from nicety.scheduler.store.decisions import DecisionReader

from ..claims import Claims
from .contention import (
    SEPARATIONS,
    Scene,
    calibrate,
    cpu_seconds,
    plain,
    scene,
    set_slice,
    set_weights,
    start_load,
    weigh_down,
    weights,
)

LOADS = (0.2, 0.6)
"""CPUs that the service uses: chosen, mostly idle and mostly busy."""

CONDITIONS = ("alone", "nothing", "rule", "hand", "again", "weight", "cold", "pinned")
BY_HAND, OURS = ("hand", "again", "weight"), ("cold", "pinned")
COMPARED, SELDOM = ("hand", "again", "cold", "pinned"), 3
"""Conditions that differ by a few percent run in every round, the others in every third: chosen, to save time."""

LEARN, PLAIN, SETTLE = 7.0, 2.0, 10.0
"""Seconds of load before the hogs start, with nicety (which must classify the service) and without it; and seconds from the start
of the hogs to the window that is compared, the same for all. Chosen."""

ASKED = (
    ("p99", "p99", 1.25),
    ("p999", "p99.9", 1.25),
    ("p999_awake", "p99.9 outside of stalls", 1.25),
    ("batch", "batch work", 0.97),
    ("batch_at_speed", "batch work at one speed of the machine", 0.97),
    ("batch_cpus", "CPU time of the batch", 0.97),
)
"""(key, name, bound) of the figures with a claim. The bound is a ratio to the hand-picked control: the most for a latency, the
least for batch work (the aims of docs/latency.md). "At one speed" is batch work times the CPU seconds of a request, because what
slows the machine from outside slows both. Stalls: see `awake`."""

STALL, AFTER = 1e-3, 5e-3
"""The machine stood still where the load generator, real-time and pinned, sent later than `STALL` seconds. The queue of a stall
lasts for up to `AFTER` seconds more. Chosen."""

SPAN, SKIPPED = 4.0, 1.0
"""Seconds of a turn, and seconds at its beginning that do not count: the first tick of a daemon that was stopped has no rates.
Chosen: the shorter the turns, the more equal is the machine's speed in neighbouring ones."""

BETWEEN = 6
"""The other conditions run once after this many pairs of turns: chosen, to save time."""

TICK = 0.02
"""Seconds after the start of a tick in which the daemon counts as busy with it: some 10 ms of CPU, for which it competes.
Chosen."""

WORK, REST, FIRST, BEFORE = 8.0, 22.0, 5.0, 0.05
"""The periodic batch: seconds of work, seconds of rest, seconds of each burst that count, and how many seconds before a burst the
hogs must already be demoted. Chosen."""

SLOWED = 1.04
"""The CPUs were slowed in a burst if a request cost the service more than this times its CPU in the cheapest burst. Chosen."""

PINNED = """
[models]
behaviour = false
[groups.service]
program = "redis-server"
class = "interactive"
[groups.batch]
program = "python3 hog.py"
class = "batch"
"""


@dataclass(frozen=True)
class Run:
    """One condition, once."""

    latency: np.ndarray  # seconds, of the window
    awake: np.ndarray  # seconds, of the window without stalls
    stalls: int  # how often the machine stood still in the window
    early: np.ndarray  # seconds, between the start of the hogs and the window
    ticking: np.ndarray | None  # seconds, of requests of the window that came while the daemon may have been in a tick
    rounds: float  # batch work a second
    cpus: float  # CPUs that the batch got
    cost: float  # CPU seconds that a request cost the service: how slow the machine was
    protected: float | None  # seconds from the start of the hogs to the first change in the kernel; None: there was none
    ticks: int | None  # ticks of the daemon until then, including the one with the change
    own: float | None  # CPUs that the daemon used in the window; None: no daemon ran


@contextlib.contextmanager
def nicety(folder: Path, config: str) -> Iterator[Path]:
    """The daemon, acting; its state directory. Everything is put back at the end."""
    state = folder / "state"
    (folder / "nicety.toml").write_text(config)
    words = ["run", "--act", "--state-dir", str(state), "--config", str(folder / "nicety.toml")]
    with (folder / "nicety.log").open("ab") as log:
        daemon = subprocess.Popen([sys.executable, "-m", "nicety.scheduler", *words], stderr=log, start_new_session=True)
        deadline = time.monotonic() + 20
        while not (state / "control.sock").exists():
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the daemon did not come up:\n{(folder / 'nicety.log').read_text()}")
            time.sleep(0.05)
        try:
            yield state
        finally:
            daemon.send_signal(signal.SIGTERM)
            if daemon.wait(30):
                raise SystemExit(f"the daemon ended with {daemon.returncode}:\n{(folder / 'nicety.log').read_text()}")


class Watcher(threading.Thread):
    """Checks every few ms whether the hogs are demoted."""

    def __init__(self, made: Scene, pause: float = 0.005) -> None:
        super().__init__(daemon=True)
        self._made, self._done, self._pause = made, threading.Event(), pause
        self._plain = plain(made)
        self._changes = [(0.0, False)]  # when, and whether the hogs were demoted from then on

    def run(self) -> None:
        """Until `stop`."""
        while not self._done.wait(self._pause):
            with contextlib.suppress(OSError):
                lowered = weights(self._made) != self._plain
                if lowered is not self._changes[-1][1]:
                    self._changes.append((time.monotonic(), lowered))

    @property
    def changed(self) -> float | None:
        """When they were demoted first (monotonic seconds); None: never."""
        return next((at for at, lowered in self._changes if lowered), None)

    def was_lowered(self, at: float) -> bool:
        """Whether they were demoted at this moment (monotonic seconds)."""
        return [lowered for since, lowered in self._changes if since <= at][-1]

    def stop(self) -> None:
        """End it."""
        self._done.set()
        self.join()


def measure(separation: str, busy: float, condition: str, seconds: float, seed: int, turns: int, cost: float) -> Run:
    """One condition in a scene of its own."""
    lead = LEARN if condition in OURS else PLAIN
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(scene(separation))
        state = None
        if condition in OURS:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            state = stack.enter_context(nicety(folder, PINNED if condition == "pinned" else ""))
        load = start_load(made, busy / cost, lead + SETTLE + seconds, turns, seed)
        time.sleep(lead)
        watcher, start = None, time.monotonic()
        if condition != "alone":
            start = made.start_hogs()
            if condition == "rule":
                for pid in made.hogs:
                    os.setpriority(os.PRIO_PROCESS, pid, 19)
            if condition in BY_HAND:
                weigh_down(made)
            if condition in ("hand", "again"):
                set_slice(made.service, 1e-4)
            if state is not None:
                watcher = Watcher(made)
                watcher.start()
        opens, ends = start + SETTLE, start + SETTLE + seconds
        time.sleep(max(0.0, opens - time.monotonic()))
        if watcher is not None:
            watcher.stop()  # its checks take CPU
        before, had, at = made.rounds() if made.hogs else 0, sum(map(cpu_seconds, made.hogs)), time.monotonic()
        served = cpu_seconds(made.service)
        spent = 0.0 if state is None else cpu_seconds(daemon_of(state))
        time.sleep(max(0.0, ends - time.monotonic()))
        rounds = ((made.rounds() if made.hogs else 0) - before) / (time.monotonic() - at)
        cpus = (sum(map(cpu_seconds, made.hogs)) - had) / (time.monotonic() - at)
        own = None if state is None else (cpu_seconds(daemon_of(state)) - spent) / (time.monotonic() - at)
        served = cpu_seconds(made.service) - served
        if load.wait(60):
            raise SystemExit("the load generator failed")
        made_ticks = None if state is None else ticks_since(state, start)
        planned, latency, late = np.load(made.folder / "latency.npy")
    up, stalls = awake(planned, late)
    protected = None if watcher is None or watcher.changed is None else watcher.changed - start
    window, early = (planned >= opens) & (planned < ends), (planned >= start) & (planned < opens)
    ticks = ticking = None
    if made_ticks is not None:
        ticks = ticks_until_protected(made_ticks)
        near = np.any([(planned >= at) & (planned < at + TICK) for at, _ in made_ticks], axis=0)
        ticking = latency[window & near]
    stalled = int(np.sum((stalls >= opens) & (stalls < ends)))
    seen, undisturbed, each = latency[window], latency[window & up], served / np.sum(window)
    return Run(seen, undisturbed, stalled, latency[early], ticking, rounds, cpus, each, protected, ticks, own)


def awake(planned: np.ndarray, late: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(whether each request came outside of stalls, when each stall began in monotonic seconds).

    A single stall of a virtual machine decides the p99.9 of some seconds, whatever is compared.
    """
    slow = np.flatnonzero(late > STALL)
    up, began = np.ones(len(planned), dtype=bool), list[float]()
    end = -np.inf
    for start, until in sorted(zip(planned[slow], planned[slow] + late[slow], strict=True)):
        if start > end:
            began.append(float(start))
        end = max(end, until)
        up &= ~((planned >= start - STALL) & (planned < end + AFTER))
    return up, np.array(began)


def daemon_of(state: Path) -> int:
    """The pid of the daemon that uses this state directory, from its lock file."""
    return int((state / "lock").read_text().split()[0])


def ticks_since(state: Path, start: float) -> list[tuple[float, bool]]:
    """(when, in monotonic seconds; whether a demotion was applied) of each tick from `start` on, from the decision log."""
    made = []
    with DecisionReader(state / "decisions.db") as log:
        for session in log.sessions():
            for logged in log.ticks(session.id):
                if logged.tick is None or logged.verdict is None or logged.tick.at < start * 1e9:
                    continue
                done = {outcome.decision for outcome in logged.outcomes if outcome.status in (Status.APPLIED, Status.PARTIAL)}
                applied = any(
                    isinstance(decision.action, Set) and decision.action.control is not Control.SLICE and decision.id in done
                    for decision in logged.verdict.decisions
                )
                made.append((logged.tick.at / 1e9, applied))
    return made


def ticks_until_protected(made: list[tuple[float, bool]]) -> int | None:
    """Ticks until the first demotion, including the tick of it; None: there was none."""
    return next((count for count, (_, applied) in enumerate(made, 1) if applied), None)


def campaign(separations: list[str], loads: list[float], conditions: list[str], rounds: int, seconds: float) -> dict[str, object]:
    """Run every condition in every scene, interleaved; figures by scene and condition."""
    with scene("sessions") as made:
        turns, cost = calibrate(made, 2e-4)
    print(f"a request takes {cost * 1e6:.0f} µs of the service's CPU", flush=True)
    results: dict[str, object] = {}
    for separation in separations:
        for busy in loads:
            runs: dict[str, list[Run]] = {condition: [] for condition in conditions}
            for turn in range(rounds):
                now = [condition for condition in conditions if condition in COMPARED or turn % SELDOM == 0]
                for condition in now[turn % len(now) :] + now[: turn % len(now)]:
                    runs[condition].append(measure(separation, busy, condition, seconds, turn + 1, turns, cost))
            name = f"{separation} {busy:.0%}"
            results[name] = {condition: summary(those) for condition, those in runs.items()}
            show(name, results[name])
    return results


def summary(runs: list[Run]) -> dict[str, float | int | None]:
    """Figures of all rounds together, latencies in µs. A request that was never answered counts as lost."""
    pooled = np.concatenate([run.latency for run in runs])
    early = np.concatenate([run.early for run in runs])
    ticking = [run.ticking for run in runs if run.ticking is not None]
    p50, p99, p999 = (quantile_of(pooled, share) for share in (0.5, 0.99, 0.999))
    up = [run.awake for run in runs]
    waits = [run.protected for run in runs]
    ticks = [run.ticks for run in runs]
    known = any(tick is not None for tick in ticks) or any(wait is not None for wait in waits)
    p99_by_round, p999_by_round = ([quantile_of(run.latency, share) for run in runs] for share in (0.99, 0.999))
    return {
        "p50": p50,
        "p99": p99,
        "p999": p999,
        "p999_awake": quantile_of(np.concatenate(up), 0.999),
        "p999_awake_by_round": [quantile_of(each, 0.999) for each in up],  # type: ignore[dict-item]
        "stalls": sum(run.stalls for run in runs),
        "median_p99": float(np.median(p99_by_round)),
        "median_p999": float(np.median(p999_by_round)),
        "p99_by_round": p99_by_round,  # type: ignore[dict-item]
        "p999_by_round": p999_by_round,  # type: ignore[dict-item]
        "early_p99": quantile_of(early, 0.99),
        "batch": float(np.mean([run.rounds for run in runs])),
        "batch_by_round": [run.rounds for run in runs],  # type: ignore[dict-item]
        "batch_cpus": float(np.mean([run.cpus for run in runs])),
        "batch_cpus_by_round": [run.cpus for run in runs],  # type: ignore[dict-item]
        "batch_at_speed": float(np.mean([run.rounds * run.cost for run in runs])),
        "batch_at_speed_by_round": [run.rounds * run.cost for run in runs],  # type: ignore[dict-item]
        "lost": int(np.isinf(pooled).sum()),
        "ticking_p99": quantile_of(np.concatenate(ticking), 0.99) if ticking else None,
        "own": max((run.own for run in runs if run.own is not None), default=None),
        "requests": len(pooled),
        "protected_seconds": max((wait for wait in waits if wait is not None), default=None) if known else None,
        "protected_ticks": (max(tick for tick in ticks if tick is not None) if None not in ticks else -1) if known else None,
    }


def quantile_of(latencies: np.ndarray, share: float) -> float:
    """A quantile in µs, not interpolated: a latency that some request had."""
    return float(np.quantile(latencies, share, method="higher") * 1e6)


def show(name: str, rows: dict[str, dict[str, float]]) -> None:  # type: ignore[type-arg]
    """Print a table of one scene."""
    whole = max((row["batch"] for row in rows.values()), default=0.0) or 1.0
    latencies = f"{'p50 µs':>9} {'p99':>10} {'p99.9':>10} {'medians: p99':>13} {'p99.9':>10} {'before':>10}"
    heads = f"{latencies} {'batch':>6} {'CPUs':>6} {'lost':>5}"
    print(f"\n{name:<14} {heads}  protected after", flush=True)
    for condition, row in rows.items():
        after = ""
        if row["protected_seconds"] is not None:
            after = (
                f"{row['protected_seconds']:.2f} s, tick {row['protected_ticks']:.0f}; the daemon took {row['own']:.1%} of a CPU"
            )
        elif condition in OURS:
            after = "never"
        print(
            f"  {condition:<12} {row['p50']:>9.0f} {row['p99']:>10.0f} {row['p999']:>10.0f} "
            f"{row['median_p99']:>13.0f} {row['median_p999']:>10.0f} {row['early_p99']:>10.0f} "
            f"{row['batch'] / whole:>6.1%} {row['batch_cpus']:>6.3f} {row['lost']:>5.0f}  {after}",
            flush=True,
        )


def claim(claims: Claims, results: dict[str, dict[str, dict[str, float]]]) -> None:
    """Add the claims of each scene."""
    for name, rows in results.items():
        if "hand" in rows and "again" in rows:
            for key, word, _ in ASKED:
                ratio = rows["again"][key] / rows["hand"][key]
                claims.add(f"{name}: {word}, second run of the hand-picked control / first", ratio, "for comparison", True)
        for condition in OURS:
            if condition not in rows or "hand" not in rows:
                continue
            row, hand = rows[condition], rows["hand"]
            for key, word, bound in ASKED:
                hold(claims, key, f"{name}, {condition}: {word} / hand-picked control's", row[key] / hand[key], bound)
            for key, word in (("median_p99", "p99"), ("median_p999", "p99.9")):
                claims.at_most(
                    f"{name}, {condition}: median {word} of the rounds / hand-picked control's", row[key] / hand[key], 1.25
                )
            if condition in COMPARED and "again" in rows:
                for key, word, bound in ASKED:
                    ratio, error = beside(rows, condition, f"{key}_by_round")
                    said = f"{name}, {condition}: {word} / mean of the control's two runs, mean over rounds"
                    hold(claims, key, said, ratio, bound)
                    claims.add(f"{said}: standard error", error, "for comparison", True)
            for those, whose in ((condition, f"{condition}'s"), ("hand", "the control's")):
                said = f"{name}: stalls of the machine in {whose} windows"
                claims.add(said, rows[those]["stalls"], "for comparison", True)
            said = f"{name}, {condition}: p99 of requests that come during a tick / p99 of all"
            claims.add(said, row["ticking_p99"] / row["p99"], "for comparison", True)
            ticks = row["protected_ticks"]
            claims.add(f"{name}, {condition}: ticks until protected", ticks, "<= 2", ticks is not None and 0 < ticks <= 2)


def hold(claims: Claims, key: str, said: str, ratio: float, bound: float) -> None:
    """Add a claim about a figure of `ASKED`: at least `bound` for batch work, at most `bound` for a latency."""
    (claims.at_least if key.startswith("batch") else claims.at_most)(said, ratio, bound)


def beside(rows: dict[str, dict[str, float]], condition: str, key: str) -> tuple[float, float | None]:
    """(geometric mean over the rounds of a condition's figure by that of `hand` and `again`, its standard error).

    The three ran one after the other with the same arrivals: what slows the machine for a minute slows all of them.
    """
    ours, hand, again = (np.log(rows[name][key]) for name in (condition, "hand", "again"))
    return geometric(ours - (hand + again) / 2)


def geometric(logarithms: np.ndarray) -> tuple[float, float | None]:
    """(geometric mean of ratios, its standard error; None for a single ratio)."""
    mean, count = float(np.exp(np.mean(logarithms))), len(logarithms)
    return mean, None if count < 2 else mean * float(np.std(logarithms, ddof=1) / np.sqrt(count))


# --- in turn with the hand-picked control -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """Some seconds of one condition."""

    latency: np.ndarray  # seconds
    awake: np.ndarray  # seconds, without stalls
    work: float  # batch work a second
    cpus: float  # CPUs that the batch got
    cost: float  # CPU seconds that a request cost the service


def order(pairs: int) -> list[str]:
    """Conditions in turn: pairs of nicety and the hand-picked control, with the other conditions after every `BETWEEN` pairs.

    "nothing" leaves a queue of requests; "worked off" is the time for it, which does not count.
    """
    turns = []
    for pair in range(pairs):
        turns += ["hand", "cold"] if pair % 2 else ["cold", "hand"]
        if pair % BETWEEN == BETWEEN - 1:
            turns += ["alone", "rule", "nothing", "worked off"]
    return turns


def set_by_hand(made: Scene, condition: str) -> None:
    """Set what a person would set for a condition, while nicety is stopped."""
    if condition in ("hand", "worked off"):
        weigh_down(made)
    else:
        nice = 19 if condition == "rule" else 0
        set_weights(made, plain(made)._replace(nices=(nice,) * len(made.hogs)))
    set_slice(made.service, 1e-4 if condition in ("hand", "worked off") else 0)
    for pid in made.hogs:
        os.kill(pid, signal.SIGSTOP if condition == "alone" else signal.SIGCONT)


def in_turns(separation: str, busy: float, pairs: int, turns: int, cost: float, config: str) -> dict[str, object]:
    """Run `pairs` turns of nicety (with this configuration) and of the hand-picked control in one scene, and some of the others.

    Returns the figures of each condition, and the ratios of nicety to the control.
    """
    marks, changed_by_hand, slices, plan = list[tuple[str, float, float, float, float, float]](), 0, Slices(), order(pairs)
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(scene(separation))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        state = stack.enter_context(nicety(folder, config))
        load = start_load(made, busy / cost, LEARN + SETTLE + len(plan) * SPAN + 2, turns, 1)
        time.sleep(LEARN)
        start = made.start_hogs()
        time.sleep(SETTLE)
        daemon = daemon_of(state)
        stack.callback(os.kill, daemon, signal.SIGCONT)
        had = None  # what was set when nicety was stopped
        for condition in plan:
            began = time.monotonic()
            if condition == "cold":
                if had is not None:
                    set_weights(made, had[1])
                    set_slice(made.service, had[0] / 1e9)
                    had = None
                os.kill(daemon, signal.SIGCONT)
            else:
                os.kill(daemon, signal.SIGSTOP)
                now = slices.read(made.service), weights(made)
                set_by_hand(made, condition)
                if had is None:
                    had = now
                    changed_by_hand += condition == "hand" and (slices.read(made.service), weights(made)) != had
            time.sleep(SKIPPED)
            work, cpus, opens = made.rounds(), sum(map(cpu_seconds, made.hogs)), time.monotonic()
            served = cpu_seconds(made.service)
            time.sleep(max(0.0, began + SPAN - time.monotonic()))
            ends = time.monotonic()
            done, got = made.rounds() - work, sum(map(cpu_seconds, made.hogs)) - cpus
            served = cpu_seconds(made.service) - served
            marks.append((condition, opens, ends, done / (ends - opens), got / (ends - opens), served))
        if load.wait(60):
            raise SystemExit("the load generator failed")
        protected = ticks_until_protected(ticks_since(state, start))
        planned, latency, late = np.load(made.folder / "latency.npy")
    up, stalls = awake(planned, late)
    taken: dict[str, list[Turn]] = {
        condition: [] for condition in ("alone", "nothing", "rule", "hand", "cold") if condition in plan
    }
    stalled = dict.fromkeys(taken, 0)
    for condition, opens, ends, work, cpus, served in marks:
        if condition in taken:
            window = (planned >= opens) & (planned < ends)
            stalled[condition] += int(np.sum((stalls >= opens) & (stalls < ends)))
            taken[condition].append(Turn(latency[window], latency[window & up], work, cpus, served / np.sum(window)))
    hand, cold = taken["hand"], taken["cold"]
    figures = {
        "p50": lambda some: quantile_of(np.concatenate([turn.latency for turn in some]), 0.5),
        "p99": lambda some: quantile_of(np.concatenate([turn.latency for turn in some]), 0.99),
        "p999": lambda some: quantile_of(np.concatenate([turn.latency for turn in some]), 0.999),
        "p999_awake": lambda some: quantile_of(np.concatenate([turn.awake for turn in some]), 0.999),
        "batch": lambda some: float(np.mean([turn.work for turn in some])),
        "batch_at_speed": lambda some: float(np.mean([turn.work * turn.cost for turn in some])),
        "batch_cpus": lambda some: float(np.mean([turn.cpus for turn in some])),
    }
    rows = {name: {key: figure(some) for key, figure in figures.items()} for name, some in taken.items()}
    ratios = {key: jackknife(lambda a, b, key=key: figures[key](a) / figures[key](b), cold, hand) for key, _, _ in ASKED}  # type: ignore[misc]
    by_turn = {name: {key: [figure([turn]) for turn in some] for key, figure in figures.items()} for name, some in taken.items()}
    pairs_ratios = {key: geometric(np.log(by_turn["cold"][key]) - np.log(by_turn["hand"][key])) for key, _, _ in ASKED}
    requests = sum(len(turn.latency) for turn in cold)
    neighbours = pairs // 2 * 2  # whole twos of pairs, in which one turn of the control follows another
    itself = {
        key: geometric(np.log(by_turn["hand"][key][1:neighbours:2]) - np.log(by_turn["hand"][key][:neighbours:2]))
        for key, _, _ in ASKED
    }
    found = {"ratios": ratios, "pairs_ratios": pairs_ratios, "itself": itself, "by_turn": by_turn}
    return {"rows": rows, **found, "requests": requests, "stalls": stalled, "changed_by_hand": changed_by_hand, "ticks": protected}


def jackknife(ratio: Callable[[list[Turn], list[Turn]], float], ours: list[Turn], theirs: list[Turn]) -> tuple[float, float]:
    """(a ratio over all turns, its standard error). The error comes from the ratios that leave out one pair of turns each."""
    count = len(ours)
    without = [ratio(ours[:i] + ours[i + 1 :], theirs[:i] + theirs[i + 1 :]) for i in range(count)]
    return ratio(ours, theirs), float(np.sqrt((count - 1) / count * np.sum((without - np.mean(without)) ** 2)))


def claim_turns(claims: Claims, name: str, found: dict[str, Any]) -> None:
    """Add the claims of one scene with turns."""
    for key, word, bound in ASKED:
        for which, how in (("ratios", "all turns together"), ("pairs_ratios", "mean of the pairs' ratios")):
            value, error = found[which][key]
            said = f"{name}, in turns: {word} / hand-picked control's, {how}"
            hold(claims, key, said, value, bound)
            claims.add(f"{said}: standard error", error, "for comparison", True)
        value, error = found["itself"][key]
        said = f"{name}, in turns: {word}, one turn of the control / the turn before"
        claims.add(said, value, "for comparison", True)
        claims.add(f"{said}: standard error", error, "for comparison", True)
    for condition, whose in (("cold", "nicety's"), ("hand", "the control's")):
        said = f"{name}: stalls of the machine in {whose} turns"
        claims.add(said, found["stalls"][condition], "for comparison", True)
    ticks = found["ticks"]
    claims.add(f"{name}: ticks until protected", ticks, "<= 2", ticks is not None and ticks <= 2)
    said = f"{name}: turns of the control that changed something that nicety had set"
    claims.add(said, found["changed_by_hand"], "for comparison", True)


# --- a batch that comes every 30 s ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Burst:
    """The first `FIRST` seconds of a burst of batch work."""

    latency: np.ndarray  # seconds
    cost: float  # CPU seconds that a request cost the service


def periodic(separation: str, busy: float, teach: int, bursts: int, blocks: int) -> dict[str, dict[str, Any]]:
    """Figures of the first seconds of each burst, by condition.

    "nothing" and "reactive" run once, for `bursts` bursts. "forecast" runs `blocks` times, with "hand" before and after each.
    """
    with scene(separation) as made, tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        turns, cost = calibrate(made, 2e-4)
        rate = busy / cost
        made.start_hogs(WORK, REST)
        load = start_load(made, rate, (WORK + REST) * teach, turns, 1)
        with nicety(folder, "") as state:  # records while it works; there is no demand model yet
            load.wait()
        made.stop_hogs()
        train = [sys.executable, "-m", "nicety.training", "train", "--only", "demand", "--state-dir", str(state), "--no-idle"]
        trained = subprocess.run(train, capture_output=True, text=True, check=False)
        print(trained.stdout + trained.stderr, flush=True)
        taken, lowered = dict[str, list[list[Burst]]](), dict[str, int]()
        for condition in ("nothing", "reactive", "hand", *("forecast", "hand") * blocks):
            if condition == "reactive":
                block, before = [reacted(made, folder / str(burst), rate, turns, burst) for burst in range(bursts)], 0
            else:
                block, before = foreseen(made, folder, condition, rate, turns, bursts)
            taken.setdefault(condition, []).append(block)
            lowered[condition] = lowered.get(condition, 0) + before
            each = ", ".join(f"{p99_of([burst]):.0f} ({burst.cost * 1e6:.0f})" for burst in block)
            print(
                f"  {condition:<10} p99 of the first {FIRST:g} s of each burst (CPU of a request), µs: {each}; "
                f"bursts that found the hogs demoted: {before}",
                flush=True,
            )
    at_speed = SLOWED * min(burst.cost for blocks_of in taken.values() for block in blocks_of for burst in block)
    results: dict[str, dict[str, Any]] = {}
    for condition, in_blocks in taken.items():
        of_all = [burst for block in in_blocks for burst in block]
        swift = [burst for burst in of_all if burst.cost <= at_speed]
        first, by_burst = np.concatenate([burst.latency for burst in of_all]), [p99_of([burst]) for burst in of_all]
        row = results[condition] = {
            "p50": quantile_of(first, 0.5),
            "p99": quantile_of(first, 0.99),
            "p999": quantile_of(first, 0.999),
            "median_p99": float(np.median(by_burst)),
            "p99_at_speed": p99_of(swift) if swift else None,
            "p99_by_block": [p99_of(block) for block in in_blocks],
            "p99_by_burst": by_burst,
            "cost_by_burst": [burst.cost * 1e6 for burst in of_all],
            "requests": len(first),
            "bursts": len(of_all),
            "at_speed": len(swift),
            "lowered": lowered[condition],
        }
        shown = {key: f"{value:.5g}" for key, value in row.items() if value is not None and "_by_" not in key}
        print(f"  {condition:<10}", shown, flush=True)
    return results


def p99_of(bursts: list[Burst]) -> float:
    """p99 of all requests of some bursts, in µs."""
    return quantile_of(np.concatenate([burst.latency for burst in bursts]), 0.99)


def claim_periodic(claims: Claims, name: str, rows: dict[str, dict[str, Any]]) -> None:
    """Add the claims of a batch that comes regularly."""
    first, hand, forecast = f"p99 of the first {FIRST:g} s / hand-picked control's", rows["hand"], rows["forecast"]
    claims.at_most(f"{name}, forecast: {first}", forecast["p99"] / hand["p99"], 1.5)
    medians = forecast["median_p99"] / hand["median_p99"]
    claims.at_most(f"{name}, forecast: {first}, medians of the bursts", medians, 1.5)
    if forecast["at_speed"] and hand["at_speed"]:
        which = f"bursts at full speed ({forecast['at_speed']} / {hand['at_speed']})"
        claims.at_most(f"{name}, forecast: {first}, {which}", forecast["p99_at_speed"] / hand["p99_at_speed"], 1.5)
    share = forecast["lowered"] / forecast["bursts"]
    claims.at_least(f"{name}, forecast: share of bursts before which the batch was demoted", share, 0.8)
    claims.add(f"{name}, reactive: {first}", rows["reactive"]["p99"] / hand["p99"], "for comparison", True)
    between = max(hand["p99_by_block"]) / min(hand["p99_by_block"])
    claims.add(f"{name}: p99 of the control's highest block / its lowest", between, "for comparison", True)


def foreseen(made: Scene, folder: Path, condition: str, rate: float, turns: int, bursts: int) -> tuple[list[Burst], int]:
    """(each burst, how many of them found the hogs demoted). nicety has seen three bursts before the first that counts."""
    with contextlib.ExitStack() as stack:
        if condition == "forecast":
            stack.enter_context(nicety(folder, ""))
        began = made.start_hogs(WORK, REST)
        if condition == "hand":
            weigh_down(made)
            set_slice(made.service, 1e-4)
        seen = 3 if condition == "forecast" else 0
        load = start_load(made, rate, (WORK + REST) * (seen + bursts) + WORK, turns, 2)
        watcher = Watcher(made, 0.02)
        watcher.start()
        onsets = [found for found in onsets_of(made, load) if found[0] - began > (WORK + REST) * (seen + 0.5)][:bursts]
        watcher.stop()
        lowered = sum(watcher.was_lowered(at - BEFORE) for at, _ in onsets)
        planned, latency, _ = np.load(made.folder / "latency.npy")
        set_slice(made.service, 0)
        set_weights(made, plain(made))  # a cgroup keeps what `hand` gave it
        made.stop_hogs()
    return [burst_of(planned, latency, at, served) for at, served in onsets], lowered


def reacted(made: Scene, folder: Path, rate: float, turns: int, seed: int) -> Burst:
    """The first burst that a fresh nicety sees."""
    folder.mkdir()
    with nicety(folder, ""):
        load = start_load(made, rate, LEARN + FIRST, turns, seed + 1)
        time.sleep(LEARN)
        at, served = made.start_hogs(), cpu_seconds(made.service)
        time.sleep(max(0.0, at + FIRST - time.monotonic()))
        served = cpu_seconds(made.service) - served
        load.wait()
    made.stop_hogs()
    planned, latency, _ = np.load(made.folder / "latency.npy")
    return burst_of(planned, latency, at, served)


def burst_of(planned: np.ndarray, latency: np.ndarray, at: float, served: float) -> Burst:
    """The burst that began at `at`, from the load generator's figures and the CPU seconds that the service used in it."""
    first = latency[(planned >= at) & (planned < at + FIRST)]
    return Burst(first, served / len(first))


def onsets_of(made: Scene, load: subprocess.Popen[bytes]) -> list[tuple[float, float]]:
    """(when in monotonic seconds, CPU seconds of the service in the first `FIRST` seconds) of each start of the batch, as long as
    the load runs."""
    onsets, before, still, began = list[tuple[float, float]](), made.rounds(), 0, None
    while load.poll() is None:
        time.sleep(0.02)
        now = made.rounds()
        if began is not None and time.monotonic() >= began[0] + FIRST:
            onsets.append((began[0], cpu_seconds(made.service) - began[1]))
            began = None
        if now == before:
            still += 1
        else:
            if still >= 50:
                began = time.monotonic() - 0.02, cpu_seconds(made.service)
            still = 0
        before = now
    return onsets


def plot(path: Path, results: dict[str, dict[str, dict[str, float]]]) -> None:
    """p99 of every condition in every scene, on a logarithmic scale. Needs matplotlib: pip install '.[report]'."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(13, 7), sharey=True)
    for axis, (name, rows) in zip(axes.T.ravel(), results.items(), strict=False):
        names = list(rows)
        places = np.arange(len(names))
        colours = ["#2a7f62" if condition in OURS else "#9aa5b1" for condition in names]
        axis.bar(places, [min(rows[condition]["p99"], 1e7) / 1e3 for condition in names], color=colours)
        axis.plot(places, [min(rows[condition]["p999"], 1e7) / 1e3 for condition in names], "k_", markersize=12, label="p99.9")
        axis.set_yscale("log")
        axis.set_title(f"{name} of a CPU")
        axis.set_xticks(places, names, rotation=45, ha="right")
        axis.axhline(rows["hand"]["p99"] / 1e3, color="#c0392b", linewidth=0.8, linestyle="--")
    for axis in axes[:, 0]:
        axis.set_ylabel("latency, ms (bar p99, tick p99.9)")
    figure.suptitle("redis-server beside four CPU hogs; dashed: the best hand-picked control; green: nicety")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="rounds of all conditions (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=12, help="length of a window (default %(default)g)")
    parser.add_argument("--separations", default=",".join(SEPARATIONS), help="separated by commas (default %(default)s)")
    parser.add_argument("--loads", default=",".join(map(str, LOADS)), help="CPUs that the service uses (default %(default)s)")
    parser.add_argument("--conditions", default=",".join(CONDITIONS), help="separated by commas (default: all)")
    parser.add_argument(
        "--turns", type=int, default=0, metavar="PAIRS", help="instead, this many pairs of nicety and `hand` in one scene"
    )
    parser.add_argument("--pinned", action="store_true", help="with --turns: the configuration has the classes")
    parser.add_argument("--periodic", action="store_true", help="instead, a batch that comes every 30 s")
    parser.add_argument("--teach", type=int, default=10, help="periods that the demand model learns from (default %(default)s)")
    parser.add_argument("--bursts", type=int, default=4, help="bursts of a block of --periodic (default %(default)s)")
    parser.add_argument(
        "--blocks", type=int, default=3, help="blocks of --periodic with nicety; `hand` has two more (default %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="write the claims to this file")
    parser.add_argument("--plot", type=Path, help="write a plot of p99 and p99.9 to this file; needs matplotlib")
    asked = parser.parse_args()
    if asked.plot is not None and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install '.[report]'")
    if asked.periodic and min(asked.teach, asked.bursts, asked.blocks) < 1:
        parser.error("--teach, --bursts, --blocks: at least 1")
    if asked.pinned and not asked.turns:
        parser.error("--pinned needs --turns; without --turns give --conditions pinned")
    if asked.turns < 0 or asked.turns == 1:
        parser.error("--turns: give at least 2 pairs, because a standard error needs two")
    for option, words, known in (("separations", asked.separations, SEPARATIONS), ("conditions", asked.conditions, CONDITIONS)):
        unknown = [word for word in words.split(",") if word not in known]
        if unknown:
            parser.error(f"--{option}: {', '.join(unknown)} is not known; choose from {', '.join(known)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is ended and restored after SIGTERM too
    claims = Claims()
    separations, loads = asked.separations.split(","), [float(load) for load in asked.loads.split(",")]
    if asked.periodic:
        results = {}
        for separation in separations:
            for busy in loads:
                name = f"{separation} {busy:.0%}"
                print(f"\n{name}: every {WORK + REST:g} s", flush=True)
                rows = results[name] = periodic(separation, busy, asked.teach, asked.bursts, asked.blocks)
                claim_periodic(claims, name, rows)
        claims.close(asked.json, periodic=results)
        return
    if asked.turns:
        with scene("sessions") as made:
            turns, cost = calibrate(made, 2e-4)
        results = {}
        for separation in separations:
            for busy in loads:
                name = f"{separation} {busy:.0%}{', classes pinned' * asked.pinned}"
                found = results[name] = in_turns(separation, busy, asked.turns, turns, cost, PINNED * asked.pinned)
                claim_turns(claims, name, found)
                for which in ("ratios", "pairs_ratios", "itself"):
                    shown = {key: f"{value:.3f} +- {error or 0:.3f}" for key, (value, error) in found[which].items()}  # type: ignore[attr-defined]
                    print(name, which, shown, flush=True)
                for condition, row in found["rows"].items():  # type: ignore[attr-defined]
                    print(f"  {condition:<8}", {key: f"{value:.4g}" for key, value in row.items()}, flush=True)
        claims.close(asked.json, turns=results)
        return
    results = campaign(separations, loads, asked.conditions.split(","), asked.rounds, asked.seconds)
    claim(claims, results)  # type: ignore[arg-type]
    claims.close(asked.json, scenes=results)
    if asked.plot is not None:
        plot(asked.plot, results)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
