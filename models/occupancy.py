"""How the CPU time of many processes lies over the CPUs, from what each used and how busy each CPU was. Pure.

Iterative proportional fitting (Deming and Stephan, 1940): a first guess is scaled in turn to what each CPU did and to what each
process used, until both fit. Where the guess is 0 it stays 0, so a pinned process stays on its CPUs.
"""

from __future__ import annotations

import numpy as np

from .features import Floats

ROUNDS = 4
"""Rounds of scaling (chosen): a fifth changes little beside the steps of 10 ms in which the kernel counts busy time."""

LEAST = 1e-3
"""Cores added to both sides of a scaling (chosen): a CPU that seems idle, because its time is counted in steps, must not move what
can run nowhere else."""


def fitted(guess: Floats, used: Floats, busy: Floats) -> Floats:
    """[n, CPUs] cores that each of n users took of each CPU: each row adds up to `used` [n], the columns nearly to `busy` [CPUs].

    `guess` [n, CPUs]: the first guess, no row of it all 0. `busy` all 0: not known, so the guess stays.

    >>> fitted(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0.6, 0.8]), np.array([0.8, 0.6])).round(2).tolist()
    [[0.6, 0.0], [0.21, 0.59]]
    """
    found = _to_rows(guess, used)
    if busy.any():
        for _ in range(ROUNDS):
            found = _to_rows(found * ((busy + LEAST) / (found.sum(axis=0) + LEAST)), used)
    return found


def _to_rows(values: Floats, used: Floats) -> Floats:
    return np.asarray(values * (used / values.sum(axis=1))[:, None])
