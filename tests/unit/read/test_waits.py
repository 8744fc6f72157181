"""What blocked threads wait for, on directories in the form of /proc: `LinuxWaits` look by look, and its parts."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from nicety.models.anomaly.waitgraph import Halt, Thread, WaitSnapshot
from nicety.models.identity import ProcId
from nicety.scheduler.read.blocked.belongings import Belongings
from nicety.scheduler.read.blocked.budget import FRESH, SWEPT, WORKERS
from nicety.scheduler.read.blocked.channels import Channels
from nicety.scheduler.read.blocked.excuses import Excuses
from nicety.scheduler.read.blocked.heartbeats import BEATS, WORK_NS, Heartbeats
from nicety.scheduler.read.blocked.helpers import Helpers
from nicety.scheduler.read.blocked.polled import IN, OUT, POLLED, wanted
from nicety.scheduler.read.blocked.proof import Proof
from nicety.scheduler.read.blocked.records import Ask, Holds, Is, Maps, Need, Opens, Query, Seen
from nicety.scheduler.read.blocked.signals import Signals
from nicety.scheduler.read.blocked.standing import Standing, turn_of
from nicety.scheduler.read.blocked.sweep import Sweep
from nicety.scheduler.read.blocked.threads import THREADS, Threads
from nicety.scheduler.read.calls import Call
from nicety.scheduler.read.holders import FileLock
from nicety.scheduler.read.waits import LinuxWaits

MACHINE = "x86_64"
READ, FLOCK = 0, 73  # numbers of its system calls
A, B, C = ProcId(10, 7), ProcId(11, 7), ProcId(12, 7)


class Procfs:
    """Processes below a directory. Each has started at 7 ticks and has pid 1 as its parent."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "locks").write_text("")

    def process(self, pid: int, call: str = "running", threads: int = 1, state: str = "S") -> ProcId:
        """Make one with one thread, which is in this system call."""
        here = self.root / str(pid)
        for folder in ("fd", "fdinfo", f"task/{pid}"):
            (here / folder).mkdir(parents=True, exist_ok=True)
        fields = [state, "1", *("0" for _ in range(15)), str(threads), "0", "7", "0"]
        (here / "stat").write_text(f"{pid} (a (worker)) {' '.join(fields)}\n")
        (here / "maps").write_text("")
        (here / "status").write_text("SigCgt:\t0000000000000000\n")
        self.ran(pid, 3)
        self.calls(pid, call)
        return ProcId(pid, 7)

    def calls(self, pid: int, call: str) -> None:
        """Its thread is in this system call now."""
        (self.root / f"{pid}/task/{pid}/syscall").write_text(f"{call}\n")

    def ran(self, pid: int, turn: int, cpu: int = 1000, state: str = "S") -> None:
        """Its thread has had so many turns, and so many ns of CPU."""
        task = self.root / f"{pid}/task/{pid}"
        (task / "status").write_text(f"State:\t{state}\nvoluntary_ctxt_switches:\t{turn - 1}\nnonvoluntary_ctxt_switches:\t1\n")
        (task / "schedstat").write_text(f"{cpu} 0 {turn}\n")

    def opens(self, pid: int, fd: int, link: str, info: str = "") -> None:
        """It has this open."""
        (self.root / f"{pid}/fd/{fd}").symlink_to(link)
        (self.root / f"{pid}/fdinfo/{fd}").write_text(info)


@pytest.fixture
def procfs(tmp_path: Path) -> Procfs:
    return Procfs(tmp_path)


def in_call(number: int, *args: int) -> str:
    words = [*args, *(0 for _ in range(6 - len(args))), 0x7FFD0000, 0x7F000000]
    return f"{number} {' '.join(map(hex, words))}"


def reading(procfs: Procfs, process: ProcId, pipe: int, writes: int) -> None:
    """It reads one pipe and is the one that writes to another."""
    procfs.process(process.pid, in_call(READ, 3))
    procfs.opens(process.pid, 3, f"pipe:[{pipe}]")
    procfs.opens(process.pid, 4, f"pipe:[{writes}]")


def look(waits: LinuxWaits, *still: ProcId) -> WaitSnapshot:
    return waits.look(dict.fromkeys(still, 1), sorted(still), (), ())


