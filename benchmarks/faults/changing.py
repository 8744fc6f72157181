"""Programs that change values of processes, or put them back: afterwards everything is back, and what is not ours is untouched."""

from __future__ import annotations

import json
import signal
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nicety.scheduler.act.undo import undo_from_ledger
from nicety.scheduler.decision import Restore, Set
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.ledger import NAME, LedgerError
from nicety.scheduler.hands.places import Control
from nicety.scheduler.hands.safe_files import StoreError
from nicety.scheduler.interpreter import PYTHON
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace
from nicety.scheduler.store.decisions import DecisionReader
from nicety.scheduler.testing.bench import Bench
from nicety.scheduler.testing.ledger_file import rows
from nicety.scheduler.testing.sentries import sentries_of

from .program import NICETY, End, Program, Running, Settings, lost_ticks
from .stage import Load, Puppets, Stage, changed, until

ACTED_SECONDS = 20.0
"""Most seconds until a daemon has changed something. Chosen: many times what it takes, and then it does not act at all."""


SENTRY_SECONDS = 10.0
"""Most seconds until the sentries of a daemon have ended. Chosen: as above."""


class Changing(Program):
    """A program that changes values of processes, or puts them back."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(folder, settings)
        self.stage = self.begin()

    @abstractmethod
    def begin(self) -> Stage:
        """The processes."""

    @abstractmethod
    def well(self, end: End) -> bool:
        """Whether it said that all is put back."""

    def prepare(self) -> None:
        """With processes as they were, new ones if somebody has not put back the old ones."""
        super().prepare()
        self.stage.give_back()
        if changed(self.stage.before, self.stage.values()):
            self.close()
            self.stage = self.begin()

    def wrong(self, end: End) -> Iterator[str]:
        """Values that are not back, at once if it said so and after an undo."""
        stage = self.stage
        left = changed(stage.expected(), stage.values())
        self.in_force = bool(left)
        touched = [line for line in left if line.startswith(str(stage.stranger.pid))]
        if touched:
            yield f"a stranger's: {touched}"
        if left and not end.killed and self.well(end):
            yield f"it said that all is well: {left}"
        if self.settings.by_itself is not None and end.killed:
            began = time.monotonic()
            if not until(lambda: not changed(stage.expected(), stage.values()), self.settings.by_itself):
                took = time.monotonic() - began
                yield f"not back by itself after {took:.1f} s: {changed(stage.expected(), stage.values())}"
        else:
            yield from self._undo()
        yield from self._open()

    def _undo(self) -> Iterator[str]:
        stage = self.stage
        try:
            outcomes = undo_from_ledger(self.state, SystemClock())
            again = undo_from_ledger(self.state, SystemClock())
        except (LedgerError, OSError) as error:
            yield f"undo afterwards: {error}"
            return
        left = changed(stage.expected(), stage.values())
        if left:
            yield f"not back after an undo: {left}; {[outcome.detail for outcome in outcomes]}"
        bad = [outcome for outcome in outcomes if outcome.status not in (Status.APPLIED, Status.UNCHANGED, Status.FOREIGN)]
        if bad:
            yield f"undo afterwards: {bad}"
        if again:
            yield f"a second undo still has something to do: {again}"

    def _open(self) -> Iterator[str]:
        """What the ledger still has, and what it takes for somebody else's or for ended."""
        ledger = self.state / NAME
        if not ledger.exists():
            return
        hand = self.stage.hand
        for status, control, pid in ((row.status, row.control, row.pid) for row in rows(ledger)):
            theirs = status == "foreign" and hand.endswith(str(control)) and (pid is None or hand.startswith(str(pid)))
            if status in ("intent", "done", "gone") or (status == "foreign" and not theirs):
                yield f"the ledger has {status}: {control} of {pid}"

    def close(self) -> None:
        """End the processes."""
        self.stage.close()


ACTOR = """
import sys, time
from pathlib import Path
from nicety.models.identity import ProcId
from nicety.scheduler.act.actuate import Acting
from nicety.scheduler.testing.hands import hands_with
from nicety.scheduler.decision import Decision, Restore, Set, Why
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.read.locks import LinuxLocks
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.ledger import Ledger, StateLock
state, groups, *numbers = sys.argv[1:]
numbers = list(map(int, numbers))
targets = [ProcId(*pair) for pair in zip(numbers[::2], numbers[1::2])]
lock = StateLock(Path(state))
kernel = LinuxKernel()
ledger = Ledger(Path(state) / "ledger.log", kernel.boot_id())
acting = Acting(hands_with(ledger, kernel, SystemClock()), kernel, LinuxLocks(), {}, {}, SystemClock())
why = Why("test", "because", {}, (), ())
for turn in range(2):
    actions = []
    for target in targets:
        on = ProcessPlace(target)
        actions.append(Set(Control.NICE, on, (10, 15)[turn]))
        actions.append((Set(Control.AFFINITY, on, (0,)), Restore(Control.AFFINITY, on))[turn])
        if turn:  # the policy is 3 still: an idle thread's slice cannot be set
            actions.append(Set(Control.SLICE, on, 500_000))
        actions.append(Set(Control.POLICY, on, (3, 5)[turn]))
        actions.append(Set(Control.AUTOGROUP, SessionPlace(target.pid, target), (19, 5)[turn]))
    if groups:
        shares, idle = groups.split(",")
        actions.append(Set(Control.CPU_SHARES, CgroupPlace(shares), 2 + turn))
        actions.append(Set(Control.CPU_IDLE, CgroupPlace(idle), 1 - turn))
    acting.apply([Decision(f"t-{turn}.{n}", "p", "t", action, why) for n, action in enumerate(actions)])
    acting.settle()
    print("turn", turn, flush=True)
    sys.stdin.readline()
undone = acting.undo()
ledger.close()
lock.release()
print("well" if {outcome.status for outcome in undone} <= {"applied", "unchanged", "foreign"} else "not well", flush=True)
"""


