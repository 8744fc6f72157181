"""Groups processes by which started which, and names the groups. Pure: from identities and the table of parents.

A program that says what it is has a group of its own. A child that does not (code given as an argument, what `multiprocessing`
spawns, a bare interpreter) belongs to the nearest ancestor that does. So does a child that runs the same program as its parent.
Two applications of one server are told apart by the TCP port on which their family listens.

A swarm consists of processes that live for less than a tick, such as those of a build. What is visible of them belongs to the
process that drives them.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Container, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...models.features import Floats
from ...models.identity import ProcId
from ...models.records import Identity, Known, SampleTable, Trait
from .grouping import Grouping

_SHELLS = frozenset({"ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "sh", "tcsh", "zsh"})

_SILENT = _SHELLS | {
    *("init", "systemd", "(sd-pam)", "docker-init", "tini", "dumb-init", "catatonit", "conmon", "containerd-shim"),
    *("containerd-shim-runc-v2", "crun", "runc", "lxc-start", "sshd", "sshd-session", "dropbear", "login", "agetty", "getty"),
    *("mosh-server", "in.telnetd", "tmux", "screen", "zellij", "cron", "crond", "atd", "anacron", "inetd", "xinetd", "runsv"),
    *("runsvdir", "s6-supervise", "s6-svscan", "supervise", "svscan", "perpd", "python3 supervisord", "python3 circusd"),
    *("python3 honcho", "ruby foreman", "node pm2", "gnome-terminal-server", "konsole", "xfce4-terminal", "xterm", "urxvt"),
    *("alacritty", "kitty", "foot", "wezterm-gui", "code"),
}
"""Programs that start unrelated things: sessions, supervisors, terminals, interactive shells."""

_WRAPPERS = frozenset(
    {
        *("chrt", "choom", "doas", "env", "ionice", "nice", "nohup", "nsenter", "numactl", "runuser", "script"),
        *("setpriv", "setsid", "stdbuf", "strace", "su", "sudo", "taskset", "time", "timeout", "unshare"),
    }
)
"""Programs that run one other program in a changed way. They name no group: the search goes on with their parent."""

SWARM_CORES = 0.15
"""Mean cores of its brief children from which a program drives a swarm (chosen: a busy machine gives them no more)."""

SWARM_SECONDS = 3.0
"""Seconds of the exponential mean: older use counts 1/e after this time (chosen: one short command is not a swarm)."""

_FAINT = 0.01  # cores below which brief children are ignored (chosen)
_STANDS_ALONE = int(Trait.SERVES | Trait.READS_KEYSTROKES | Trait.HAS_WINDOW)
"""Traits of a process that somebody may wait for: it is not part of a swarm."""

_NO_DRIVER = _STANDS_ALONE | int(Trait.SERVES_LOCALLY | Trait.PIPE_SERVER)
"""Traits of a process whose brief children answer somebody: they are not a swarm."""

# Interpreters, as `Identity.program` names them
_INTERPRETER = r"(?:python|pypy)\d?|perl|ruby|node|php|java"
_NAMELESS = re.compile(
    rf"(?:{_INTERPRETER})(?: (?:-[cepEr]|--eval|--print))?"  # code as an argument or from standard input, or typed in
    r"|(?:bash|dash|ksh|sh|zsh) -c"
    r"|(?:python|pypy)\d? -m (?:multiprocessing|joblib\.externals\.loky|loky|pyspark)\..*"  # how those modules start workers
    r"|java (?:surefirebooter.*|forkedbooter.*|.*\.GradleWorkerMain|.*\.ForkedBooter|.*\.(?:Jar|Properties|War)Launcher)"
    r"|java .*\.classworlds\.launcher\.Launcher"
)
"""Names that do not say what runs: inline code, and launchers of code that only their arguments or their parent name."""


def nameless(program: str) -> bool:
    """Whether the name of a program (`Identity.program`) does not say what runs.

    >>> [nameless(name) for name in ("python3 -c", "bash -c", "python3", "python3 app.py", "bash")]
    [True, True, True, False, False]
    """
    return _NAMELESS.fullmatch(program) is not None


class _Family:
    """Processes that share one name."""

    __slots__ = ("_base", "name", "port")

    def __init__(self, name: str, base: str | None = None) -> None:
        """`base`: the name to which the port is added once there is one; None: the name is fixed."""
        self.name = name
        self.port = 0
        self._base = base

    def listen(self, port: int) -> bool:
        """Note that one of its processes listens on this port. The first port stays, so the name stays too. Returns whether the
        name changed."""
        if not port or self.port or self._base is None:
            return False
        self.port, self.name = port, f"{self._base} :{port}"
        return True


class _Entry:
    """What is known of one process."""

    __slots__ = ("alone", "family", "given", "identity", "swarm")

    def __init__(self, identity: Identity, family: _Family, given: bool) -> None:
        self.identity = identity
        self.family = family
        self.given = given  # by a pool, a rule or a unit: kinship does not change it
        self.swarm: _Swarm | None = None  # from which it descends
        self.alone = False  # it has had a trait of `_STANDS_ALONE`

    @property
    def name(self) -> str:
        """The name of its group."""
        if self.swarm is None or self.given or self.alone or self.swarm.over:
            return self.family.name
        return self.swarm.family.name


class _Swarm:
    """All descendants of a program whose children are mostly brief."""

    __slots__ = ("family", "over")

    def __init__(self, family: _Family) -> None:
        self.family = family  # of the root
        self.over = False  # the root has had a trait of `_STANDS_ALONE`


class Families:
    """Names the group of every process. The name stays while the process is the same, also when its parent has ended."""

    def __init__(self, grouping: Grouping) -> None:
        self._grouping = grouping
        self._entries: dict[ProcId, _Entry] = {}
        self._ids: Sequence[ProcId] = ()
        self._identities: Mapping[ProcId, Identity] = {}
        self._pools: Mapping[ProcId, str] = {}
        self._names: list[str] = []
        self._kin = _Kin((), (), (), {})
        self._drivers: dict[ProcId, float] = {}  # mean cores of brief children, by driver
        self._swarms: dict[ProcId, _Swarm] = {}  # by their living roots

    def step(
        self,
        ids: Sequence[ProcId],
        parents: Sequence[int],
        sessions: Sequence[int],
        identities: Mapping[ProcId, Identity],
        pools: Mapping[ProcId, str],
    ) -> Sequence[str]:
        """The group of each process.

        `parents`: their pids; `pools`: pool names by worker and master. Pools and rules name their groups; other groups are called
        "unit NAME", "container ID" or "program NAME": no pool or rule can have such a name, because theirs have no spaces.
        """
        if identities is self._identities and pools == self._pools and ids == self._ids:
            return self._names
        kin = _Kin(ids, parents, sessions, identities)
        known, found = self._entries, list(map(self._entries.get, ids))
        stale = [row for row, entry in enumerate(found) if entry is None or entry.identity is not identities[ids[row]]]
        misfits = {id_ for id_, pool in pools.items() if (entry := known.get(id_)) is not None and not _fits(entry, pool)}
        if misfits:
            stale = sorted({*stale, *(row for row, id_ in enumerate(ids) if id_ in misfits)})
        fresh: dict[ProcId, _Entry] = {id_: entry for id_, entry in zip(ids, found, strict=True) if entry is not None}
        for row in stale:
            fresh.pop(ids[row], None)
        if stale:
            _Arrivals(self._grouping, known, fresh, kin, pools).settle(stale)
            for row in stale:
                found[row] = fresh[ids[row]]
        self._entries, self._ids, self._identities, self._pools, self._kin = fresh, ids, identities, pools, kin
        self._names = [entry.family.name if entry.swarm is None else entry.name for entry in found if entry is not None]
        return self._names

    def swarms(self, table: SampleTable, brief: Floats, seconds: float) -> Sequence[str]:
        """The group of each process of the last step, with swarms gathered.

        `table`: their samples; `brief`: cores that brief children of each used in the last `seconds`, from `Rates`.
        """
        rows = np.flatnonzero(brief >= _FAINT).tolist()
        if not rows and not self._drivers and not self._swarms:
            return self._names
        barred = ((table["traits"] & _NO_DRIVER) != 0) | ((table["known"] & int(Known.SOCKETS)) == 0)
        found: dict[ProcId, float] = {}
        for row in rows:
            driver = _driver(row, self._kin, barred, self._pools)
            if driver is not None:
                found[driver] = found.get(driver, 0.0) + float(brief[row])
        fade = math.exp(-seconds / SWARM_SECONDS)
        now = {id_: self._drivers.get(id_, 0.0) * fade + found.get(id_, 0.0) * (1.0 - fade) for id_ in {*self._drivers, *found}}
        self._drivers = {id_: cores for id_, cores in now.items() if cores >= _FAINT and id_ in self._entries}
        before = {id_: swarm for id_, swarm in self._swarms.items() if id_ in self._entries}
        new = [id_ for id_, cores in sorted(self._drivers.items()) if cores >= SWARM_CORES and id_ not in before]
        self._swarms = before
        for root in new:
            self._gather(root)
        if self._part(table) or new:
            self._names = [self._entries[id_].name for id_ in self._ids]
        return self._names

    def _gather(self, root: ProcId) -> None:
        """Make a swarm of a process and all of its descendants."""
        swarm = self._swarms[root] = _Swarm(self._entries[root].family)
        within: dict[int, bool] = {}
        for row, id_ in enumerate(self._ids):
            path, at = [], row
            while at not in within:
                within[at] = self._ids[at] == root
                path.append(at)
                up = self._kin.fellow(at)
                if within[at] or up is None:
                    break
                at = up
            within.update(dict.fromkeys(path, within[at]))
            if within[row]:
                self._entries[id_].swarm = swarm

    def _part(self, table: SampleTable) -> bool:
        """Note which members of swarms stand alone. Returns whether any are new."""
        if not self._swarms:
            return False
        news = False
        for row in np.flatnonzero(table["traits"] & _STANDS_ALONE).tolist():
            entry = self._entries[self._ids[row]]
            if entry.swarm is not None and not entry.alone:
                entry.alone = news = True
                root = self._swarms.get(self._ids[row])
                if root is not None:
                    root.over = True
        return news


def _fits(entry: _Entry, pool: str | None) -> bool:
    """Whether a process whose pool is `pool` may keep its entry: a process that leaves a pool is still at its work."""
    return pool is None or entry.family.name == pool


def _driver(row: int, kin: _Kin, barred: NDArray[np.bool_], pools: Container[ProcId]) -> ProcId | None:
    """The driver of the brief children of a process: its topmost ancestor of the same session, cgroup and user whose name says what
    runs. The search ends below a program that starts unrelated things or answers somebody. None: the process is such a program."""
    named = unnamed = None
    for at in (row, *kin.fellows(row)):
        id_, program = kin.ids[at], kin.identity(at).program
        if program in _SILENT or barred[at] or id_ in pools or kin.identity(at).cgroup != kin.identity(row).cgroup:
            break
        if nameless(program):
            unnamed = id_
        elif program not in _WRAPPERS:
            named = id_
    return named or unnamed


class _Kin:
    """The parents of processes, by rows of one table. Its order finds them: rows by pid would cost 70 bytes a process."""

    def __init__(
        self, ids: Sequence[ProcId], parents: Sequence[int], sessions: Sequence[int], identities: Mapping[ProcId, Identity]
    ) -> None:
        self.ids = ids
        self._parents = parents
        self._sessions = sessions
        self._identities = identities

    def identity(self, row: int) -> Identity:
        """What a process is."""
        return self._identities[self.ids[row]]

    def parent(self, row: int) -> int | None:
        """The row of the parent; None if the table has none, or its pid is reused."""
        pid = self._parents[row]
        up = bisect_left(self.ids, (pid + 1, 0)) - 1  # the last with this pid
        if up < 0 or up == row or self.ids[up].pid != pid or self.ids[up].start_ticks > self.ids[row].start_ticks:
            return None
        return up

    def relative(self, row: int) -> int | None:
        """The parent, if it has the same user and unit."""
        up = self.parent(row)
        if up is None:
            return None
        one, other = self.identity(row), self.identity(up)
        return up if (one.uid, one.owner, one.unit) == (other.uid, other.owner, other.unit) else None

    def fellow(self, row: int) -> int | None:
        """The relative, if it is in the same session."""
        up = self.relative(row)
        return up if up is not None and self._sessions[up] == self._sessions[row] else None

    def fellows(self, row: int) -> Iterator[int]:
        """The ancestors with the same user, unit and session, nearest first."""
        seen = {row}
        while (up := self.fellow(row)) is not None and up not in seen:
            seen.add(up)
            yield up
            row = up


class _Arrivals:
    """Finds the families of processes that are new or have changed in a tick."""

    def __init__(
        self,
        grouping: Grouping,
        known: Mapping[ProcId, _Entry],
        fresh: dict[ProcId, _Entry],
        kin: _Kin,
        pools: Mapping[ProcId, str],
    ) -> None:
        self._grouping = grouping
        self._known = known  # the entries before this tick
        self._fresh = fresh  # the entries that are valid now
        self._ids = kin.ids
        self._kin = kin
        self._pools = pools

    def settle(self, stale: Sequence[int]) -> None:
        """Give each of these rows its entry, parents before their children."""
        for row in stale:
            chain = [row, *self._above(row)]
            while chain:
                at = chain.pop()
                if self._ids[at] not in self._fresh:
                    self._fresh[self._ids[at]] = self._entry(at)

    def _above(self, row: int) -> Iterator[int]:
        """Rows of the ancestors without an entry, nearest first."""
        seen = {row}
        while (up := self._kin.parent(row)) is not None and up not in seen and self._ids[up] not in self._fresh:
            seen.add(up)  # a pid that was reused between two reads may look like its own ancestor
            yield up
            row = up

    def _entry(self, row: int) -> _Entry:
        id_, identity = self._ids[row], self._kin.identity(row)
        pool = self._pools.get(id_)
        before = self._known.get(id_)
        if pool is None and before is not None and _same_program(before.identity, identity):
            entry = _Entry(identity, before.family, before.given)
        else:
            name = pool or self._grouping.given(identity)
            entry = _Entry(identity, _Family(name), True) if name else _Entry(identity, self._family(row), False)
        entry.family.listen(identity.port)
        up = self._kin.fellow(row)
        if before is not None:
            entry.swarm, entry.alone = before.swarm, before.alone
        elif up is not None and self._ids[up] in self._fresh:
            entry.swarm = self._fresh[self._ids[up]].swarm
        return entry

    def _family(self, row: int) -> _Family:
        id_ = self._ids[row]
        identity = self._kin.identity(row)
        program = identity.program
        up = self._relative(row)
        if up is not None and self._kin.identity(up).program == program:
            return self._fresh[self._ids[up]].family
        base = f"program {program}{self._grouping.of_user(identity)}"
        if not nameless(program):
            return _Family(base, base)
        namer = self._namer(row)
        return _Family(f"{base} pid {id_.pid}", base) if namer is None else self._fresh[self._ids[namer]].family

    def _namer(self, row: int) -> int | None:
        """The nearest ancestor of a nameless process that says what it is part of."""
        shell = _is_shell(self._kin.identity(row).program)
        while (up := self._relative(row)) is not None:
            program = self._kin.identity(up).program
            if program in _SILENT:
                return None
            # a shell's line may start unrelated things; an interpreter's code spawns its own workers
            if program not in _WRAPPERS and not (nameless(program) and _is_shell(program) and not shell):
                return up
            row = up
        return None

    def _relative(self, row: int) -> int | None:
        """The parent, if it has the same user and unit, and has its entry."""
        up = self._kin.relative(row)
        return up if up is not None and self._ids[up] in self._fresh else None


def _is_shell(program: str) -> bool:
    return program.removesuffix(" -c") in _SHELLS


def _same_program(one: Identity, other: Identity) -> bool:
    """Whether a process is still the same for grouping: it may have begun to listen, or changed its comm."""
    return all(getattr(one, key) == getattr(other, key) for key in ("program", "cgroup", "unit", "uid", "owner"))
