"""Programs that also tune processes: what each one changes, and what nicety therefore leaves to it while it runs. Pure.

Knows names only: `observe/observer.py` finds them among the identities of a snapshot, `service/doctor.py` in /proc. What each one
really touches was read in its source or manual, named beside it. These are not rivals: a service manager (its CPUWeight= is the
user's choice for one unit, and counts as such), rtkit-daemon (it gives a thread what that thread asks for), one-shot renicers
(renice, schedtool, cron's reniced: a value that is not the expected one is left alone), power-profiles-daemon and tlp (no process),
and sched_ext schedulers, which `read/facts.py` finds under any name where the kernel reports them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter

from ...models.records import Identity
from ..hands.places import Control

_PROGRAM_AND_USER = attrgetter("program", "uid")

COMM_LETTERS = 15
"""Letters of a comm (TASK_COMM_LEN - 1): a program whose executable may not be read is known by its comm."""


@dataclass(frozen=True, slots=True)
class Rival:
    """A program that tunes processes, or is often taken for one that does."""

    touches: frozenset[Control]  # the controls of nicety that it writes too; empty: it never interferes
    what: str  # what it does, to follow its name
    stop: str  # what to type to stop it


def _rival(what: str, stop: str, *touches: Control) -> Rival:
    return Rival(frozenset(touches), what, stop)


_ANANICY = "renices by a list of program names, and sets their policy, io class and cgroup"

RIVALS: Mapping[str, Rival] = {
    # github.com/Nefelim4ag/Ananicy, ananicy.py: os.setpriority, schedtool, ionice, oom_score_adj; makes v1 cpu cgroups of its own,
    # writes their cpu.shares and quota and moves processes into them.
    "ananicy": _rival(_ANANICY, "systemctl disable --now ananicy", Control.NICE, Control.POLICY, Control.CPU_SHARES, Control.FENCE),
    # Its successors. github.com/fpucore/ananicy-cpp-ng, src/platform/linux/priority.cpp: setpriority of each thread,
    # sched_setscheduler, ioprio_set, oom_score_adj; cgroups.cpp: CPUQuota of slices of its own. It lists autogroups, and sets none.
    "ananicy-cpp": _rival(_ANANICY, "systemctl disable --now ananicy-cpp", Control.NICE, Control.POLICY),
    "ananicy-cpp-ng": _rival(_ANANICY, "systemctl disable --now ananicy-cpp-ng", Control.NICE, Control.POLICY),
    # github.com/pop-os/system76-scheduler, daemon/src/priority.rs: setpriority, sched_setscheduler, ioprio; main.rs: the sysctl
    # kernel.sched_autogroup_enabled; cfs: granularity and latency below /sys/kernel/debug/sched.
    "system76-scheduler": _rival(
        "renices by a list of program names and by which window is in front, and sets policy and io class",
        "systemctl disable --now com.system76.Scheduler",
        *(Control.NICE, Control.POLICY),
    ),
    # github.com/FeralInteractive/gamemode: gamemode-sched.c setpriority and SCHED_ISO, gamemode-cpu.c sched_setaffinity,
    # gamemode-ioprio.c; only of processes that asked for it. The governor does not concern nicety.
    "gamemoded": _rival(
        "raises the priority of games that ask for it, pins them to CPUs and changes the frequency governor",
        "systemctl --user disable --now gamemoded",
        *(Control.NICE, Control.POLICY, Control.AFFINITY),
    ),
    # github.com/redhat-performance/tuned, tuned/plugins/plugin_scheduler.py: sched_setscheduler and sched_setaffinity of matching
    # processes (isolated_cores: of all), v1 cpusets; profiles set scheduler sysctls, some of them sched_autogroup_enabled.
    "tuned": _rival(
        "sets affinity and policy of processes by its profile, and the scheduler's sysctls",
        "systemctl disable --now tuned",
        *(Control.AFFINITY, Control.POLICY),
    ),
    # numad.c: sched_setaffinity of each thread and migrate_pages of processes with at least 300 MB and half a CPU (numad(8)).
    "numad": _rival(
        "binds large processes to NUMA nodes and moves their memory there",
        "systemctl disable --now numad",
        Control.AFFINITY,
    ),
    # gitlab.freedesktop.org/benzea/uresourced, src/r-manager.c and r-app-policy.c: SetUnitProperties with CPUWeight, IOWeight,
    # MemoryMin and MemoryLow of user slices, sessions and the application in front.
    "uresourced": _rival(
        "sets the cgroup weight of the user's slice and of the application in front",
        "systemctl disable --now uresourced; systemctl --user disable --now uresourced",
        *(Control.CPU_WEIGHT, Control.CPU_SHARES),
    ),
    # and(8), and.conf(5): renices jobs by the CPU time that they have used, and can kill them; jobs of root are left alone.
    "and": _rival(
        "renices jobs by the CPU time that they have used, and may kill them", "systemctl disable --now and", Control.NICE
    ),
    # verynice(8): renices, also below 0, by CPU use and patterns of names, and can kill runaways.
    "verynice": _rival(
        "renices by CPU use and program names, and may kill runaways", "systemctl disable --now verynice", Control.NICE
    ),
    # README of schedtoold 0.3: calls schedtool(8) with the parameters that its configuration has for a program.
    "schedtoold": _rival(
        "sets nice, policy and affinity by a list of programs",
        "systemctl disable --now schedtoold",
        *(Control.NICE, Control.POLICY, Control.AFFINITY),
    ),
    # cgrulesengd(8), of libcgroup: moves processes into cgroups by rules when they start or change their user; writes no weight.
    "cgrulesengd": _rival("moves processes into cgroups by rules, and changes no weight", "systemctl disable --now cgred"),
    # irqbalance(1): writes /proc/irq/*/smp_affinity.
    "irqbalance": _rival("moves interrupts among CPUs, never processes", "systemctl disable --now irqbalance"),
    # github.com/AdnanHodzic/auto-cpufreq: governor, energy preference and turbo.
    "auto-cpufreq": _rival("changes CPU frequencies, never processes", "systemctl disable --now auto-cpufreq"),
    # ksmtuned(8): /sys/kernel/mm/ksm.
    "ksmtuned": _rival("tunes the merging of equal memory pages, never processes", "systemctl disable --now ksmtuned"),
    # earlyoom(1), github.com/hakavlad/nohang, systemd-oomd(8): signals, and their own priority.
    "earlyoom": _rival("kills processes when memory runs out, and changes none", "systemctl disable --now earlyoom"),
    "nohang": _rival("kills processes when memory runs out, and changes none", "systemctl disable --now nohang"),
    "systemd-oomd": _rival("kills cgroups when memory runs out, and changes none", "systemctl disable --now systemd-oomd"),
}
"""Rivals by base name of the executable or script."""

_CUT = {name[:COMM_LETTERS]: name for name in RIVALS}


@lru_cache(maxsize=4096)
def rival(program: str) -> str | None:
    """The name of the rival that this program is; None if it is not a rival. `program`: as in `Identity.program`, so an interpreter
    with its script.

    >>> rival("python3 tuned"), rival("system76-schedu"), rival("python3 tuned.py")
    ('tuned', 'system76-scheduler', None)
    """
    base = program.rpartition(" ")[2]
    return base if base in RIVALS else _CUT.get(base)


def running(identities: Iterable[Identity], own_uid: int) -> tuple[str, ...]:
    """Rivals among these processes that reach processes of other users, sorted.

    These run as root, or as the user that nicety runs as. Any other user may call a program "ananicy", but it can only renice that
    user's processes: what it sets there is left alone process by process, like every value that is not the expected one.
    A set-uid program that a user starts through a link with such a name passes for root's. While it runs, nicety leaves alone the
    controls that the true rival touches, and nothing else.
    """
    programs = {program for program, uid in set(map(_PROGRAM_AND_USER, identities)) if reaches_others(uid, own_uid)}
    return tuple(sorted({name for name in map(rival, programs) if name is not None}))


def reaches_others(uid: int, own_uid: int) -> bool:
    """Whether a rival of this user can change the processes that nicety changes."""
    return uid in (0, own_uid)


def touches(rivals: Sequence[str]) -> frozenset[Control]:
    """Controls that are left to these rivals while they run. A name that is not a rival (from a log of another version) touches
    none.

    >>> sorted(touches(["tuned", "irqbalance"]))
    [<Control.AFFINITY: 'affinity'>, <Control.POLICY: 'policy'>]
    """
    return frozenset[Control]().union(*(RIVALS[name].touches for name in rivals if name in RIVALS))


def who_touches(control: Control, rivals: Sequence[str]) -> tuple[str, ...]:
    """The rivals among these that a control is left to, sorted; for `rejected`."""
    return tuple(sorted(name for name in rivals if name in RIVALS and control in RIVALS[name].touches))
