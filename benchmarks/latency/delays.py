"""Is it right who delays whom? Real services, real culprits, decoys that use much CPU elsewhere; and what the shares cost.

    python -m benchmarks.latency.delays [--rounds N] [--seconds S] [--kind KIND] [--json FILE]

Each round plays every kind of scene once, with numbers of its own. A scene is a service on CPU 0 or on all of them, the culprit
that runs where it waits, and decoys: pinned to the last CPU, of the idle class, or in the service's own group. The observer of the
daemon watches it. The culprit is right if it has more of the service's delay than any other group of the scene has. Under a quota,
and beside its own threads, the service has no culprit: what other groups are blamed for must stay below a tenth of its wait, also
one that runs on the service's CPU while the quota stops the service. For comparison, the group of the scene that used most CPU is
blamed.

It can run beside other work, because groups outside of the scene are left out. Where nobody may be blamed they count, so the
service has a large weight there. Needs root, cgroup v1 or v2 with a cpu controller, and nine minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Class, HostSample, Identity, Snapshot
from nicety.scheduler.config.sections import parse
from nicety.scheduler.decision import Abilities, Delay, encode
from nicety.scheduler.hands.knobs.cgroup import Cgroups, find
from nicety.scheduler.observe.delays import Delays
from nicety.scheduler.observe.measure import Measured, Measurer
from nicety.scheduler.observe.observer import Observer
from nicety.scheduler.observe.occupancy import busy_between, occupancy
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.read.process import see
from nicety.scheduler.testing.ticks import a_group, a_tick

from ..claims import Claims

INTERVAL = 1.0
RIGHT = 0.9
"""Share of the scenes in which the main culprit must be right (issue)."""

BLAMED = 0.1
"""Most share of the wait for which others may be blamed where nobody delays the service (issue)."""

PROCESSES, MOST_MS = 500, 3.0
"""The claim on the cost: 0.3 % of a CPU at 1 Hz (issue)."""

MOST_BYTES = 300
"""The claim on the log (chosen): a tenth of the 3.1 kB a tick that its budget of 256 MiB has for a day at 1 Hz."""

GROUPS = ("service", "culprit", "decoy", "second")
CONFIG = f"[daemon]\ninterval = {INTERVAL}\n[models]\nbehaviour = false\n" + "".join(
    f"[groups.{name}]\nprogram = '*{name}.py'\n" for name in GROUPS
)

PROGRAM = r"""
import ctypes, hashlib, json, os, random, signal, sys, threading, time
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
it = json.loads(sys.argv[1])
if it["idle"]:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
block = bytes(1 << 17)  # hashing one releases the interpreter's lock
def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        hashlib.sha256(block)
def work(seed):
    chance = random.Random(seed)
    while True:
        if it["duty"] >= 1:
            burn(1)
            continue
        burst = it["burst"]
        burn(burst)
        time.sleep(chance.expovariate(1 / (burst * (1 / it["duty"] - 1))))
def swarm():
    alive = 0
    while True:
        while alive < it["threads"]:
            if os.fork() == 0:
                burn(it["burst"])
                os._exit(0)
            alive += 1
        os.wait()
        alive -= 1
if it["swarm"]:
    swarm()
for number in range(1, it["threads"]):
    threading.Thread(target=work, args=(number,), daemon=True).start()