def query(number: int = 1, *still: ProcId) -> Query:
    return Query(number, dict.fromkeys(still, 1), sorted(still), frozenset(still), ())


def test_workers_that_read_what_each_other_should_write_are_stuck_and_sure_once_all_processes_were_asked(procfs: Procfs) -> None:
    reading(procfs, A, 1, writes=2)
    reading(procfs, B, 2, writes=1)
    waits = LinuxWaits(procfs.root, MACHINE)
    first, second = look(waits, A, B), look(waits, A, B)
    for seen in (first, second):
        assert [(halt.thread, halt.turn, halt.helpers) for halt in seen.halts] == [
            (Thread(A, 10), 3, (A, B)),
            (Thread(B, 11), 3, (A, B)),
        ]
        assert [halt.what for halt in seen.halts] == ["reading pipe 1", "reading pipe 2"]
        assert seen.whole == seen.roots == {A, B}
    assert [halt.sure for halt in (*first.halts, *second.halts)] == [False, False, True, True]


def test_a_worker_that_ran_again_is_not_stuck_although_it_was_proved_before(procfs: Procfs) -> None:
    reading(procfs, A, 1, writes=2)
    reading(procfs, B, 2, writes=1)
    waits = LinuxWaits(procfs.root, MACHINE)
    assert [halt.sure for _ in range(3) for halt in look(waits, A, B).halts][-2:] == [True, True]
    procfs.ran(11, 4)
    assert look(waits, A, B).halts == ()


def test_workers_are_not_stuck_if_a_process_that_proceeds_has_the_other_end_open(procfs: Procfs) -> None:
    reading(procfs, A, 1, writes=2)
    reading(procfs, B, 2, writes=1)
    procfs.process(12)
    procfs.opens(12, 9, "pipe:[1]")
    waits = LinuxWaits(procfs.root, MACHINE)
    looks = [look(waits, A, B) for _ in range(3)]
    assert [len(seen.halts) for seen in looks] == [2, 0, 0]
    assert not any(halt.sure for halt in looks[0].halts)


def test_the_holder_of_a_flock_is_found_by_the_lock_on_its_open_file(procfs: Procfs) -> None:
    lines = []
    for process, own, other in ((A, 100, 200), (B, 200, 100)):
        procfs.process(process.pid, in_call(FLOCK, 4, 2))
        held = f"FLOCK  ADVISORY  WRITE {process.pid} 00:01:{own} 0 EOF"
        procfs.opens(process.pid, 3, f"/srv/{own}", f"ino:\t{own}\nlock:\t1: {held}\n")
        procfs.opens(process.pid, 4, f"/srv/{other}", f"ino:\t{other}\n")
        waiter = (B if process == A else A).pid
        lines += [f"1: {held}", f"1: -> FLOCK  ADVISORY  WRITE {waiter} 00:01:{own} 0 EOF"]
    (procfs.root / "locks").write_text("\n".join(lines) + "\n")
    waits = LinuxWaits(procfs.root, MACHINE)
    look(waits, A, B)
    halts = look(waits, A, B).halts
    assert [(halt.thread.process, halt.helpers, halt.what) for halt in halts] == [
        (A, (B,), "flock on /srv/200 (inode 200)"),
        (B, (A,), "flock on /srv/100 (inode 100)"),
    ]
    assert all(halt.sure and halt.lock for halt in halts)


def test_what_was_proved_is_forgotten_at_rest(procfs: Procfs) -> None:
    reading(procfs, A, 1, writes=2)
    reading(procfs, B, 2, writes=1)
    waits = LinuxWaits(procfs.root, MACHINE)
    for _ in range(2):
        assert not any(halt.sure for halt in look(waits, A, B).halts)
        assert all(halt.sure for halt in look(waits, A, B).halts)
        waits.rest()


def test_a_process_is_not_looked_into_that_has_too_many_threads_is_stopped_or_whose_pid_is_reused(procfs: Procfs) -> None:
    def seen(process: ProcId) -> Seen:
        threads = Threads(str(procfs.root), MACHINE, Belongings(str(procfs.root)))
        threads.begin(query(5, process))
        return threads.see(process)

    reading(procfs, A, 1, writes=2)
    assert seen(A).needs == {10: Need("reading pipe 1", (Opens("pipe:[1]", 0o200),))}
    assert (seen(A).look, seen(A).lively) == (5, False)
    assert seen(ProcId(10, 8)).needs == {}
    procfs.process(10, in_call(READ, 3), threads=THREADS + 1)
    assert seen(A).needs == {}
    procfs.process(10, in_call(READ, 3), state="T")
    assert seen(A).needs == {}
    assert seen(A).lively