class ActingHalf(Changing):
    """The acting half of the daemon, without the rest: two turns that change all controls, and an undo."""

    name = "acting"
    people = False

    def begin(self) -> Stage:
        """Processes that do nothing."""
        return Puppets()

    def command(self) -> list[str]:
        """A script of its own."""
        numbers = [str(number) for process in self.stage.ids for number in process]
        groups = ",".join(f"/{group.name}" for group in self.stage.groups)
        return [*PYTHON, "-c", ACTOR, str(self.state), groups, *numbers]

    def drive(self, running: Running) -> None:
        """A hand interferes between the turns."""
        if running.line():
            self.stage.interfere()
            running.answer()
            running.line()
            running.answer()

    def well(self, end: End) -> bool:
        """It says so."""
        return end.out.endswith("well\n") and not end.out.endswith("not well\n")


class Undo(Changing):
    """`nicety undo` of what a dead daemon left, and of what a hand has changed since."""

    name = "undo"
    ends = frozenset({3})

    def begin(self) -> Stage:
        """Processes that do nothing."""
        return Puppets()

    def prepare(self) -> None:
        """A ledger with changes in force."""
        super().prepare()
        with Bench(self.state) as bench:
            for turn in range(2):
                bench.apply(*self._actions(turn))
        self.stage.interfere()

    def _actions(self, turn: int) -> list[Set | Restore]:
        actions: list[Set | Restore] = []
        for process in self.stage.ids:
            on = ProcessPlace(process)
            actions += [
                Set(Control.NICE, on, (10, 15)[turn]),
                Set(Control.AFFINITY, on, (0,)),
                Set(Control.POLICY, on, (3, 5)[turn]),
            ]
            actions.append(Set(Control.AUTOGROUP, SessionPlace(process.pid, process), (19, 5)[turn]))
        for group, control in zip(self.stage.groups, (Control.CPU_SHARES, Control.CPU_IDLE), strict=False):
            actions.append(Set(control, CgroupPlace(f"/{group.name}"), 2 if control is Control.CPU_SHARES else 1))
        return actions

    def command(self) -> list[str]:
        """As the user types it."""
        return [*NICETY, "undo", "--state-dir", str(self.state)]

    def well(self, end: End) -> bool:
        """By its exit code; 3 also says that a value was put back only in part."""
        return end.code in (0, 3) and "partial" not in end.out

    def explained(self, end: End) -> bool:
        """The table on stdout says what became of each value."""
        return super().explained(end) or any(word in end.out for word in ("failed", "refused", "blocked", "later"))


class Daemon(Changing):
    """`nicety run --act` beside a service and hogs, until SIGTERM; a hand interferes when it has acted."""

    name = "daemon"

    def begin(self) -> Stage:
        """A service and hogs."""
        return Load(self.folder)

    def command(self) -> list[str]:
        """As the unit starts it, but /proc/stat and the pressure stand still: where others load this machine, which it does not see
        in its namespace, it would not act."""
        hidden = 'mount --bind "$0" /proc/stat; mount --bind /dev/null /proc/pressure/cpu; exec "$@"'
        started = ["unshare", "--mount", "sh", "-c", hidden, str(self._still)]
        return [*started, *NICETY, "run", "--act", "--config", str(self._config), "--state-dir", str(self.state)]

    @property
    def _still(self) -> Path:
        return self.case / "stat"

    @property
    def _config(self) -> Path:
        return self.case / "nicety.toml"

    def prepare(self) -> None:
        """Its configuration."""
        super().prepare()
        self._still.write_bytes(Path("/proc/stat").read_bytes())
        self._config.write_text(Load.CONFIG)
        self._config.chmod(0o600)

    def drive(self, running: Running) -> None:
        """Let it act, interfere, and stop it."""
        until(lambda: running.over or changed(self.stage.before, self.stage.values()), ACTED_SECONDS, 0.03)
        if not running.over:
            running.begins_to_work()
            self.stage.interfere()
            until(lambda: running.over, self.settings.linger, 0.03)
            running.send(signal.SIGTERM)

    def well(self, end: End) -> bool:
        """By its exit code."""
        return end.code == 0

    def explained(self, end: End) -> bool:
        """Its log is JSON, one record a line."""
        records = [json.loads(line) for line in end.err.splitlines() if line.startswith("{") and line.endswith("}")]
        return super().explained(end) or any(record["priority"] <= 4 for record in records)

    def wrong(self, end: End) -> Iterator[str]:
        """Its decision log and traces too. Where it was killed, its sentries end when they have put everything back."""
        if not until(lambda: not sentries_of(self.state), SENTRY_SECONDS):
            yield f"sentries are left: {sentries_of(self.state)}"
        yield from super().wrong(end)
        if (self.state / "decisions.db").exists():
            with suppress(StoreError), DecisionReader(self.state) as reader:  # a log that was just begun
                damaged = [it.damage for it in reader.ticks() if it.damage]
                if damaged and not end.failed:
                    yield f"the decision log is damaged: {damaged}"
        yield from lost_ticks(self.state, end)
