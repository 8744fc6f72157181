"""The command of the page: web."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from .shared import ConfigOption, StateOption, command, ended_by_signals, load_files, own_stores, say, system_clock


@command("web", "nicety web --port 8787")
def web(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="Port on this machine; 0: a free one.")] = 8787,
    address: Annotated[str, typer.Option(metavar="ADDRESS", help="Loopback address to listen on.")] = "127.0.0.1",
    unix_socket: Annotated[
        Path | None,
        typer.Option("--socket", metavar="FILE", help="Listen on this unix socket instead, for a reverse proxy or `ssh -L`."),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Host name by which a reverse proxy calls the page. Can be repeated.")
    ] = None,
    new_token: Annotated[bool, typer.Option("--new-token", help="Make a new token: all browsers have to sign in again.")] = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Serve a page that shows everything live, and what was.

    Prints the address to open, with a token that is kept in the file web-token of the state directory. Only browsers on this
    machine reach it. It only shows: nothing can be changed through it. Ctrl-C ends it.
    """
    from ..interpreter import load_numpy

    load_numpy()
    try:
        from ..views.web.app import make_app
        from ..views.web.serve import ListenError, address_of, listen, listen_on, loopback, serve
    except ModuleNotFoundError as error:
        say(f"nicety: the page needs {error.name}, which is not installed; in nicety's checkout, run: pip install '.[web]'")
        raise typer.Exit(1) from None
    from ..config.runtime import frames_to_read
    from ..views.source import FrameSource
    from ..views.web.archive import Archive
    from ..views.web.cache import cache_file
    from ..views.web.guard import read_token
    from ..views.web.live import Live

    loaded, paths = load_files(context, config, state_dir)
    try:
        loopback(address)
        own_stores(paths)
        listening = listen(address, port) if unix_socket is None else listen_on(unix_socket)
    except ListenError as error:
        say(f"nicety: {error}")
        raise typer.Exit(1) from None
    token = read_token(paths.stores, new=new_token)
    clock = system_clock()

    def wall() -> float:
        return clock.wall() / 1e9

    live = Live(FrameSource(frames_to_read(loaded.config.daemon.frame, paths.root, os.environ)), wall)
    archive = Archive(paths, loaded.config, cache_file(paths.root, os.environ), wall)
    if archive.rollups.trouble:
        say(f"nicety: {archive.rollups.trouble}")
    app = make_app(live, archive, token, name or ())
    if unix_socket is None:
        print(address_of(listening, token), flush=True)
        say("the page is there until Ctrl-C; keep this address to yourself, as it lets anyone on this machine in")
    else:
        print(f"http://localhost/?token={token}", flush=True)
        say(f"the page is on {unix_socket}, under that address of a proxy or of `ssh -L`, until Ctrl-C")
    try:
        with ended_by_signals():  # which the server ends by, and then passes on
            serve(app, live, [listening])
    except KeyboardInterrupt:
        say("the page is closed")
    finally:
        if unix_socket is not None:
            unix_socket.unlink(missing_ok=True)
