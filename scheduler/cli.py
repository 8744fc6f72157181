"""The command line. Knows what to call for each command and how to say the result; everything else is elsewhere.

Data goes to stdout, talk to stderr. Exit: 0 ok, 1 failure, 2 usage, 3 findings. Modules are imported where they are used: a reading
command starts in under 0.3 s (benchmarks/startup.py). Errors that a user can do something about become one line with cause and
next step, in one place (`_guarded`); any other error is a bug, and its traceback goes to a file.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec

import typer

if TYPE_CHECKING:
    from .config.paths import Loaded, Paths
    from .config.sections import Config
    from .decision import Outcome
    from .ports import Clock, PoolAdapter

FAILURE, FINDINGS = 1, 3  # and 2 for wrong usage, which typer gives
SHOWN = 20  # differences of a replay in its text
STALE_SECONDS = 120.0  # without a tick, from which on nobody is taken to look
INTERRUPTED = 130  # as a shell reports a program that SIGINT ended

USER_ERRORS = frozenset(
    {
        "models.artifact.ArtifactError",
        "scheduler.config.sections.ConfigError",
        "scheduler.service.control_socket.ControlError",
        "scheduler.demo.workload.DemoError",
        "scheduler.explain.decision_page.ExplainError",
        "scheduler.read.host.MachineError",
        "scheduler.config.paths.PathError",
        "scheduler.scope.ScopeError",
        "scheduler.simulation.arrivals.LoadError",
        "scheduler.store.files.StoreError",
        "scheduler.store.ledger.LedgerError",
    }
)
"""Exceptions whose text is for the user: cause and next step. By name, so that none has to be imported before it is raised."""

P = ParamSpec("P")

app = typer.Typer(
    name="nicety",
    help="Learns how the processes of this machine use it, sizes worker pools ahead of demand, keeps services fast beside batch "
    "work and flags workers that misbehave. Everything is explained (`nicety why`) and can be undone (`nicety undo`).",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@dataclass(frozen=True, slots=True)
class Named:
    """What the options before the command name."""

    config: str | None
    state_dir: str | None


models_app = typer.Typer(help="Say which models there are, and choose which are live.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models_app, name="models")

anomalies_app = typer.Typer(
    help="List incidents of workers, and teach which were none.",
    invoke_without_command=True,
    rich_markup_mode=None,
    epilog="Example: nicety anomalies",
)
app.add_typer(anomalies_app, name="anomalies")

ConfigOption = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="Configuration file; $NICETY_CONFIG.", show_default=False)
]
StateOption = Annotated[
    str | None, typer.Option("--state-dir", metavar="DIR", help="State directory; $NICETY_STATE_DIR.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def main() -> None:
    """Entry point of the `nicety` program."""
    from .read.text import escape_unencodable

    escape_unencodable(sys.stdout, sys.stderr)
    app(prog_name="nicety")


def _load_numpy() -> None:
    """With one thread: those that its matrix library starts otherwise wait for work in a loop, 0.1 s after each tick, and add up in
    another order each time. It looks for the number when it is loaded; pools that the daemon starts must not inherit it."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    import numpy  # noqa: F401

    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


# --- what all commands share --------------------------------------------------------------------------------------------------


def _command(
    name: str, example: str, group: typer.Typer = app, **settings: Any
) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Register a command with an example below its help."""

    def register(function: Callable[P, None]) -> Callable[P, None]:
        guarded = _guarded(function)
        group.command(name, epilog=f"Example: {example}", **settings)(guarded)
        return guarded

    return register


def _guarded(function: Callable[P, None]) -> Callable[P, None]:
    """The one place where errors become words and exit codes."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has seen enough (`nicety decisions | head`). What is still buffered must not raise again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] in ("typer", "click"):
                raise
            _report(error)

    return guarded


def _report(error: Exception) -> NoReturn:
    """Say what went wrong and leave with FAILURE."""
    if os.environ.get("NICETY_DEBUG"):
        raise error
    ours = __name__.removesuffix("scheduler.cli")
    names = {f"{kind.__module__.removeprefix(ours)}.{kind.__qualname__}" for kind in type(error).__mro__}
    if names & USER_ERRORS:
        for line in str(error).splitlines():
            _say(f"nicety: {_printable(line)}")
        raise typer.Exit(FAILURE)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        _say(f"nicety: {_printable(where)}{error.strerror or error}; check the path, its permissions and the disk")
        raise typer.Exit(FAILURE)
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="nicety-error-", suffix=".txt", delete=False, encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    _say(f"nicety: a fault in nicety itself: {type(error).__name__}: {_printable(str(error))}")
    _say(f"nicety: the traceback is in {file.name} (NICETY_DEBUG=1 shows it here); please report it")
    raise typer.Exit(FAILURE)


def _say(text: str) -> None:
    """Talk, as opposed to data."""
    print(text, file=sys.stderr, flush=True)


def _printable(text: str) -> str:
    from .read.text import printable

    return printable(text)


def _print_json(value: object) -> None:
    from .explain.logstream import ascii_json

    print(ascii_json(value))


