"""Fences: makes a cgroup below the one that a process is in, moves the process and its children there, and removes it again.

Knows cgroup files. Must not know which process to fence, nor the ledger. Why this can be undone exactly:

- The cgroup that a process came from is the directory above its fence. The kernel removes no cgroup that has others below it, so
  it exists as long as the fence does.
- When the fence is removed, the processes in it move up, also children that were born in it, until the kernel says that it is
  empty: rmdir(2) of a cgroup with processes fails.
- Nothing that was there before is changed: the limits are the fence's own and go with it. On v2 the cgroup above may have to
  enable the cpu and pids controllers for its children; they are disabled again when the fence is gone.

On v2 a cgroup with processes cannot have limits for some of them, except for CPU and tasks in a threaded cgroup
(Documentation/admin-guide/cgroup-v2.rst, "Threads"): the siblings need not be moved, and the manager of the cgroup above sees the
same processes in it as before. Memory can only be fenced on v1, or directly below the root.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum

from ....models.identity import ProcId
from ....models.lean import NamedTuple
from ..faults import Status, Trouble, is_gone, status_of
from ..fences import ALTERED, FENCED, Limits, Part, key_of, name_for, outside, parts_of
from ..kernel import Kin, Scan
from .cgroup import Cgroups, Mount, above, exists, is_within, text_of

PASSES = 64
"""Most scans of a fence that is being emptied, or of the children of a process that is being fenced (chosen)."""

PERIOD_US = 100_000
"""Period of a CPU quota in us: the kernel's default, which is not changed (Documentation/admin-guide/cgroup-v2.rst, cpu.max)."""

DEFAULTS = {
    "cpu.cfs_quota_us": "-1",
    "cpu.shares": "1024",
    "cpu.max": f"max {PERIOD_US}",
    "cpu.weight": "100",
    "pids.max": "max",
    "memory.high": "max",
    "memory.soft_limit_in_bytes": str((1 << 63) - os.sysconf("SC_PAGESIZE")),
}
"""What the kernel reports for a new cgroup; a half-made fence has these values too."""

PF_EXITING = 0x4
"""Flag of a process that is exiting, include/linux/sched.h: it leaves its cgroup for the root."""

_ENDED = frozenset({"Z", "X"})  # states in /proc/PID/stat
_THREADED = frozenset({"cpu", "pids"})  # controllers of a fence that a threaded cgroup can have: cgroup-v2.rst, "Threads"
_UNITS = (".service", ".scope", ".slice")  # systemd units that have a cgroup


