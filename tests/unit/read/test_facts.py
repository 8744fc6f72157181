"""What works here: trees in the form of procfs and sysfs, and this machine."""

from __future__ import annotations

import dataclasses
import os
import platform
from pathlib import Path

import pytest

from nicety.scheduler.decision import Abilities, Topology
from nicety.scheduler.read.facts import CpuCgroup, Facts, findings, probe

ALL = 0x1FFFFFFFFFF
GOOD = Facts(
    kernel="6.18.0",
    python="3.11.7",
    boot_id="5750c894",
    topology=Topology(online=(0, 1, 2, 3)),
    root=True,
    user_namespace=False,
    capabilities=("CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_KILL", "CAP_SYS_NICE", "CAP_SYS_PTRACE"),
    schedstat=True,
    pressure=True,
    autogroup=True,
    cpu_cgroup=CpuCgroup("v2", "/sys/fs/cgroup", writable=True),
    sched_ext="",
    hidepid="",
    descriptors=524288,
)
PLAIN_USER = dataclasses.replace(
    GOOD, root=False, capabilities=(), cpu_cgroup=CpuCgroup("v2", "/sys/fs/cgroup", writable=False), hidepid="invisible"
)


def failing(facts: Facts) -> set[str]:
    return {finding.name for finding in findings(facts) if not finding.ok}


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A machine where everything works, on cgroup v2."""
    proc, group = tmp_path / "proc", tmp_path / "cgroup v2"
    write(proc / "self/status", f"Name:\tx:y\nCapEff:\t{ALL:016x}\n")
    write(proc / "self/uid_map", "         0          0 4294967295\n")
    write(proc / "self/schedstat", "100 200 3\n")
    write(proc / "self/autogroup", "/autogroup-1 nice 0\n")
    write(proc / "self/cgroup", "0::/\n")
    write(group / "cgroup.controllers", "cpuset cpu io memory\n")
    escaped = str(group).replace(" ", "\\040")
    write(
        proc / "self/mountinfo", f"22 1 0:21 / {proc} rw - proc proc rw\n41 1 0:38 / {escaped} rw shared:9 - cgroup2 cgroup2 rw\n"
    )
    write(proc / "sys/kernel/sched_autogroup_enabled", "1\n")
    write(proc / "sys/kernel/osrelease", "6.18.0-test\n")
    write(proc / "sys/kernel/random/boot_id", "5750c894-bdf8\n")
    write(proc / "pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n")
    write(tmp_path / "sys/devices/system/cpu/online", "0-3\n")
    return proc


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def look(proc: Path) -> Facts:
    return probe(proc, proc.parent / "sys")


def test_a_machine_where_everything_works(proc: Path) -> None:
    got = look(proc)
    assert (got.kernel, got.boot_id, got.python) == ("6.18.0-test", "5750c894-bdf8", platform.python_version())
    assert got.topology.online == (0, 1, 2, 3)
    assert got.capabilities == GOOD.capabilities
    assert got.cpu_cgroup == CpuCgroup("v2", str(proc.parent / "cgroup v2"), writable=True)
    assert got.abilities == Abilities(autogroup=True, cpu_cgroup="v2", may_renice=True, topology=got.topology)
    assert failing(got) == set()


@pytest.mark.parametrize(
    ("file", "text", "lost"),
    [
        ("self/schedstat", "0 0 0\n", "run-queue wait"),
        ("self/schedstat", None, "run-queue wait"),
        ("pressure/cpu", None, "pressure"),
        ("sys/kernel/random/boot_id", None, "boot id"),
        ("../cgroup v2/cgroup.controllers", "hugetlb\n", "cpu cgroup"),
        ("../sys/kernel/sched_ext/state", "enabled\n", "kernel scheduler"),
    ],
)
def test_each_gap_is_found_alone_and_has_a_fix(proc: Path, file: str, text: str | None, lost: str) -> None:
    path = proc / file
    if text is None:
        path.unlink()
    else:
        write(path, text)
    assert failing(look(proc)) == {lost}
    (finding,) = (finding for finding in findings(look(proc)) if not finding.ok)
    assert finding.fix


@pytest.mark.parametrize(
    ("enabled", "file", "autogroup"),
    [("1", True, True), ("0", True, False), ("1", False, None), (None, True, None)],
)
def test_autogroup_is_on_off_or_absent(proc: Path, enabled: str | None, file: bool, autogroup: bool | None) -> None:
    if not file:
        (proc / "self/autogroup").unlink()
    if enabled is None:
        (proc / "sys/kernel/sched_autogroup_enabled").unlink()
    else:
        write(proc / "sys/kernel/sched_autogroup_enabled", enabled)
    got = look(proc)
    assert got.autogroup is autogroup
    assert got.abilities.autogroup is (autogroup is True)


def test_the_v1_controller_wins_over_a_v2_mount_without_it(proc: Path, tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "v2").mkdir()
    write(tmp_path / "v2/cgroup.controllers", "hugetlb\n")
    mounts = f"31 1 0:37 / {tmp_path}/v2 rw - cgroup2 cgroup2 rw\n32 1 0:29 / {tmp_path}/v1 rw - cgroup cgroup rw,cpu,cpuacct\n"
    write(proc / "self/mountinfo", mounts)
    assert look(proc).cpu_cgroup == CpuCgroup("v1", f"{tmp_path}/v1", writable=True)


def test_a_hierarchy_mounted_read_only_is_not_writable(proc: Path) -> None:
    text = (proc / "self/mountinfo").read_text()
    write(proc / "self/mountinfo", text.replace(" rw shared", " ro shared"))
    got = look(proc)
    assert got.cpu_cgroup.version == "v2"
    assert not got.cpu_cgroup.writable
    assert got.abilities.cpu_cgroup == ""
    assert failing(got) == {"cpu cgroup"}


@pytest.mark.parametrize(("option", "word"), [("hidepid=2", "invisible"), ("hidepid=ptraceable", "ptraceable"), ("hidepid=0", "")])
def test_hidden_processes_matter_to_those_without_ptrace_rights(proc: Path, option: str, word: str) -> None:
    text = (proc / "self/mountinfo").read_text()
    write(proc / "self/mountinfo", text.replace("proc proc rw", f"proc proc rw,{option}"))
    assert look(proc).hidepid == word
    assert failing(look(proc)) == set()
    write(proc / "self/status", "CapEff:\t0000000000000000\n")
    assert ("other users' processes" in failing(look(proc))) == bool(word)


def test_capabilities_do_not_count_in_a_user_namespace(proc: Path) -> None:
    write(proc / "self/uid_map", "0 1000 1\n")
    got = look(proc)
    assert got.user_namespace
    assert not got.may_renice
    assert {"renice", "programs and io of others", "pools of others"} <= failing(got)
    assert all("namespace" in finding.fix for finding in findings(got) if finding.name == "renice")


def test_a_tree_with_nothing_in_it_is_all_gaps_and_no_error(tmp_path: Path) -> None:
    got = probe(tmp_path, tmp_path)
    assert (got.boot_id, got.capabilities, got.cpu_cgroup.version, got.schedstat) == ("", (), "", False)
    assert {"run-queue wait", "pressure", "renice", "cpu cgroup", "boot id"} <= failing(got)


def test_a_plain_user_is_told_what_is_lost_and_what_to_type() -> None:
    rows = {finding.name: finding for finding in findings(PLAIN_USER)}
    assert {name for name, row in rows.items() if not row.ok} == {
        *("renice", "autogroup", "cpu cgroup", "other users' processes", "programs and io of others", "pools of others"),
        "locks of others",
        "deadlocks",
    }
    assert "AmbientCapabilities=CAP_SYS_NICE" in rows["renice"].fix
    assert "nothing is reniced" in rows["renice"].what
    assert "Delegate=cpu" in rows["cpu cgroup"].fix
    assert not PLAIN_USER.may_renice
    assert PLAIN_USER.abilities == Abilities(autogroup=True, cpu_cgroup="", may_renice=False, topology=GOOD.topology)


@pytest.mark.parametrize("facts", [GOOD, PLAIN_USER])
def test_every_row_says_what_and_only_gaps_have_a_fix(facts: Facts) -> None:
    rows = findings(facts)
    assert len({row.name for row in rows}) == len(rows) > 8
    for row in rows:
        assert row.what
        assert bool(row.fix) == (not row.ok)


def test_this_machine() -> None:
    got = probe()
    assert got.kernel == platform.release()
    assert set(got.topology.online) >= os.sched_getaffinity(0)
    assert got.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert got.root == (os.geteuid() == 0)
    assert findings(got)


def test_what_the_hands_may_counts_but_for_what_we_list_ourselves() -> None:
    with_hands = PLAIN_USER.with_hands(1 << 2 | 1 << 19 | 1 << 23)
    assert with_hands.lent == ("CAP_DAC_READ_SEARCH", "CAP_SYS_NICE", "CAP_SYS_PTRACE")
    assert with_hands.may_read_io_of_others
    assert with_hands.abilities.may_renice
    assert not with_hands.sees_all
    assert not with_hands.may("CAP_KILL")
    assert not dataclasses.replace(with_hands, user_namespace=True).may_read_io_of_others
