"""The actuator that acts on some things: each decision goes its way, and what leaves the scope is put back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.models.records import PoolSample
from nicety.scheduler.act.scoped import Scoped, as_record, unable
from nicety.scheduler.decision import Action, Decision, Grant, Outcome, ResizePool, Restore, Scope, Set, Why
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.ledger import LedgerError
from nicety.scheduler.hands.own import OwnHands
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.ports import PoolAdapter
from nicety.scheduler.scope import ACT, OBSERVE, act_on, observe
from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.testing.kernel import FakeKernel
from nicety.scheduler.testing.locks import FakeLocks
from nicety.scheduler.testing.pool import FakePool
from nicety.scheduler.words import moment

WEB, HOGS = ("web",), ("hogs",)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.kernel, self.clock = FakeKernel(), FakeClock()
        self.pool = FakePool("web", self.clock, size=2, first_pid=5000, maximum=9)
        self.pools: dict[str, PoolAdapter] = {"web": self.pool}
        self.samples: dict[str, PoolSample] = {}
        self.hands = OwnHands(folder, self.kernel, self.clock)
        self.actuator = Scoped(self.hands, self.kernel, FakeLocks(), self.pools, self.samples, self.clock)
        self.count = 0
        master = self.look().master
        assert master is not None
        self.kernel.admit(master)

    def look(self) -> PoolSample:
        self.pool.probe()
        self.samples["web"] = self.pool.read()
        return self.samples["web"]

    def apply(self, *desired: tuple[Action, str]) -> tuple[Outcome, ...]:
        """Decisions of which each is about a group."""
        decisions = []
        for action, group in desired:
            self.count += 1
            policy = "pool_size" if isinstance(action, ResizePool) else "priority"
            why = Why("rule", "because", {"contender": group, "victim": "api"}, (), ())
            decisions.append(Decision(f"s-0.{self.count}", policy, f"group {group}", action, why))
        return self.actuator.apply(decisions)

    def nice(self, process: ProcId) -> object:
        return self.kernel.read(self.kernel.knob(Control.NICE, process.pid))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.actuator.close()


def lower(process: ProcId, value: int = 19) -> Set:
    return Set(Control.NICE, ProcessPlace(process), value, 0)


def back(process: ProcId) -> Restore:
    return Restore(Control.NICE, ProcessPlace(process))


def test_each_decision_acts_or_is_observed_in_order(bench: Bench) -> None:
    ours, theirs, later = bench.kernel.start(), bench.kernel.start(), bench.kernel.start()
    bench.actuator.act_on(act_on(OBSERVE, HOGS, None))
    outcomes = bench.apply((lower(theirs), "make"), (lower(ours), "hogs"), (ResizePool("web", 4), "web"), (lower(later), "hogs"))
    assert [outcome.decision for outcome in outcomes] == [f"s-0.{n}" for n in (1, 2, 3, 4)]
    assert [outcome.status for outcome in outcomes] == [Status.OBSERVED, Status.APPLIED, Status.OBSERVED, Status.APPLIED]
    assert [bench.nice(each) for each in (ours, theirs, later)] == [19, 0, 19]
    assert bench.look().requested == 2


def test_there_is_no_ledger_until_something_acts(bench: Bench, tmp_path: Path) -> None:
    process = bench.kernel.start()
    assert bench.apply((lower(process), "hogs"), (back(process), "hogs"))[0].status is Status.OBSERVED
    assert (bench.actuator.mode, list(tmp_path.iterdir())) == ("observe", [])
    bench.actuator.act_on(ACT)
    assert bench.actuator.mode == "act"
    assert bench.apply((lower(process), "hogs"))[0].status is Status.APPLIED
    assert [entry.target for entry in bench.actuator.outstanding()] == ["group hogs"]


def test_a_ledger_that_cannot_be_used_leaves_the_scope_as_it_was(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "ledger.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match="symbolic link"):
        bench.actuator.act_on(ACT)
    assert (bench.actuator.scope, bench.actuator.mode) == (OBSERVE, "observe")
    process = bench.kernel.start()
    assert bench.apply((lower(process), "hogs"))[0].status is Status.OBSERVED
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_not_kept_is_put_back_and_what_is_kept_stays(bench: Bench) -> None:
    ours, theirs = bench.kernel.start(), bench.kernel.start()
    bench.actuator.act_on(ACT)
    bench.apply((lower(ours), "hogs"), (lower(theirs), "make"), (ResizePool("web", 4), "web"))
    bench.look()
    bench.actuator.act_on(act_on(OBSERVE, HOGS, None))
    outcomes = bench.actuator.keep([back(ours)])
    assert {outcome.target: outcome.status for outcome in outcomes}["group make"] is Status.APPLIED
    assert [bench.nice(each) for each in (ours, theirs)] == [19, 0]
    assert bench.look().requested == 2
    assert [entry.target for entry in bench.actuator.outstanding() if entry.control is not Control.POOL_SIZE] == ["group hogs"]


def test_a_pool_that_stays_in_the_scope_keeps_its_size(bench: Bench) -> None:
    bench.actuator.act_on(ACT)
    bench.apply((ResizePool("web", 4), "web"))
    bench.look()
    bench.actuator.act_on(act_on(OBSERVE, WEB, None))
    assert bench.actuator.keep([ResizePool("web", 4)]) == ()
    assert bench.look().requested == 4


def test_a_restore_acts_whatever_the_scope_is_by_then(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.actuator.act_on(ACT)
    bench.apply((lower(process), "hogs"))
    bench.actuator.act_on(act_on(OBSERVE, WEB, None))
    assert bench.apply((back(process), "hogs"))[0].status is Status.APPLIED
    assert bench.nice(process) == 0
    assert bench.apply((back(process), "hogs"))[0].status is Status.UNCHANGED


def test_a_daemon_that_observes_again_still_undoes(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.actuator.act_on(ACT)
    bench.apply((lower(process), "hogs"))
    bench.actuator.act_on(OBSERVE)
    assert bench.actuator.mode == "observe"
    assert [outcome.status for outcome in bench.actuator.undo()] == [Status.APPLIED]
    assert bench.nice(process) == 0


@pytest.mark.parametrize("scope", [ACT, act_on(OBSERVE, HOGS, None), observe(ACT, ("make",))])
def test_who_inherited_from_what_is_put_back_is_too(bench: Bench, scope: Scope) -> None:
    parent, kept = bench.kernel.start(), bench.kernel.start()
    bench.actuator.act_on(ACT)
    bench.apply((lower(parent), "make"), (lower(kept), "hogs"))
    child, heir = bench.kernel.fork(parent.pid), bench.kernel.fork(kept.pid)
    bench.actuator.act_on(scope)
    bench.actuator.keep([back(kept)])
    assert [bench.nice(each) for each in (parent, child, kept, heir)] == [0, 0, 19, 19]


def test_without_the_right_it_is_said_what_cannot_be_done() -> None:
    kernel = FakeKernel()
    hands = OwnHands("", kernel, FakeClock())
    assert unable(hands) == ""
    kernel.forbidden = lambda control: f"{control} is left alone: why; run as root"  # type: ignore[method-assign]
    assert unable(hands) == (
        "nothing will be demoted by nice, autogroup or scheduling policy: nice is left alone: why; run as root"
    )


def test_for_programs_the_scope_says_for_how_long_until_when_and_what_is_spared() -> None:
    scope = Scope((Grant("*"), Grant("web", 90 * 10**9), Grant("hogs", 10 * 10**9)), ("policy priority",))
    wall = 1_700_000_000 * 10**9
    assert as_record(scope, 30 * 10**9, wall) == {
        "acting_on": [
            {"thing": "everything", "seconds_left": None, "until": None},
            {"thing": "web", "seconds_left": 60.0, "until": moment(wall + 60 * 10**9)},
            {"thing": "hogs", "seconds_left": 0.0, "until": moment(wall - 20 * 10**9)},
        ],
        "spared": [{"thing": "policy priority"}],
    }