def test_questions_of_different_kinds_are_never_equal() -> None:
    lock = FileLock("FLOCK", 10, "00:01", 5, ("0", "EOF"), waits=False)
    asks: list[Ask] = [Is((A,)), Is((A, B)), Opens("00:01", 5), Holds(lock), Maps(("00:01", 5))]
    assert len(set(asks)) == len(asks)


# --- the sweep -----------------------------------------------------------------------------------------------------------------


def sweep_of(procfs: Procfs) -> Sweep:
    return Sweep(str(procfs.root), Belongings(str(procfs.root)))


def never(process: ProcId, ask: Ask) -> bool:
    return False


ASK = Opens("pipe:[1]", 0o200)
STUCK = (Thread(A, 10),)


def test_a_sweep_asks_so_many_processes_a_look_and_ends_when_all_were_asked(procfs: Procfs) -> None:
    for pid in range(100, 100 + SWEPT + 1):
        procfs.process(pid)
    procfs.opens(100 + SWEPT, 3, "pipe:[1]")
    sweep = sweep_of(procfs)
    answered = []
    for number in (1, 2):
        sweep.begin(query(number, A))
        sweep.go_on({ASK: 1}, STUCK, never)
        answered.append((sweep.answered(ASK), set(sweep.found(ASK))))
    assert answered == [(False, set()), (True, {ProcId(100 + SWEPT, 7)})]
    assert sweep.answered(ASK, 2)
    assert not sweep.answered(ASK, 3)


def test_a_process_born_during_a_sweep_is_asked_too(procfs: Procfs) -> None:
    procfs.process(100)
    procfs.opens(100, 3, "pipe:[1]")

    def fork(process: ProcId, ask: Ask) -> bool:
        if not (procfs.root / "101").exists():
            procfs.process(101)
            procfs.opens(101, 3, "pipe:[1]")
        return False

    sweep = sweep_of(procfs)
    sweep.begin(query(1, A))
    sweep.go_on({ASK: 1}, STUCK, fork)
    assert sweep.found(ASK) == {ProcId(100, 7), ProcId(101, 7)}


def test_one_process_that_proceeds_ends_its_question(procfs: Procfs) -> None:
    for pid in (100, 101):
        procfs.process(pid)
        procfs.opens(pid, 3, "pipe:[1]")
    sweep = sweep_of(procfs)
    sweep.begin(query(1, A))
    sweep.go_on({ASK: 1}, STUCK, lambda process, ask: True)
    assert sweep.answered(ASK)
    assert sweep.found(ASK) == {ProcId(100, 7)}  # the one closest to the thread that is stuck


def test_an_answer_is_asked_for_again_if_it_is_older_than_what_it_must_prove_and_forgotten_after_a_while(procfs: Procfs) -> None:
    sweep = sweep_of(procfs)
    for number, since, expected in ((1, 1, 1), (2, 1, 1), (3, 3, 3)):
        sweep.begin(query(number, A))
        sweep.go_on({ASK: since}, STUCK, never)
        assert sweep.answered(ASK, expected)
        assert not sweep.answered(ASK, expected + 1)
    for number, known in ((3 + FRESH - 1, True), (3 + FRESH, False)):
        sweep.begin(query(number, A))
        sweep.go_on({}, (), never)
        assert sweep.answered(ASK) == known


# --- standing still, and the proof ---------------------------------------------------------------------------------------------


def test_the_turn_of_a_thread_counts_only_while_it_sleeps(procfs: Procfs) -> None:
    procfs.process(10)
    procfs.ran(10, 8)
    assert turn_of(str(procfs.root), Thread(A, 10)) == 8
    procfs.ran(10, 8, state="R")
    assert turn_of(str(procfs.root), Thread(A, 10)) is None
    assert turn_of(str(procfs.root), Thread(B, 11)) is None


def halt(process: ProcId, turn: int, *helpers: ProcId) -> Halt:
    return Halt(Thread(process, process.pid), turn, "", helpers, None, named=True, sure=False)


