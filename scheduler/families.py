"""Which processes belong together by who started whom, and what they are called. Pure: from identities and the table of parents.

A program that says what it is has a group of its own. A child that does not (code given as an argument, what `multiprocessing`
spawns, a bare interpreter) belongs to the nearest ancestor that does, and so does a child that runs the same program as its parent.
Two applications of one server are told apart by the TCP port on which their family listens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ..models.records import Identity, ProcId
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
"""Programs that start things that have nothing to do with each other: sessions, supervisors, terminals, shells typed into."""

_WRAPPERS = frozenset(
    {
        *("chrt", "choom", "doas", "env", "ionice", "nice", "nohup", "nsenter", "numactl", "runuser", "script"),
        *("setpriv", "setsid", "stdbuf", "strace", "su", "sudo", "taskset", "time", "timeout", "unshare"),
    }
)
"""Programs that run one other program in another way: what they run belongs where they do."""

_INTERPRETER = r"(?:python|pypy)\d?|perl|ruby|node|php|java"
_NAMELESS = re.compile(
    rf"(?:{_INTERPRETER})(?: (?:-[cepEr]|--eval|--print))?"  # code as an argument or from standard input, or typed in
    r"|(?:bash|dash|ksh|sh|zsh) -c"
    r"|(?:python|pypy)\d? -m (?:multiprocessing|joblib\.externals\.loky|loky|pyspark)\..*"  # what those modules start workers with
    r"|java (?:surefirebooter.*|forkedbooter.*|.*\.GradleWorkerMain|.*\.ForkedBooter|.*\.(?:Jar|Properties|War)Launcher)"
    r"|java .*\.classworlds\.launcher\.Launcher"
)
"""Names that do not say what runs: inline code, and launchers of code that their arguments or their parent name."""


def nameless(program: str) -> bool:
    """Whether the name of a program (`Identity.program`) does not say what runs.

    >>> [nameless(name) for name in ("python3 -c", "bash -c", "python3", "python3 app.py", "bash")]
    [True, True, True, False, False]
    """
    return _NAMELESS.fullmatch(program) is not None


class _Family:
    """Processes that go by one name."""

    __slots__ = ("_base", "name", "port")

    def __init__(self, name: str, base: str | None = None) -> None:
        """`base`: what the port is added to, once there is one; None: the name is given."""
        self.name = name
        self.port = 0
        self._base = base

    def listen(self, port: int) -> bool:
        """A process of it listens there. The first port stays, so that the name does. Returns whether the name has changed."""
        if not port or self.port or self._base is None:
            return False
        self.port, self.name = port, f"{self._base} :{port}"
        return True


class _Entry:
    """What is known of one process."""

    __slots__ = ("family", "given", "identity")

    def __init__(self, identity: Identity, family: _Family, given: bool) -> None:
        self.identity = identity
        self.family = family
        self.given = given  # by a pool, a rule or a unit: no kinship changes that


class Families:
    """Names the group of every process, and keeps it as long as the process is the same: also when its parent has ended."""

    def __init__(self, grouping: Grouping) -> None:
        self._grouping = grouping
        self._entries: dict[ProcId, _Entry] = {}
        self._ids: Sequence[ProcId] = ()
        self._identities: Mapping[ProcId, Identity] = {}
        self._pools: Mapping[ProcId, str] = {}
        self._names: list[str] = []

    def step(
        self, ids: Sequence[ProcId], parents: Sequence[int], identities: Mapping[ProcId, Identity], pools: Mapping[ProcId, str]
    ) -> Sequence[str]:
        """The group of each process.

        `parents`: their pids; `pools`: pool names by worker and master. Pools and rules name their groups; others are called
        "unit NAME", "container ID" or "program NAME", which no pool or rule can be (names have no spaces).
        """
        if identities is self._identities and pools == self._pools and ids == self._ids:
            return self._names
        known, fresh, stale = self._entries, dict[ProcId, _Entry](), list[int]()
        for row, id_ in enumerate(ids):
            entry = known.get(id_)
            if entry is None or entry.identity is not identities[id_] or (pools and not _fits(entry, pools.get(id_))):
                stale.append(row)
            else:
                fresh[id_] = entry
        if stale:
            _Arrivals(self._grouping, known, fresh, ids, parents, identities, pools).settle(stale)
        self._entries, self._ids, self._identities, self._pools = fresh, ids, identities, pools
        self._names = [fresh[id_].family.name for id_ in ids]
        return self._names


def _fits(entry: _Entry, pool: str | None) -> bool:
    """Whether a process whose pool is `pool` may keep its entry: who leaves a pool is still at its work."""
    return pool is None or entry.family.name == pool


class _Arrivals:
    """Finds the families of processes that are new or have changed in a tick."""

    def __init__(
        self,
        grouping: Grouping,
        known: Mapping[ProcId, _Entry],
        fresh: dict[ProcId, _Entry],
        ids: Sequence[ProcId],
        parents: Sequence[int],
        identities: Mapping[ProcId, Identity],
        pools: Mapping[ProcId, str],
    ) -> None:
        self._grouping = grouping
        self._known = known  # the entries before this tick
        self._fresh = fresh  # those that hold now
        self._ids = ids
        self._parents = parents
        self._identities = identities
        self._pools = pools
        self._rows = {id_.pid: row for row, id_ in enumerate(ids)}

    def settle(self, stale: Sequence[int]) -> None:
        """Give each of these rows its entry; parents before their children."""
        for row in stale:
            chain = [row, *self._above(row)]
            while chain:
                at = chain.pop()
                if self._ids[at] not in self._fresh:
                    self._fresh[self._ids[at]] = self._entry(at)

    def _above(self, row: int) -> Iterator[int]:
        """Rows of the ancestors without an entry, nearest first."""
        seen = {row}
        while (up := self._parent(row)) is not None and up not in seen and self._ids[up] not in self._fresh:
            seen.add(up)  # a pid that was given out again between two reads may look like its own ancestor
            yield up
            row = up

    def _parent(self, row: int) -> int | None:
        up = self._rows.get(self._parents[row])
        return up if up is not None and up != row and self._ids[up].start_ticks <= self._ids[row].start_ticks else None

    def _entry(self, row: int) -> _Entry:
        id_ = self._ids[row]
        identity = self._identities[id_]
        pool = self._pools.get(id_)
        before = self._known.get(id_)
        if pool is None and before is not None and _same_program(before.identity, identity):
            entry = _Entry(identity, before.family, before.given)
        else:
            name = pool or self._grouping.given(identity)
            entry = _Entry(identity, _Family(name), True) if name else _Entry(identity, self._family(row), False)
        entry.family.listen(identity.port)
        return entry

    def _family(self, row: int) -> _Family:
        id_ = self._ids[row]
        program = self._identities[id_].program
        up = self._relative(row)
        if up is not None and self._identities[self._ids[up]].program == program:
            return self._fresh[self._ids[up]].family
        base = f"program {program}"
        if not nameless(program):
            return _Family(base, base)
        namer = self._namer(row)
        return _Family(f"{base} pid {id_.pid}", base) if namer is None else self._fresh[self._ids[namer]].family

    def _namer(self, row: int) -> int | None:
        """The nearest ancestor of a nameless process that says what it is part of."""
        shell = _is_shell(self._identities[self._ids[row]].program)
        while (up := self._relative(row)) is not None:
            program = self._identities[self._ids[up]].program
            if program in _SILENT:
                return None
            # a shell's line may start things that have nothing to do with each other, an interpreter's code spawns its own workers
            if program not in _WRAPPERS and not (nameless(program) and _is_shell(program) and not shell):
                return up
            row = up
        return None

    def _relative(self, row: int) -> int | None:
        """The parent, if it is of the same user and unit, and has its entry."""
        up = self._parent(row)
        if up is None or self._ids[up] not in self._fresh:
            return None
        one, other = self._identities[self._ids[row]], self._identities[self._ids[up]]
        return up if (one.uid, one.unit) == (other.uid, other.unit) else None


def _is_shell(program: str) -> bool:
    return program.removesuffix(" -c") in _SHELLS


def _same_program(one: Identity, other: Identity) -> bool:
    """Whether a process is still what it was, as far as groups go: it may have begun to listen, or changed its comm."""
    return (one.program, one.cgroup, one.unit, one.uid) == (other.program, other.cgroup, other.unit, other.uid)
