"""Puts the live view together: which frames, which terminal, which files. Loads textual only for a terminal that it can draw on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...config.paths import Loaded, Paths
from ...config.runtime import frames_to_read
from ...explain.logstream import ascii_json
from ...hands.clock import SystemClock
from ...printed import plain as as_builtins
from .alone import Alone
from .bookmarks import Bookmarks
from .following import Following, runs
from .glyphs import ASCII, BLOCKS, Glyphs
from .history import History
from .palette import colours_of
from .plain import Seen, plain

LOOK_NS = 100_000_000
"""ns between two looks for a new frame of the plain mode (chosen)."""

POOR = ("", "dumb", "unknown")
"""Terminals that cannot move their cursor (terminfo(5))."""

NO_BLOCKS = ("vt", "linux", "ansi")
"""Terminals, by the beginning of their names, whose letters do not have all of the block characters."""


class ViewError(Exception):
    """Nothing can be shown; the text says why."""


@contextmanager
def following(loaded: Loaded, paths: Paths, variables: Mapping[str, str]) -> Iterator[Following]:
    """The live frames of a state directory, while the block runs."""
    places = frames_to_read(loaded.config.daemon.frame, paths.root, variables)
    source = Following(places, lambda: Alone(loaded, paths.stores, variables), runs)
    try:
        yield source
    finally:
        source.close()


def draws(variables: Mapping[str, str]) -> bool:
    """Whether there is a terminal on which a screen can be drawn."""
    return sys.stdin.isatty() and sys.stdout.isatty() and variables.get("TERM", "") not in POOR


def glyphs_of(variables: Mapping[str, str]) -> Glyphs:
    """The characters for pictures on the terminal of this environment."""
    named = next((variables[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if variables.get(name)), "C")
    utf8 = named.lower().replace("-", "").endswith("utf8")
    return BLOCKS if utf8 and not variables.get("TERM", "").startswith(NO_BLOCKS) else ASCII


def on_screen(
    loaded: Loaded, paths: Paths, options: Sequence[str], variables: Mapping[str, str], colours: str, bookmarks: Path
) -> None:
    """Show the view until the person leaves. `bookmarks`: their file. Raises ImportError if textual is not there."""
    from .app import run
    from .asking import Asking
    from .desk import Desk
    from .recorded import open_past

    with following(loaded, paths, variables) as source:
        desk = Desk(
            source,
            lambda: open_past(paths.stores),
            Asking(paths.socket, options, variables),
            Bookmarks(bookmarks),
            SystemClock(),
            glyphs_of(variables),
        )
        run(desk, colours_of(variables, colours))


def as_lines(loaded: Loaded, paths: Paths, variables: Mapping[str, str], *, once: bool, as_json: bool) -> None:
    """Print each frame as lines, or as a line of JSON; or only the first one that has rates."""
    clock, history = SystemClock(), History()
    seen: tuple[str, int] | None = None
    with following(loaded, paths, variables) as source:
        while True:
            wall = clock.wall() / 1e9
            source.look(wall)
            frame = source.frame
            if frame is not None and seen != (frame.own.session, frame.seq) and (frame.measured or not once):
                seen = frame.own.session, frame.seq
                when = source.when(wall)
                if as_json:
                    print(ascii_json(as_builtins(Seen(alone=when.alone, late=when.late, said=when.said, frame=frame))), flush=True)
                else:
                    history.add(frame)
                    print("\n".join(plain(frame, history, when)), *([] if once else [""]), sep="\n", flush=True)
                if once:
                    return
            if frame is None and source.failed:
                raise ViewError(source.failed)
            clock.sleep_until(clock.monotonic() + LOOK_NS)
