"""Runs a field scene: its programs, load, controls by hand and the daemon, and which process belongs to which program.

However a scene ends, everything that was started is ended, and every cgroup removed. Controls by hand are restored after their
window. nicety restores what it set: it is stopped after each of its turns, and keeps its state directory.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..latency.contention import cpu_hierarchy
from .figures import SENSITIVE, Role
from .programs import POSTGRES, Program, Site, as_postgres
from .scenes import Hand, Layout, Requests, Scene, Way

UP, DOWN, FAREWELL = 90.0, 60.0, 10.0
"""Most seconds for a program or the daemon to come up beside a hundred hogs, for the daemon and the load to end, and for a program
to end after its signal. Chosen."""

LOOK = 0.5
"""Seconds between two looks at all processes. Chosen: processes that live shorter are missed, and looks take CPU."""

DEPLOY = 4.0
"""Seconds between two deploys. Chosen: about two in a window."""

QUOTA_PERIOD, QUOTA_ROOM, QUOTA_LOOK = 0.05, 1.15, 3.0
"""The throttled service's quota: seconds of its period, its size in multiples of the service's mean CPU, and seconds over which
that mean is measured. Chosen: the quota suffices on average, but not for bursts."""

LEAST = {"cpu.shares": "2", "cpu.weight": "1"}
"""The least weight of a cgroup, v1 and v2 (kernel/sched/sched.h: MIN_SHARES; Documentation/admin-guide/cgroup-v2.rst)."""

TICKS = os.sysconf("SC_CLK_TCK")

LAUNCH = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans of its programs become its children
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # and are reaped
for line in sys.stdin:  # a program a line: where its output goes, then its words
    log, *words = line.rstrip("\\n").split("\\t")
    pid = os.fork()
    if pid == 0:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (out, 2)):
            os.dup2(source, target)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.execvp(words[0], words)
    print(pid, flush=True)

def below():
    children = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            parent = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()[1]
        except OSError:
            continue
        children.setdefault(int(parent), []).append(int(name))
    found, left = [], [os.getpid()]
    while left:
        mine = children.get(left.pop(), [])
        found += mine
        left += mine
    return found

while mine := below():  # the process that started it is gone
    for pid in mine:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
"""


class SceneError(Exception):
    """A scene cannot run. The message says why."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A row of the process table."""

    pid: int
    parent: int
    session: int
    nice: int
    cpu: float  # seconds, its own and that of children that have ended
    start: int  # clock ticks since boot


def table() -> dict[int, Seen]:
    """All processes now, by pid."""
    seen = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - a Path for each process would cost more than the rest
        if not name.isdecimal():
            continue
        try:
            fields = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] not in "ZX":
            used = sum(map(int, fields[11:15])) / TICKS
            seen[int(name)] = Seen(int(name), int(fields[1]), int(fields[3]), int(fields[16]), used, int(fields[19]))
    return seen


def tree(seen: dict[int, Seen], *roots: int) -> list[Seen]:
    """These processes and all their descendants."""
    children = defaultdict(list)
    for row in seen.values():
        children[row.parent].append(row)
    found, left = [], [seen[root] for root in roots if root in seen]
    while left:
        row = left.pop()
        found.append(row)
        left += children[row.pid]
    return found


