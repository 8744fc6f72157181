"""Programs that tune processes too are known by what they are, and only those that can reach others are yielded to."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest

from nicety.models.records import Identity
from nicety.scheduler.config.sections import Config
from nicety.scheduler.decision import Abilities
from nicety.scheduler.hands.places import Control
from nicety.scheduler.observe.observer import Observer
from nicety.scheduler.observe.rivals import COMM_LETTERS, RIVALS, reaches_others, rival, running, touches, who_touches
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.read.process import see, see_all
from nicety.scheduler.service import doctor

US = 1000


def an_identity(program: str, uid: int = 0) -> Identity:
    return Identity(program[:COMM_LETTERS], program, "/", "", uid)


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("ananicy-cpp", "ananicy-cpp"),
        ("python3 tuned", "tuned"),  # a script by its #! line
        ("python3 ananicy", "ananicy"),
        ("system76-scheduler", "system76-scheduler"),
        ("system76-schedu", "system76-scheduler"),  # its executable could not be read: comm stands for it
        ("and", "and"),
        ("python3 tuned.py", None),
        ("tuned-adm", None),
        ("bash", None),
        ("sand", None),
        ("", None),
    ],
)
def test_a_rival_is_known_by_its_program(program: str, name: str | None) -> None:
    assert rival(program) == name


def test_no_two_rivals_share_the_letters_that_the_kernel_keeps() -> None:
    assert len({name[:COMM_LETTERS] for name in RIVALS}) == len(RIVALS)


def test_every_rival_says_what_it_does_and_how_to_stop_it() -> None:
    for name, one in RIVALS.items():
        assert one.what, name
        assert one.stop.startswith("systemctl "), name
        assert Control.POOL_SIZE not in one.touches, name


def test_whoever_reaches_others_is_running_for_us() -> None:
    found = [an_identity("irqbalance"), an_identity("python3 tuned"), an_identity("gamemoded", US), an_identity("bash")]
    assert running(found, own_uid=US) == ("gamemoded", "irqbalance", "tuned")


def test_anybodys_program_of_such_a_name_changes_nothing_for_others() -> None:
    """Or any user could keep nicety from protecting the rest by naming a program "ananicy"."""
    assert running([an_identity("ananicy", 1234)], own_uid=0) == ()
    assert running([an_identity("ananicy", 1234)], own_uid=US) == ()
    assert reaches_others(0, US)
    assert reaches_others(US, US)


def test_what_is_left_to_rivals_is_all_that_any_of_them_touches() -> None:
    assert touches(()) == frozenset()
    assert touches(["irqbalance", "earlyoom", "cgrulesengd"]) == frozenset()
    assert touches(["tuned", "and"]) == {Control.AFFINITY, Control.POLICY, Control.NICE}
    assert touches(["of another version"]) == frozenset()


def test_the_weights_of_autogroups_are_left_to_nobody() -> None:
    """None of them sets /proc/PID/autogroup: with a renicer running, there is still a way to tell sessions apart."""
    assert who_touches(Control.AUTOGROUP, sorted(RIVALS)) == ()
    assert who_touches(Control.AFFINITY, ["tuned", "numad", "and"]) == ("numad", "tuned")


# --- what doctor says ---------------------------------------------------------------------------------------------------------


def a_process(proc: Path, pid: int, comm: str, exe: str = "", cmdline: bytes = b"") -> None:
    directory = proc / str(pid)
    directory.mkdir()
    (directory / "comm").write_text(comm[:COMM_LETTERS] + "\n")
    fields = ["S", "1", str(pid), str(pid), *["0"] * 15, str(pid), *["0"] * 30]
    (directory / "stat").write_text(f"{pid} ({comm[:COMM_LETTERS]}) {' '.join(fields)}\n")
    (directory / "cmdline").write_bytes(cmdline or comm.encode() + b"\0")
    (directory / "cgroup").write_text("0::/system.slice/x.service\n")
    uids = "\t".join([str(os.getuid())] * 4)
    (directory / "status").write_text(f"Name:\t{comm}\nUid:\t{uids}\n")
    if exe:
        (directory / "exe").symlink_to(exe)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A tree in the form of procfs; whoever runs the test owns its processes."""
    (tmp_path / "self").mkdir()
    a_process(tmp_path, 1, "systemd", "/usr/lib/systemd/systemd")
    return tmp_path


def told(proc: Path, own_uid: int | None = None) -> list[tuple[bool, str, str]]:
    found = list(doctor.rivals(proc, os.getuid() if own_uid is None else own_uid))
    assert {finding.name for finding in found} == {"rival tuners"}
    return [(finding.ok, finding.what, finding.fix) for finding in found]


