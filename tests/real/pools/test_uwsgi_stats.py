"""uWSGI's stats: what an answer says, odd answers, and a socket that is never waited for."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicety.scheduler.config.sections import PoolConfig
from nicety.scheduler.hands.pools import address
from nicety.scheduler.pools.uwsgi import stats as facts
from nicety.scheduler.testing.acts import own_acts
from nicety.scheduler.testing.clock import FakeClock

SECOND = 1_000_000_000


def asks(where: str, clock: FakeClock | None = None) -> facts.StatsSocket:
    """What asks there, by default on a clock that stands."""
    clock = FakeClock(monotonic=SECOND) if clock is None else clock
    config = PoolConfig(kind="uwsgi", stats=where, fifo="/nowhere", pid=os.getpid())
    return facts.StatsSocket(where, own_acts("web", config, clock))


def place(number: int = 1, **changes: Any) -> dict[str, Any]:
    """One worker as uWSGI 2.0.21 describes it, shortened."""
    return {
        "id": number,
        "pid": 100 + number,
        "accepting": 1,
        "exceptions": 0,
        "status": "idle",
        "rss": 0,
        "last_spawn": 1_700_000_000,
        "respawn_count": 1,
        "avg_rt": 12,
        "apps": [{"id": 0, "mountpoint": "", "startup_time": 0}],
        "cores": [{"id": 0, "requests": 7, "in_request": 0, "vars": ["PATH_INFO=/x", ""]}],
    } | changes


def answer(*places: dict[str, Any], pid: int = 99) -> bytes:
    return json.dumps({"version": "2.0.21-debian", "listen_queue": 0, "pid": pid, "workers": list(places)}).encode()


# --- answers -------------------------------------------------------------------------------------------------------------------


def test_an_answer_says_who_is_there_and_what_they_do() -> None:
    running, draining, free = facts.parse(
        answer(place(1, status="busy"), place(2, status="cheap"), place(0, status="cheap", pid=0, accepting=0))
    ).workers
    assert (running.pid, running.wanted, running.accepting) == (101, True, 1)
    assert (draining.pid, draining.wanted) == (102, False)
    assert (free.pid, free.wanted) == (0, False)


@pytest.mark.parametrize(
    ("changes", "busy"),
    [
        ({"cores": [{"in_request": 1}]}, 1.0),
        ({"cores": [{"in_request": 1}, {"in_request": 0}, {"in_request": 1}, {"in_request": 0}]}, 0.5),
        ({"cores": [], "status": "busy"}, 1.0),
        ({"cores": [], "status": "sig17"}, 1.0),
        ({"cores": [], "status": "idle"}, 0.0),
        ({"cores": [{"in_request": 1}], "status": "cheap"}, 1.0),
    ],
)
def test_busy_is_the_share_of_its_threads_that_have_a_request(changes: dict[str, Any], busy: float) -> None:
    assert facts.parse(answer(place(1, **changes))).workers[0].busy == busy


def test_bytes_that_are_no_text_in_a_requests_variables_are_let_through() -> None:
    raw = answer(place(1)).replace(b"PATH_INFO=/x", b"PATH_INFO=/\xff\xfe")
    assert facts.parse(raw).workers[0].pid == 101


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        (b"", "hangs up without an answer"),
        (b"HTTP/1.0 200 OK\r\n\r\n{}", "stats-http"),
        (b"\x00\x01\x02", "makes no sense"),
        (b"+PONG\r\n", "makes no sense"),
        (answer(place(1))[:-20], "makes no sense"),
        (b"[]", "makes no sense"),
        (b"[" * 100_000, "makes no sense"),
        (answer(), "makes no sense"),
        (answer(place(1), pid=0), "makes no sense"),
        (answer(place(1, pid=-3)), "makes no sense"),
        (answer(place(1, pid="7")), "makes no sense"),
        (answer(place(1), place(2, pid=101)), "two workers are one"),
        (json.dumps({"emperor": "/etc/uwsgi", "pid": 5, "vassals": []}).encode(), "makes no sense"),
    ],
)
def test_an_answer_that_makes_no_sense_is_told_with_its_cause(raw: bytes, cause: str) -> None:
    with pytest.raises(facts.StatsError, match=cause):
        facts.parse(raw)


@given(st.binary(max_size=200))
def test_no_answer_ends_otherwise_than_in_a_cause(raw: bytes) -> None:
    with pytest.raises(facts.StatsError):
        facts.parse(raw)


# --- addresses -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:9191", (socket.AF_INET, ("127.0.0.1", 9191))),
        (":9191", (socket.AF_INET, ("127.0.0.1", 9191))),
        ("0.0.0.0:9191", (socket.AF_INET, ("127.0.0.1", 9191))),
        ("localhost:9191", (socket.AF_INET, ("127.0.0.1", 9191))),
        ("[::1]:9191", (socket.AF_INET6, ("::1", 9191))),
        ("[::]:9191", (socket.AF_INET6, ("::1", 9191))),
        ("/run/stats.sock", (socket.AF_UNIX, "/run/stats.sock")),
        ("@stats", (socket.AF_UNIX, "\0stats")),
    ],
)
def test_an_address_is_understood_as_uwsgi_writes_it(text: str, found: object) -> None:
    assert address(text) == found


@pytest.mark.parametrize("text", ["", "9191", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", "stats.sock", "web.example:9191"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="give"):
        address(text)


# --- the socket ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["unix", "tcp"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    if request.param == "unix":
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / "stats.sock"))
    else:
        server = socket.socket()
        server.bind(("127.0.0.1", 0))
    server.listen(8)
    with server:
        yield server


def where(listener: socket.socket) -> str:
    name = listener.getsockname()
    return name if isinstance(name, str) else f"{name[0]}:{name[1]}"


def serve(listener: socket.socket, raw: bytes) -> None:
    client, _ = listener.accept()
    with client:
        client.sendall(raw)


def taken(asking: facts.StatsSocket, now: int) -> facts.Stats:
    """What is there in the end: the loopback may deliver a moment later."""
    deadline = time.monotonic() + 5
    while (stats := asking.take(now)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return stats


def test_an_answer_is_taken_later_than_it_was_asked_for(listener: socket.socket) -> None:
    asking = asks(where(listener))
    asking.ask(SECOND)
    assert asking.asked()
    assert asking.take(SECOND) is None, "nobody has answered yet"
    serve(listener, answer(place(1)))
    assert taken(asking, SECOND).pid == 99
    assert not asking.asked()
    asking.close()


def test_an_answer_in_pieces_is_put_together(listener: socket.socket) -> None:
    asking = asks(where(listener))
    asking.ask(SECOND)
    client, _ = listener.accept()
    raw = answer(place(1), place(2))
    client.sendall(raw[:50])
    assert asking.take(SECOND) is None
    client.sendall(raw[50:])
    client.close()
    assert len(taken(asking, SECOND).workers) == 2
    asking.close()


def test_it_is_asked_no_more_often_than_the_master_should_answer(listener: socket.socket) -> None:
    asking = asks(where(listener))
    asking.ask(SECOND)
    serve(listener, answer(place(1)))
    taken(asking, SECOND)
    asking.ask(SECOND + facts.EVERY_NS - 1)
    assert not asking.asked()
    asking.ask(SECOND + facts.EVERY_NS)
    assert asking.asked()
    asking.close()


def test_a_socket_that_never_answers_is_given_up_and_asked_ever_less_often(listener: socket.socket) -> None:
    clock = FakeClock(monotonic=SECOND)
    asking = asks(where(listener), clock)
    asked = []
    for now in range(SECOND, 300 * SECOND, SECOND // 10):
        clock.advance(SECOND // 10)
        if not asking.asked():
            asking.ask(now)
            if not asking.asked():
                continue
            asked.append(now)
        if now < asked[-1] + facts.TIMEOUT_NS:
            assert asking.take(now) is None
            continue
        with pytest.raises(facts.StatsError, match="does not answer within 2 s"):
            asking.take(now)
        client, _ = listener.accept()  # make room for the next
        client.close()
    gaps = [round((after - before) / SECOND) for before, after in itertools.pairwise(asked)]
    assert gaps[:6] == [3, 4, 6, 10, 18, 32], "2 s of waiting, and 1, 2, 4, ... s of rest"
    assert set(gaps[6:]) == {32}
    asking.close()


def test_an_answer_without_end_is_cut_short(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "MAX_BYTES", 1 << 20)
    asking = asks(where(listener))
    asking.ask(SECOND)
    client, _ = listener.accept()
    client.setblocking(False)

    def flood() -> None:
        while True:
            with contextlib.suppress(BlockingIOError):
                client.send(b" " * 65536)
            assert asking.take(SECOND) is None

    with client, pytest.raises(facts.StatsError, match="stats-no-cores"):
        flood()
    assert not asking.asked()
    asking.close()


def test_nobody_at_the_other_end_is_told_with_the_next_step(tmp_path: Path) -> None:
    asking = asks(str(tmp_path / "gone.sock"))
    with pytest.raises(facts.StatsError, match=r"gone\.sock does not exist: start uWSGI with stats = "):
        asking.ask(SECOND)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    asking = asks(f"127.0.0.1:{port}")

    def refused() -> None:
        asking.ask(SECOND)
        taken(asking, SECOND)

    with pytest.raises(facts.StatsError, match="takes no connection: start uWSGI with stats = "):
        refused()


def test_after_closing_nothing_is_asked_any_more(listener: socket.socket) -> None:
    asking = asks(where(listener))
    asking.ask(SECOND)
    asking.close()
    asking.ask(10 * SECOND)
    assert not asking.asked()
