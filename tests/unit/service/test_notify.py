"""What the service manager is told, and when it is told nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.scheduler.service.notify import Notifier


def listener(address: str) -> socket.socket:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.settimeout(5)
    manager.bind(address)
    return manager


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    if request.param == "file":
        name = address = str(tmp_path / "notify")
    else:
        name, address = f"@nicety-test-{os.getpid()}", f"\0nicety-test-{os.getpid()}"
    with listener(address) as channel:
        yield name, channel


def test_each_state_arrives_as_the_manager_expects_it(manager: tuple[str, socket.socket]) -> None:
    name, channel = manager
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "60000000"})
    assert notifier.ready("observing 12 groups")
    assert channel.recv(1000) == b"READY=1\nSTATUS=observing 12 groups"
    assert notifier.reloading(5_000_000_999)
    assert channel.recv(1000) == b"RELOADING=1\nMONOTONIC_USEC=5000000"
    assert notifier.watchdog()
    assert channel.recv(1000) == b"WATCHDOG=1"
    assert notifier.status("tick 7")
    assert channel.recv(1000) == b"STATUS=tick 7"
    assert notifier.stopping("undone")
    assert channel.recv(1000) == b"STOPPING=1\nSTATUS=undone"


def test_a_status_with_line_ends_sets_nothing_else(manager: tuple[str, socket.socket]) -> None:
    name, channel = manager
    assert Notifier({"NOTIFY_SOCKET": name}).status("group x\nMAINPID=1\r\nREADY=1")
    assert channel.recv(1000) == b"STATUS=group x MAINPID=1 READY=1"


@pytest.mark.parametrize(
    "environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}, {"NOTIFY_SOCKET": "/nowhere/at/all"}]
)
def test_without_a_manager_nothing_is_sent_and_nothing_fails(environment: dict[str, str]) -> None:
    notifier = Notifier(environment)
    assert not notifier.ready("x")
    assert not notifier.watchdog()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "42"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_ours_only_if_the_manager_meant_us(
    environment: dict[str, str], seconds: float | None, tmp_path: Path
) -> None:
    with listener(str(tmp_path / "notify")) as channel:
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), **environment}, pid=42)
        assert notifier.watchdog_seconds == seconds
        assert notifier.watchdog() is (seconds is not None)
        channel.setblocking(False)
        if seconds is None:
            with pytest.raises(BlockingIOError):
                channel.recv(100)
