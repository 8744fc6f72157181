"""Whose turn it is where more is wished than may change in a tick."""

from __future__ import annotations

from nicety.models.identity import ProcId
from nicety.scheduler.decide.policies.priority.held import Held
from nicety.scheduler.decide.policies.priority.turns import Turns
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, ProcessPlace


def nice(pid: int, value: int = 19) -> Held:
    return Held(Control.NICE, ProcessPlace(ProcId(pid, pid)), value, "hogs", f"group hogs pid {pid}", "service")


def desired(*changes: Held) -> dict[str, Held]:
    return {change.key: change for change in changes}


def test_cgroups_come_first_and_then_the_oldest_processes() -> None:
    cgroup = Held(Control.CPU_SHARES, CgroupPlace("/batch"), 2, "batch", "cgroup /batch", "service")
    turn = Turns().take({}, desired(nice(30), nice(20), cgroup), most=32)
    assert list(turn) == ["cpu.shares /batch", "nice 20.20", "nice 30.30"]


def test_short_slices_come_after_all_demotions() -> None:
    slice_ = Held(Control.SLICE, ProcessPlace(ProcId(10, 10)), 100_000, "service", "group service pid 10", "service")
    assert list(Turns().take({}, desired(slice_, nice(30), nice(20)), most=32)) == ["nice 20.20", "nice 30.30", "slice 10.10"]


def test_each_has_a_turn_before_one_that_was_refused_comes_again() -> None:
    turns, all_of_them = Turns(), desired(*(nice(pid) for pid in (20, 21, 22)))
    taken = [list(turns.take({}, all_of_them, most=2)) for _ in range(3)]
    assert taken == [["nice 20.20", "nice 21.21"], ["nice 20.20", "nice 22.22"], ["nice 20.20", "nice 21.21"]]


def test_those_that_wait_are_named_by_their_knob_until_there_is_room() -> None:
    turns, all_of_them = Turns(), desired(nice(20), nice(21))
    turns.take({}, all_of_them, most=1)
    assert turns.waiting == ["nice 21.21"]
    turns.take({}, all_of_them, most=2)
    assert (turns.waiting, turns.tried) == ([], [])


def test_what_is_held_with_this_value_needs_no_turn() -> None:
    assert Turns().take(desired(nice(20)), desired(nice(20)), most=1) == {}
    assert list(Turns().take(desired(nice(20)), desired(nice(20, value=14)), most=1)) == ["nice 20.20"]
