"""The program itself: its entry point, the options before the command, and all commands in the order of the help."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from . import running, top, pools, models, looking_back, exporter, notify, web, trying, schemas  # isort: skip # noqa: F401 - each registers its commands, in this order
from .shared import ConfigOption, Named, StateOption, app

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the `nicety` program."""
    from ..read.text import escape_unencodable

    escape_unencodable(sys.stdout, sys.stderr)
    app(prog_name="nicety")


def _show_version(wanted: bool) -> None:
    if wanted:
        from ... import __version__

        print(f"nicety {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    context.obj = Named(config, state_dir)
