"""What `ports.Actuator` promises, whoever carries decisions out and on whichever kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.act.actuate import Acting
from nicety.scheduler.act.observing import Observing
from nicety.scheduler.act.scoped import Scoped
from nicety.scheduler.decision import Action, Decision, Flag, Recycle, ResizePool, Restore, Set, Why
from nicety.scheduler.hands.faults import Status, Trouble
from nicety.scheduler.hands.kernel import Kernel
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.hands.ledger import Ledger
from nicety.scheduler.hands.own import OwnHands
from nicety.scheduler.hands.places import Control, Knob, ThreadId, ThreadPlace
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace
from nicety.scheduler.ports import Actuator
from nicety.scheduler.scope import OBSERVE, act_on
from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.testing.hands import hands_with
from nicety.scheduler.testing.kernel import FakeKernel
from nicety.scheduler.testing.locks import FakeLocks
from nicety.scheduler.testing.pool import FakePool
from nicety.scheduler.testing.puppet import Puppet

WHY = Why("test", "because", {}, (), ())


class Stage:
    """An actuator, a living process, one that has ended, and a pool."""

    def __init__(self, folder: Path, kernel: Kernel, process: ProcId, how: str) -> None:
        clock = FakeClock()
        pool = FakePool("web", clock, size=2)
        pool.probe()
        samples = {"web": pool.read()}
        self.process = process
        self.kernel = kernel
        self.worker = samples["web"].workers[0].id
        self.gone = ProcId(process.pid, process.start_ticks - 1)
        self.acts = how in ("acting", "scoped to all")
        self.actuator: Actuator
        if how.startswith("scoped"):
            scoped = Scoped(OwnHands(folder, kernel, clock), kernel, FakeLocks(), {"web": pool}, samples, clock)
            scoped.act_on(act_on(OBSERVE, () if how == "scoped to all" else ("policy other",), None))
            self.actuator, self.outstanding, self.close = scoped, scoped.outstanding, scoped.close
            return
        ledger = Ledger(folder / "ledger.log", kernel.boot_id())
        self.outstanding, self.close = ledger.outstanding, ledger.close
        if how == "acting":
            self.actuator = Acting(hands_with(ledger, kernel, clock), kernel, FakeLocks(), {"web": pool}, samples, clock)
        else:
            self.actuator = Observing(kernel, {"web": pool}, samples, kernel.forbidden)

    def decisions(self) -> list[Decision]:
        actions: list[Action] = [
            Set(Control.NICE, ProcessPlace(self.process), 3),
            Set(Control.NICE, ProcessPlace(self.process), 4),
            Set(Control.NICE, ProcessPlace(self.gone), 3),
            Restore(Control.NICE, ProcessPlace(self.process)),
            Restore(Control.AUTOGROUP, SessionPlace(self.gone.pid, self.gone)),
            Set(Control.CPU_WEIGHT, CgroupPlace("/there/is/none"), 3),
            Set(Control.AFFINITY, ProcessPlace(self.process), (0,)),
            Set(Control.SLICE, ProcessPlace(self.process), 200_000, 0),
            Set(Control.SLICE, ProcessPlace(self.gone), 200_000, 0),
            Set(Control.CPU_IDLE, CgroupPlace("/there/is/none"), 1, 0),
            Set(Control.NICE, ProcessPlace(self.process), 4, 77),
            ResizePool("web", 4),
            ResizePool("nobody", 4),
            Recycle("web", self.gone),
            Recycle("nobody", self.gone),
            Flag("web", self.worker, "spin"),
        ]
        return [Decision(f"s-0.{index}", "policy", f"target {index}", action, WHY) for index, action in enumerate(actions)]


HOW = ("observing", "acting", "scoped to all", "scoped to others")


@pytest.fixture(params=[*HOW, *(f"{how} on Linux" for how in HOW)])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    how = request.param.removesuffix(" on Linux")
    if request.param.endswith("Linux"):
        with Puppet() as puppet:
            made = Stage(tmp_path, LinuxKernel(), puppet.id, how)
            yield made
            made.close()
        return
    kernel = FakeKernel()
    made = Stage(tmp_path, kernel, kernel.start(), how)
    yield made
    made.close()


def test_every_decision_gets_one_outcome_in_order_whatever_becomes_of_it(stage: Stage) -> None:
    decisions = stage.decisions()
    outcomes = stage.actuator.apply(decisions)
    assert [(outcome.decision, outcome.target) for outcome in outcomes] == [(each.id, each.target) for each in decisions]
    assert all(outcome.detail for outcome in outcomes)
    assert all(outcome.changed == 0 for outcome in outcomes if outcome.status not in (Status.APPLIED, Status.PARTIAL))


def test_nothing_is_a_valid_call(stage: Stage) -> None:
    assert stage.actuator.apply([]) == ()
    assert stage.actuator.settle() == ()
    assert stage.actuator.undo() == ()
    assert stage.actuator.release(["web", "nobody"]) == ()


def test_after_undo_everything_is_as_before_and_there_is_nothing_more_to_undo(stage: Stage) -> None:
    knobs = [
        Knob(control, ThreadPlace(stage.process, ThreadId(*stage.process)))
        for control in (Control.NICE, Control.AFFINITY, Control.SLICE)
    ]
    before = [stage.kernel.read(knob) for knob in knobs]
    assert not any(isinstance(value, Trouble) for value in before[:2]), "there may be no slices"
    stage.actuator.apply(stage.decisions())
    stage.actuator.undo()
    assert [stage.kernel.read(knob) for knob in knobs] == before
    assert stage.outstanding() == ()
    assert stage.actuator.undo() == ()


def test_what_somebody_chose_is_left_by_both(stage: Stage) -> None:
    decision = Decision("s-0.1", "policy", "target", Set(Control.NICE, ProcessPlace(stage.process), 4, 77), WHY)
    (outcome,) = stage.actuator.apply([decision])
    if stage.acts and stage.kernel.forbidden(Control.NICE):
        assert outcome.status is Status.REFUSED
    else:
        now = stage.kernel.read(
            Knob(Control.NICE, ThreadPlace(stage.process, ThreadId(*stage.process)))
        )  # 0, unless the tests run niced
        assert (outcome.status, outcome.changed, outcome.detail) == (Status.FOREIGN, 0, f"left: somebody chose nice {now}")


def test_observing_changes_nothing_and_acting_does(stage: Stage) -> None:
    (outcome,) = stage.actuator.apply(stage.decisions()[:1])
    (again,) = stage.actuator.apply(stage.decisions()[:1])
    if not stage.acts:
        assert (outcome.status, again.status) == (Status.OBSERVED, Status.OBSERVED)
    elif stage.kernel.forbidden(Control.NICE):
        assert (outcome.status, again.status) == (Status.REFUSED, Status.REFUSED)
    else:
        assert (outcome.status, again.status) == (Status.APPLIED, Status.UNCHANGED)
    stage.actuator.undo()
