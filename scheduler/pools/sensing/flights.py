"""Which connections of a server hold a request, and how long requests take, from looks at the kernel's socket table. Pure.

What is seen of a connection is when data last came and last went, how many bytes came and how many the program wrote. A connection
whose data came after the last that went holds a request. It is answered when the program writes; what it writes further, without
new data, is the same answer.

    state       what happened last                          counts as held
    queued      not accepted yet                            no: it is in the accept queue
    idle        answered a while ago, or nothing came yet   only if more has come that nobody has read (pipelining)
    unsure      something in one jiffy, in doubtful order   as idle
    waiting     data came                                   yes, for LONGEST seconds
    answered    the program wrote                           yes while it goes on writing, or cannot because the client does not read
    stream      wrote on its own, or for too long           no, until the next request
    upgraded    the program spoke first, the client second; no, ever: a WebSocket, kept alive by pings
                or the client spoke for too long

Times of requests feed `Durations`, which completes what falls between looks. A request that ends and is followed by another within
one gap has bounds only. Must not know how the table is read, pools or clocks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ....models.durations import Durations, quantiles
from ....models.records import Flights
from ...read.connections import Connections

JIFFY = 0.004
"""Resolution of the kernel's times in seconds, with CONFIG_HZ=250, the default of Debian and Ubuntu."""

QUIET = 1.0
"""Seconds without more of it after which an answer was complete (chosen)."""

STREAMS = 10.0
"""Seconds from a request after which an answer that goes on is a stream: a download, events, a WebSocket (chosen)."""

UPLOADS = 30.0
"""Seconds for which a request may go on arriving (chosen). After that the client of a WebSocket speaks."""

LONGEST = 120.0
"""Seconds for which an unanswered request counts (chosen: four times gunicorn's default timeout). What waits longer is no request,
but a WebSocket whose client spoke last."""

SAMPLE = 64
"""Most times reported for each read: see `Flights.seconds`."""

MOST_ENDED = 128
"""Most ended requests of a read whose times are used: an even choice of more says the same (chosen)."""

_GOLDEN = 0.6180339887498949  # fractional part of the golden ratio: its multiples fill 0..1 evenly
_QUEUED, _IDLE, _UNSURE, _WAITING, _ANSWERED, _STREAM, _UPGRADED = range(7)

_MEMORY = np.dtype(
    [
        ("cookie", "<u8"),
        ("state", "u1"),
        ("since", "<f8"),  # s: when the request began to arrive
        ("start", "<f8"),  # s: when its last data came
        ("slack", "<f8"),  # s by which it may have started later: it was in the accept queue
        ("end", "<f8"),  # s: when the last of the answer went
        ("received", "<u8"),
        ("written", "<u8"),
        ("segments_in", "<u4"),
    ]
)

Times = NDArray[np.float64]
Mask = NDArray[np.bool_]


