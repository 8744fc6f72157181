"""What demoting a lock holder costs the waiter: its blocked time without demotion, with it, and with the watchdog.

    python -m benchmarks.latency.lock_holder [--rounds 5] [--record] [--json FILE]

A holder takes a lock and uses 50 ms (or 200 ms) of CPU in its critical section, with three hogs on the same CPU, while a waiter
wants the lock. The conditions are interleaved within each round. Locks: flock, fcntl, a process-shared pthread mutex,
multiprocessing.Lock. Demotions: nice 19 within one session, nice 19 of an autogroup among autogroups, cpu.shares 2 among cgroups.
Afterwards healthy pools run under the watchdog, and the cost of its look beside 100 processes is measured.

Needs root, and two minutes. `--record` adds a round of each demotion without the watchdog, which takes two more minutes: at
cpu.shares 2 the waiter waits for 80 s and longer.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from nicety.models.identity import ProcId
from nicety.models.records import Class
from nicety.scheduler.act.actuate import Acting
from nicety.scheduler.decision import Decision, Group, Member, Outcome, Set, Why
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.knobs.cgroup import find
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.hands.ledger import Ledger
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, DecisionPlace, ProcessPlace, SessionPlace
from nicety.scheduler.read.locks import LinuxLocks
from nicety.scheduler.testing.contention import KINDS, Scene, last_cpu
from nicety.scheduler.testing.hands import hands_with
from nicety.scheduler.testing.puppet import proc_id

from ..claims import Claims

WHY = Why("benchmark", "demoted to measure the waiter", {}, (), ())
LAYOUT = {Control.NICE: "apart", Control.AUTOGROUP: "sessions", Control.CPU_SHARES: "apart"}
DEMOTED = {Control.NICE: 19, Control.AUTOGROUP: 19, Control.CPU_SHARES: 2}
FREE = 0.1
"""Most share of the CPUs that other programs may use on a machine that counts as free. Chosen: on a busy machine a demoted pool
really starves."""

SLEEPERS = """
import multiprocessing, os, signal, sys
lock = multiprocessing.get_context("fork").Lock()
lock.acquire()
pids = []
for number in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        if sys.argv[2] != "shared":
            os.execv("/bin/sleep", ["sleep", "600"])
        lock.acquire() if number % 2 else signal.pause()
        os._exit(0)
    pids.append(pid)
print(*pids, flush=True)
sys.stdin.read()
for pid in pids:
    os.kill(pid, signal.SIGKILL)
"""


class Bench:
    """An actuator with its own ledger."""

    def __init__(self, folder: str) -> None:
        self.kernel = LinuxKernel()
        self.ledger = Ledger(Path(folder) / "ledger.log", self.kernel.boot_id())
        hands = hands_with(self.ledger, self.kernel, SystemClock())
        self.actuator = Acting(hands, self.kernel, LinuxLocks(), {}, {}, SystemClock())
        self.count = 0

    def demote(self, control: Control, process: ProcId, value: int) -> None:
        """Carry the demotion out; it must succeed."""
        self.count += 1
        action = Set(control, place(control, member(process)), value)
        (outcome,) = self.actuator.apply([Decision(f"b-0.{self.count}", "priority", "batch", action, WHY)])
        if outcome.status is not Status.APPLIED:
            raise SystemExit(f"the demotion did not happen: {outcome.detail}")

    def turn(self) -> tuple[Outcome, ...]:
        """End a tick; the reliefs since the last one."""
        relieved = tuple(outcome for outcome in self.actuator.settle() if outcome.status is Status.RELIEVED)
        self.actuator.apply(())
        return relieved

    def close(self) -> None:
        """Restore everything."""
        self.actuator.undo()
        self.ledger.close()


@contextmanager
def bench() -> Iterator[Bench]:
    """A Bench in a temporary directory."""
    with tempfile.TemporaryDirectory() as folder, closing(Bench(folder)) as made:
        yield made


def member(process: ProcId) -> Member:
    """The process as a member of a tick's group."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    lines = [line.split(":", 2) for line in Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()]
    cgroup = next((path for _, controllers, path in lines if "cpu" in controllers.split(",")), lines[-1][2])
    return Member(process, int(fields[3]), cgroup, int(fields[16]), owner=0)


def place(control: Control, member: Member) -> DecisionPlace:
    """The place that a decision names to change this control of a process."""
    if control is Control.CPU_SHARES:
        return CgroupPlace(member.cgroup)
    return SessionPlace(member.session, member.id) if control is Control.AUTOGROUP else ProcessPlace(member.id)


