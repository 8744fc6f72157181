"""What the view asks of others: `nicety why` in a process of its own, and the daemon through its control socket."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...interpreter import PYTHON, environment

WHY_SECONDS = 30.0
"""Longest time for an explanation (chosen): with a large log on a busy machine it takes a few seconds."""

UNDO_SECONDS = 60.0
"""Longest time for putting something back, as of `nicety observe`."""


class AskError(Exception):
    """There is no answer; the text says why."""


class Asking:
    """The daemon of one state directory."""

    def __init__(self, socket: Path, options: Sequence[str], variables: Mapping[str, str]) -> None:
        """`options`: words that name configuration and state directory to a command."""
        self._socket, self._options, self._variables = socket, tuple(options), variables

    def why(self, target: str) -> str:
        """The text of `nicety why`. It loads what this view has no need of, so it is a process of its own. Raises AskError."""
        command = [*PYTHON, "-m", "nicety.scheduler", *self._options, "why", "--", target]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                timeout=WHY_SECONDS,
                stdin=subprocess.DEVNULL,
                env=environment(self._variables),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise AskError(f"`nicety why {target}` did not end in {WHY_SECONDS:g} s; try it in a shell") from None
        except OSError as error:
            raise AskError(f"`nicety why {target}` cannot be started: {error.strerror}") from None
        text = done.stdout.decode("utf-8", "backslashreplace")
        return text if text.strip() else done.stderr.decode("utf-8", "backslashreplace").strip()

    def ask(self, verb: str, things: Sequence[str] = ()) -> dict[str, Any]:
        """The answer of the daemon. Raises ControlError if it refuses or cannot be reached."""
        from ...service.answers.control_socket import ask

        return ask(self._socket, verb, timeout_seconds=UNDO_SECONDS, **({"things": list(things)} if things else {}))
