"""What all commands share: options, errors as words and exit codes, the way to print."""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec

import typer

if TYPE_CHECKING:
    from ..config.paths import Loaded, Paths
    from ..ports import Clock

FAILURE, FINDINGS = 1, 3  # and 2 for wrong usage, which typer gives


SHOWN = 20  # differences of a replay in its text


STALE_SECONDS = 120.0  # without a tick, from which on nobody is taken to look


INTERRUPTED = 130  # as a shell reports a program that SIGINT ended


USER_ERRORS = frozenset(
    {
        "models.artifact.ArtifactError",
        "scheduler.config.sections.ConfigError",
        "scheduler.service.answers.control_socket.ControlError",
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


def command(name: str, example: str, group: typer.Typer = app, **settings: Any) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Register a command with an example below its help."""

    def register(function: Callable[P, None]) -> Callable[P, None]:
        guarded = guarded_command(function)
        group.command(name, epilog=f"Example: {example}", **settings)(guarded)
        return guarded

    return register


def guarded_command(function: Callable[P, None]) -> Callable[P, None]:
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
            leave_with(error)

    return guarded


def leave_with(error: Exception) -> NoReturn:
    """Say what went wrong and leave with FAILURE."""
    if os.environ.get("NICETY_DEBUG"):
        raise error
    ours = __name__.removesuffix("scheduler.cli.shared")
    names = {f"{kind.__module__.removeprefix(ours)}.{kind.__qualname__}" for kind in type(error).__mro__}
    if names & USER_ERRORS:
        for line in str(error).splitlines():
            say(f"nicety: {escaped(line)}")
        raise typer.Exit(FAILURE)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        say(f"nicety: {escaped(where)}{error.strerror or error}; check the path, its permissions and the disk")
        raise typer.Exit(FAILURE)
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="nicety-error-", suffix=".txt", delete=False, encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    say(f"nicety: a fault in nicety itself: {type(error).__name__}: {escaped(str(error))}")
    say(f"nicety: the traceback is in {file.name} (NICETY_DEBUG=1 shows it here); please report it")
    raise typer.Exit(FAILURE)


def say(text: str) -> None:
    """Talk, as opposed to data."""
    print(text, file=sys.stderr, flush=True)


def escaped(text: str) -> str:
    """Safe to print, whatever it has in it."""
    from ..read.text import printable

    return printable(text)


def print_json(value: object) -> None:
    """Data for programs."""
    from ..explain.logstream import ascii_json

    print(ascii_json(value))


def load_files(context: typer.Context, config: str | None, state_dir: str | None) -> tuple[Loaded, Paths]:
    """The configuration and the files of the state directory."""
    from ..config.paths import load_config, state_paths

    named: Named = context.obj
    loaded = load_config(config or named.config, os.environ, os.geteuid())
    paths = state_paths(loaded.config, state_dir or named.state_dir, os.environ, os.geteuid())
    if paths.said and context.command.name != "run":  # which logs it
        say(f"nicety: {escaped(paths.said)}")
    return loaded, paths


def duration(text: str) -> float:
    """ "90", "90s", "10m", "2h" or "1d" in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    value = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]] if match else 0.0
    if not 0 < value < 1e9:
        raise typer.BadParameter(f'"{text}" is not a length of time; write e.g. 90s, 10m, 2h or 1d')
    return value


def duration_or_none(text: str) -> float:
    """The same, or "0"."""
    return 0.0 if text.strip() == "0" else duration(text)


def system_clock() -> Clock:
    """The real one."""
    from ..service.clock import SystemClock

    return SystemClock()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does: by KeyboardInterrupt, so that `finally` cleans up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def load_numpy() -> None:
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
