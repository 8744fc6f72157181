"""What all commands share: options, printing, and how errors become messages and exit codes."""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec, Self

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from pathlib import Path

    from ..config.paths import Loaded, Paths
    from ..hands.kernel import Clock
    from ..printed import Printed
    from ..store.files import NamedFile

FAILURE, FINDINGS, INTERRUPTED = 1, 3, 130
"""Exit codes. typer exits with 2 for wrong usage; 130 is what a shell reports for a program that SIGINT ended."""

SHOWN = 20
"""Differences that `replay` prints; --json has all. Chosen: they fit a screen."""

STALE_SECONDS = 120.0
"""Seconds without a tick after which the daemon is taken to be gone. Chosen: twice the longest `daemon.interval`."""


PROGRESS_LIVE_SECONDS, PROGRESS_SECONDS = 0.2, 10.0
"""How often progress is shown on a terminal, and elsewhere (chosen)."""

P = ParamSpec("P")


class AsTyped(TyperCommand):
    """A command that takes texts as they are typed, and options that were not given as None.

    typer 0.29 has pydantic look at each of them, and importing pydantic takes as long as all else of a start.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        _take_as_typed(self.get_params(ctx))
        return super().parse_args(ctx, args)


class GroupAsTyped(TyperGroup):
    """As `AsTyped`, for commands that have commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments before the command."""
        _take_as_typed(self.get_params(ctx))
        return super().parse_args(ctx, args)


def _take_as_typed(parameters: Iterable[Any]) -> None:
    for it in parameters:
        if it.nargs == 1 and not it.multiple:
            it.process_value = functools.partial(_processed, it, it.process_value)


def _processed(parameter: Any, process: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    """The value of a parameter. `process`: as typer has it."""
    kind = getattr(parameter, "type_descriptor", None)
    if isinstance(value, str) and kind is not None and kind.parameter_info.parser is not None:
        value = kind.parameter_info.parser(value)
    elif not (isinstance(value, str) and kind is not None and kind.annotation is str) and (value is not None or parameter.required):
        return process(context, value)
    return value if parameter.callback is None else parameter.callback(context, parameter, value)


app = typer.Typer(
    name="nicety",
    cls=GroupAsTyped,
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


models_app = typer.Typer(
    cls=GroupAsTyped, help="List models, and choose which are live.", no_args_is_help=True, rich_markup_mode=None
)


app.add_typer(models_app, name="models")


anomalies_app = typer.Typer(
    cls=GroupAsTyped,
    invoke_without_command=True,
    rich_markup_mode=None,
    epilog="Example: nicety anomalies",
)


app.add_typer(anomalies_app, name="anomalies")


ConfigOption = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="Configuration file, instead of $NICETY_CONFIG.", show_default=False)
]


StateOption = Annotated[
    str | None,
    typer.Option("--state-dir", metavar="DIR", help="State directory, instead of $NICETY_STATE_DIR.", show_default=False),
]


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def command(name: str, example: str, group: typer.Typer = app, **settings: Any) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Register a command with an example below its help."""

    def register(function: Callable[P, None]) -> Callable[P, None]:
        guarded = guarded_command(function)
        group.command(name, cls=AsTyped, epilog=f"Example: {example}", **settings)(guarded)
        return guarded

    return register


def guarded_command(function: Callable[P, None]) -> Callable[P, None]:
    """The one place where errors become messages and exit codes."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has closed the pipe (`nicety decisions | head`). The rest of the buffer must not raise again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] in ("typer", "click"):
                raise
            leave_with(error)

    return guarded


def leave_with(error: Exception) -> NoReturn:
    """Print what went wrong and exit with FAILURE."""
    from ..explain.failures import tell

    tell(error)
    raise typer.Exit(FAILURE)


def say(text: str) -> None:
    """Print a message, as opposed to data."""
    print(text, file=sys.stderr, flush=True)


def escaped(text: str) -> str:
    """Text with control characters and the like escaped, so that a terminal can show it."""
    from ..read.text import printable

    return printable(text)


def print_json(value: Printed | dict[str, Any]) -> None:
    """Print data for programs. A dict is an answer of the daemon, which made it of such a struct."""
    from ..explain.logstream import ascii_json
    from ..printed import plain

    print(ascii_json(value if isinstance(value, dict) else plain(value)))


def load_files(context: typer.Context, config: str | None, state_dir: str | None) -> tuple[Loaded, Paths]:
    """The configuration and the files of the state directory."""
    from ..config.paths import load_config, state_paths

    named: Named = context.obj
    loaded = load_config(config or named.config, os.environ, os.geteuid())
    paths = state_paths(loaded.config, state_dir or named.state_dir, os.environ, os.geteuid())
    if paths.said and context.command.name != "run":  # which logs it
        say(f"nicety: {escaped(paths.said)}")
    return loaded, paths


def load_stores(context: typer.Context, config: str | None, state_dir: str | None) -> tuple[Loaded, Paths]:
    """As `load_files`, for commands that open the stores: see `own_stores`."""
    loaded, paths = load_files(context, config, state_dir)
    own_stores(paths)
    return loaded, paths


def own_stores(paths: Paths, *named: Path, rights: int = 0) -> tuple[Path | NamedFile, ...]:
    """Where the stores are another user's, as with the units, root becomes that user for good, and has only these `rights`
    (capabilities). The files that the caller `named` are written as the caller all the same: returns what to write them by."""
    from ..hands.owner import become, owner_of

    owner = owner_of(paths.stores)
    if owner is None:
        return named
    from ..store.files import NamedFile

    held = tuple(NamedFile(file) for file in named)
    become(owner, rights)
    return held


def duration(text: str) -> float:
    """ "90", "90s", "10m", "2h" or "1d" in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    value = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]] if match else 0.0
    if not 0 < value < 1e9:
        raise typer.BadParameter(f'"{text}" is not a length of time; write e.g. 90s, 10m, 2h or 1d')
    return value


def duration_or_none(text: str) -> float:
    """As `duration`, but "0" is allowed too."""
    return 0.0 if text.strip() == "0" else duration(text)


class Progress:
    """Says on stderr how far long work has come: on a terminal in a line that changes, elsewhere in a line every ten seconds."""

    def __init__(self, what: str, total: int | None = None) -> None:
        """`what`: is counted. `total`: how many there will be, None: not known."""
        self._what, self._of = what, "" if total is None else f" of {total}"
        self._live = sys.stderr.isatty()
        self._every = PROGRESS_LIVE_SECONDS if self._live else PROGRESS_SECONDS
        self._clock = system_clock()
        self._due = self._clock.monotonic() + self._every * 1e9

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def __call__(self, done: int) -> None:
        """So many are done."""
        if (now := self._clock.monotonic()) < self._due:
            return
        self._due = now + self._every * 1e9
        text = f"{done}{self._of} {self._what}"
        print(f"\r{text}\x1b[K" if self._live else text, end="" if self._live else "\n", file=sys.stderr, flush=True)


def system_clock() -> Clock:
    """The clock of this machine."""
    from ..hands.clock import SystemClock

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
