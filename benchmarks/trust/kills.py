"""Kills of the daemon's actuator, of its sentries, and of any two of them, while values change all the time.

python -m benchmarks.trust.kills [--kills 500] [--seed 1] [--json FILE]

Needs root. A process of its own demotes and restores ten others as fast as it can, with a ledger and sentries. At a moment drawn by
chance, the drawn ones of the three die at once. If the actor is among them, all values must be back within two seconds, except one
that was set by hand before: that must stay. If only sentries die, there must be two again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from nicety.scheduler.testing.puppet import Puppet
from nicety.scheduler.testing.sentries import sentries_of

from ..claims import Claims

ACTOR = """
import sys, time
from pathlib import Path
from nicety.models.identity import ProcId
from nicety.scheduler.act.sentries import AGAIN_NS, Sentries
from nicety.scheduler.decision import Restore, Set
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.testing.bench import Bench
state, *victims = sys.argv[1:]
sentries, turn = Sentries(Path(state)), 0
places = [ProcessPlace(ProcId(*map(int, victim.split(":")))) for victim in victims]
with Bench(Path(state)) as bench:
    while True:
        turn += 1
        sentries.keep(turn * AGAIN_NS)
        if turn == 1:
            print("ready", flush=True)
        for place in places:
            bench.apply(Set(Control.NICE, place, 5 + turn % 10), Set(Control.AFFINITY, place, (0,)))
        bench.actuator.settle()
        if turn % 3 == 0:
            bench.apply(*(Restore(control, place) for place in places for control in (Control.NICE, Control.AFFINITY)))
"""

VICTIMS = 10
"""Processes whose values change (chosen)."""

LIMIT = 2.0
"""Seconds within which everything must be back."""

DEAD = (("actor",), ("first",), ("second",), ("actor", "first"), ("actor", "second"), ("first", "second"))
"""Who dies at once."""


class Stage:
    """Processes whose values are changed, and the one that changes them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.puppets = [Puppet() for _ in range(VICTIMS)]
        self.pids = [puppet.id.pid for puppet in self.puppets]
        self.before = self.values()

    def values(self) -> dict[int, tuple[int, frozenset[int]]]:
        """What the kernel has."""
        return {pid: (os.getpriority(os.PRIO_PROCESS, pid), frozenset(os.sched_getaffinity(pid))) for pid in self.pids}

    def start(self) -> tuple[subprocess.Popen[str], Path]:
        """An actor that has begun, and its state directory."""
        self.count += 1
        state = self.folder / f"state-{self.count}"
        names = [f"{puppet.id.pid}:{puppet.id.start_ticks}" for puppet in self.puppets]
        command = [sys.executable, "-c", ACTOR, str(state), *names]
        actor = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert actor.stdout is not None
        assert actor.stdout.readline() == "ready\n"
        return actor, state


def seconds_until(condition: Callable[[], bool], most: float) -> float | None:
    """How long it took; None: longer than `most`."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > most:
            return None
        time.sleep(0.002)
    return time.monotonic() - began


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    slowest, late, strange, changed, kinds = 0.0, 0, 0, 0, Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        for number in range(options.kills):
            dying = DEAD[number % len(DEAD)]
            actor, state = stage.start()
            first = [pid for pid in sentries_of(state) if _parent(pid) == actor.pid]
            second = [pid for pid in sentries_of(state) if pid not in first]
            time.sleep(chance.uniform(0.0, 0.15))  # the moment of death is the subject
            pids = {"actor": [actor.pid], "first": first, "second": second}
            victims = [pid for name in dying for pid in pids[name]]
            by_hand = chance.random() < 0.2 and "actor" in dying
            for order in (signal.SIGSTOP, signal.SIGKILL):
                for pid in victims:
                    os.kill(pid, order)
                if by_hand and order is signal.SIGSTOP:
                    os.setpriority(os.PRIO_PROCESS, stage.pids[0], 17)
            changed += stage.values() != stage.before
            if "actor" in dying:
                kinds["actor dies"] += 1
                wanted = stage.before | ({stage.pids[0]: (17, stage.before[stage.pids[0]][1])} if by_hand else {})
                took = seconds_until(lambda wanted=wanted: stage.values() == wanted, LIMIT)  # type: ignore[misc]
                late += took is None
                slowest = max(slowest, took or 0.0)
                if took is None:
                    print(f"kill {number}, {dying}: {stage.values()}", file=sys.stderr)
                strange += by_hand and os.getpriority(os.PRIO_PROCESS, stage.pids[0]) != 17
            else:
                kinds["actor lives"] += 1
                others = lambda state=state, victims=victims: len(set(sentries_of(state)) - set(victims)) == 2  # noqa: E731
                took = seconds_until(others, LIMIT)
                late += took is None
                actor.kill()
                strange += seconds_until(lambda: stage.values() == stage.before, LIMIT) is None
            actor.kill()
            actor.wait()
            seconds_until(lambda state=state: not sentries_of(state), LIMIT)  # type: ignore[misc]
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, stage.pids[0], stage.before[stage.pids[0]][0])
        for puppet in stage.puppets:
            puppet.close()
    claims = Claims()
    claims.add("kills", options.kills, ">= 500", options.kills >= 500)
    claims.add("of them with the actor", kinds["actor dies"], "", True)
    claims.add("kills at which something was changed", changed, "> 0", changed > 0)
    claims.at_most("not all back, or no two sentries again, within 2 s", late, 0)
    claims.at_most("slowest, s", slowest, LIMIT)
    claims.at_most("values set by hand that were overwritten, or left after a second death", strange, 0)
    claims.close(options.json)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


if __name__ == "__main__":
    main()