class Fences:
    """Fences of this machine. `kin`: scans all processes that can be seen."""

    def __init__(self, proc: str, cgroups: Cgroups, kin: Callable[[], Scan], systemd: str = "/run/systemd/system") -> None:
        self._proc = proc
        self._cgroups = cgroups
        self._kin = kin
        self._systemd = systemd

    def plan(self, process: ProcId, limits: Limits) -> str | Trouble:
        """The key of a fence for this process, from the present state; or why there can be none. Changes nothing."""
        try:
            text = self._text_of(process)
            if isinstance(text, Trouble):
                return text
            if limits.weighs_only and _is_fenced(text):
                return Trouble(Status.UNCHANGED, f"pid {process.pid} is in a fence already")
            tasks = self._alike(process, text)
            return tasks if isinstance(tasks, Trouble) else self._planned(process, limits, text, tasks)
        except OSError as error:
            return _vanished(process) if is_gone(error) else _failed(error)

    def _planned(self, process: ProcId, limits: Limits, text: str, tasks: int) -> str | Trouble:
        """The key. `text`: of /proc/PID/cgroup; `tasks`: the number of threads of the process. Raises OSError."""
        if limits.tasks:
            family = self._descendants(process)
            if isinstance(family, Trouble):
                return family
            tasks += sum(_count(f"{self._proc}/{each.id.pid}/task") for each in family)
            limits = limits._replace(tasks=tasks + limits.tasks)  # from here on: the total that is allowed
        wanted = {"cpu": limits.cpu or limits.weight, "pids": limits.tasks, "memory": limits.memory}
        parts, lacks = list[Part](), list[str]()
        unified = list[str]()
        for controller in (name for name, value in wanted.items() if value):
            mount = self._mount(controller)
            if mount is None:
                unified.append(controller)
                continue
            part = self._part_v1(process, text, controller, mount, limits)
            if isinstance(part, Part):
                parts.append(part)
            else:
                lacks.append(part)
        if unified:
            whole, missing = self._part_v2(process, text, unified, limits)
            parts += [whole] if whole is not None else []
            lacks += missing
        if not parts:
            return _refused(f"it cannot be fenced in: {'; '.join(dict.fromkeys(lacks))}")
        return key_of(tuple(parts))

    def read(self, key: str) -> int | Trouble:
        """FENCED while any part of it exists, ALTERED if somebody changed its limits, else 0."""
        try:
            states = [self._state(part) for part in parts_of(key)]
        except OSError as error:
            return _failed(error)
        return ALTERED if ALTERED in states else max(states)

    def build(self, process: ProcId, key: str) -> Trouble | None:
        """Make it, with its limits, and move the process and its children in. If that fails, it is removed again."""
        parts = parts_of(key)
        try:
            for part in parts:
                self._make(part)
            trouble = self._enter(process, parts)
        except OSError as error:
            trouble = _failed(error)
        if trouble is None:
            return None
        left = self.remove(key)
        return trouble if left is None else Trouble(trouble.status, f"{trouble.text}; {left.text}")

    def remove(self, key: str) -> Trouble | None:
        """Move the processes in it to where they came from, and remove it. Idempotent."""
        for part in parts_of(key):
            try:
                trouble = self._clear(part)
            except OSError as error:
                return _failed(error)
            if trouble is not None:
                return trouble
        return None

    # --- looking ---------------------------------------------------------------------------------------------------------------

    def _state(self, part: Part) -> int:
        """See `read`. Raises OSError."""
        directory = self._directory(part)
        if directory is None:
            return 0
        if not exists(directory):
            return FENCED if self._left_on(part, above(directory)) else 0
        for name, value in part.files.items():
            try:
                now = text_of(f"{directory}/{name}").strip()
            except OSError as error:
                if is_gone(error, cgroup=True):  # the controller is not on yet, or off again
                    continue
                raise
            if now not in (value, DEFAULTS[name]):
                return ALTERED
        return FENCED

    def _mount(self, controller: str) -> Mount | None:
        """The v1 hierarchy that has this controller."""
        return {"cpu": self._cgroups.shares, "memory": self._cgroups.memory, "pids": self._cgroups.pids}[controller]

    def _directory(self, part: Part) -> str | None:
        mount = self._mount(part.controller) if part.controller else self._cgroups.weight
        return None if mount is None else mount.directory(part.cgroup)

    def _text_of(self, process: ProcId) -> str | Trouble:
        """/proc/PID/cgroup, checked to be of this process. Raises OSError if it exists and cannot be read."""
        try:
            text = text_of(f"{self._proc}/{process.pid}/cgroup")
            return text if self._is(process) else _vanished(process)
        except OSError as error:
            if is_gone(error):
                return _vanished(process)
            raise

    def _is(self, process: ProcId) -> bool:
        fields = text_of(f"{self._proc}/{process.pid}/stat").rpartition(")")[2].split()
        return int(fields[19]) == process.start_ticks and fields[0] not in _ENDED and not int(fields[6]) & PF_EXITING

    def _alike(self, process: ProcId, text: str) -> int | Trouble:
        """The number of threads of the process, if all are in the same cgroups. Otherwise nobody would know later which thread to
        put back where."""
        tids = os.listdir(f"{self._proc}/{process.pid}/task")
        for tid in tids:
            try:
                other = text_of(f"{self._proc}/{process.pid}/task/{tid}/cgroup")
            except OSError as error:
                if is_gone(error):
                    continue
                raise
            if other != text:
                return _refused(f"threads of pid {process.pid} are in different cgroups, and could not all be put back")
        return len(tids)

    def _part_v1(self, process: ProcId, text: str, controller: str, mount: Mount, limits: Limits) -> Part | str:
        path = _path(text, controller)
        directory = None if path is None else mount.directory(path)
        if path is None or directory is None or not os.path.isdir(directory):
            return f"its {controller} cgroup cannot be seen from here"
        no = self._not_ours(text, path, directory)
        if no:
            return no
        quota = limits.cpu * PERIOD_US // 1000
        if quota:  # the kernel accepts none beyond that of the cgroups above
            quota = min((quota, *_quotas(directory, mount.point)))
        files = {
            "cpu": {"cpu.cfs_quota_us": quota, "cpu.shares": 2 * limits.weight},
            "memory": {"memory.soft_limit_in_bytes": limits.memory},
            "pids": {"pids.max": limits.tasks},
        }
        return Part(controller, _below(path, process), {name: str(value) for name, value in files[controller].items() if value})

    def _part_v2(self, process: ProcId, text: str, wanted: Sequence[str], limits: Limits) -> tuple[Part | None, list[str]]:
        """(the part of the fence that is on v2, why controllers that were wanted are missing)"""
        mount, path = self._cgroups.weight, _path(text, "")
        directory = None if mount is None or path is None else mount.directory(path)
        if path is None or directory is None or not os.path.isdir(directory):
            return None, [f"no cgroup hierarchy has the {controller} controller" for controller in wanted]
        offered, on = (set(text_of(f"{directory}/{name}").split()) for name in ("cgroup.controllers", "cgroup.subtree_control"))
        lacks = [f"cgroup {path} does not have the {controller} controller" for controller in wanted if controller not in offered]
        root = not os.path.exists(f"{directory}/cgroup.type")
        usable = [controller for controller in wanted if controller in offered]
        if not root:
            if "memory" in usable:
                usable.remove("memory")
                lacks.append(f"on cgroup v2 the memory of one process of {path} cannot be limited without moving its siblings")
            if usable and on - _THREADED - {"cpuset", "perf_event"}:
                return None, [*lacks, f"cgroup {path} enables {', '.join(sorted(on - _THREADED))} for the cgroups below it"]
            if usable and any(name.startswith("nicety-fence-") for name in os.listdir(directory)):
                return None, [*lacks, f"another process of cgroup {path} is fenced in: one at a time"]
        no = self._not_ours(text, path, directory) if usable else ""
        if no or not usable:
            return None, [*lacks, *([no] if no else [])]
        files = {
            "cpu": {
                "cpu.max": f"{limits.cpu * PERIOD_US // 1000} {PERIOD_US}" if limits.cpu else "",
                "cpu.weight": str(limits.weight or ""),
            },
            "pids": {"pids.max": str(limits.tasks)},
            "memory": {"memory.high": str(limits.memory)},
        }
        written = {name: value for controller in usable for name, value in files[controller].items() if value}
        return Part("", _below(path, process), written, tuple(sorted(set(usable) - on)), threaded=not root), lacks

    def _not_ours(self, text: str, path: str, directory: str) -> str:
        """Why no cgroup must be made there, "" if one may."""
        if outside(path) != path:
            return "it is in a fence already"
        for file in (directory, f"{directory}/cgroup.procs"):
            if not os.access(file, os.W_OK, effective_ids=True):
                return f"{file} is not ours to write: run as root, or have the cgroup delegated to this user"
        return self._undelegated(text)

    def _undelegated(self, text: str) -> str:
        """Why systemd forbids making a cgroup there, "" if it does not. It forbids it where it manages the cgroup and has not
        delegated it ("A single writer" in systemd's CGROUP_DELEGATION). An extended attribute marks what is delegated."""
        mount = self._cgroups.manager or self._cgroups.weight
        path = _path(text, "name=systemd" if self._cgroups.manager is not None else "")
        if mount is None or path is None or not os.path.isdir(self._systemd):
            return ""
        units = [name for name in path.split("/") if name.endswith(_UNITS)]
        directory = mount.directory(path)
        while units and directory is not None and is_within(directory, mount.point):
            for name in ("user.delegate", "trusted.delegate"):
                try:
                    if os.getxattr(directory, name) == b"1":
                        return ""
                except OSError:
                    continue
            directory = above(directory)
        return (
            f"systemd runs {units[-1]} and has not delegated its cgroup: set Delegate=cpu memory pids in the unit" if units else ""
        )

    def _descendants(self, process: ProcId) -> list[Kin] | Trouble:
        """The descendants of the process, in order of birth; or why not all processes could be read."""
        below, found = {process.pid}, list[Kin]()
        scan = self._kin()
        if scan.unread is not None:
            return scan.unread
        waiting = sorted(scan.kin, key=lambda kin: (kin.id.start_ticks, kin.id.pid))
        while True:
            more = [kin for kin in waiting if kin.parent in below and kin.id != process]
            if not more:
                return found
            found += more
            below |= {kin.id.pid for kin in more}
            waiting = [kin for kin in waiting if kin.id.pid not in below]

    # --- making ----------------------------------------------------------------------------------------------------------------

    def _place(self, part: Part) -> str:
        """The directory of this part of a fence. Raises OSError."""
        directory = self._directory(part)
        if directory is None:
            raise OSError(errno.EINVAL, "this machine has no such hierarchy", part.cgroup)
        return directory

    def _make(self, part: Part) -> None:
        """Make the cgroup of a part and set its limits. Raises OSError."""
        directory = self._place(part)
        try:
            os.mkdir(directory)
        except FileExistsError:
            pass
        if part.threaded:
            _write(f"{directory}/cgroup.type", "threaded")
        for controller in part.turned_on:
            _write(f"{above(directory)}/cgroup.subtree_control", f"+{controller}")
        for name, value in part.files.items():
            file = f"{directory}/{name}"
            _write(file, value)
            now = text_of(file).strip()
            if now != value:
                raise OSError(errno.EINVAL, f"{value} was written, and the kernel made it {now}", file)

    def _enter(self, process: ProcId, parts: Sequence[Part]) -> Trouble | None:
        """Move the process first, so that later children are born inside; then its children, until a scan finds none outside.
        Raises OSError."""
        for part in parts:
            trouble = self._move(process, part)
            if trouble is not None:
                return trouble
        for _ in range(PASSES):
            moved = False
            family = self._descendants(process)
            if isinstance(family, Trouble):
                return family
            for kin in family:
                for part in parts:
                    if self._stands(kin.id, part) == above(part.cgroup):
                        trouble = self._move(kin.id, part)
                        if trouble is not None and trouble.status is not Status.VANISHED:
                            return trouble
                        moved = True
            if not moved:
                return None
        return Trouble(Status.FAILED, f"children of pid {process.pid} start faster than {PASSES} scans could find them")

    def _stands(self, process: ProcId, part: Part) -> str | None:
        """The cgroup that a process is in, in the hierarchy of the part; None if the process is gone. Raises OSError."""
        text = self._text_of(process)
        return None if isinstance(text, Trouble) else _path(text, part.controller)

    def _move(self, process: ProcId, part: Part) -> Trouble | None:
        """Move a process with all its threads into the fence. It must come from the cgroup above: checked before and after.
        Raises OSError."""
        directory = self._place(part)
        parent = above(part.cgroup)
        where = self._stands(process, part)
        if where is None:
            return _vanished(process)
        if where != parent:
            return Trouble(Status.FOREIGN, f"somebody moved pid {process.pid} from cgroup {parent} to {where}")
        try:
            _write(f"{directory}/cgroup.procs", str(process.pid))
        except OSError as error:
            if is_gone(error) and exists(directory):
                return _vanished(process)
            raise
        where = self._stands(process, part)
        if where is None:
            return _vanished(process)
        if where != part.cgroup:
            return Trouble(Status.FAILED, f"pid {process.pid} was moved to cgroup {part.cgroup}, and is in {where}")
        return None

    def _clear(self, part: Part) -> Trouble | None:
        """Move all processes out of the cgroup of a part and remove it. Raises OSError."""
        directory = self._directory(part)
        if directory is None or not exists(directory):
            self._turn_off(part, directory)
            return None
        # thread by thread where the kernel allows it: somebody may have moved some of them elsewhere
        name = "tasks" if part.controller else "cgroup.threads" if part.threaded else "cgroup.procs"
        for _ in range(PASSES):
            for tid in _numbers(f"{directory}/{name}"):
                try:
                    _write(f"{above(directory)}/{name}", tid)
                except OSError as error:
                    if not is_gone(error):
                        raise
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                    raise
                below = _children(directory)
                if below:
                    return Trouble(
                        Status.FAILED, f"somebody made cgroup {below[0]} in the fence {directory}: remove it, then undo again"
                    )
                continue
            self._turn_off(part, directory)
            return None
        return Trouble(Status.LATER, f"processes come to {directory} faster than {PASSES} scans could move them out: undo again")

    def _turn_off(self, part: Part, directory: str | None) -> None:
        """Turn off controllers that were turned on for this part alone. They stay on if somebody has made cgroups there
        meanwhile."""
        if directory is None:
            return
        for controller in self._left_on(part, above(directory)):
            _write(f"{above(directory)}/cgroup.subtree_control", f"-{controller}")

    def _left_on(self, part: Part, parent: str) -> list[str]:
        """Controllers that were turned on for this part and that nothing needs any more. Raises OSError."""
        if not part.turned_on or not exists(parent) or _children(parent):
            return []
        return sorted(set(part.turned_on) & set(text_of(f"{parent}/cgroup.subtree_control").split()))


