"""How fast this machine is, for bounds in milliseconds that were measured on another one."""

from __future__ import annotations

import time

REFERENCE_SECONDS = 0.00037
"""CPU seconds of `_work` on the machine on which the bounds were measured (2 virtual CPUs of an Intel Xeon, 2026-12-02, quiet)."""


def pace() -> float:
    """How many times longer the same plain Python takes here and now, at least 1: a bound times this is fair."""
    taken = []
    for _ in range(9):
        began = time.thread_time()
        _work()
        taken.append(time.thread_time() - began)
    return max(1.0, sorted(taken)[4] / REFERENCE_SECONDS)


def _work() -> int:
    """Tuples, dictionaries, sorting and texts, as in the rest of the code."""
    rows = {(number * 7919 % 1000, str(number)): number for number in range(1000)}
    kept = sorted(key for key, value in rows.items() if value % 3)
    return sum(len(f"{first}:{second}") for first, second in kept)
