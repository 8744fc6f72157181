"""`nicety demo`: runs the bundled workload without nicety and with it, and reports what changed. All figures come from this run.

It starts the workload and then runs the commands that a person would type: `nicety run`, `nicety train`, `nicety run --act`.
"""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..config.paths import Paths
from ..decision import Flag, ResizePool
from ..explain.decision_page import page
from ..explain.layout import indented, page_columns, table
from ..hands.faults import Status
from ..interpreter import PYTHON
from ..store.decisions import DecisionReader
from ..store.files import replacing
from .picture import bars, each_second, over_time, shortened, shows_blocks
from .workload import HOGS, SERVICE_WORKERS, DemoError, Feeder, Values, Workload, running

SPANS = {"observe": 80.0, "act": 60.0}
"""Seconds of the two runs. The models learn from the first one and are judged by its last quarter; both parts must contain a step
of the load. Chosen: as short as that allows."""

FAULTS = {"leak": 12.0, "stuck": 16.0}
"""Fault -> seconds into the second run at which a spool worker gets it. Chosen: after the pools have settled."""

COMPARED = min(SPANS.values())
"""Seconds of both runs whose figures are compared: both have the same load in them."""

TICK = 0.4
"""Seconds of a tick. Chosen: a short demo needs more ticks than the default of one a second gives."""


CONFIG = """\
# Written by `nicety demo`.
[daemon]
interval = {tick}
probe_interval = 0.05

[pools.web]          # the service: started by the demo, sized by nicety
kind = "gunicorn"
pidfile = "{pidfile}"
minimum = 2
maximum = 8
class = "interactive"

[pools.spool]        # processes files: started and sized by nicety
kind = "command"
command = [{python}, "{worker}", "{spool}"]
initial = 3
minimum = 3
maximum = 6
drain_timeout = 5
[pools.spool.queue]
files = "{spool}/new/*"
every = {tick}

[models]
behaviour = false    # the classes are given below, so that the demo leaves all other programs of this machine alone

[groups.batch]       # the hogs
program = "python* -m nicety.scheduler.demo.hog"
class = "batch"
"""


OPENING = """\
This is what you are about to see, in about four minutes:
  1. A web service ({workers} gunicorn workers), {hogs} CPU hogs and a pool that processes
     files share this machine for {observe:.0f} s. nicety only watches.
  2. It trains its models on what it has seen.
  3. The same load once more, for {act:.0f} s, and nicety acts: it sizes both pools and
     demotes the hogs for the service. We break two workers; it should see both.
  4. It stops. We check that all settings are as before, and draw what happened.
Everything is kept in {directory}"""
"""What the demo says first. Ten lines at most."""

PLOT_LINES = 3
"""Lines of a picture over time (chosen: all of them then fit a screen of 80 by 24)."""

LABEL = 11
"""Columns before a picture over time: its longest label, and the figure at its top."""


@dataclass(frozen=True, slots=True)
class Half:
    """Figures of one of the two runs. Pool sizes and flags come from nicety's log, everything else is measured independently."""

    requests: int
    lost: int
    p50: float  # ms
    p99: float  # ms
    batch: float  # rounds of batch work a second
    web_size: float  # mean workers
    web_sizes: tuple[int, ...]  # each size it had, in order
    spool_size: float
    files: int
    unfinished: int
    late_p50: float  # seconds from a file's arrival until it was done
    late_p95: float
    broken: Mapping[str, tuple[int, float]]  # fault -> pid of the worker that went wrong, wall time when
    flagged: tuple[tuple[int, str, float, str], ...]  # pid, kind, wall time, decision id
    resizes: int
    slowest: tuple[float, ...]  # the slowest answer of each second, ms; NaN: none was asked for
    web_load: tuple[float, ...]  # load of the service of each second, Erlangs
    web_workers: tuple[float, ...]  # its workers, mean of each second


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of the demo and whether it holds."""

    claim: str
    value: float | str
    bound: str
    holds: bool


def main(directory: Path, json_path: Path | None, say: Callable[[str], None]) -> int:
    """Run the demo in `directory`, which must be empty or new. `say` prints a line.

    Returns 1 if a kernel setting was not restored, else 0. Raises DemoError if the demo could not run.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise DemoError(f"{directory} is not empty; give another with --dir, or remove it")
    say(OPENING.format(workers=SERVICE_WORKERS, hogs=HOGS, directory=directory, **SPANS))
    with running(directory) as workload:
        return _demo(workload, directory, json_path, say)


