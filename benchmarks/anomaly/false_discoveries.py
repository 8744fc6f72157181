"""Compares Bonferroni's line with procedures that control the share of false discoveries: false alarms a day, and faults found.

    python -m benchmarks.anomaly.false_discoveries [--json FILE]

100 workers have p-values for blocks of a minute, as `models/anomaly/model.py` promises them: uniform for healthy workers. Three
fleets: one in which nothing happens; one in which a deploy makes all workers unusual for a minute of every hour, by a factor of
100 in one kind, without a fault; and one with some faults a day, each for five minutes, with p-values from 1e-4 to 1e-12.
`docs/decisions/0009` draws the conclusions.

- line: alarms at p <= false alarms / (blocks x workers x kinds), as the quarantine policy does
- BH: Benjamini and Hochberg (1995) over the workers and kinds of a block, at the level that gives a healthy fleet the same rate
- LORD: LORD++ (Ramdas, Yang, Wainwright and Jordan 2017) over the blocks, each with its least p-value, at 10 % false discoveries
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nicety.models.anomaly.model import BLOCK_SECONDS, KINDS, POOL_KINDS, alpha

from ..claims import Claims

WORKERS, TYPES = 100, len(KINDS) + len(POOL_KINDS)
SET = 10.0  # false alarms a day per 100 workers: enough to count
DAYS = 30
BLOCKS = round(DAYS * 86_400 / BLOCK_SECONDS)
FAULT_BLOCKS, FAULTS_A_DAY = 5, (0, 3, 100)
DEPLOYS_EVERY, ODD = 60, 0.01
LEVEL = 0.1  # of LORD

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Lord:
    """LORD++: each discovery returns some of the level that earlier tests have used up."""

    def __init__(self, level: float) -> None:
        self._level = level
        steps = np.arange(1, BLOCKS + 1)
        weights = np.log(np.maximum(steps, 2)) / (steps * np.exp(np.sqrt(np.log(steps))))
        self._gamma = weights / weights.sum()
        self._found: list[int] = []
        self._step = 0

    def threshold(self) -> float:
        """The threshold of the next test."""
        self._step += 1
        value = self._gamma[self._step - 1] * self._level / 2
        for at in self._found[-200:]:  # what lies longer ago gives next to nothing
            value += self._gamma[self._step - at - 1] * (self._level / 2 if at == self._found[0] else self._level)
        return float(value)

    def discover(self) -> None:
        """Record that the last test was significant."""
        self._found.append(self._step)


def below(p: Floats, level: float) -> Bools:
    """The rejections of Benjamini and Hochberg's procedure."""
    flat = p.ravel()
    order = np.argsort(flat)
    fits = np.flatnonzero(flat[order] <= level * np.arange(1, flat.size + 1) / flat.size)
    return p <= (flat[order[fits[-1]]] if fits.size else -1.0)


def run(faults_a_day: int, deploys: bool, seed: int) -> dict[str, tuple[float, float]]:
    """(false alarms a day, share of faults found) by procedure. An alarm is a worker in a block, of any kind."""
    chance = np.random.default_rng(seed)
    line = alpha(SET)
    lord = Lord(LEVEL)
    begins = np.sort(chance.integers(0, BLOCKS - FAULT_BLOCKS, faults_a_day * DAYS))
    faults = [(int(at), int(chance.integers(WORKERS)), int(chance.integers(TYPES)), float(chance.uniform(4, 12))) for at in begins]
    false, found = dict.fromkeys(("line", "BH", "LORD"), 0), {name: set[int]() for name in ("line", "BH", "LORD")}
    first = 0
    for block in range(BLOCKS):
        p = chance.random((WORKERS, TYPES))
        if deploys and block % DEPLOYS_EVERY == 0:
            p[:, 0] *= ODD
        while first < len(faults) and faults[first][0] + FAULT_BLOCKS <= block:
            first += 1
        sick: dict[int, int] = {}
        for number in range(first, len(faults)):
            at, worker, kind, strength = faults[number]
            if at > block:
                break
            p[worker, kind] = min(p[worker, kind], 10**-strength)
            sick[worker] = number
        threshold = lord.threshold()
        least = p.min()
        said = {"line": p <= line, "BH": below(p, line * p.size), "LORD": p <= (threshold / p.size)}
        if least * p.size <= threshold:
            lord.discover()
        for name, alarms in said.items():
            for worker in np.flatnonzero(alarms.any(axis=1)):
                if int(worker) in sick:
                    found[name].add(sick[int(worker)])
                else:
                    false[name] += 1
    many = max(len(faults), 1)
    return {name: (false[name] / DAYS, len(found[name]) / many) for name in said}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]  # it has one
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    claims, rows = Claims(), []
    scenes = [(faults, False) for faults in FAULTS_A_DAY] + [(0, True), (3, True)]
    for faults, deploys in scenes:
        for name, (rate, share) in run(faults, deploys, seed=1).items():
            rows.append({"faults a day": faults, "deploys": deploys, "procedure": name, "false a day": rate, "found": share})
            text = f"{name}: false alarms a day at {SET:g} set, {faults} faults a day" + (", deploys" if deploys else "")
            if name == "line" and not deploys:
                claims.at_most(text, round(rate, 2), 2 * SET)
            else:
                claims.add(text, round(rate, 2), "", True)
            if faults:
                claims.add(
                    f"{name}: share of faults found, {faults} a day" + (", deploys" if deploys else ""), round(share, 3), "", True
                )
    claims.close(options.json, rows=rows)


if __name__ == "__main__":
    main()
