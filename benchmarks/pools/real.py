"""Pool sizes on real pools: nicety, Knative's rule, fixed sizes and Celery's own scaler.

    python -m benchmarks.pools.real [--only POOL|LOAD,...] [--periods N] [--json FILE] [--table FILE]

Pools: gunicorn (sync workers), `nicety.scheduler.executor.Executor` and Celery (prefork, a Redis of its own). Loads: steps and
spikes of the simulator at half its height and with a period of 120 s, so that a run is short: 1 Erlang, and 6 for 40 s; 1.5
Erlangs, and 9 for 20 s. Requests come at random (Poisson), service times are log-normal around 0.4 s, starts are slow on purpose:
4 s. Workers wait instead of computing, so two CPUs carry a hundred of them.

All pools with all conditions run side by side and get the same work at the same time. The conditions are nicety's real daemon,
Knative's rule (`scheduler/simulation/peers.py`) through the same adapter, fixed sizes, and the framework's own scaler, which only
Celery has (--autoscale). The load is open-loop; latency counts from the planned time. The first KNOWN periods do not count,
because nicety must see a seasonal pattern before it trusts it; they are shown separately, and so is the simulator's result for the
same requests. Worker-seconds are the integral over the processes that the kernel lists, five times a second, including starting
and leaving ones.

It needs an otherwise idle machine. The largest fixed size shows the noise: how much slower it is than in the simulator. A run in
which work was sent late says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from nicety.models.records import PoolSample
from nicety.scheduler.config.sections import Config, PoolConfig
from nicety.scheduler.decision import ResizePool
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.observe.loads import offered_load
from nicety.scheduler.pools.build import build
from nicety.scheduler.pools.sensing.signals import read_stat
from nicety.scheduler.ports import PoolAdapter
from nicety.scheduler.simulation.arrivals import SCATTER, Load
from nicety.scheduler.simulation.peers import Kpa
from nicety.scheduler.simulation.queueing import PoolSeen
from nicety.scheduler.simulation.run import first_size, simulate
from nicety.scheduler.store.decisions import DecisionReader

from ..claims import Claims
from . import rigs

Floats = NDArray[np.float64]
PROC = Path("/proc")

MINIMUM, MAXIMUM = 2, 16
START = 4.0
"""Seconds that a worker sleeps before it takes work. Chosen, the simulator's default."""

SERVICE = 0.4
"""Mean seconds of a request. Chosen: twice the simulator's, so that half as many requests make the same load, for half the CPU."""

PERIOD = 120
KNOWN = 4
"""Periods that do not count. Chosen: a seasonal pattern of 120 s is trusted after three, and is looked for every 16 s."""

PERIODS = 2
LOOK = 0.2
"""Seconds between two looks at the workers. Chosen."""

LATE = 0.05
"""If one in a hundred requests was sent later than this many seconds, the run says that the machine was too busy. Chosen."""

AHEAD = 3.0
"""Seconds that the daemon runs before the first request. Chosen."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A load that repeats."""

    low: float  # Erlangs
    high: float
    begin: int  # second of the period at which it becomes high
    seconds: int  # seconds that it stays high

    def erlangs(self, periods: int) -> Floats:
        """[seconds] offered load."""
        at = (np.arange(periods * PERIOD) - self.begin) % PERIOD
        return np.where(at < self.seconds, self.high, self.low)

    def fixed(self) -> tuple[int, int, int]:
        """Fixed sizes: for the mean load, for the highest load, and for the highest load with Knative's headroom."""
        mean = float(self.erlangs(1).mean())
        return int(np.ceil(mean / Kpa.TARGET)), int(np.ceil(self.high)), int(np.ceil(self.high / Kpa.TARGET))


LOADS: Mapping[str, Shape] = MappingProxyType({"steps": Shape(1, 6, 70, 40), "spikes": Shape(1.5, 9, 30, 20)})
POOLS = ("gunicorn", "executor", "celery")
UP = 300.0
"""Most seconds until everything has started. Chosen."""