def _demo(workload: Workload, directory: Path, json_path: Path | None, say: Callable[[str], None]) -> int:
    config, state = directory / "nicety.toml", directory / "state"
    values = {"tick": TICK, "pidfile": workload.pidfile, "python": ", ".join(map(json.dumps, PYTHON)), "spool": directory / "spool"}
    config.write_text(CONFIG.format(worker=Path(__file__).with_name("worker.py"), **values), encoding="utf-8")
    before = workload.values()

    say(f"\n[1/4] {SPANS['observe']:.0f} s without help: nicety only observes and records")
    without = _half(workload, directory, "observe")
    say("\n[2/4] training a demand model and an anomaly model on the recording")
    trained = _nicety(directory, "train", ["train", "--no-idle"])
    say(_trained((directory / "train.log").read_text()))
    say(f"all figures: {directory / 'train.log'}")
    if trained not in (0, 3):  # 3: a model lost to a baseline and was refused; the baseline forecasts, and the log says so
        raise DemoError(f"training failed with exit code {trained}; see {directory / 'train.log'}")
    say(f"\n[3/4] {SPANS['act']:.0f} s with nicety acting, under the same load; one spool worker will leak, one will get stuck")
    acted = _half(workload, directory, "act")
    say("\n[4/4] nicety has stopped; comparing the kernel's settings with those before")
    after = workload.values()
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))

    claims = _claims(without, acted, changed)
    say("\n" + _table(without, acted))
    say("\n" + _workers(acted))
    for title, id_ in _two_decisions(state):
        say(f"\n--- why {id_} ({title}) ---\n{page(Paths(state, state / 'control.sock'), id_, page_columns())}")
    say("\n" + _put_back(before, after, changed))
    rows = [(c.claim, _shown(c.value), c.bound, _yes(c.holds)) for c in claims]
    say("\n".join(["", *table(("claim", "value", "bound", "holds"), rows, page_columns())]))
    say(f"\nlog of the acting daemon: {directory / 'act.log'}; ask it yourself:")
    for command in ("decisions", "why web", "replay", "export traces -o traces.csv"):
        say(f"  nicety --config {config} --state-dir {state} {command}")
    say("\n" + "\n".join(pictures(without, acted, page_columns(), shows_blocks(sys.stdout.encoding))))
    if json_path is not None:
        report = {"claims": [asdict(claim) for claim in claims], "without": asdict(without), "with": asdict(acted)}
        with replacing(json_path) as file:
            file.write(f"{json.dumps(report, indent=1)}\n".encode())
    return 1 if changed else 0


# --- running ------------------------------------------------------------------------------------------------------------------


def _command(directory: Path, arguments: list[str]) -> list[str]:
    common = ["--config", str(directory / "nicety.toml"), "--state-dir", str(directory / "state")]
    return [*PYTHON, "-m", "nicety.scheduler", *arguments, *common]


def _nicety(directory: Path, name: str, arguments: list[str]) -> int:
    """Run a command of nicety to its end; its output goes to NAME.log. Returns the exit code."""
    with (directory / f"{name}.log").open("w") as out:
        return subprocess.run(_command(directory, arguments), stdout=out, stderr=out, check=False).returncode


