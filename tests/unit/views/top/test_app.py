"""The view as textual draws it: the lines of the desk, keys and clicks, and jobs beside the screen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from nicety.scheduler.testing.frames import a_frame
from nicety.scheduler.testing.top import AnsweringDaemon, LiveFrames, RecordedSeconds, StandingClock
from nicety.scheduler.views.top.app import Top
from nicety.scheduler.views.top.bookmarks import Bookmarks
from nicety.scheduler.views.top.desk import Desk, Job
from nicety.scheduler.views.top.glyphs import BLOCKS
from nicety.scheduler.views.top.palette import Colours
from nicety.scheduler.views.top.tables import Tab


class Stage:
    """A view without a terminal."""

    def __init__(self, tmp_path: Path, colours: Colours = Colours.MANY) -> None:
        self.live, self.past, self.daemon = LiveFrames(a_frame()), RecordedSeconds(), AnsweringDaemon()
        self.desk = Desk(self.live, lambda: self.past, self.daemon, Bookmarks(tmp_path / "b.json"), StandingClock(), BLOCKS)
        self.app = Top(self.desk, colours)

    def play(self, act: Callable[[Pilot[None]], Awaitable[None]], size: tuple[int, int] = (100, 30)) -> None:
        async def run() -> None:
            async with self.app.run_test(size=size) as pilot:
                await act(pilot)

        asyncio.run(run())

    def text(self) -> str:
        canvas = self.app._canvas
        return "\n".join(canvas.render_line(y).text for y in range(canvas.size.height))


async def until(pilot: Pilot[Any], holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        await pilot.pause(0.01)
    raise AssertionError("it did not come")


@pytest.mark.parametrize("colours", Colours)
def test_the_lines_are_those_of_the_desk(tmp_path: Path, colours: Colours) -> None:
    stage = Stage(tmp_path, colours)

    async def act(_: Pilot[None]) -> None:
        screen = stage.desk.screen(100, 30)
        assert stage.text() == "\n".join("".join(text for text, _ in line) for line in screen.lines)
        assert "ffmpeg" in stage.app.export_screenshot()

    stage.play(act)


def test_keys_clicks_and_the_wheel_reach_the_desk(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    async def act(pilot: Pilot[None]) -> None:
        await pilot.press("down")
        assert stage.desk.view.table.cursor == "web"
        tab = next(place for place in stage.desk.screen(100, 30).places if place.what == "tab" and place.name == Tab.POOLS)
        await pilot.click(offset=(tab.begin + 1, tab.y))
        assert stage.desk.view.tab is Tab.POOLS
        await pilot.press("1", "slash", *"red", "enter")
        assert stage.desk.view.table.filter == "red"
        assert 'with "red"' in stage.text()
        await pilot.resize_terminal(60, 12)
        await pilot.pause()
        assert [len(line) for line in stage.text().splitlines()] == [60] * 12
        await pilot.press("q")
        assert stage.desk.ended

    stage.play(act)


def test_a_new_frame_is_drawn_and_only_where_it_differs(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    async def act(_: Pilot[None]) -> None:
        canvas = stage.app._canvas
        stage.text()
        before = dict(canvas._strips)
        stage.live.frame, stage.live.new = a_frame(seq=3600, wall=a_frame().wall + 1, notes=["new"]), True
        stage.app._look()
        stage.text()
        changed = [y for y, strip in canvas._strips.items() if strip is not before[y]]
        assert 0 in changed  # the clock
        assert len(changed) < 8
        assert "6 notes 1" in stage.text()

    stage.play(act)


def test_a_job_does_not_hold_the_screen_up(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    goes_on, threads = threading.Event(), set[int]()

    def why(target: str) -> str:
        threads.add(threading.get_ident())
        assert goes_on.wait(30)
        return f"because of {target}"

    stage.daemon.why = why  # type: ignore[method-assign]

    async def act(pilot: Pilot[None]) -> None:
        await pilot.press("w")
        await pilot.press("down", "down")
        assert stage.desk.view.table.cursor == "redis"
        assert "asking why" in stage.text()
        goes_on.set()
        await until(pilot, lambda: "because of 5e551017-3598.0" in stage.text())
        assert threading.get_ident() not in threads

    stage.play(act)


def test_of_many_steps_only_the_newest_is_read_and_all_by_one_thread(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    goes_on, began, threads = threading.Event(), threading.Event(), list[int]()
    done = list[object]()

    def work(number: int) -> int:
        threads.append(threading.get_ident())
        began.set()
        assert goes_on.wait(30)
        return number

    async def act(pilot: Pilot[None]) -> None:
        for number in range(5):
            stage.app._begin([Job("past", partial(work, number), done.append)])
            assert began.wait(30)
        goes_on.set()
        await until(pilot, lambda: len(done) == 2)
        assert done == [0, 4]
        assert len(set(threads)) == 1

    stage.play(act)


def test_the_past_on_the_screen(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    async def act(pilot: Pilot[None]) -> None:
        await pilot.press("left")
        await until(pilot, lambda: "THE PAST" in stage.text())
        await pilot.press("end")
        assert "live" in stage.text()

    stage.play(act)
