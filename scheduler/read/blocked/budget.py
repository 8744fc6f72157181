"""How much a look may read, and for how long it relies on what earlier looks read. These figures are tuned together.

benchmarks/anomaly/deadlocks.py measures the result: 2.6 ms of CPU a look at 50 blocked workers, at most 71 ms for a look that
sweeps (docs/deadlocks.md). The costs of a step below were measured on the same kind of machine, of 2 CPUs."""

from __future__ import annotations

WORKERS = 100
"""Workers examined per look, in turn, among those that were not stuck in the last one. At 30 to 90 us each.
Chosen: 3 to 9 ms a look."""

PROCESSES = 400
"""Most processes examined per look, helpers included. Chosen: four times WORKERS."""

NEAR = 512
"""Most workers and masters that are asked first whether they can help. Chosen."""

SWEPT, SWEEP, MOST_SWEPT = 100, 5, 400
"""While something seems stuck, all other processes are swept, at 0.2 ms each: SWEPT per look, or more so that a sweep takes at most
SWEEP looks, but never more than MOST_SWEPT. Chosen: a sweep ends before `waitgraph.PATIENCE_NS` has passed, up to 2,000 processes
at a look a second, and takes at most 80 ms of a look."""

FRESH = 60
"""Looks for which the answers of a sweep stay valid. Excuses (this process proceeds) last up to twice as long. Chosen: one or
two minutes at a look a second."""

PAIRS = 5
"""Looks between two queries for all TCP connections: the kernel walks its whole table, which takes 20 ms if that is large. Chosen:
4 ms a look."""

MAIN, OTHERS = 20, 1
"""Of the workers that run only a little, a look examines the first thread of MAIN (10 us each), all threads of OTHERS (30 us a
thread). Chosen: 0.2 ms a look, and as much again for a worker of some threads."""
