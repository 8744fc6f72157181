"""The process of `nicety run`, after its command line was read: it loads what the daemon needs and nothing else.

`cli/running.py` becomes this program (execve(2)). Knows how a daemon begins, and which exit code it ends with.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from .explain.failures import tell
from .hands.urgent import be_called
from .interpreter import load_numpy

FAILURE, INTERRUPTED = 1, 130
"""Exit codes, as of all commands (`cli/shared.py`)."""

NAME = "nicety"
"""What ps(1) and top(1) show."""


COLLECT = 20_000, 20, 100
"""Thresholds of the garbage collector (gc.set_threshold). Chosen: a tick makes some thousand objects and next to no cycles; with
Python's own thresholds (700, 10, 10) looking for them takes 4 % of the daemon's CPU."""


class Wanted(NamedTuple):
    """What the command line says. Times are seconds, None: no end."""

    config: str | None  # file
    state_dir: str | None
    act: bool | None  # None: as the configuration says
    duration: float | None
    things: list[str]
    act_seconds: float | None


def words(wanted: Wanted) -> list[str]:
    """The words with which `main` is called."""
    return [json.dumps(wanted._asdict())]


def main(arguments: Sequence[str]) -> int:
    """Run the daemon; returns its exit code. Errors become messages."""
    be_called(NAME)
    (wanted,) = arguments
    try:
        return _run(Wanted(**json.loads(wanted)))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        tell(error)
        return FAILURE


def _run(wanted: Wanted) -> int:
    # Without it hashlib has the interpreter's own functions, as some builds of Python do. OpenSSL's take 3.4 MiB.
    sys.modules["_hashlib"] = None  # type: ignore[assignment]
    load_numpy()
    gc.set_threshold(*COLLECT)
    from . import daemon
    from .config.paths import load_config, state_paths
    from .read.text import escape_unencodable

    escape_unencodable(sys.stdout, sys.stderr)
    loaded = load_config(wanted.config, os.environ, os.geteuid())
    paths = state_paths(loaded.config, wanted.state_dir, os.environ, os.geteuid())
    if sys.stderr.isatty():  # otherwise stderr is the daemon's log, one record a line, and the first record says the mode
        undo, acts = loaded.config.daemon.undo_on_exit, loaded.config.daemon.act
        print(_intention(acts if wanted.act is None else wanted.act, undo), file=sys.stderr, flush=True)
    act, duration, things, act_seconds = wanted[2:]
    return daemon.run(loaded, paths, act=act, duration=duration, things=things, act_seconds=act_seconds)


def _intention(acting: bool, undo: bool) -> str:
    if not acting:
        return "observing: nothing is changed; --act carries decisions out"
    return (
        "acting: all changes are put back at the end" if undo else "acting: changes stay at the end; `nicety undo` puts them back"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