def schedule(shape: Shape, periods: int, seed: int) -> Floats:
    """[2, n] the second at which each request comes, and the seconds that it takes."""
    chance = np.random.default_rng(seed)
    counts = chance.poisson(shape.erlangs(periods) / SERVICE)
    planned = np.sort(np.repeat(np.arange(len(counts)), counts) + chance.random(int(counts.sum())))
    return np.stack([planned, chance.lognormal(np.log(SERVICE) - SCATTER**2 / 2, SCATTER, len(planned))])


def simulated(rule: str, load: str, requests: Floats, initial: int, periods: int) -> tuple[float, float]:
    """(p95, mean workers) of the periods that count, in the simulator."""
    erlangs = LOADS[load].erlangs(KNOWN + periods)
    known = Load(load, float(len(erlangs)), requests[0], requests[1], erlangs, "")
    name = "celery" if rule == "own" else rule
    found = simulate(name, known, START, 1, minimum=MINIMUM, maximum=MAXIMUM, warmup=KNOWN * PERIOD, initial=initial)
    return found.p95, found.workers


# --- what is measured -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one condition in one span of time."""

    pool: str
    load: str
    rule: str
    span: str  # "known", "first"
    requests: int
    p50: float  # seconds from the planned time to the end
    p95: float
    p99: float
    workers: float  # mean number
    worker_seconds: float
    spawns: int  # workers that were started
    resizes: int | None  # resizes that were asked for; None: not counted
    failed: int
    lost: int
    twice: int | None  # tasks begun more than once; None: such a thing is not counted
    simulated: tuple[float, float] | None  # p95 and mean workers in the simulator; None for the first periods


def integral(times: Floats, counts: Floats, since: float, until: float) -> float:
    """Integral over a span of a count that is constant between looks. Times rise; the first look is not after `since`."""
    edges = np.clip(np.append(times, max(until, float(times[-1]))), since, until)
    return float((counts * np.diff(edges)).sum())


class Watch:
    """Looks at the workers of pools, in its own thread."""

    def __init__(self, masters: Mapping[Any, tuple[str, int]]) -> None:
        """`masters`: by any key, the kind of pool and the pid of its main process."""
        self._masters = masters
        self.times: list[float] = []
        self.counts: dict[Any, list[int]] = {key: [] for key in masters}
        self.came: dict[Any, dict[tuple[int, int], float]] = {key: {} for key in masters}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            now = time.monotonic()
            for key, (kind, pid) in self._masters.items():
                present = workers(kind, pid)
                self.counts[key].append(len(present))
                for worker in present:
                    self.came[key].setdefault(worker, now)
            self.times.append(now)
            due = max(due + LOOK, now)


def workers(kind: str, pid: int) -> list[tuple[int, int]]:
    """(pid, start time) of the workers of a main process: its children, or for an executor the children of its forker."""
    found = _children(pid)
    if kind == "executor":
        found = [child for forker in found for child in _children(forker)]
    stats = ((child, read_stat(PROC, child)) for child in found)
    return [(child, stat.start_ticks) for child, stat in stats if stat is not None and stat.state not in "ZX"]


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in (PROC / str(pid) / "task" / str(pid) / "children").read_text().split()]
    except OSError:
        return []


# --- the rules ------------------------------------------------------------------------------------------------------------------


class Knative:
    """Knative's rule on real pools, through the adapters and in its own thread, with the daemon's intervals."""

    def __init__(self, configs: Mapping[str, PoolConfig], folder: Path) -> None:
        self._clock = SystemClock()
        self._pools = build(Config(pools=dict(configs)), self._clock, state_dir=folder)
        self._rules = {name: Kpa(MINIMUM, MAXIMUM) for name in configs}
        self.resizes: dict[str, list[float]] = {name: [] for name in configs}
        self.troubles: set[str] = set()
        self.seen: dict[str, list[tuple[float, float, float, int, int]]] = {name: [] for name in configs}
        """(seconds, busy, queued, ready, size asked for) at each look."""
        self._begin = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="knative")

    def __enter__(self) -> Knative:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for pool in self._pools.values():
            pool.close()

    def _run(self) -> None:
        step = Config().daemon.probe_interval
        due, turn = time.monotonic(), 0
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            for pool in self._pools.values():
                pool.probe()
            turn += 1
            if turn % round(Kpa.period / step) == 0:
                for pool in self._pools.values():
                    self._decide(pool)
            due = max(due + step, time.monotonic())

    def _decide(self, pool: PoolAdapter) -> None:
        sample, now = pool.read(), time.monotonic()
        if sample.trouble:
            self.troubles.add(f"{pool.name}: {sample.trouble}")
            return
        seen = as_seen(sample, now - self._begin)
        wanted = min(max(self._rules[pool.name].size(seen), MINIMUM), MAXIMUM)
        self.seen[pool.name].append((now, seen.busy_mean, seen.queued_mean, seen.ready, wanted))
        if wanted != sample.requested and pool.resize(wanted)[0] is Status.APPLIED:
            self.resizes[pool.name].append(now)