def test_a_service_manager_is_no_rival(proc: Path) -> None:
    assert told(proc) == [(True, "none is running", "")]


def test_a_rival_is_reported_with_what_is_left_to_it_and_how_to_stop_one_of_the_two(proc: Path) -> None:
    a_process(proc, 70, "ananicy-cpp", "/usr/bin/ananicy-cpp")
    ((ok, what, fix),) = told(proc)
    assert not ok
    assert what.startswith("ananicy-cpp (pid 70) renices by a list of program names")
    assert "while it runs, nicety leaves nice and policy to it and uses only affinity, autogroup, cpu.idle" in what
    assert "systemctl disable --now ananicy-cpp" in fix
    assert "leave nicety observing" in fix


def test_a_script_is_found_by_its_command_line(proc: Path) -> None:
    a_process(proc, 80, "tuned", "/usr/bin/python3.11", b"/usr/bin/python3\0-Es\0/usr/sbin/tuned\0-l\0-P\0")
    ((ok, what, _),) = told(proc)
    assert not ok
    assert "leaves affinity and policy to it" in what


def test_an_executable_of_another_name_is_not_taken_for_a_rival(proc: Path) -> None:
    """comm is whatever the process wants it to be."""
    a_process(proc, 90, "ananicy", "/usr/bin/sleep", b"sleep\0" + b"60\0")
    assert told(proc) == [(True, "none is running", "")]


def test_what_touches_no_process_is_named_and_no_trouble(proc: Path) -> None:
    a_process(proc, 60, "irqbalance", "/usr/sbin/irqbalance")
    ((ok, what, fix),) = told(proc)
    assert ok
    assert what == "none that changes what nicety changes (irqbalance moves interrupts among CPUs, never processes)"
    assert fix == ""


def test_another_users_rival_is_told_and_no_trouble(proc: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to give a directory to somebody else")
    a_process(proc, 60, "gamemoded", "/usr/bin/gamemoded")
    os.chown(proc / "60", 12345, 12345)
    ((ok, what, _),) = told(proc, own_uid=0)
    assert ok
    assert what == "gamemoded (pid 60, of uid 12345) reaches only processes of its user: what it sets there is left alone"


# --- real processes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def rival_process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real process whose executable is called ananicy-cpp."""
    program = tmp_path / "ananicy-cpp"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    process = subprocess.Popen([str(program), "60"])
    yield process
    process.kill()
    process.wait()


def test_a_real_rival_is_seen(rival_process: subprocess.Popen[bytes]) -> None:
    seen = see(rival_process.pid)
    assert seen is not None
    assert (seen.identity.program, seen.identity.uid) == ("ananicy-cpp", os.geteuid())
    assert seen.session == os.getsid(rival_process.pid)
    assert rival(seen.identity.program) == "ananicy-cpp"
    assert "ananicy-cpp" in running([each.identity for each in see_all()], os.geteuid())
    rival_process.send_signal(signal.SIGKILL)
    rival_process.wait()
    assert see(rival_process.pid) is None


def test_a_real_rival_is_in_the_tick_and_gone_from_it_when_it_ended(rival_process: subprocess.Popen[bytes]) -> None:
    own = see(os.getpid())
    assert own is not None
    abilities = Abilities(autogroup=True, cpu_cgroup="", may_renice=False)
    observer = Observer(Config(), abilities, own.id, None, None, None)
    with closing(ProcSource()) as source:
        for at in (1, 2):  # the first tick only takes the counters, and tells of the machine all the same
            tick = observer.tick(source.read(at * 10**9, at, ()), (), paused=False)
            assert "ananicy-cpp" in tick.machine.rivals
        rival_process.kill()
        rival_process.wait()
        tick = observer.tick(source.read(3 * 10**9, 3, ()), (), paused=False)
    assert "ananicy-cpp" not in tick.machine.rivals


def test_a_process_that_calls_itself_a_rival_is_none() -> None:
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b'ananicy', 0, 0, 0); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seen = see(process.pid)
        process.kill()
    assert seen is not None
    assert seen.identity.comm == "ananicy"
    assert rival(seen.identity.program) is None


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES])
def test_what_cannot_be_looked_at_is_not_said_to_be_gone(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real = Path.read_bytes

    def closed(path: Path) -> bytes:
        if path.match(f"{os.getpid()}/comm"):
            raise OSError(number, "injected")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", closed)
    with pytest.raises(OSError, match="injected"):
        see(os.getpid())


def test_another_users_process_that_is_hidden_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_bytes", Mock(side_effect=PermissionError(errno.EACCES, "injected")))
    assert list(see_all()) == []
