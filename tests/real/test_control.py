"""The knobs of this very kernel: cgroup weights, cpusets, autogroups, threads that come and go, pids that come back."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.hands.faults import Status, Trouble
from nicety.scheduler.hands.kernel import Reach
from nicety.scheduler.hands.knobs.cgroup import Cgroups, Mount, find
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.hands.knobs.slices import SHORTEST, Slices
from nicety.scheduler.hands.knobs.weights import write_weight
from nicety.scheduler.hands.places import AutogroupPlace, Cgroup, Control, Knob, ThreadId, ThreadPlace
from nicety.scheduler.testing.puppet import Puppet, proc_id

HERE = find(Path("/proc/self/mountinfo").read_text())
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def own_group(mount: Mount | None, what: str) -> Iterator[Path]:
    """A child of the root cgroup, removed when all that we put there has been ended."""
    if os.geteuid() != 0:
        pytest.skip("making a cgroup needs root")
    if mount is None:
        pytest.skip(f"this machine has no {what}")
    path = Path(mount.point) / f"nicety-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made in {mount.point}: {error.strerror}")
    try:
        yield path
    finally:
        deadline = time.monotonic() + 5
        while True:
            try:
                path.rmdir()
                break
            except OSError:
                assert time.monotonic() < deadline, f"{path} is still in use"


@pytest.fixture
def cpu_group() -> Iterator[Path]:
    yield from own_group(HERE.shares, "cgroup v1 cpu hierarchy")


@pytest.fixture
def cpuset_group() -> Iterator[Path]:
    yield from own_group(HERE.cpuset, "cgroup v1 cpuset hierarchy")


def shares(path: Path) -> Knob:
    return Knob(Control.CPU_SHARES, Cgroup(f"/{path.name}"))


@pytest.mark.root
def test_cpu_shares_of_a_real_cgroup_are_written_and_read_back(cpu_group: Path) -> None:
    kernel, knob = LinuxKernel(), shares(cpu_group)
    assert kernel.read(knob) == 1024
    assert kernel.write(knob, 1024, 2) is None
    assert (cpu_group / "cpu.shares").read_text() == "2\n"
    trouble = kernel.write(knob, 1024, 5)
    assert trouble is not None
    assert trouble.status is Status.FOREIGN
    for wrong in (1, 262_145):
        trouble = kernel.write(knob, 2, wrong)
        assert trouble is not None
        assert trouble.status is Status.FAILED
    assert kernel.write(knob, 2, 1024) is None
    assert (cpu_group / "cpu.shares").read_text() == "1024\n"


@pytest.mark.root
def test_a_cgroup_that_was_removed_is_a_value(cpu_group: Path) -> None:
    knob = shares(cpu_group)
    cpu_group.rmdir()
    found = LinuxKernel().read(knob)
    assert isinstance(found, Trouble)
    assert found.status is Status.VANISHED
    cpu_group.mkdir()


@pytest.fixture
def unified(tmp_path: Path) -> Cgroups:
    """A tree in the form of cgroup v2, with the cpu controller on for one cgroup."""
    (tmp_path / "batch.slice" / "job").mkdir(parents=True)
    (tmp_path / "batch.slice" / "cpu.weight").write_text("100\n")
    (tmp_path / "cpuset.cpus.effective").write_text("0-3,7\n")
    (tmp_path / "batch.slice" / "cpuset.cpus.effective").write_text("1-2\n")
    return Cgroups(None, Mount(str(tmp_path), "/"), None)


def test_cpu_weight_is_written_and_read_back(unified: Cgroups) -> None:
    kernel = LinuxKernel(cgroups=unified)
    knob = Knob(Control.CPU_WEIGHT, Cgroup("/batch.slice"))
    assert kernel.read(knob) == 100
    assert kernel.write(knob, 100, 1) is None
    assert kernel.read(knob) == 1
    trouble = kernel.write(knob, 100, 7)
    assert trouble is not None
    assert trouble.status is Status.FOREIGN


@pytest.mark.parametrize(
    ("cgroup", "status", "text"),
    [
        ("/batch.slice/job", Status.REFUSED, "cgroup.subtree_control"),
        ("/none", Status.VANISHED, "gone"),
        ("/../etc", Status.FAILED, "not the path of a cgroup"),
        ("relative", Status.FAILED, "not the path of a cgroup"),
        ("", Status.FAILED, "not the path of a cgroup"),
    ],
)
def test_a_cgroup_without_weight_says_why(unified: Cgroups, cgroup: str, status: Status, text: str) -> None:
    for answer in (unified.read(Control.CPU_WEIGHT, cgroup), write_weight(unified, Control.CPU_WEIGHT, cgroup, 100, 5)):
        assert isinstance(answer, Trouble)
        assert answer.status is status
        assert text in answer.text


def test_a_weight_is_hidden_while_the_cgroup_is_idle_and_an_older_kernel_has_no_idle_ones(unified: Cgroups, tmp_path: Path) -> None:
    missing = unified.read(Control.CPU_IDLE, "/batch.slice")
    assert isinstance(missing, Trouble)
    assert (missing.status, missing.text) == (
        Status.REFUSED,
        "this kernel has no cpu.idle of cgroups: it needs Linux 5.15 or newer",
    )
    assert unified.read(Control.CPU_WEIGHT, "/batch.slice") == 100
    (tmp_path / "batch.slice" / "cpu.idle").write_text("0\n")
    assert write_weight(unified, Control.CPU_IDLE, "/batch.slice", 0, 1) is None
    assert unified.read(Control.CPU_IDLE, "/batch.slice") == 1
    hidden = unified.read(Control.CPU_WEIGHT, "/batch.slice")
    assert isinstance(hidden, Trouble)
    assert hidden.text == "cgroup /batch.slice has cpu.idle 1, which hides its cpu.weight"
    assert write_weight(unified, Control.CPU_IDLE, "/batch.slice", 1, 0) is None
    (tmp_path / "batch.slice" / "cpu.weight").write_text("300\n")
    lost = write_weight(unified, Control.CPU_IDLE, "/batch.slice", 0, 1)
    assert lost is not None
    assert "cpu.weight 300, which cpu.idle would lose" in lost.text
    assert unified.read(Control.CPU_IDLE, "/batch.slice") == 0


def test_a_hierarchy_that_is_not_there_is_refused(unified: Cgroups) -> None:
    answer = unified.read(Control.CPU_SHARES, "/batch.slice")
    assert isinstance(answer, Trouble)
    assert (answer.status, answer.text) == (Status.REFUSED, "this machine has no v1 cpu hierarchy mounted")


def test_a_weight_that_is_no_number_is_a_value(unified: Cgroups, tmp_path: Path) -> None:
    (tmp_path / "batch.slice" / "cpu.weight").write_text("idle\n")
    answer = unified.read(Control.CPU_WEIGHT, "/batch.slice")
    assert isinstance(answer, Trouble)
    assert answer.status is Status.FAILED


def test_the_cpuset_is_that_of_the_nearest_group_that_has_the_controller(unified: Cgroups) -> None:
    assert unified.allowed("0::/batch.slice/job\n") == frozenset({1, 2})
    assert unified.allowed("1:name=systemd:/x\n0::/other\n") == frozenset({0, 1, 2, 3, 7})
    assert Cgroups(None, None, None).allowed("0::/batch.slice\n") is None


def test_hierarchies_are_found_in_a_mount_table_of_any_kind() -> None:
    hybrid = (
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
        "33 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
        "34 31 0:31 / /elsewhere rw,relatime - cgroup cgroup rw,cpuset\n"
        "40 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
        "41 31 0:39 / /mnt/with\\040space rw - ext4 /dev/sda1 rw\nshort line\n"
    )
    sys_fs = Path("/sys/fs/cgroup")
    assert find(hybrid) == Cgroups(
        Mount(str(sys_fs / "cpu,cpuacct"), "/"), Mount(str(sys_fs / "unified"), "/"), Mount(str(sys_fs / "cpuset"), "/")
    )
    container = find("1 0 0:1 /docker/abc /sys/fs/cgroup\\040x ro,nosuid - cgroup2 cgroup rw\n")
    assert container.weight is not None
    assert container.weight.directory("/docker/abc/job") == "/sys/fs/cgroup x/job"
    assert container.weight.directory("/job") == "/sys/fs/cgroup x/job"
    assert find("") == Cgroups(None, None, None)


@pytest.mark.root
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two CPUs")
def test_the_kernel_remembers_an_affinity_that_a_cpuset_hides_and_so_do_we(cpuset_group: Path) -> None:
    top = cpuset_group.parent
    (cpuset_group / "cpuset.mems").write_text((top / "cpuset.mems").read_text())
    (cpuset_group / "cpuset.cpus").write_text("0-1")
    kernel = LinuxKernel()
    with Puppet() as puppet:
        (cpuset_group / "cgroup.procs").write_text(str(puppet.pid))
        knob = Knob(Control.AFFINITY, ThreadPlace(puppet.id, ThreadId(*puppet.id)))
        whole = kernel.read(knob)
        assert whole == (0, 1)
        lasting = kernel.lasting(knob, whole)
        assert not isinstance(lasting, Trouble)
        assert kernel.write(knob, whole, (1,)) is None
        (cpuset_group / "cpuset.cpus").write_text("0")
        assert kernel.read(knob) == kernel.visible(knob, (1,)) == (0,)
        assert kernel.write(knob, (0,), lasting) is None
        assert kernel.read(knob) == kernel.visible(knob, lasting) == (0,)
        (cpuset_group / "cpuset.cpus").write_text("0-1")
        assert kernel.read(knob) == (0, 1)


def test_all_threads_are_seen_while_others_come_and_go() -> None:
    kernel = LinuxKernel()
    with Puppet() as puppet:
        steady = {puppet.thread() for _ in range(10)}
        puppet.churn(1.0)
        for _ in range(30):
            found = kernel.threads(puppet.id)
            assert not isinstance(found, Trouble)
            assert steady <= {thread.tid for thread in found}
            assert found[0] == ThreadId(*puppet.id)


ZOMBIE_LEADER = """
import ctypes, os, signal, threading
threading.Thread(target=signal.pause).start()
print(os.getpid(), flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_first_thread_that_has_ended_does_not_hide_the_others() -> None:
    kernel = LinuxKernel()
    process = subprocess.Popen([sys.executable, "-c", ZOMBIE_LEADER], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        identity = proc_id(pid)
        deadline = time.monotonic() + 5
        while True:
            threads = kernel.threads(identity)
            assert not isinstance(threads, Trouble)
            if [thread.tid for thread in threads] != [pid] and all(thread.tid != pid for thread in threads):
                break
            assert time.monotonic() < deadline
        (thread,) = threads
        knob = Knob(Control.AFFINITY, ThreadPlace(identity, thread))
        assert kernel.write(knob, kernel.read(knob), (0,)) is None  # type: ignore[arg-type]
        assert kernel.read(knob) == (0,)
    finally:
        process.kill()
        process.communicate()


REUSE = """
import os, sys, time
from pathlib import Path
from nicety.models.identity import ProcId
from nicety.scheduler.hands.places import Control
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import ThreadId, ThreadPlace
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.hands.places import Knob
kernel = LinuxKernel()
def child(wanted=None):
    if wanted is not None:
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(wanted - 1))
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    return pid
def end(pid):
    os.kill(pid, 9)
    os.waitpid(pid, 0)
def ticks(pid):
    raw = Path(f"/proc/{pid}/stat").read_bytes()
    return int(raw[raw.rindex(b")") + 2:].split()[19])
def later(then):
    while kernel.uptime_ticks() <= then:
        time.sleep(0.001)
reused = touched = caught = 0
plain = LinuxKernel._doubt
for turn in range(12):
    pid = child()
    identity = ProcId(pid, ticks(pid))
    knob = Knob(Control.NICE, ThreadPlace(identity, ThreadId(*identity)))
    later(identity.start_ticks)
    impostor = None
    if turn % 2:
        end(pid)
        impostor = child(pid)
    else:
        # the race itself: it ends, and its number comes back, after the check and before the value is set
        def check(self, process, thread, state=[0]):
            global impostor
            answer = plain(self, process, thread)
            if impostor is None:
                end(pid)
                impostor = child(pid)
            return answer
        LinuxKernel._doubt = check
    trouble = kernel.write(knob, 0, 10)
    LinuxKernel._doubt = plain
    reused += impostor == pid
    caught += trouble is not None and trouble.status is Status.VANISHED
    touched += os.getpriority(os.PRIO_PROCESS, impostor) != 0
    end(impostor)
print(reused, caught, touched)
"""


@pytest.mark.root
@root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare for a pid namespace of its own")
def test_whoever_gets_a_reused_pid_keeps_its_nice_even_within_the_race() -> None:
    result = subprocess.run(
        ["unshare", "-pf", "--mount-proc", sys.executable, "-c", REUSE], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["12", "12", "0"], "reused, caught, touched"


def slices_or_skip() -> Slices:
    slices = Slices()
    try:
        slices.read(os.getpid())
    except OSError as error:
        pytest.skip(f"this kernel has no slices: {error.strerror}")
    return slices


SLEEPER = """
import os, sys, time
os.sched_setscheduler(0, int(sys.argv[1]), os.sched_param(int(sys.argv[2])))
print(flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def sleeper(policy: int, priority: int = 0) -> Iterator[ProcId]:
    process = subprocess.Popen([sys.executable, "-c", SLEEPER, str(policy), str(priority)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            pytest.skip("this policy may not be had here")
        yield proc_id(process.pid)
    finally:
        process.kill()
        process.communicate()


def test_a_slice_leaves_the_reset_on_fork_flag_and_its_default_is_no_length() -> None:
    slices, kernel = slices_or_skip(), LinuxKernel()
    with sleeper(os.SCHED_BATCH | os.SCHED_RESET_ON_FORK) as process:
        knob = Knob(Control.SLICE, ThreadPlace(process, ThreadId(*process)))
        assert kernel.read(knob) == 0
        assert kernel.write(knob, 0, 400_000) is None
        assert os.sched_getscheduler(process.pid) == os.SCHED_BATCH | os.SCHED_RESET_ON_FORK
        (default,) = slices._defaults
        assert kernel.visible(knob, default) == 0, "somebody who asks for the default's length has the default"
        assert kernel.visible(knob, 400_000) == 400_000
        assert kernel.write(knob, 400_000, default) is None
        assert kernel.read(knob) == 0


@pytest.mark.root
@root
def test_a_real_time_thread_has_no_slice() -> None:
    slices_or_skip()
    kernel = LinuxKernel()
    with sleeper(os.SCHED_RR, 1) as process:
        knob = Knob(Control.SLICE, ThreadPlace(process, ThreadId(*process)))
        for answer in (kernel.read(knob), kernel.write(knob, 0, 400_000)):
            assert isinstance(answer, Trouble)
            assert answer.status is Status.REFUSED
            assert "only SCHED_OTHER and SCHED_BATCH have slices" in answer.text


def test_the_default_slice_is_found_whatever_nice_and_policy_we_run_with() -> None:
    slices_or_skip()
    code = "import os; from nicety.scheduler.hands.knobs.slices import Slices; os.nice(5); {}; print(Slices().read(os.getpid()))"
    for policy in ("0, 0", "3, 0", "3 | os.SCHED_RESET_ON_FORK, 0", *(["5, 0"] if os.geteuid() == 0 else [])):
        number, priority = policy.split(",")
        change = f"os.sched_setscheduler(0, {number}, os.sched_param({priority}))"
        result = subprocess.run(
            [sys.executable, "-c", code.format(change)], capture_output=True, text=True, timeout=30, check=False
        )
        assert (result.stdout, result.stderr) == ("0\n", ""), policy


def test_a_kernel_without_slices_is_refused_with_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = LinuxKernel()
    monkeypatch.setattr("nicety.scheduler.hands.knobs.slices._get_number", -1)
    with Puppet() as puppet:
        knob = Knob(Control.SLICE, ThreadPlace(puppet.id, ThreadId(*puppet.id)))
        for answer in (kernel.read(knob), kernel.write(knob, 0, 400_000)):
            assert answer == Trouble(Status.REFUSED, "this kernel has no slices of threads: they need Linux 6.12 or newer")


UNPRIVILEGED_SLICE = """
import ctypes, os, threading, time  # which nobody may not read where this Python is
from nicety.models.identity import ProcId
from nicety.scheduler.hands.places import Control
from nicety.scheduler.hands.places import ThreadId, ThreadPlace
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.hands.places import Knob
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
kernel = LinuxKernel()
own, init = kernel.itself(), kernel.kin().kin[0].id
def knob(process):
    return Knob(Control.SLICE, ThreadPlace(process, ThreadId(*process)))
print(kernel.read(knob(own)), kernel.write(knob(own), 0, 300_000), kernel.read(knob(own)))
print(kernel.write(knob(own), 300_000, 0), kernel.read(knob(own)))
print(kernel.write(knob(init), kernel.read(knob(init)), 300_000).text)
"""


@pytest.mark.root
@root
def test_everybody_may_slice_his_own_processes_and_put_it_back() -> None:
    slices_or_skip()
    result = subprocess.run([sys.executable, "-c", UNPRIVILEGED_SLICE], capture_output=True, text=True, timeout=30, check=True)
    own, back, other = result.stdout.splitlines()
    assert (own, back) == ("0 None 300000", "None 0")
    assert "not permitted: another user's process needs CAP_SYS_NICE" in other


UNPRIVILEGED = """
import os
from nicety.scheduler.hands.places import Control
from nicety.scheduler.hands.knobs.control import LinuxKernel
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
kernel = LinuxKernel()
print(*(bool(kernel.forbidden(control)) for control in Control))
"""


@pytest.mark.root
@root
def test_without_the_capability_what_could_not_be_put_back_is_forbidden() -> None:
    result = subprocess.run([sys.executable, "-c", UNPRIVILEGED], capture_output=True, text=True, timeout=30, check=True)
    expected = {Control.NICE: True, Control.AFFINITY: False, Control.POLICY: True, Control.AUTOGROUP: True}
    assert result.stdout.split() == [str(expected.get(control, False)) for control in Control]


@pytest.mark.root
@root
def test_a_capability_within_a_user_namespace_does_not_count() -> None:
    code = "from nicety.scheduler.hands.knobs.control import LinuxKernel; from nicety.scheduler.hands.places import Control; "
    code += "print(bool(LinuxKernel().forbidden(Control.NICE)))"
    result = subprocess.run(["unshare", "-Ur", sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    if result.returncode and "unshare" in result.stderr:
        pytest.skip(f"no user namespace can be made: {result.stderr.strip()}")
    assert result.stdout.strip() == "True", result.stderr


def test_a_reader_of_a_process_in_no_autogroup_is_told_so(tmp_path: Path) -> None:
    with Puppet() as puppet:
        fake = tmp_path / str(puppet.pid)
        fake.mkdir()
        shutil.copy(f"/proc/{puppet.pid}/stat", fake / "stat")
        (tmp_path / "self").mkdir()
        (tmp_path / "self" / "mountinfo").write_text("")
        kernel = LinuxKernel(tmp_path)
        for text in (None, "", "garbage"):
            if text is not None:
                (fake / "autogroup").write_text(text)
            answer = kernel.autogroup(puppet.id)
            assert isinstance(answer, Trouble)
            assert answer.status is Status.REFUSED
        (fake / "autogroup").write_text("/autogroup-77 nice -5\n")
        assert kernel.autogroup(puppet.id) == "autogroup-77"
        assert kernel.read(Knob(Control.AUTOGROUP, AutogroupPlace("autogroup-77", puppet.id))) == -5
        other = ProcId(puppet.pid, puppet.id.start_ticks + 1)
        answer = kernel.autogroup(other)
        assert isinstance(answer, Trouble)
        assert answer.status is Status.VANISHED


def test_names_with_parentheses_and_newlines_do_not_shift_the_fields(tmp_path: Path) -> None:
    (tmp_path / "42").mkdir()
    (tmp_path / "42" / "stat").write_text("42 (a) b\n) R 1 2) S 7 8 9 " + "0 " * 15 + "4711 0\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mountinfo").write_text("")
    kin = LinuxKernel(tmp_path).kin().kin
    assert [(each.id, each.parent, each.group, each.session) for each in kin] == [(ProcId(42, 4711), 7, 8, 9)]


def test_who_has_ended_and_was_not_waited_for_has_no_threads() -> None:
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    kernel = LinuxKernel()
    identity = next(kin.id for kin in kernel.kin().kin if kin.id.pid == ended.pid)
    answer = kernel.threads(identity)
    ended.wait()
    assert isinstance(answer, Trouble)
    assert answer.status is Status.VANISHED


def test_a_scan_asks_about_parents_first_because_pids_begin_anew(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mountinfo").write_text("")
    for pid, parent, start in ((1, 0, 1), (40, 1, 5), (41, 40, 9), (7, 41, 9), (8, 7, 9), (60, 1, 5), (61, 60, 9), (9, 61, 9)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (name) S {parent} {pid} {pid} " + "0 " * 15 + f"{start} 0\n")
    kin = LinuxKernel(tmp_path).kin(reach=Reach(8, [40], [], [])).kin
    assert [each.id.pid for each in kin] == [7, 8, 40, 41], "none below 60"


BRIEF = """
import os
from nicety.scheduler.hands.knobs.slices import SHORTEST, Slices, ask_for
done, nice = ask_for(SHORTEST), os.nice(0)
own = Slices().read(0)
pid = os.fork()
if pid == 0:
    os._exit(10 if Slices().read(0) == 0 and os.nice(0) == nice else 11)
child = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(done, own, child, os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK)
"""


def test_a_process_that_asks_for_a_short_slice_has_it_and_its_children_have_not() -> None:
    try:
        Slices().read(0)
    except OSError as error:
        pytest.skip(f"no slices here: {error}")
    told = subprocess.run([sys.executable, "-c", BRIEF], capture_output=True, text=True, check=True).stdout.split()
    assert told == ["True", str(SHORTEST), "10", str(os.SCHED_OTHER)]


LADDER = """
import os, subprocess, sys, time
from nicety.scheduler.service.own.ladder import Rest
from nicety.scheduler.service.own import priority as own_priority
SECOND, now, waits = 1_000_000_000, [0], [7]
own_priority._waited = lambda: waits[0]
own = own_priority.OwnPriority()

def session(set=None):
    with open("/proc/self/autogroup", "r+") as file:
        if set is not None:
            file.write(str(set))
        return file.read().split()[-1]

def turn(demoted, waited=0):
    now[0] += 60 * SECOND
    waits[0] += waited
    own.ticked(now[0], SECOND, SECOND // 4)
    own.follow(now[0], Rest.BACK if demoted else Rest.USUAL, SECOND // 4)
    return f"{session()}/{os.getpriority(os.PRIO_PROCESS, 0)}"

waits[0] += SECOND  # until the loop begins nothing counts
own.begin()
told = [turn(False), turn(True), turn(True, SECOND // 5), turn(True, SECOND), turn(True, SECOND)]
child = "import os; print(os.nice(0), os.sched_getscheduler(0), open('/proc/self/autogroup').read().split()[-1])"
born = subprocess.run([sys.executable, "-c", child], start_new_session=True, capture_output=True, text=True).stdout.split()
time.sleep(0.11)  # without CAP_SYS_ADMIN the kernel takes one change in 0.1 s
own.give_back()
given_back = f"{session()}/{os.getpriority(os.PRIO_PROCESS, 0)}"
told += [turn(False, SECOND), own.trouble]
session(3), os.setpriority(os.PRIO_PROCESS, 0, -3)
told += [turn(False), turn(True), turn(True, SECOND)]
own.give_back()
told.append(turn(False))
print(*told[:5], "|", *born, "|", given_back, "|", *told[5:], sep=" ")
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only CAP_SYS_NICE can climb")
autogroups = pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel has no autogroups")


def ladder(*before: str) -> list[str]:
    """What the daemon's own nices were in `LADDER`, session / thread; as the leader of a session unless `before` says otherwise."""
    command = [*before, sys.executable, "-c", LADDER]
    return subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True).stdout.strip().split(" | ")


@pytest.mark.root
@needs_root
@autogroups
def test_its_own_priority_climbs_where_ticks_wait_and_no_child_inherits_it() -> None:
    climbing, born, given_back, rest = ladder()
    assert climbing.split() == ["0/0", "19/0", "19/0", "0/0", "-10/-10"]
    assert born.split() == ["0", str(os.SCHED_OTHER), "0"]
    assert given_back == "0/0"
    assert rest.split()[0] == "-20/-20"
    assert set(rest.split()[1:]) == {"3/-3"}, "what somebody else sets is left alone"


@pytest.mark.root
@needs_root
@autogroups
def test_in_the_session_of_another_only_its_own_thread_climbs() -> None:
    climbing, born, given_back, rest = ladder("sh", "-c", '"$@"; true', "sh")
    assert climbing.split() == ["0/0", "0/0", "0/0", "0/0", "0/-10"]
    assert born.split() == ["0", str(os.SCHED_OTHER), "0"]
    assert given_back == "0/0"
    assert rest.split()[0] == "0/-20"


@pytest.mark.root
@needs_root
@autogroups
@pytest.mark.parametrize(
    ("started", "climbed"), [(["nice", "-n", "-5"], ["-10/-10", "0/-5"]), (["nice", "-n", "7"], ["-10/7", "0/7"])]
)
def test_the_nice_that_it_was_started_with_is_not_lowered_and_one_above_0_is_left_alone(
    started: list[str], climbed: list[str]
) -> None:
    climbing, born, given_back, _ = ladder(*started)
    assert [climbing.split()[-1], given_back] == climbed
    assert born.split()[0] == ("7" if "7" in started else "0")


@autogroups
def test_without_the_right_to_climb_it_stays_and_says_so() -> None:
    code = LADDER.replace("session(3), os.setpriority(os.PRIO_PROCESS, 0, -3)", "")
    powerless = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"] if os.geteuid() == 0 else []
    command = [*powerless, sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True)
    assert " 0/0 ticks wait for a CPU, and the daemon may not raise its priority; give it CAP_SYS_NICE" in done.stdout
    assert "-" not in done.stdout.replace("CAP_SYS_NICE", "")


STOPPED = """
import os, signal, time
from nicety.scheduler.service.own.ladder import Rest
from nicety.scheduler.service.own.priority import OwnPriority
own, hogs, cpu = OwnPriority(), [], min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {cpu})

def tick(busy):
    began = time.monotonic_ns()
    busy()
    now = time.monotonic_ns()
    own.ticked(now, now - began, 250_000_000)
    own.follow(now, Rest.BACK, 250_000_000)
    return own.nice

def stop():
    if os.fork() == 0:
        time.sleep(0.5)
        os.kill(os.getppid(), signal.SIGCONT)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGSTOP)
    os.wait()

def compete():
    for _ in range(2):
        hogs.append(os.fork())
        if hogs[-1] == 0:
            os.setsid()
            while True:
                pass
    end = time.monotonic() + 1
    while time.monotonic() < end:
        pass

own.follow(time.monotonic_ns(), Rest.BACK, 250_000_000)
own.begin()
print(tick(stop), tick(compete) < 19)
for pid in hogs:
    os.kill(pid, signal.SIGKILL)
"""


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel has no autogroups")
def test_ticks_are_slow_where_they_wait_for_a_cpu_not_where_the_daemon_is_stopped() -> None:
    done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, check=True, start_new_session=True)
    assert done.stdout.strip() == "19 True"