def as_seen(sample: PoolSample, at: float) -> PoolSeen:
    """An adapter's sample in the form that the simulator gives to a rule; the load is counted as the daemon counts it."""
    offered = offered_load(sample)
    queued, busy = sample.queued or 0.0, 0.0 if offered is None else offered.busy
    ready = min(sum(worker.ready for worker in sample.workers), sample.requested)
    return PoolSeen(
        at=at,
        size=sample.requested,
        ready=ready,
        idle=max(ready - round(busy), 0),
        busy=round(busy),
        queued=round(queued),
        arrived=0,
        busy_mean=busy,
        queued_mean=queued,
        service_seconds=None,
        start_seconds=sample.start_seconds,
        workers=(),
    )


def daemon_config(configs: Mapping[str, PoolConfig]) -> str:
    """A configuration in which the daemon sizes these pools and does nothing else."""
    lines = ["[store]", "traces = false"]
    for policy in ("priority", "placement", "quarantine"):
        lines += [f"[{policy}]", "enabled = false"]
    for name, config in configs.items():
        given = {
            key: value
            for key, value in msgspec.structs.asdict(config).items()
            if value != getattr(PoolConfig(kind=config.kind), key)
        }
        given |= {"kind": config.kind, "minimum": MINIMUM, "maximum": MAXIMUM}
        lines += [f"[pools.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in given.items())]
    return "\n".join(lines) + "\n"


# --- the pools ------------------------------------------------------------------------------------------------------------------

WSGI = f"""
import time
time.sleep({START})

def application(environ, start_response):
    time.sleep(float(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""

# Celery gives up on a process that is not up after 4 s, unless an option lets it wait longer.
TASKS = f"""
import os, time
from celery import Celery
from celery.signals import worker_process_init
from redis import Redis

app = Celery("tasks", broker=os.environ["BROKER"])
app.conf.task_ignore_result = True
app.conf.worker_proc_alive_timeout = 60
store = Redis.from_url(os.environ["BROKER"])

@worker_process_init.connect
def start(**_):
    time.sleep({START})

@app.task
def work(number, seconds):
    store.rpush("began", number)
    time.sleep(seconds)
    store.rpush("ended", f"{{number}} {{time.monotonic():.6f}}")
"""


@dataclass(frozen=True, slots=True)
class Rig:
    """One pool under one rule."""

    pool: str
    load: str
    rule: str
    initial: int
    config: PoolConfig
    pid: int  # of its main process

    @property
    def name(self) -> str:
        """A name that no other pool has."""
        return f"{self.pool}-{self.load}-{self.rule}"


@dataclass(frozen=True, slots=True)
class Client:
    """The process that sends the load, and the pools that it sends to."""

    process: subprocess.Popen[str]
    out: Path
    rigs: Sequence[Rig]


def rules(pool: str, shape: Shape) -> dict[str, int]:
    """Conditions by name, with their initial size."""
    # an Executor begins with its maximum; nicety does not resize it for a minute after the program has
    found = dict.fromkeys(("nicety", "kpa"), MAXIMUM if pool == "executor" else first_size(MINIMUM, MAXIMUM))
    found |= {f"fixed-{size}": size for size in shape.fixed()}
    if pool == "celery":
        found["own"] = MINIMUM
    return found


@contextlib.contextmanager
def client(kind: str, planned: Path, out: Path, targets: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """`load.py` in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("load.py")), kind, str(planned), str(out), *targets]
    with out.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def stage(stack: contextlib.ExitStack, pool: str, load: str, planned: Path, folder: Path, broker: str) -> list[Client]:
    """Start all conditions of a pool and load, and the clients that send to them."""
    found: list[Client] = []
    wanted = rules(pool, LOADS[load])
    if pool == "executor":
        for rule, initial in wanted.items():
            name = f"bench-{load}-{rule}"
            target = f"{name}:{initial}:{START}"
            out = folder / f"{pool}-{load}-{rule}.npy"
            process = stack.enter_context(client(pool, planned, out, [target]))
            config = PoolConfig(kind="executor", executor=name)
            found.append(Client(process, out, [Rig(pool, load, rule, initial, config, process.pid)]))
        return found
    targets, made = [], []
    for number, (rule, initial) in enumerate(wanted.items()):
        place = folder / f"{pool}-{load}-{rule}"
        place.mkdir()
        if pool == "gunicorn":
            (place / "app.py").write_text(WSGI)
            port = rigs.free_port()
            targets.append(str(port))
            started = stack.enter_context(rigs.gunicorn(place, port, initial))
        else:
            (place / "tasks.py").write_text(TASKS)
            targets.append(f"{broker}/{number}")
            size = [f"--autoscale={MAXIMUM},{MINIMUM}"] if rule == "own" else ["-c", str(initial)]
            started = stack.enter_context(rigs.celery(place, f"{load}-{rule}", targets[-1], size))
        made.append(Rig(pool, load, rule, initial, *started))
    out = folder / f"{pool}-{load}.npy"
    process = stack.enter_context(client("web" if pool == "gunicorn" else pool, planned, out, targets))
    return [Client(process, out, made)]


