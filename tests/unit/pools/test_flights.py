"""Requests in flight from looks at connections: each kind of connection counts as what it is, and times come out right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from nicety.models.records import Flights
from nicety.scheduler.pools.sensing.flights import LONGEST, STREAMS, FlightRecorder
from nicety.scheduler.read.connections import CONNECTION, Connections

JIFFY = 0.004
RECEIVES, WRITES = 0, 1


@dataclass
class Wire:
    """A connection as the kernel counts it: at each of its moments it receives or writes."""

    cookie: int
    born: float
    events: list[tuple[float, int]] = field(default_factory=list)
    gone: float = 1e9
    accepted: float = 0.0
    unread: int = 0
    full: bool = False

    def row(self, now: float) -> tuple[int | bool, ...] | None:
        if not self.born <= now < self.gone:
            return None
        past = [event for event in self.events if event[0] <= now]
        came = max((at for at, kind in past if kind == RECEIVES), default=self.born)
        went = max((at for at, kind in past if kind == WRITES), default=self.born)
        count = sum(kind == RECEIVES for _, kind in past), sum(kind == WRITES for _, kind in past)
        jiffies = round(now // JIFFY)
        sent, received = (round((jiffies - at // JIFFY) * 4) for at in (went, came))
        sent_last = bool(past) and past[-1][1] == WRITES
        opened = now >= self.accepted
        return (
            self.cookie,
            opened,
            False,
            self.unread,
            sent_last,
            self.full,
            sent,
            received,
            count[0] * 100,
            count[1] * 200,
            *count,
        )


def table(wires: Sequence[Wire], now: float) -> Connections:
    rows = [row for wire in wires if (row := wire.row(now)) is not None]
    return np.array(sorted(rows), dtype=CONNECTION)


def watch(wires: Sequence[Wire], until: float, gap: float = 0.2, begin: float = 0.1) -> list[Flights]:
    """Reads once a second."""
    recorder, found, now = FlightRecorder(), list[Flights](), begin
    while now < until:
        recorder.look(now, table(wires, now))
        if int(now + gap) > int(now):
            read = recorder.read()
            assert read is not None
            found.append(read)
        now += gap
    return found


def one(*events: tuple[float, int], **more: float) -> Wire:
    return Wire(1, 0.05, list(events), **more)  # type: ignore[arg-type]


def test_a_request_counts_from_its_arrival_to_its_answer_and_its_time_is_known() -> None:
    reads = watch([one((1.05, RECEIVES), (3.55, WRITES))], 8.0)
    assert [read.held for read in reads] == pytest.approx([0.0, 1.0, 1.0, 0.4, 0.0, 0.0, 0.0, 0.0], abs=0.21)
    assert [read.ended for read in reads] == [0, 0, 0, 0, 1, 0, 0, 0]
    assert reads[4].seconds == pytest.approx((2.5,), rel=0.05)


def test_an_idle_connection_that_is_kept_alive_never_counts() -> None:
    assert {read.held for read in watch([one((0.3, RECEIVES), (0.35, WRITES))], 20.0)[1:]} == {0.0}


def test_a_connection_in_the_accept_queue_does_not_count_and_its_wait_is_no_service() -> None:
    reads = watch([one((0.06, RECEIVES), (4.0, WRITES), accepted=3.0)], 7.0)
    assert [read.held for read in reads[:3]] == [0.0, 0.0, 0.0]
    assert reads[3].held == pytest.approx(1.0, abs=0.21)
    (seconds,) = next(read.seconds for read in reads if read.ended)
    assert seconds == pytest.approx(1.0, abs=0.21)


def test_a_request_that_trickles_in_counts_but_its_time_begins_when_it_was_complete() -> None:
    reads = watch([one(*((1.0 + 0.5 * step, RECEIVES) for step in range(8)), (5.0, WRITES))], 8.0)
    assert all(read.held > 0.9 for read in reads[2:4])
    (seconds,) = next(read.seconds for read in reads if read.ended)
    assert seconds == pytest.approx(0.5, rel=0.1)


def test_an_answer_that_is_written_bit_by_bit_counts_until_its_end() -> None:
    reads = watch([one((1.05, RECEIVES), *((1.5 + 0.1 * step, WRITES) for step in range(35)))], 9.0)
    assert all(read.held > 0.7 for read in reads[2:4])
    assert reads[6].held == 0.0
    (seconds,) = next(read.seconds for read in reads if read.ended)
    assert seconds == pytest.approx(3.85, rel=0.1)


def test_a_writer_that_a_slow_client_blocks_still_serves() -> None:
    wire = one((1.05, RECEIVES), (1.5, WRITES))
    wire.full = True
    assert [read.held for read in watch([wire], 6.0)[2:5]] == [1.0, 1.0, 1.0]


def test_a_second_request_that_nobody_has_read_yet_counts() -> None:
    wire = one((1.0, RECEIVES), (1.01, RECEIVES), (2.0, WRITES))
    wire.unread = 80
    assert watch([wire], 6.0)[4].held == 1.0


@pytest.mark.parametrize(
    ("name", "events"),
    [
        ("events of a server", [(1.0, RECEIVES), *((1.1 + 0.1 * step, WRITES) for step in range(2000))]),
        (
            "pings of a server",
            [
                (1.0, RECEIVES),
                (1.05, WRITES),
                *(event for n in range(9) for event in ((5.03 + 20 * n, WRITES), (5.05 + 20 * n, RECEIVES))),
            ],
        ),
        ("a client that speaks alone", [(1.0 + 0.5 * step, RECEIVES) for step in range(400)]),
        ("a client that spoke last", [(1.0, RECEIVES)]),
    ],
)
def test_a_connection_that_is_no_longer_one_of_requests_stops_to_count(name: str, events: list[tuple[float, int]]) -> None:
    reads = watch([one(*events)], LONGEST + 60.0)
    late = [read.held for read in reads[int(LONGEST + 5) :]]
    assert late, "found nothing to check"
    assert max(late) == 0.0, name
    assert all(second < STREAMS + 1.0 for read in reads for second in read.seconds)


def test_a_stream_that_ends_is_followed_by_requests_that_count() -> None:
    stream = [(1.0, RECEIVES), *((1.1 + 0.1 * step, WRITES) for step in range(300))]
    reads = watch([one(*stream, (40.0, RECEIVES), (44.0, WRITES))], 50.0)
    assert reads[25].held == 0.0
    assert reads[41].held == 1.0


def test_a_new_table_of_connections_begins_anew_for_each_cookie() -> None:
    wires = [Wire(1, 0.0, [(0.5, RECEIVES)], gone=2.05), Wire(2, 2.06, [(2.07, RECEIVES)])]
    reads = watch(wires, 6.0)
    assert [read.held for read in reads[3:5]] == [1.0, 1.0], "only the second is left"
    assert sum(read.ended for read in reads) == 1, "the first was closed with its answer"


def _closed(
    rng: np.random.Generator, service: Callable[[], float], think: float, *, keep: bool
) -> tuple[list[Wire], float, list[float]]:
    wires, times, spans, cookie = list[Wire](), list[float](), 0.0, 0
    for _ in range(14):
        at, wire = float(rng.random()) * 0.2, None
        while at < 90.0:
            at += float(rng.exponential(think)) if think else 0.0003
            if wire is None or not keep:
                cookie += 1
                wire = Wire(cookie, at)
                wires.append(wire)
            took = service()
            wire.events += [(at, RECEIVES), (at + took, WRITES)]
            times.append(took)
            spans += max(min(at + took, 90.0) - at, 0.0)
            at += took
            if not keep:
                wire.gone = at + 0.0001
    return wires, spans / 90.0, times


@pytest.mark.parametrize("keep", [True, False], ids=["kept alive", "closed each time"])
@pytest.mark.parametrize("think", [0.3, 0.0], ids=["with pauses", "without a pause"])
def test_load_and_times_agree_with_what_was_served_although_looks_are_rare(keep: bool, think: float) -> None:
    rng = np.random.default_rng(7)
    wires, held, times = _closed(rng, lambda: float(rng.exponential(0.1)), think, keep=keep)
    wires.sort(key=lambda wire: wire.cookie)
    reads, now, recorder = list[Flights](), 0.3, FlightRecorder()
    alive = [wire for wire in wires if not keep]
    while now < 89.0:
        near = wires if keep else [wire for wire in alive if wire.born <= now < wire.gone]
        recorder.look(now, table(near, now))
        if int(now + 0.2) > int(now):
            read = recorder.read()
            assert read is not None
            reads.append(read)
        now += 0.2 + 0.02 * float(rng.random())
    assert np.mean([read.held for read in reads]) == pytest.approx(held, rel=0.1)
    seen = [second for read in reads[20:] for second in read.seconds]
    assert np.quantile(seen, 0.95) == pytest.approx(np.quantile(times, 0.95), rel=0.15)
    assert all(list(read.seconds) == sorted(read.seconds) and len(read.seconds) <= 64 for read in reads)


def test_the_same_looks_give_the_same_answers() -> None:
    rng = np.random.default_rng(6)
    wires, _, _ = _closed(rng, lambda: float(rng.exponential(0.3)), 0.1, keep=True)
    assert watch(wires, 5.0) == watch(wires, 5.0)
