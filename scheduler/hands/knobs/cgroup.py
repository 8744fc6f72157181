"""Reads the weight of a cgroup (v1 cpu.shares, v2 cpu.weight), whether it is idle (cpu.idle), and the CPUs that a cpuset allows.
Knows files below a mount; `weights.py` writes them. The kernel hides the weight of an idle cgroup.

Paths are those of /proc/PID/cgroup; mounts are arguments, found in the mount table by `find`.
"""

from __future__ import annotations

import os
import re

from ....models.lean import NamedTuple
from ..faults import Fault, Status, Trouble, fault_of, is_gone, status_of
from ..places import Control, parse_cpu_list

DEFAULTS = {Control.CPU_SHARES: 1024, Control.CPU_WEIGHT: 100, Control.CPU_IDLE: 0}
"""The values that the kernel gives to a new cgroup."""


class Mount(NamedTuple):
    """A cgroup hierarchy and where it is mounted."""

    point: str
    root: str  # the part of the hierarchy that is mounted there: "/" unless a container sees only its own part

    def directory(self, cgroup: str) -> str | None:
        """The directory of the cgroup with this path, None if this mount does not show it."""
        parts = [part for part in cgroup.split("/") if part not in ("", ".")]
        if not cgroup.startswith("/") or ".." in parts:
            return None
        root = [part for part in self.root.split("/") if part]
        if parts[: len(root)] == root:
            parts = parts[len(root) :]
        return "/".join((self.point.rstrip("/"), *parts)) or "/"


class Cgroups(NamedTuple):
    """The hierarchies of this machine; None for each that it does not have."""

    shares: Mount | None  # v1 with the cpu controller
    weight: Mount | None  # v2
    cpuset: Mount | None  # v1 with the cpuset controller
    memory: Mount | None = None  # v1 with the memory controller
    pids: Mount | None = None  # v1 with the pids controller
    manager: Mount | None = None  # v1 without a controller, by which systemd tracks which process belongs to which unit

    def read(self, control: Control, cgroup: str) -> int | Trouble:
        """The value now. VANISHED if the cgroup is not there, REFUSED or FAILED with the cause otherwise."""
        file = self.file(control, cgroup)
        if isinstance(file, Trouble):
            return file
        hidden = self.hidden(control, cgroup)
        return _read(file) if hidden is None else hidden

    def allowed(self, lines: str) -> frozenset[int] | None:
        """CPUs that the cpuset of a process allows now, from the text of its /proc/PID/cgroup; None if there are no cpusets.
        Raises OSError if that cannot be read."""
        for line in lines.splitlines():
            _, controllers, path = line.split(":", 2)
            if self.cpuset is not None and "cpuset" in controllers.split(","):
                directory = self.cpuset.directory(path)
                return None if directory is None else _cpus(f"{directory}/cpuset.effective_cpus")
        for line in lines.splitlines():
            if self.weight is not None and line.startswith("0::"):
                directory = self.weight.directory(line[3:])
                while directory is not None and is_within(directory, self.weight.point):
                    cpus = _cpus(f"{directory}/cpuset.cpus.effective")  # only where the controller is on: else the parent's counts
                    if cpus is not None:
                        return cpus
                    directory = above(directory)
        return None

    def is_idle(self, cgroup: str) -> bool | Trouble:
        """Whether a cgroup is idle. False on a kernel without idle cgroups."""
        file = self.file(Control.CPU_IDLE, cgroup)
        now = file if isinstance(file, Trouble) else _read(file)
        if isinstance(now, Trouble):
            return False if now.status in (Status.VANISHED, Status.REFUSED) else now
        return now == 1

    def hidden(self, control: Control, cgroup: str) -> Trouble | None:
        """Why the weight cannot be read or set now; None if it can, or if `control` is not a weight."""
        idle = False if control is Control.CPU_IDLE else self.is_idle(cgroup)
        if isinstance(idle, Trouble) or not idle:
            return idle or None
        return Trouble(Status.REFUSED, f"cgroup {cgroup} has cpu.idle 1, which hides its {control}")

    def file(self, control: Control, cgroup: str) -> str | Trouble:
        """The file of the value, or why there is none."""
        v1, v2 = (self.shares, "v1 cpu hierarchy"), (self.weight, "cgroup v2 hierarchy")
        either = v2 if self.shares is None else v1  # a controller is in one hierarchy only
        mount, name = {Control.CPU_SHARES: v1, Control.CPU_WEIGHT: v2, Control.CPU_IDLE: either}[control]
        if mount is None:
            return Trouble(Status.REFUSED, f"this machine has no {name} mounted")
        directory = mount.directory(cgroup)
        if directory is None:
            return Trouble(Status.FAILED, f"{cgroup!r} is not the path of a cgroup")
        try:
            if not exists(directory):
                return Trouble(Status.VANISHED, f"cgroup {cgroup} is gone")
            there = exists(f"{directory}/{control}")
            other = not there and any(exists(f"{directory}/{weight}") for weight in DEFAULTS if weight is not Control.CPU_IDLE)
        except OSError as error:
            return trouble_of(error, f"{directory}/{control}")
        if not there:
            if other:
                return Trouble(Status.REFUSED, f"this kernel has no {control} of cgroups: it needs Linux 5.15 or newer")
            return Trouble(
                Status.REFUSED,
                f"cgroup {cgroup} has no {control}: the cpu controller is not enabled there; "
                "write +cpu to cgroup.subtree_control of its parents",
            )
        return f"{directory}/{control}"


