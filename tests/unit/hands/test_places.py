"""What a control is of: nothing else can be made, read from a log, or read from a ledger."""

from __future__ import annotations

import msgspec
import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.decision import DECIDED, Restore, Set, encode
from nicety.scheduler.hands.changes import name_of, subject_of
from nicety.scheduler.hands.places import (
    INHERITED,
    KINDS,
    AutogroupPlace,
    Cgroup,
    Control,
    FencePlace,
    Knob,
    KnobPlace,
    PoolPlace,
    Subject,
    SubjectPlace,
    ThreadId,
    ThreadPlace,
    leads,
    number,
)
from nicety.scheduler.places import CgroupPlace, DecisionPlace, ProcessPlace, SessionPlace, cgroup_of, place_in_kernel, process_of

ONE, OTHER = ProcId(10, 100), ProcId(11, 110)
KNOBS: dict[type[KnobPlace], KnobPlace] = {
    ThreadPlace: ThreadPlace(ONE, ThreadId(12, 120)),
    AutogroupPlace: AutogroupPlace("autogroup-7", ONE),
    Cgroup: Cgroup("/a"),
    FencePlace: FencePlace("[]", ONE),
    PoolPlace: PoolPlace("web", ONE),
}
NAMED: dict[type[object], DecisionPlace] = {
    ProcessPlace: ProcessPlace(ONE),
    SessionPlace: SessionPlace(10, ONE),
    CgroupPlace: CgroupPlace("/a"),
}


def test_every_control_has_its_kinds_of_place() -> None:
    assert KINDS.keys() == DECIDED.keys() == set(Control)


@pytest.mark.parametrize("control", Control)
def test_a_decision_about_another_kind_of_place_cannot_be_made(control: Control) -> None:
    for kind, place in NAMED.items():
        if kind is DECIDED[control]:
            assert Set(control, place, 1).on is place
            assert Restore(control, place).on is place
            continue
        with pytest.raises(ValueError, match=f"{control} needs a"):
            Set(control, place, 1)
        with pytest.raises(ValueError, match=f"{control} needs a"):
            Restore(control, place)


@pytest.mark.parametrize("control", Control)
def test_a_knob_on_another_kind_of_place_cannot_be_made(control: Control) -> None:
    for kind, place in KNOBS.items():
        if kind is KINDS[control].knob:
            assert isinstance(subject_of(Knob(control, place)).on, KINDS[control].subject)
            continue
        with pytest.raises(ValueError, match=f"{control} needs a"):
            Knob(control, place)
    with pytest.raises(ValueError, match="nice needs a ProcId, not a Cgroup"):
        Subject(Control.NICE, Cgroup("/a"))


def test_a_logged_decision_about_another_kind_of_place_is_not_read() -> None:
    logged = encode(Set(Control.NICE, ProcessPlace(ONE), 19))
    assert msgspec.json.decode(logged, type=Set) == Set(Control.NICE, ProcessPlace(ONE), 19)
    with pytest.raises(msgspec.ValidationError, match="needs a CgroupPlace"):
        msgspec.json.decode(logged.replace(b'"nice"', b'"cpu.weight"'), type=Set)


def test_an_autogroup_is_the_same_through_any_member_and_a_pool_with_any_master() -> None:
    for one, other, third in (
        (AutogroupPlace("autogroup-7", ONE), AutogroupPlace("autogroup-7", OTHER), AutogroupPlace("autogroup-8", ONE)),
        (PoolPlace("web", ONE), PoolPlace("web", OTHER), PoolPlace("api", ONE)),
    ):
        assert {one: 1, other: 2} == {other: 2}
        assert one != third
    assert AutogroupPlace("web", ONE) != PoolPlace("web", ONE)
    one_knob, other_knob = (Knob(Control.AUTOGROUP, AutogroupPlace("autogroup-7", process)) for process in (ONE, OTHER))
    assert one_knob == other_knob


def test_tid_0_is_no_thread_because_the_kernel_would_change_the_caller() -> None:
    with pytest.raises(ValueError, match="tid 0 does not name a thread"):
        Knob(Control.NICE, ThreadPlace(ONE, ThreadId(0, 0)))


def test_only_the_first_thread_stands_for_its_process() -> None:
    assert leads(Knob(Control.NICE, ThreadPlace(ONE, ThreadId(*ONE)))) == ONE
    assert leads(Knob(Control.NICE, ThreadPlace(ONE, ThreadId(12, 120)))) is None
    assert leads(Knob(Control.AUTOGROUP, AutogroupPlace("autogroup-7", ONE))) is None
    assert {Control.NICE, Control.AFFINITY, Control.POLICY, Control.SLICE} == INHERITED


@pytest.mark.parametrize(
    ("control", "place", "name"),
    [
        (Control.NICE, ONE, "nice of pid 10"),
        (Control.SLICE, ThreadPlace(ONE, ThreadId(12, 120)), "slice of pid 10"),
        (Control.AUTOGROUP, AutogroupPlace("autogroup-7", ONE), "autogroup of autogroup-7"),
        (Control.CPU_SHARES, Cgroup("/a"), "cpu.shares of /a"),
        (Control.POOL_SIZE, PoolPlace("web", ONE), "pool.size of web"),
        (Control.FENCE, ONE, "fence of pid 10"),
    ],
)
def test_people_read_what_is_changed(control: Control, place: SubjectPlace | KnobPlace, name: str) -> None:
    assert name_of(control, place) == name


@pytest.mark.parametrize(
    ("place", "cgroup", "process", "name"),
    [
        (ProcessPlace(ONE), None, ONE, "slice of pid 10"),
        (SessionPlace(10, ONE), None, ONE, "slice of pid 10"),
        (CgroupPlace("/a"), "/a", None, "slice of /a"),
    ],
)
def test_a_decision_is_named_like_what_it_changes(
    place: DecisionPlace, cgroup: str | None, process: ProcId | None, name: str
) -> None:
    assert (cgroup_of(place), process_of(place)) == (cgroup, process)
    assert name_of(Control.SLICE, place_in_kernel(place)) == name


def test_cpu_numbers_are_no_number() -> None:
    assert number(5) == 5
    with pytest.raises(TypeError):
        number((0, 1))