def test_a_thread_stands_still_since_the_last_look_in_which_it_or_a_helper_had_run(procfs: Procfs) -> None:
    procfs.process(11)
    standing = Standing(str(procfs.root))

    def since(number: int, turn: int) -> int:
        own = halt(A, turn, B)
        standing.begin(number)
        standing.keep({own.thread: own})
        return standing.since(own)

    assert [since(1, 5), since(2, 5), since(3, 6), since(4, 6)] == [1, 1, 3, 3]
    standing.note(B, [11])
    assert standing.since(halt(A, 6, B)) == 4


def test_nothing_is_sure_before_all_processes_were_asked_after_all_stood_still(procfs: Procfs) -> None:
    sweep, standing = sweep_of(procfs), Standing(str(procfs.root))
    proof = Proof(str(procfs.root), standing)
    own = halt(A, 5)

    def sure(number: int, asked: bool) -> bool:
        seen = {A: Seen(number, {10: Need("", (ASK,))})}
        sweep.begin(query(number, A))
        standing.begin(number)
        (found,) = proof.sure({own.thread: own}, seen, sweep).values()
        if asked:
            sweep.go_on(proof.questions({own.thread: own}, seen), STUCK, never)
        return found.sure

    assert [sure(1, asked=False), sure(2, asked=True), sure(3, asked=True)] == [False, False, True]
    kept = proof.kept(A)
    assert kept is not None
    assert kept[1][0].sure
    proof.rest()
    assert proof.kept(A) is None


def test_nothing_is_sure_that_was_read_before_all_stood_still(procfs: Procfs) -> None:
    sweep, standing = sweep_of(procfs), Standing(str(procfs.root))
    proof = Proof(str(procfs.root), standing)
    own = halt(A, 5, A)
    found: list[Halt] = []
    for number in (1, 2):
        standing.begin(number)
        found += proof.sure({own.thread: own}, {A: Seen(number, {10: Need("", (Is((A,)),))})}, sweep).values()
    assert [each.sure for each in found] == [False, True]


# --- heartbeats ----------------------------------------------------------------------------------------------------------------


def beats(procfs: Procfs, ran: Callable[[int], None], where: Callable[[int], tuple[str, int] | None]) -> list[bool]:
    procfs.process(10)
    heartbeats = Heartbeats(str(procfs.root))
    found = []
    for number in range(1, BEATS + 3):
        ran(number)
        heartbeats.begin(number)
        found.append(heartbeats.ticks(Thread(A, 10), where(number)))
    return found


SLEEPS = ("clock_nanosleep", 0x7FFD)


def test_a_thread_ticks_that_woke_between_enough_looks(procfs: Procfs) -> None:
    assert beats(procfs, lambda number: procfs.ran(10, number), lambda _: SLEEPS) == [False] * BEATS + [True] * 2


def test_a_thread_does_not_tick_that_never_woke_or_works_or_waits_at_another_place(procfs: Procfs) -> None:
    never_ticks = [False] * (BEATS + 2)
    assert beats(procfs, lambda _: procfs.ran(10, 5), lambda _: SLEEPS) == never_ticks
    assert beats(procfs, lambda number: procfs.ran(10, number, cpu=3 * number * WORK_NS), lambda _: SLEEPS) == never_ticks
    assert beats(procfs, lambda number: procfs.ran(10, number), lambda number: ("futex", number)) == never_ticks


def test_a_thread_that_was_once_found_running_may_still_tick(procfs: Procfs) -> None:
    found = beats(procfs, lambda number: procfs.ran(10, number), lambda number: None if number == 3 else SLEEPS)
    assert found == [False] * (BEATS + 1) + [True]


# --- which workers are looked into ---------------------------------------------------------------------------------------------


def helpers_of(procfs: Procfs, asked: Query) -> Helpers:
    proc = str(procfs.root)
    belongings = Belongings(proc)
    return Helpers(asked, Threads(proc, MACHINE, belongings), belongings, Sweep(proc, belongings), Proof(proc, Standing(proc)))


def test_of_many_workers_some_are_looked_into_in_turn_until_all_were() -> None:
    workers = [ProcId(pid, 7) for pid in range(1, 2 * WORKERS + 1)]
    excuses = Excuses()
    roots = []
    for number in (1, 2):
        excuses.begin(query(number, *workers))
        roots += excuses.roots()
    assert roots == workers


