"""Finds who inherited a value that we changed: fork(2) and clone(2) copy it. Knows the ledger and the kernel; changes neither.

Must not know decisions. `docs/decisions/0003-ledger-and-undo.md` has the rules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from ...models.records import ProcId
from ..changes import INHERITED, Chain, Entry, Subject, leads, original
from ..decision import Control, Status
from ..faults import UNKNOWN
from ..ports import Kernel, Kin, Knob, Trouble, Value
from ..store.ledger import Ledger

PASSES = 8
"""Maximum rescans of a process for threads that appeared meanwhile: `docs/decisions/0003-ledger-and-undo.md`."""


class Family:
    """One scan of the processes, to find which may have inherited from which."""

    def __init__(self, kin: Collection[Kin]) -> None:
        self._by_pid = {each.id.pid: each for each in kin}
        self._children: dict[int, list[Kin]] = defaultdict(list)
        for each in kin:
            self._children[each.parent].append(each)

    def of(self, process: ProcId | None) -> Kin | None:
        """The entry of this process in the scan; None if it no longer exists."""
        found = None if process is None else self._by_pid.get(process.pid)
        return found if found is not None and found.id == process else None

    def heirs(self, process: ProcId, chain: Chain) -> tuple[ProcId, ...]:
        """Processes started since the first change in `chain` that descend from `process` through such processes, or lost their
        parent and are still in the session or process group that `process` was in; and the descendants of those."""
        since = min(entry.since for entry in chain)
        sessions = {entry.session for entry in chain if self._is_of_then(entry.session, process, since)}
        groups = {entry.group for entry in chain if self._is_of_then(entry.group, process, since)}
        found: dict[ProcId, None] = {}
        parent = self.of(process)
        stack = [each for each in self._by_pid.values() if each.session in sessions or each.group in groups]
        stack = [each for each in stack if each.id != process and self._orphaned(each)]
        if parent is not None:
            stack.extend(self._children[parent.id.pid])
        while stack:
            each = stack.pop()
            if each.id.start_ticks >= since and each.id not in found:
                found[each.id] = None
                stack.extend(self._children[each.id.pid])
        return tuple(sorted(found))

    def _is_of_then(self, number: int | None, process: ProcId, since: int) -> bool:
        """Whether a session or group of this number can still be the one `process` was in. The number is its leader's pid, not
        reused while it has members: a leader started since then made another one. 0: from another pid namespace, no help."""
        leader = self._by_pid.get(number or 0)
        return bool(number) and (leader is None or leader.id == process or leader.id.start_ticks < since)

    def _orphaned(self, each: Kin) -> bool:
        """Whether init or a subreaper took it over, which is pid 1 or in another session. With a living parent in the same session,
        that parent decides what it inherited."""
        parent = self._by_pid.get(each.parent)
        return parent is None or each.parent == 1 or parent.session != each.session


class Heirs:
    """Threads and processes that have a value of ours without an entry of their own."""

    def __init__(self, ledger: Ledger, kernel: Kernel) -> None:
        self._ledger = ledger
        self._kernel = kernel

    def leader(self, subject: Subject) -> Chain | None:
        """The chain of a process's first thread, which represents the process: what it forks and spawns inherits its values."""
        if subject.control not in INHERITED or subject.process is None:
            return None
        for knob, chain in self._ledger.chains(subject).items():
            if leads(knob):
                return chain
        return None

    def leaders(self, control: Control) -> list[tuple[ProcId, Chain]]:
        """Every process whose first thread's value of this control we changed, latest change first."""
        found = [(subject.process, self.leader(subject)) for subject in self._ledger.subjects() if subject.control is control]
        return [(process, chain) for process, chain in found if process is not None and chain is not None]

    def inherited(self, chain: Chain, knob: Knob, now: Value) -> Entry | Trouble | None:
        """The change of ours that a thread may have its value from: it started after the change and has exactly that value.
        Trouble: this cannot be determined now."""
        assert knob.thread is not None
        for entry in reversed(chain):
            if knob.thread.start_ticks >= entry.since:
                visible = self._kernel.visible(knob, entry.new)
                if now == visible or isinstance(visible, Trouble):
                    return visible if isinstance(visible, Trouble) else entry
        return None

    def of(self, subject: Subject, chain: Chain, family: Family) -> list[tuple[Knob, Value, Entry]] | Trouble:
        """Threads that inherited our value and have no entry of their own: (knob, value, the change it is from); or why one of them
        could not be examined."""
        assert subject.process is not None
        heirs = []
        for process in (subject.process, *family.heirs(subject.process, chain)):
            found, lost = self.within(subject, chain, process)
            if isinstance(lost, Trouble):
                return lost
            heirs += found
        return heirs

    def within(self, subject: Subject, chain: Chain, process: ProcId) -> tuple[list[tuple[Knob, Value, Entry]], Trouble | bool]:
        """Threads of one process that may have inherited; and whether one ended before it could be examined: then the rest is
        examined again, because it may have started another. Trouble: a thread exists whose value is unknown."""
        found: list[tuple[Knob, Value, Entry]] = []
        missing: Trouble | None = None
        lost = False
        for _ in range(PASSES):
            threads = self._kernel.threads(process)
            if isinstance(threads, Trouble):
                if threads.status is Status.VANISHED:
                    return [], True
                missing, lost = threads, True
                continue
            found, missing = [], None
            for thread in threads:
                knob = Knob(subject.control, process, thread, "")
                if self._ledger.chain(knob) is not None or self._ledger.is_foreign(knob):
                    continue
                heir = self._heir(chain, knob)
                if isinstance(heir, Trouble):
                    missing = heir if missing is None or missing.status not in UNKNOWN else missing
                elif heir is not None:
                    found.append(heir)
            if missing is None:
                break
            lost = True
        return found, missing if missing is not None and missing.status in UNKNOWN else lost

    def _heir(self, chain: Chain, knob: Knob) -> tuple[Knob, Value, Entry] | Trouble | None:
        """This thread, if it inherited our value."""
        now, aim = self._kernel.read(knob), self._kernel.visible(knob, original(chain))
        if isinstance(now, Trouble) or isinstance(aim, Trouble):
            return now if isinstance(now, Trouble) else aim if isinstance(aim, Trouble) else None
        entry = None if now == aim else self.inherited(chain, knob, now)
        return entry if entry is None or isinstance(entry, Trouble) else (knob, now, entry)
