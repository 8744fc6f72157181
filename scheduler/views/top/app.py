"""The view on a terminal: draws the lines of the desk, gives it keys and clicks, and runs its jobs beside the screen."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Any

from textual import events
from textual.app import App, ComposeResult
from textual.drivers.linux_driver import LinuxDriver
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from .cells import Line, filled
from .desk import Desk, Job
from .page import Screen
from .palette import Colours, segments

LOOK_SECONDS = 0.2
"""Seconds between two looks for a new frame (chosen): one takes 3 us, and a person sees no shorter delay."""


class Canvas(Widget, can_focus=True):
    """The whole screen as lines. Only those that change are drawn again."""

    DEFAULT_CSS = "Canvas { width: 1fr; height: 1fr; }"

    def __init__(self, desk: Desk, colours: Colours) -> None:
        super().__init__()
        self._desk, self._colours = desk, colours
        self._lines: list[tuple[Line, bool]] = []
        self._strips: dict[int, Strip] = {}

    def update(self) -> None:
        """Draw what has changed."""
        width, height = self.size
        if width < 1 or height < 1:
            return
        screen: Screen = self._desk.screen(width, height)
        lines = [(line, at == screen.chosen) for at, line in enumerate(screen.lines)]
        if len(lines) != len(self._lines):
            self._lines, self._strips = lines, {}
            self.refresh()
            return
        changed = [at for at, (line, before) in enumerate(zip(lines, self._lines, strict=True)) if line != before]
        self._lines = lines
        for at in changed:
            self._strips.pop(at, None)
        if changed:
            self.refresh(*(Region(0, at, width, 1) for at in changed))

    def again(self) -> None:
        """Draw everything: somebody else wrote to the terminal meanwhile."""
        self._lines, self._strips = [], {}
        self.update()
        self.screen.refresh(layout=True)

    def render_line(self, y: int) -> Strip:
        """A line of the terminal."""
        width = self.size.width
        strip = self._strips.get(y)
        if strip is None or strip.cell_length != width:
            line, chosen = self._lines[y] if y < len(self._lines) else ((), False)
            strip = self._strips[y] = Strip(segments(filled(line, width), self._colours, chosen), width)
        return strip

    def on_resize(self, _: events.Resize) -> None:
        """The terminal has another size."""
        self._strips = {}
        self.update()

    def on_key(self, event: events.Key) -> None:
        """A key."""
        event.stop()
        event.prevent_default()
        if event.key == "ctrl+z":
            self.app.action_suspend_process()
            return
        self._desk.key(event.key, event.character if event.is_printable else None)
        self._after()

    def on_paste(self, event: events.Paste) -> None:
        """A text at once."""
        self._desk.pasted(event.text)
        self._after()

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """A button of the mouse."""
        self._desk.clicked(event.x, event.y)
        self._after()

    def on_mouse_scroll_up(self, _: events.MouseScrollUp) -> None:
        """The wheel."""
        self._desk.wheeled(-3)
        self._after()

    def on_mouse_scroll_down(self, _: events.MouseScrollDown) -> None:
        """The wheel."""
        self._desk.wheeled(3)
        self._after()

    def _after(self) -> None:
        app = self.app
        assert isinstance(app, Top)
        app.after()


class Terminal(LinuxDriver):
    """Textual's terminal, that also survives a SIGSTOP: without this a second thread reads keys from then on, and never ends."""

    def _sigcont_application(self, *given: object) -> None:
        if self._auto_restart and not self._must_signal_resume:
            self.suspend_application_mode()
            self._must_signal_resume = True
        super()._sigcont_application(*given)


class Lane:
    """A thread for the jobs of one name: a database may only be used by the thread that opened it. Nobody waits for its end."""

    def __init__(self, came: Callable[[Job, Any], None]) -> None:
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._came = came
        threading.Thread(target=self._work, daemon=True).start()

    def do(self, job: Job) -> None:
        """Have a job done."""
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            self._came(job, job.work())


class Top(App[None]):
    """`nicety top`."""

    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = "Canvas"
    TITLE = "nicety top"

    def __init__(self, desk: Desk, colours: Colours) -> None:
        super().__init__(Terminal, ansi_color=colours is not Colours.MANY)
        self._desk = desk
        self._canvas = Canvas(desk, colours)
        self._busy: set[str] = set()
        self._waiting: dict[str, Job] = {}
        self._lanes: dict[str, Lane] = {}

    def compose(self) -> ComposeResult:
        """One widget."""
        yield self._canvas

    def on_mount(self) -> None:
        """Begin to look."""
        self.app_resume_signal.subscribe(self, lambda _: self._canvas.again())
        self._desk.look()
        self._canvas.update()
        self.set_interval(LOOK_SECONDS, self._look)

    def after(self) -> None:
        """Something was pressed: draw, and begin what is to be done."""
        if self._desk.ended:
            self.exit()
            return
        self._begin(self._take())
        self._canvas.update()

    def _take(self) -> list[Job]:
        jobs, self._desk.jobs = self._desk.jobs, []
        return jobs

    def _begin(self, jobs: Iterable[Job]) -> None:
        """Have jobs done, of each name one at a time: of those that wait only the newest is done."""
        for job in jobs:
            if job.name in self._busy:
                self._waiting[job.name] = job
                continue
            self._busy.add(job.name)
            if job.name not in self._lanes:
                self._lanes[job.name] = Lane(self._came)
            self._lanes[job.name].do(job)

    def _came(self, job: Job, result: Any) -> None:
        """A job is done. Called by its thread."""
        try:
            self.call_from_thread(self._done, job, result)
        except RuntimeError:
            pass  # the view has ended meanwhile

    def _done(self, job: Job, result: Any) -> None:
        self._busy.discard(job.name)
        job.done(result)
        waiting = self._waiting.pop(job.name, None)
        self._begin([*([waiting] if waiting else []), *self._take()])
        self._canvas.update()

    def _look(self) -> None:
        if _hung_up():
            self.exit()
            return
        if self._desk.look():
            self._canvas.update()


def _hung_up() -> bool:
    """Whether the terminal is gone. Textual reads on and on then."""
    if not sys.__stdin__:
        return True
    poll = select.poll()
    try:
        poll.register(sys.__stdin__.fileno(), 0)
        return any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))
    except (OSError, ValueError):
        return True


def run(desk: Desk, colours: Colours) -> None:
    """Show the view until the person leaves, or the terminal goes."""
    if colours is Colours.NONE:
        os.environ["NO_COLOR"] = "1"  # which textual and rich obey
    app = Top(desk, colours)

    def leave(*_: object) -> None:
        app.call_later(app.exit)

    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, leave)
    app.run()
