"""Finds the sentries of a daemon, and kills a daemon so that nobody is left to put anything back."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def sentries_of(state_dir: Path) -> list[int]:
    """Pids of the sentries that watch over this state directory, sorted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"hands.sentry" in b" ".join(words[:5]) and words[-2:-1] == [os.fsencode(state_dir)]:
                found.append(int(entry.name))
    return sorted(found)


def kill_with_sentries(daemon: int, state_dir: Path) -> None:
    """Kill a daemon and its sentries as if all died at the same moment: what was changed stays."""
    victims = [daemon, *sentries_of(state_dir)]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in victims:
            os.kill(pid, number)
