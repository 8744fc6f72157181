"""Commands that try nicety out or export its data: simulate, export, demo."""

from __future__ import annotations

import functools
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import names
from .shared import (
    FINDINGS,
    ConfigOption,
    Progress,
    StateOption,
    command,
    duration,
    duration_or_none,
    escaped,
    load_files,
    own_stores,
    print_json,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..config.paths import Paths
    from ..simulation.arrivals import Load, Recorded, Trace
    from ..simulation.run import AsItWas, Figures
    from ..store.files import NamedFile


class LoadShape(StrEnum):
    """What `simulate --load` takes: the shapes of `simulation.arrivals`."""

    STEPS = "steps"
    SPIKES = "spikes"
    DIURNAL = "diurnal"
    NOISE = "noise"
    CHANGE = "change"


@command("simulate", "nicety simulate --pool web")
def simulate(
    context: typer.Context,
    trace: Annotated[
        Path | None,
        typer.Argument(
            metavar="TRACE",
            help="CSV or Parquet file of arrivals with a column t_submit or count; or a state directory or trace file of nicety.",
            show_default=False,
        ),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Pool in TRACE; without TRACE, in nicety's own traces.",
            show_default=False,
            autocompletion=names.pools,
        ),
    ] = None,
    load: Annotated[LoadShape | None, typer.Option(help="Synthetic load instead of a file (default: steps).")] = None,
    start: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Time from a worker's start to its first request.", show_default="4, or as recorded"),
    ] = None,
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--rule", metavar="NAME", help='Rule to run; may be given more than once; "all" runs every rule.', show_default=False
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs with different random seeds; figures are their means.")] = 3,
    minimum: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Least number of workers.", show_default="2, or the recorded pool's")
    ] = None,
    maximum: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Greatest number of workers.", show_default="32, or the recorded pool's")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(parser=duration, metavar="TIME", help="Time to simulate, e.g. 4h.", show_default="1h")
    ] = None,
    warmup: Annotated[
        float | None,
        typer.Option(
            parser=duration_or_none,
            metavar="TIME",
            help="Time at the start that does not count, e.g. 3h to see what is learned.",
            show_default="120s, or a quarter of a short recording",
        ),
    ] = None,
    service: Annotated[float, typer.Option(metavar="SECONDS", help="Mean time that a request takes to serve.")] = 0.2,
    json_path: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="FILE", help='Write all figures to this file; "-" is stdout, without the table.', show_default=False
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw size against load as a PNG; needs nicety[report].", show_default=False)
    ] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Compare the pool size policy with rules of other schedulers.

    Each of them sizes a simulated pool: the policy of the daemon with your configuration, the rules of ten other schedulers, and
    oracles that know the coming load. Shows latency, workers used and workers started; docs/simulation.md explains the table.
    """
    seconds = 3600.0 if seconds is None else seconds
    _check_ranges(
        ("--start", start, 0.0, 600.0),
        ("--seconds", seconds, 60.0, 604_800.0),
        ("--warmup", warmup, 0.0, seconds - 30.0),
        ("--service", service, 1e-4, 600.0),
    )
    _check_names(trace, pool, load, rules or ())
    _check_folders(("--json", json_path), ("--plot", plot))
    from ..interpreter import load_numpy

    load_numpy()
    from ..simulation import run as simulation

    loaded, paths = load_files(context, config, state_dir)
    named = {name: Path(file) for name, file in (("--json", json_path), ("--plot", plot)) if file is not None and file != "-"}
    reads_stores = trace is None and pool is not None
    files = dict(zip(named, own_stores(paths, *named.values()) if reads_stores else named.values(), strict=True))
    recorded = _recorded(trace, pool, paths, seconds)
    least, most = simulation.limits(recorded, loaded.config)
    minimum, maximum = minimum or least, maximum or most
    if minimum > maximum:
        raise typer.BadParameter(f"{minimum} is more than --maximum {maximum}", param_hint="--minimum")
    measured = None if recorded is None else recorded.start_seconds
    start = start if start is not None else simulation.START if measured is None else measured
    if warmup is None:
        warmup = simulation.WARMUP if recorded is None else min(simulation.WARMUP, recorded.seconds / 4)
    chosen = _rules(rules or (), None if recorded is None else maximum)
    if plot is not None:
        from ..simulation.plot import figure

        figure()  # fails now, not after minutes, if matplotlib is missing
    source = recorded or _source(trace, load)

    def prepared(seed: int) -> Load:
        made = simulation.prepare(source, seed, seconds=seconds, maximum=maximum, service=service)
        if seed == 1 and made.scaled:
            say(escaped(f"{made.name}: {made.seconds:g} s of it, {made.scaled}"))
            if recorded is not None:
                known = "no start was measured" if measured is None else f"measured {measured:.3g} s"
                say(f"start {start:.3g} s ({known}), {minimum} to {maximum} workers")
        return made

    runs = simulation.run(
        chosen,
        [prepared],
        [start],
        range(1, seeds + 1),
        minimum=minimum,
        maximum=maximum,
        warmup=warmup,
        initial=None if recorded is None else min(max(int(recorded.sizes[0]), minimum), maximum),
        config=loaded.config,
        objective=simulation.objective_of(recorded, loaded.config),
    )
    found = _watched(runs, len(chosen) * seeds)
    itself = None if recorded is None else simulation.as_it_was(recorded, warmup)
    if plot is not None:
        from ..simulation.plot import plot as draw

        draw(files["--plot"], found)
        say(f"{plot}: drawn")
    _print_simulation(found, itself, files.get("--json"), only_json=json_path == "-")


def _check_ranges(*options: tuple[str, float | None, float, float]) -> None:
    """(option, value, least, most) of each."""
    for name, value, low, high in options:
        if value is not None and not low <= value <= high:
            raise typer.BadParameter(f"{value:g} is not between {low:g} and {high:g}", param_hint=name)


def _check_names(trace: Path | None, pool: str | None, load: LoadShape | None, rules: Sequence[str]) -> None:
    if (trace is not None or pool is not None) and load is not None:
        raise typer.BadParameter("give a file or --load, not both", param_hint="TRACE")
    for rule in rules:
        if "," in rule:
            raise typer.BadParameter(f"give one name each: --rule {' --rule '.join(rule.split(','))}", param_hint="--rule")
    if trace is not None and not trace.exists() and str(trace) in tuple(LoadShape):
        raise typer.BadParameter(f"there is no such file; for the synthetic load give --load {trace}", param_hint="TRACE")


def _check_folders(*options: tuple[str, str | Path | None]) -> None:
    """(option, file to write) of each. A missing folder must be found before minutes of work."""
    for name, file in options:
        if file is not None and not Path(file).parent.is_dir():
            raise typer.BadParameter(f"there is no folder {Path(file).parent}", param_hint=name)


def _recorded(trace: Path | None, pool: str | None, paths: Paths, seconds: float) -> Recorded | None:
    """The pool of a recording; None if the arguments ask for a file of arrivals or a synthetic load."""
    if pool is None and (trace is None or not (trace.is_dir() or trace.suffix == ".db")):
        return None
    from ..simulation.recorded import read

    return read(trace or paths.traces, pool, seconds)


def _source(trace: Path | None, load: LoadShape | None) -> Trace | str:
    """The arrivals of a file, or the name of a synthetic load."""
    if trace is None:
        return str(load or LoadShape.STEPS)
    from ..simulation.tracefile import read

    return read(trace)


def _rules(asked: Sequence[str], maximum: int | None) -> list[str]:
    """The rules to run. `maximum`: most workers of a recorded pool; it replaces 32 as the fixed size."""
    from ..simulation import run as simulation

    usual = [f"fixed-{maximum}" if maximum is not None and rule == "fixed-32" else rule for rule in simulation.USUAL]
    chosen = list(dict.fromkeys(asked or usual))
    if "all" in chosen:
        chosen = list(dict.fromkeys((*simulation.ALL, *(rule for rule in chosen if rule != "all"))))
    simulation.check(chosen)
    return chosen


def _watched(runs: Iterable[Figures], count: int) -> list[Figures]:
    """The figures of all runs. On a terminal, a line shows the progress."""
    found: list[Figures] = []
    live = sys.stderr.isatty()

    def progress(done: str) -> None:
        if live:
            print(f"\r{len(found)} of {count}{done}\x1b[K", end="", file=sys.stderr, flush=True)

    progress("")
    for figures in runs:
        found.append(figures)
        progress(f": {figures.rule}")
    if live:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return found


def _print_simulation(
    found: Sequence[Figures], itself: AsItWas | None, json_file: Path | NamedFile | None, *, only_json: bool
) -> None:
    """Print a table, and write JSON to a file if one is named; or print only JSON. `itself`: the recorded pool as it was."""
    from ..explain.layout import columns, table
    from ..simulation import run as simulation

    summary = simulation.means(found)
    record = simulation.Simulated(means=summary, runs=[figures.as_record() for figures in found], recorded=itself)
    if only_json:
        print_json(record)
        return
    if json_file is not None:
        from ..explain.logstream import ascii_json
        from ..printed import plain
        from ..store.files import replacing

        with replacing(json_file) as file:
            file.write(f"{ascii_json(plain(record))}\n".encode())
    lines = [mean.cells() for mean in summary] + ([] if itself is None else [itself.cells()])
    print(*table(simulation.HEADERS, lines, columns()), sep="\n")


class Exportable(StrEnum):
    """What can be exported."""

    TRACES = "traces"
    DECISIONS = "decisions"


class Format(StrEnum):
    """File formats of an export."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