class FlightRecorder:
    """Follows the connections of one server from look to look. The same looks give the same answers."""

    def __init__(self) -> None:
        self._known = np.zeros(0, dtype=_MEMORY)  # sorted by cookie
        self._last: float | None = None  # s, of the last look
        self._held: list[int] = []
        self._gaps: list[float] = []
        self._bounds: list[tuple[Times, Times]] = []  # of times that ended
        self._durations = Durations()
        self._followed = [1.0, 1.0]  # requests that were seen in flight, and were seen idle afterwards; or were not
        self._turn = 0.0  # in 0..1: where the sample begins
        self._flights: Flights | None = None
        self.uncounted = 0
        """Connections that were streams or upgraded at the last look."""

    def look(self, now: float, seen: Connections) -> None:
        """Take the connections at `now`, in seconds. The table is sorted by cookie."""
        where, there = _places(self._known["cookie"], seen["cookie"])
        before, last = np.zeros(len(seen), dtype=_MEMORY), self._last
        before[there] = self._known[where[there]]
        table = before.copy()
        for name in ("cookie", "received", "written", "segments_in"):
            table[name] = seen[name]
        came, went = now - seen["received_ago"] / 1000.0, now - seen["sent_ago"] / 1000.0
        first = ~there | (before["state"] == _QUEUED)
        if last is not None:
            self._gaps.append(now - last)
            self._vanished(now, last, seen["cookie"])
        continuing = self._moved(table, before, seen, came, went, now, there & ~first)
        self._appeared(table, seen, came, went, now, first)
        state = table["state"]
        state[(state == _WAITING) & (now - table["since"] > LONGEST)] = _STREAM
        state[(state == _ANSWERED) & ~continuing & (now - table["end"] > QUIET)] = _IDLE
        piled = ((state == _IDLE) | (state == _UNSURE) | (state == _ANSWERED) & ~continuing) & (seen["unread"] > seen["closing"])
        self._held.append(int(np.count_nonzero((state == _WAITING) | continuing & (state == _ANSWERED) | piled)))
        self.uncounted = int(np.count_nonzero(state >= _STREAM))
        self._known, self._last = table, now

    def read(self) -> Flights | None:
        """What was seen since the last read; without a look in between what was read then, without answers. None: nothing yet."""
        if not self._held:
            if self._flights is not None:
                self._flights = Flights(self._flights.held, 0, ())
            return self._flights
        least = np.concatenate([bounds[0] for bounds in self._bounds]) if self._bounds else np.zeros(0)
        most = np.concatenate([bounds[1] for bounds in self._bounds]) if self._bounds else np.zeros(0)
        ended = len(least)
        chosen = np.arange(ended) if ended <= MOST_ENDED else (np.arange(MOST_ENDED) * ended) // MOST_ENDED
        gap = sum(self._gaps) / len(self._gaps) if self._gaps else 0.0
        followed = self._followed[0] / sum(self._followed)
        added = self._durations.step(least[chosen], most[chosen], gap=gap, followed=followed)
        seconds: tuple[float, ...] = ()
        if ended:
            size = min(ended, SAMPLE)
            self._turn = (self._turn + _GOLDEN) % 1.0
            levels = (np.arange(size) + self._turn) / size
            seconds = tuple(round(float(value), 4) for value in quantiles(added, levels))
        self._flights = Flights(sum(self._held) / len(self._held), ended, seconds)
        self._held.clear()
        self._gaps.clear()
        self._bounds.clear()
        self._followed = [max(0.98 * count, 1e-3) for count in self._followed]
        return self._flights

    def _moved(
        self,
        table: NDArray[np.void],
        before: NDArray[np.void],
        seen: Connections,
        came: Times,
        went: Times,
        now: float,
        known: Mask,
    ) -> Mask:
        """Update what is known of connections that were there before. Returns those whose answer goes on."""
        state = before["state"]
        got = known & (seen["received"] > before["received"])
        wrote = known & (seen["written"] > before["written"])
        news = seen["segments_in"] - before["segments_in"]
        waiting, answered, unsure = state == _WAITING, state == _ANSWERED, state == _UNSURE
        asks = got & ((seen["received_ago"] < seen["sent_ago"]) | ~wrote)
        # What came and went in the same jiffy is an answer that is that fast, or an answer and the next request. It is the first if
        # the peer had to acknowledge it, and if there was one request and it did not wait before. Else it is what is usual.
        same_jiffy = got & wrote & (seen["received_ago"] == seen["sent_ago"]) & ~seen["sent_last"]
        guessed = same_jiffy & (waiting | (news > 1))
        asks |= guessed & self._slow()

        done = waiting & wrote & ~got
        self._follow(done, idle=True)
        table["state"][done], table["end"][done] = _ANSWERED, went[done]

        more = waiting & got & ~wrote  # the rest of the same request
        table["start"][more], table["slack"][more] = came[more], 0.0
        table["state"][more & (now - table["since"] > UPLOADS)] = _UPGRADED

        again = waiting & got & wrote  # it was answered, and the next one came
        single = again & asks & (news == 1)
        self._ended(before, went, single)
        self._follow(again, idle=False)
        between = again & ~single
        self._within(before, self._last or now, np.where(asks, went, came), between)
        self._ended(before, before["end"], answered & got)

        first_spoken = (state == _IDLE) & got & wrote & asks & (news == 1)
        fresh = got & ~more & (state != _UPGRADED) & ~first_spoken
        table["since"][fresh] = table["start"][fresh] = came[fresh]
        table["slack"][fresh] = 0.0
        table["state"][fresh] = np.where(asks, _WAITING, np.where(guessed, _UNSURE, _ANSWERED))[fresh]
        table["end"][fresh] = went[fresh]
        table["state"][first_spoken] = _UPGRADED

        further = wrote & ~got
        on = answered & further
        table["end"][on] = went[on]
        table["state"][on & (now - table["start"] > STREAMS)] = _STREAM
        table["state"][(state == _IDLE) & further] = _STREAM
        table["state"][unsure & further] = _IDLE
        stalled = known & answered & ~got & seen["full"]
        table["state"][stalled & (now - table["start"] > STREAMS)] = _STREAM
        complete = known & answered & ~got & ~on & ~stalled & (now - before["end"] > QUIET)
        self._ended(before, before["end"], complete)
        goes_on: Mask = on | stalled
        return goes_on

    def _appeared(self, table: NDArray[np.void], seen: Connections, came: Times, went: Times, now: float, first: Mask) -> None:
        """Start with connections that are new, or that the program has accepted since the last look."""
        since_queue = first & (table["state"] == _QUEUED) & (table["since"] > 0.0)
        start = np.where(since_queue, np.maximum(came, self._last or now), came)
        guessed = (seen["received_ago"] == seen["sent_ago"]) & ~seen["sent_last"] & (seen["segments_in"] > 1)
        asks = (seen["segments_out"] == 0) | (seen["received_ago"] < seen["sent_ago"]) | guessed & self._slow()
        state = np.where(asks, _WAITING, np.where(guessed | (self._last is None), _UNSURE, _ANSWERED))
        state = np.where(seen["received"] == 0, _IDLE, state)
        if self._last is not None:  # it may have been accepted before the last look, and left out then
            state = np.where((state == _ANSWERED) & (went < self._last - JIFFY), _IDLE, state)
        table["state"][first] = np.where(seen["accepted"], state, _QUEUED)[first]
        table["since"][first], table["start"][first], table["end"][first] = start[first], start[first], went[first]
        table["slack"][first] = np.where(since_queue & (start > came), now - start, 0.0)[first]

    def _slow(self) -> bool:
        """Whether answers usually take longer than a jiffy, so that one within it is unlikely."""
        usual = self._durations.quantile(0.5)
        return usual is None or usual > 2 * JIFFY

    def _vanished(self, now: float, last: float, cookies: NDArray[np.uint64]) -> None:
        """Take connections that are gone: an answer was complete, a request was answered in between."""
        known = self._known
        _, there = _places(cookies, known["cookie"])
        self._ended(known, known["end"], ~there & (known["state"] == _ANSWERED))
        gone = ~there & (known["state"] == _WAITING)
        self._follow(gone, idle=False)
        self._within(known, last, np.full(len(known), now), gone)

    def _ended(self, table: NDArray[np.void], end: Times, which: Mask) -> None:
        """Requests that ended at known times."""
        if which.any():
            took = (end - table["start"])[which]
            self._bounds.append((took - table["slack"][which] - JIFFY / 2, took + JIFFY / 2))

    def _within(self, table: NDArray[np.void], after: float, until: Times, which: Mask) -> None:
        """Requests that ended between `after` and `until`."""
        if which.any():
            start = table["start"][which]
            self._bounds.append((after - start - table["slack"][which], until[which] - start))

    def _follow(self, which: Mask, *, idle: bool) -> None:
        self._followed[not idle] += int(np.count_nonzero(which))


def _places(among: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> tuple[NDArray[np.intp], Mask]:
    """Where each of `wanted` is in the sorted `among`, and whether it is there."""
    if not len(among):
        return np.zeros(len(wanted), dtype=np.intp), np.zeros(len(wanted), dtype=np.bool_)
    at = np.minimum(np.searchsorted(among, wanted), len(among) - 1)
    return at, among[at] == wanted
