"""Kills of brain, hands and sentries, one or two of them at once, while values change all the time.

python -m benchmarks.trust.kills [--kills 500] [--load 0] [--seed 1] [--json FILE]

Needs root. A brain demotes and restores ten others as fast as it can, by its hands, or as a daemon of an ordinary user does: in one
process, with sentries. At a moment drawn by chance, those who are to die do so at once. If values can be in force without the one
who answers for them, all must be back within two seconds, except one that was set by hand before: that must stay. If only sentries
die, there must be two again. `--kills` is for each kind of death; `--load` processes that never sleep run beside every second one.
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
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

from nicety.scheduler.hands.ledger import NAME, open_changes
from nicety.scheduler.interpreter import PYTHON
from nicety.scheduler.testing.puppet import Puppet
from nicety.scheduler.testing.sentries import hands_of, sentries_of

from ..claims import Claims

APART = """
import sys
from pathlib import Path
from nicety.models.identity import ProcId
from nicety.scheduler.act.hands_apart import start_hands
from nicety.scheduler.hands.looks import Order
from nicety.scheduler.hands.places import Control
state, *victims = sys.argv[1:]
hands, turn = start_hands(Path(state), None), 0
hands.open()
print("ready", flush=True)
while True:
    turn += 1
    hands.sweep()
    for victim in victims:
        values = (None, None) if turn % 3 == 0 else (5 + turn % 10, (0,))
        process = ProcId(*map(int, victim.split(":")))
        hands.change([Order("s-0.1", "t", *each) for each in zip((Control.NICE, Control.AFFINITY), [process] * 2, values)])
"""
"""A brain that has hands. If they die, it does."""

TOGETHER = """
import sys
from pathlib import Path
from nicety.models.identity import ProcId
from nicety.scheduler.act.sentries import sentries_of_this_process
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.decision import Restore, Set
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.testing.bench import Bench
state, *victims = sys.argv[1:]
sentries, turn = sentries_of_this_process(Path(state)), 0
places = [ProcessPlace(ProcId(*map(int, victim.split(":")))) for victim in victims]
with Bench(Path(state)) as bench:
    while True:
        turn += 1
        sentries.keep(SystemClock().monotonic())
        if turn == 1:
            print("ready", flush=True)
        for place in places:
            bench.apply(Set(Control.NICE, place, 5 + turn % 10), Set(Control.AFFINITY, place, (0,)))
        bench.actuator.settle()
        if turn % 3 == 0:
            bench.apply(*(Restore(control, place) for place in places for control in (Control.NICE, Control.AFFINITY)))