def _half(workload: Workload, directory: Path, mode: str) -> Half:
    """Run the daemon in this mode while the workload is under load; the figures."""
    feeder, span = Feeder(directory / "spool"), SPANS[mode]
    with (directory / f"{mode}.log").open("w") as out:
        daemon = subprocess.Popen(_command(directory, ["run", f"--{mode}"]), stdout=out, stderr=out)
    loading: subprocess.Popen[bytes] | None = None
    broken: dict[str, tuple[int, float]] = {}
    try:
        time.sleep(3)  # for the spool pool to come up: what both halves start with must be the same
        feeder.start()
        results = directory / f"load-{mode}.txt"
        loading = subprocess.Popen([*PYTHON, "-m", "nicety.scheduler.demo.load", str(workload.port), str(span), str(results)])
        rounds, start, compared = workload.rounds(), time.monotonic(), (0, 0.0)
        wall = time.time_ns()
        while (at := time.monotonic() - start) < span:
            time.sleep(0.1)
            if daemon.poll() is not None:
                raise DemoError(f"the daemon ended with exit code {daemon.returncode}; see {directory / f'{mode}.log'}")
            if mode == "act":
                _break(feeder, at, broken)
            if at < COMPARED:
                compared = (workload.rounds() - rounds, time.monotonic() - start)
        loading.wait(60)
    finally:
        daemon.send_signal(signal.SIGTERM)
        ended = _wait(daemon, 60)
        if loading is not None and loading.poll() is None:
            loading.kill()
            loading.wait()
        if feeder.is_alive():
            feeder.end()
    if ended != 0:
        raise DemoError(f"the daemon ended with exit code {ended}; see {directory / f'{mode}.log'}")
    requests = np.loadtxt(results, ndmin=2)
    latencies = requests[requests[:, 0] < COMPARED, 1] * 1000
    late = [seconds for made, seconds in feeder.finished if made - start < COMPARED]
    seen, flagged, resizes = _logged(directory / "state", wall)
    sizes = {name: [size for _, size, _ in ticks] for name, ticks in seen.items()}
    seconds = round(COMPARED)
    return Half(
        requests=len(latencies),
        lost=int(np.isinf(latencies).sum()),
        p50=float(np.quantile(latencies, 0.5, method="higher")),
        p99=float(np.quantile(latencies, 0.99, method="higher")),
        batch=compared[0] / compared[1],
        web_size=_mean(sizes["web"]),
        web_sizes=_steps(sizes["web"]),
        spool_size=_mean(sizes["spool"]),
        files=len(late),
        unfinished=feeder.unfinished(),
        late_p50=float(np.quantile(late, 0.5)) if late else math.nan,
        late_p95=float(np.quantile(late, 0.95)) if late else math.nan,
        broken=broken,
        flagged=flagged,
        resizes=resizes,
        slowest=tuple(each_second([(at, 1000 * took) for at, took in requests.tolist()], seconds, highest=True)),
        web_load=tuple(each_second([(at, load) for at, _, load in seen["web"]], seconds, highest=False)),
        web_workers=tuple(each_second([(at, size) for at, size, _ in seen["web"]], seconds, highest=False)),
    )


def _break(feeder: Feeder, at: float, broken: dict[str, tuple[int, float]]) -> None:
    """Make a worker faulty when a fault of `FAULTS` is due, and note in `broken` which worker it was and when."""
    for fault, when in FAULTS.items():
        pid = feeder.broken(fault)
        if fault in broken:
            continue
        if pid is not None:
            broken[fault] = (pid, time.time())
        elif at >= when:
            feeder.break_a_worker(fault)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


Seen = Mapping[str, list[tuple[float, int, float]]]
"""Of each pool and tick: seconds since the start, workers, load in Erlangs (NaN: unknown)."""


