"""Restores kernel values: those that we changed, and what threads and children inherited of them. Works from the ledger alone.

Knows the ledger, the kernel and the clock. Must not know decisions, or why something is restored.
`docs/decisions/0003-ledger-and-undo.md` has the rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...models.identity import ProcId
from .changes import Chain, EntryStatus, believed, ids_of, name_of, original, shown
from .faults import UNKNOWN, Status, Trouble
from .heirs import Family, Heirs, Leader, reach_of
from .kernel import Clock, Kernel, Kin
from .ledger import Ledger
from .pids import Pids
from .places import Control, Knob, Subject, ThreadPlace
from .tally import Tally

TRIES = 8
"""Most attempts to restore a value (chosen)."""

SCANS = 64
"""Most rescans for children that inherited (chosen). If they fork faster, the entries stay open for the next undo."""

CALM, CALM_IN_A_STORM = 2, 8
"""Consecutive scans that must find no process with our value: where there are children, and where some of them end during a scan.
Chains of processes that fork a successor every 15 ms and end got through one scan in 4 of 15 undos, and through three scans of all
processes in 3 of 25 on a loaded machine; with these values in none of 30 (the storm of tests/real/test_no_harm.py)."""

PAST_FORK_NS = 20_000_000
"""ns of user time after which a thread is past any fork(2) it was in, because fork(2) uses kernel time only (chosen: two clock
ticks). A child gets the values that its parent had when the fork began, and becomes visible when the fork ends: 9 to 14 ms later
for a process with 512 MiB in small pages."""

PATIENCE_NS, PATIENCE_IN_A_TICK_NS, LOOK_NS = 5_000_000_000, 100_000_000, 5_000_000
"""How long to wait for threads that may be within a fork(2) when everything is undone, and how long in a tick; and the time between
two looks at them. All in ns (chosen: a tick must not be late, an undo may take longer)."""

AGAIN_NS = 110_000_000
"""ns before an autogroup is written again: the kernel accepts one change in HZ/10 ticks, 0.1 s (kernel/sched/autogroup.c)."""


class Restorer:
    """Puts kernel values back."""

    def __init__(self, ledger: Ledger, kernel: Kernel, clock: Clock, heirs: Heirs) -> None:
        self._ledger = ledger
        self._kernel = kernel
        self._clock = clock
        self._heirs = heirs

    def put_back(self, subjects: Sequence[Subject], patience: int = PATIENCE_IN_A_TICK_NS) -> dict[Subject, Tally]:
        """Restore these kernel values, slices last: SCHED_IDLE has none. `patience`: ns to wait, if needed, for threads that may be
        within a fork(2)."""
        slices = [subject for subject in subjects if subject.control is Control.SLICE]
        others = [subject for subject in subjects if subject.control is not Control.SLICE]
        until = self._clock.monotonic() + patience
        with self._kernel.reserve():
            return self._put_back(others, until) | self._put_back(slices, until)

    def _put_back(self, subjects: Sequence[Subject], until: int) -> dict[Subject, Tally]:
        """Restore what we changed, then what was inherited of it, and only then close the entries: after a crash in between, the
        next undo does the rest."""
        tallies: dict[Subject, Tally] = {}
        statuses: dict[int, EntryStatus] = {}
        heirs: list[tuple[Subject, Leader]] = []
        forking: dict[ThreadPlace, int | None] = {}
        for subject in subjects:
            tally = tallies[subject] = Tally()
            leader = self._heirs.leader(subject)
            for chain in self._ledger.chains(subject).values():
                status = self._put_knob_back(chain[-1].knob, chain, tally)
                if status in (EntryStatus.UNDONE, EntryStatus.INTENT):
                    self._note_fork(chain[-1].knob, forking)
                if status is not None:
                    statuses.update(dict.fromkeys(ids_of(chain), status))
                    if leader is not None and chain == leader.chain:
                        heirs.append((subject, leader))
        left = self._put_heirs_back(heirs, tallies, forking, until)
        for subject, leader in heirs:
            if subject not in left:
                continue
            for number in ids_of(leader.chain):  # it stays open for its heirs; it may itself be restored by now
                if statuses.pop(number) is EntryStatus.UNDONE:
                    statuses[number] = EntryStatus.INTENT
        if statuses:
            self._ledger.settle(statuses)
        return tallies

    def _put_knob_back(self, knob: Knob, chain: Chain, tally: Tally) -> EntryStatus | None:
        """Restore one value if it is still ours. None: it could not be written and stays open. INTENT: it was written but cannot be
        read back now; it stays open and may have either value."""
        aim, wrote = original(chain), self._put_likely_back(knob, chain, tally)
        busy: Trouble | None = None
        for _ in range(TRIES):
            now = self._kernel.read(knob)
            if isinstance(now, Trouble):
                tally.trouble(now)
                if now.status is Status.VANISHED:
                    return EntryStatus.GONE
                return EntryStatus.INTENT if wrote else None
            whole = self._kernel.visible(knob, aim)
            ours = [self._kernel.visible(knob, value) for value in believed(chain) if value != aim]
            unseen = next((each for each in (whole, *ours) if isinstance(each, Trouble)), None)
            if unseen is not None:
                tally.trouble(unseen)
                return EntryStatus.INTENT if wrote else None
            there = now == whole
            if there and (wrote or knob.control is not Control.AFFINITY or now not in ours):
                tally.same += not wrote
                return EntryStatus.UNDONE
            if not there and now not in ours:
                tally.foreign.append(
                    f"somebody changed {name_of(knob.control, knob.on)} from {shown(chain[-1].new)} to {shown(now)}"
                )
                return EntryStatus.FOREIGN
            # an affinity that looks right through a shrunken cpuset is written too: the kernel remembers the requested mask (F49)
            trouble = self._kernel.write(knob, now, aim)
            if trouble is None:
                if not wrote:
                    tally.step(now, aim)
                wrote = True  # the next pass reads it back
            elif trouble.status is Status.LATER:
                busy = trouble
                self._clock.sleep_until(self._clock.monotonic() + AGAIN_NS)
            elif trouble.status is Status.VANISHED:
                tally.trouble(trouble)
                return EntryStatus.GONE
            elif trouble.status is not Status.FOREIGN:  # changed since it was read: check again whose value it is
                tally.trouble(trouble)
                return EntryStatus.INTENT if wrote else None
        text = f"{name_of(knob.control, knob.on)} does not stay at {shown(aim)}; tried {TRIES} times"
        tally.trouble(busy or Trouble(Status.FAILED, text))
        return None

    def _put_likely_back(self, knob: Knob, chain: Chain, tally: Tally) -> bool:
        """Restore the value if it is the likeliest of ours, and return whether it was. `write` compares: no look is needed."""
        aim = original(chain)
        now, whole = self._kernel.visible(knob, believed(chain)[0]), self._kernel.visible(knob, aim)
        if isinstance(now, Trouble) or now == whole or self._kernel.write(knob, now, aim) is not None:
            return False
        tally.step(now, aim)
        return True

    def _put_heirs_back(
        self,
        leaders: Sequence[tuple[Subject, Leader]],
        tallies: Mapping[Subject, Tally],
        forking: dict[ThreadPlace, int | None],
        until: int,
    ) -> set[Subject]:
        """Restore what threads and children inherited; repeat, because they fork meanwhile. Returns the subjects whose heirs could
        not all be examined or written (a slice cannot while the policy is SCHED_IDLE); all subjects if `SCANS` were not enough.

        A process that forks and ends before it is examined passes our value on unseen. So the scans after the first read only new
        processes, which takes 1 ms instead of 10, newest first, and each is restored as soon as it is seen. A thread that was
        restored within a fork has a child with our value that is not visible yet. So scanning goes on, at most to `until`, while
        `forking` has threads: those that were restored, with their user time at that moment.
        """
        reach = reach_of([leader for _, leader in leaders])
        everyone = {control: self._heirs.leaders(control) for control in {leader.control for _, leader in leaders}}
        seen, known = Pids(), dict[int, Kin]()
        settled: set[tuple[Subject, ProcId]] = set()
        tried: set[Knob] = set()
        left: set[Subject] = set()
        enough, quiet, scans = 1, 0, 0
        while leaders and scans < SCANS:
            scan = self._kernel.kin(seen, reach)
            known.update((each.id.pid, each) for each in scan.kin)
            family = Family(known.values())
            awake = {thread.process for thread in forking}
            quiet += 1
            for subject, leader in leaders:
                heirs = family.heirs(leader.process, leader.chain)
                enough = max(enough, CALM if heirs else 1)
                for process in (*sorted(heirs, key=_birth, reverse=True), leader.process):
                    if (subject, process) in settled:
                        continue
                    found, lost = self._heirs.within(leader, process, family, everyone[leader.control])
                    if isinstance(lost, Trouble):
                        tallies[subject].trouble(lost)
                        left.add(subject)
                    found = [each for each in found if each.knob not in tried]
                    for heir in found:
                        tried.add(heir.knob)
                        trouble = self._kernel.write(heir.knob, heir.now, original(leader.chain))
                        if trouble is None:
                            tallies[subject].step(heir.now, original(leader.chain))  # the next scan reads it back
                            self._note_fork(heir.knob, forking)
                        else:
                            tallies[subject].trouble(trouble)
                            if trouble.status is Status.REFUSED or trouble.status in UNKNOWN:
                                left.add(subject)
                    if lost and process != leader.process:
                        enough = CALM_IN_A_STORM
                    if found:
                        quiet = 0
                    elif process not in awake:  # else a thread may still appear
                        settled.add((subject, process))
            if scan.unread is not None:  # a process could not be read: whether it inherited is unknown
                for subject, _ in leaders:
                    tallies[subject].trouble(scan.unread)
                return {subject for subject, _ in leaders}
            if quiet < enough:
                scans += 1
            elif not forking or self._clock.monotonic() >= until:
                return left
            elif not self._drop_past_fork(forking):  # its child is visible now: one more scan
                self._clock.sleep_until(self._clock.monotonic() + LOOK_NS)
        for subject, _ in leaders:
            tallies[subject].trouble(
                Trouble(Status.FAILED, f"children start faster than {SCANS} scans could find them: undo again")
            )
        return {subject for subject, _ in leaders}

    def _note_fork(self, knob: Knob, forking: dict[ThreadPlace, int | None]) -> None:
        """Note the thread of a knob that was just restored. One that sleeps now can only fork with its current value, and is left
        out. None in `forking`: its user time could not be read."""
        if isinstance(knob.on, ThreadPlace):
            used = self._kernel.user_time(knob.on.process, knob.on.thread)
            if used is not None:
                forking[knob.on] = None if isinstance(used, Trouble) else used

    def _drop_past_fork(self, forking: dict[ThreadPlace, int | None]) -> bool:
        """Drop the threads that are past any fork they were in; returns whether there were any."""
        past = []
        for thread, before in forking.items():
            used = self._kernel.user_time(thread.process, thread.thread)
            if isinstance(used, Trouble):
                continue
            if before is None:
                forking[thread] = used
            if used is None or (before is not None and used - before >= PAST_FORK_NS):
                past.append(thread)
        for thread in past:
            del forking[thread]
        return bool(past)


def _birth(process: ProcId) -> tuple[int, int]:
    return process.start_ticks, process.pid
