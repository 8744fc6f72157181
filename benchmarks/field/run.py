"""Real programs side by side, with nothing configured: latency and batch work under nicety, without it, and with controls by hand.

    python -m benchmarks.field.run --prepare
    python -m benchmarks.field.run [--scene NAME ...] [--pairs 8] [--seconds 8] [--have] [--json FILE]
    python -m benchmarks.field.run --list

`--prepare` installs the Python programs into a directory of the benchmark (`--home`). The others are Debian's packages
redis-server, nginx-light, nodejs, postgresql, ffmpeg, xz-utils, make and gcc; their services need not run. Needs root, for
cgroups, namespaces and renicing.

Each scene (`scenes.py`) starts its programs, and sends load to its services at a fixed rate; a latency counts from the planned
time. Then windows of some seconds take turns: *nothing*, *nicety* twice, *nothing*, *hand*, and again.

    nothing   no control
    nicety    `nicety run --act` with nothing configured and the scene's own state directory. It is started ten seconds before its
              first window, to learn the programs, and stopped after its second.
    hand      the best of a few controls that a person would pick; each is tried once at the beginning

A pair is a window of nicety, or of the control, and the window of nothing next to it. A scene ends early when its intervals are
narrow enough.

Each aim of `figures.py` becomes a claim, which holds or falls short. A scene whose programs are missing is a claim that falls
short; with `--have` it is left out, with a message. Demotions are read from nicety's decision log, and twice a second from the
kernel.

The benchmark touches only what it starts, but nicety acts on the whole machine: run nothing else on it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from nicety.scheduler.hands.safe_files import StoreError
from nicety.scheduler.service.answers.control_socket import ControlError, NoDaemonError, ask

from ..claims import Claims
from ..latency.beside_batch import awake
from ..latency.contention import cpu_seconds
from . import figures, log, programs
from .figures import Condition, Record, Window
from .scenes import SCENES, Hand, Scene
from .stage import SceneError, Stage

LEAD, WARM, SETTLE = 3.0, 10.0, 1.5
"""Seconds: of load before the first window, of nicety before its first window, and at the start of each window that do not count.
Chosen: long enough to learn the programs, short enough for many windows."""

TRIAL = 6.0
"""Seconds for which each control by hand is tried, but not longer than a window. Chosen."""

START = 12.0
"""Seconds that a scene takes to start and end, for the estimate that is printed. A rough guess."""

ANSWER = 20.0
"""Seconds to wait for an answer of the daemon's socket before the scene is given up. Chosen."""

UNANSWERED = 60.0
"""Latency in seconds of a request that was never answered, so that quantiles stay finite. Chosen, above any that was answered."""


@dataclass(frozen=True)
class Mark:
    """A window that is over."""

    condition: Condition
    pair: int
    opens: float  # monotonic seconds
    closes: float
    work: float | None  # cores that the batch used; None: the scene has no batch
    own: float | None  # cores that the daemon used; None: no daemon ran
    answer: float | None  # seconds until its socket answered; None: no daemon ran


def measure(stage: Stage, condition: Condition, pair: int, seconds: float, daemon: int | None = None) -> Mark:
    """Measure a window that begins after `SETTLE`. Raises SceneError if a program has ended."""
    time.sleep(SETTLE)
    began, opens = stage.work(), time.monotonic()
    spent = None if daemon is None else cpu_seconds(daemon)
    time.sleep(seconds)
    ended, closes = stage.work(), time.monotonic()
    own = None if daemon is None or spent is None else (cpu_seconds(daemon) - spent) / (closes - opens)
    stage.check()
    work = None if began is None or ended is None else (ended - began) / (closes - opens)
    return Mark(condition, pair, opens, closes, work, own, None if daemon is None else answer(stage.state))


def answer(state: Path) -> float:
    """Seconds until the daemon's socket answers. Raises SceneError if it does not."""
    began = time.monotonic()
    try:
        ask(state / "control.sock", "status", ANSWER)
    except (NoDaemonError, ControlError) as error:
        raise SceneError(f"the daemon's socket gave no answer: {error}") from error
    return time.monotonic() - began


