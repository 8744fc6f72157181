"""Restores what the actuator changed: kernel values, what was inherited of them, and pool sizes. Works from the ledger alone.

Knows the kernel, the pools and the clock only as ports. Must not know decisions or where a change came from.
`docs/decisions/0003-ledger-and-undo.md` has the rules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ...models.records import PoolSample, ProcId
from ..decision import Control, Outcome, Status, cpu_list
from ..faults import UNKNOWN
from ..fences import parts_of
from ..ports import Clock, Kernel, Kin, Knob, PoolAdapter, Trouble, Value
from ..store.ledger import Chain, Entry, EntryStatus, Ledger, LedgerError, Subject, believed, original, place, subject_of

PASSES = 8
"""Maximum rescans for threads that appeared meanwhile (F02), and maximum attempts to restore a value."""

SCANS = 64
"""Maximum rescans for children that inherited. If they fork faster, the entries stay open for the next undo."""

CALM, CALM_IN_A_STORM = 2, 8
"""Consecutive scans that must find no process with our value: where there are children, and where some of them end during a scan.
Chains of processes that fork a successor every 15 ms and end got through one scan in 4 of 15 undos, and through three scans of all
processes in 3 of 25 on a loaded machine; with these values in none of 30 (the storm of tests/real/test_no_harm.py)."""

PAST_FORK_NS = 20_000_000
"""User time after which a thread is past any fork(2) it was in: fork(2) uses kernel time only. A child gets the values its parent
had when the fork began, and becomes visible when it ends: 9 to 14 ms later for a process with 512 MiB in small pages."""

PATIENCE_NS, PATIENCE_IN_A_TICK_NS, LOOK_NS = 5_000_000_000, 100_000_000, 5_000_000
"""How long to wait for threads that may be within a fork(2), at the end and in a tick; and the time between two looks at them."""

INHERITED = frozenset({Control.NICE, Control.AFFINITY, Control.POLICY, Control.SLICE})
"""Per-thread controls, which fork(2) and clone(2) copy. An autogroup, a cgroup and a pool have one value for all their members."""

AGAIN_NS = 110_000_000
"""The kernel accepts a change of an autogroup once in HZ/10 ticks, 0.1 s (kernel/sched/autogroup.c)."""

POLL_NS = 100_000_000
"""Time between two looks at a pool that is returning to its size (chosen)."""

STEADY_NS = 500_000_000
"""How long a pool must have its size before it counts as restored: a signal that was under way takes effect within that time."""


@dataclass(slots=True)
class Tally:
    """What happened to one decision, or to one subject of an undo."""

    changed: int = 0
    same: int = 0
    gone: int = 0
    steps: list[tuple[Value, Value]] = field(default_factory=list)  # each (from, to) once
    foreign: list[str] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def step(self, before: Value, after: Value) -> None:
        """Record that one value was changed."""
        self.changed += 1
        if (before, after) not in self.steps:
            self.steps.append((before, after))

    def trouble(self, trouble: Trouble) -> None:
        """Record why one value was not changed."""
        if trouble.status is Status.VANISHED:
            self.gone += 1
        elif trouble.status is Status.FOREIGN:
            self.foreign.append(trouble.text)
        else:
            self.troubles.append(trouble)

    def status(self) -> Status:
        """All of it as one status; a value that somebody else changed outweighs the rest, because it makes the target hands-off."""
        if self.foreign:
            return Status.FOREIGN
        if self.troubles:
            return Status.PARTIAL if self.changed or self.same else self.troubles[0].status
        if self.changed:
            return Status.APPLIED
        return Status.VANISHED if self.gone and not self.same else Status.UNCHANGED

    def outcome(self, decision: str, target: str, what: str) -> Outcome:
        """All of it as a sentence about `what`."""
        parts = [f"{shown(before)} -> {shown(after)}" for before, after in self.steps]
        if self.changed:
            parts[0] = f"{what}: {parts[0]}"
        parts += [f"left: {text}" for text in dict.fromkeys(self.foreign)]
        parts += dict.fromkeys(trouble.text for trouble in self.troubles)
        if self.gone:
            parts.append(f"{what}: gone" if not parts else f"{self.gone} ended meanwhile")
        parts += self.notes
        text = f"{what} is so already" if self.same else f"{what}: nothing of ours to put back"
        return Outcome(decision, self.status(), target, "; ".join(parts) or text, self.changed)


class Undoer:
    """Restores what the ledger has; used by the actuator and by `nicety undo`.

    `asked`: the size that is currently requested of a running daemon's pool; None for a pool that is seen for the first time.
    `patience`: seconds to wait for pools to return to their size.
    """

    def __init__(
        self,
        ledger: Ledger,
        kernel: Kernel,
        pools: Mapping[str, PoolAdapter],
        clock: Clock,
        asked: Callable[[str], int | None],
        patience: float,
    ) -> None:
        self._ledger = ledger
        self._kernel = kernel
        self._pools = pools
        self._clock = clock
        self._asked = asked
        self._patience_ns = int(patience * 1e9)

    def undo(self, kept: Collection[Subject] = ()) -> tuple[Outcome, ...]:
        """Restore everything open in the ledger except `kept`, newest first; one outcome for each thing that was changed.

        Waits for pools, at most `patience` seconds. What could not be restored stays open: call again to retry.
        """
        subjects = [subject for subject in self._ledger.subjects() if subject not in kept]
        newest = {subject: self._newest(subject) for subject in subjects}
        tallies = self.put_back([subject for subject in subjects if subject.control is not Control.POOL_SIZE], PATIENCE_NS)
        outcomes = [
            tally.outcome(newest[subject].decision, newest[subject].target, name_of_entry(newest[subject]))
            for subject, tally in tallies.items()
        ]
        return (*outcomes, *self.sizes_back({subject.key for subject in subjects if subject.control is Control.POOL_SIZE}))

    def sizes_back(self, pools: Collection[str]) -> tuple[Outcome, ...]:
        """The part of `undo` for the sizes of these pools."""
        subjects = [each for each in self._ledger.subjects() if each.control is Control.POOL_SIZE and each.key in pools]
        return tuple(self._size_back([self._newest(subject) for subject in subjects]))

    def _newest(self, subject: Subject) -> Entry:
        return max((chain[-1] for chain in self._ledger.chains(subject).values()), key=_id)

    # --- putting back ----------------------------------------------------------------------------------------------------------

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
        heirs: list[tuple[Subject, Chain]] = []
        forking: dict[Knob, int | None] = {}
        for subject in subjects:
            tally = tallies[subject] = Tally()
            leader = self.leader(subject)
            for chain in self._ledger.chains(subject).values():
                status = self._put_knob_back(chain[-1].knob, chain, tally)
                if status in (EntryStatus.UNDONE, EntryStatus.INTENT):
                    self._note_fork(chain[-1].knob, forking)
                if status is not None:
                    statuses.update(dict.fromkeys(ids_of(chain), status))
                    if chain == leader:
                        heirs.append((subject, chain))
        left = self._put_heirs_back(heirs, tallies, forking, until)
        for subject, chain in heirs:
            if subject not in left:
                continue
            for number in ids_of(chain):  # it stays open for its heirs; it may itself be restored by now
                if statuses.pop(number) is EntryStatus.UNDONE:
                    statuses[number] = EntryStatus.INTENT
        if statuses:
            self._ledger.settle(statuses)
        return tallies

    def _put_knob_back(self, knob: Knob, chain: Chain, tally: Tally) -> EntryStatus | None:
        """Restore one value if it is still ours. None: it could not be written and stays open. INTENT: it was written but cannot be
        read back now; it stays open and may have either value."""
        aim, wrote = original(chain), False
        busy: Trouble | None = None
        for _ in range(PASSES):
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
                tally.foreign.append(f"somebody changed {name_of_entry(chain[-1])} from {shown(chain[-1].new)} to {shown(now)}")
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
        text = f"{name_of_entry(chain[-1])} does not stay at {shown(aim)}; tried {PASSES} times"
        tally.trouble(busy or Trouble(Status.FAILED, text))
        return None

    def _put_heirs_back(
        self, chains: Sequence[tuple[Subject, Chain]], tallies: Mapping[Subject, Tally], forking: dict[Knob, int | None], until: int
    ) -> set[Subject]:
        """Restore what threads and children inherited; repeat, because they fork meanwhile. Returns the subjects whose heirs could
        not all be examined or written (a slice cannot while the policy is SCHED_IDLE); all subjects if heirs fork faster.

        A process that forks and ends before it is examined passes our value on unseen. So the scans after the first read only new
        processes, which takes 1 ms instead of 10, newest first, and each is restored as soon as it is seen. A thread that was
        restored within a fork has a child with our value that is not visible yet. So scanning goes on, at most to `until`, while
        `forking` has threads: those that were restored, with their user time at that moment.
        """
        known: dict[int, Kin] = {}
        settled: set[tuple[Subject, ProcId]] = set()
        tried: set[Knob] = set()
        left: set[Subject] = set()
        enough, quiet, scans = 1, 0, 0
        while chains and scans < SCANS:
            scan = self._kernel.kin(known)
            known.update((each.id.pid, each) for each in scan.kin)
            family = Family(known.values())
            awake = {knob.process for knob in forking}
            quiet += 1
            for subject, chain in chains:
                assert subject.process is not None
                heirs = family.heirs(subject.process, chain)
                enough = max(enough, CALM if heirs else 1)
                for process in (*sorted(heirs, key=_birth, reverse=True), subject.process):
                    if (subject, process) in settled:
                        continue
                    found, lost = self._heirs_in(subject, chain, process)
                    if isinstance(lost, Trouble):
                        tallies[subject].trouble(lost)
                        left.add(subject)
                    found = [each for each in found if each[0] not in tried]
                    for knob, now, _entry in found:
                        tried.add(knob)
                        trouble = self._kernel.write(knob, now, original(chain))
                        if trouble is None:
                            tallies[subject].step(now, original(chain))  # the next scan reads it back
                            self._note_fork(knob, forking)
                        else:
                            tallies[subject].trouble(trouble)
                            if trouble.status is Status.REFUSED or trouble.status in UNKNOWN:
                                left.add(subject)
                    if lost and process != subject.process:
                        enough = CALM_IN_A_STORM
                    if found:
                        quiet = 0
                    elif process not in awake:  # else a thread may still appear
                        settled.add((subject, process))
            if scan.unread is not None:  # a process could not be read: whether it inherited is unknown
                for subject, _ in chains:
                    tallies[subject].trouble(scan.unread)
                return {subject for subject, _ in chains}
            if quiet < enough:
                scans += 1
            elif not forking or self._clock.monotonic() >= until:
                return left
            elif not self._drop_past_fork(forking):  # its child is visible now: one more scan
                self._clock.sleep_until(self._clock.monotonic() + LOOK_NS)
        for subject, _ in chains:
            tallies[subject].trouble(Trouble(Status.FAILED, f"children come faster than {SCANS} scans could follow: undo again"))
        return {subject for subject, _ in chains}

    def _note_fork(self, knob: Knob, forking: dict[Knob, int | None]) -> None:
        """Note the thread of a knob that was just restored. One that sleeps now can only fork with its current value, and is left
        out. None in `forking`: its user time could not be read."""
        if knob.control in INHERITED and knob.process is not None and knob.thread is not None:
            used = self._kernel.user_time(knob.process, knob.thread)
            if used is not None:
                forking[knob] = None if isinstance(used, Trouble) else used

    def _drop_past_fork(self, forking: dict[Knob, int | None]) -> bool:
        """Drop the threads that are past any fork they were in; returns whether there were any."""
        past = []
        for knob, before in forking.items():
            assert knob.process is not None
            assert knob.thread is not None
            used = self._kernel.user_time(knob.process, knob.thread)
            if isinstance(used, Trouble):
                continue
            if before is None:
                forking[knob] = used
            if used is None or (before is not None and used - before >= PAST_FORK_NS):
                past.append(knob)
        for knob in past:
            del forking[knob]
        return bool(past)

    def _size_back(self, entries: Sequence[Entry]) -> list[Outcome]:
        """Ask pools for the size they had before us, and wait for them together."""
        tracks = [_Track(entry, original(self._ledger.chains(entry.subject)[place(entry.knob)])) for entry in entries]
        start = self._clock.monotonic()
        while True:
            now = self._clock.monotonic()
            late = now - start >= self._patience_ns
            for track in tracks:
                if track.outcome is None:
                    self._step_back(track, now, late)
            if all(track.outcome is not None for track in tracks):
                return [track.outcome for track in tracks if track.outcome is not None]
            self._clock.sleep_until(now + POLL_NS)

    def _step_back(self, track: _Track, now: int, late: bool) -> None:
        """Look once at a pool that is returning to its size; when that has ended, set the outcome and close the entries."""
        entry, name = track.entry, track.entry.key
        assert entry.process is not None
        chain = self._ledger.chains(entry.subject)[place(entry.knob)]
        ends = self._kernel.threads(entry.process)
        if isinstance(ends, Trouble) and ends.status is Status.VANISHED:
            track.end(Status.VANISHED, f"pool {name} ended with its master, pid {entry.process.pid}: nothing to put back")
            self._ledger.settle(dict.fromkeys(ids_of(chain), EntryStatus.GONE))
            return
        adapter = self._pools.get(name)
        if adapter is None:
            text = (
                f"pool {name} (master pid {entry.process.pid}) was sized from {track.size} to {entry.new} and "
                f"is not configured here: run `nicety undo` with the configuration that has [pools.{name}], or resize it by hand"
            )
            track.end(Status.FAILED, text)
            return
        adapter.probe()
        sample = adapter.read()
        if sample.master is not None and sample.master != entry.process:
            track.end(Status.VANISHED, f"pool {name} was restarted since: nothing to put back")
            self._ledger.settle(dict.fromkeys(ids_of(chain), EntryStatus.GONE))
        elif track.asked is None:
            self._ask_back(track, chain, adapter, sample, now, late)
        elif sample.size == track.size:
            track.steady = track.steady or now
            if now - track.steady >= STEADY_NS or late:
                if track.asked == track.size:
                    track.end(Status.UNCHANGED, f"pool {name} has {track.size} workers already")
                else:
                    track.end(Status.APPLIED, f"size of pool {name}: {track.asked} -> {track.size}", changed=1)
                self._ledger.settle(dict.fromkeys(ids_of(chain), EntryStatus.UNDONE))
        else:
            track.steady = None
            if late:
                text = f"pool {name} has {sample.size} workers and is on its way to {track.size}; run `nicety undo` again to check"
                track.end(Status.PARTIAL, sample.trouble or text, changed=1)

    def _ask_back(self, track: _Track, chain: Chain, adapter: PoolAdapter, sample: PoolSample, now: int, late: bool) -> None:
        """Request the old size, unless somebody else has resized the pool.

        In a running daemon the adapter knows what it asked for. After a crash a pool may have any size between those before and
        after the change; one that stays outside that range was resized by somebody else.
        """
        name, known = track.entry.key, self._asked(track.entry.key)
        sizes = [as_int(value) for entry in chain for value in (entry.original, entry.new)]
        contradicted = known is not None and known not in (*believed(chain), track.size)
        if contradicted or (not sample.trouble and not min(sizes) <= sample.size <= max(sizes)):
            track.strange = track.strange or now
            if contradicted or late or now - track.strange >= STEADY_NS * 2:
                text = f"left: somebody changed the size of pool {name} from {track.entry.new} to {sample.size}"
                track.end(Status.FOREIGN, text)
                self._ledger.settle(dict.fromkeys(ids_of(chain), EntryStatus.FOREIGN))
            return
        track.strange = None
        status, text = adapter.resize(track.size)
        if status in (Status.APPLIED, Status.UNCHANGED):
            track.asked = sample.size
        elif status is Status.FOREIGN:
            track.end(Status.FOREIGN, f"left: {text}")
            self._ledger.settle(dict.fromkeys(ids_of(chain), EntryStatus.FOREIGN))
        elif late:
            track.end(status, f"size of pool {name} could not be put back to {track.size}: {text}")

    # --- who inherited ---------------------------------------------------------------------------------------------------------

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

    def heirs_of(self, subject: Subject, chain: Chain, family: Family) -> list[tuple[Knob, Value, Entry]] | Trouble:
        """Threads that inherited our value and have no entry of their own: (knob, value, the change it is from); or why one of them
        could not be examined."""
        assert subject.process is not None
        heirs = []
        for process in (subject.process, *family.heirs(subject.process, chain)):
            found, lost = self._heirs_in(subject, chain, process)
            if isinstance(lost, Trouble):
                return lost
            heirs += found
        return heirs

    def _heirs_in(self, subject: Subject, chain: Chain, process: ProcId) -> tuple[list[tuple[Knob, Value, Entry]], Trouble | bool]:
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

    def end(self, chains: Mapping[Knob, Chain], status: EntryStatus) -> None:
        """Close the entries of knobs that are no longer ours to restore. Threads that inherited from them first get their own
        entries: nothing is changed now, and undo will find them. If not all of them can be examined or recorded, the entries stay
        open and are examined again."""
        if not chains:
            return
        adopted: list[Entry] = []
        if any(leads(knob) for knob in chains):
            scan = self._kernel.kin()
            if scan.unread is not None:
                return
            family = Family(scan.kin)
            for knob, chain in chains.items():
                heirs = self.heirs_of(subject_of(knob), chain, family) if leads(knob) else []
                if isinstance(heirs, Trouble):
                    return
                for heir, now, entry in heirs:
                    adopted.append(_adoption(entry, heir, now, original(chain), family.of(heir.process)))
        if adopted:
            try:
                self._ledger.intend(adopted)
            except LedgerError:
                return
        self._ledger.settle({number: status for chain in chains.values() for number in ids_of(chain)})

    def is_ours(self, chain: Chain, now: Value | Trouble) -> bool | Trouble:
        """Whether nobody but us changed the value, as far as can be seen; Trouble: this cannot be determined now."""
        knob = chain[-1].knob
        seen = [self._kernel.visible(knob, value) for value in believed(chain)]
        if isinstance(now, Trouble) or now in seen:
            return True
        return next((each for each in seen if isinstance(each, Trouble)), False)


@dataclass(slots=True)
class _Track:
    """A pool that is returning to its size."""

    entry: Entry
    first: Value
    asked: int | None = None  # size when the old one was requested
    steady: int | None = None  # since when it has its size, ns
    strange: int | None = None  # since when its size is one that we cannot explain, ns
    outcome: Outcome | None = None

    @property
    def size(self) -> int:
        return as_int(self.first)

    def end(self, status: Status, text: str, changed: int = 0) -> None:
        self.outcome = Outcome(self.entry.decision, status, self.entry.target, text, changed)


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


def _adoption(entry: Entry, heir: Knob, now: Value, first: Value, kin: Kin | None) -> Entry:
    """An entry for a thread that inherited the value of `entry`."""
    return Entry(
        id=0,
        boot_id=entry.boot_id,
        decision=entry.decision,
        target=entry.target,
        wall=entry.wall,
        control=entry.control,
        process=heir.process,
        thread=heir.thread,
        key="",
        session=None if kin is None else kin.session,
        group=None if kin is None else kin.group,
        since=entry.since,
        original=first,
        old=now,
        new=entry.new,
        status=EntryStatus.DONE,
    )


def leads(knob: Knob) -> bool:
    """Whether this is an inherited control of the first thread of its process."""
    return knob.control in INHERITED and knob.process is not None and knob.thread == tuple(knob.process)


def ids_of(chain: Chain) -> list[int]:
    """The ids of its entries."""
    return [entry.id for entry in chain]


def _birth(process: ProcId) -> tuple[int, int]:
    return process.start_ticks, process.pid


def _id(entry: Entry) -> int:
    return entry.id


def as_int(value: Value) -> int:
    """The value of a control that has numbers."""
    assert isinstance(value, int)
    return value


def name_of_entry(entry: Entry) -> str:
    """What an entry changed, for people."""
    whose = entry.control in INHERITED or entry.control is Control.FENCE
    return name_of(entry.control, entry.process if whose else None, entry.key)


def name_of(control: Control, process: ProcId | None, key: str) -> str:
    """The name of a subject, for people. `key`: of a fence, "" until one is planned."""
    if control is Control.FENCE and key:
        made = "; ".join(f"{file} {value}" for part in parts_of(key) for file, value in part.files.items())
        return f"fence of pid {process.pid if process is not None else '?'} ({made})"
    return f"{control} of {f'pid {process.pid}' if process is not None else key}"


def shown(value: Value) -> str:
    """5, or CPUs 0-3,6."""
    return str(value) if isinstance(value, int) else f"CPUs {cpu_list(value)}"
