"""The uWSGI adapter beside a uWSGI that is played: this process is the master, its workers are real children that only sleep."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nicety.models.identity import ProcId
from nicety.models.records import PoolSample
from nicety.scheduler.config.sections import ConfigError, PoolConfig, parse
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.pools.build import build
from nicety.scheduler.pools.uwsgi import adapter as uwsgi
from nicety.scheduler.pools.uwsgi.adapter import UwsgiPool
from nicety.scheduler.pools.uwsgi.options import options, other_algorithm
from nicety.scheduler.testing.acts import own_acts
from nicety.scheduler.testing.clock import FakeClock

SECOND = 1_000_000_000
ROOM = 6


class PlayedUwsgi:
    """A stats socket, a FIFO and places for workers. Obeys + and - as uWSGI does, unless it is told not to."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(monotonic=1000 * SECOND, on_sleep=lambda _: time.sleep(0.0002))  # for workers time is real
        self.pid = os.getpid()
        self.obeys = True
        self.raw: bytes | None = None  # an answer instead of the true one
        self.mute = False
        self.version = "2.0.21-debian"
        self.commands: list[str] = []
        self._waiting = 0  # - that have found nobody idle
        self.places: list[dict[str, Any]] = [
            {"id": 0, "pid": 0, "status": "cheap", "last_spawn": 0, "respawn_count": 0, "accepting": 0} for _ in range(ROOM)
        ]
        for place in self.places:
            place["cores"] = [{"in_request": 0}]
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(folder / "stats.sock"))
        self._server.listen(8)
        self._server.setblocking(False)
        self._fifo_path = folder / "fifo"
        os.mkfifo(self._fifo_path, 0o600)
        self._fifo = os.open(self._fifo_path, os.O_RDONLY | os.O_NONBLOCK)
        self.config = PoolConfig(
            kind="uwsgi", stats=str(folder / "stats.sock"), fifo=str(self._fifo_path), pid=self.pid, maximum=ROOM
        )
        self.pool = UwsgiPool("web", self.config, self.clock, own_acts("web", self.config, self.clock))

    def spawn(self, number: int, **changes: Any) -> int:
        """A worker in a place. Its pid."""
        return self.adopt(number, subprocess.Popen(["sleep", "1000"]), **changes)

    def adopt(self, number: int, child: subprocess.Popen[bytes], **changes: Any) -> int:
        """This one is the worker in a place. Its pid."""
        self._children[child.pid] = child
        place = self.places[number - 1]
        place["respawn_count"] += 1
        place |= {"id": number, "pid": child.pid, "status": "idle", "accepting": 1} | changes
        return child.pid

    def end(self, number: int) -> None:
        """The worker in a place ends, and the place is free."""
        place = self.places[number - 1]
        self.reap(place["pid"])
        place |= {"pid": 0, "status": "cheap", "accepting": 0}

    def reap(self, pid: int) -> None:
        child = self._children.pop(pid)
        child.kill()
        child.wait()

    def busy(self, number: int, working: bool = True) -> None:
        self.places[number - 1] |= {"cores": [{"in_request": int(working)}], "status": "busy" if working else "idle"}

    def second(self) -> PoolSample:
        """Ten probes, then the turn of the master, which obeys once a second."""
        for _ in range(10):
            self.pool.probe()
            self.answer()
            self.clock.advance(SECOND // 10)
        try:
            heard = os.read(self._fifo, 100).decode()
        except BlockingIOError:
            heard = ""
        if heard:
            self.commands.append(heard)
        if self.obeys:
            self.obey(heard.count("+") - heard.count("-"))
        return self.pool.read()

    def obey(self, change: int) -> None:
        """As uwsgi_calc_cheaper does it: the oldest that are idle go; what finds nobody idle waits."""
        change, self._waiting = change + self._waiting, 0
        for _ in range(-change):
            idle = [place for place in self.places if place["status"] == "idle" and place["pid"]]
            if idle:
                self.end(min(idle, key=lambda place: place["last_spawn"])["id"])
            else:
                self._waiting -= 1
        for _ in range(change):
            number = next((n for n, place in enumerate(self.places, 1) if place["status"] == "cheap" and not place["pid"]), 0)
            if number:
                self.spawn(number, last_spawn=self.clock.monotonic() // SECOND)

    def answer(self) -> None:
        """To all who ask."""
        if self.mute:
            return
        while True:
            try:
                client, _ = self._server.accept()
            except BlockingIOError:
                return
            with client, contextlib.suppress(BrokenPipeError):  # who asked may have hung up
                facts = {"version": self.version, "pid": self.pid, "workers": self.places}
                client.sendall(json.dumps(facts).encode() if self.raw is None else self.raw)

    def seconds(self, count: int) -> PoolSample:
        """The last sample of so many."""
        return [self.second() for _ in range(count)][-1]

    def until(self, condition: Callable[[PoolSample], bool], seconds: int = 30) -> PoolSample:
        for _ in range(seconds):
            if condition(sample := self.second()):
                return sample
        raise AssertionError(self.second())

    def close(self) -> None:
        self.pool.close()
        self._server.close()
        os.close(self._fifo)
        for pid in list(self._children):
            self.reap(pid)


@pytest.fixture
def played(tmp_path: Path) -> Iterator[PlayedUwsgi]:
    played = PlayedUwsgi(tmp_path)
    yield played
    played.close()


def up(played: PlayedUwsgi, count: int) -> PoolSample:
    for number in range(1, count + 1):
        played.spawn(number, last_spawn=number)
    return played.until(lambda s: s.size == count and not s.trouble)


# --- what is there -------------------------------------------------------------------------------------------------------------


def test_a_sample_says_what_the_stats_say(played: PlayedUwsgi) -> None:
    up(played, 2)
    played.busy(2)
    played.places[0]["cores"] = [{"in_request": 1}, {"in_request": 0}]
    played.second()
    sample = played.second()
    assert (sample.size, sample.requested, sample.queued) == (2, 2, 0.0), "our own question is no waiting request"
    assert sample.master is not None
    assert sample.master.pid == os.getpid()
    busy = {worker.id.pid: worker.busy for worker in sample.workers}
    assert busy == {played.places[0]["pid"]: 0.5, played.places[1]["pid"]: 1.0}


def test_a_worker_is_ready_when_it_accepts_and_only_then_its_start_is_measured(played: PlayedUwsgi) -> None:
    assert up(played, 1).start_seconds is None, "it was there before us"
    played.obeys = False
    played.pool.resize(2)
    played.second()
    played.spawn(2, accepting=0)
    sample = played.until(lambda s: s.size == 2)
    assert [worker.ready for worker in sample.workers].count(True) == 1
    assert sample.start_seconds is None
    played.places[1]["accepting"] = 1
    sample = played.second()
    assert all(worker.ready for worker in sample.workers)
    assert sample.start_seconds is not None
    assert 0.0 <= sample.start_seconds < 60.0


def test_a_worker_that_was_started_again_in_its_place_is_another(played: PlayedUwsgi) -> None:
    before = up(played, 2)
    old = played.places[0]["pid"]
    played.reap(old)
    played.places[0]["pid"] = 0  # dead, and about to be started again
    assert played.second().trouble == ""
    played.spawn(1)
    after = played.until(lambda s: s.size == 2)
    assert (after.trouble, after.requested) == ("", 2)
    assert {w.id.pid for w in before.workers} - {w.id.pid for w in after.workers} == {old}


def test_a_process_that_is_no_child_of_the_master_is_no_worker(played: PlayedUwsgi) -> None:
    up(played, 1)
    played.places[1] |= {"pid": 1, "status": "idle", "accepting": 1}
    assert 1 not in {worker.id.pid for worker in played.second().workers}


# --- sizing --------------------------------------------------------------------------------------------------------------------


def test_all_missing_workers_are_asked_for_at_once(played: PlayedUwsgi) -> None:
    up(played, 1)
    assert played.pool.resize(4)[0] is Status.APPLIED
    played.until(lambda s: s.size == 4)
    played.second()
    assert played.commands == ["+++"]


def test_workers_go_one_after_the_other_each_when_the_last_is_seen_to(played: PlayedUwsgi) -> None:
    up(played, 4)
    played.pool.resize(1)
    sizes = [played.second().size for _ in range(8)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert played.commands == ["-", "-", "-"]


def test_growing_waits_for_a_free_place(played: PlayedUwsgi) -> None:
    up(played, ROOM)
    played.obeys = False
    played.pool.resize(ROOM - 1)
    played.second()
    played.second()
    assert played.commands == ["-"]
    played.places[0]["status"] = "cheap"  # obeyed; it drains
    played.second()
    played.pool.resize(ROOM)
    played.second()
    played.second()
    assert played.commands == ["-"], "no place is free"
    played.end(1)
    played.obeys = True
    played.until(lambda s: s.size == ROOM)
    assert played.commands == ["-", "+"]


def test_nobody_is_told_to_go_while_all_are_busy(played: PlayedUwsgi) -> None:
    up(played, 3)
    for number in (1, 2, 3):
        played.busy(number)
    played.second()
    played.pool.resize(2)
    for _ in range(20):
        assert played.second().size == 3
    assert played.commands == []
    played.busy(2, working=False)
    sample = played.until(lambda s: s.size == 2)
    assert (played.commands, sample.trouble) == (["-"], "")
    assert played.places[1]["pid"] == 0


def test_a_command_that_waits_for_an_idle_worker_is_not_taken_for_lost(played: PlayedUwsgi) -> None:
    up(played, 2)
    played.pool.resize(1)
    for number in (1, 2):
        played.busy(number)  # just before the master looks
    sample = played.seconds(30)
    assert played.commands == ["-"], "a second one would take a second worker"
    assert (sample.size, sample.trouble) == (2, "")
    played.busy(1, working=False)
    played.until(lambda s: s.size == 1)
    sample = played.seconds(10)
    assert (sample.size, sample.trouble, played.commands) == (1, "", ["-"])


@pytest.mark.parametrize("obeyed", [False, True])
def test_a_command_that_waits_is_cancelled_when_it_is_no_longer_wanted(played: PlayedUwsgi, obeyed: bool) -> None:
    up(played, 3)
    played.pool.resize(2)
    for number in (1, 2, 3):
        played.busy(number)
    played.second()
    if obeyed:
        played.busy(2, working=False)
        played.obey(0)  # after the last answer, and before the next command
    played.pool.resize(4)
    sample = played.seconds(8)
    assert (sample.size, sample.requested, sample.trouble) == (4, 4, "")
    assert "".join(played.commands) == "-++"
    played.pool.resize(3)
    played.until(lambda s: s.size == 3)


def test_a_cancelled_command_that_was_obeyed_after_all_is_nobodys_hand(played: PlayedUwsgi) -> None:
    up(played, 3)
    played.pool.resize(2)
    for number in (1, 2, 3):
        played.busy(number)
    played.second()
    played.pool.resize(3)
    for _ in range(3):  # the + is written, and answers come that do not show it yet
        played.pool.probe()
        played.answer()
        played.clock.advance(SECOND // 10)
    played.busy(2, working=False)
    played.obey(0)
    sample = played.seconds(8)
    assert (sample.size, sample.requested, sample.trouble) == (3, 3, "")
    assert "".join(played.commands) == "-+"


@pytest.mark.parametrize("cores", [0, 2])
def test_threads_are_not_sized_by_a_version_that_cancels_them(played: PlayedUwsgi, cores: int) -> None:
    for place in played.places:
        place["cores"] = [{"in_request": 0}] * cores
    played.spawn(1)
    sample = played.until(lambda s: s.size == 1)
    assert "uWSGI 2.0.21-debian loses requests of workers with threads" in sample.trouble
    assert played.pool.resize(2) == (Status.REFUSED, sample.trouble)
    assert played.pool.recycle(sample.workers[0].id) == (Status.REFUSED, sample.trouble)


def test_threads_are_told_from_an_event_loop(played: PlayedUwsgi) -> None:
    played.version = "2.0.28"
    for place in played.places:
        place["cores"] = [{"in_request": 0}] * 2
    script = (
        "import threading, time; threading.Thread(target=time.sleep, args=(9999,)).start(); print(flush=True); time.sleep(9999)"
    )
    with_thread = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    played.adopt(1, with_thread)
    assert with_thread.stdout is not None
    with_thread.stdout.readline()
    with_thread.stdout.close()
    played.until(lambda s: s.size == 1 and not s.trouble)
    played.spawn(2)  # has one thread
    played.until(lambda s: "an event loop" in s.trouble)
    assert played.pool.resize(1)[0] is Status.REFUSED


def test_a_version_that_takes_busy_workers_away_is_not_sized(played: PlayedUwsgi) -> None:
    played.version = "2.0.15-debian"
    played.spawn(1)
    sample = played.until(lambda s: s.size == 1)
    assert "uWSGI 2.0.15-debian takes away workers that are at a request" in sample.trouble
    assert played.pool.resize(2)[0] is Status.REFUSED


def test_impossible_sizes_are_refused(played: PlayedUwsgi) -> None:
    up(played, 2)
    status, text = played.pool.resize(ROOM + 1)
    assert status is Status.REFUSED
    assert f"room for {ROOM} workers" in text
    assert "raise `processes`" in text
    assert played.pool.resize(0)[0] is Status.REFUSED
    assert played.pool.resize(2)[0] is Status.UNCHANGED


def test_a_master_that_does_not_obey_is_reported_with_the_lines_to_configure(played: PlayedUwsgi) -> None:
    up(played, 2)
    played.obeys = False
    played.pool.resize(3)
    sample = played.until(lambda s: bool(s.trouble), seconds=40)
    assert "cheaper = 1, cheaper-algo = manual, master-fifo = " in sample.trouble
    assert len(played.commands) == uwsgi.RETRIES + 1
    assert played.pool.resize(4) == (Status.FAILED, sample.trouble)
    assert sample.requested == 2, "nothing was given up half-way"


def test_a_lost_command_is_sent_again(played: PlayedUwsgi) -> None:
    up(played, 2)
    played.obeys = False
    played.pool.resize(3)
    played.second()
    played.second()
    assert played.commands == ["+"]
    played.obeys = True
    sample = played.until(lambda s: s.size == 3)
    assert played.commands == ["+", "+"]
    assert sample.trouble == ""


@pytest.mark.parametrize("by", [-1, 1])
def test_a_pool_resized_by_hand_is_left_alone_until_it_was_quiet_for_a_minute(played: PlayedUwsgi, by: int) -> None:
    up(played, 3)
    played.obey(by)
    sample = played.until(lambda s: bool(s.trouble), seconds=3)
    assert "by somebody else (3 were asked for)" in sample.trouble
    assert sample.requested == 3 + by, "the operator's size is the size"
    assert played.pool.resize(5) == (Status.FOREIGN, sample.trouble)
    played.seconds(30)
    played.obey(by)  # and once more: quiet begins anew
    quiet = 0
    while played.second().trouble:
        quiet += 1
    assert 58 <= quiet <= 62
    assert played.commands == []
    assert played.pool.resize(4)[0] is Status.APPLIED
    played.until(lambda s: s.size == 4 and s.requested == 4)


def test_a_hand_is_seen_while_a_command_is_under_way(played: PlayedUwsgi) -> None:
    up(played, 3)
    played.obeys = False
    played.pool.resize(4)
    played.second()
    played.obey(3)
    sample = played.until(lambda s: bool(s.trouble), seconds=3)
    assert "resized to 6 workers by somebody else (4 were asked for)" in sample.trouble


def test_a_paused_uwsgi_is_left_alone(played: PlayedUwsgi) -> None:
    up(played, 2)
    for place in played.places[:2]:
        place["status"] = "pause"
    sample = played.until(lambda s: bool(s.trouble))
    assert "paused by hand" in sample.trouble
    assert played.pool.resize(3)[0] is Status.FOREIGN


# --- trouble -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.0 200 OK\r\n\r\n", b"hello", b"[]", b'{"pid": 1'])
def test_an_answer_that_makes_no_sense_is_trouble_and_passes(played: PlayedUwsgi, raw: bytes) -> None:
    up(played, 2)
    played.raw = raw
    sample = played.second()
    assert "stats socket" in sample.trouble
    assert sample.size == 2, "the workers are still there"
    assert played.pool.resize(3) == (Status.REFUSED, sample.trouble)
    played.raw = None
    sample = played.until(lambda s: not s.trouble)
    assert played.pool.resize(3)[0] is Status.APPLIED


def test_a_mute_uwsgi_is_trouble_and_its_dead_are_dropped(played: PlayedUwsgi) -> None:
    up(played, 2)
    played.mute = True
    sample = played.until(lambda s: bool(s.trouble), seconds=5)
    assert "does not answer within 2 s" in sample.trouble
    assert [worker.busy for worker in sample.workers] == [None, None]
    played.reap(played.places[0]["pid"])
    assert [w.id.pid for w in played.until(lambda s: s.size == 1).workers] == [played.places[1]["pid"]]


def test_stats_of_another_uwsgi_are_not_believed(played: PlayedUwsgi) -> None:
    for number in (1, 2):
        played.spawn(number)
    played.pid = 4711
    sample = played.until(lambda s: "pid 4711" in s.trouble)
    assert f"not for {os.getpid()}: correct stats, pidfile or pid" in sample.trouble
    assert sample.size == 0
    assert played.pool.resize(3)[0] is Status.REFUSED
    assert played.commands == []


def attempt(played: PlayedUwsgi, fifo: Path) -> str:
    """What is said of a FIFO when a size is asked for."""
    played.pool.close()
    config = PoolConfig(kind="uwsgi", stats=played.config.stats, fifo=str(fifo), pid=played.pid, maximum=ROOM)
    played.pool = UwsgiPool("web", config, played.clock, own_acts("web", config, played.clock))
    played.until(lambda s: s.requested == 2 and not s.trouble)
    played.pool.resize(3)
    return played.until(lambda s: bool(s.trouble)).trouble


def test_what_is_no_fifo_of_this_master_gets_nothing(played: PlayedUwsgi, tmp_path: Path) -> None:
    up(played, 2)
    file = tmp_path / "file"
    file.write_bytes(b"precious")
    assert "is no FIFO: nothing is written to it" in attempt(played, file)
    assert file.read_bytes() == b"precious"
    assert "there is no FIFO" in attempt(played, tmp_path / "nothing")
    unread = tmp_path / "unread"
    os.mkfifo(unread)
    assert "nobody reads FIFO" in attempt(played, unread)
    script = (
        "import os, sys; fifo = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK); print(flush=True); sys.stdin.read(); "
        "print(os.read(fifo, 9))"
    )
    stranger = subprocess.Popen(
        [sys.executable, "-c", script, str(unread)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    master = subprocess.Popen(["sleep", "1000"])
    try:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        played.pid = master.pid
        assert f"is not read by uWSGI's master, pid {master.pid}" in attempt(played, unread)
        assert stranger.communicate("")[0].strip() == "b''", "another uWSGI must not be resized"
    finally:
        for process in (stranger, master):
            process.kill()
            process.wait()


def test_a_master_that_ends_and_one_that_takes_its_place(played: PlayedUwsgi, tmp_path: Path) -> None:
    up(played, 2)
    first, second = (subprocess.Popen(["sleep", "1000"]) for _ in range(2))
    pidfile = tmp_path / "pid"
    try:
        played.pool.close()
        config = PoolConfig(kind="uwsgi", stats=played.config.stats, fifo=played.config.fifo, pidfile=str(pidfile))
        played.pool = UwsgiPool("web", config, played.clock, own_acts("web", config, played.clock))
        assert "does not exist: start uWSGI with pidfile = " in played.second().trouble
        pidfile.write_text("not a pid\n", encoding="ascii")
        assert "holds 'not a pid'" in played.until(lambda s: "holds" in s.trouble).trouble
        pidfile.write_text(f"{first.pid}\n", encoding="ascii")
        played.pid = first.pid
        played.until(lambda s: s.master is not None and s.master.pid == first.pid and not s.trouble)
        first.kill()
        first.wait()
        sample = played.second()
        assert (sample.master, sample.size, sample.queued) == (None, 0, None)
        assert played.pool.resize(3) == (Status.REFUSED, sample.trouble)
        assert f"pid {first.pid}, which does not run" in played.until(lambda s: "stale" in s.trouble).trouble
        pidfile.write_text(f"{second.pid}\n", encoding="ascii")
        played.pid = second.pid
        played.until(lambda s: s.master is not None and s.master.pid == second.pid and not s.trouble)
    finally:
        for process in (first, second):
            process.kill()
            process.wait()


def test_a_master_that_hands_over_while_it_still_runs(played: PlayedUwsgi, tmp_path: Path) -> None:
    """What was believed of the old one, and who resized it, does not count for the new one."""
    up(played, 3)
    heir, pidfile = subprocess.Popen(["sleep", "1000"]), tmp_path / "pid"
    try:
        played.pool.close()
        pidfile.write_text(f"{played.pid}\n", encoding="ascii")
        config = PoolConfig(kind="uwsgi", stats=played.config.stats, fifo=played.config.fifo, pidfile=str(pidfile), maximum=ROOM)
        played.pool = UwsgiPool("web", config, played.clock, own_acts("web", config, played.clock))
        played.until(lambda s: s.requested == 3 and not s.trouble)
        played.obey(1)
        assert "by somebody else" in played.until(lambda s: bool(s.trouble)).trouble
        pidfile.write_text(f"{heir.pid}\n", encoding="ascii")
        assert f"answers for pid {played.pid}, not for {heir.pid}" in played.until(lambda s: "answers for" in s.trouble).trouble
        played.pid = heir.pid
        sample = played.until(lambda s: not s.trouble)
        assert sample.master is not None
        assert (sample.master.pid, sample.requested) == (heir.pid, 4)
        assert played.pool.resize(5)[0] is Status.APPLIED
    finally:
        heir.kill()
        heir.wait()


@pytest.mark.parametrize(
    ("arguments", "ini", "found"),
    [
        (["uwsgi", "--cheaper-algo", "spare"], "", "spare"),
        (["uwsgi", "--cheaper-algo=busyness", "--master"], "", "busyness"),
        (["uwsgi", "--cheaper-algo", "manual"], "", ""),
        (["uwsgi", "--ini", "web.ini"], "[uwsgi]\ncheaper = 2\ncheaper-algo = backlog\n", "backlog"),
        (["uwsgi", "--ini=web.ini"], "[uwsgi]\ncheaper-algo=spare2\n", "spare2"),
        (["uwsgi", "web.ini"], "[uwsgi]\ncheaper-algo = manual\n", ""),
        (["uwsgi", "web.ini"], "[uwsgi]\n; cheaper-algo = spare\n", ""),
        (["uwsgi", "missing.ini"], "", ""),
        ([], "", ""),
    ],
)
def test_a_uwsgi_that_sizes_itself_is_known_by_its_configuration(
    tmp_path: Path, arguments: list[str], ini: str, found: str
) -> None:
    process = tmp_path / "7"
    (process / "cwd").mkdir(parents=True)
    (process / "cmdline").write_bytes("\0".join([*arguments, ""]).encode())
    if ini:
        (process / "cwd" / "web.ini").write_text(ini, encoding="ascii")
    assert other_algorithm(options(tmp_path, 7)) == found


# --- recycling -----------------------------------------------------------------------------------------------------------------


def test_recycling_sends_sighup_to_the_worker_alone(played: PlayedUwsgi) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGHUP, lambda *_: sys.exit(9)); print(flush=True); time.sleep(1000)"
    child = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        child.stdout.readline()
    up(played, 2)
    played.adopt(3, child)
    sample = played.second()
    worker = next(each.id for each in sample.workers if each.id.pid == child.pid)
    assert played.pool.recycle(worker)[0] is Status.APPLIED
    assert child.wait(5) == 9
    assert played.pool.recycle(worker)[0] is Status.VANISHED
    status, text = played.pool.recycle(next(each.id for each in sample.workers if each.id.pid != child.pid))
    assert (status, text.endswith("does not catch SIGHUP, so it gets none")) == (Status.REFUSED, True)
    assert played.pool.recycle(ProcId(sample.workers[1].id.pid, 1))[0] is Status.VANISHED
    assert all(other.poll() is None for other in played._children.values() if other is not child)


REQUESTS = """
import select, signal, sys, time

waiting, inside = select.epoll(), False

def told(*_):
    print(inside, flush=True)
    sys.exit()

signal.signal(signal.SIGHUP, told)
print("ready", flush=True)
while True:
    waiting.poll(0.008)
    inside = sys.argv[1] == "busy"
    if inside:
        time.sleep(0.015)
    inside = False
"""
"""A worker that waits for a connection for 8 ms, then has a request for 15 ms; says whether SIGHUP came within one."""


@pytest.mark.parametrize(("kind", "within"), [("busy", b"True"), ("idle", b"False")])
def test_a_worker_is_told_to_go_within_a_request_if_it_has_one(played: PlayedUwsgi, kind: str, within: bytes) -> None:
    up(played, 2)
    told = []
    for _ in range(12):
        played.end(1)
        child = subprocess.Popen([sys.executable, "-c", REQUESTS, kind], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        pid = played.adopt(1, child)
        worker = next(worker.id for worker in played.second().workers if worker.id.pid == pid)
        assert played.pool.recycle(worker)[0] is Status.APPLIED
        told.append(child.communicate(timeout=10)[0].strip())
    assert told == 12 * [within]


def test_a_worker_that_leaves_or_would_drop_requests_is_not_recycled(played: PlayedUwsgi) -> None:
    up(played, 2)
    played.places[0]["cores"] = [{"in_request": 0}] * 8  # eight requests at a time in one thread: an event loop
    sample = played.second()
    by_pid = {worker.id.pid: worker.id for worker in sample.workers}
    status, text = played.pool.recycle(by_pid[played.places[0]["pid"]])
    assert status is Status.REFUSED
    assert "event loop" in text
    played.places[1]["status"] = "cheap"
    played.second()
    assert played.pool.recycle(by_pid[played.places[1]["pid"]])[0] is Status.UNCHANGED


# --- configuration -------------------------------------------------------------------------------------------------------------


def test_the_configuration_asks_for_what_the_adapter_needs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse('[pools.web]\nkind = "uwsgi"\nstats = "127.0.0.1:9191"\nfifo = "relative"\nminimum = 0\n')
    assert [problem.split(": ", 2)[2] for problem in caught.value.problems] == [
        'a uwsgi pool needs its master: give pidfile = "..." (uWSGI\'s pidfile) or pid = N',
        'a uwsgi pool needs stats = "HOST:PORT" or "/PATH", and fifo = "/PATH" (uWSGI\'s stats and master-fifo)',
        "a pool of kind uwsgi keeps at least one worker: give 1 or more",
    ]
    config = parse('[pools.web]\nkind = "uwsgi"\npid = 7\nfifo = "/run/fifo"\nstats = "web.example:9191"\n')
    with pytest.raises(ConfigError, match=r"pools\.web\.stats: 'web\.example' is a name"):
        build(config, FakeClock(), state_dir=tmp_path)
    config = parse('[pools.web]\nkind = "uwsgi"\npid = 7\nfifo = "/run/fifo"\nstats = ":9191"\n')
    assert isinstance(build(config, FakeClock(), state_dir=tmp_path)["web"], UwsgiPool)
