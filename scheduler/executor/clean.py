"""The start method "clean": workers are forked from a fresh interpreter, so nothing of the program's state comes with them.

A worker that was forked from the program hangs in OpenMP if the program has used it, and in any lock that one of its threads held.
A fresh interpreter has neither. Forking workers from it costs milliseconds, as forking the program does. Unlike "spawn" and
"forkserver" it does not import the program's main module: a script needs no `if __name__ == "__main__"`. So functions of that
module must be pickled by value, which joblib_backend.py does.

Must not know tasks or the board.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import spawn, util
from multiprocessing.context import ForkContext
from pathlib import Path
from typing import Any

from .forker import breed
from .worker import dumps

_MAIN = ("init_main_from_name", "init_main_from_path")
"""What multiprocessing would have a child import as its main module."""


class CleanContext(ForkContext):
    """For `Executor(mp_context=...)`. Initializer and its arguments are pickled, as are tasks."""

    _name = "clean"


def start_interpreter(
    initializer: Callable[..., object] | None, initargs: tuple[Any, ...], control: socket.socket
) -> Callable[[], object]:
    """The start method "clean": see `forker.Begin`. Raises OSError, and what pickling the initializer raises."""
    settings = {key: value for key, value in spawn.get_preparation_data("ExecutorForker").items() if key not in _MAIN}
    settings["authkey"] = bytes(settings["authkey"])  # else it refuses to be pickled
    package = sys.modules[__name__.partition(".scheduler.")[0]].__file__
    code = f"import sys; sys.path.insert(0, {str(Path(package or '').parents[1])!r}); from {__name__} import main; main()"
    flags = util._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing starts its own
    handed = os.memfd_create("nicety-forker", os.MFD_CLOEXEC)
    with os.fdopen(handed, "wb") as file:
        pickle.dump((settings, None if initializer is None else dumps((initializer, initargs))), file)
        file.flush()
        process = subprocess.Popen(
            [spawn.get_executable(), *flags, "-P", "-c", code, str(control.fileno()), str(handed)],
            stdin=subprocess.DEVNULL,
            pass_fds=(control.fileno(), handed),
        )
    return process.wait


def main() -> None:
    """The fresh interpreter. It imports nothing that the standard library does not have, and leaves that to the workers."""
    control = socket.socket(fileno=int(sys.argv[-2]))
    with os.fdopen(int(sys.argv[-1]), "rb") as file:
        file.seek(0)
        settings, packed = pickle.load(file)  # noqa: S301 - from our owner
    spawn.prepare(settings)
    breed(multiprocessing.get_context("fork"), control, None if packed is None else functools.partial(_initialize, packed), ())


def _initialize(packed: bytes) -> None:
    initializer, initargs = pickle.loads(packed)  # noqa: S301 - from our owner
    initializer(*initargs)
