"""A real browser without a screen, for tests and benchmarks of the page: Chromium, driven through two pipes.

Speaks the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/): JSON messages, each ended by a NUL byte, on the
descriptors 3 and 4 of the browser (`--remote-debugging-pipe`).
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome")

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--mute-audio", "--hide-scrollbars"),
    *("--proxy-server=direct://", "--remote-debugging-pipe"),
)
"""Nothing that asks the network for anything but the page. No sandbox: root has none."""

PATIENCE = 30.0
"""Seconds after which the browser is taken to be stuck (chosen: a slow start takes five)."""


def program() -> str | None:
    """The browser; None if there is none."""
    return next((found for found in map(shutil.which, NAMES) if found), None)


class BrowserError(Exception):
    """The browser, or a script in the page, failed."""


class Browser:
    """One page in a browser of its own. A context manager."""

    def __init__(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        """`dark`: the user prefers dark pages."""
        found = program()
        if found is None:
            raise BrowserError("no Chromium here; install it: apt-get install chromium")
        self._profile = tempfile.mkdtemp(prefix="nicety-browser-")
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()

        def move() -> None:  # 3 and 4 are taken here, at the latest by our pipes: nothing of Popen's is there
            os.dup2(to_browser, 3)
            os.dup2(from_browser, 4)

        self._process = subprocess.Popen(
            [found, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            preexec_fn=move,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._number = 0
        self._session = ""
        self.said: list[str] = []
        """What the page wrote to its console, and its uncaught errors."""
        self.refused: list[str] = []
        """Addresses that were asked for and did not answer well."""
        self.asked: list[str] = []
        """All addresses that were asked for."""
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.call(f"{domain}.enable")
            self.resize(width, height)
            self.prefer("dark" if dark else "light")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and delete its profile."""
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        for _ in range(20):
            shutil.rmtree(self._profile, ignore_errors=True)  # its children may still write
            if not Path(self._profile).exists():
                return
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """Of the browser."""
        return self._process.pid

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol. Raises BrowserError."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while True:
            answer = self._receive(PATIENCE)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error'].get('message')}")
                return dict(answer["result"])

    def resize(self, width: int, height: int) -> None:
        """Give the page this size, in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)

    def prefer(self, scheme: str) -> None:
        """What the user's system prefers: "light" or "dark"."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, address: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript in the page; a promise is awaited. Raises BrowserError."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in answer:
            raise BrowserError(str(answer["exceptionDetails"].get("exception", {}).get("description", answer)))
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 10.0) -> None:
        """Wait until an expression is true. An error counts as false: the page may be loading. Raises BrowserError."""
        until = time.monotonic() + seconds
        while not self.run(f"(() => {{ try {{ return Boolean({condition}) }} catch {{ return false }} }})()"):
            if time.monotonic() > until:
                raise BrowserError(f"not within {seconds:g} s: {condition}; the page said {self.said[-3:]}")
            time.sleep(0.05)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key, by its name in the DOM."""
        text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
        code = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35}.get(key, 0)
        about = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def click(self, x: float, y: float, *, to: tuple[float, float] | None = None) -> None:
        """Click, or drag to another place."""
        end = to or (x, y)
        about = {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **about)
        if to is not None:
            for part in (0.3, 0.6, 1.0):
                here = (x + part * (to[0] - x), y + part * (to[1] - y))
                self.call("Input.dispatchMouseEvent", type="mouseMoved", x=here[0], y=here[1], button="left", buttons=1)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=end[0], y=end[1], **about)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write what is to be seen as PNG. `whole`: the whole page."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def _receive(self, seconds: float) -> dict[str, Any]:
        until = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._in], [], [], left)[0]:
                raise BrowserError(f"the browser said nothing for {seconds:g} s")
            data = os.read(self._in, 1 << 16)
            if not data:
                raise BrowserError("the browser ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, about: dict[str, Any]) -> None:
        if method == "Runtime.consoleAPICalled":
            self.said.append(" ".join(str(it.get("value", it.get("description"))) for it in about["args"]))
        elif method == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.said.append(str(details.get("exception", {}).get("description", details.get("text"))))
        elif method == "Log.entryAdded":
            self.said.append(str(about["entry"].get("text")))
        elif method == "Network.requestWillBeSent":
            self.asked.append(about["request"]["url"])
        elif method == "Network.responseReceived" and about["response"]["status"] >= 400:
            self.refused.append(about["response"]["url"])
