"""What a supervisor says of its places: the output of `supervisorctl status` and of `systemctl show`, parsed. Pure.

Must not know processes or sizes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from ...hands.pool_blocks import Block
from ...hands.pool_places import place_name


class State(StrEnum):
    """What a supervisor has made of a place."""

    UP = "up"  # has a worker, or is about to have one, or another one after a crash
    LEAVING = "leaving"  # its worker was asked to end
    OFF = "off"  # was not started, or was stopped
    ENDED = "ended"  # its worker ended by itself, and will not be started again
    FAILED = "failed"  # cannot be started: the supervisor has given up
    MISSING = "missing"  # there is no such place


class Place(NamedTuple):
    """One place."""

    state: State
    pid: int  # of its worker; 0: none
    word: str  # the supervisor's own word for its state


class AnswerError(Exception):
    """The supervisor gave no answer: cause and next step."""


_OF_SUPERVISORD: Mapping[str, State] = MappingProxyType(
    {
        "STARTING": State.UP,
        "RUNNING": State.UP,
        "BACKOFF": State.UP,  # it has failed to start, and is tried again
        "STOPPING": State.LEAVING,
        "STOPPED": State.OFF,
        "EXITED": State.ENDED,
        "FATAL": State.FAILED,
    }
)
"""States of a process: supervisord's manual, "Subprocesses"."""

_OF_SYSTEMD: Mapping[str, State] = MappingProxyType(
    {
        "active": State.UP,
        "activating": State.UP,  # also while it waits to start it again
        "reloading": State.UP,
        "refreshing": State.UP,
        "maintenance": State.LEAVING,
        "deactivating": State.LEAVING,
        "inactive": State.OFF,
        "failed": State.FAILED,
    }
)
"""ActiveState of a unit: org.freedesktop.systemd1(5)."""

_LINE = re.compile(r"(?P<name>\S+)\s+(?P<state>[A-Z]+)\b(?:\s+pid (?P<pid>\d+))?.*")
_MOST = 120  # characters of an answer that are quoted


def parse(block: Block, output: str) -> dict[int, Place]:
    """The places of a pool by number, missing ones too. Raises AnswerError if the output is no answer."""
    read = _supervisord if block.kind == "supervisord" else _systemd
    found = read(output)
    if not found:
        said = " ".join(output.split())[:_MOST] or "nothing"
        remedy = "is it running, and may nicety ask it? Correct command, or unit"
        raise AnswerError(f"{block.kind} says {said!r}: {remedy}")
    return {number: found.get(place_name(block, number), Place(State.MISSING, 0, "not found")) for number in range(block.maximum)}


def _supervisord(output: str) -> dict[str, Place]:
    found = {}
    for line in output.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is not None and match["state"] in _OF_SUPERVISORD:
            found[match["name"]] = Place(_OF_SUPERVISORD[match["state"]], int(match["pid"] or 0), match["state"])
    return found


def _systemd(output: str) -> dict[str, Place]:
    found = {}
    for text in output.split("\n\n"):
        keys = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        state, pid = _OF_SYSTEMD.get(keys.get("ActiveState", "")), keys.get("MainPID", "0")
        if "Id" not in keys or state is None or not pid.isdecimal():
            continue
        if keys.get("LoadState") == "not-found":
            state = State.MISSING
        found[keys["Id"]] = Place(state, int(pid), keys["ActiveState"])
    return found
