"""What a fence would be, or why there can be none: plans on trees of files that the test makes up. Nothing is fenced in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.hands.faults import Status, Trouble
from nicety.scheduler.hands.fences import Limits, Part, key_of
from nicety.scheduler.hands.kernel import Scan
from nicety.scheduler.hands.knobs.cgroup import Cgroups, Mount
from nicety.scheduler.hands.knobs.fence import Fences, Offer, Version, offers

PROCESS = ProcId(20, 7)
NAME = "nicety-fence-20-7"
SLOW, LIGHT = Limits(300, 0, 0), Limits(0, 0, 0, 1)
ALL = Limits(300, 64 << 20, 8)


class Tree:
    """A process in a cgroup of v2. `controllers` are offered there and `on` for the cgroups below; `type` None: it is the root."""

    def __init__(
        self, folder: Path, path: str = "/a", *, controllers: str = "cpu memory pids", on: str = "", type_: str | None = "domain"
    ) -> None:
        self.folder, self.point = folder, folder / "v2"
        self.mounts = Cgroups(None, Mount(str(self.point), "/"), None)
        self.above = self.point / path.lstrip("/")
        self.above.mkdir(parents=True, exist_ok=True)
        for name, text in (("controllers", controllers), ("subtree_control", on), ("type", type_), ("procs", "20")):
            if text is not None:
                (self.above / f"cgroup.{name}").write_text(text)
        self.enter(f"0::{path}\n")

    def enter(self, text: str) -> None:
        """This is /proc/PID/cgroup from now on."""
        own = self.folder / "proc" / "20"
        task = own / "task" / "20"
        task.mkdir(parents=True, exist_ok=True)
        for directory in (own, task):
            (directory / "cgroup").write_text(text)
        (own / "stat").write_text("20 (a) R 1 20 20 0 -1 0 " + " ".join(["0"] * 12) + " 7\n")

    def plan(self, limits: Limits) -> str | Trouble:
        """The plan."""
        return Fences(str(self.folder / "proc"), self.mounts, lambda: Scan((), None), systemd=str(self.folder / "none")).plan(
            PROCESS, limits
        )

    def refusal(self, limits: Limits) -> str:
        """Why there is no plan."""
        answer = self.plan(limits)
        assert isinstance(answer, Trouble)
        assert answer.status is Status.REFUSED
        return answer.text


@pytest.mark.parametrize(("on", "turned_on"), [("", ("cpu",)), ("cpu pids", ())])
def test_the_weight_of_a_fence_on_cgroup_v2_is_as_configured(tmp_path: Path, on: str, turned_on: tuple[str, ...]) -> None:
    made = Part("", f"/a/{NAME}", {"cpu.weight": "1"}, turned_on, threaded=True)
    assert Tree(tmp_path, on=on).plan(LIGHT) == key_of((made,))


def test_below_a_cgroup_of_v2_with_processes_cpu_and_tasks_are_limited_and_memory_is_not(tmp_path: Path) -> None:
    made = Part("", f"/a/{NAME}", {"cpu.max": "30000 100000", "pids.max": "9"}, ("cpu", "pids"), threaded=True)
    assert Tree(tmp_path).plan(ALL) == key_of((made,))
    assert "memory of one process of /a cannot be limited without moving its siblings" in Tree(tmp_path).refusal(
        Limits(0, 1 << 20, 0)
    )


def test_below_the_root_of_v2_memory_is_limited_too(tmp_path: Path) -> None:
    files = {"cpu.max": "30000 100000", "pids.max": "9", "memory.high": str(64 << 20)}
    made = Part("", f"/{NAME}", files, ("cpu", "pids"), threaded=False)
    assert Tree(tmp_path, "/", on="memory", type_=None).plan(ALL) == key_of((made,))


def test_where_cgroups_below_share_another_controller_no_threaded_cgroup_can_be_made(tmp_path: Path) -> None:
    assert (
        Tree(tmp_path, on="cpu memory").refusal(SLOW) == "it cannot be fenced in: cgroup /a enables memory for the cgroups below it"
    )
    assert isinstance(Tree(tmp_path, on="cpu cpuset").plan(SLOW), str)


def test_one_process_of_a_cgroup_of_v2_is_fenced_in_at_a_time(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    (tree.above / "nicety-fence-19-3").mkdir()
    assert tree.refusal(SLOW) == "it cannot be fenced in: another process of cgroup /a is fenced in: one at a time"


def test_a_controller_that_the_cgroup_does_not_have_is_named(tmp_path: Path) -> None:
    assert Tree(tmp_path, controllers="pids").refusal(SLOW) == "it cannot be fenced in: cgroup /a does not have the cpu controller"


@pytest.mark.parametrize(
    ("limits", "status", "text"),
    [
        (LIGHT, Status.UNCHANGED, "pid 20 is in a fence already"),
        (SLOW, Status.REFUSED, "it cannot be fenced in: it is in a fence already"),
    ],
)
def test_nobody_is_fenced_in_twice(tmp_path: Path, limits: Limits, status: Status, text: str) -> None:
    assert Tree(tmp_path, "/a/nicety-fence-19-3").plan(limits) == Trouble(status, text)


def test_a_cgroup_may_have_colons_in_its_name(tmp_path: Path) -> None:
    made = Part("", f"/a:b:c/{NAME}", {"cpu.weight": "1"}, ("cpu",), threaded=True)
    assert Tree(tmp_path, "/a:b:c").plan(LIGHT) == key_of((made,))


def test_beside_hierarchies_of_v1_the_path_of_v2_is_that_of_v2(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.enter("4:memory:/m\n1:name=systemd:/s\n0::/a\n")
    made = Part("", f"/a/{NAME}", {"cpu.weight": "1"}, ("cpu",), threaded=True)
    assert tree.plan(LIGHT) == key_of((made,))


# --- what the machine offers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", ["", "/", "/a"], ids=["nothing", "all", "what is delegated"])
def test_only_a_hierarchy_that_is_ours_to_write_offers_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: str) -> None:
    tree = Tree(tmp_path)
    (tree.point / "cgroup.controllers").write_text("cpu pids")
    mine = tree.point / ours.lstrip("/") if ours else None

    def access(path: str, mode: int, *, effective_ids: bool) -> bool:
        assert (mode, effective_ids) == (os.W_OK, True)
        return mine is not None and path == str(mine)

    monkeypatch.setattr(os, "access", access)
    version, trouble = (Version.V2, "") if ours else (None, f"{tree.point} is not ours to write")
    assert offers(tree.mounts, "0::/a\n") == (
        Offer("cpu", version, trouble),
        Offer("pids", version, trouble),
        Offer("memory", None, "no cgroup hierarchy has the memory controller"),
    )


def test_where_systemd_runs_the_unit_of_a_cgroup_it_must_have_delegated_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree(tmp_path, "/system.slice/web.service")
    assert isinstance(tree.plan(SLOW), str), "no systemd runs here"
    (tmp_path / "none").mkdir()
    assert tree.refusal(SLOW) == (
        "it cannot be fenced in: systemd runs web.service and has not delegated its cgroup: "
        "set Delegate=cpu memory pids in the unit"
    )
    marked = {(str(tree.above), "user.delegate"): b"1"}
    monkeypatch.setattr(os, "getxattr", lambda path, name: marked.get((str(path), name), b"0"))
    assert isinstance(tree.plan(SLOW), str)