def _logged(state: Path, since: int) -> tuple[Seen, tuple[tuple[int, str, float, str], ...], int]:
    """(the compared ticks, flagged workers, resizes that were done), from the decision log since `since`."""
    seen: dict[str, list[tuple[float, int, float]]] = {"web": [], "spool": []}
    with DecisionReader(state / "decisions.db") as log:
        for turn in log.ticks(log.sessions()[-1].id):
            if turn.tick is not None and 0 <= turn.tick.wall - since < COMPARED * 1e9:
                at = (turn.tick.wall - since) / 1e9
                for pool in turn.tick.pools:
                    seen[pool.name].append((at, pool.size, math.nan if pool.load is None else pool.load))
        found = [logged for logged in log.find(since=since, newest_first=False) if logged.refusal is None]
    flagged, resizes = [], 0
    for logged in found:
        action = logged.decision.action
        if isinstance(action, Flag) and not action.over:
            flagged.append((action.worker.pid, action.kind, logged.wall / 1e9, logged.id))
        elif isinstance(action, ResizePool) and action.pool == "web" and logged.status == Status.APPLIED:
            resizes += 1
    return seen, tuple(flagged), resizes


# --- the report ---------------------------------------------------------------------------------------------------------------


def _claims(without: Half, acted: Half, changed: list[str]) -> list[Claim]:
    ratio = acted.p99 / without.p99
    batch = acted.batch / without.batch
    sizes = acted.web_sizes
    grown, shrunk = (any(sign * (b - a) > 0 for a, b in pairwise(sizes)) for sign in (1, -1))
    right = {(acted.broken[fault][0], fault) for fault in acted.broken}
    found = {(pid, kind) for pid, kind, _, _ in acted.flagged}
    healthy = sorted({pid for pid, _, _, _ in acted.flagged} - {pid for pid, _ in right})
    return [
        Claim("p99 of the service with nicety / without", round(ratio, 3), "<= 0.5", ratio <= 0.5),
        Claim("batch throughput with nicety / without", round(batch, 3), ">= 0.9", batch >= 0.9),
        Claim("service pool grown and shrunk", " ".join(map(str, sizes)), "both", grown and shrunk),
        Claim(
            "faulty workers flagged with the right kind",
            f"{len(found & right)} of {len(FAULTS)}",
            "all",
            right <= found and len(right) == len(FAULTS),
        ),
        Claim("healthy workers flagged", len(healthy), "0", not healthy),
        Claim("kernel settings not restored", len(changed), "0", not changed),
        Claim("requests lost with nicety", acted.lost, "0", acted.lost == 0),
    ]


def _trained(log: str) -> str:
    """What became of each model, from what `nicety train` printed: the line that begins with its kind, and the next one."""
    lines, width, said = log.splitlines(), page_columns(), list[str]()
    for at, head in enumerate(lines):
        if re.match(r"\w+ model: ", head):
            said += [*indented([head], width), *(f"  {line}" for line in indented(lines[at + 1 : at + 2], width - 2))]
    return "\n".join(said)


def pictures(without: Half, acted: Half, width: int, blocks: bool = True) -> list[str]:
    """What happened, drawn from the figures of both runs. No line is wider than `width`. `blocks`: whether they can be shown."""
    room = width - LABEL - 1
    lines = ["What happened:"]
    for title, figures, unit in (
        ("p99 of the service, less is better", [half.p99 for half in (without, acted)], "ms"),
        ("batch work that was done, more is better", [half.batch for half in (without, acted)], "rounds/s"),
    ):
        rows = [(name, figure, f"{figure:.0f} {unit}") for name, figure in zip(("  without", "  with"), figures, strict=True)]
        lines += [title, *bars(rows, width, blocks)]
    slow = {name: shortened(half.slowest, room, highest=True) for name, half in (("without", without), ("with", acted))}
    lines += ["", "slowest answer of each second, ms", *_plots(slow, blocks)]
    load, workers = (shortened(figures, room, highest=False) for figures in (acted.web_load, acted.web_workers))
    lines += ["", "load of the service in Erlangs, and its workers, with nicety"]
    lines += [*_plots({"load": load}, blocks), *_plots({"workers": workers}, blocks)]
    return [*lines, f"{'':<{LABEL}} {'0 s':<{len(slow['with']) - 4}}{COMPARED:.0f} s"]


