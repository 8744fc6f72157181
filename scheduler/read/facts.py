"""What works on this machine with our rights, what does not, and what to type to fix it. Read once; must not change anything."""

from __future__ import annotations

import os
import platform
import re
import resource
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..decision import Abilities, Topology
from . import topology
from .calls import FUTEX, NUMBERS
from .text import printable

_CAPABILITIES = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_KILL": 5,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_NICE": 23,
}
"""Capabilities that nicety may need, with their bits (linux/capability.h)."""

_ALL_IDS = ["0", "0", str(2**32 - 1)]  # /proc/self/uid_map of the first user namespace
_ENOUGH_DESCRIPTORS = 4096  # for about 2,000 processes, two each (chosen); for more, the reader opens files at each read


@dataclass(frozen=True, slots=True)
class CpuCgroup:
    """Where the cpu controller is. `version` "": nowhere."""

    version: str  # "v1", "v2" or ""
    mount: str  # mount point of the hierarchy, "" without one
    writable: bool  # we may change weights there: everywhere, or in the part delegated to us


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found. Built by `probe`."""

    kernel: str  # release
    python: str
    boot_id: str  # changes with each boot; "" if the kernel does not report it
    topology: Topology
    root: bool  # effective uid 0
    user_namespace: bool  # in a user namespace other than the initial one: capabilities do not count for other processes
    capabilities: tuple[str, ...]  # effective ones among those that matter here, sorted
    schedstat: bool  # run-queue wait of threads
    pressure: bool  # PSI
    autogroup: bool | None  # kernel.sched_autogroup_enabled; None: a kernel without autogroups
    cpu_cgroup: CpuCgroup
    sched_ext: str  # name of the BPF scheduler that runs in place of the kernel's own, "" if none does
    hidepid: str  # option of the proc mount that hides other users' processes: "", "noaccess", "invisible", "ptraceable"
    descriptors: int | None  # hard limit; None: unlimited
    lent: tuple[str, ...] = ()  # capabilities of the hands, sorted: what takes them is asked of the hands

    def may(self, *capabilities: str) -> bool:
        """Whether we or the hands have all of these capabilities, and in the initial user namespace, where they count."""
        return not self.user_namespace and set(capabilities) <= {*self.capabilities, *self.lent}

    def with_hands(self, mask: int) -> Facts:
        """The same where hands have the capabilities of this mask (`door.lent`)."""
        return replace(self, lent=_names(mask))

    @property
    def may_renice(self) -> bool:
        """CAP_SYS_NICE: without it a raised nice can never be lowered again (setpriority(2)), so nothing is reniced at all."""
        return self.may("CAP_SYS_NICE")

    @property
    def may_set_autogroup(self) -> bool:
        """Whether /proc/PID/autogroup of others can be written, and lowered again (proc(5))."""
        return self.may("CAP_DAC_OVERRIDE", "CAP_SYS_NICE")

    @property
    def may_read_io_of_others(self) -> bool:
        """Whether /proc/PID/io of other users' processes can be read: takes ptrace rights and access to their directories."""
        return self.may("CAP_SYS_PTRACE") and (self.may("CAP_DAC_READ_SEARCH") or self.may("CAP_DAC_OVERRIDE"))

    @property
    def sees_all(self) -> bool:
        """No process is hidden from us. The hands cannot help: we list the processes ourselves."""
        return not self.hidepid or (not self.user_namespace and "CAP_SYS_PTRACE" in self.capabilities)

    @property
    def abilities(self) -> Abilities:
        """The part that decisions may see."""
        writable = self.cpu_cgroup.writable or bool(self.lent)  # hands are there to write; what they may not they refuse
        version = self.cpu_cgroup.version if writable else ""
        autogroup = self.autogroup is True
        return Abilities(autogroup=autogroup, cpu_cgroup=version, may_renice=self.may_renice, topology=self.topology)


@dataclass(frozen=True, slots=True)
class Finding:
    """A row of `nicety doctor`."""

    name: str
    ok: bool
    what: str  # what works; or what does not, and what is lost
    fix: str  # what to type; "" if all is well


def probe(proc_root: Path = Path("/proc"), sys_root: Path = Path("/sys")) -> Facts:
    """Look at everything below the two roots. What cannot be read counts as missing and never raises."""
    status = dict(line.split(":", 1) for line in _text(proc_root / "self/status").splitlines() if ":" in line)
    effective = int(status.get("CapEff", "0").strip() or "0", 16)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    autogroup = _text(proc_root / "sys/kernel/sched_autogroup_enabled") if (proc_root / "self/autogroup").exists() else ""
    mounts = list(_mounts(_text(proc_root / "self/mountinfo")))
    return Facts(
        kernel=printable(_text(proc_root / "sys/kernel/osrelease") or platform.release()),
        python=platform.python_version(),
        boot_id=printable(_text(proc_root / "sys/kernel/random/boot_id")),
        topology=topology.read(sys_root),
        root=os.geteuid() == 0,
        user_namespace=_text(proc_root / "self/uid_map").split() not in ([], _ALL_IDS),
        capabilities=_names(effective),
        schedstat=bool(_text(proc_root / "self/schedstat").replace("0", "").strip()),  # "0 0 0" where it is compiled in but off
        pressure="total=" in _text(proc_root / "pressure/cpu"),
        autogroup=autogroup == "1" if autogroup else None,
        cpu_cgroup=_cpu_cgroup(mounts, _text(proc_root / "self/cgroup")),
        sched_ext=_sched_ext(sys_root / "kernel/sched_ext"),
        hidepid=_hidepid(mounts, proc_root),
        descriptors=None if hard == resource.RLIM_INFINITY else hard,
    )


