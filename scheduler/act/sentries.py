"""The sentries of a daemon without hands of its own. `hands/guarding.py` keeps them, `hands/sentry.py` is what they do."""

from __future__ import annotations

import os
from pathlib import Path

from ..hands.guarding import Guarding, Start
from ..interpreter import isolated

_COMMAND = isolated("nicety.scheduler.hands.sentry")


def sentries_of_this_process(state_dir: Path) -> Guarding:
    """Sentries for a process that changes values itself; none until `keep`."""
    return Guarding(_isolated(state_dir), "after kill -9 changes stay until `nicety undo`")


def _isolated(state_dir: Path) -> Start:
    """Starts a sentry as a program of its own: with what the daemon has loaded it would be as large as that."""

    def start(orders: int, alive: int) -> int:
        command = [*_COMMAND, str(os.getpid()), os.fspath(state_dir)]
        moves = [(os.POSIX_SPAWN_DUP2, orders, 0), (os.POSIX_SPAWN_DUP2, alive, 1)]
        return os.posix_spawn(command[0], command, {}, file_actions=moves)

    return start