def inner(pid: int, which: str) -> int:
    """A pid ("NSpid") or session ("NSsid") of the process as those in its namespace see it. Raises OSError."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return int(line.split()[-1])
    return pid


def cpu_cgroup(pid: int) -> str:
    """Path of the process in the cpu hierarchy. Raises OSError."""
    unified = "/"
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            return path
        if not controllers:
            unified = path
    return unified


class Launcher:
    """Starts programs as its children, in its session and pid namespace."""

    def __init__(self, prefix: list[str]) -> None:
        words = [*prefix, sys.executable, "-c", LAUNCH]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._shell = subprocess.Popen(words, text=True, start_new_session=True, **pipes)  # type: ignore[call-overload]
        self.pid: int = self._shell.pid
        self.namespace = bool(prefix) and prefix[0] == "unshare"

    def start(self, words: list[str], log: Path) -> int:
        """Start a program; its pid in our namespace."""
        self._shell.stdin.write("\t".join([str(log), *words]) + "\n")
        self._shell.stdin.flush()
        answer = self._shell.stdout.readline()
        if not answer:
            raise SceneError("the launcher has ended")
        return self._outer(int(answer)) if self.namespace else int(answer)

    def _outer(self, pid: int) -> int:
        for row in tree(table(), self.pid):
            with contextlib.suppress(OSError):
                if row.pid != self.pid and inner(row.pid, "NSpid") == pid:
                    return row.pid
        raise SceneError(f"process {pid} of the namespace was not found")

    def close(self) -> None:
        """End it and all its descendants. They are stopped first, so that none of them forks meanwhile."""
        stopped = set[int]()
        while left := [row.pid for row in tree(table(), self.pid) if row.pid not in stopped]:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            stopped.update(left)
        for pid in (*(stopped - {self.pid}), self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._shell.wait()
        self._shell.stdin.close()
        self._shell.stdout.close()


@dataclass
class Roster:
    """Which programs each process, session and cgroup belonged to, with pids and paths as nicety sees them."""

    processes: dict[tuple[int, int], set[str]] = field(default_factory=lambda: defaultdict(set))  # (pid, start)
    session_of: dict[tuple[int, int], int] = field(default_factory=dict)
    sessions: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    cgroups: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    demoted: set[str] = field(default_factory=set)  # interactive programs that the kernel showed as demoted, and how


class Stage:
    """A scene that is running."""

    def __init__(self, scene: Scene, folder: Path, home: Path) -> None:
        self.scene, self.site, self.roster = scene, Site(folder, home), Roster()
        self.roots: dict[str, int] = {}
        self.roles = {program.name: program.role for program in scene.programs}
        self._launchers: list[Launcher] = []
        self._cgroups: list[Path] = []
        self._load: list[subprocess.Popen[bytes]] = []
        self._known: dict[tuple[int, int], str] = {}  # (pid, start) -> program
        self._watching = False  # whether nicety acts now
        self._done = threading.Event()
        self._threads: list[threading.Thread] = []
        self._moved: Path | None = None

    # --- up and down ------------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start everything. Raises SceneError."""
        scene = self.scene
        shared = self._new_cgroup("all") if scene.layout is Layout.TOGETHER else None
        self._outside = self._launcher([] if shared is None else into(shared))
        self._inside = self._launcher(["unshare", "-pf", "--mount-proc", "--kill-child"]) if scene.inside else self._outside
        own = self._new_cgroup("quota") if scene.quota else None
        for program in sorted(scene.programs, key=lambda program: program.role is Role.BATCH and not program.listens):
            self._start(program, own if program.name == scene.quota else None)
        self._thread(self._watch)
        self._start_load()
        if own is not None:
            self._set_quota(own)
        if scene.deploys:
            self._thread(self._deploy)

    def close(self) -> None:
        """End everything, remove the cgroups."""
        self._done.set()
        for thread in self._threads:
            thread.join()
        self.end_load()
        self._farewell()
        for launcher in self._launchers:
            launcher.close()
        deadline = time.monotonic() + DOWN
        for place in reversed(self._cgroups):
            while place.exists() and time.monotonic() < deadline:
                try:
                    place.rmdir()
                except OSError:  # its processes are still exiting
                    time.sleep(0.02)

    def _farewell(self) -> None:
        """End programs that would leave something behind by their own signal."""
        roots = []
        for program in self.scene.programs:
            root = self.roots.get(program.name)
            if program.farewell and root is not None and alive(root):
                os.kill(root, program.farewell)
                roots.append(root)
        deadline = time.monotonic() + FAREWELL
        while any(map(alive, roots)) and time.monotonic() < deadline:
            time.sleep(0.05)

    def check(self) -> None:
        """Raises SceneError if something that should run has ended."""
        ended = [name for name, root in self.roots.items() if not alive(root)]
        ended += ["the watch"] if not all(thread.is_alive() for thread in self._threads) else []
        ended += ["the load"] if any(load.poll() is not None for load in self._load) else []
        if ended:
            logs = (self.site.folder / f"{ended[0]}.log").read_text() if (self.site.folder / f"{ended[0]}.log").exists() else ""
            raise SceneError(f"{', '.join(ended)} ended unexpectedly: {' '.join(logs.split())[-300:]}")

    def _launcher(self, prefix: list[str]) -> Launcher:
        self._launchers.append(Launcher(prefix))
        return self._launchers[-1]

    def _thread(self, target: object) -> None:
        self._threads.append(threading.Thread(target=target, daemon=True))  # type: ignore[arg-type]
        self._threads[-1].start()

    def _new_cgroup(self, name: str) -> Path:
        top = cpu_hierarchy()
        if top is None:
            raise SceneError("no writable cpu cgroup hierarchy: run this as root")
        place = top / f"nicety-field-{os.getpid()}-{name}"
        place.mkdir()
        self._cgroups.append(place)
        return place

    def _start(self, program: Program, cgroup: Path | None) -> None:
        try:
            program.before(self.site)
            words = program.command(self.site)
            launcher = self._inside if program.name in self.scene.inside else self._outside
            alone = [] if self.scene.layout is Layout.TOGETHER else ["setsid"]
            prefix = [*alone, *(into(cgroup) if cgroup is not None else []), *self._pinned(program.name)]
            root = self.roots[program.name] = launcher.start([*prefix, *words], self.site.folder / f"{program.name}.log")
            if program.listens:
                wait_for_port(self.site.port(program.name), root, self.site.folder / f"{program.name}.log")
            program.after(self.site)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            raise SceneError(f"{program.name}: {error}") from error

    def _pinned(self, name: str) -> list[str]:
        """Prefix of a command that binds the scene's `apart` program to the last CPU; [] for all others."""
        return ["taskset", "-c", str(max(os.sched_getaffinity(0)))] if name == self.scene.apart else []

    # --- the load ---------------------------------------------------------------------------------------------------------------

    def _start_load(self) -> None:
        targets, folder = list[str](), self.site.folder
        for number, load in enumerate(self.scene.load):
            port = str(self.site.port(load.program))
            if isinstance(load, Requests):
                path = folder / f"request.{number}"
                path.write_bytes(load.request)
                targets += ["--target", port, str(load.rate), str(path)]
            else:
                at = ["-h", "127.0.0.1", "-p", port, "-S", "-n", "-c", "8", "-j", "2", "-T", "36000"]
                words = as_postgres(
                    str(POSTGRES / "pgbench"), *at, "-R", str(load.rate), "-l", "--log-prefix", f"{folder}/pgbench", "bench"
                )
                self._load.append(self._generator(["chrt", "-f", "1", *words], folder / "pgbench.out"))
        if targets:
            generator = [sys.executable, str(Path(__file__).with_name("load.py")), "--out", str(folder / "load"), *targets]
            self._load.append(self._generator(generator, folder / "load.out"))

    def _generator(self, words: list[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd="/")

    def end_load(self) -> None:
        """End the load, so that requests without an answer are in the files too."""
        for load in self._load:
            load.terminate()
        for load in self._load:
            try:
                load.wait(DOWN)
            except subprocess.TimeoutExpired:
                os.killpg(load.pid, signal.SIGKILL)
                load.wait()
        self._load.clear()

    def latencies(self) -> np.ndarray:
        """Rows so far: planned (monotonic seconds), latency, how late it was sent (NaN: not known); sorted."""
        rows = [np.empty((0, 3))]
        for path in self.site.folder.glob("load.*"):
            if path.suffix != ".out":
                data = np.fromfile(path)
                rows.append(data[: len(data) // 3 * 3].reshape(-1, 3))
        ahead = time.time() - time.monotonic()
        logs = (path for path in self.site.folder.glob("pgbench.*") if path.suffix != ".out")
        rows += [transactions(path.read_text(), ahead) for path in logs]
        found = np.concatenate(rows)
        return found[np.argsort(found[:, 0])]

    # --- the roster -------------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._done.wait(LOOK):
            seen = table()
            for row in seen.values():
                key = (row.pid, row.start)
                if key not in self._known:
                    name = self._program_of(seen, row)
                    if name:
                        self._known[key] = name
                        self._enter(row, name)
                if self._watching and key in self._known:
                    self._look_at(row, self._known[key])

    def _program_of(self, seen: dict[int, Seen], row: Seen) -> str:
        roots = {root: name for name, root in self.roots.items()}
        above: Seen | None = row
        while above is not None:
            if above.pid in roots:
                return roots[above.pid]
            above = seen.get(above.parent)
        return ""

    def _enter(self, row: Seen, name: str) -> None:
        with contextlib.suppress(OSError):
            if not self.scene.inside:
                pid, session = row.pid, row.session
            elif name in self.scene.inside:
                pid, session = inner(row.pid, "NSpid"), inner(row.pid, "NSsid")
            else:
                return  # nicety cannot see it
            self.roster.processes[pid, row.start].add(name)
            self.roster.session_of[pid, row.start] = session
            self.roster.sessions[session].add(name)
            self.roster.cgroups[cpu_cgroup(row.pid)].add(name)

    def _look_at(self, row: Seen, name: str) -> None:
        if self.roles[name] not in SENSITIVE:
            return
        with contextlib.suppress(OSError, ValueError):
            cgroup = cpu_cgroup(row.pid)
            if row.nice > 0:
                self.roster.demoted.add(f"{name}: nice {row.nice}")
            group = int(Path(f"/proc/{row.pid}/autogroup").read_text().split()[-1])
            if cgroup == "/" and group > 0:
                self.roster.demoted.add(f"{name}: autogroup {group}")
            top = cpu_hierarchy()
            if top is not None:
                for part in ancestors(cgroup):
                    if light(top / part):
                        self.roster.demoted.add(f"{name}: weight of cgroup /{part}")

    def work(self) -> float | None:
        """CPU seconds of all batch programs so far, including children that have ended; None: the scene has no batch program."""
        roots = [root for name, root in self.roots.items() if self.roles[name] is Role.BATCH]
        return sum(row.cpu for row in tree(table(), *roots)) if roots else None

    # --- what happens to the service --------------------------------------------------------------------------------------------

    def _deploy(self) -> None:
        while not self._done.wait(DEPLOY):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.roots[self.scene.deploys], signal.SIGHUP)

    def _set_quota(self, place: Path) -> None:
        root = self.roots[self.scene.quota]
        before, began = tree(table(), root)[0].cpu, time.monotonic()
        time.sleep(QUOTA_LOOK)
        share = (tree(table(), root)[0].cpu - before) / (time.monotonic() - began)
        period = round(QUOTA_PERIOD * 1e6)
        quota = max(1000, round(share * QUOTA_ROOM * period))
        if (place / "cpu.max").exists():
            (place / "cpu.max").write_text(f"{quota} {period}")
        else:
            (place / "cpu.cfs_period_us").write_text(str(period))
            (place / "cpu.cfs_quota_us").write_text(str(quota))

    # --- controls by hand -------------------------------------------------------------------------------------------------------

    def set_by_hand(self, hand: Hand) -> None:
        """Set the control on its programs and all their descendants."""
        self._hand(hand, lowered=True)

    def take_back(self, hand: Hand) -> None:
        """Restore what `set_by_hand` changed."""
        self._hand(hand, lowered=False)

    def _hand(self, hand: Hand, *, lowered: bool) -> None:
        child = self._child(hand) if hand.way is Way.CHILD else None
        cpus = {max(os.sched_getaffinity(0))} if lowered else os.sched_getaffinity(0)
        for _ in range(3):  # what is forked meanwhile has inherited it, or is met by the next look
            for row in tree(table(), *(self.roots[name] for name in hand.programs)):
                with contextlib.suppress(OSError):
                    if hand.way is Way.AUTOGROUP:
                        Path(f"/proc/{row.pid}/autogroup").write_text("19" if lowered else "0")
                    elif child is not None:
                        (child if lowered else child.parent).joinpath("cgroup.procs").write_text(str(row.pid))
                    else:
                        for tid in map(int, os.listdir(f"/proc/{row.pid}/task")):  # noqa: PTH208
                            if hand.way is Way.NICE:
                                os.setpriority(os.PRIO_PROCESS, tid, 19 if lowered else 0)
                            elif hand.way is Way.IDLE:
                                os.sched_setscheduler(tid, os.SCHED_IDLE if lowered else os.SCHED_OTHER, os.sched_param(0))
                            else:
                                os.sched_setaffinity(tid, cpus)

    def _child(self, hand: Hand) -> Path:
        """A child cgroup, into which the programs are moved."""
        if self._moved is None:
            top = cpu_hierarchy()
            assert top is not None, "the scene has a cgroup in it"
            self._moved = top / cpu_cgroup(self.roots[hand.programs[0]]).lstrip("/") / "child"
            self._moved.mkdir()
            self._cgroups.append(self._moved)
            for name, least in LEAST.items():
                if (self._moved / name).exists():
                    (self._moved / name).write_text(least)
        return self._moved

    # --- nicety -----------------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> Path:
        """The daemon's state directory, which stays for all its turns."""
        return self.site.folder / "nicety" / "state"

    @contextlib.contextmanager
    def nicety(self) -> Iterator[int]:
        """Run the daemon within the block, acting, with nothing configured; its pid. It restores everything at the end. Raises
        SceneError."""
        self.state.parent.mkdir(exist_ok=True, mode=0o700)
        config, log = self.state.parent / "nicety.toml", self.state.parent / "log"
        config.write_text("")
        words = ["run", "--act", "--state-dir", str(self.state), "--config", str(config)]
        home = self._inside if self.scene.inside else self._launcher([])
        daemon = home.start(["setsid", sys.executable, "-m", "nicety.scheduler", *words], log)
        try:
            deadline = time.monotonic() + UP
            while not (self.state / "control.sock").exists():
                if not alive(daemon) or time.monotonic() > deadline:
                    raise SceneError(f"the daemon did not come up: {log.read_text()[-500:]}")
                time.sleep(0.05)
            self._watching = True
            yield daemon
            if not alive(daemon):
                raise SceneError(f"the daemon ended unexpectedly: {log.read_text()[-500:]}")
        finally:
            self._watching = False
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon, signal.SIGTERM)
            deadline = time.monotonic() + DOWN
            while alive(daemon) and time.monotonic() < deadline:
                time.sleep(0.05)
            late = alive(daemon)
            if late:
                os.kill(daemon, signal.SIGKILL)
            if not self.scene.inside:
                self._launchers.remove(home)
                home.close()
        if late:
            raise SceneError(f"the daemon did not end within {DOWN:g} s of SIGTERM")


def into(cgroup: Path) -> list[str]:
    """Prefix of a command that runs it in this cgroup."""
    return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(cgroup)]


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def wait_for_port(port: int, pid: int, log: Path) -> None:
    """Return when the port accepts a connection. Raises SceneError."""
    deadline = time.monotonic() + UP
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline or not alive(pid):
                raise SceneError(f"it did not come up: {' '.join(log.read_text().split())[-300:]}") from None
            time.sleep(0.05)
        else:
            return


def ancestors(cgroup: str) -> list[str]:
    """Paths of a cgroup and those above it, without the root and the leading slash.

    >>> ancestors("/a/b")
    ['a', 'a/b']
    """
    parts = [part for part in cgroup.split("/") if part]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def light(place: Path) -> bool:
    """Whether a cgroup has less than the default weight. Raises OSError, ValueError."""
    for name, whole in (("cpu.shares", 1024), ("cpu.weight", 100)):
        if (place / name).exists() and int((place / name).read_text()) < whole:
            return True
    return (place / "cpu.idle").exists() and int((place / "cpu.idle").read_text()) > 0


def transactions(text: str, ahead: float) -> np.ndarray:
    """Rows (planned in monotonic seconds, latency, NaN) from pgbench's log. `ahead`: wall clock minus monotonic clock, in seconds.

    The log's columns: client, number, µs from the planned start to the end, script, end in s and µs, µs that it began late.
    """
    rows = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 7 and all(word.isdecimal() for word in words):  # the last line may not be whole yet
            ended, latency = int(words[4]) + int(words[5]) / 1e6, int(words[2]) / 1e6
            rows.append((ended - latency - ahead, latency, np.nan))
    return np.array(rows).reshape(-1, 3)