def _plots(series: Mapping[str, Sequence[float]], blocks: bool) -> list[str]:
    """Series below each other, all to the same scale, whose top is before the first line of each."""
    top = max((value for values in series.values() for value in values if not math.isnan(value)), default=0.0)
    lines = []
    for name, values in series.items():
        drawn = over_time(values, PLOT_LINES, top, blocks)
        labels = [f"{top:.3g}" if top < 1000 else f"{top:.0f}", *[""] * (PLOT_LINES - 2), name]
        lines += [f"{label:>{LABEL}} {line}".rstrip() for label, line in zip(labels, drawn, strict=True)]
    return lines


def _table(without: Half, acted: Half) -> str:
    rows = [
        ("service: requests, lost", f"{without.requests}, {without.lost}", f"{acted.requests}, {acted.lost}"),
        ("service: p50, ms", f"{without.p50:.0f}", f"{acted.p50:.0f}"),
        ("service: p99, ms", f"{without.p99:.0f}", f"{acted.p99:.0f}"),
        ("service: mean workers", f"{without.web_size:.1f}", f"{acted.web_size:.1f} ({acted.resizes} resizes)"),
        ("batch: rounds a second", f"{without.batch:.0f}", f"{acted.batch:.0f} ({acted.batch / without.batch:.0%})"),
        ("spool: files done, left", f"{without.files}, {without.unfinished}", f"{acted.files}, {acted.unfinished}"),
        ("spool: lateness p50, s", f"{without.late_p50:.2f}", f"{acted.late_p50:.2f}"),
        ("spool: lateness p95, s", f"{without.late_p95:.2f}", f"{acted.late_p95:.2f}"),
        ("spool: mean workers", f"{without.spool_size:.1f}", f"{acted.spool_size:.1f} (two of them broken)"),
    ]
    return "\n".join(table(("what changed", "without nicety", "with nicety"), rows, page_columns()))


def _workers(acted: Half) -> str:
    """A table of the faulty workers and of all that were flagged."""
    rows = []
    for fault, (pid, at) in acted.broken.items():
        hits = [(kind, wall, id_) for flagged, kind, wall, id_ in acted.flagged if flagged == pid]
        reported = ", ".join(f"{kind} after {wall - at:.0f} s ({id_})" for kind, wall, id_ in hits)
        rows.append((f"pid {pid}", fault, reported or "not flagged"))
    faulty = {pid for pid, _ in acted.broken.values()}
    rows += [(f"pid {pid}", "healthy", f"{kind} ({id_})") for pid, kind, _, id_ in acted.flagged if pid not in faulty]
    return "\n".join(table(("spool worker", "in truth", "flagged as"), rows, page_columns()))


def _two_decisions(state: Path) -> list[tuple[str, str]]:
    """(title, id) of the first demotion and of the largest growth of the service that were carried out."""
    with DecisionReader(state / "decisions.db") as log:
        done = [logged for logged in log.find(newest_first=False) if logged.status == Status.APPLIED]
    chosen = [("keeping the service fast", logged.id) for logged in done if logged.policy == "priority" and logged.action == "set"][
        :1
    ]
    sizes = [(logged.decision.action.size, logged.id) for logged in done if isinstance(logged.decision.action, ResizePool)]
    if sizes:
        chosen.append(("sizing a pool", max(sizes)[1]))
    return chosen


def _put_back(before: Mapping[str, tuple[Values, ...]], after: Mapping[str, tuple[Values, ...]], changed: list[str]) -> str:
    if not changed:
        return f"restored: all {len(before)} processes have the same nice, policy, affinity, autogroup nice and cgroups as before"
    rows = [(name, str(before.get(name, "not there")), str(after.get(name, "not there"))) for name in changed]
    return "\n".join(["NOT restored:", *table(("process", "before", "after"), rows, page_columns())])


def _mean(sizes: list[int]) -> float:
    return sum(sizes) / len(sizes) if sizes else math.nan


def _steps(sizes: list[int]) -> tuple[int, ...]:
    """The sizes, each once as long as it lasts."""
    return tuple(size for size, before in zip(sizes, [None, *sizes], strict=False) if size != before)


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _yes(holds: bool) -> str:
    return "yes" if holds else "NO"