"""
"""A daemon in one process."""

SINGLE = {APART: ("brain", "hands", "first", "second"), TOGETHER: ("daemon", "first", "second")}
"""Who there is. First and second are the sentries."""

VICTIMS, STRANGERS = 10, 3
"""Processes whose values change, and others (chosen)."""

LIMIT = 2.0
"""Seconds within which everything must be back."""

BY_HAND = 17
"""Nice that somebody sets by hand."""

Values = dict[int, tuple[int, frozenset[int]]]


def deaths() -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    """Who dies at once, by kind of death: (program, names)."""
    found: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for program, names in SINGLE.items():
        for name in names:
            kind = name if name not in ("first", "second") else "sentry" if program is APART else "sentry of a daemon"
            found.setdefault(kind, []).append((program, (name,)))
        two = "any two" if program is APART else "any two of a daemon"
        found[two] = [(program, pair) for pair in combinations(names, 2)]
    return found


class Stage:
    """Processes whose values are changed, others, and who changes them."""

    def __init__(self, folder: Path, ends: contextlib.ExitStack) -> None:
        self.folder, self.count = folder, 0
        puppets = [ends.enter_context(Puppet()) for _ in range(VICTIMS + STRANGERS)]
        self.victims = [puppet.id for puppet in puppets[:VICTIMS]]
        self.pids = [puppet.pid for puppet in puppets]
        for pid in self.pids:
            os.setpriority(os.PRIO_PROCESS, pid, 0)
        self.before = self.values()
        self.by_hand = self.before | {self.pids[0]: (BY_HAND, self.before[self.pids[0]][1])}

    def values(self) -> Values:
        """What the kernel has."""
        return {pid: (os.getpriority(os.PRIO_PROCESS, pid), frozenset(os.sched_getaffinity(pid))) for pid in self.pids}

    def start(self, program: str) -> tuple[subprocess.Popen[str], Path]:
        """A brain or daemon that has begun, and its state directory."""
        self.count += 1
        state = self.folder / f"state-{self.count}"
        command = [sys.executable, "-c", program, str(state), *(f"{each.pid}:{each.start_ticks}" for each in self.victims)]
        actor = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert actor.stdout is not None
        assert actor.stdout.readline() == "ready\n"
        return actor, state


class Tally:
    """What the kills showed."""

    def __init__(self) -> None:
        self.slowest, self.late, self.left, self.lost, self.strange = 0.0, 0, 0, 0, 0
        self.kinds, self.changed = Counter[str](), 0


def kill(stage: Stage, tally: Tally, program: str, dying: tuple[str, ...], chance: random.Random) -> None:
    """One death, and what comes of it."""
    actor, state = stage.start(program)
    hands = hands_of(state)
    watched = hands[0] if hands else actor.pid
    first = [pid for pid in sentries_of(state) if _parent(pid) == watched]
    second = [pid for pid in sentries_of(state) if pid not in first]
    pids = {"brain": [actor.pid], "daemon": [actor.pid], "hands": hands, "first": first, "second": second}
    time.sleep(chance.uniform(0.0, 0.15))  # the moment of death is the subject
    victims = [pid for name in dying for pid in pids[name]]
    others = {actor.pid, *hands} - set(victims)
    fatal = bool({"brain", "hands", "daemon"} & set(dying))
    by_hand = fatal and chance.random() < 0.2
    _signal(signal.SIGSTOP, *victims, *(others if by_hand else ()))
    if by_hand:
        os.setpriority(os.PRIO_PROCESS, stage.pids[0], BY_HAND)
    tally.changed += stage.values() != stage.before
    _signal(signal.SIGKILL, *victims)
    _signal(signal.SIGCONT, *(others if by_hand else ()))
    if not fatal:
        again = seconds_until(lambda: len(set(sentries_of(state)) - set(victims)) == 2, LIMIT)
        tally.late += again is None
        actor.kill()
    wanted = stage.by_hand if by_hand else stage.before
    took = seconds_until(lambda: stage.values() == wanted, LIMIT)
    if took is None:
        now = stage.values()
        print(f"{dying}: {[(pid, now[pid], wanted[pid]) for pid in now if now[pid] != wanted[pid]]}", file=sys.stderr)
        tally.late += 1
        tally.lost += by_hand and now[stage.pids[0]] != wanted[stage.pids[0]]
    tally.slowest = max(tally.slowest, took or 0.0)
    actor.kill()
    actor.communicate()
    ended = seconds_until(lambda: not sentries_of(state) and not hands_of(state), 2 * LIMIT)
    still_open = open_changes(str(state))
    if ended is None or still_open:
        there = {"sentries": sentries_of(state), "hands": hands_of(state)}
        print(f"{dying}, by hand: {by_hand}: {there}, open: {still_open}", file=sys.stderr)
        sys.stderr.write("".join((state / NAME).read_text().splitlines(keepends=True)[-60:]))
        tally.left += 1
    tally.strange += any(stage.values()[pid] != stage.before[pid] for pid in stage.pids[VICTIMS:])
    for pid in stage.pids:
        os.setpriority(os.PRIO_PROCESS, pid, 0)
        os.sched_setaffinity(pid, stage.before[pid][1])


def seconds_until(condition: Callable[[], bool], most: float) -> float | None:
    """How long it took; None: longer than `most`."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > most:
            return None
        time.sleep(0.002)
    return time.monotonic() - began


@contextlib.contextmanager
def load(number: int) -> Iterator[None]:
    """Processes that never sleep."""
    busy = [subprocess.Popen([*PYTHON, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for each in busy:
            each.kill()
            each.wait()


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500, help="of each kind")
    parser.add_argument("--load", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    chance, tally = random.Random(options.seed), Tally()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ends:
        stage = Stage(Path(folder), ends)
        for kind, choices in deaths().items():
            for part, busy in enumerate((0, options.load)):
                with load(busy):
                    for number in range(part, options.kills, 2):
                        kill(stage, tally, *choices[number // 2 % len(choices)], chance)
                        tally.kinds[kind] += 1
    claims = Claims()
    for kind, count in tally.kinds.items():
        claims.add(f"kills: {kind}", count, ">= 500", count >= 500)
    claims.add("kills at which something was changed", tally.changed, "> 0", tally.changed > 0)
    claims.at_most("not all back, or no two sentries again, within 2 s", tally.late, 0)
    claims.at_most("slowest, s", tally.slowest, LIMIT)
    claims.at_most("deaths after which the ledger had something open, or hands or sentries were left", tally.left, 0)
    claims.at_most("values set by hand that were overwritten", tally.lost, 0)
    claims.at_most("values of strangers that were touched", tally.strange, 0)
    claims.close(options.json)


def _signal(number: int, *pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


if __name__ == "__main__":
    main()
