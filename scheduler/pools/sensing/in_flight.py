"""Requests that the workers of a server hold, for any server on TCP: looks at its connections as often as that is cheap.

Must not know kinds of pools. What is seen is followed by `flights.py`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection

from ....models.records import Flights
from ...hands.kernel import Clock
from ...read.connections import connections
from ...read.sockets import Listener, SockDiag
from .flights import FlightRecorder

log = logging.getLogger(__name__)

SHARE = 0.008
"""Share of a CPU that the looks may take: the longer one takes, the fewer there are. The rest of 1 % is for `read`."""

LONGEST_GAP_NS = 1_000_000_000
"""There is one look a second at least (chosen): then at 10,000 connections they take 1.5 % of a CPU."""

COSTS = 16
"""The least cost of so many looks counts: a look that was interrupted says nothing (chosen)."""


class InFlight:
    """The requests in flight of one server."""

    def __init__(self, pool: str, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._diag = SockDiag()
        self._recorder = FlightRecorder()
        self._listeners: frozenset[Listener] = frozenset()
        self._costs = deque[int](maxlen=COSTS)
        self._next_at = 0
        self._told = False

    def look(self, now: int, listeners: Collection[Listener]) -> None:
        """Look if it is time to. `listeners`: where the server listens; other ones are another server."""
        if self._listeners != listeners:
            self.forget()
            self._listeners = frozenset(listeners)
        if now < self._next_at or not listeners:
            return
        began = self._clock.monotonic()
        table = connections(self._diag, self._listeners)
        if table is None:
            self.forget()
            self._next_at = now + LONGEST_GAP_NS
            return
        self._recorder.look(began / 1e9, table)
        self._costs.append(self._clock.monotonic() - began)
        self._next_at = now + min(round(min(self._costs) / SHARE), LONGEST_GAP_NS)
        if self._recorder.uncounted and not self._told:
            self._told = True
            log.info("pool %s: connections that stream or were upgraded (WebSocket) do not count as requests", self._pool)

    def read(self) -> Flights | None:
        """The requests since the last read; None: they cannot be seen."""
        return self._recorder.read() if self._listeners else None

    def forget(self) -> None:
        """Forget all connections: the server is another one."""
        self._recorder = FlightRecorder()
        self._listeners = frozenset()
        self._costs.clear()

    def close(self) -> None:
        """Close the netlink socket."""
        self._diag.close()
