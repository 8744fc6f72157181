"""The pictures of `docs/top.md`: a real daemon that acts on real load, and the view as it draws it, with the keys of a person.

    python -m benchmarks.views.pictures [--out docs/pictures] [--seconds 170]

Starts a service, a queue and batch work, and a daemon in a state directory of its own. Other processes of the machine are left out
of the pictures, and its name is replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from nicety.scheduler.config.paths import load_config, state_paths
from nicety.scheduler.config.runtime import frames_to_read
from nicety.scheduler.demo.workload import Feeder
from nicety.scheduler.explain.past import Moment, Past
from nicety.scheduler.frame import Frame, Group
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.views.source import FrameSource
from nicety.scheduler.views.top.app import Top
from nicety.scheduler.views.top.asking import Asking
from nicety.scheduler.views.top.bookmarks import Bookmarks
from nicety.scheduler.views.top.desk import Desk
from nicety.scheduler.views.top.glyphs import BLOCKS
from nicety.scheduler.views.top.head import When
from nicety.scheduler.views.top.palette import Colours

from .. import ROOT

SIZE = (120, 36)

OURS = ("web", "spool", "encode", "checkout", "search", "report", "thumbnails")
"""Groups in the pictures."""

CONFIG = """
[daemon]
budget = 0.1
probe_interval = 0.05

[pools.web]
kind = "gunicorn"
pidfile = "{pidfile}"
minimum = 2
maximum = 8
class = "interactive"
objective = {{ p95 = "300ms" }}

[pools.spool]
kind = "command"
command = ["{python}", "{worker}", "{spool}"]
initial = 3
minimum = 3
maximum = 6
drain_timeout = 5
[pools.spool.queue]
files = "{spool}/new/*"
every = 0.4

[models]
behaviour = false

[groups.encode]
program = "python* encode.py"
class = "batch"
[groups.checkout]
program = "python* checkout.py"
class = "interactive"
[groups.search]
program = "python* search.py"
class = "interactive"
[groups.report]
program = "python* report.py"
class = "batch"
[groups.thumbnails]
program = "python* thumbnails.py"
class = "batch"
"""

PROGRAM = """
import math, time
busy, idle, wave, period = {figures}
began = time.monotonic()
while True:
    part = busy * max(0.02, 1 + wave * math.sin(2 * math.pi * (time.monotonic() - began) / period))
    end = time.monotonic() + part
    while time.monotonic() < end:
        pass
    time.sleep(idle)
"""

PROGRAMS = {
    "checkout": (0.006, 0.034, 0.6, 23.0),
    "search": (0.02, 0.15, 0.9, 37.0),
    "report": (0.25, 0.45, 1.6, 41.0),
    "encode": (0.5, 0.1, 1.9, 53.0),
    "thumbnails": (0.12, 0.4, 0.8, 17.0),
}
"""Seconds of work and rest, how much the work changes, and in how many seconds."""


@contextmanager
def stage(directory: Path) -> Iterator[Path]:
    """Loads and a daemon that acts on them; gives the configuration."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> None:
        started.append(subprocess.Popen(words, cwd=directory, start_new_session=True, stderr=subprocess.DEVNULL))

    pidfile, port = directory / "gunicorn.pid", free_port()
    config = directory / "nicety.toml"
    worker = ROOT / "scheduler/demo/worker.py"
    config.write_text(CONFIG.format(pidfile=pidfile, python=sys.executable, worker=worker, spool=directory / "spool"))
    feeder = Feeder(directory / "spool")
    feeder.start()
    try:
        service = ["-m", "gunicorn", "-w", "3", "-b", f"127.0.0.1:{port}", "--pid", str(pidfile), "--log-level", "error"]
        start(sys.executable, *service, "nicety.scheduler.demo.app:application")
        for name, figures in PROGRAMS.items():
            (directory / f"{name}.py").write_text(PROGRAM.format(figures=figures))
            start(sys.executable, f"{name}.py")
        start(sys.executable, "-m", "nicety.scheduler.demo.load", str(port), "600", str(directory / "latencies"))
        command = [sys.executable, "-m", "nicety.scheduler", "--config", str(config), "--state-dir", str(directory / "state")]
        daemon = subprocess.Popen([*command, "run", "--act"], stderr=subprocess.DEVNULL)
        try:
            yield config
        finally:
            daemon.terminate()
            daemon.wait(60)
    finally:
        feeder.end()
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ours(frame: Frame) -> Frame:
    """A frame without what else runs on this machine."""
    rows = [row for row, group in enumerate(frame.processes.group) if group in OURS]
    columns = {
        name: [getattr(frame.processes, name)[row] for row in rows]
        for name in frame.processes.__struct_fields__
        if name != "left_out"
    }
    columns["name"] = [name if name != "python" else "python3" for name in columns["name"]]
    kept = {f"group {name}" for name in OURS} | {f"pool {name}" for name in OURS}
    return msgspec.structs.replace(
        frame,
        machine=msgspec.structs.replace(frame.machine, name="shop-1"),
        groups=[delayed_by_ours(group) for group in frame.groups if group.name in OURS],
        processes=msgspec.structs.replace(frame.processes, **columns, left_out=0),
        decisions=[it for it in frame.decisions if any(it.target.startswith(name) for name in kept)],
        notes=[],
    )