def groups(batch: Sequence[ProcId], others: Sequence[ProcId]) -> tuple[Group, ...]:
    """A tick's groups: one of batch, one of the others."""
    return tuple(
        Group(name, latency, len(ids), 0.0, 0.0, 0.0, 0, tuple(map(member, ids)))
        for name, latency, ids in (("batch", Class.BATCH, batch), ("web", Class.INTERACTIVE, others))
    )


@contextmanager
def cgroups(scene: Scene, control: Control) -> Iterator[None]:
    """Put the holder and each hog into its own cgroup within the block, if a control of cgroups is measured."""
    if control is not Control.CPU_SHARES:
        yield
        return
    mount = find(Path("/proc/self/mountinfo").read_text()).shares
    if mount is None:
        raise SystemExit("this machine has no cgroup v1 cpu hierarchy")
    top = Path(mount.point) / f"nicety-bench-{os.getpid()}"
    made = [top, *(top / f"g{number}" for number in range(len(scene.hogs) + 1))]
    for path in made:
        path.mkdir()
    try:
        for path, process in zip(made[1:], (scene.holder, *scene.hogs), strict=True):
            (path / "tasks").write_text(f"{process.pid}\n")
        yield
    finally:
        scene.close()
        deadline = time.monotonic() + 5
        while made:
            with suppress(OSError):
                made[-1].rmdir()
                made.pop()
            if time.monotonic() > deadline:
                raise SystemExit(f"{made[-1]} cannot be removed")


def blocked(bench: Bench, scene: Scene, control: Control, section: float, condition: str) -> tuple[float, int]:
    """(seconds that the waiter was blocked, reliefs) in one round."""
    scene.hold()
    seen = groups([scene.holder], [scene.waiter])
    if condition != "undemoted":
        bench.demote(control, scene.holder, DEMOTED[control])
    watching = condition == "watched"

    def meanwhile() -> float | None:
        return bench.actuator.relieve(seen) if watching else None

    if watching:  # the wait may begin at any time between two looks
        pause = meanwhile() or 0.0
        time.sleep(random.uniform(0, pause))
    seconds = scene.wait(section, meanwhile)
    relieved = bench.turn()
    bench.actuator.undo()
    return seconds, len(relieved)


def compare(kind: str, control: Control, section: float, rounds: int, *, record: bool, hogs: int = 3) -> dict[str, float]:
    """Medians of the blocked time for one lock under one demotion. `record`: add a round without the watchdog."""
    with bench() as made, Scene(kind, last_cpu(), hogs, LAYOUT[control]) as scene, cgroups(scene, control):
        scene.start()
        times: dict[str, list[float]] = {"undemoted": [], "watched": []}
        reliefs = 0
        for number in range(rounds):
            for condition in sorted(times, reverse=bool(number % 2)):
                seconds, relieved = blocked(made, scene, control, section, condition)
                times[condition].append(seconds)
                reliefs += relieved
        result = {name: statistics.median(values) for name, values in times.items()}
        result["worst watched"] = max(times["watched"])
        # of the pairs, for whatever else the machine does is much the same within one
        result["ratio"] = statistics.median(b / a for a, b in zip(times["undemoted"], times["watched"], strict=True))
        result["reliefs"] = reliefs
        if record:
            result["demoted"] = blocked(made, scene, control, section, "demoted")[0]
        return result


def busy_share() -> float:
    """Share of the CPUs that other programs use, over half a second."""

    def ticks() -> tuple[int, int]:
        values = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
        return sum(values), values[3] + values[4]

    before = ticks()
    time.sleep(0.5)
    after = ticks()
    return 1 - (after[1] - before[1]) / max(1, after[0] - before[0])


def healthy(kind: str, *, alike: bool, hogs: int, seconds: float) -> dict[str, float]:
    """Reliefs within `seconds` of two healthy peers: sections of 1 ms, 4 ms of work between. `alike`: both are at nice 19, else
    one."""
    with bench() as made, Scene(kind, last_cpu() if hogs else None, hogs=hogs, layout="one", peer=True) as scene:
        scene.start()
        peers = (scene.holder, scene.waiter)
        first = scene.work(0.001, 0.004, seconds / 4, lambda: None)
        for process in peers if alike else peers[:1]:
            made.demote(Control.NICE, process, 19)
        seen = groups([scene.holder], [scene.waiter])
        then = scene.work(0.001, 0.004, seconds, lambda: made.actuator.relieve(seen))
        return {
            "reliefs": len(made.turn()),
            "longest wait before": first[1][1],
            "longest wait": then[1][1],
            "rounds before": first[0][0] / (seconds / 4),
            "rounds": then[0][0] / seconds,
        }


