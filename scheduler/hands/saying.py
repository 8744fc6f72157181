"""Lines of the hands and sentries in the daemon's log, in its form (`explain/logstream.py`)."""

from __future__ import annotations

import json
import os
import select
import time

from .clock import SystemClock

PATIENCE = 1.0
"""Seconds to wait for room in the log (chosen)."""

LONGEST = 1000
"""Most characters of a text (chosen): a line fits into the 4 KiB that a pipe has when poll(2) says that it has room."""


def say(priority: int, text: str) -> None:
    """A line in the daemon's log, in its form. Never raises, and does not wait long for who reads it: putting back matters more."""
    now = SystemClock().wall()
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now // 10**6 % 1000:03d}+00:00"
    line = json.dumps({"at": at, "kind": "event", "priority": priority, "text": text[:LONGEST]}, ensure_ascii=False)
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    try:
        if poll.poll(PATIENCE * 1000):
            os.write(2, line.encode(errors="replace") + b"\n")
    except OSError:
        pass