def windows(marks: list[Mark], rows: np.ndarray) -> list[Window]:
    """Figures of each window, from the rows of the load. Raises SceneError if a window has no request."""
    planned, latency, late = rows.T
    up, stalls = awake(planned, late)
    found = []
    for mark in marks:
        within = (planned >= mark.opens) & (planned < mark.closes)
        counted = latency[within & up] if np.any(within & up) else latency[within]
        if not len(counted):
            raise SceneError(f"the load recorded no request in a window of {mark.condition}")
        p50, p99 = np.quantile(np.minimum(counted, UNANSWERED), (0.5, 0.99), method="higher")
        lost = int(np.isinf(latency[within]).sum())
        stood = int(np.sum((stalls >= mark.opens) & (stalls < mark.closes)))
        seen = (float(p50), float(p99), len(counted), lost, stood)
        found.append(Window(mark.condition, mark.pair, *seen, mark.work, mark.own, mark.answer))
    return found


@contextlib.contextmanager
def set_by_hand(stage: Stage, hand: Hand | None, condition: Condition) -> Iterator[None]:
    """Keep the control set within the block, if there is one and the condition is `hand`."""
    if hand is None or condition is not Condition.HAND:
        yield
        return
    stage.set_by_hand(hand)
    try:
        yield
    finally:
        stage.take_back(hand)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM within the block."""
    before = {which: signal.signal(which, signal.SIG_IGN) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


@contextlib.contextmanager
def acting(stage: Stage) -> Iterator[int]:
    """Run nicety within the block, entered once it has had `WARM` seconds to learn the programs; its pid."""
    with stage.nicety() as daemon:
        time.sleep(WARM)
        yield daemon


def try_hands(stage: Stage, seconds: float) -> tuple[Hand | None, dict[str, tuple[float, float | None]]]:
    """(the best control by hand, or None; p99 in seconds and batch cores under each control)."""
    hands = {str(hand): hand for hand in stage.scene.hands}
    if not hands:
        return None, {}
    marks = [measure(stage, Condition.NOTHING, 0, seconds)]
    for number, hand in enumerate(hands.values(), 1):
        with set_by_hand(stage, hand, Condition.HAND):
            marks.append(measure(stage, Condition.HAND, number, seconds))
    time.sleep(SETTLE)  # for requests that are not answered yet
    nothing, *each = windows(marks, stage.latencies())
    tried = {name: (window.p99, window.work) for name, window in zip(hands, each, strict=True)}
    return hands[figures.best(tried, nothing.work)], tried


def in_turn(stage: Stage, hand: Hand | None, pairs: int, seconds: float) -> tuple[list[Mark], float]:
    """Measure the windows of all conditions in turn: (windows, seconds that nicety ran)."""
    marks, acted = list[Mark](), 0.0
    for condition, turns in groupby(figures.plan(pairs), lambda turn: turn[0]):
        since = time.monotonic()
        with acting(stage) if condition is Condition.NICETY else set_by_hand(stage, hand, condition) as daemon:
            marks += [measure(stage, condition, pair, seconds, daemon) for _, pair in turns]
        if condition is Condition.NICETY:
            acted += time.monotonic() - since
        if condition is Condition.HAND and figures.enough(windows(marks, stage.latencies())):
            break
    return marks, acted


def run(scene: Scene, home: Path, pairs: int, seconds: float) -> Record:
    """Run one scene from its start to its end."""
    with tempfile.TemporaryDirectory(prefix="nicety-field-") as place:
        folder = Path(place)
        folder.chmod(0o755)  # programs that run as other users read there
        stage = Stage(scene, folder, home)
        try:
            stage.open()
            time.sleep(LEAD)
            hand, tried = try_hands(stage, min(seconds, TRIAL))
            marks, acted = in_turn(stage, hand, pairs, seconds)
            stage.end_load()
            found = windows(marks, stage.latencies())
            changes, relieved = log.read(stage.state, stage.roster, stage.roles)
            missed = log.missed(stage.state)
        except (SceneError, StoreError, OSError) as error:
            return Record(scene.name, trouble=str(error))
        finally:
            with uninterrupted():
                stage.close()
    return Record(
        scene.name,
        tuple(found),
        "" if hand is None else str(hand),
        tuple(changes),
        tuple(relieved),
        tuple(sorted(stage.roster.demoted)),
        scene.demotes,
        acted / 3600,
        missed,
        tried=tried,
    )


def show(record: Record) -> None:
    """Print a scene in a few lines."""
    if record.trouble:
        print(f"  {record.trouble}", flush=True)
        return
    for control, (tried, got) in record.tried.items():
        print(f"  tried {control}: p99 {tried * 1e3:.2f} ms" + ("" if got is None else f", batch {got:.3f} cores"))
    for condition in Condition:
        mine = [window for window in record.windows if window.condition is condition]
        p50, p99 = (np.exp(np.mean(np.log([getattr(window, name) for window in mine]))) * 1e3 for name in ("p50", "p99"))
        work = [window.work for window in mine if window.work is not None]
        batch = f", batch {np.mean(work):.3f} cores" if work else ""
        stood = f"{sum(window.stalls for window in mine)} stalls"
        print(f"  {condition:<8} p50 {p50:8.3f} ms, p99 {p99:8.3f} ms{batch}; {len(mine)} windows, {stood}", flush=True)
    met = Counter((", ".join(change.programs) or "processes outside of the scene", change.control) for change in record.changes)
    for (demoted, control), times in met.items():
        print(f"  demoted {demoted} by {control}: {times} times", flush=True)


def longest(scene: Scene, pairs: int, seconds: float) -> float:
    """Seconds that a scene takes if it does not end early."""
    turns, starts = figures.plan(pairs), (pairs + 1) // 2
    tries = (1 + len(scene.hands)) * (SETTLE + min(seconds, TRIAL)) if scene.hands else 0.0
    return START + LEAD + tries + len(turns) * (SETTLE + seconds) + starts * (WARM + 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [scene.name for scene in SCENES]
    parser.add_argument("--scene", nargs="+", choices=names, metavar="NAME", default=names, help="default: all; --list names them")
    parser.add_argument(
        "--pairs", type=int, default=8, help="most pairs of windows of a scene, which may end earlier (default %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a window (default %(default)g)")
    parser.add_argument("--json", type=Path, help="write the claims to this file")
    parser.add_argument("--list", action="store_true", help="list the scenes and stop")
    parser.add_argument("--have", action="store_true", help="leave out scenes whose programs are missing")
    parser.add_argument("--prepare", action="store_true", help="install the Python programs into --home and stop")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--home", type=Path, default=cache / "nicety-field", help="folder of --prepare (default %(default)s)")
    asked = parser.parse_args()
    if asked.list:
        for scene in SCENES:
            print(f"{scene.name:<16} {scene.title}")
        return
    if asked.prepare:
        programs.prepare(asked.home.resolve())
        return
    if asked.pairs < 1 or asked.seconds <= 0:
        parser.error("--pairs must be at least 1 and --seconds more than 0")
    if os.geteuid():
        parser.error("run this as root: it makes cgroups and a namespace, and nicety must renice")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is ended and restored after SIGTERM too
    campaign([scene for scene in SCENES if scene.name in asked.scene], asked)


def campaign(scenes: list[Scene], asked: argparse.Namespace) -> None:
    """Run the scenes; print and write the claims at the end, even if the run is interrupted."""
    home, claims, records = asked.home.resolve(), Claims(), list[Record]()
    minutes = sum(longest(scene, asked.pairs, asked.seconds) for scene in scenes) / 60
    print(f"{len(scenes)} scenes, at most {minutes:.0f} minutes", flush=True)
    try:
        for scene in scenes:
            print(f"\n{scene.name}: {scene.title}", flush=True)
            lacking = programs.missing(scene.needs, home)
            if lacking and asked.have:
                print(f"  left out: {lacking}", flush=True)
                continue
            record = Record(scene.name, trouble=lacking) if lacking else run(scene, home, asked.pairs, asked.seconds)
            show(record)
            figures.claim(claims, record)
            records.append(record)
    finally:
        if claims.rows:
            print(flush=True)
            claims.close(asked.json, scenes=[asdict(record) for record in records])


if __name__ == "__main__":
    main()