class Version(StrEnum):
    """A version of cgroups."""

    V1 = "v1"
    V2 = "v2"


class Offer(NamedTuple):
    """Whether and how this machine can have one limit of a fence."""

    controller: str  # cpu, pids or memory
    version: Version | None  # of the cgroup hierarchy that has it; None if unavailable
    trouble: str  # why it is unavailable, "" if it is not


def offers(cgroups: Cgroups, own: str) -> tuple[Offer, ...]:
    """Whether CPU, processes and memory of a worker can be limited, as far as can be seen without making a fence.

    `own`: text of /proc/self/cgroup: the part of a hierarchy that is delegated to us counts.
    """
    found = []
    for controller, v1 in (("cpu", cgroups.shares), ("pids", cgroups.pids), ("memory", cgroups.memory)):
        mount, version = (v1, Version.V1) if v1 is not None else (cgroups.weight, Version.V2)
        there = mount is not None and (version is Version.V1 or controller in _numbers(f"{mount.point}/cgroup.controllers"))
        if mount is None or not there:
            found.append(Offer(controller, None, f"no cgroup hierarchy has the {controller} controller"))
            continue
        path = _path(own, controller if version is Version.V1 else "")
        places = [mount.point, None if path is None else mount.directory(path)]
        ours = any(place is not None and os.access(place, os.W_OK, effective_ids=True) for place in places)
        found.append(Offer(controller, version, "") if ours else Offer(controller, None, f"{mount.point} is not ours to write"))
    return tuple(found)


