"""Finds the pids of processes that have begun, without a look at all the others. Must not know what is read of a process.

The kernel gives pids out in rising order, and /proc/loadavg ends with the newest one (proc_loadavg(5)). So only the pids that were
given out since the last look are tried. All processes are listed where that cannot be done: at first, after the numbers have begun
again from the bottom, and when so many were given out that a listing is cheaper. A pid may also be chosen (clone3(2)), and what
virtualizes /proc/loadavg may not say the newest: so there is a listing every few looks too. Where it shows three times what a look
has missed, each look is a listing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

MOST_MISSED = 3
"""Listings with a process that had been missed, after which the newest pid is not relied upon (chosen: a program that chooses its
pids should not cost much)."""


class Arrivals:
    """Remembers the newest pid of the last looks."""

    def __init__(
        self, listing: Callable[[], Iterable[str]], newest: Callable[[], int | None], lives: Callable[[int], bool]
    ) -> None:
        """`listing`: names in the root of procfs. `newest`: the pid that was given out last; None: not known. `lives`: whether a
        pid is that of a process, not of a thread."""
        self._listing, self._newest, self._lives = listing, newest, lives
        self._last: int | None = None
        self._before: int | None = None  # the look before: a pid is given out a moment before its process can be seen
        self._looks = 0  # since the last listing
        self._missed = 0

    def look(self, processes: Collection[int], others: Collection[int], every: int) -> list[int]:
        """Pids that may be those of new processes: they are not among the known `processes` and `others`, or were given out since
        the look before the last. There are fewer than `every` looks between two listings."""
        newest = self._newest() if self._missed < MOST_MISSED else None
        since, self._before, self._last = self._before, self._last, newest
        self._looks += 1
        if newest is None or since is None or self._looks >= every or not 0 <= newest - since <= len(processes):
            return self._listed(processes, others, since, newest)
        return [pid for pid in range(since + 1, newest + 1) if self._lives(pid)]

    def _listed(self, processes: Collection[int], others: Collection[int], since: int | None, newest: int | None) -> list[int]:
        self._looks = 0
        pids = [int(name) for name in self._listing() if name.isdecimal()]
        fresh = [pid for pid in pids if pid not in processes and pid not in others]
        if since is None or newest is None or newest < since:
            return fresh
        if (self._newest() or 0) >= newest and any(pid <= since for pid in fresh):
            self._missed += 1
        return fresh + [pid for pid in pids if since < pid <= newest and pid in others]
