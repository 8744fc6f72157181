"""What is each capability of the hands for?

python -m benchmarks.trust.rights [--json FILE]

Needs root. Serves a brain of another user, which has no right, by hands of a third user with the capabilities of
configs/nicety-hands.service, and tries what needs hands on processes of a fourth user. Then again without each of the capabilities,
and with those of configs/nicety-hands-pools.conf. Says what fails without which, and what systemd-analyze gives the units.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from nicety.models.identity import ProcId
from nicety.scheduler.act.hands_apart import HandsApart, reach_hands
from nicety.scheduler.hands.knobs.cgroup import find
from nicety.scheduler.hands.looks import Order
from nicety.scheduler.hands.places import Cgroup, Control
from nicety.scheduler.read import door
from nicety.scheduler.testing.puppet import proc_id
from nicety.scheduler.testing.readable import readable_by_all
from nicety.scheduler.testing.without_rights import without_rights

from .. import ROOT
from ..claims import Claims

CONFIGS = ROOT / "configs"
BOUNDS = {"nicety.service": 0.5, "nicety-hands.service": 1.5, "nicety-exporter.service": 1.0, "nicety-notify.service": 1.1}
"""Highest exposure that each unit may have, by `systemd-analyze security` (issue 24). The last two are chosen: they
have a network, and the brain has none."""

NUMBERS = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_NICE": 23,
}
"""Of linux/capability.h."""

HANDS, BRAIN, OTHER = 61001, 61002, 61003
"""Uids and gids of the hands, of the brain, and of the processes that are changed and read."""

PYTHON = "/usr/bin/python3"
"""One that every user may execute."""

TARGET = """
import os, signal, threading
signal.signal(signal.SIGTTIN, lambda *_: os.write(1, b"more\\n"))
lock = threading.Lock()
lock.acquire()
waiting = threading.Thread(target=lock.acquire, daemon=True)
waiting.start()
print(waiting.native_id, flush=True)
while True:
    signal.pause()
