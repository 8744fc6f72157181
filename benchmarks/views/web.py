"""What does `nicety web` cost: to the daemon with 50 pages open, in memory, in script, and how soon is a day of 200 groups drawn?

    python -m benchmarks.views.web [--rounds 8] [--seconds 8] [--pictures DIR] [--json FILE]

A daemon observes this machine. Windows with 50 pages and with none take turns, and the median of the ratios of neighbours is the
claim: other load changes both. The day is written by the real writers, a tick every five seconds; the page reads it in the
background first, and is then asked for it by a real Chromium. `--pictures` keeps what that saw. Takes six minutes.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

from nicety.scheduler.frame import pack
from nicety.scheduler.interpreter import PYTHON
from nicety.scheduler.testing.browser import Browser
from nicety.scheduler.testing.frames import a_frame, a_shown_group, a_shown_pool
from nicety.scheduler.testing.past import names_of, write_past, write_traces

from .. import ROOT
from ..claims import Claims

PAGES = 50
GROUPS = 200
STEP = 5.0  # seconds between ticks of the day
SCRIPTS = ("page.js",)
NAMED = ("postgres", "nginx", "python3 report.py", "redis-server", "ffmpeg", "python3 -m mail.send", "make", "backup.sh")
"""The groups that use most; the others have numbers."""


class Web:
    """`nicety web` of a state directory."""

    def __init__(self, state: Path, config: Path | None = None) -> None:
        options = [*(("--config", str(config)) if config else ()), "--state-dir", str(state)]
        self.process = subprocess.Popen(
            [*PYTHON, "-m", "nicety.scheduler", *options, "web", "--port", "0"],
            stdout=subprocess.PIPE,
            env={**os.environ, "XDG_CACHE_HOME": str(state.parent / "cache"), "PYTHONPATH": str(ROOT / "src")},
            text=True,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/(\?token=.*)", self.address)
        assert found, "nicety web did not start"
        self.port = int(found[1])
        answer = self.ask(f"/{found[2]}", "")
        self.cookie = answer.split(";")[0]

    def ask(self, path: str, cookie: str | None = None) -> str:
        """The cookie that is set, or the body."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path, headers={"Cookie": self.cookie if cookie is None else cookie})
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.headers.get("Set-Cookie") or body

    def memory(self) -> tuple[float, float]:
        """MiB that are resident now, and most so far."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = dict(re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", text))
        return int(found["VmRSS"]) / 1024, int(found["VmHWM"]) / 1024

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


class Pages:
    """Pages that follow a site, as far as the server sees: connections whose events are taken and thrown away."""

    def __init__(self, web: Web) -> None:
        self._ended = threading.Event()
        self.taken = 0
        self._sockets = []
        for _ in range(PAGES):
            connection = socket.create_connection(("127.0.0.1", web.port))
            connection.sendall(f"GET /api/live HTTP/1.1\r\nHost: localhost\r\nCookie: {web.cookie}\r\n\r\n".encode())
            connection.setblocking(False)
            self._sockets.append(connection)
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    def _take(self) -> None:
        while not self._ended.wait(0.5):
            for connection in self._sockets:
                try:
                    self.taken += len(connection.recv(1 << 20))
                except BlockingIOError:
                    continue

    def close(self) -> None:
        """Close all pages."""
        self._ended.set()
        self._thread.join()
        for connection in self._sockets:
            connection.close()


def cpu_of(pid: int) -> float:
    """Seconds of CPU time of a process and of its children."""
    pids = [pid]
    for each in pids:
        for path in Path(f"/proc/{each}/task").glob("*/children"):
            pids += map(int, path.read_text().split())
    tasks = [path for each in pids for path in Path(f"/proc/{each}/task").glob("*/schedstat")]
    return sum(int(path.read_text().split()[0]) for path in tasks) / 1e9


def daemon_beside_pages(claims: Claims, place: Path, rounds: int, seconds: float) -> dict[str, list[float]]:
    """The daemon's CPU with 50 pages and with none, in turns, and the memory of the server."""
    state = place / "live"
    daemon = subprocess.Popen(
        [*PYTHON, "-m", "nicety.scheduler", "--state-dir", str(state), "run"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    used: dict[str, list[float]] = {"none": [], "pages": []}
    try:
        while not (state / "decisions.db").exists():
            time.sleep(0.2)
        web = Web(state)
        time.sleep(10)  # the first ticks are dearer
        for _ in range(rounds):
            for kind in ("none", "pages"):
                pages = Pages(web) if kind == "pages" else None
                time.sleep(1.5)
                before, began = cpu_of(daemon.pid), time.monotonic()
                time.sleep(seconds)
                used[kind].append((cpu_of(daemon.pid) - before) / (time.monotonic() - began))
                if pages is not None:
                    now = time.time()
                    web.ask(f"/api/series?since={now - 300}&until={now}")
                    pages.close()
                    assert pages.taken > PAGES * 1000, "the pages got nothing"
        claims.at_most(f"MiB of the server with {PAGES} pages, most", round(web.memory()[1], 1), 80)
        web.stop()
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
    ratios = [with_pages / none for with_pages, none in zip(used["pages"], used["none"], strict=True)]
    claims.at_most(f"daemon's CPU with {PAGES} pages, of that with none", round(statistics.median(ratios), 4), 1.01)
    return used


def day_drawn(claims: Claims, place: Path, pictures: Path | None) -> dict[str, float]:
    """How soon a day of 200 groups is drawn."""
    state, end = place / "day", time.time_ns()
    names = [*(f"program {name}" for name in NAMED), *names_of(GROUPS - len(NAMED))]
    write_past(state, end=end, ticks=round(86400 / STEP), interval=STEP, names=names)
    write_traces(state, end=end, ticks=60, names=names)
    config, file = place / "nicety.toml", place / "frame"
    config.write_text(f'[daemon]\nframe = "{file}"\n')
    groups = [a_shown_group(name, "batch", cpu=0.3 / (1 + at), wait=0.02) for at, name in enumerate(names)]
    file.write_bytes(pack(a_frame(seq=1, wall=end / 1e9, groups=groups, pools=[a_shown_pool("web")])))
    web = Web(state, config)
    began = time.monotonic()
    while '"complete":true' not in web.ask(f"/api/series?since={end / 1e9 - 86400}&until={end / 1e9}"):
        time.sleep(1)
    found = {"seconds to read the day, once": time.monotonic() - began}
    with Browser(1440, 1000) as browser:
        browser.open(web.address)
        browser.wait("document.documentElement.dataset.loaded", 20)
        took = []
        for _ in range(5):
            for at, seconds in ((0, 300), (3, 86400)):
                began = time.monotonic()
                browser.run(f"document.querySelectorAll('#ranges button')[{at}].click()")
                browser.wait(f"document.documentElement.dataset.loaded === '{seconds}'", 30)
                if at:
                    took.append(time.monotonic() - began)
        shown = browser.run("state.data.groups.filter((group) => group.name).length")
        found["milliseconds of drawing in the browser"] = float(browser.run("document.documentElement.dataset.drawn"))
        if pictures is not None:
            _pictures(browser, pictures)
    claims.add(f"groups drawn of {GROUPS}", shown, f"= {GROUPS}", shown == GROUPS)
    claims.at_most(f"seconds to draw a day of {GROUPS} groups, first time", round(took[0], 3), 1)
    claims.at_most(f"seconds to draw a day of {GROUPS} groups, median of 5", round(statistics.median(took), 3), 1)
    claims.at_most("MiB of the server after reading the day, most", round(web.memory()[1], 1), 80)
    web.stop()
    return found


def _pictures(browser: Browser, folder: Path) -> None:
    """Pictures to look at: the day with one second of it, and in the dark its last hour."""
    x, y = browser.run(
        "(() => { const box = document.querySelector('.plot').getBoundingClientRect();"
        " return [box.x + 0.55 * box.width, box.y + box.height / 2] })()"
    )
    browser.click(x, y)
    browser.wait("document.querySelectorAll('#moment h3').length >= 5")
    time.sleep(0.5)
    browser.picture(folder / "web-light.png")
    browser.prefer("dark")
    browser.run("document.querySelector('#moment .close').click(); document.querySelectorAll('#ranges button')[1].click()")
    browser.wait("document.documentElement.dataset.loaded === '3600'")
    time.sleep(0.5)
    browser.picture(folder / "web-dark.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    claims = Claims()
    folder = ROOT / "scheduler" / "views" / "web"
    claims.at_most("kB of script", sum((folder / name).stat().st_size for name in SCRIPTS) / 1000, 80)
    with tempfile.TemporaryDirectory() as temporary:
        used = daemon_beside_pages(claims, Path(temporary), arguments.rounds, arguments.seconds)
        day = day_drawn(claims, Path(temporary), arguments.pictures)
    claims.close(arguments.json, daemon_cores=used, day=day)


if __name__ == "__main__":
    main()
