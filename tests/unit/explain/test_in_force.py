"""What is in force is a line a group, whatever number of threads and steps the ledger has."""

from __future__ import annotations

from nicety.models.identity import ProcId
from nicety.scheduler.explain.in_force import each, sum_up
from nicety.scheduler.explain.status_page import changes_in_words
from nicety.scheduler.hands.changes import Entry, EntryStatus
from nicety.scheduler.hands.fences import Part, key_of
from nicety.scheduler.hands.places import AutogroupPlace, Cgroup, Control, FencePlace, Knob, ThreadId, ThreadPlace

SECOND = 10**9


def a_knob(control: Control, pid: int, tid: int = 0) -> Knob:
    return Knob(control, ThreadPlace(ProcId(pid, pid), ThreadId(tid or pid, 1)))


def an_entry(pid: int, tid: int = 0, wall: int = 5 * SECOND, **changes: object) -> Entry:
    values: dict[str, object] = {
        "id": 1,
        "boot_id": "b",
        "decision": f"s-1.{pid}",
        "target": f"group hogs pid {pid}",
        "wall": wall,
        "knob": a_knob(Control.NICE, pid, tid),
        "session": 1,
        "group": 1,
        "since": 1,
        "original": 0,
        "old": 0,
        "new": 19,
        "status": EntryStatus.DONE,
    }
    return Entry(**{**values, **changes})  # type: ignore[arg-type]  # tests give what it takes


def test_threads_and_processes_of_a_group_are_one_line() -> None:
    entries = [an_entry(pid, pid * 10 + thread, wall=(9 - pid) * SECOND) for pid in (1, 2, 3, 4) for thread in range(3)]
    (change,) = sum_up(entries, {("group hogs pid 1", Control.NICE): ("hogs", "redis")} | protected(2, 3, 4))
    assert change == {
        "group": "group hogs",
        "control": "nice",
        "original": "0",
        "now": "19",
        "processes": 4,
        "threads": 12,
        "sessions": 0,
        "cgroups": 0,
        "protects": "redis",
        "decision": "s-1.1",
        "decisions": 4,
        "since_wall": 5 * SECOND,
    }


def protected(*pids: int) -> dict[tuple[str, Control], tuple[str, str]]:
    return {(f"group hogs pid {pid}", Control.NICE): ("hogs", "redis") for pid in pids}


def test_a_knob_that_was_set_in_steps_is_one_change_since_the_first() -> None:
    steps = [an_entry(1, wall=SECOND, new=19), an_entry(1, wall=3 * SECOND, old=19, new=10, decision="s-3.0")]
    (change,) = sum_up(steps, {})
    assert (change["now"], change["threads"], change["since_wall"], change["decision"]) == ("10", 1, SECOND, "s-3.0")
    assert change["protects"] == "", "nobody knows any more"


def test_cgroups_and_sessions_go_to_the_group_that_they_were_changed_for() -> None:
    entries = [
        an_entry(1, target="cgroup /a", knob=Knob(Control.CPU_SHARES, Cgroup("/a")), original=1024, new=2),
        an_entry(2, target="cgroup /b", knob=Knob(Control.CPU_SHARES, Cgroup("/b")), original=1024, new=2),
        an_entry(3, target="group hogs session 3", knob=Knob(Control.AUTOGROUP, AutogroupPlace("autogroup-3", ProcId(3, 3)))),
    ]
    made = {("cgroup /a", Control.CPU_SHARES): ("hogs", "redis"), ("cgroup /b", Control.CPU_SHARES): ("hogs", "redis")}
    shares, autogroup = sum_up(entries, made)
    assert (shares["group"], shares["cgroups"], shares["original"], shares["now"]) == ("group hogs", 2, "1024", "2")
    assert (autogroup["group"], autogroup["sessions"], autogroup["cgroups"], autogroup["processes"]) == ("group hogs", 1, 0, 0)


def test_a_fence_is_told_by_whom_it_was_made_for_and_what_it_leaves() -> None:
    weight = key_of((Part("cpu", "/a/nicety-fence-1-1", {"cpu.shares": "2"}),))
    quota = key_of(
        (
            Part("cpu", "/a/nicety-fence-2-2", {"cpu.cfs_quota_us": "30000", "cpu.shares": "4"}),
            Part("pids", "/x", {"pids.max": "9"}),
        )
    )
    knobs = {pid: Knob(Control.FENCE, FencePlace(key, ProcId(pid, pid))) for pid, key in ((1, weight), (2, quota))}
    entries = [an_entry(pid, knob=knob, new=1) for pid, knob in knobs.items()]
    first, second = sum_up(entries, {("group hogs pid 1", Control.FENCE): ("hogs", "redis")})
    assert (first["original"], first["now"], first["processes"], first["cgroups"]) == ("none", "cpu.shares 2", 1, 0)
    assert (first["group"], first["protects"]) == ("group hogs", "redis")
    assert second["now"] == "cpu.cfs_quota_us 30000, cpu.shares 4, pids.max 9"
    assert "group hogs: cgroup of its own none -> cpu.shares 2 for 1 process" in "\n".join(changes_in_words([first], 100))


def test_what_differs_is_a_line_of_its_own_and_a_slice_protects_nobody_else() -> None:
    entries = [
        an_entry(1),
        an_entry(2, original=5),
        an_entry(3, target="group make pid 3"),
        an_entry(4, knob=a_knob(Control.SLICE, 4), target="group redis pid 4", new=100_000),
    ]
    made = {("group redis pid 4", Control.SLICE): ("redis", "redis")}
    assert [(it["group"], it["original"], it["protects"]) for it in sum_up(entries, made)] == [
        ("group hogs", "0", ""),
        ("group hogs", "5", ""),
        ("group make", "0", ""),
        ("group redis", "0", ""),
    ]


def test_each_entry_can_be_had_by_itself() -> None:
    (one, two) = each([an_entry(1, 10), an_entry(2, knob=Knob(Control.CPU_SHARES, Cgroup("/a")))])
    assert (one["target"], one["process"], one["thread"], one["decision"]) == ("group hogs pid 1", 1, 10, "s-1.1")
    assert (two["process"], two["thread"]) == (None, None)