work(0)
"""


@dataclass(frozen=True, slots=True)
class Actor:
    """Equal processes of one group."""

    name: str
    duty: float = 1.0  # share of the time for which each thread wants a CPU
    burst: float = 0.005  # seconds of CPU at a time; of a swarm: that each child lives for
    count: int = 1  # processes
    threads: int = 1
    cpu: int | None = None  # None: all
    idle: bool = False  # SCHED_IDLE
    swarm: bool = False  # children that come and go; `threads` of them at a time
    home: str = ""  # cgroup below the scene's; "": none
    together: bool = False  # in the session of this command, not in one of its own


@dataclass(frozen=True, slots=True)
class Scene:
    """What happens at once. The service is the first actor."""

    kind: str
    actors: tuple[Actor, ...]
    blamed: bool = True  # the culprit is to be found; False: nobody is to be blamed
    quota: float = 0.0  # cores of the service's cgroup; 0: none


LAST = max(os.sched_getaffinity(0))


def scenes(chance: random.Random) -> Iterator[Scene]:
    """One scene of each kind, with numbers by chance."""

    def service(**more: object) -> Actor:
        values: dict[str, object] = {"duty": chance.uniform(0.2, 0.5), "burst": chance.uniform(0.002, 0.01), "cpu": 0}
        return Actor("service", **{**values, **more})  # type: ignore[arg-type]  # scenes give what it takes

    elsewhere = Actor("decoy", count=chance.randint(2, 3), cpu=LAST)
    hog = Actor("culprit", duty=chance.uniform(0.6, 1.0), burst=0.03, count=chance.randint(1, 2), cpu=0)
    yield Scene("decoy on another CPU", (service(), hog, elsewhere))
    yield Scene("second culprit", (service(), hog, Actor("second", duty=0.15, burst=0.005, cpu=0), elsewhere))
    some = Actor("culprit", duty=chance.uniform(0.2, 0.35), burst=0.02, cpu=0, together=True)
    lazy = Actor("decoy", count=2, cpu=0, idle=True, together=True)
    yield Scene("decoy of the idle class", (service(duty=0.25, together=True), some, lazy))
    fellow = Actor("service", count=2, cpu=LAST)
    yield Scene("decoy in the own group", (service(), hog, fellow))
    threads = Actor("culprit", threads=chance.randint(3, 6))
    yield Scene("threads everywhere", (service(cpu=None), threads, Actor("decoy", duty=0.1, count=2)))
    pinned = Actor("culprit", threads=chance.randint(2, 4), cpu=0)
    yield Scene("threads on a CPU", (service(), pinned, Actor("decoy", threads=4, cpu=LAST)))
    yield Scene("another cgroup", (service(home="web"), Actor("culprit", count=2, cpu=0, home="batch"), elsewhere))
    yield Scene("one session", (service(together=True), Actor("culprit", count=2, cpu=0, together=True), elsewhere))
    tiny = Actor("culprit", swarm=True, threads=chance.randint(2, 4), burst=chance.uniform(0.01, 0.05), cpu=0)
    yield Scene("swarm on a CPU", (service(), tiny, elsewhere))
    loose = Actor("culprit", swarm=True, threads=4, burst=chance.uniform(0.01, 0.05))
    yield Scene("swarm everywhere", (service(cpu=None), loose, Actor("decoy", duty=0.15, count=2)))
    yield Scene("nobody pinned", (service(cpu=None), Actor("culprit", count=5), Actor("decoy", duty=0.2, count=2)))
    stopped = service(duty=1.0, home="web", threads=chance.randint(1, 2))
    meanwhile = Actor("second", cpu=0)  # it runs while the service is stopped
    yield Scene("quota", (stopped, elsewhere, meanwhile), blamed=False, quota=chance.uniform(0.2, 0.4))
    itself = service(duty=chance.uniform(0.5, 1.0), home="web", threads=chance.randint(3, 5))
    yield Scene("own threads", (itself, elsewhere), blamed=False)


@contextmanager
def cgroups(scene: Scene, found: Cgroups) -> Iterator[dict[str, Path]]:
    """The directories of the scene's cgroups, by name."""
    mount = found.shares or found.weight
    names = sorted({actor.home for actor in scene.actors} - {""})
    if mount is None or not names:
        if names:
            raise SystemExit("this machine has no cpu hierarchy of cgroups")
        yield {}
        return
    top = Path(mount.point) / f"nicety-delays-{os.getpid()}"
    made = {name: top / name for name in names}
    for path in (top, *made.values()):
        path.mkdir()
    try:
        for path in made.values():
            if scene.quota and found.shares is not None:
                (path / "cpu.cfs_quota_us").write_text(str(round(scene.quota * 100_000)))
            elif scene.quota:
                (path / "cpu.max").write_text(f"{round(scene.quota * 100_000)} 100000")
        if not scene.blamed:  # what else runs on the machine must not delay it
            name, value = ("cpu.shares", "200000") if found.shares is not None else ("cpu.weight", "10000")
            (top / name).write_text(value)
            (made["web"] / name).write_text(value)
        yield made
    finally:
        deadline, left = time.monotonic() + 5, [top, *made.values()]
        while left and time.monotonic() < deadline:
            with suppress(OSError):
                left[-1].rmdir()
                left.pop()
        if left:
            raise SystemExit(f"{left[-1]} cannot be removed")