# --- a run ----------------------------------------------------------------------------------------------------------------------


def run(pools: Sequence[str], load: str, periods: int, folder: Path) -> tuple[list[Figures], dict[str, Any]]:
    """All conditions of these pools at the same time."""
    planned = folder / f"{load}.npy"
    requests = schedule(LOADS[load], KNOWN + periods, 1)
    np.save(planned, requests)
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(rigs.redis(folder)) if "celery" in pools else ""
        clients = [each for pool in pools for each in stage(stack, pool, load, planned, folder, broker)]
        everybody = [rig for each in clients for rig in each.rigs]
        for each in clients:
            assert each.process.stdout is not None
            if each.process.stdout.readline() != "ready\n":
                raise RuntimeError(f"a client has ended: see {each.out.with_suffix('.log')}")
        _await("workers", lambda: [rig.name for rig in everybody if len(workers(rig.pool, rig.pid)) < rig.initial])
        time.sleep(START + 1)  # the last of them are up
        knative = stack.enter_context(Knative({rig.name: rig.config for rig in everybody if rig.rule == "kpa"}, folder))
        config, state = folder / "nicety.toml", folder / "state"
        config.write_text(daemon_config({rig.name: rig.config for rig in everybody if rig.rule == "nicety"}))
        command = [sys.executable, "-m", "nicety.scheduler", "run", "--act", "--config", str(config), "--state-dir", str(state)]
        stack.enter_context(rigs.program(command, folder / "daemon.log"))
        _await("sockets", lambda: [] if (state / "control.sock").exists() else ["the daemon's"])
        watch = stack.enter_context(Watch({rig.name: (rig.pool, rig.pid) for rig in everybody}))
        begin, wall = time.monotonic() + AHEAD, time.time() + AHEAD
        pressure = _pressure()
        for each in clients:
            assert each.process.stdin is not None
            each.process.stdin.write(f"{begin}\n")
            each.process.stdin.flush()
        while any(each.process.poll() is None for each in clients):
            time.sleep(0.5)
            if missing := [rig.name for rig in everybody if rig.pool != "executor" and _ended(rig.pid)]:
                raise RuntimeError(f"{', '.join(missing)} ended during the run: see the logs in {folder}")
        pressure = (_pressure() - pressure) / (time.monotonic() - begin)
        seen = {name: [(at - begin, *rest) for at, *rest in looks] for name, looks in knative.seen.items()}
        resizes = {name: [at - begin for at in asked] for name, asked in knative.resizes.items()}
        for name, asked in _asked(state / "decisions.db").items():
            resizes[name] = [at / 1e9 - wall for at in asked]
        seen |= _seen(state / "decisions.db", wall)
    found: list[Figures] = []
    late = []
    for each in clients:
        if not each.out.exists():
            raise RuntimeError(f"a client has failed: see {each.out.with_suffix('.log')}")
        result = np.load(each.out)
        late.append(float(np.quantile(result[1], 0.99)))
        for place, rig in enumerate(each.rigs):
            found += _figures(rig, requests, result[:, place], watch, begin, resizes.get(rig.name), periods)
    tracks = {
        name: [int(np.interp(at + begin, watch.times, counts)) for at in range((KNOWN + periods) * PERIOD)]
        for name, counts in watch.counts.items()
    }
    more = {
        "sent_late_p99": max(late),
        "cpu_pressure": pressure,
        "troubles": sorted(knative.troubles),
        "workers": tracks,
        "seen": seen,
    }
    return found, more


