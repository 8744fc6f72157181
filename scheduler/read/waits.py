"""What blocked workers wait for and which processes can unblock them: file locks, shared futexes, pipes, sockets, children.

Reads only /proc and sock_diag, starting from the workers and following what they wait for. Must not know what a deadlock is beyond
`models/anomaly/waitgraph.py`, nor what is done about it. In doubt a thread is left out, and what waits for it counts as able to
proceed. A thread is left out if it runs, sleeps or is stopped; if it waits with a time limit, or for a client, a timer, a terminal,
a remote machine, a signal or the disk; or if it is in a system call not known here. `syscall`, `fd`, `maps` and `mem` of a process
need ptrace rights.

This file has the order of one look. Its parts are in `blocked/`:

- `threads.py` reads what each thread of a process needs: `needs.py` by its system call, with `file_locks.py`, `futexes.py`,
  `channels.py` and `children.py` for each kind. `heartbeats.py` finds threads that only the clock wakes;
- `belongings.py` says whether a process has what is needed, `helpers.py` which processes do and whether they proceed;
- `excuses.py` and `restless.py` say which workers a look begins with, `search.py` follows them;
- `sweep.py` asks all other processes;
- `proof.py` says when it is sure that no process can help.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ...models.anomaly.waitgraph import Halt, Thread, WaitSnapshot
from ...models.identity import ProcId
from .blocked.belongings import Belongings
from .blocked.budget import NEAR
from .blocked.excuses import Excuses
from .blocked.helpers import Helpers
from .blocked.proof import Proof, ticking, whole
from .blocked.records import Ask, Query
from .blocked.restless import Restless
from .blocked.search import Search
from .blocked.standing import Standing
from .blocked.sweep import Sweep
from .blocked.threads import Threads


class LinuxWaits:
    """`ports.Waits` of this machine."""

    def __init__(
        self,
        proc_root: Path = Path("/proc"),
        machine: str = os.uname().machine,
        own: Collection[int] = (),
    ) -> None:
        """`own`: pids of nicety itself. They hold nothing that workers wait for."""
        proc = str(proc_root)
        self._number = 0  # of the look
        self._belongings = Belongings(proc, own)
        self._threads = Threads(proc, machine, self._belongings)
        self._excuses = Excuses()
        self._restless = Restless(proc, machine)
        self._standing = Standing(proc)
        self._proof = Proof(proc, self._standing)
        self._sweep = Sweep(proc, self._belongings)

    @property
    def trouble(self) -> str:
        """See `ports.Waits`."""
        return self._threads.trouble

    def look(
        self,
        still: Mapping[ProcId, int],
        workers: Sequence[ProcId],
        masters: Sequence[ProcId],
        aloof: Collection[ProcId],
        restless: Sequence[ProcId] = (),
    ) -> WaitSnapshot:
        """See `ports.Waits`."""
        self._number += 1
        query = Query(self._number, still, [*masters, *workers][:NEAR], frozenset(workers), aloof)
        self._begin(query)
        helpers = Helpers(query, self._threads, self._belongings, self._sweep, self._proof)
        roots = self._excuses.roots()
        locked = self._restless.locked(restless, helpers.see)
        excusers = self._excuses.excusers()
        search = Search(helpers, self._proof, roots, excusers)
        search.follow([*roots, *locked, *excusers])
        halts = self._proof.dated(search.stuck(), helpers.seen)
        self._excuses.remember(roots, halts, helpers)
        halts = self._proof.sure(halts, helpers.seen, self._sweep)
        self._ask_all(self._proof.questions(halts, helpers.seen), halts, helpers)
        about = frozenset((*still, *locked))
        return WaitSnapshot(tuple(halts.values()), whole(halts, helpers.seen), about, ticking(halts, helpers.seen))

    def rest(self) -> None:
        """See `ports.Waits`."""
        for part in (self._belongings, self._threads, self._excuses, self._restless, self._standing, self._proof, self._sweep):
            part.rest()

    def close(self) -> None:
        """See `ports.Waits`."""
        self._threads.close()

    def _begin(self, query: Query) -> None:
        self._belongings.begin(query)
        self._threads.begin(query)
        self._excuses.begin(query)
        self._standing.begin(query.number)
        self._sweep.begin(query)

    def _ask_all(self, questions: Mapping[Ask, int], halts: Mapping[Thread, Halt], helpers: Helpers) -> None:
        """Go on asking all processes. Note which threads stand still in those that can help, but do not proceed."""

        def proceeds(process: ProcId, ask: Ask) -> bool:
            if helpers.proceeds(process, ask):
                return True
            self._standing.note(process, helpers.seen[process].needs)
            return False

        self._sweep.go_on(questions, halts, proceeds)
