"""Finds the hands and the sentries of a daemon, and kills all so that nobody is left to put anything back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from ..hands.sentry import NAME as SENTRY
from ..hands.serve import NAME as HANDS


def sentries_of(state_dir: Path) -> list[int]:
    """Pids of the sentries that watch over this state directory, sorted."""
    return _called(SENTRY, state_dir)


def hands_of(state_dir: Path) -> list[int]:
    """Pids of the hands that keep this state directory."""
    return _called(HANDS, state_dir)


def _called(name: str, state_dir: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                called = (entry / "comm").read_text() == f"{name}\n"
                if called and os.fsencode(state_dir) in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return sorted(found)


def kill_with_sentries(daemon: int, state_dir: Path) -> None:
    """Kill a daemon, its hands and its sentries as if all died at the same moment: what was changed stays."""
    victims = [daemon, *hands_of(state_dir), *sentries_of(state_dir)]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in victims:
            os.kill(pid, number)