def find(mountinfo: str) -> Cgroups:
    """The hierarchies in the text of /proc/self/mountinfo; the first mount of each counts."""
    weight: Mount | None = None
    v1: dict[str, Mount] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        mount = Mount(_unescape(fields[4]), _unescape(fields[3]))
        options = kind[2].split(",")
        if kind[0] == "cgroup2":
            weight = weight or mount
            continue
        for option in options:
            v1.setdefault(option, mount)
    return Cgroups(v1.get("cpu"), weight, v1.get("cpuset"), v1.get("memory"), v1.get("pids"), v1.get("name=systemd"))


def exists(path: str) -> bool:
    """Whether the file or directory exists. Raises OSError if that cannot be known, where `os.path.exists` says no."""
    try:
        os.stat(path)
    except OSError as error:
        if is_gone(error, cgroup=True):
            return False
        raise
    return True


def above(path: str) -> str:
    """The path of the directory, or of the cgroup, that this one is in."""
    return path.rpartition("/")[0] or "/"


def is_within(path: str, top: str) -> bool:
    """Whether a path is `top` or below it."""
    return path == top or path.startswith(f"{top.rstrip('/')}/")


def text_of(path: str) -> str:
    """What a file of the kernel has. Raises OSError."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _unescape(text: str) -> str:
    """mountinfo writes space, tab, newline and backslash as octal, proc(5)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _cpus(file: str) -> frozenset[int] | None:
    try:
        return frozenset(parse_cpu_list(text_of(file))) or None
    except OSError as error:
        if is_gone(error, cgroup=True):
            return None
        raise


def _read(file: str) -> int | Trouble:
    try:
        return number(file, text_of(file).encode())
    except OSError as error:
        return trouble_of(error, file)


def number(file: str, text: bytes) -> int | Trouble:
    """The number in the first line."""
    try:
        return int(text.partition(b"\n")[0])
    except ValueError:
        return Trouble(Status.FAILED, f"{file} should have a number, and has {text[:40].decode(errors='replace')!r}")


def trouble_of(error: OSError, file: str) -> Trouble:
    """What a failed system call on a file of a cgroup means."""
    fault = fault_of(error, cgroup=True)
    if fault is Fault.GONE:
        return Trouble(Status.VANISHED, f"cgroup {above(file)} is gone")
    advice = "; run as root, or have the cgroup delegated to this user" if fault is Fault.DENIED else ""
    return Trouble(status_of(error), f"{file}: {error.strerror}{advice}")
