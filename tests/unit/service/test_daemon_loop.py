"""The loop of the daemon with fakes around it: what fails in it, at each place, and what is slow."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, Identity, PoolSample, Snapshot, WorkerSample
from nicety.scheduler import daemon as module
from nicety.scheduler.config.paths import Loaded, Paths
from nicety.scheduler.config.sections import parse
from nicety.scheduler.decision import Decision, Group, Outcome, Tick
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.knobs.slices import LONGEST, SHORTEST
from nicety.scheduler.hands.ledger import StateLock
from nicety.scheduler.service.answers import reloading
from nicety.scheduler.service.answers.control_socket import Handler
from nicety.scheduler.service.own import cost as own_cost
from nicety.scheduler.service.own import place as own_place
from nicety.scheduler.service.own.budget import LEVELS
from nicety.scheduler.service.own.ladder import Rest
from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.testing.hands import daemon_in_process

SECOND = 10**9
CONFIG = '[daemon]\nmax_failures = 3\n[store]\ntraces = true\n[pools.jobs]\nkind = "command"\ncommand = ["true"]\n'

Between = Callable[[], None] | None


class FakeSource:
    """One process, which does nothing; `slow` ns go by after each of three pieces of a read."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.slow, self.closed, self.slow_every = clock, 0, 0, 10
        self.reads: list[int] = []

    def read(self, at: int, wall: int, pools: tuple[PoolSample, ...], between: Between = None) -> Snapshot:
        self.reads.append(at)
        for _ in range(3):
            self.clock.advance(self.slow)
            if between is not None:
                between()
        table = np.zeros(1, dtype=SAMPLE)
        table["pid"], table["start_ticks"] = 4242, 7
        identities = MappingProxyType({ProcId(4242, 7): Identity("sleep", "sleep", "/", "", 0)})
        return Snapshot(at, wall, 1000, table, identities, HostSample((0,), 1 << 30, 1 << 29, None), pools)

    def close(self) -> None:
        self.closed += 1


class FakeActuator:
    """Something is always demoted, and wants a look each 80 ms."""

    mode = "act"

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.undone = clock, 0
        self.looks: list[int] = []

    def apply(self, decisions: Sequence[Decision]) -> tuple[Outcome, ...]:
        return tuple(Outcome(decision.id, Status.UNCHANGED, decision.target, "", 0) for decision in decisions)

    def settle(self) -> tuple[Outcome, ...]:
        return ()

    def undo(self) -> tuple[Outcome, ...]:
        self.undone += 1
        return ()

    def release(self, pools: Collection[str]) -> tuple[Outcome, ...]:
        assert not pools
        return ()

    def limit(self, starve_seconds: float, floor: float) -> None:
        pass

    def relieve(self, groups: Sequence[Group]) -> float | None:
        self.looks.append(self.clock.monotonic())
        return 0.08


