"""The two units under a real systemd: users, rights and sandboxes as they are installed, and every feature works all the same."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from bench import HOG, SERVICE, Group, group, offline, until, work

CONFIG = """
[daemon]
interval = 0.5
act = true
socket = "/run/nicety/control.sock"
control_group = "nicety"
[models]
behaviour = false
[groups.service]
cgroup = "/service"
class = "interactive"
[groups.batch]
cgroup = "/batch"
class = "batch"
"""

STATE = Path("/var/lib/nicety")
UNITS = ("nicety", "nicety-hands")
MEMBER = 61004
"""Uid of somebody who is in the group of the control socket."""


def systemctl(*arguments: str) -> str:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def main_pid(unit: str) -> int:
    return int(systemctl("show", "--property=MainPID", "--value", unit))


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def nicety(*arguments: str, user: int = 0, members: int = 0) -> subprocess.CompletedProcess[str]:
    """What a user types; `members`: gid of his group."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NICETY_STATE_DIR": str(STATE), "HOME": "/run/tmp"}
    command = ["/usr/local/bin/nicety", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, user=user, group=members, extra_groups=[], cwd="/"
    )


def demoted(batch: Group) -> bool:
    return int(batch.read("cpu.weight")) < 50


@pytest.fixture
def units() -> Iterator[None]:
    """The units, started while the machine has nothing else to do."""
    config = Path("/etc/nicety/nicety.toml")
    config.parent.mkdir(exist_ok=True)
    config.write_text(CONFIG)
    os.chown(config, 0, grp.getgrnam("nicety").gr_gid)
    config.chmod(0o640)
    try:
        assert systemctl("start", "nicety") == ""
        yield
    finally:
        systemctl("stop", "nicety")
        for unit in UNITS:
            print(systemctl("status", "--no-pager", unit))
            log = Path(f"/run/tmp/{unit}.log")
            print(log.read_text() if log.exists() else "no log")


@pytest.fixture
def scene(units: None) -> Iterator[Group]:
    """A service and batch work on two CPUs; the cgroup of the batch work."""
    with offline(2, 3, 4, 5, 6, 7), group("service") as service, group("batch") as batch, ExitStack() as load:
        load.enter_context(work(SERVICE, service))
        load.enter_context(work(HOG, batch, count=3))
        yield batch


def test_the_units_work_as_two_users_and_whoever_dies_leaves_nothing(scene: Group) -> None:
    until(lambda: demoted(scene))
    brain, hands = (status_of(main_pid(unit)) for unit in UNITS)
    for status, unit in ((brain, "nicety"), (hands, "nicety-hands")):
        assert status["Uid"].split() == [str(pwd.getpwnam(unit).pw_uid)] * 4
        assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    assert [int(brain[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0, 0, 0, 0]
    assert int(hands["CapEff"], 16) == int(hands["CapBnd"], 16) == 1 << 1 | 1 << 5 | 1 << 19 | 1 << 23
    place = Path("/run/nicety-hands.sock").stat()
    assert (place.st_uid, stat.S_IMODE(place.st_mode)) == (pwd.getpwnam("nicety").pw_uid, 0o600)

    print("what root and a member of the group type")
    found = json.loads(nicety("status", "--json").stdout)
    assert (found["running"], found["mode"]) == (True, "act"), found
    assert '"priority"' in nicety("decisions", "--json").stdout
    members = grp.getgrnam("nicety").gr_gid
    paused = nicety("pause", user=MEMBER, members=members)
    assert paused.returncode == 0, paused.stderr
    assert nicety("undo", user=MEMBER, members=members).returncode == 1
    undone = nicety("undo")
    assert (undone.returncode, scene.read("cpu.weight")) == (0, "100"), undone.stderr
    assert nicety("resume").returncode == 0
    until(lambda: demoted(scene))

    print("the brain dies")
    before = main_pid("nicety")
    systemctl("kill", "--kill-who=main", "--signal=KILL", "nicety")
    until(lambda: scene.read("cpu.weight") == "100", 20)
    until(lambda: main_pid("nicety") not in (0, before))
    until(lambda: demoted(scene))

    print("the hands die")
    systemctl("kill", "--kill-who=main", "--signal=KILL", "nicety-hands")
    until(lambda: scene.read("cpu.weight") == "100", 20)
    until(lambda: demoted(scene))  # both are there again

    print("both are stopped")
    assert systemctl("stop", "nicety") == ""
    until(lambda: systemctl("is-active", "nicety-hands") == "inactive")
    assert scene.read("cpu.weight") == "100"
    for part, unit in (("brain", "nicety"), ("hands", "nicety-hands")):
        files = [STATE / part, *(STATE / part).rglob("*")]
        assert {path.lstat().st_uid for path in files} == {pwd.getpwnam(unit).pw_uid}
    nothing = nicety("undo")
    assert (nothing.returncode, "nothing to undo" in nothing.stderr) == (0, True), nothing.stderr
    assert nicety("status").returncode == 1


def test_no_capability_of_the_hands_is_without_use_and_none_is_missing(tmp_path: Path) -> None:
    """With version 2 of cgroups, where a fence is among the features."""
    command = [sys.executable, "-m", "benchmarks.trust.rights", "--json", str(tmp_path / "rights.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
