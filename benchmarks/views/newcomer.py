"""How long does a newcomer wait for a first answer, and how many commands does it take?

    python -m benchmarks.views.newcomer [--json FILE] [--look DIR]

Types what a person would type, in terminals of 120 columns and 36 lines, beside a small web service that four hogs slow down: from
`git clone` (of this checkout) to the answers to four questions. Packages are downloaded anew. Each line that is entered is a
command, and each key of the view is counted. What a person needs to read and to type is not in the seconds. Grafana is no package
of Debian: the last question ends when Prometheus (Debian's) has answered the queries of all panels that are asked of a machine
without pools and incidents.

Needs git, Python 3.11, Prometheus, a network, and ten minutes. As root it runs in a mount namespace of its own with empty /run and
/var/lib, so that the daemon of this machine, if there is one, is not disturbed. `--look`: keeps the screens with the answers.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import pyte

from ..claims import Claims

COLUMNS, LINES = 120, 36
MINUTES = {"top": 3, "observe": 4, "back in time": 5, "team": 10}
"""Bounds of issue 26."""

PATIENCE = 900.0
"""Seconds for one step (chosen)."""

NIGHT = 60.0
"""Seconds without hogs, before somebody asks what was before (chosen)."""

PORT, QUERIES = 18080, 19090

INSIDE = "NICETY_NEWCOMER_INSIDE"
PROMPT = r"ready \#$"
"""What it shows is another one after each command."""

SHOP = f"""
import hashlib, http.server
class Shop(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        for _ in range(40):
            hashlib.sha256(bytes(1 << 16)).digest()
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", {PORT}), Shop).serve_forever()
"""
CUSTOMER = f"""
import time, urllib.request
while True:
    try:
        urllib.request.urlopen("http://127.0.0.1:{PORT}/", timeout=30).read()
    except OSError:
        pass
    time.sleep(.02)
"""
HOG = """
import hashlib
while True:
    hashlib.sha256(bytes(1 << 20)).digest()
"""

PANELS_WITHOUT_DATA = ("changed_processes", "pool", "incident", "anomal", "effect", "outcome", "refus", "reduced", "trouble")
"""Words of the metrics of panels that have nothing to show of an observing daemon on such a machine."""


@dataclass(frozen=True)
class Answer:
    """The answer to one question: `minutes` since it was asked, and what was entered meanwhile."""

    question: str
    minutes: float
    commands: tuple[str, ...]
    keys: int


class Terminal:
    """A shell in a terminal, and what a person sees of it."""

    def __init__(self, place: Path) -> None:
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._drawing = threading.Lock()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
            os.chdir(place)
            kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
            more = {
                "TERM": "xterm-256color",
                "COLORTERM": "truecolor",
                "LANG": "C.UTF-8",
                "PS1": PROMPT + " ",
                "PIP_NO_CACHE_DIR": "1",
            }
            os.execvpe("bash", ["bash", "--norc", "--noprofile"], {**kept, **more})
        self.entered = list[str]()
        self._lines = 0
        threading.Thread(target=self._draw, daemon=True).start()
        self.keys = 0
        self.shell()

    def _draw(self) -> None:
        stream = pyte.ByteStream(self._screen)
        with suppress(OSError):  # it is closed
            while data := os.read(self._fd, 1 << 16):
                with self._drawing:
                    stream.feed(data)

    def text(self) -> str:
        """The screen."""
        with self._drawing:
            return "\n".join(line.rstrip() for line in self._screen.display)

    def until(self, what: str, holds: Callable[[str], bool], seconds: float = PATIENCE) -> None:
        """Wait until the screen shows something. Raises TimeoutError, with the screen."""
        end = time.monotonic() + seconds
        while True:
            time.sleep(0.1)
            if holds(self.text()):
                return
            if time.monotonic() > end:
                raise TimeoutError(f"{what} did not come:\n{self.text()}")

    def shell(self) -> None:
        """Wait for the next prompt. It may be anywhere: this terminal has no second screen for a view."""
        prompt = PROMPT.replace(r"\#", str(self._lines + 1))
        self.until("the prompt", lambda text: prompt in text)

    def enter(self, line: str, wait: bool = True) -> None:
        """Type a command; `wait`: until the prompt is back."""
        self.entered.append(line)
        self._lines += 1
        os.write(self._fd, line.encode() + b"\n")
        if wait:
            self.shell()

    def press(self, keys: str) -> None:
        """Press keys of a view."""
        self.keys += len(keys)
        for key in keys:
            os.write(self._fd, key.encode())
            time.sleep(0.05)

    def close(self) -> None:
        """End what runs in it."""
        with suppress(ProcessLookupError):
            os.killpg(os.tcgetpgrp(self._fd), signal.SIGTERM)
            time.sleep(2.0)  # what it started ends by itself
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)


@contextmanager
def scene(place: Path) -> Iterator[Callable[[], None]]:
    """A service, its customers and four hogs, each in a session of its own; what is given ends the hogs."""
    started: dict[str, list[subprocess.Popen[bytes]]] = {}
    for name, text, count in (("shop", SHOP, 1), ("customer", CUSTOMER, 3), ("encode", HOG, 4)):
        (place / f"{name}.py").write_text(text)
        words = ["setpriv", "--pdeathsig", "KILL", sys.executable, str(place / f"{name}.py")]
        started[name] = [subprocess.Popen(words, start_new_session=True) for _ in range(count)]

    def end(name: str) -> None:
        for process in started.pop(name, []):
            process.kill()
            process.wait()

    try:
        yield lambda: end("encode")
    finally:
        for name in list(started):
            end(name)


def delayed(text: str) -> bool:
    """Whether the view says that the hogs delay the service."""
    return any(re.search(r"shop\.py\b.*encode\.py", line) for line in text.splitlines())


def install(terminal: Terminal, checkout: Path) -> None:
    """From nothing to the live view."""
    terminal.enter(f"git clone -q {checkout} nicety && cd nicety")
    terminal.enter("python3.11 -m venv .venv")
    terminal.enter(".venv/bin/pip install -q '.[tui]'")


@dataclass(frozen=True)
class Asked:
    """When a question came up, and how many (lines, keys) each terminal had taken by then."""

    at: float
    before: dict[int, tuple[int, int]]


class Run:
    """One newcomer."""

    def __init__(self, place: Path, look: Path | None) -> None:
        self.place, self.look = place, look
        self.terminals = list[Terminal]()
        self.answers = list[Answer]()

    def terminal(self, where: Path | None = None) -> Terminal:
        """A new one, in the checkout."""
        self.terminals.append(Terminal(where or self.place / "nicety"))
        return self.terminals[-1]

    def asked(self) -> Asked:
        """A question comes up now."""
        return Asked(time.monotonic(), {id(each): (len(each.entered), each.keys) for each in self.terminals})

    def answered(self, question: str, asked: Asked, seen: str, before: Answer | None = None) -> None:
        """Note the answer to a question, with what came before if that is needed for this one too."""
        minutes = (time.monotonic() - asked.at) / 60
        commands, keys = list[str](), 0
        for terminal in self.terminals:
            lines, pressed = asked.before.get(id(terminal), (0, 0))
            commands += terminal.entered[lines:]
            keys += terminal.keys - pressed
        if before is not None:
            minutes += before.minutes
            commands = [*before.commands, *commands]
        self.answers.append(Answer(question, minutes, tuple(commands), keys))
        print(f"{question}: {60 * minutes:.0f} s, {len(commands)} commands, {keys} keys", flush=True)
        if self.look is not None:
            (self.look / f"{question.replace(' ', '-')}.txt").write_text(seen + "\n")


def prometheus_answers(dashboard: Path) -> tuple[int, list[str]]:
    """(how many queries of the dashboard there are, those that have no data)."""
    told = json.loads(dashboard.read_text())
    panels = [each for panel in told["panels"] for each in (panel, *panel.get("panels", ()))]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    filled = [
        re.sub(r"\$__rate_interval|\$__interval|\$__range", "1m", re.sub(r"=~?\"\$\w+\"", '=~".*"', query)) for query in queries
    ]
    empty = list[str]()
    for query in filled:
        about = f"http://127.0.0.1:{QUERIES}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(about, timeout=10) as answer:
            if not json.load(answer)["data"]["result"] and not any(word in query for word in PANELS_WITHOUT_DATA):
                empty.append(query)
    return len(filled), empty


def team(run: Run, running: Answer) -> None:
    """From the running daemon to what the team sees."""
    asked = run.asked()
    first, second = run.terminal(), run.terminal()
    first.enter(".venv/bin/pip install -q '.[metrics]'")
    first.enter(".venv/bin/nicety exporter", wait=False)
    second.enter("cp configs/prometheus/scrape.yml configs/prometheus/alerts.yml .")
    second.enter("sed -i 's,/etc/prometheus/nicety/,,' scrape.yml")
    second.enter(
        f"prometheus --config.file scrape.yml --storage.tsdb.path metrics --web.listen-address 127.0.0.1:{QUERIES}", wait=False
    )
    dashboard, end, seen = run.place / "nicety" / "configs" / "grafana" / "nicety.json", asked.at + PATIENCE, "no answer yet"
    while time.monotonic() < end:
        time.sleep(2.0)
        with suppress(OSError):
            count, empty = prometheus_answers(dashboard)
            seen = f"{count} queries; without data: {empty}"
            if not empty:
                run.answered("team", asked, seen, running)
                return
    raise TimeoutError(f"Prometheus has not all data: {seen}\n{first.text()}\n{second.text()}")


def play(run: Run, checkout: Path, end_hogs: Callable[[], None]) -> None:
    """All questions, in the order in which they come up."""
    asked = run.asked()
    view = run.terminal(run.place)
    install(view, checkout)
    installed = Answer("installation", (time.monotonic() - asked.at) / 60, tuple(view.entered), 0)
    view.enter(".venv/bin/nicety top", wait=False)
    view.until("who slows down the service", delayed)
    run.answered("top", asked, view.text())
    view.press("q")
    view.shell()

    asked = run.asked()
    daemon, other = run.terminal(), run.terminal()
    daemon.enter(".venv/bin/nicety run", wait=False)
    end = time.monotonic() + PATIENCE
    while "encode.py" not in other.text():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing would be changed:\n{other.text()}\n{daemon.text()}")
        time.sleep(5.0)
        other.entered.clear()  # a person looks once; only this program cannot know when
        other.enter("clear; .venv/bin/nicety decisions")
    run.answered("observe", asked, other.text(), installed)

    slow = time.strftime("%H:%M:%S")
    time.sleep(5.0)
    end_hogs()
    time.sleep(NIGHT)
    asked, running = run.asked(), Answer("daemon", installed.minutes, (*installed.commands, *daemon.entered), 0)
    view.enter("clear; .venv/bin/nicety top", wait=False)
    view.until("the present", lambda text: "shop.py" in text and not delayed(text))
    view.press("g")
    view.press(slow + "\r")
    view.until("who slowed it down then", delayed)
    run.answered("back in time", asked, view.text(), running)
    view.press("q")
    team(run, running)


def main() -> None:
    """Ask the questions and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the claims and all figures to this file")
    parser.add_argument("--look", type=Path, metavar="DIR", help="write the screens with the answers to this directory")
    arguments = parser.parse_args()
    if os.geteuid() == 0 and INSIDE not in os.environ:
        hidden = 'mount -t tmpfs none /var/lib && mount -t tmpfs none /run && exec "$@"'
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", hidden, "sh", sys.executable, "-m"]
        os.execvpe(words[0], [*words, "benchmarks.views.newcomer", *sys.argv[1:]], {**os.environ, INSIDE: "1"})
    if arguments.look is not None:
        arguments.look.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing that it started goes on
    claims = Claims()
    with tempfile.TemporaryDirectory() as directory, scene(Path(directory)) as end_hogs:
        run = Run(Path(directory), arguments.look)
        try:
            play(run, Path.cwd(), end_hogs)
        finally:
            for terminal in reversed(run.terminals):
                terminal.close()
    for answer in run.answers:
        claim = f"{answer.question}: minutes, {len(answer.commands)} commands, {answer.keys} keys"
        claims.at_most(claim, answer.minutes, MINUTES[answer.question])
    claims.close(arguments.json, questions=[asdict(answer) for answer in run.answers])


if __name__ == "__main__":
    main()
