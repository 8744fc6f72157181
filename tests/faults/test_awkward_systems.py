"""A /proc that hides processes or the machine, a read-only state directory, no $HOME: `doctor` and `run` name the cause and what to
do. Real mounts, in mount namespaces of their own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nicety.scheduler.interpreter import PYTHON, place

NOBODY = 65534
NICETY = " ".join((*PYTHON, "-m", "nicety.scheduler"))
AS_NOBODY = f"setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups"
KERNEL = tuple(int(part) for part in platform.release().split(".")[:2])

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0,
        reason="needs root and mount namespaces",
    ),
]
own_proc = pytest.mark.skipif(KERNEL < (5, 8), reason="before Linux 5.8 the options of /proc are those of all its mounts")


def within(mount: str, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A shell command in a mount namespace of its own, after `mount`, in the environment of a service."""
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": place(), "OMP_NUM_THREADS": "1", **environment}
    script = ["unshare", "-m", "sh", "-c", f"{mount} && {command}"]
    return subprocess.run(script, capture_output=True, text=True, timeout=60, check=False, env=variables, cwd="/")


def doctor(mount: str, options: str = "", user: str = "", **environment: str) -> dict[str, dict[str, Any]]:
    """What doctor found that is not ok, by name."""
    done = within(mount, f"exec {user} {NICETY} doctor --json {options}", **environment)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return {each["name"]: each for each in json.loads(done.stdout)["findings"] if not each["ok"]}


def run(mount: str, options: str = "", user: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    done = within(mount, f"exec {user} {NICETY} run --duration 0.3s {options}", **environment)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def state() -> Iterator[Path]:
    """A state directory that other users can reach; pytest's own folders are 0700 all the way up."""
    with tempfile.TemporaryDirectory(prefix="nicety-test-") as name:
        Path(name).chmod(0o755)
        (Path(name) / "state").mkdir(mode=0o700)
        yield Path(name) / "state"


@own_proc
def test_a_proc_that_hides_the_processes_of_others_is_named(state: Path) -> None:
    os.chown(state, NOBODY, NOBODY)
    hide, options = "mount -t proc -o hidepid=2 proc /proc", f"--state-dir {state}"
    found = doctor(hide, options, AS_NOBODY)
    assert "hidepid" in found["other users' processes"]["what"]
    assert "hidepid=0" in found["other users' processes"]["fix"]
    done = run(hide, options, AS_NOBODY)
    assert done.returncode == 0, "what can be seen is recorded; CPU use that is not seen becomes a note"


@own_proc
def test_a_proc_with_nothing_but_processes_is_named(state: Path) -> None:
    bare, options = "mount -t proc -o subset=pid proc /proc", f"--state-dir {state}"
    assert "without subset=pid" in doctor(bare, options)["visibility"]["what"]
    done = run(bare, options)
    assert done.returncode == 1
    assert "without subset=pid" in done.stderr


@pytest.mark.parametrize("where", ["itself", "not there yet"])
def test_a_state_directory_that_cannot_be_written_is_named(state: Path, where: str) -> None:
    bound = f"mount --bind {state} {state} && mount -o remount,ro,bind {state}"
    options = f"--state-dir {state}{'' if where == 'itself' else '/below/it'}"
    found = doctor(bound, options)["state directory"]
    assert "read-only" in found["what"]
    assert "--state-dir" in found["fix"]
    done = run(bound, options)
    assert done.returncode == 1
    assert "read-only" in done.stderr
    assert list(state.iterdir()) == []


def test_a_user_without_any_home_is_told_what_to_give() -> None:
    user = "setpriv --reuid 54321 --regid 54321 --clear-groups"
    assert "--state-dir" in doctor("true", user=user)["state directory"]["what"]
    done = run("true", user=user)
    assert done.returncode == 1
    assert "$HOME" in done.stderr
    assert "--state-dir" in done.stderr


def test_a_state_directory_on_an_overlay_works(state: Path) -> None:
    parts = ",".join(f"{name}dir={state.parent / name}" for name in ("lower", "upper", "work"))
    # on a disk of its own: an overlay cannot have another overlay as its upper layer
    mount = f"mount -t tmpfs -o mode=755 none {state.parent} && cd {state.parent} && mkdir -m 700 lower upper work state"
    command = f"{NICETY} run --duration 0.3s --state-dir {state} && ls -A {state.parent}/upper"
    done = within(f"{mount} && mount -t overlay overlay -o {parts} {state}", command)
    if "unknown filesystem type" in done.stderr:
        pytest.skip("this kernel has no overlay")
    assert done.returncode == 0, done.stderr
    assert {"decisions.db", "traces"} <= set(done.stdout.split())
