"""The demo's web service: some CPU, then a wait as for a database. Served by gunicorn, knows nothing of nicety."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

CPU_SECONDS = 0.004
WAIT_SECONDS = 0.036
"""CPU and wait of a request, in seconds. Chosen: a tenth CPU, as of a service that mostly waits for its database."""


def application(_environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], Any]) -> Iterable[bytes]:
    """Answer any request with "ok" after `CPU_SECONDS` of work and `WAIT_SECONDS` of waiting."""
    end = time.thread_time() + CPU_SECONDS
    while time.thread_time() < end:
        pass
    time.sleep(WAIT_SECONDS)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\n"]