def _path(text: str, controller: str) -> str | None:
    """The path in the lines of /proc/PID/cgroup; `controller` "" is v2."""
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if (int(number) == 0 and not controllers) if not controller else controller in controllers.split(","):
            return re.sub(r" \(deleted\)$", "", path)
    return None


def _is_fenced(text: str) -> bool:
    """Whether a path of /proc/PID/cgroup leads into a fence."""
    return any(outside(path) != path for path in (line.split(":", 2)[2] for line in text.splitlines()))


def _below(path: str, process: ProcId) -> str:
    return f"{path.rstrip('/')}/{name_for(process)}"


def _quotas(directory: str, top: str) -> Iterator[int]:
    """CPU quotas of a cgroup of v1 and of those above it, in us for a period of `PERIOD_US`."""
    while is_within(directory, top):
        try:
            quota, period = (int(text_of(f"{directory}/cpu.cfs_{name}_us")) for name in ("quota", "period"))
        except ValueError:
            return
        except OSError as error:
            if is_gone(error, cgroup=True):  # a kernel without quotas says so when one is written
                return
            raise
        if quota > 0:
            yield quota * PERIOD_US // period
        directory = above(directory)


def _numbers(file: str) -> Iterator[str]:
    """Words of a cgroup file; none if it is gone. Raises OSError."""
    try:
        return iter(text_of(file).split())
    except OSError as error:
        if is_gone(error, cgroup=True):
            return iter(())
        raise


def _count(directory: str) -> int:
    """Number of entries; 0 if it is gone. Raises OSError."""
    try:
        return len(os.listdir(directory))
    except OSError as error:
        if is_gone(error):
            return 0
        raise


def _write(file: str, text: str) -> None:
    """Write in one write(2), as the kernel requires."""
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        error.filename = file
        raise
    finally:
        os.close(fd)


def _children(directory: str) -> list[str]:
    """Names of the cgroups in this one. Raises OSError."""
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.is_dir()]


def _failed(error: OSError) -> Trouble:
    """Trouble from a system call on a file of a cgroup or of /proc. A missing file does not prove that the process is gone."""
    status = Status.FAILED if is_gone(error) else status_of(error)
    advice = "; run as root" if status is Status.REFUSED else ""
    return Trouble(status, f"{error.filename or 'cgroup'}: {error.strerror}{advice}")


def _refused(text: str) -> Trouble:
    return Trouble(Status.REFUSED, text)


def _vanished(process: ProcId) -> Trouble:
    return Trouble(Status.VANISHED, f"pid {process.pid} is gone")