@contextmanager
def running(scene: Scene, homes: dict[str, Path], directory: Path) -> Iterator[None]:
    """The scene's processes."""
    started = list[subprocess.Popen[bytes]]()
    try:
        for actor in scene.actors:
            path = directory / f"{actor.name}.py"
            for _ in range(actor.count):
                line = [sys.executable, str(path), json.dumps(asdict(actor))]
                started.append(subprocess.Popen(line, start_new_session=not actor.together))
                if actor.cpu is not None:
                    os.sched_setaffinity(started[-1].pid, {actor.cpu})
                if actor.home:
                    (homes[actor.home] / "cgroup.procs").write_text(str(started[-1].pid))
        yield
    finally:
        for process in started:
            process.send_signal(signal.SIGKILL)
        for process in started:
            process.wait()


def watched(scene: Scene, seconds: float, source: ProcSource, directory: Path, found: Cgroups) -> tuple[Delay | None, str]:
    """(what the observer says at last of the service's delay; None: it does not wait, the other group that used most CPU)."""
    own = see(os.getpid())
    assert own is not None, "this process runs"
    abilities = Abilities(autogroup=Path("/proc/self/autogroup").exists(), cpu_cgroup="v1", may_renice=True)
    observer = Observer(parse(CONFIG), abilities, own.id, None, None, None)
    used = dict.fromkeys(GROUPS, 0.0)
    with cgroups(scene, found) as homes, running(scene, homes, directory):
        time.sleep(0.7)  # the interpreters start
        for _ in range(1 + round(seconds / INTERVAL)):
            tick = observer.tick(source.read(time.monotonic_ns(), time.time_ns(), ()), (), paused=False)
            used.update({group.name: used[group.name] + group.cpu for group in tick.groups if group.name in used})
            time.sleep(INTERVAL)
    busiest = max(GROUPS[1:], key=lambda name: used[name])
    return next((delay for delay in tick.delays if delay.group == "service"), None), busiest


def judged(scene: Scene, delay: Delay | None) -> tuple[bool, float]:
    """(whether it is right, share of the delay that others of the scene, or all others, are blamed for)."""
    if delay is None:
        return not scene.blamed, 0.0
    whole = max(delay.wait + delay.throttled, 1e-9)
    if not scene.blamed:
        blamed = sum(cores for _, cores in delay.by) + delay.others
        return blamed < BLAMED * whole, blamed / whole
    ours = [(name, cores) for name, cores in delay.by if name in GROUPS]
    return bool(ours) and ours[0][0] == "culprit", (ours[0][1] / whole if ours else 0.0)


# --- cost ---------------------------------------------------------------------------------------------------------------------


def crowd(seq: int, count: int, working: int) -> Snapshot:
    """A machine of two CPUs with so many processes, of which some work and wait, each with a program of its own."""
    table = np.zeros(count, dtype=SAMPLE)
    pids = np.arange(100, 100 + count)
    table["pid"], table["start_ticks"], table["session"], table["threads"] = pids, 1, pids, 1 + pids % 3
    table["cpu_ns"][:working] = seq * 2 * 10**9 / working
    table["wait_ns"][:working] = seq * 10**9 * (1 - 2 / working)
    table["last_cpu"], table["nice"], table["known"] = (pids + seq) % 2, np.where(pids % 7, 0, 5), 1
    identities = {ProcId(int(pid), 1): Identity(f"p{pid}", f"p{pid}", "/", "", 0) for pid in pids}
    return Snapshot(seq * 10**9, 0, 1000 + seq * 100, table, identities, HostSample((seq * 10**9, seq * 10**9), 1, 1, None), ())


