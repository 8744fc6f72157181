"""The weight of a cgroup (v1 cpu.shares, v2 cpu.weight) and the CPUs that a cpuset allows. Knows files below a mount, and must not
know processes' classes, decisions or the ledger.

Paths are those of /proc/PID/cgroup; mounts are arguments, found in the mount table by `find`.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..decision import Control, Status
from ..ports import Trouble

LIMITS = {Control.CPU_SHARES: (2, 262_144), Control.CPU_WEIGHT: (1, 10_000)}
"""kernel/sched/core.c MIN_SHARES, MAX_SHARES; include/linux/cgroup.h CGROUP_WEIGHT_MIN, CGROUP_WEIGHT_MAX."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A cgroup hierarchy and where it can be reached."""

    point: Path
    root: str  # the part of the hierarchy that is mounted there: "/" unless a container sees only its own part

    def directory(self, cgroup: str) -> Path | None:
        """Where the cgroup of this path is, None if this mount does not show it."""
        path = PurePosixPath(cgroup)
        if not path.is_absolute() or ".." in path.parts:
            return None
        if self.root != "/" and path.is_relative_to(self.root):
            path = PurePosixPath("/") / path.relative_to(self.root)
        return self.point / path.relative_to("/")


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The hierarchies of this machine; None where there is none."""

    shares: Mount | None  # v1 with the cpu controller
    weight: Mount | None  # v2
    cpuset: Mount | None  # v1 with the cpuset controller

    def read(self, control: Control, cgroup: str) -> int | Trouble:
        """The weight of a cgroup. VANISHED if the cgroup is not there, REFUSED or FAILED with the cause otherwise."""
        file = self._file(control, cgroup)
        if isinstance(file, Trouble):
            return file
        try:
            text = file.read_text()
        except OSError as error:
            return _trouble(error, file)
        try:
            return int(text)
        except ValueError:
            return Trouble(Status.FAILED, f"{file} has no number but {text[:40]!r}")

    def write(self, control: Control, cgroup: str, value: int) -> Trouble | None:
        """Set the weight of a cgroup. None: done."""
        low, high = LIMITS[control]
        if not low <= value <= high:
            return Trouble(Status.FAILED, f"{control} {value} is not within {low}..{high}")
        file = self._file(control, cgroup)
        if isinstance(file, Trouble):
            return file
        try:
            fd = os.open(file, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            try:
                os.write(fd, b"%d\n" % value)
            finally:
                os.close(fd)
        except OSError as error:
            return _trouble(error, file)
        return None

    def allowed(self, lines: str) -> frozenset[int] | None:
        """CPUs that the cpuset of a process allows now, from the text of its /proc/PID/cgroup; None where there are no cpusets."""
        for line in lines.splitlines():
            _, controllers, path = line.split(":", 2)
            if self.cpuset is not None and "cpuset" in controllers.split(","):
                directory = self.cpuset.directory(path)
                return None if directory is None else _cpus(directory / "cpuset.effective_cpus")
        for line in lines.splitlines():
            if self.weight is not None and line.startswith("0::"):
                directory = self.weight.directory(line[3:])
                while directory is not None and directory.is_relative_to(self.weight.point):
                    cpus = _cpus(directory / "cpuset.cpus.effective")  # only where the controller is on: else the parent's counts
                    if cpus is not None:
                        return cpus
                    directory = directory.parent
        return None

    def _file(self, control: Control, cgroup: str) -> Path | Trouble:
        mount, name = {
            Control.CPU_SHARES: (self.shares, "v1 cpu hierarchy"),
            Control.CPU_WEIGHT: (self.weight, "cgroup v2 hierarchy"),
        }[control]
        if mount is None:
            return Trouble(Status.REFUSED, f"this machine has no {name} mounted")
        directory = mount.directory(cgroup)
        if directory is None:
            return Trouble(Status.FAILED, f"{cgroup!r} is no path of a cgroup")
        if not directory.is_dir():
            return Trouble(Status.VANISHED, f"cgroup {cgroup} is gone")
        if not (directory / control.value).exists():
            return Trouble(
                Status.REFUSED,
                f"cgroup {cgroup} has no {control}: the cpu controller is not on there; "
                "write +cpu to cgroup.subtree_control of its parents",
            )
        return directory / control.value


def find(mountinfo: str) -> Cgroups:
    """The hierarchies in the text of /proc/self/mountinfo; the first mount of each counts."""
    shares = weight = cpuset = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        mount = Mount(Path(_unescape(fields[4])), _unescape(fields[3]))
        options = kind[2].split(",")
        if kind[0] == "cgroup2":
            weight = weight or mount
        elif "cpu" in options:
            shares = shares or mount
        if kind[0] == "cgroup" and "cpuset" in options:
            cpuset = cpuset or mount
    return Cgroups(shares, weight, cpuset)


def _unescape(text: str) -> str:
    """mountinfo writes space, tab, newline and backslash as octal, proc(5)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _cpus(file: Path) -> frozenset[int] | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    cpus: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus) or None


def _trouble(error: OSError, file: Path) -> Trouble:
    if error.errno in (errno.ENOENT, errno.ENODEV):
        return Trouble(Status.VANISHED, f"cgroup {file.parent} is gone")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Trouble(Status.REFUSED, f"{file}: {error.strerror}; run as root, or have the cgroup delegated to this user")
    return Trouble(Status.FAILED, f"{file}: {error.strerror}")
