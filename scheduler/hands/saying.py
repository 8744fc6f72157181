"""Lines of the hands and sentries in the daemon's log, in its form (`explain/logstream.py`)."""

from __future__ import annotations

import json
import os
import time

from .clock import SystemClock


def say(priority: int, text: str) -> None:
    """A line in the daemon's log, in its form. Never raises: putting back matters more."""
    now = SystemClock().wall()
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now // 10**6 % 1000:03d}+00:00"
    try:
        os.write(2, json.dumps({"at": at, "kind": "event", "priority": priority, "text": text}).encode() + b"\n")
    except OSError:
        pass