def _ended(pid: int) -> bool:
    found = read_stat(PROC, pid)
    return found is None or found.state in "ZX"


def _await(what: str, missing: Callable[[], list[str]]) -> None:
    until = time.monotonic() + UP
    while short := missing():
        if time.monotonic() > until:
            raise TimeoutError(f"{what} are missing after {UP:g} s: {', '.join(short)}")
        time.sleep(0.1)


def _asked(path: Path) -> dict[str, list[int]]:
    """When the daemon resized each pool, ns since 1970."""
    found: dict[str, list[int]] = {}
    with DecisionReader(path) as reader:
        for logged in reader.find(kind="pool_size", limit=1_000_000):
            if isinstance(logged.decision.action, ResizePool) and logged.status == Status.APPLIED:
                found.setdefault(logged.decision.action.pool, []).append(logged.wall)
    return found


def _seen(path: Path, wall: float) -> dict[str, list[tuple[Any, ...]]]:
    """What the daemon saw of each pool: (seconds, busy, queued, ready, size asked for, seasonal pattern trusted, trouble) at each
    tick."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    with DecisionReader(path) as reader:
        for logged in reader.ticks():
            for pool in () if logged.tick is None else logged.tick.pools:
                ready = sum(worker.ready for worker in pool.workers)
                trusted = pool.predicted is not None and pool.predicted.trusted
                row = (logged.tick.wall / 1e9 - wall, pool.busy, pool.queued, ready, pool.requested, trusted, pool.trouble)
                found.setdefault(pool.name, []).append(row)
    return found


def _pressure() -> float:
    """Seconds so far in which some task waited for a CPU (/proc/pressure/cpu)."""
    try:
        return int((PROC / "pressure" / "cpu").read_text().split("total=")[1].split()[0]) / 1e6
    except OSError:
        return float("nan")


def _figures(
    rig: Rig, requests: Floats, result: Floats, watch: Watch, begin: float, resizes: Sequence[float] | None, periods: int
) -> Iterator[Figures]:
    planned, (latency, _, began) = requests[0], result
    times, counts = np.array(watch.times) - begin, np.array(watch.counts[rig.name], dtype=np.float64)
    for span, since, until in (("known", KNOWN * PERIOD, (KNOWN + periods) * PERIOD), ("first", 0, KNOWN * PERIOD)):
        chosen = latency[(planned >= since) & (planned < until)]
        done = chosen[np.isfinite(chosen)]
        p50, p95, p99 = np.quantile(done, (0.5, 0.95, 0.99)).tolist()
        spent = integral(times, counts, since, until)
        yield Figures(
            pool=rig.pool,
            load=rig.load,
            rule=rig.rule,
            span=span,
            requests=len(chosen),
            p50=p50,
            p95=p95,
            p99=p99,
            workers=spent / (until - since),
            worker_seconds=spent,
            spawns=sum(since <= at - begin < until for at in watch.came[rig.name].values()),
            resizes=None if resizes is None else sum(since <= at < until for at in resizes),
            failed=int(np.isnan(latency).sum()),
            lost=int(np.isinf(latency).sum()),
            twice=None if np.isnan(began).all() else int((began > 1).sum()),
            simulated=simulated(rig.rule, rig.load, requests, rig.initial, periods) if span == "known" else None,
        )


# --- the report -----------------------------------------------------------------------------------------------------------------


def judge(claims: Claims, found: Sequence[Figures]) -> None:
    """Add the claims: nicety beside Knative's rule, and nothing lost under any rule."""
    at = {(one.pool, one.load, one.rule): one for one in found if one.span == "known"}
    for pool, load in dict.fromkeys((pool, load) for pool, load, _ in at):
        ours, theirs = at[pool, load, "nicety"], at[pool, load, "kpa"]
        claims.at_most(f"{pool}, {load}: p95 beside kpa's", ours.p95 / theirs.p95, 1.0)
        claims.at_most(f"{pool}, {load}: worker-seconds beside kpa's", ours.worker_seconds / theirs.worker_seconds, 1.0)
        everybody = [one for key, one in at.items() if key[:2] == (pool, load)]
        claims.at_most(f"{pool}, {load}: failed", sum(one.failed for one in everybody), 0)
        claims.at_most(f"{pool}, {load}: lost", sum(one.lost for one in everybody), 0)
        if pool == "celery":
            claims.at_most(f"{pool}, {load}: begun twice", sum(one.twice or 0 for one in everybody), 0)