def findings(facts: Facts) -> tuple[Finding, ...]:
    """What the facts mean for the user, one row per capability: what works, what does not, what is lost, and how to get it."""
    return tuple(_findings(facts))


def _findings(facts: Facts) -> Iterator[Finding]:
    grant = partial(_grant, facts)

    def row(name: str, ok: bool, works: str, lost: str, fix: str) -> Finding:
        return Finding(name, ok, works if ok else lost, "" if ok else fix)

    yield row(
        "run-queue wait",
        facts.schedstat,
        "/proc/PID/schedstat reports how long threads wait for a CPU",
        "this kernel does not report how long threads wait for a CPU: demand is CPU use alone, and starved workers are not seen",
        "boot with the kernel parameter `delayacct`, or a kernel with CONFIG_SCHEDSTATS=y",
    )
    yield row(
        "pressure",
        facts.pressure,
        "pressure of cpu, memory and io is read",
        "no pressure figures (PSI): contention is judged by run-queue wait alone",
        "boot with the kernel parameter `psi=1`, or a kernel with CONFIG_PSI=y",
    )
    yield row(
        "renice",
        facts.may_renice,
        "priorities can be changed and put back (CAP_SYS_NICE)",
        "nothing is reniced, because without CAP_SYS_NICE a raised nice could not be lowered again. On an overloaded machine the "
        "daemon's own ticks are late. Recording, forecasts and pools of your own processes work",
        grant("CAP_SYS_NICE"),
    )
    if facts.autogroup:
        yield row(
            "autogroup",
            facts.may_set_autogroup,
            "on: nice counts only within a session, so the priority of whole sessions is set through /proc/PID/autogroup",
            "on, and we may not set it: nice has no effect between sessions",
            f"{grant('CAP_SYS_NICE', 'CAP_DAC_OVERRIDE')}; or turn it off: sysctl kernel.sched_autogroup_enabled=0",
        )
    else:
        state = "off" if facts.autogroup is False else "not in this kernel"
        yield Finding("autogroup", True, f"{state}: nice counts across sessions", "")
    yield _cgroup_finding(facts, grant("CAP_DAC_OVERRIDE"))
    yield row(
        "other users' processes",
        facts.sees_all,
        "all processes are visible",
        f"/proc is mounted with hidepid={facts.hidepid}: processes of other users are not seen, so forecasts lack their demand",
        f"{grant('CAP_SYS_PTRACE')}; or mount -o remount,hidepid=0 /proc",
    )
    yield row(
        "programs and io of others",
        facts.may_read_io_of_others,
        "programs, io counters and system calls of all users' processes can be read",
        "other users' programs have names of at most 15 letters and no io counters; busy and idle workers of their pools look "
        "the same; and it is unknown whether they serve, have a window or answer through a pipe",
        grant("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"),
    )
    yield row(
        "pools of others",
        facts.may("CAP_KILL"),
        "pools of all users can be resized (CAP_KILL)",
        "only pools that run as your own user can be resized: others cannot be signalled",
        grant("CAP_KILL"),
    )
    known = platform.machine() in FUTEX
    yield row(
        "locks of others",
        facts.may_read_io_of_others and known,
        "waits for locks of demoted processes are seen, on files and in shared memory",
        "waits for locks on files are seen, and demoted processes that starve; waits for locks in shared memory (mutexes, "
        "semaphores) of another user's demoted process are not, so it is put back only after priority.starve_seconds",
        grant("CAP_SYS_PTRACE") if known else "none: system calls of this kind of machine are not known to nicety",
    )
    covered = platform.machine() in NUMBERS
    yield row(
        "deadlocks",
        facts.may_read_io_of_others and covered,
        "workers of pools that wait for each other are found: locks, pipes, sockets, shared mutexes, semaphores",
        "deadlocks are looked for only among workers of your own user, as far as they may be traced"
        if covered
        else "deadlocks among the workers of pools are not found",
        grant("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH")
        if covered
        else "none: system calls of this kind of machine are not known to nicety",
    )
    yield row(
        "kernel scheduler",
        not facts.sched_ext,
        "the kernel's own scheduler runs: nice and weights mean what they should",
        f"the BPF scheduler {facts.sched_ext} runs in place of the kernel's own and may ignore nice and weights",
        "stop the sched_ext scheduler (systemctl stop scx) if nicety is to set priorities",
    )
    yield row(
        "descriptors",
        facts.descriptors is None or facts.descriptors >= _ENOUGH_DESCRIPTORS,
        "enough descriptors to keep the files of all processes open",
        f"at most {facts.descriptors} descriptors: with many processes some files are opened at each read, at twice the cost",
        f"ulimit -Hn {_ENOUGH_DESCRIPTORS} as root; in a systemd unit LimitNOFILE={_ENOUGH_DESCRIPTORS}",
    )
    yield row(
        "boot id",
        bool(facts.boot_id),
        "the kernel reports which boot this is",
        "no boot id: after a crash, changes from before a reboot look like those that still hold",
        "mount a whole procfs at /proc (without subset=pid)",
    )