def _width() -> int | None:
    """Columns to fit tables to; None for files and pipes: whole lines."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _load(context: typer.Context, config: str | None, state_dir: str | None) -> tuple[Loaded, Paths]:
    """The configuration and the files of the state directory."""
    from .config.paths import load_config, state_paths

    named: Named = context.obj
    loaded = load_config(config or named.config, os.environ, os.geteuid())
    paths = state_paths(loaded.config, state_dir or named.state_dir, os.environ, os.geteuid())
    if paths.said and context.command.name != "run":  # which logs it
        _say(f"nicety: {_printable(paths.said)}")
    return loaded, paths


def _seconds(text: str) -> float:
    """ "90", "90s", "10m", "2h" or "1d" in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    value = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]] if match else 0.0
    if not 0 < value < 1e9:
        raise typer.BadParameter(f'"{text}" is not a length of time; write e.g. 90s, 10m, 2h or 1d')
    return value


def _seconds_or_none(text: str) -> float:
    """The same, or "0"."""
    return 0.0 if text.strip() == "0" else _seconds(text)


def _clock() -> Clock:
    from .service.clock import SystemClock

    return SystemClock()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does: by KeyboardInterrupt, so that `finally` cleans up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print(f"nicety {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    context.obj = Named(config, state_dir)


# --- looking at the machine ---------------------------------------------------------------------------------------------------


@_command("doctor", "nicety doctor")
def doctor(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Say what works here, what does not, and the fix. Exit 3 if something is missing."""
    from .explain.decision_page import table
    from .service import doctor as examination

    named: Named = context.obj
    findings = examination.examine(config or named.config, state_dir or named.state_dir, os.environ, os.geteuid())
    if as_json:
        _print_json([examination.as_record(finding) for finding in findings])
    else:
        rows = [(finding.name, "ok" if finding.ok else "not ok", finding.what) for finding in findings]
        print(table(("what", "state", "detail"), rows, _width(), fold=True))
        fixes = list(dict.fromkeys((finding.name, finding.fix) for finding in findings if finding.fix))
        if fixes:
            print("\n" + table(("not ok", "what to do"), fixes, _width(), fold=True))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(FINDINGS)


@_command("record", "nicety record --duration 10m")
def record(
    context: typer.Context,
    interval: Annotated[
        float | None, typer.Option(parser=_seconds, metavar="TIME", help="Time between samples, instead of daemon.interval.")
    ] = None,
    duration: Annotated[float | None, typer.Option(parser=_seconds, metavar="TIME", help="Stop after this time, e.g. 10m.")] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Record traces of all processes, for training. Changes nothing; Ctrl-C ends it."""
    from .service import recording

    loaded, paths = _load(context, config, state_dir)
    every = loaded.config.daemon.interval if interval is None else interval
    unstarted = [name for name, pool in loaded.config.pools.items() if pool.kind == "command"]
    if unstarted:
        _say(f"not started by record, so not recorded as pools: {', '.join(unstarted)} (`nicety run` starts command pools)")
    _say(f"recording every {every:g} s into {paths.traces}" + (f" for {duration:g} s" if duration else "; Ctrl-C ends it"))
    live = sys.stderr.isatty()

    def progress(state: recording.Progress) -> None:
        if live:
            print(f"\r{state.line()}\x1b[K", end="", file=sys.stderr, flush=True)

    try:
        with _ended_by_signals():
            state = recording.record(loaded.config, paths, _clock(), every, duration, progress)
    except recording.Interrupted as ended:
        state = ended.progress
    _say(("\r\x1b[K" if live else "") + f"recorded {state.line()}")
    if state.trouble:
        _say(f"nicety: not all was recorded: {state.trouble}")
        raise typer.Exit(FAILURE)


@_command(
    "train",
    "nicety train --since 7d",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def train(context: typer.Context) -> None:
    """Train models from the traces, and promote the better ones."""
    from .interpreter import PYTHON

    named: Named = context.obj
    arguments = [] if named.config is None else ["--config", named.config]
    arguments += [] if named.state_dir is None else ["--state-dir", named.state_dir]
    arguments += context.args
    # A process of its own: training loads scikit-learn, which nothing else may. One OpenMP thread: with more, a fit on a busy
    # machine took 4-36 s instead of 0.4-2.5.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    sys.stdout.flush()
    command = [*PYTHON, "-m", "nicety.training", "train", *arguments]
    os.execve(command[0], command, environment)  # noqa: S606 - no shell is the point


# --- the daemon ---------------------------------------------------------------------------------------------------------------


Things = Annotated[
    list[str] | None,
    typer.Argument(metavar="THING", help='Policies, pools or groups, e.g. pool_size, web, "program make"; none: all.'),
]
ForOption = Annotated[
    float | None, typer.Option("--for", parser=_seconds, metavar="TIME", help="Observe again after this time, e.g. 1h.")
]


@_command("run", "nicety run --act web --for 1h")
def run(
    context: typer.Context,
    things: Things = None,
    act: Annotated[
        bool | None, typer.Option("--act/--observe", help="Carry decisions out, or only log them.", show_default=False)
    ] = None,
    act_seconds: ForOption = None,
    duration: Annotated[float | None, typer.Option(parser=_seconds, metavar="TIME", help="Stop after this time, e.g. 1h.")] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Run the daemon. Observes unless told to act.

    It records, predicts and decides; it changes something only with --act or daemon.act = true. With THINGs it acts on these alone
    and observes the rest; `nicety act` and `nicety observe` change that while it runs. SIGHUP reads the configuration again,
    SIGTERM and Ctrl-C end it and put everything back.
    """
    if not act and (things or act_seconds is not None):
        raise typer.BadParameter("THINGs and --for say what to act on: give --act as well")
    _load_numpy()
    from . import daemon

    loaded, paths = _load(context, config, state_dir)
    if sys.stderr.isatty():  # else only the daemon's log goes there, a record a line; its first one tells the mode
        _say(_intention(loaded.config.daemon.act if act is None else act, loaded.config.daemon.undo_on_exit))
    raise typer.Exit(daemon.run(loaded, paths, act=act, duration=duration, things=things or (), act_seconds=act_seconds))


def _intention(acting: bool, undo: bool) -> str:
    if not acting:
        return "observing: writes nothing; --act to act"
    return (
        "acting: what is changed is put back at the end" if undo else "acting: what is changed stays so; `nicety undo` puts it back"
    )


@_command("status", "nicety status --json")
def status(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Say what the daemon is doing.

    Without a daemon: exit 1, and what a dead one left changed.
    """
    from .explain.status_page import WIDTH, changes_in_words, status_page
    from .service.control_socket import NoDaemonError, ask

    _, paths = _load(context, config, state_dir)
    try:
        answer = ask(paths.socket, "status", full=as_json)
    except NoDaemonError as error:
        from .explain.in_force import each, sum_up
        from .service.doctor import outstanding

        left = outstanding(paths)
        if as_json:
            _print_json({"running": False, "changes": sum_up(left, {}), "changes_in_force": each(left)})
        else:
            _say(f"nicety: {error}")
            if left:
                print("\n".join(_printable(line) for line in changes_in_words(sum_up(left, {}), _width() or WIDTH)))
                _say("these changes of a dead daemon are still in force; put them back: nicety undo")
        raise typer.Exit(FAILURE) from None
    if as_json:
        _print_json({"running": True, **answer})
    else:
        print(status_page(answer, _width()))


@_command("undo", "nicety undo")
def undo(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Put every changed value back.

    A running daemon does it itself and pauses. Exit 3 if something was left because somebody else has changed it since,
    or not all of it could be put back; 1 if it could not be looked at or written.
    """
    import msgspec

    from .decision import Outcome
    from .service.control_socket import NoDaemonError, ask

    loaded, paths = _load_for_undo(context, config, state_dir)
    try:
        answer = ask(paths.socket, "undo", timeout_seconds=60.0)
        outcomes = msgspec.convert(answer["outcomes"], tuple[Outcome, ...])
        paused = True
    except NoDaemonError:
        from .act.actuate import undo_from_ledger

        clock = _clock()
        outcomes = undo_from_ledger(paths.root, clock, pools=lambda names: _foreign_pools(loaded.config, clock, paths, names))
        paused = False
    if paused:
        _say("the daemon is paused now; `nicety resume` lets it go on")
    _print_undone(outcomes, as_json)


def _print_undone(outcomes: Sequence[Outcome], as_json: bool) -> None:
    """What was put back, and the exit code that says whether all was."""
    import msgspec

    from .decision import Status
    from .explain.decision_page import outcome_table

    if as_json:
        _print_json(msgspec.to_builtins(outcomes))
    elif outcomes:
        print(outcome_table(outcomes, _width()))
    else:
        _say("nothing is changed, so there is nothing to undo")
    bad = {outcome.status for outcome in outcomes}
    if bad & {Status.FAILED, Status.REFUSED, Status.BLOCKED, Status.LATER}:
        raise typer.Exit(FAILURE)
    if bad & {Status.FOREIGN, Status.PARTIAL}:
        raise typer.Exit(FINDINGS)


def _load_for_undo(context: typer.Context, config: str | None, state_dir: str | None) -> tuple[Loaded, Paths]:
    """As `_load`; but where the state directory is named, a broken configuration must not keep anybody from undoing."""
    from .config.paths import Loaded, PathError, state_paths
    from .config.sections import Config, ConfigError

    try:
        return _load(context, config, state_dir)
    except (ConfigError, PathError) as error:
        named = state_dir or context.obj.state_dir or os.environ.get("NICETY_STATE_DIR")
        if not named:
            _say("nicety: the state directory may be named in it; `nicety undo --state-dir DIR` undoes without the configuration")
            raise
        _say(f"nicety: {error}\nnicety: undoing without the configuration: pool sizes are not put back")
        return Loaded(Config(), None), state_paths(Config(), named, os.environ, os.geteuid())


def _foreign_pools(config: Config, clock: Clock, paths: Paths, names: tuple[str, ...]) -> dict[str, PoolAdapter]:
    """Adapters of pools that outlive the daemon. Workers of command pools end with their daemon: there is no size to put back."""
    import msgspec

    from .pools.build import build

    pools = {name: pool for name, pool in config.pools.items() if name in names and pool.kind != "command"}
    return build(msgspec.structs.replace(config, pools=pools), clock, state_dir=paths.root)


@_command("act", "nicety act web --for 1h")
def act(
    context: typer.Context,
    things: Things = None,
    act_seconds: ForOption = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Let the running daemon act on more: policies, pools or groups.

    What it acts on already stays so. After the time it observes these again, and puts back what it changed for them.
    """
    from .service.control_socket import ask

    _, paths = _load(context, config, state_dir)
    answer = ask(paths.socket, "act", timeout_seconds=60.0, things=things or [], seconds=act_seconds)
    _say(_printable(str(answer["scope"])))


@_command("observe", "nicety observe web")
def observe(
    context: typer.Context,
    things: Things = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Let the running daemon only observe policies, pools or groups.

    What it changed for them is put back at once. Exit 3 if something was left because somebody else has changed it since.
    """
    import msgspec

    from .decision import Outcome
    from .service.control_socket import ask

    _, paths = _load(context, config, state_dir)
    answer = ask(paths.socket, "observe", timeout_seconds=60.0, things=things or [])
    if not as_json:
        _say(_printable(str(answer["scope"])))
    _print_undone(msgspec.convert(answer["outcomes"], tuple[Outcome, ...]), as_json)


@_command("pause", "nicety pause --for 10m")
def pause(
    context: typer.Context,
    duration: Annotated[
        float | None, typer.Option("--for", parser=_seconds, metavar="TIME", help="Resume by itself after this time.")
    ] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Let the daemon decide nothing new for a while.

    What it has changed stays so; `nicety undo` puts it back.
    """
    from .service.control_socket import ask

    _, paths = _load(context, config, state_dir)
    ask(paths.socket, "pause", seconds=duration)
    _say("paused" + (f" for {duration:g} s" if duration else "; `nicety resume` ends it"))


@_command("resume", "nicety resume")
def resume(context: typer.Context, config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """End a pause."""
    from .service.control_socket import ask

    _, paths = _load(context, config, state_dir)
    ask(paths.socket, "resume")
    _say("resumed")


@_command("reload", "nicety reload")
def reload(context: typer.Context, config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Let the daemon read its configuration and models again.

    A configuration with errors changes nothing: the old one stays in force, and the errors are shown.
    """
    from .service.control_socket import ask

    _, paths = _load(context, config, state_dir)
    ask(paths.socket, "reload", timeout_seconds=30.0)
    _say("reloaded")


# --- models ------------------------------------------------------------------------------------------------------------------


class ModelKind(StrEnum):
    """What `models promote` and `rollback` take."""

    DEMAND = "demand"
    ANOMALY = "anomaly"
    BEHAVIOUR = "behaviour"


@_command("list", "nicety models list", models_app)
def models_list(
    context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None, state_dir: StateOption = None
) -> None:
    """List the models, which are live, and how each did.

    Exit 3 if a file is damaged or a model does not fit this version: it is named with the reason.
    """
    from .explain import model_page
    from .explain.decision_page import table

    _, paths = _load(context, config, state_dir)
    found, troubles = model_page.look(paths.models)
    if as_json:
        _print_json({"models": [model_page.as_record(each) for each in found], "troubles": troubles})
    elif found:
        print(table(model_page.HEADERS, [model_page.row(each) for each in found], _width()))
    else:
        _say("there are no models; `nicety train` makes some")
    for trouble in troubles:
        _say(_printable(f"nicety: {trouble}"))
    if troubles:
        raise typer.Exit(FINDINGS)


@_command("promote", "nicety models promote demand 3f9a01bc", models_app)
def models_promote(
    context: typer.Context,
    kind: Annotated[ModelKind, typer.Argument(metavar="KIND", help="demand, anomaly or behaviour.", show_default=False)],
    digest: Annotated[str, typer.Argument(metavar="DIGEST", help="The model, or how its digest begins (`nicety models list`).")],
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Make a model live, whatever it was judged to be.

    A running daemon takes it at once. What was live before can be had back: nicety models rollback KIND.
    """
    from ..models.artifact import promote
    from .explain.model_page import choose

    _, paths = _load(context, config, state_dir)
    chosen, own = choose(paths.models, kind, digest)
    promote(paths.models, kind, chosen if own else None)
    _say(f"the {kind} model {chosen[:12]} is live")
    _tell_daemon(paths)


@_command("rollback", "nicety models rollback demand", models_app)
def models_rollback(
    context: typer.Context,
    kind: Annotated[ModelKind, typer.Argument(metavar="KIND", help="demand, anomaly or behaviour.", show_default=False)],
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Make the model live that was live before.

    A running daemon takes it at once. Again, and it is the one before that. Before the first of your own, the one that nicety
    comes with or the baseline speaks.
    """
    from ..models.artifact import rollback

    _, paths = _load(context, config, state_dir)
    before = rollback(paths.models, kind)
    _say(f"the {kind} model {before[:12]} is live again" if before else f"no {kind} model of your own is live any more")
    _tell_daemon(paths)


def _tell_daemon(paths: Paths) -> None:
    """Let a running daemon take the models that are live now."""
    from .service.control_socket import ControlError, NoDaemonError, ask

    try:
        ask(paths.socket, "reload", timeout_seconds=30.0)
    except NoDaemonError:
        _say("no daemon runs here; the next `nicety run` takes the models that are live then")
    except ControlError as error:
        raise ControlError(f"the running daemon has not taken it: {error}; then: nicety reload") from None
    else:
        _say("the running daemon has taken the models that are live now; `nicety status` shows which it uses")


# --- looking back -------------------------------------------------------------------------------------------------------------


class Kind(StrEnum):
    """What `decisions --kind` takes: a policy, or what kind of change it is."""

    POOL_SIZE = "pool_size"
    PRIORITY = "priority"
    PLACEMENT = "placement"
    QUARANTINE = "quarantine"
    SET = "set"
    RESTORE = "restore"
    RESIZE = "resize"
    RECYCLE = "recycle"
    FLAG = "flag"
    DIGEST = "digest"


class Ending(StrEnum):
    """What `decisions --status` takes."""

    APPLIED = "applied"
    OBSERVED = "observed"
    UNCHANGED = "unchanged"
    PARTIAL = "partial"
    VANISHED = "vanished"
    REFUSED = "refused"
    FOREIGN = "foreign"
    FAILED = "failed"
    RELIEVED = "relieved"
    GUARD = "refused-by-guard"
    NONE = "no-outcome"


@_command("decisions", "nicety decisions --since 1h --kind priority")
def decisions(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones as they come.")] = False,
    since: Annotated[
        float | None, typer.Option(parser=_seconds, metavar="TIME", help="Only of the last so much time, e.g. 1h.")
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only of this policy or kind of change.")] = None,
    target: Annotated[str | None, typer.Option(metavar="TEXT", help="Only if the target has this in its name.")] = None,
    pid: Annotated[int | None, typer.Option(metavar="PID", help="Only about this process.")] = None,
    status: Annotated[Ending | None, typer.Option(help="Only those that ended so.")] = None,
    count: Annotated[
        int | None, typer.Option("-n", min=1, metavar="N", help="At most the latest so many lines; 20 unless --since.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """List decisions and refusals, the latest last.

    Decisions of a tick that do the same to one group are a line; --json has each by itself.
    """
    from .explain.decision_page import LOOKED_AT, decision_lines, decision_table
    from .explain.logstream import ascii_json
    from .store.decisions import DecisionReader, LoggedDecision

    _, paths = _load(context, config, state_dir)
    wanted: dict[str, Any] = {
        "since": None if since is None else time.time_ns() - round(since * 1e9),
        "kind": None if kind is None else kind.value,
        "target": target,
        "pid": pid,
        "status": None if status is None else status.replace("-", " "),
    }
    limit = count if count is not None or since is not None else 20

    def fits(logged: LoggedDecision) -> bool:
        return (
            (kind is None or kind in (logged.policy, logged.action))
            and (target is None or target in logged.target)
            and (pid is None or pid in logged.pids)
            and (status is None or wanted["status"] == logged.status)
        )

    with DecisionReader(paths.decisions) as reader:
        last = max((logged.n for logged in reader.find(limit=1)), default=0)
        found = reader.find(**wanted, limit=limit if as_json or limit is None else max(limit, LOOKED_AT))[::-1]
        if as_json:
            for logged in found:
                print(ascii_json(logged.to_builtins()))
        elif follow:
            for line in decision_lines(found)[-limit if limit else None :]:
                print(line)
        elif found:
            print(decision_table(found, since is None or since > 43200, _width(), limit))
        else:
            _say("no decision fits; `nicety decisions` without options lists the latest")
        if not follow:
            return
        new = list[LoggedDecision]()

        def tell() -> None:
            for line in decision_lines(new):
                print(line)
            new.clear()
            sys.stdout.flush()

        def wait() -> bool:
            tell()  # those of a tick are there together
            time.sleep(0.2)
            return True

        tell()
        for logged in reader.follow(wait, last):
            if fits(logged) and as_json:
                print(ascii_json(logged.to_builtins()))
            elif fits(logged):
                new.append(logged)


@anomalies_app.callback()
def _anomalies(
    context: typer.Context,
    since: Annotated[
        float | None, typer.Option(parser=_seconds, metavar="TIME", help="Those of the last so much time and all open ones; 1d.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """List incidents: what, since when, how sure, compared with whom, what to do.

    Exit 3 if one is open. `nicety why ID` has all that is known of one, with a snapshot of the process.
    """
    if context.invoked_subcommand is None:
        _guarded(_list_anomalies)(context, 86_400.0 if since is None else since, as_json, config, state_dir)


def _list_anomalies(context: typer.Context, since: float, as_json: bool, config: str | None, state_dir: str | None) -> None:
    from .explain import incident_page
    from .store.decisions import DecisionReader
    from .store.lessons import Lessons

    _, paths = _load(context, config, state_dir)
    now = time.time_ns()
    begin = now - round(since * 1e9)
    lessons = Lessons(paths.root).read()
    with DecisionReader(paths.decisions) as reader:
        found = incident_page.incidents(reader, lessons, begin)
        summed = incident_page.digests(reader, begin)
        latest = reader.latest()
    if as_json:
        _print_json([incident_page.as_record(incident) for incident in found])
    elif found or summed or lessons:
        print(incident_page.list_page(found, summed, lessons, now, _width()))
    else:
        _say("no incident in this time; `nicety anomalies --since 30d` looks further back")
    wall = None if latest is None or latest.tick is None else latest.tick.wall
    if wall is not None and now - wall > STALE_SECONDS * 1e9:
        from .words import moment

        _say(f"nicety: nobody looks on: the last tick was at {moment(wall)}; `nicety run` goes on")
    if any(incident.open for incident in found):
        raise typer.Exit(FINDINGS)


@_command("wrong", "nicety anomalies wrong 4eda4857-5.0", anomalies_app)
def anomalies_wrong(
    context: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The incident (`nicety anomalies` lists them).")],
    undo: Annotated[bool, typer.Option("--undo", help="Take it back: from now on such incidents are reported as before.")] = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Say that an incident was none.

    From then on what looks like it, the same kind in the same pool, is reported only if its score is one and a half times the
    highest of this one. A running daemon learns it with its next tick; if the incident is open it ends, and what was done about it
    is put back.
    """
    from .decision import LESSON_MARGIN, Lesson
    from .explain import incident_page
    from .explain.decision_page import ExplainError
    from .store.decisions import DecisionReader
    from .store.lessons import Lessons
    from .words import figure

    _, paths = _load(context, config, state_dir)
    lessons = Lessons(paths.root)
    if undo:
        taken = lessons.remove(id_)
        if taken is None:
            known = ", ".join(lesson.id for lesson in lessons.read()) or "none"
            raise ExplainError(f'"{id_}" was not called wrong; what was: {known}')
        _say(f"taken back: {taken.kind} in {taken.pool} is reported as before")
        return
    with DecisionReader(paths.decisions) as reader:
        incident = incident_page.find(reader, lessons.read(), id_)
        latest = reader.latest()
        wall = latest.tick.wall if latest is not None and latest.tick is not None else incident.first.wall
        value = incident_page.peak(reader, incident, wall)
    lesson = Lesson(incident.id, incident.flag.pool, incident.flag.kind, value, time.time_ns())
    lessons.add(lesson)
    unit = "a duration of {} s" if lesson.kind == "deadlock" else "a score of {}"
    _say(
        f"learned: {lesson.kind} in {lesson.pool} needs more than {unit.format(figure(LESSON_MARGIN * value))} from now on; "
        f"nicety anomalies wrong --undo {lesson.id} takes it back"
    )


@_command("why", "nicety why 4711")
def why(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="ID|PID", help="Id of a decision (`nicety decisions` shows them), or a pid.")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Explain a decision, or what was done about a process.

    Of an incident (`nicety anomalies`): what, since when, how sure, compared with whom, what to do, and a snapshot of the process.
    Of another decision: its rule and figures, the forecast it rests on, what was rejected, what would have flipped it, what
    happened and whether it helped. Of a process: what it is taken for and by what signs; for whom it was demoted or from whom it is
    protected, how long that one waited before and after, by what means, and what gives it back; or why nothing was done.
    """
    import msgspec

    from .decision import Flag
    from .explain import decision_page as explain
    from .explain.account import account
    from .explain.process_page import as_record, process_page
    from .read.process import ancestors, see
    from .store.decisions import DecisionReader

    _, paths = _load(context, config, state_dir)
    width = _width() or explain.WIDTH
    with DecisionReader(paths.decisions) as reader:
        if not what.isdecimal():
            logged, tick, session = explain.look_up(reader, what)
            if isinstance(logged.decision.action, Flag):
                from .explain import incident_page
                from .store.lessons import Lessons

                incident = incident_page.find(reader, Lessons(paths.root).read(), what)
                looks = reader.evidence(incident.id)
                if as_json:
                    _print_json(incident_page.as_record(incident, looks))
                else:
                    print(incident_page.incident_page(incident, looks, session, time.time_ns(), width))
                return
            if as_json:
                forecasts = [] if tick is None else explain.forecasts_about(logged.decision.action, tick)
                _print_json({**logged.to_builtins(), "forecasts": msgspec.to_builtins(forecasts)})
            else:
                print(explain.decision_page(logged, tick, session, width))
            return
        pid = int(what)
        try:
            seen = see(pid)
        except OSError as error:
            raise explain.ExplainError(f"process {pid} cannot be looked at: {error.strerror}; run this as root") from error
        about = account(reader, pid, seen, () if seen is None else tuple(ancestors(seen)))
        if about.seen is None and not about.decisions and about.place.unknown:
            raise explain.ExplainError(f'no process {pid} runs, and the log knows none; "{what}" is no id of a decision either')
        if as_json:
            _print_json(as_record(about))
        else:
            print(process_page(about, width))


@_command("replay", "nicety replay --session 3f9a01bc")
def replay(
    context: typer.Context,
    session: Annotated[str | None, typer.Option(metavar="ID", help="Only this session; else all.", show_default=False)] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the traces are, if not in the state directory.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Decide everything in the log once more and compare.

    From the log alone for decisions; with the traces for every figure that they rest on. Exit 3, with session, tick and place, if
    anything differs.
    """
    from dataclasses import asdict

    from .explain.decision_page import ExplainError
    from .store.decisions import DecisionReader

    _, paths = _load(context, config, state_dir)
    with DecisionReader(paths.decisions) as reader:
        ids = [each.id for each in reader.sessions()]
    if session is not None and session not in ids:
        raise ExplainError(f'the log has no session "{session}"; it has {", ".join(ids) or "none"}')

    _load_numpy()
    from .replay import replay as again

    found = again(paths, session=session, trace=trace)
    if as_json:
        _print_json({**asdict(found), "identical": not found.differences})
    else:
        print(
            f"{found.sessions} sessions, {found.ticks} ticks: {found.decisions} decisions and {found.refusals} refusals made again"
            f", and the figures of {found.observed} ticks from the traces"
        )
        for it in found.differences[:SHOWN]:
            made = it.again or "nothing"
            print(_printable(f"session {it.session}, tick {it.seq}: {it.where}: recorded {it.recorded}, made again {made}"))
        if len(found.differences) > SHOWN:
            print(f"... and {len(found.differences) - SHOWN} more; --json has all")
        print(f"{len(found.differences)} differences" if found.differences else "identical")
    for note in found.notes:
        _say(_printable(f"nicety: {note}"))
    if found.differences:
        raise typer.Exit(FINDINGS)
    if found.ticks == 0:
        raise ExplainError(f"{paths.decisions} has no ticks to replay; `nicety run` writes some")


class LoadShape(StrEnum):
    """What `simulate --load` takes: the shapes of `simulation.arrivals`."""

    STEPS = "steps"
    SPIKES = "spikes"
    DIURNAL = "diurnal"
    NOISE = "noise"
    CHANGE = "change"


@_command("simulate", "nicety simulate --pool web")
def simulate(
    context: typer.Context,
    trace: Annotated[
        Path | None,
        typer.Argument(
            metavar="TRACE",
            help="Arrivals: CSV or Parquet with t_submit, or with count. Or what nicety recorded: a state directory, a trace file.",
            show_default=False,
        ),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Pool of the recording; without TRACE: of our own.", show_default=False),
    ] = None,
    load: Annotated[LoadShape | None, typer.Option(help="Made up load, instead of a file; steps if neither.")] = None,
    start: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="From a worker's start to its first request.", show_default="4, or as recorded"),
    ] = None,
    rules: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="NAME", help='Rule to run, more than once if wished; "all": every one.', show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs with other chance; figures are their means.")] = 3,
    minimum: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Never fewer workers.", show_default="2, or the recorded pool's")
    ] = None,
    maximum: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Never more workers.", show_default="32, or the recorded pool's")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(parser=_seconds, metavar="TIME", help="Time to simulate, e.g. 4h.", show_default="1h")
    ] = None,
    warmup: Annotated[
        float | None,
        typer.Option(
            parser=_seconds_or_none,
            metavar="TIME",
            help="Time at the beginning that does not count; 3h, to see what was learned.",
            show_default="120, or a quarter of a short recording",
        ),
    ] = None,
    service: Annotated[float, typer.Option(metavar="SECONDS", help="Mean time that a request takes.")] = 0.2,
    json_path: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help='Write all figures there; "-": to stdout, no table.', show_default=False),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw size against load as PNG; needs nicety[report].", show_default=False)
    ] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Try the pool size policy beside the rules of other schedulers.

    The policy that runs in the daemon, with your configuration, the rules of ten other schedulers, and oracles that know the load
    to come size a simulated pool. Shown are latency, workers used and workers started; docs/simulation.md says how to read it.
    """
    seconds = 3600.0 if seconds is None else seconds
    for name, value, low, high in (
        ("--start", start, 0.0, 600.0),
        ("--seconds", seconds, 60.0, 604_800.0),
        ("--warmup", warmup, 0.0, seconds - 30.0),
        ("--service", service, 1e-4, 600.0),
    ):
        if value is not None and not low <= value <= high:
            raise typer.BadParameter(f"{value:g} is not between {low:g} and {high:g}", param_hint=name)
    if (trace is not None or pool is not None) and load is not None:
        raise typer.BadParameter("give a file or --load, not both", param_hint="TRACE")
    for rule in rules or ():
        if "," in rule:
            raise typer.BadParameter(f"one name each: --rule {' --rule '.join(rule.split(','))}", param_hint="--rule")
    if trace is not None and not trace.exists() and str(trace) in tuple(LoadShape):
        raise typer.BadParameter(f"there is no such file; the made up load is --load {trace}", param_hint="TRACE")
    for name, file in (("--json", json_path), ("--plot", plot)):
        if file is not None and not Path(file).parent.is_dir():
            raise typer.BadParameter(f"there is no folder {Path(file).parent}", param_hint=name)
    _load_numpy()
    from .explain.decision_page import table
    from .simulation import run as simulation
    from .simulation.arrivals import Load
    from .simulation.tracefile import read

    loaded, paths = _load(context, config, state_dir)
    recorded = None
    if pool is not None or (trace is not None and (trace.is_dir() or trace.suffix == ".db")):
        from .simulation.recorded import read as read_recorded

        recorded = read_recorded(trace or paths.traces, pool, seconds)
    least, most = simulation.limits(recorded, loaded.config)
    minimum, maximum = minimum or least, maximum or most
    if minimum > maximum:
        raise typer.BadParameter(f"{minimum} is more than --maximum {maximum}", param_hint="--minimum")
    measured = None if recorded is None else recorded.start_seconds
    start = start if start is not None else simulation.START if measured is None else measured
    if warmup is None:
        warmup = simulation.WARMUP if recorded is None else min(simulation.WARMUP, recorded.seconds / 4)
    usual = [f"fixed-{maximum}" if recorded is not None and rule == "fixed-32" else rule for rule in simulation.USUAL]
    chosen = list(dict.fromkeys(rules or usual))
    if "all" in chosen:
        chosen = list(dict.fromkeys((*simulation.ALL, *(rule for rule in chosen if rule != "all"))))
    simulation.check(chosen)
    if plot is not None:
        from .simulation.plot import figure

        figure()  # is matplotlib there? Not to be found out after minutes
    source = recorded or (read(trace) if trace is not None else str(load or LoadShape.STEPS))
    live = sys.stderr.isatty()
    found: list[simulation.Figures] = []

    def prepared(seed: int) -> Load:
        made = simulation.prepare(source, seed, seconds=seconds, maximum=maximum, service=service)
        if seed == 1 and made.scaled:
            _say(_printable(f"{made.name}: {made.seconds:g} s of it, {made.scaled}"))
            if recorded is not None:
                known = "no start was measured" if measured is None else f"measured {measured:.3g} s"
                _say(f"start {start:.3g} s ({known}), {minimum} to {maximum} workers")
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
    )

    def progress(done: str) -> None:
        if live:
            print(f"\r{len(found)} of {len(chosen) * seeds}{done}\x1b[K", end="", file=sys.stderr, flush=True)

    progress("")
    for figures in runs:
        found.append(figures)
        progress(f": {figures.rule}")
    if live:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    summary = simulation.means(found)
    itself = None if recorded is None else simulation.as_it_was(recorded, warmup)
    if plot is not None:
        from .simulation.plot import plot as draw

        draw(plot, found)
        _say(f"{plot}: drawn")
    record: dict[str, Any] = {
        "means": [mean.as_record() for mean in summary],
        "runs": [figures.as_record() for figures in found],
        "recorded": None if itself is None else itself.as_record(),
    }
    if json_path == "-":
        _print_json(record)
        return
    if json_path is not None:
        from .explain.logstream import ascii_json

        Path(json_path).write_text(ascii_json(record) + "\n", encoding="utf-8")
    lines = [mean.cells() for mean in summary] + ([] if itself is None else [itself.cells()])
    print(table(simulation.HEADERS, lines, _width()))


class Exportable(StrEnum):
    """What can be exported."""

    TRACES = "traces"
    DECISIONS = "decisions"


class Format(StrEnum):
    """File formats of an export."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


@_command("export", "nicety export traces --format parquet -o traces.parquet --since 1d")
def export(
    context: typer.Context,
    what: Annotated[Exportable, typer.Argument(metavar="WHAT", help="Samples of all processes, or decisions and refusals.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="File to write; appears whole or not at all.")],
    form: Annotated[Format, typer.Option("--format", help="parquet needs the extra nicety[parquet].")] = Format.CSV,
    since: Annotated[
        float | None, typer.Option(parser=_seconds, metavar="TIME", help="Only of the last so much time, e.g. 1d.")
    ] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Write traces or decisions for other programs.

    Exit 3 if a part of them was damaged and is not in the file.
    """
    from .store.export import export as export_traces
    from .store.export import export_decisions

    _, paths = _load(context, config, state_dir)
    begin = None if since is None else time.time_ns() - round(since * 1e9)
    live = sys.stderr.isatty()

    def progress(ticks: int) -> None:
        if live and ticks % 100 == 0:
            print(f"\r{ticks} ticks\x1b[K", end="", file=sys.stderr, flush=True)

    if what is Exportable.DECISIONS:
        if form is Format.PARQUET:
            raise typer.BadParameter("decisions are exported as csv or jsonl", param_hint="--format")
        done = export_decisions(paths.decisions, out, "csv" if form is Format.CSV else "jsonl", since=begin)
    else:
        done = export_traces(paths.root, out, form.value, since=begin, progress=progress)
    _say(("\r\x1b[K" if live else "") + f"{out}: {done.rows} rows" + (f" of {done.ticks} ticks" if done.ticks else ""))
    for loss in done.lost:
        _say(_printable(f"nicety: not exported: {loss}"))
    if done.lost:
        raise typer.Exit(FINDINGS)


@_command("demo", "nicety demo")
def demo(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where to leave logs, traces and models.", show_default=False)
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there.", show_default=False)
    ] = None,
) -> None:
    """See the whole loop at work on a bundled workload.

    Takes a few minutes: a web service, batch hogs and a spool with faulty workers, without nicety and with it. Everything is put
    back afterwards.
    """
    import tempfile

    from .demo.run import main as show

    if directory is None:
        directory = Path(tempfile.mkdtemp(prefix="nicety-demo-"))
    raise typer.Exit(show(directory, json_path, functools.partial(print, flush=True)))