_ENDINGS = {f".{form}": form for form in Format}

MUCH = 2_000_000
"""Process-samples above which an export is Parquet unless something else was asked for (chosen): as csv they take 500 MB."""


@command("export", "nicety export traces --format parquet -o traces.parquet --since 1d")
def export(
    context: typer.Context,
    what: Annotated[Exportable, typer.Argument(metavar="WHAT", help="Samples of all processes; or decisions and refusals.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="File to write. It appears only when it is complete.")],
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="parquet needs the extra nicety[parquet]. Default: what FILE ends in, else parquet for much and csv for little.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[float | None, typer.Option(parser=duration, metavar="TIME", help="How far to look back, e.g. 1d.")] = None,
    until: Annotated[float | None, typer.Option(parser=duration, metavar="TIME", help="How long ago to stop, e.g. 10m.")] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Write traces or decisions to a file for other programs.

    Exit 3 if a part was damaged and is missing from the file.
    """
    from ..store.export import export as export_traces
    from ..store.export import export_decisions

    _, paths = load_files(context, config, state_dir)
    (place,) = own_stores(paths, out)
    now = time.time_ns()
    begin, end = (None if given is None else now - round(given * 1e9) for given in (since, until))
    if what is Exportable.DECISIONS:
        form = form or _ENDINGS.get(out.suffix, Format.CSV)
        if form is Format.PARQUET:
            raise typer.BadParameter("decisions are exported as csv or jsonl", param_hint="--format")
        done = export_decisions(paths.decisions, place, "csv" if form is Format.CSV else "jsonl", since=begin, until=end)
    else:
        form = form or _format_for(out, paths, begin, end)
        with Progress("ticks") as progress:
            done = export_traces(paths.stores, place, form.value, since=begin, until=end, progress=progress)
    say(f"{out}: {done.rows} rows" + (f" of {done.ticks} ticks, {form}" if done.ticks else ""))
    for loss in done.lost:
        say(escaped(f"nicety: not exported: {loss}"))
    if done.lost:
        raise typer.Exit(FINDINGS)


def _format_for(out: Path, paths: Paths, since: int | None, until: int | None) -> Format:
    """The format of samples where none was named."""
    from importlib.util import find_spec

    from ..store.traces import count_rows

    if out.suffix in _ENDINGS:
        return _ENDINGS[out.suffix]
    much = count_rows(paths.stores, since=since, until=until) > MUCH
    return Format.PARQUET if much and find_spec("pyarrow") is not None else Format.CSV


@command("demo", "nicety demo")
def demo(
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Where to leave logs, traces and models.", show_default=False)
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures to this file.", show_default=False)
    ] = None,
) -> None:
    """Watch nicety at work on a bundled workload.

    Runs a web service, batch hogs and a spool with faulty workers, first without nicety and then with it. Takes a few minutes.
    Everything is put back afterwards.
    """
    import tempfile

    from ..demo.run import main as show

    if directory is None:
        directory = Path(tempfile.mkdtemp(prefix="nicety-demo-"))
    raise typer.Exit(show(directory, json_path, functools.partial(print, flush=True)))
