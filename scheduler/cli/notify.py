"""The command that runs a command of the user's when something happens: notify."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import Annotated

import typer

from .exporter import frame_source, tell
from .shared import ConfigOption, StateOption, command, ended_by_signals, escaped, say, system_clock


@command("notify", "nicety notify -- /usr/local/bin/page-me --team ops")
def notify(
    context: typer.Context,
    run: Annotated[list[str], typer.Argument(metavar="COMMAND [ARGUMENT]...", help="What to run, without a shell.")],
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Run a command when something happens that somebody should hear of.

    That is: an incident opens, a pool cannot be resized, a change does harm, or the daemon is gone. The command finds it as JSON
    on its standard input, and in the variables NICETY_EVENT, NICETY_SUBJECT, NICETY_TEXT, NICETY_ID and NICETY_MACHINE.
    """
    from ..views.notify.hook import follow

    if shutil.which(run[0]) is None:
        raise typer.BadParameter(f'"{escaped(run[0])}" is no program that this user may run; give its path')
    say(f"nicety: running {escaped(run[0])} for what happens; Ctrl-C ends it")
    with suppress(KeyboardInterrupt), ended_by_signals():
        follow(frame_source(context, config, state_dir), run, system_clock(), os.environ, tell)