def cost(count: int, working: int, ticks: int = 60) -> float:
    """Median CPU ms of a tick for occupancy and delays."""
    measurer, delays, took = Measurer(parse(""), 1.0), Delays(autogroup=True), list[float]()
    before, shown = crowd(0, count, working), 0
    measurer.measure(before)
    for seq in range(1, ticks):
        now = crowd(seq, count, working)
        measured: Measured | None = measurer.measure(now)
        assert measured is not None, "there is no gap"
        begin = time.thread_time()
        ran = occupancy(now, measured.rates, list(measured.rows), busy_between(before, now), 0.05)
        shown = len(delays.step(before, now, measured, ran, 0.01))
        took.append(1e3 * (time.thread_time() - begin))
        before = now
    assert shown, "somebody waits"
    return statistics.median(took[5:])


def logged_bytes(waiting: int, ticks: int = 200) -> float:
    """Bytes that the delays of so many groups, each with three culprits and some others, add to a tick of the decision log."""
    chance, more = random.Random(3), list[int]()
    for seq in range(ticks):
        tick = a_tick(seq, groups=[a_group(f"program p{number}", Class.EXEMPT, cpu=chance.random()) for number in range(20)])
        delays = tuple(
            Delay(
                f"program p{number}",
                round(chance.random(), 3),
                tuple((f"program p{chance.randrange(20)}", round(chance.random(), 3)) for _ in range(3)),
                *(round(chance.random() / 10, 3) for _ in range(2)),
                *(0.0,) * 3,
            )
            for number in range(waiting)
        )
        sizes = [len(zlib.compress(encode(each))) for each in (tick, msgspec.structs.replace(tick, delays=delays))]
        more.append(sizes[1] - sizes[0])
    return statistics.mean(more)


def main() -> None:
    """Play the scenes and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times that each kind of scene is played (default: 5)")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a scene (default: 6)")
    parser.add_argument("--kind", help="only this kind of scene")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the claims and all figures to this file")
    arguments = parser.parse_args()
    claims, rows = Claims(), []
    for working in (20, 200):
        claims.at_most(f"ms of CPU a tick, {PROCESSES} processes, {working} of them wait", cost(PROCESSES, working), MOST_MS)
    claims.at_most("bytes that 4 groups that wait add to a tick of the log", logged_bytes(4), MOST_BYTES)
    chance, source = random.Random(arguments.seed), ProcSource()
    found = find(Path("/proc/self/mountinfo").read_text())
    with tempfile.TemporaryDirectory() as directory:
        for name in GROUPS:
            (Path(directory) / f"{name}.py").write_text(PROGRAM)
        for _ in range(arguments.rounds):
            for scene in scenes(chance):
                if arguments.kind not in (None, scene.kind):
                    continue
                delay, busiest = watched(scene, arguments.seconds, source, Path(directory), found)
                right, share = judged(scene, delay)
                rows.append({"kind": scene.kind, "right": right, "share": share, "busiest": busiest, "delay": shown(delay)})
                print(f"{scene.kind:<24} {'right' if right else 'WRONG'} {share:5.2f}  {delay}", flush=True)
    close(claims, rows, arguments.json)


def shown(delay: Delay | None) -> dict[str, object]:
    """A delay by the names of its fields."""
    return {} if delay is None else {name: getattr(delay, name) for name in delay.__struct_fields__}


def close(claims: Claims, rows: Sequence[dict[str, object]], path: Path | None) -> None:
    """The claims on the scenes, and the end."""
    free = ("quota", "own threads")
    culprits = [bool(row["right"]) for row in rows if row["kind"] not in free]
    if culprits:
        claims.at_least(f"main culprit right, share of {len(culprits)} scenes", statistics.mean(culprits), RIGHT)
        naive = statistics.mean(row["busiest"] == "culprit" for row in rows if row["kind"] not in free)
        claims.add("for comparison: the culprit used most CPU, share", naive, "", True)
    for kind in free:
        shares = [float(str(row["share"])) for row in rows if row["kind"] == kind]
        if shares:
            claims.at_most(f"{kind}: most that others are blamed for, share, {len(shares)} scenes", max(shares), BLAMED)
    claims.close(path, scenes=list(rows))


if __name__ == "__main__":
    main()
