"""Runs the user's command for an event: an argument list without a shell, the event on standard input, a limit of time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Never

from ...hands.kernel import Clock
from ...printed import plain
from ...read.text import printable
from ..source import FrameSource
from .events import Event, Limits, Told, Watch

TIMEOUT = 30.0
"""Seconds that a command may take (chosen: a page that is not sent by then is not sent)."""

LOOK = 1.0
"""Seconds between two looks (chosen: the usual interval of a tick)."""

LONGEST = 1000
"""Characters of a text (chosen): environments and pagers have limits."""


def run(command: Sequence[str], event: Event, left_out: int, environment: Mapping[str, str], timeout: float = TIMEOUT) -> str:
    """Run the command. Returns why it failed, "" if it did not."""
    told = plain(
        Told(
            event=event.kind,
            subject=printable(event.subject)[:LONGEST],
            text=printable(event.text)[:LONGEST],
            id=printable(event.id),
            machine=printable(event.machine),
            wall=event.wall,
            left_out=left_out,
        )
    )
    data = json.dumps(told)
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=2,  # what it says belongs to the log
            env={**environment, **{f"NICETY_{name.upper()}": value for name, value in told.items() if isinstance(value, str)}},
            start_new_session=True,
        )
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    try:
        process.communicate(data.encode() + b"\n", timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"{command[0]}: did not end within {timeout:g} s and was killed"
    return "" if process.returncode == 0 else f"{command[0]}: exit status {process.returncode}"


def follow(
    source: FrameSource, command: Sequence[str], clock: Clock, environment: Mapping[str, str], say: Callable[[str], None]
) -> Never:
    """Run the command for what happens, until a signal. `say`: takes failures of the command, once until it works again."""
    watch, limits, trouble, unread = Watch(), Limits(), "", ""
    while True:
        source.look()
        if source.trouble and source.trouble != unread:
            say(source.trouble)
        unread = source.trouble
        at, wall = clock.monotonic() / 1e9, clock.wall() / 1e9
        for event in watch.look(source.frame, source.late(wall) > 0, at, wall):
            left_out = limits.admit(event, at)
            if left_out is None:
                continue
            found = run(command, event, left_out, environment)
            if found and not trouble:
                say(f"{found}; events are lost until it works")
            elif trouble and not found:
                say(f"{command[0]}: works again")
            trouble = found
        clock.sleep_until(clock.monotonic() + round(LOOK * 1e9))