def delayed_by_ours(group: Group) -> Group:
    """A group of which nobody else is blamed by name."""
    if group.delay is None:
        return group
    by = [(name, cores) for name, cores in group.delay.by if name in OURS]
    others = group.delay.others + sum(cores for name, cores in group.delay.by if name not in OURS)
    return msgspec.structs.replace(group, delay=msgspec.structs.replace(group.delay, by=by, others=others))


class Filtered:
    """The daemon's frames without what else runs here."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self.frame: Frame | None = None

    def look(self, _wall: float) -> bool:
        """Look for a new frame."""
        changed = self._source.look()
        if changed and self._source.frame is not None:
            self.frame = ours(self._source.frame)
        return changed

    def when(self, _wall: float) -> When:
        """The present."""
        return When()


class FilteredPast(Past):
    """What was recorded, without what else ran here."""

    def at(self, wall: float) -> Moment:
        """As of `Past`."""
        return self._without(super().at(wall))

    def step(self, ticks: int) -> Moment:
        """As of `Past`."""
        return self._without(super().step(ticks))

    def _without(self, found: Moment) -> Moment:
        return Moment(None if found.frame is None else ours(found.frame), found.said, found.before)


async def pictures(config: Path, state: Path, out: Path, seconds: float) -> None:
    """Watch the view, and keep pictures of it."""
    loaded = load_config(str(config), os.environ, os.geteuid())
    paths = state_paths(loaded.config, str(state), os.environ, os.geteuid())
    source = Filtered(FrameSource(frames_to_read("", paths.root, os.environ)))
    options = ["--config", str(config), "--state-dir", str(state)]
    desk = Desk(
        source,
        lambda: FilteredPast(paths.stores, "shop-1"),
        Asking(paths.socket, options, os.environ),
        Bookmarks(state / "bookmarks.json"),
        SystemClock(),
        BLOCKS,
    )
    app = Top(desk, Colours.MANY)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: source.frame is not None and source.frame.own.ticks > seconds)
        await pilot.press("down")
        await pilot.pause(1.0)
        (out / "top-live.svg").write_text(plain_font(app.export_screenshot(title="nicety top")))
        for key in ("shift+left", "left", "left", "down"):
            await pilot.press(key)
            await pilot.pause(1.5)
        await pilot.press("b", *"the load rose", "enter")
        await pilot.pause(9.0)
        (out / "top-past.svg").write_text(plain_font(app.export_screenshot(title="nicety top, a minute ago")))


def free_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until(pilot: Any, holds: Callable[[], bool]) -> None:
    """Wait for something to hold."""
    end = time.monotonic() + 300
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError("the daemon wrote no frames")
        await pilot.pause(0.5)


def plain_font(svg: str) -> str:
    """A picture that loads nothing: with the fonts of the machine on which it is looked at."""
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    return re.sub(r"font-family: (?:Fira Code|arial)[^;]*;", "font-family: 'DejaVu Sans Mono', Menlo, Consolas, monospace;", svg)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/pictures", help="where to write them")
    parser.add_argument("--seconds", type=float, default=170.0, help="how long the load runs before the first")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with stage(directory) as config:
            asyncio.run(pictures(config, directory / "state", options.out, options.seconds))
    for path in sorted(options.out.glob("top-*.svg")):
        print(f"{path.name}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
