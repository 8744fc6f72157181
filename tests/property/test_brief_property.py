"""Whatever a tree of processes does, CPU is counted once: with the process while a table has it, else with who waited for it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicety.models.features import Floats, rates
from nicety.models.records import SAMPLE, SampleTable

SECOND = 10**9
CPUS = 4


@dataclass
class Process:
    pid: int
    parent: int
    start: int
    cpu: int = 0
    collected: int = 0
    ended: bool = False


@dataclass
class Kernel:
    """Processes that fork, work, end and are waited for, as Linux accounts for it. Pid 1 is their last resort."""

    processes: dict[int, Process] = field(default_factory=lambda: {1: Process(1, 0, 0)})
    next_pid: int = 2
    now: int = 0  # clock ticks
    used: int = 0  # ns, by all that ever were

    def fork(self, pid: int) -> None:
        self.processes[self.next_pid] = Process(self.next_pid, pid, self.now)
        self.next_pid += 1

    def work(self, pid: int, ns: int) -> None:
        self.processes[pid].cpu += ns
        self.used += ns

    def end(self, pid: int) -> None:
        """Its children are init's now; it stays a zombie until it is waited for."""
        self.processes[pid].ended = True
        for child in self.processes.values():
            if child.parent == pid:
                child.parent = 1

    def wait(self, pid: int) -> None:
        for child in [it for it in self.processes.values() if it.parent == pid and it.ended]:
            self.processes[pid].collected += child.cpu + child.collected
            del self.processes[child.pid]

    def row(self, table: SampleTable, place: int, pid: int) -> None:
        it = self.processes[pid]
        row = table[place]
        row["pid"], row["ppid"], row["start_ticks"] = it.pid, it.parent, it.start
        row["cpu_ns"], row["child_cpu_ns"] = it.cpu, it.collected

    def table(self) -> SampleTable:
        made = np.zeros(len(self.processes), dtype=SAMPLE)
        for place, pid in enumerate(sorted(self.processes)):
            self.row(made, place, pid)
        return made

    def step(self, what: str, which: int, ns: int) -> None:
        """One event, of the process at that place among those that can do it."""
        living = sorted(pid for pid, it in self.processes.items() if not it.ended)
        pid = living[which % len(living)]
        if what == "fork":
            self.fork(pid)
        elif what == "work":
            self.work(pid, ns)
        elif what == "wait":
            self.wait(pid)
        elif pid != 1:
            self.end(pid)


EVENT = st.tuples(st.sampled_from(["fork", "fork", "work", "work", "end", "wait"]), st.integers(0, 50), st.integers(0, SECOND))
INTERVALS = st.lists(st.lists(EVENT, max_size=25), min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(INTERVALS)
def test_each_interval_has_exactly_the_cpu_that_was_used_in_it(intervals: list[list[tuple[str, int, int]]]) -> None:
    """Whoever ends, in whatever order, with orphans and whole branches that go between two tables."""
    kernel = Kernel()
    before = kernel.table()
    owed: Floats | None = None
    for tick, events in enumerate(intervals):
        used = kernel.used
        for event in events:
            kernel.now += 1
            kernel.step(*event)
        after = kernel.table()
        rate = rates(before, after, tick * SECOND, (tick + 1) * SECOND, kernel.now - len(events), owed=owed)
        assert (rate.brief >= 0).all()
        assert (rate.cpu.sum() + rate.brief.sum()) * SECOND == pytest.approx(kernel.used - used, abs=1e3)
        before, owed = after, rate.owed
        assert not owed.any()


@settings(max_examples=200, deadline=None)
@given(INTERVALS, st.data())
def test_tables_that_are_read_while_processes_end_never_show_more_than_the_cpus_can_do(
    intervals: list[list[tuple[str, int, int]]], data: st.DataObject
) -> None:
    kernel = Kernel()
    before = kernel.table()
    owed: Floats | None = None
    for tick, events in enumerate(intervals):
        uptime = kernel.now
        rows: list[np.void] = []
        during = data.draw(st.integers(0, len(events)))
        for event in events[:during]:
            kernel.now += 1
            kernel.step(*event)
        late = iter(events[during:])
        for pid in sorted(kernel.processes):  # in order of pid, and the machine goes on meanwhile
            if pid in kernel.processes:
                one = np.zeros(1, dtype=SAMPLE)
                kernel.row(one, 0, pid)
                rows.append(one[0])
            for event in itertools.islice(late, 1):
                kernel.now += 1
                kernel.step(*event)
        after = np.array(rows, dtype=SAMPLE)
        rate = rates(before, after, tick * SECOND, (tick + 1) * SECOND, uptime, cpus=CPUS, owed=owed)
        room = max(CPUS - float(rate.cpu.sum()), 0.0)
        assert (rate.brief >= 0).all()
        assert rate.brief.sum() <= room + 1e-9
        before, owed = after, rate.owed


@settings(max_examples=200, deadline=None)
@given(INTERVALS)
def test_who_is_gone_from_a_table_before_anybody_has_collected_it_is_counted_once(
    intervals: list[list[tuple[str, int, int]]],
) -> None:
    """A parent is read just before it waits, a child just after: over two tables it comes out right."""
    kernel = Kernel()
    before = kernel.table()
    owed: Floats | None = None
    counted = 0.0
    for tick, events in enumerate(intervals):
        for event in events:
            kernel.now += 1
            kernel.step(*event)
        whole = kernel.table()
        zombies = np.array([kernel.processes[pid].ended for pid in whole["pid"].tolist()])
        for pid in [pid for pid, it in kernel.processes.items() if not it.ended]:
            kernel.wait(pid)
        after = whole[~zombies]
        rate = rates(before, after, tick * SECOND, (tick + 1) * SECOND, kernel.now - len(events), owed=owed)
        counted += float(rate.cpu.sum() + rate.brief.sum()) * SECOND
        before, owed = after, rate.owed
    assert counted <= kernel.used + 1e3