def test_a_worker_is_excused_by_what_proceeds_until_it_runs_or_a_while_has_passed(procfs: Procfs) -> None:
    excuses = Excuses()
    first = query(1, A)
    excuses.begin(first)
    helpers = helpers_of(procfs, first)
    helpers.seen |= {A: Seen(1, {10: Need("", (Is((C,)),))}), C: Seen(1, {12: None})}
    excuses.remember(excuses.roots(), {}, helpers)
    last = FRESH + A.pid % FRESH
    for number, since, roots, excusers in ((2, 1, [], [C]), (2, 9, [A], []), (last, 1, [], [C]), (last + 1, 1, [A], [])):
        excuses.begin(Query(number, {A: since}, (A,), {A}, ()))
        assert (excuses.roots(), excuses.excusers()) == (roots, excusers)


def test_a_worker_that_was_stuck_is_looked_into_each_time(procfs: Procfs) -> None:
    excuses = Excuses()
    first = query(1, A)
    excuses.begin(first)
    helpers = helpers_of(procfs, first)
    helpers.seen[A] = Seen(1, {10: Need("", (Is((A,)),))})
    own = halt(A, 5, A)
    excuses.remember([A], {own.thread: own}, helpers)
    workers = [ProcId(pid, 7) for pid in range(100, 100 + 2 * WORKERS)]
    for number in (2, 3):
        excuses.begin(query(number, *workers, A))
        assert excuses.roots()[0] == A
        assert len(excuses.roots()) == WORKERS + 1


# --- polled descriptors --------------------------------------------------------------------------------------------------------


def call(name: str, *args: int) -> Call:
    return Call(name, (*args, *(0 for _ in range(6 - len(args)))))


def test_the_descriptors_of_poll_select_and_epoll_are_read_with_what_they_wait_for(tmp_path: Path) -> None:
    polled = struct.pack("=ihhihhihh", 5, IN, 0, -1, IN, 0, 6, IN | OUT, 0)
    reads, writes = (1 << 3 | 1 << 9).to_bytes(8, "little"), (1 << 4).to_bytes(8, "little")
    (tmp_path / "mem").write_bytes(bytes(8) + polled + reads + writes)
    (tmp_path / "fdinfo").mkdir()
    (tmp_path / "fdinfo/7").write_text("pos:\t0\ntfd:        5 events:       19 data: 5\ntfd: 6 events: 4 data: 6\n")
    at = 8 + len(polled)
    assert wanted(str(tmp_path), 10, call("poll", 8, 3, 0xFFFFFFFF)) == [(5, IN), (6, IN | OUT)]
    assert wanted(str(tmp_path), 10, call("select", 10, at, at + 8)) == [(3, IN), (9, IN), (4, OUT)]
    assert wanted(str(tmp_path), 10, call("epoll_wait", 7, 0, 0, 0xFFFFFFFF)) == [(5, 0x19), (6, OUT)]
    assert wanted(str(tmp_path), 10, call("poll", 8, POLLED + 1, 0xFFFFFFFF)) == []
    assert wanted(str(tmp_path), 10, call("poll", 0, 3, 0xFFFFFFFF)) == []
    assert wanted(str(tmp_path), 10, call("pause")) == []


def test_a_call_that_polls_needs_all_its_descriptors_to_be_pipes_of_others_and_no_time_limit(procfs: Procfs) -> None:
    procfs.process(10)
    procfs.opens(10, 5, "pipe:[1]")
    procfs.opens(10, 6, "pipe:[2]")
    procfs.opens(10, 7, "/dev/null")
    proc = str(procfs.root)
    channels = Channels(proc, Belongings(proc), Signals(proc))

    def need(*fds: int, limit: int = 0xFFFFFFFF) -> Need | None:
        raw = b"".join(struct.pack("=ihh", fd, IN, 0) for fd in fds)
        (procfs.root / "10/mem").write_bytes(bytes(8) + raw)
        return channels.many(A, 10, call("poll", 8, len(fds), limit))

    assert need(5, 6) == Need("reading pipe 1 or 1 more", (Opens("pipe:[1]", 0o200), Opens("pipe:[2]", 0o200)))
    assert need(5, 7) is None
    assert need(5, limit=1000) is None
