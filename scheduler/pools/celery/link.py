"""The connection to the Celery agent: one helper process, one request at a time, and no call that blocks.

Must not know what the requests mean. An agent that dies, hangs or writes nonsense is killed, and restarted after a growing wait.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...hands.wire import RefusedError
from ...redaction import redacted
from ..sensing.acts import Child

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
START_NS = 60 * _SECOND
"""The agent must be up within this time. Importing Celery takes 0.5 s, and far more on a machine that is short of CPU. Chosen."""
ANSWER_NS = 30 * _SECOND
"""An agent that owes an answer for longer counts as hung: its own waits for node and broker end after 25 s at most."""
MAX_BACK_OFF_NS = 60 * _SECOND
"""Longest wait before the agent is restarted. Chosen."""
MAX_ANSWER = 1 << 20
"""Most bytes of one answer. Chosen: `stats` of 1,000 processes has 10 kB."""
MAX_COMPLAINT = 4096
"""Most bytes kept of the agent's standard error. Chosen."""
MAX_WORDS = 500
"""Most letters kept of one text of the agent. Chosen."""


class Answer(NamedTuple):
    """The result of a request. `error` is "" on success; `lost`: the agent ended, and how far it got is unknown."""

    do: str
    result: Any
    error: str = ""
    lost: bool = False


@dataclass(slots=True)
class _AgentRequest:
    number: int
    do: str
    late: int  # when the agent counts as hung


class AgentLink:
    """The agent, with its restarts. `launch` starts it and returns the broker's URL too; nothing that leaves here holds its
    password. It may raise OSError and RefusedError."""

    def __init__(self, name: str, launch: Callable[[], tuple[Child, str]]) -> None:
        self._name = name
        self._launch = launch
        self._broker = ""
        self._process: Child | None = None
        self._up = False
        self._late = 0
        self._unsent = b""
        self._output = b""
        self._complaint = b""
        self._request: _AgentRequest | None = None
        self._number = 0
        self._failures = 0
        self._next_start = 0
        self.problem = ""
        """Why there is no agent to talk to; "" while there is one, or the first one is starting."""

    def ready(self) -> bool:
        """Whether a request may be sent now."""
        return self._up and self._request is None

    def ask(self, now: int, do: str, **more: Any) -> None:
        """Send a request. Only while `ready`."""
        assert self.ready()
        self._number += 1
        self._request = _AgentRequest(self._number, do, now + ANSWER_NS)
        self._unsent += json.dumps({"id": self._number, "do": do, **more}).encode() + b"\n"
        self._send()

    def start(self, now: int) -> None:
        """Start the agent. Raises OSError and RefusedError."""
        self._process, self._broker = self._launch()
        for pipe in self._process.pipes:
            os.set_blocking(pipe, False)
        self._unsent, self._late = b"", now + START_NS

    def step(self, now: int) -> Answer | None:
        """Start, feed and read the agent without blocking; return the answer to the last request once it is there."""
        if self._process is None:
            if now < self._next_start:
                return None
            try:
                self.start(now)
            except (OSError, RefusedError) as error:
                return self._failed(f"cannot be started: {error}", now)
            assert self._process is not None
        self._send()
        ended = self._process.poll() is not None  # checked first, so that what it wrote before its end is still read
        self._hear()
        while b"\n" in self._output:
            line, self._output = self._output.split(b"\n", 1)
            try:
                message = self._shown(json.loads(line))
                known = isinstance(message, dict)
            except (ValueError, RecursionError):
                message, known = {}, False
            if known and "fatal" in message:
                return self._failed(str(message["fatal"]), now)
            if known and "ready" in message:
                self._up = True
            elif known and self._request is not None and message.get("id") == self._request.number:
                do, self._request = self._request.do, None
                self._failures, self.problem = 0, ""
                return Answer(do, message.get("ok"), str(message.get("error", "")))
            else:
                return self._failed(f"it wrote {self._shown(line.decode(errors='replace'))[:60]!r}, which is no answer", now)
        if ended:
            return self._failed(self._last_words(), now)
        if len(self._output) > MAX_ANSWER:
            return self._failed(f"its answer is longer than {MAX_ANSWER} bytes", now)
        if not self._up and now >= self._late:
            return self._failed(f"it was not up after {START_NS // _SECOND} s", now)
        if self._request is not None and now >= self._request.late:
            return self._failed(f"it did not answer {self._request.do!r} within {ANSWER_NS // _SECOND} s", now)
        return None

    def close(self) -> None:
        """Kill the agent; return when it has ended."""
        if self._process is None:
            return
        self._process.end()
        self._process = None
        self._up = False
        self._unsent = self._output = b""
        self._request = None

    def _failed(self, cause: str, now: int) -> Answer | None:
        """Kill it, wait longer than last time, and report the pending request as lost."""
        lost = self._request
        self.close()
        self._complaint = b""
        self._failures += 1
        self._next_start = now + min(MAX_BACK_OFF_NS, _SECOND << min(self._failures - 1, 6))
        text = f"the Celery agent does not run: {cause}"
        if text != self.problem:
            log.warning("pool %s: %s", self._name, text)
        self.problem = text
        return None if lost is None else Answer(lost.do, None, text, lost=True)

    def _shown(self, value: Any) -> Any:
        """A value of the agent, with every text in it cut to `MAX_WORDS` and without passwords."""
        match value:
            case str():
                return redacted(value, self._broker)[:MAX_WORDS]
            case list():
                return [self._shown(each) for each in value]
            case dict():
                return {key: self._shown(each) for key, each in value.items()}
        return value

    def _send(self) -> None:
        assert self._process is not None
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._process.pipes[0], self._unsent) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:  # it has ended; `step` finds out why
            self._unsent = b""

    def _hear(self) -> None:
        assert self._process is not None
        _, output, complaints = self._process.pipes
        self._output += _read(output, MAX_ANSWER)
        self._complaint = (self._complaint + _read(complaints, MAX_ANSWER))[-MAX_COMPLAINT:]

    def _last_words(self) -> str:
        assert self._process is not None
        lines = [line for line in self._shown(self._complaint.decode("utf-8", "replace")).splitlines() if line.strip()]
        code = self._process.poll()
        return f"it ended with status {code}" + (f" ({lines[-1].strip()[:200]})" if lines else "")


def _read(fd: int, most: int) -> bytes:
    """Read what is there, up to about `most` bytes."""
    found = b""
    while len(found) <= most:
        try:
            block = os.read(fd, 1 << 16)
        except BlockingIOError:
            break
        if not block:
            break
        found += block
    return found