"""

SERVE = """
import os, sys
from nicety.scheduler.hands.owner import Owner, become
from nicety.scheduler.hands.service import main
descriptor, uid, rights, *arguments = sys.argv[1:]
os.dup2(int(descriptor), 3)
become(Owner(int(uid), int(uid)), int(rights))
sys.exit(main(arguments, {**os.environ, "LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}))
"""

CONFIG = """
[pools.web]
kind = "gunicorn"
pidfile = "{pidfile}"
maximum = 4
[pools.jobs]
kind = "command"
command = ["/bin/sleep", "60"]
user = "nobody"
queue = "true"
"""


class Stage(NamedTuple):
    """What the features are tried on."""

    process: ProcId  # of another user, in a session of its own
    waiting: int  # a thread of it, which waits for a lock
    groups: Mapping[str, str]  # paths of cgroups in the cpu hierarchy: of root, and of the other user
    weight: Control  # of cgroups here


class Brain(NamedTuple):
    """What a brain without rights has."""

    stage: Stage
    hands: HandsApart

    def set(self, control: Control, on: ProcId | Cgroup, value: object) -> str:
        """Change a value, and put it back. "" or what went wrong."""
        order = Order("s-0.1", "t", control, on, value)  # type: ignore[arg-type]
        (done,) = self.hands.change([order])
        if done.status == "later":  # an autogroup takes one change in 0.1 s
            time.sleep(0.2)
            (done,) = self.hands.change([order])
        if done.status != "applied":
            return f"{done.status}: {done.detail}"
        undone = self.hands.undo(())
        wrong = [f"not put back: {each.detail}" for each in undone if each.status != "applied"]
        return "; ".join(wrong)


def _cgroup(owner: str) -> Callable[[Brain], str]:
    return lambda brain: brain.set(brain.stage.weight, Cgroup(brain.stage.groups[owner]), 50)


def _own_nice(brain: Brain) -> str:
    os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))  # as its unit does for a daemon
    brain.hands.own_nice(-1, session=False)
    return "" if os.getpriority(os.PRIO_PROCESS, 0) == -1 else "the nice did not change"


def _io(brain: Brain, *, counted: bool) -> str:
    process = brain.stage.process
    found = door.io(f"/proc/{process.pid}", process, counted=counted)
    return "" if counted is (found.descriptors is not None) else "not what was asked for"


def _call(brain: Brain) -> str:
    (found,) = door.calls([(brain.stage.process, brain.stage.waiting)])
    return str(found) if isinstance(found, OSError) else ""


def _lock(brain: Brain) -> str:
    """The word of memory that a thread waits at."""
    process = f"/proc/{brain.stage.process.pid}"
    number, address = door.call(process, brain.stage.waiting).split()[:2]
    word = door.words(process, brain.stage.waiting, 0, int(address, 16), 4)
    return "" if len(word) == 4 else f"no word of call {number!r}"


def _signal(brain: Brain) -> str:
    brain.hands.ask("pool.signal", "web", *brain.stage.process, int(signal.SIGTTIN))
    return ""


def _start(brain: Brain) -> str:
    _, descriptors = brain.hands.ask("pool.start", "jobs", 1)
    for descriptor in descriptors:
        os.close(descriptor)
    return ""


def _on_process(control: Control, value: object) -> Callable[[Brain], str]:
    return lambda brain: brain.set(control, brain.stage.process, value)


def _slice(brain: Brain) -> str:
    """Before Linux 6.12 there are none."""
    why = brain.set(Control.SLICE, brain.stage.process, 20_000_000)
    return "" if "this kernel has no slices" in why else why


def _fence(brain: Brain) -> str:
    """On version 1 of cgroups the kernel lets only root, and the user of a process, move the process
    (cgroup1_procs_write_permission, kernel/cgroup/cgroup-v1.c)."""
    if brain.stage.weight is Control.CPU_SHARES:
        return ""
    return brain.set(Control.FENCE, brain.stage.process, (200, 0, 0))


FEATURES: dict[str, Callable[[Brain], str]] = {
    "nice": _on_process(Control.NICE, 12),
    "affinity": _on_process(Control.AFFINITY, (0,)),
    "policy": _on_process(Control.POLICY, 3),
    "slice": _slice,
    "own nice": _own_nice,
    "autogroup": _on_process(Control.AUTOGROUP, 12),
    "weight of a cgroup of root": _cgroup("root"),
    "weight of a delegated cgroup": _cgroup("other"),
    "fence": _fence,
    "io": lambda brain: _io(brain, counted=False),
    "number of descriptors": lambda brain: _io(brain, counted=True),
    "program": lambda brain: "" if door.link(f"/proc/{brain.stage.process.pid}", "exe") else "no name",
    "busy workers": _call,
    "deadlocks": _lock,
    "signals to a pool": _signal,
}
"""What needs hands, with the rights of the unit."""

POOLS: dict[str, Callable[[Brain], str]] = {"workers as another user": _start}
"""What needs the rights of nicety-hands-pools.conf too."""


def main() -> int:
    """Exit status 1 if a claim falls short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    units, more = granted("nicety-hands.service"), granted("nicety-hands-pools.conf")
    fails: dict[str, dict[str, str]] = {}
    with stage() as (folder, made):
        for features, given, taken in ((FEATURES, units, units), (POOLS, [*units, *more], more)):
            whole = tried(folder, made, given, features)
            print(f"with {', '.join(given)}: {said(whole)}")
            fails[f"with {' '.join(given)}"] = whole
            for one in taken:
                found = tried(folder, made, [each for each in given if each != one], features)
                fails[one] = {name: why for name, why in found.items() if name not in whole}
                print(f"without {one}: {said(fails[one])}")
        bare = tried(folder, made, [], FEATURES)
    claims = Claims()
    for unit, bound in BOUNDS.items():
        claims.at_most(f"exposure of {unit}", exposure(unit), bound)
    for given in ([*units], [*units, *more]):
        lost = fails[f"with {' '.join(given)}"]
        claims.at_most(f"features that fail with {len(given)} capabilities", len(lost), 0)
    for one in (*units, *more):
        claims.at_least(f"features that fail without {one}", len(fails[one]), 1)
    claims.at_least("features that fail without any", len(bare), len(FEATURES) - 1)
    claims.close(asked.json, fails=fails)
    return 0 if all(row["holds"] for row in claims.rows) else 1


def said(found: Mapping[str, str]) -> str:
    """What fails, in words."""
    return "".join(f"\n    {name}: {why}" for name, why in found.items()) or "nothing fails"


def granted(name: str) -> list[str]:
    """The capabilities that a unit grants."""
    lines = re.findall(r"^CapabilityBoundingSet=(.*)$", (CONFIGS / name).read_text(), re.MULTILINE)
    found = [word for line in lines for word in line.split()]
    assert found, "found nothing to check"
    return found


def exposure(unit: str) -> float:
    """What `systemd-analyze security` gives a unit: 0 is none, 10 is all."""
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", CONFIGS / unit]
    told = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}).stdout
    found = re.search(r"exposure level for \S+: ([0-9.]+)", told)
    assert found, told
    return float(found[1])


def tried(folder: Path, made: Stage, given: Iterable[str], features: Mapping[str, Callable[[Brain], str]]) -> dict[str, str]:
    """The features that fail with hands that have these capabilities, and why."""
    rights = sum(1 << NUMBERS[one] for one in given)
    with serving(folder, rights) as path:

        def look() -> dict[str, str]:
            hands = reach_hands(path)
            hands.open()
            door.through(hands.eyes())
            brain, found = Brain(made, hands), dict[str, str]()
            for name, feature in features.items():
                try:
                    why = feature(brain)
                except Exception as error:
                    why = f"{type(error).__name__}: {error}"
                if why:
                    found[name] = why
            hands.close()
            return found

        found = ast.literal_eval(without_rights(look, uid=BRAIN))
    assert isinstance(found, dict)
    return found


@contextmanager
def serving(folder: Path, rights: int) -> Iterator[str]:
    """Hands with these capabilities that serve at a socket; its path."""
    path, state = folder / "hands.sock", folder / "state"
    state.mkdir(mode=0o700)
    os.chown(state, HANDS, HANDS)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        path.chmod(0o666)
        command = [*readable_by_all(), sys.executable, "-c", SERVE, str(listener.fileno()), str(HANDS), str(rights)]
        command += ["--state-dir", str(state), "--config", str(folder / "nicety.toml")]
        hands = subprocess.Popen(command, pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL)
    try:
        yield os.fspath(path)
    finally:
        hands.terminate()
        hands.wait()
        shutil.rmtree(state)
        path.unlink()


@contextmanager
def stage() -> Iterator[tuple[Path, Stage]]:
    """A folder that every user may enter, and what the features are tried on."""
    folder = Path(tempfile.mkdtemp(prefix="nicety-rights-"))
    folder.chmod(0o711)
    process = subprocess.Popen(
        [PYTHON, "-c", TARGET],
        stdout=subprocess.PIPE,
        user=OTHER,
        group=OTHER,
        extra_groups=[],
        cwd="/",
        start_new_session=True,
    )
    groups: list[Path] = []
    try:
        assert process.stdout is not None
        waiting = int(process.stdout.readline())
        for tid in (process.pid, waiting):
            os.setpriority(os.PRIO_PROCESS, tid, 0)
        (folder / "web.pid").write_text(str(process.pid))
        (folder / "nicety.toml").write_text(CONFIG.format(pidfile=folder / "web.pid"))
        found = find(Path("/proc/self/mountinfo").read_text())
        weight, mount = (Control.CPU_SHARES, found.shares) if found.shares is not None else (Control.CPU_WEIGHT, found.weight)
        assert mount is not None, "no cgroups with weights here"
        paths = {}
        for owner, uid in (("root", 0), ("other", OTHER)):
            made = Path(mount.point) / f"nicety-rights-{owner}"
            made.mkdir()
            groups.append(made)
            for path in (made, *made.iterdir()):
                os.chown(path, uid, uid)
            paths[owner] = f"/{made.name}"
        if weight is Control.CPU_WEIGHT:  # where the cpu controller is on: a fence needs it
            (groups[-1] / "cgroup.procs").write_text(str(process.pid))
        yield folder, Stage(proc_id(process.pid), waiting, paths, weight)
    finally:
        process.kill()
        process.communicate()
        for made in groups:
            with suppress(OSError):
                made.rmdir()
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
