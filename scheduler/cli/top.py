"""The live view: top."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .shared import FAILURE, ConfigOption, JsonOption, Named, StateOption, command, load_files, own_stores, say


class ColoursWanted(StrEnum):
    """What `top --colours` takes."""

    MANY = "many"
    SIXTEEN = "sixteen"
    NONE = "none"


@command("top", "nicety top")
def top(
    context: typer.Context,
    plain: Annotated[bool, typer.Option("--plain", help="Print lines of text each tick: for a screen reader or a pipe.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Print them, or the JSON, once.")] = False,
    as_json: JsonOption = False,
    colours: Annotated[
        ColoursWanted | None, typer.Option(metavar="HOW", help=f"{', '.join(ColoursWanted)} (default: as the terminal can).")
    ] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Watch groups, processes, pools and decisions, now and in the past.

    Shows who delays whom, what is expected, what nicety has changed and whether it helped. Enter explains, Left goes back in time,
    ? lists the keys. Without a running daemon it observes by itself; that needs no rights and changes nothing.
    """
    from ..views.top.bookmarks import place_of_bookmarks
    from ..views.top.main import as_lines, draws, on_screen

    named: Named = context.obj
    loaded, paths = load_files(context, config, state_dir)
    bookmarks = place_of_bookmarks(os.environ, Path(os.environ.get("HOME") or "/"), paths.stores, os.geteuid())
    own_stores(paths)
    if plain or once or as_json or not draws(os.environ):
        as_lines(loaded, paths, os.environ, once=once, as_json=as_json)
        return
    given = {"--config": config or named.config, "--state-dir": state_dir or named.state_dir}
    options = [word for name, value in given.items() if value for word in (name, str(Path(value).absolute()))]
    try:
        on_screen(loaded, paths, options, os.environ, "" if colours is None else colours.value, bookmarks)
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        say("nicety: the screen needs textual; install it with `pip install '.[tui]'`, or use `nicety top --plain`")
        raise typer.Exit(FAILURE) from None