def _names(mask: int) -> tuple[str, ...]:
    """The capabilities in a mask that matter here, sorted."""
    return tuple(sorted(name for name, bit in _CAPABILITIES.items() if mask >> bit & 1))


def _grant(facts: Facts, *capabilities: str) -> str:
    """How to get capabilities, as far as this process can have them."""
    names = [name for name in capabilities if name not in facts.capabilities]
    if not names:
        return "run nicety outside of the user namespace (rootless container) that it is in: its capabilities do not count there"
    short = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in names)
    return (
        f"run as root: sudo nicety ...; or in its systemd unit: AmbientCapabilities={' '.join(names)}; "
        f"or once: sudo setpriv --reuid=$USER --init-groups --inh-caps={short} --ambient-caps={short} nicety ..."
    )


def _cgroup_finding(facts: Facts, grant: str) -> Finding:
    where = facts.cpu_cgroup
    lost = "the weight of whole cgroups cannot be set, so batch work in other cgroups than the services cannot be slowed by weight"
    if not where.version:
        fix = (
            "enable the cpu controller: echo +cpu > /sys/fs/cgroup/cgroup.subtree_control (v2), or boot without cgroup_disable=cpu"
        )
        return Finding("cpu cgroup", False, f"no cgroup hierarchy has the cpu controller: {lost}", fix)
    if not where.writable:
        fix = f"{grant}; or let systemd delegate a part: Delegate=cpu in the unit"
        return Finding(
            "cpu cgroup", False, f"the cpu controller ({where.version} at {where.mount}) is not ours to write: {lost}", fix
        )
    return Finding("cpu cgroup", True, f"weights can be set: {where.version} at {where.mount}", "")


@dataclass(frozen=True, slots=True)
class _Mount:
    root: str  # directory of the file system that is mounted
    point: str
    kind: str
    options: tuple[str, ...]  # of the mount and of the file system


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    """The lines of /proc/self/mountinfo (proc_pid_mountinfo(5)), later mounts last."""
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if dash and len(fields) >= 6 and len(rest) >= 1:
            options = (*fields[5].split(","), *(rest[2].split(",") if len(rest) > 2 else ()))
            yield _Mount(_unescaped(fields[3]), _unescaped(fields[4]), rest[0], options)


def _unescaped(path: str) -> str:
    r"""Spaces and the like are octal in mountinfo: "\040"."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _cpu_cgroup(mounts: list[_Mount], own: str) -> CpuCgroup:
    """v1 if its cpu controller is mounted (a controller is in one hierarchy only), else v2 if it has cpu."""
    paths: dict[str, str] = {}  # controller or "" -> path of this process
    for line in own.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths |= dict.fromkeys(controllers.split(","), path)
    for version, kind, controller in (("v1", "cgroup", "cpu"), ("v2", "cgroup2", "")):
        for mount in mounts:
            if mount.kind != kind or (version == "v1" and "cpu" not in mount.options):
                continue
            point = Path(mount.point)
            if version == "v2" and "cpu" not in _text(point / "cgroup.controllers").split():
                continue
            delegated = point / paths.get(controller, "/").removeprefix(mount.root).lstrip("/")
            places = [] if "ro" in mount.options else [point, delegated]
            writable = any(os.access(place, os.W_OK, effective_ids=True) for place in places)
            return CpuCgroup(version, printable(mount.point), writable)
    return CpuCgroup("", "", writable=False)


def _sched_ext(directory: Path) -> str:
    """Name of the BPF scheduler that runs, "" if none does: Documentation/scheduler/sched-ext.rst."""
    if _text(directory / "state") not in ("enabled", "enabling"):
        return ""
    return printable(_text(directory / "root/ops") or "unknown")


def _hidepid(mounts: list[_Mount], proc_root: Path) -> str:
    """Option of the last mount at `proc_root`. Its words and its numbers mean the same (proc(5))."""
    words = {"0": "", "off": "", "1": "noaccess", "2": "invisible", "4": "ptraceable"}
    value = ""
    for mount in mounts:
        if mount.kind == "proc" and mount.point == str(proc_root):
            value = next((option.removeprefix("hidepid=") for option in mount.options if option.startswith("hidepid=")), "")
    return words.get(value, value)


def _text(path: Path) -> str:
    """The stripped text of a file, "" if it cannot be read: that is a fact too."""
    try:
        return path.read_bytes().decode("utf-8", "backslashreplace").strip()
    except OSError:
        return ""