def cost(count: int, *, shared: bool) -> dict[str, float]:
    """ms of CPU of the watchdog's look beside `count` processes, one of them demoted. `shared`: half of them wait for one lock in
    memory that they all share; otherwise they have nothing in common."""
    command = [sys.executable, "-c", SLEEPERS, str(count), "shared" * shared]
    sleepers = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert sleepers.stdin is not None
    assert sleepers.stdout is not None
    try:
        ids = [proc_id(pid) for pid in map(int, sleepers.stdout.readline().split())]
        with bench() as made:
            made.demote(Control.NICE, ids[0], 19)
            seen = groups(ids[:1], ids[1:])
            spent = []
            for _ in range(200):
                start = time.thread_time()
                made.actuator.relieve(seen)
                spent.append((time.thread_time() - start) * 1e3)
            made.actuator.undo()
            start = time.thread_time()
            made.actuator.relieve(seen)
            last = (time.thread_time() - start) * 1e3
            start = time.thread_time()
            for _ in range(10):
                made.actuator.relieve(seen)
            idle = (time.thread_time() - start) / 10 * 1e3
    finally:
        sleepers.stdin.close()
        sleepers.wait()
        sleepers.stdout.close()
    return {
        "first": spent[0],
        "first second": statistics.mean(spent[1:25]),
        "then": statistics.median(spent[100:]),
        "worst": max(spent[1:]),
        "once, when nothing is demoted any more": last,
        "nothing demoted": idle,
    }


def main() -> None:
    """Measure everything and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each condition (default %(default)s)")
    parser.add_argument("--record", action="store_true", help="add a round of each demotion without the watchdog")
    parser.add_argument("--json", type=Path, help="write the claims and all figures to this file")
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("run this as root: restoring a nice value needs it")
    random.seed(1)
    claims, rows = Claims(), {}
    for control in LAYOUT:
        for kind in KINDS:
            record = options.record and kind == "flock"
            row = rows[f"{control} {kind} 50 ms"] = compare(kind, control, 0.05, options.rounds, record=record)
            print(f"{control} {kind} 50 ms: " + ", ".join(f"{name} {value:.3g}" for name, value in row.items()), flush=True)
            claims.at_most(f"blocked time demoted / undemoted: {control}, {kind}, 50 ms", row["ratio"], 2.0)
    for kind in ("fcntl", "semaphore"):
        row = rows[f"nice {kind} 200 ms"] = compare(kind, Control.NICE, 0.2, max(2, options.rounds // 2), record=False)
        claims.at_most(f"blocked time demoted / undemoted: nice, {kind}, 200 ms", row["ratio"], 2.0)
    row = rows["nice semaphore 50 ms, one hog"] = compare("semaphore", Control.NICE, 0.05, options.rounds, record=False, hogs=1)
    claims.at_most("blocked time demoted / undemoted: nice, semaphore, 50 ms, one hog", row["ratio"], 2.0)
    for kind in ("mutex", "semaphore"):
        for alike, hogs, name in ((True, 2, "all demoted, hogs beside"), (False, 0, "one demoted, CPUs free")):
            busy = busy_share()
            row = rows[f"{kind}, pool, {name}"] = healthy(kind, alike=alike, hogs=hogs, seconds=8.0)
            if busy > FREE:
                print(f"{kind}, {name}: no claim, because others used {busy:.0%} of the CPUs; {row['reliefs']:.0f} reliefs")
                continue
            claims.at_most(f"reliefs in 8 s, {kind}, healthy pool, {name}", row["reliefs"], 0)
        rows[f"{kind}, one demoted, hogs beside"] = healthy(kind, alike=False, hogs=2, seconds=8.0)
    looks = {name: cost(100, shared=shared) for name, shared in (("nothing in common", False), ("one lock shared by all", True))}
    claims.at_most("ms of CPU a look, 100 processes", looks["nothing in common"]["then"], 0.5)
    claims.at_most("ms of CPU a look, 100 processes that share a lock", looks["one lock shared by all"]["then"], 2.0)
    claims.at_most("ms of CPU a look, nothing demoted", looks["nothing in common"]["nothing demoted"], 0.1)
    claims.close(options.json, rows=rows, looks=looks)
    for name, row in rows.items():
        if "pool" in name or "hogs" in name:
            print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in row.items()))
    for name, look in looks.items():
        print(f"ms a look, {name}: " + ", ".join(f"{key} {value:.3g}" for key, value in look.items()))


if __name__ == "__main__":
    main()