def table(found: Sequence[Figures]) -> str:
    """Markdown: a row for each pool, load and rule. The last columns are the simulator's figures and those of the first periods."""
    first = {(one.pool, one.load, one.rule): one for one in found if one.span == "first"}
    names = ["pool", "load", "rule", "p50", "p95", "p99", "worker-seconds", "workers", "resizes", "started"]
    names += ["simulated p95, workers", "first periods p95, workers"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for one in found:
        if one.simulated is not None:
            before = first[one.pool, one.load, one.rule]
            cells = [one.pool, one.load, one.rule, *(f"{value:.3g}" for value in (one.p50, one.p95, one.p99))]
            cells += [f"{one.worker_seconds:.0f}", f"{one.workers:.1f}", "" if one.resizes is None else str(one.resizes)]
            pairs = (one.simulated, (before.p95, before.workers))
            cells += [str(one.spawns), *(f"{p95:.3g}, {workers:.1f}" for p95, workers in pairs)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the pools and loads asked for and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="pools and loads, separated by commas")
    parser.add_argument("--periods", type=int, default=PERIODS, help="periods that count")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    named = set(given.only.split(",")) if given.only else set()
    if not named <= {*POOLS, *LOADS}:
        parser.error(f"--only takes {', '.join((*POOLS, *LOADS))}")
    pools = [pool for pool in POOLS if pool in named] or list(POOLS)
    loads = [load for load in LOADS if load in named] or list(LOADS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything that was started is ended
    found, more = list[Figures](), {}
    for load in loads:
        began = time.monotonic()
        place = Path(tempfile.mkdtemp(prefix="nicety-pools-"))  # stays, with its logs, when a run fails
        figures, told = run(pools, load, given.periods, place)
        shutil.rmtree(place)
        found, more[load] = found + figures, told
        print(f"{load} on {', '.join(pools)}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        if told["sent_late_p99"] > LATE:
            print(
                f"the machine was busy with other things: somebody waited for a CPU {told['cpu_pressure']:.0%} of the time, "
                f"and one in a hundred requests was sent {told['sent_late_p99']:.2g} s late; run it again on a quiet one",
                file=sys.stderr,
                flush=True,
            )
    claims = Claims()
    judge(claims, found)
    print(table(found))
    if given.table is not None:
        given.table.write_text(table(found))
    claims.close(given.json, rows=[asdict(one) for one in found], runs=more)
    return 0 if all(row["holds"] for row in claims.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
