"""Sends the frames of a daemon to all open pages as server-sent events (HTML standard, section 9.2). Encodes each once.

A page gets a whole frame first, then what changed. It says with `Last-Event-ID` what it has, and gets what came since.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ...frame import Frame
from ..source import FrameSource

LOOK_SECONDS = 0.25
"""Between two looks for a new frame (chosen): a look takes 3 us, and a person does not see the difference."""

MOST_PAGES = 64
"""Pages open at once (chosen): each may hold 64 kB of what its connection has not taken yet."""

MOST_WAITING = 16
"""Events that a page may be behind before it is dropped (chosen: some seconds). It connects again and gets a whole frame."""

REMEMBERED = 64
"""Events that are kept for pages that connect again (chosen: a minute)."""


class FullError(Exception):
    """Too many pages are open. The message says what to do."""


class Page:
    """One open page: events that it has not been sent yet; None ends it."""

    def __init__(self, first: Sequence[bytes]) -> None:
        """`first`: events to begin with."""
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue()
        for event in first:
            self.events.put_nowait(event)
        self._most = len(first) + MOST_WAITING

    def put(self, event: bytes) -> bool:
        """Queue an event. Returns False for a page that does not keep up; it is ended."""
        keeps_up = self.events.qsize() < self._most
        self.events.put_nowait(event if keeps_up else None)
        return keeps_up


class Live:
    """What is live now, and the pages that follow it."""

    def __init__(self, source: FrameSource, wall: Callable[[], float]) -> None:
        """`wall`: seconds since 1970."""
        self._source, self._wall = source, wall
        self._run = secrets.token_hex(4)  # another one after a restart, so that no event of before counts as known
        self._number = 0
        self._pages: set[Page] = set()
        self._frame: Frame | None = None
        self._nothing = "nothing was read yet"
        self._recent: deque[tuple[int, bytes]] = deque(maxlen=REMEMBERED)

    @property
    def pages(self) -> int:
        """How many are open."""
        return len(self._pages)

    async def follow(self) -> None:
        """Send new frames, until it is cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Send a frame if there is a new one, or why there is none."""
        changed, frame = self._source.look(), self._source.frame
        if frame is None:
            self._quiet(self._source.trouble or "the daemon is not running; start it with `nicety run`")
        elif changed:
            before, self._frame, self._nothing = self._frame, frame, ""
            if before is None or before.own.session != frame.own.session:
                self._recent.clear()
                self._send("frame", _whole(frame))
            else:
                self._send("change", changes(before, frame))
        elif self._source.late(self._wall()):
            self._quiet("the daemon is late: its last frame is some seconds old")

    def join(self, last: str) -> Page:
        """A new page. `last`: id of the event that it had last, "" for none. Raises FullError."""
        if len(self._pages) >= MOST_PAGES:
            raise FullError(f"{MOST_PAGES} pages are open already; close one")
        first = self._since(last)
        if first is None:
            first = [] if self._frame is None else [self._event("frame", _whole(self._frame))]
            first += [self._event("quiet", {"why": self._nothing})] if self._nothing else []
        page = Page(first)
        self._pages.add(page)
        return page

    def _since(self, last: str) -> list[bytes] | None:
        """The events after one; None if it is not known any more."""
        run, _, number = last.partition("-")
        if run != self._run or not number.isascii() or not number.isdecimal() or len(number) > 18:
            return None
        if int(number) == self._number:
            return []
        missed = [it for it in self._recent if it[0] > int(number)]
        return [event for _, event in missed] if missed and missed[0][0] == int(number) + 1 else None

    def leave(self, page: Page) -> None:
        """A page was closed."""
        self._pages.discard(page)

    def close(self) -> None:
        """End all pages."""
        for page in self._pages:
            page.events.put_nowait(None)
        self._pages.clear()

    def _quiet(self, why: str) -> None:
        if why != self._nothing:
            self._nothing = why
            if self._source.frame is None:
                self._frame = None
            self._send("quiet", {"why": why})

    def _send(self, kind: str, value: object) -> None:
        self._number += 1
        event = self._event(kind, value)
        self._recent.append((self._number, event))
        self._pages = {page for page in self._pages if page.put(event)}

    def _event(self, kind: str, value: object) -> bytes:
        return b"id: %b-%d\nevent: %b\ndata: %b\n\n" % (
            self._run.encode(),
            self._number,
            kind.encode(),
            msgspec.json.encode(value),  # without line breaks: JSON escapes them
        )


def _whole(frame: Frame) -> dict[str, Any]:
    """What a page needs of a frame: all but the processes."""
    parts = ("seq", "wall", "measured", "own", "machine", "groups", "pools", "incidents", "decisions", "notes")
    return {name: getattr(frame, name) for name in parts}


def changes(before: Frame, after: Frame) -> dict[str, Any]:
    """What a page that has `before` needs to have `after`."""
    found: dict[str, Any] = {"seq": after.seq, "wall": after.wall, "measured": after.measured, "own": after.own}
    found["machine"] = after.machine
    for name in ("groups", "pools"):
        old = {it.name: it for it in getattr(before, name)}
        new = {it.name: it for it in getattr(after, name)}
        found[name] = [it for key, it in new.items() if old.get(key) != it]
        found[f"{name}_gone"] = [key for key in old if key not in new]
    for name in ("incidents", "decisions", "notes"):
        if getattr(before, name) != getattr(after, name):
            found[name] = getattr(after, name)
    return found
