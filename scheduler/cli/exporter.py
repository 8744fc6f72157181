"""The command that gives metrics to others: exporter."""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .shared import ConfigOption, StateOption, command, duration, ended_by_signals, escaped, load_files, say, system_clock

if TYPE_CHECKING:
    from ..views.source import FrameSource

LISTEN = "127.0.0.1:29753"
"""Chosen: 9100 to 9999 are Prometheus' default port allocations, and all taken. Below the ports that Linux gives to clients."""

SERIES = 2000
"""Most series (chosen): about a hundred groups and ten pools; a Prometheus on a small machine takes a million."""

EVERY = 15.0
"""Seconds between two files or pushes (chosen, as most scrape)."""


@command("exporter", "nicety exporter")
def exporter(
    context: typer.Context,
    listen: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen: HOST:PORT, [IPV6]:PORT or unix:/PATH.")] = LISTEN,
    series: Annotated[
        int, typer.Option(min=200, max=1_000_000, metavar="N", help="Most series; what is beyond them is summed up as other.")
    ] = SERIES,
    once: Annotated[bool, typer.Option("--once", help="Print the metrics, or write them to --textfile, and end.")] = False,
    textfile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a file for node_exporter's textfile collector instead of listening."),
    ] = None,
    otlp: Annotated[
        str | None, typer.Option(metavar="URL", help="Push to this OTLP endpoint (HTTP) instead of listening.", show_default=False)
    ] = None,
    every: Annotated[
        float | None, typer.Option(parser=duration, metavar="TIME", help="How often to write or push.", show_default="15s")
    ] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Export metrics of the running daemon to Prometheus, to a file, or by OTLP.

    It reads what the daemon writes each tick, and costs the daemon nothing. Needs pip install '.[metrics]'.
    """
    try:
        from ..views.exporter.collector import OPEN, Exporter
    except ModuleNotFoundError as error:
        from ..views.exporter.errors import ExportError

        if not (error.name or "").startswith("prometheus_client"):
            raise
        raise ExportError(
            "metrics need prometheus-client, which is not installed; in nicety's checkout, run: pip install '.[metrics]'"
        ) from None
    from ..views.exporter.repeat import repeat

    if otlp is not None and (once or textfile is not None):
        raise typer.BadParameter("--otlp goes with neither --once nor --textfile")
    clock, pause = system_clock(), EVERY if every is None else every
    made = Exporter(frame_source(context, config, state_dir), series, clock, tell)
    if textfile is not None:
        from ..views.exporter.textfile import write

        if once:
            write(textfile, made.answer("").body)
            return
        say(f"nicety: writing {escaped(str(textfile))} every {pause:g} s; Ctrl-C ends it")
        file = textfile
        with suppress(KeyboardInterrupt), ended_by_signals():
            repeat(lambda: write(file, made.answer("").body), pause, clock, tell)
    elif once:
        print(made.answer("").body.decode(), end="")
    elif otlp is not None:
        from ..views.exporter.otlp import Pusher

        push = Pusher(otlp, made.samples, clock)
        say(f"nicety: pushing to {escaped(otlp)} every {pause:g} s; Ctrl-C ends it")
        with suppress(KeyboardInterrupt), ended_by_signals():
            repeat(push.push, pause, clock, tell)
    else:
        from ..views.exporter.server import Server

        server = Server(listen, made.answer)
        try:
            where = listen if listen.startswith("unix:") else f"http://{listen}/metrics"
            made.answer(OPEN)  # the first text takes three times as long as those after it
            gc.freeze()  # all modules stay; looking among them for garbage takes 9 ms of a scrape now and then
            say(f"nicety: metrics at {escaped(where)}; Ctrl-C ends it")
            with suppress(KeyboardInterrupt), ended_by_signals():
                server.serve_forever()
        finally:
            server.close()


def frame_source(context: typer.Context, config: str | None, state_dir: str | None) -> FrameSource:
    """The frames of the daemon that the options name."""
    from ..config.runtime import frames_to_read
    from ..views.source import FrameSource

    loaded, paths = load_files(context, config, state_dir)
    return FrameSource(frames_to_read(loaded.config.daemon.frame, paths.root, os.environ))


def tell(text: str) -> None:
    """Say something while the command goes on."""
    say(f"nicety: {escaped(text)}")