class FakeSocket:
    """Nobody asks; waiting lets time pass."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.closed = clock, 0
        self.served: list[tuple[int, Collection[str] | None]] = []

    def serve(self, timeout_seconds: float, only: Collection[str] | None = None) -> None:
        self.clock.advance(round(timeout_seconds * 1e9))
        self.served.append((self.clock.monotonic(), only))

    def close(self) -> None:
        self.closed += 1


class FakePool:
    """A pool of one idle worker."""

    name = "jobs"

    def __init__(self) -> None:
        self.closed = 0

    def probe(self) -> None:
        pass

    def read(self) -> PoolSample:
        return PoolSample("jobs", 1, 1, 0.0, (WorkerSample(ProcId(4242, 7), 0.0, ready=True),), None, 2.0, "")

    def resize(self, size: int) -> tuple[Status, str]:
        raise NotImplementedError(size)

    def recycle(self, worker: ProcId) -> tuple[Status, str]:
        raise NotImplementedError(worker)

    def close(self) -> None:
        self.closed += 1


class Rig:
    """A daemon whose world is made of fakes. Only its files are real."""

    def __init__(self, place: Path, config: str) -> None:
        file = place / "nicety.toml"
        file.write_text(config)
        file.chmod(0o600)
        self.clock = FakeClock()
        paths = Paths(place / "state", place / "state" / "control.sock")
        self.source, self.actuator, self.socket = FakeSource(self.clock), FakeActuator(self.clock), FakeSocket(self.clock)
        self.pool = FakePool()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "open_source", lambda *_, **__: self.source)
            patch.setattr(module, "ControlSocket", self.open_socket)
            self.daemon = daemon = daemon_in_process(Loaded(parse(config), file), paths, self.clock, act=True)
        daemon._actuator._acting = self.actuator  # type: ignore[assignment]
        daemon._pools.adapters["jobs"] = self.pool
        self.events: list[str] = []
        self.watchdogs: list[int] = []
        daemon._reports.stream.event = lambda _wall, _priority, text, **_: self.events.append(text)  # type: ignore[method-assign]
        daemon._notifier.watchdog = self.ping  # type: ignore[method-assign]

    def open_socket(self, _path: Path, handlers: Mapping[str, Handler], *_: object, **__: object) -> FakeSocket:
        self.handlers = handlers
        return self.socket

    def ping(self) -> bool:
        self.watchdogs.append(self.clock.monotonic())
        return True


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    with StateLock(tmp_path / "state"):
        rigs: list[Rig] = []

        def made(config: str = CONFIG) -> Rig:
            rigs.append(Rig(tmp_path, config))
            return rigs[-1]

        yield made
        for rig in rigs:
            rig.daemon.close()


@pytest.fixture
def rig(make: Callable[..., Rig]) -> Rig:
    return make()


STEPS: dict[str, Callable[[Rig], tuple[Any, str]]] = {
    "own slice": lambda _: (own_place, "ask_for"),
    "own place": lambda _: (own_place, "stand_aside"),
    "own priority, between": lambda rig: (rig.daemon._own_place.priority, "follow"),
    "own priority, after a tick": lambda rig: (rig.daemon._own_place.priority, "ticked"),
    "probe": lambda rig: (rig.pool, "probe"),
    "relief": lambda rig: (rig.actuator, "relieve"),
    "socket": lambda rig: (rig.socket, "serve"),
    "watchdog": lambda rig: (rig.daemon._notifier, "watchdog"),
    "reload": lambda _: (reloading, "build"),
    "reload, the manager": lambda rig: (rig.daemon._notifier, "reloading"),
    "read, a pool": lambda rig: (rig.pool, "read"),
    "read": lambda rig: (rig.source, "read"),
    "record": lambda rig: (rig.daemon._sessions.traces, "append"),
    "observe, deadlocks": lambda rig: (rig.daemon._deadlocks.watch, "step"),
    "observe, lessons": lambda rig: (rig.daemon._feedback.file, "read"),
    "observe": lambda rig: (rig.daemon._sessions.observer, "tick"),
    "decide": lambda rig: (rig.daemon._sessions.engine, "step"),
    "scope": lambda rig: (rig.daemon._acting_on, "end_grants"),
    "act, earlier ones": lambda rig: (rig.actuator, "settle"),
    "act": lambda rig: (rig.daemon._actuator, "apply"),
    "log": lambda rig: (rig.daemon._sessions.log, "append"),
    "log, stream": lambda rig: (rig.daemon._reports.stream, "tick"),
    "troubles": lambda rig: (rig.daemon, "_report_troubles"),
    "budget": lambda rig: (rig.daemon._budget, "used"),
    "retraining": lambda rig: (rig.daemon._retraining, "tick"),
    "replays": lambda rig: (rig.daemon._replays, "tick"),
}


def breaks(rig: Rig, monkeypatch: pytest.MonkeyPatch, step: str, calls: Collection[int]) -> list[int]:
    """Let this step raise at these of its calls (from 0). Returns when it raised, monotonic ns. Reloads are wanted all the time
    where reloading is what breaks."""
    target, name = STEPS[step](rig)
    real, count, raised = getattr(target, name), itertools.count(), list[int]()

    def call(*arguments: Any, **named: Any) -> Any:
        if next(count) in calls:
            raised.append(rig.clock.monotonic())
            raise RuntimeError("injected")
        return real(*arguments, **named)

    monkeypatch.setattr(target, name, call)
    if step.startswith("reload"):
        plain = rig.socket.serve

        def serve(timeout_seconds: float, only: Collection[str] | None = None) -> None:
            plain(timeout_seconds, only)
            rig.daemon._signals.reload |= not raised or len(calls) > 1

        monkeypatch.setattr(rig.socket, "serve", serve)
    return raised


@pytest.mark.parametrize("step", STEPS)
def test_an_exception_of_any_step_does_not_end_the_daemon(rig: Rig, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    raised = breaks(rig, monkeypatch, step, {1})
    assert rig.daemon.run(duration=8.5) == 0
    assert len(raised) == 1
    assert rig.source.reads[-1] > raised[0], "no tick came after it"
    assert rig.daemon._latest.ticks >= len(rig.source.reads) - 1
    (told,) = (text for text in rig.events if "injected" in text)
    assert " failed (failed tick 1 of at most 3 in a row): RuntimeError: injected" in told
    assert [fault.times for fault in rig.daemon._steps.faults] == [1]
    assert rig.daemon._steps.failures == 0
    assert rig.actuator.undone == 0
    assert rig.daemon.close() is True


@pytest.mark.parametrize("step", STEPS)
def test_it_gives_up_once_a_step_failed_in_so_many_ticks_in_a_row(rig: Rig, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    began = rig.clock.monotonic()
    raised = breaks(rig, monkeypatch, step, range(10**6))
    assert rig.daemon.run(duration=60) == 1
    ticks = (rig.clock.monotonic() - began) / SECOND
    assert 2 <= ticks <= 4.5, "three ticks, the first one at once"
    assert len(raised) >= 3
    assert len([text for text in rig.events if "injected" in text]) <= 2, "told once, and at the tenth time"
    assert rig.events[-1] == "something failed in too many ticks in a row; putting everything back and giving up"
    rig.daemon.close()
    assert rig.actuator.undone == 1


def test_a_fault_now_and_then_is_no_row(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(rig, monkeypatch, "read", [number for number in range(30) if number % 3])
    assert rig.daemon.run(duration=20) == 0
    assert rig.daemon._latest.ticks == 7


def test_a_socket_that_always_fails_is_no_busy_loop(make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make(CONFIG.replace("max_failures = 3", "max_failures = 1000"))
    raised = breaks(rig, monkeypatch, "socket", range(10**6))
    assert rig.daemon.run(duration=10) == 0
    assert len(rig.source.reads) == 10
    assert len(raised) <= 10 * 25, "at most with each look for harm, and ten times a second"


CLOSING: dict[str, Callable[[Rig], tuple[Any, str]]] = {
    "notifier": lambda rig: (rig.daemon._notifier, "stopping"),
    "undo": lambda rig: (rig.actuator, "undo"),
    "own priority": lambda rig: (rig.daemon._own_place.priority, "give_back"),
    "pool": lambda rig: (rig.pool, "close"),
    "retraining": lambda rig: (rig.daemon._retraining, "close"),
    "replays": lambda rig: (rig.daemon._replays, "close"),
    "socket": lambda rig: (rig.socket, "close"),
    "decision log": lambda rig: (rig.daemon._sessions.log, "close"),
    "traces": lambda rig: (rig.daemon._sessions.traces, "close"),
    "ledger": lambda rig: (rig.daemon._actuator, "close"),
    "source": lambda rig: (rig.source, "close"),
    "deadlocks": lambda rig: (rig.daemon._deadlocks.watch, "close"),
}


@pytest.mark.parametrize("what", CLOSING)
def test_whatever_fails_at_the_end_everything_else_is_put_back_and_closed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    assert rig.daemon.run(duration=2) == 0
    done: list[str] = []
    for name, of in CLOSING.items():
        target, method = of(rig)
        real = getattr(target, method)

        def call(*arguments: Any, name: str = name, real: Callable[..., Any] = real, **named: Any) -> Any:
            done.append(name)
            result = real(*arguments, **named)
            if name == what:
                raise RuntimeError("injected")
            return result

        monkeypatch.setattr(target, method, call)
    assert rig.daemon.close() is False
    assert done == list(CLOSING)
    assert len([text for text in rig.events if text.endswith("RuntimeError: injected")]) == 1


def test_with_a_slow_stage_relief_socket_and_watchdog_wait_for_that_stage_at_most(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = 2 * SECOND
    for target, name in ((rig.daemon._sessions.observer, "tick"), (rig.daemon._sessions.engine, "step"), (rig.actuator, "apply")):
        real = getattr(target, name)

        def call(*arguments: Any, real: Callable[..., Any] = real, **named: Any) -> Any:
            rig.clock.advance(slow)
            return real(*arguments, **named)

        monkeypatch.setattr(target, name, call)
    rig.source.slow = SECOND // 2
    assert rig.daemon.run(duration=60) == 0
    assert rig.daemon._latest.ticks >= 6
    for seen in (rig.actuator.looks, [at for at, _ in rig.socket.served], rig.watchdogs):
        assert max(np.diff(seen)) <= slow + SECOND // 10
    assert rig.source.slow in np.diff(rig.actuator.looks), "nothing was looked at while the machine was read"


def test_a_tick_that_is_not_slow_is_not_interrupted(rig: Rig) -> None:
    rig.source.slow = 6_000_000
    assert rig.daemon.run(duration=5) == 0
    assert {only for _, only in rig.socket.served} == {None}


def test_during_a_tick_the_socket_answers_only_what_changes_nothing(rig: Rig) -> None:
    rig.source.slow = SECOND // 10
    assert rig.daemon.run(duration=5) == 0
    limited = {frozenset(only) for _, only in rig.socket.served if only is not None}
    assert limited == {frozenset({"status"})}


def test_ticks_that_cannot_be_on_time_are_skipped_and_counted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    observe = rig.daemon._sessions.observer.tick

    def slow_once(*arguments: Any) -> Any:
        rig.clock.advance(round(3.3 * SECOND) if len(rig.source.reads) == 3 else 0)
        return observe(*arguments)

    monkeypatch.setattr(rig.daemon._sessions.observer, "tick", slow_once)
    assert rig.daemon.run(duration=10.5) == 0
    assert [round(gap / 1e9, 2) for gap in np.diff(rig.source.reads)] == [1, 1, 4, 1, 1, 1, 1], "none is made up for"
    assert rig.handlers["status"]({})["missed_ticks"] == 3


WALLS = {5: FakeClock.START + 3600 * SECOND, 10: FakeClock.START - 3600 * SECOND, 15: 0, 20: FakeClock.START}
"""Tick -> what the wall clock is set to before it: an hour ahead, an hour back, 1970, and right again."""


def test_the_wall_clock_may_jump_and_ticks_stay_in_step(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    observe, ticks = rig.daemon._sessions.observer.tick, list[Tick]()

    def seen(*arguments: Any) -> Any:
        ticks.append(observe(*arguments))
        if len(ticks) in WALLS:
            rig.clock.set_wall(WALLS[len(ticks)])
        return ticks[-1]

    monkeypatch.setattr(rig.daemon._sessions.observer, "tick", seen)
    assert rig.daemon.run(duration=24.5) == 0
    assert gaps(rig.source.reads) == {1.0}
    assert [tick.seq for tick in ticks if tick.gap] == [0]
    assert rig.daemon._latest.missed == 0
    assert rig.daemon._steps.faults == ()
    assert min(tick.wall for tick in ticks) < 10 * SECOND, "the clock was never set"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_told_to_stop_or_reload_while_it_acts_it_finishes_the_tick_first(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    apply, told = rig.daemon._actuator.apply, list[int]()

    def interrupted(decisions: Sequence[Decision]) -> tuple[Outcome, ...]:
        if len(rig.source.reads) == 3:
            os.kill(os.getpid(), number)
            told.append(rig.daemon._latest.ticks)
        return apply(decisions)

    monkeypatch.setattr(rig.daemon._actuator, "apply", interrupted)
    session = rig.daemon._sessions.current.id
    assert rig.daemon.run(duration=6.5) == 0
    assert told == [2]
    assert rig.daemon._latest.ticks == (7 if number is signal.SIGHUP else 3)
    assert (rig.daemon._sessions.current.id != session) == (number is signal.SIGHUP)
    assert rig.actuator.undone == 0, "before its end there was nothing to put back"
    assert rig.daemon.close() is True
    assert rig.actuator.undone == 1


def test_outcomes_are_told_to_the_next_tick_and_to_no_other(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome("x", Status.FOREIGN, "somebody", "changed by hand", 0)
    settled = iter([(outcome,)])
    monkeypatch.setattr(rig.actuator, "settle", lambda: next(settled, ()))
    breaks(rig, monkeypatch, "act", {0, 1, 2})
    seen: list[tuple[Outcome, ...]] = []
    real = rig.daemon._sessions.observer.tick

    def tick(snapshot: Snapshot, outcomes: tuple[Outcome, ...], *rest: Any) -> Any:
        seen.append(outcomes)
        return real(snapshot, outcomes, *rest)

    monkeypatch.setattr(rig.daemon._sessions.observer, "tick", tick)
    rig.daemon.run(duration=2.5)
    assert seen == [(), (outcome,), ()]


def test_faults_are_in_the_status(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(rig, monkeypatch, "probe", {0, 1})
    assert rig.daemon.run(duration=3) == 0
    (fault,) = rig.handlers["status"]({})["faults"]
    assert (fault["step"], fault["error"], fault["times"]) == ("probe of pool jobs", "RuntimeError: injected", 2)
    assert os.path.basename(fault["place"]).startswith("test_daemon_loop.py:")  # noqa: PTH119 - no path


class Costly:
    """CPU time of a daemon that uses so much of a CPU."""

    def __init__(self, rig: Rig, share: float) -> None:
        self.rig, self.share = rig, share

    def __call__(self) -> int:
        return round(self.share * self.rig.clock.monotonic())


def gaps(times: Sequence[int]) -> set[float]:
    return {round(gap / 1e9, 2) for gap in np.diff(times)}


def test_beyond_its_budget_each_level_is_applied_and_told_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_cost, "own_cpu_ns", Costly(rig, 0.05))
    probes, looks, seen = list[int](), list[int](), list[tuple[Any, ...]]()
    monkeypatch.setattr(rig.pool, "probe", lambda: probes.append(rig.clock.monotonic()))

    def look(snapshot: Snapshot, _aloof: Collection[str]) -> tuple[str, ...]:
        looks.append(snapshot.at)
        return ("seen",)

    real = rig.daemon._sessions.observer.tick

    def tick(snapshot: Snapshot, outcomes: tuple[Outcome, ...], paused: bool, deadlocks: tuple[Any, ...], *more: Any) -> Any:
        seen.append(deadlocks)
        return real(snapshot, outcomes, paused, (), *more)

    monkeypatch.setattr(rig.daemon._deadlocks.watch, "step", look)
    monkeypatch.setattr(rig.daemon._sessions.observer, "tick", tick)

    def forget() -> None:
        for each in (probes, looks, rig.source.reads, seen):
            each.clear()

    assert rig.daemon.run(duration=29) == 0
    assert (gaps(rig.source.reads), rig.source.slow_every, gaps(looks)) == ({1.0}, 10, {1.0})
    usual = len(probes)
    assert rig.daemon.run(duration=31) == 0
    assert rig.source.slow_every == 20
    forget()
    assert rig.daemon.run(duration=29) == 0
    assert len(probes) <= 0.6 * usual, "three to five a tick, where it was eight to ten"
    assert rig.daemon.run(duration=3) == 0
    forget()
    assert rig.daemon.run(duration=26) == 0
    assert gaps(looks) == {4.0}
    assert set(seen) == {("seen",)}, "as last seen, never nothing"
    assert rig.daemon.run(duration=5) == 0
    forget()
    assert rig.daemon.run(duration=20) == 0
    assert gaps(rig.source.reads) == {2.0}
    assert rig.daemon._latest.missed == 0, "left out on purpose is not missed"
    told = [text for text in rig.events if "daemon.budget" in text]
    assert [text.partition("from now on ")[2] for text in told[:4]] == [what for _, what in LEVELS[1:]]
    assert told[0].startswith("used 5.0% of a CPU in 30 s, more than daemon.budget (3.0%): ")
    budget = rig.handlers["status"]({})["budget"]
    assert (round(budget["share"], 3), budget["limit"], len(budget["reduced"])) == (0.05, 0.03, 4)


def test_what_was_reduced_is_done_again_once_it_costs_little(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = Costly(rig, 0.02)
    monkeypatch.setattr(own_cost, "own_cpu_ns", cost)
    monkeypatch.setattr(rig.daemon._helpers, "cpu_ns", cost)  # what hands and eyes use counts as well
    assert rig.daemon.run(duration=40) == 0
    assert rig.source.slow_every == 20
    used = cost()
    monkeypatch.setattr(own_cost, "own_cpu_ns", lambda: used)
    monkeypatch.setattr(rig.daemon._helpers, "cpu_ns", lambda: used)
    assert rig.daemon.run(duration=160) == 0
    assert rig.source.slow_every == 10
    assert rig.events[-1].endswith(f"well within daemon.budget (3.0%): no longer {LEVELS[1][1]}")


def test_a_reload_keeps_to_the_budget(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_cost, "own_cpu_ns", Costly(rig, 0.05))
    assert rig.daemon.run(duration=40) == 0
    path = rig.daemon._settings.path
    assert path is not None
    path.write_text(CONFIG.replace("max_failures = 3", "slow_every = 7\nbudget = 0.2"))
    assert rig.handlers["reload"]({}) == {}
    assert rig.daemon.run(duration=0.5) == 0
    assert rig.source.slow_every == 14
    assert rig.daemon._budget.limit == 0.2


@pytest.mark.parametrize(
    ("demoted", "served", "nice", "rest", "slices"),
    [
        (False, False, 0, Rest.USUAL, {SHORTEST}),
        (False, True, 10, Rest.ASIDE, {SHORTEST, LONGEST}),
        (True, True, 0, Rest.BACK, {SHORTEST}),
        (False, True, -5, Rest.ASIDE, {SHORTEST}),
        (True, True, 19, Rest.BACK, {SHORTEST, LONGEST}),
    ],
)
def test_it_makes_way_for_services_that_have_work(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, demoted: bool, served: bool, nice: int, rest: Rest, slices: set[int]
) -> None:
    asked: set[int] = set()
    left: list[Sequence[ProcId]] = []
    rests: list[Rest] = []
    services = (ProcId(4711, 1),) if served else ()

    class Own:
        trouble = ""

        def __init__(self) -> None:
            self.nice = nice

        def begin(self) -> None:
            pass

        ticked = staticmethod(lambda *_: None)

        def follow(self, _at: int, rest: Rest, _most: int) -> None:
            rests.append(rest)

        def give_back(self) -> None:
            pass

    monkeypatch.setattr(rig.daemon._own_place, "priority", Own())
    monkeypatch.setattr(rig.actuator, "relieve", lambda _groups: 0.08 if demoted else None)
    monkeypatch.setattr(own_place, "ask_for", asked.add)
    monkeypatch.setattr(own_place, "stand_aside", left.append)
    monkeypatch.setattr(module, "services_at_work", lambda _groups: services)
    assert rig.daemon.run(duration=4) == 0
    assert (left[-1], asked) == (services, slices)
    assert rests[-1] is rest
