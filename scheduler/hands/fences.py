"""What a fence is: a cgroup for a process that harms others or drives a swarm, below the cgroup that the process is in. Pure: names
and their coding.

The ledger and the actuator call a fence by its key, which lists everything to be made and removed, hierarchy by hierarchy. Must not
know how cgroups are written (`knobs/fence.py`) nor which process to fence (`decide/policies/quarantine/treatment.py`,
`decide/policies/priority/desired.py`).
"""

from __future__ import annotations

import json
import re

from ...models.identity import ProcId
from ...models.lean import NamedTuple

FENCED = 1
"""Value of `Control.FENCE` while the fence exists; 0: it does not."""

ALTERED = -1
"""Value of a fence whose limits somebody else has changed."""

WEIGHTS = frozenset({"cpu.shares", "cpu.weight"})
"""Files of a fence that limit the CPU of its processes only while other processes want it."""

_NAME = re.compile(r"/nicety-fence-\d+-\d+(?=/|$)")


class Limits(NamedTuple):
    """What a fence leaves to the processes in it; 0: no limit."""

    cpu: int  # thousandths of a core
    memory: int  # bytes above which the kernel reclaims memory
    tasks: int  # processes and threads beyond those that exist when it is made
    weight: int = 0  # relative to the rest of the cgroup above, in units of cgroup v2: 1..10000, 100 is the default

    @property
    def weighs_only(self) -> bool:
        """Whether it only sets a weight, which limits nothing while CPUs are idle."""
        return self == Limits(0, 0, 0, self.weight)


class Part(NamedTuple):
    """A fence in one hierarchy."""

    controller: str  # of cgroup v1; "": the one hierarchy of v2
    cgroup: str  # its path, as in /proc/PID/cgroup; its processes come from the cgroup above
    files: dict[str, str]  # limits: what is written, and read back
    turned_on: tuple[str, ...] = ()  # controllers that the cgroup above must enable for its children (v2)
    threaded: bool = False  # v2: the cgroup above has processes, so the fence limits only CPU and tasks


def name_for(process: ProcId) -> str:
    """Name of the fence's directory."""
    return f"nicety-fence-{process.pid}-{process.start_ticks}"


def key_of(parts: tuple[Part, ...]) -> str:
    """The key of a fence with these parts."""
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))


def parts_of(key: str) -> tuple[Part, ...]:
    """The parts of the fence with this key. Raises ValueError for anything else."""
    try:
        return tuple(map(_part, json.loads(key)))
    except (TypeError, RecursionError):
        raise ValueError(f"{key!r} is not the key of a fence") from None


def _part(fields: object) -> Part:
    """A part of decoded fields. Raises ValueError if they are none."""
    match fields:
        case [str() as controller, str() as cgroup, dict() as files, list() as turned_on, bool() as threaded] if all(
            isinstance(each, str) for each in (*files, *files.values(), *turned_on)
        ):
            return Part(controller, cgroup, files, tuple(turned_on), threaded)
    raise ValueError(f"{fields!r} is not a part of a fence")


def weighs_only(key: str) -> bool:
    """Whether the fence with this key only sets a weight: then it was made for a swarm."""
    return all(part.files.keys() <= WEIGHTS for part in parts_of(key))


def outside(cgroup: str) -> str:
    """The path of a cgroup without the fences in it: a fenced process belongs to the cgroup that it was in before.

    >>> outside("/system.slice/web.service/nicety-fence-4711-99"), outside("/nicety-fence-1-2"), outside("/a")
    ('/system.slice/web.service', '/', '/a')
    """
    return _NAME.sub("", cgroup) or "/"


def limits_in_words(limits: Limits) -> str:
    """The limits for people.

    >>> limits_in_words(Limits(300, 0, 8)), limits_in_words(Limits(0, 64 << 20, 0))
    ('0.30 cores and 8 processes more', 'memory beyond 64 MiB is taken back first')
    >>> limits_in_words(Limits(0, 0, 0, 1))
    'weight 1 instead of 100'
    """
    parts = [f"{limits.cpu / 1000:.2f} cores"] if limits.cpu else []
    parts += [f"{limits.tasks} processes more"] if limits.tasks else []
    parts += [f"memory beyond {limits.memory >> 20} MiB is taken back first"] if limits.memory else []
    parts += [f"weight {limits.weight} instead of 100"] if limits.weight else []
    return " and ".join(parts)
