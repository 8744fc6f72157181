"""The long memory: forecasts a minute to an hour ahead, three days at a tick a second, a restart, and what they cost.

    python -m benchmarks.forecast.long --data DIR [--only PART,...] [--json FILE]

- `sets`: horizons of 60 and 300 steps on the public series, at most `EACH` of a set:metric; long series of arrivals are shown from
  their last `NEWEST` values. Protocol and anchor are as in `protocol`.
- `days`: series with a daily shape at a tick a second for three days. Between the values of a file rates are interpolated. Counts
  are drawn from Poisson's distribution; other values scatter as much as the file's values differ from their neighbours. One file
  has true seconds. Takes five minutes.
- `restart`: the same forecaster with and without a restart after `BEFORE` ticks that takes `GONE` seconds.
- `cost`: of a tick, of its memory, and of the file that is kept.

"Repeated" is the best that a forecaster without this memory can say further ahead: its forecast for 30 ticks ahead. It is from the
same run, and knows the experts' profiles by the clock.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nicety.models.forecast.demand import Forecaster
from nicety.models.records import LATER, QUANTILES
from nicety.scheduler.store.forecasts import ForecastStore

from ..claims import Claims
from .model import SEED, cost_of, shipped
from .protocol import HISTORY, LEVELS, ORIGINS, Floats, Ints, Series, directory, load_arrivals, load_demand

EACH, NEWEST = 60, 20_000
"""See above. Chosen: all of them would take an hour."""

AHEAD = (60, 300)
"""Horizons of `sets`."""

DAY = 86_400
STEP = 97
"""Seconds between two forecasts that are scored (chosen: a prime, so they fall on any second of a minute)."""

DAILY: Mapping[str, int] = {"azure_vm_v1:cpu_avg_pct": 10, "smd_machines:cpu_r": 2, "smd_machines:eth1_fi": 2}
"""Groups of demand with days in them, and how many series of each are played: those whose first four days are most alike,
if their autocorrelation is at least `ALIKE`."""

ALIKE = 0.3
BEFORE, GONE, AFTER = 3600, 10, 600
PARTS = ("sets", "days", "restart", "cost")
_Q = [QUANTILES.index(level) for level in LEVELS]


def pinball(came: Floats, said: Floats) -> Floats:
    """Losses [..., Q] of quantiles `said` [..., Q] of `LEVELS` for values [...]."""
    error = came[..., None] - said
    return np.asarray(np.maximum(np.array(LEVELS) * error, (np.array(LEVELS) - 1) * error))


# --- public sets ----------------------------------------------------------------------------------------------------------------


def origins(length: int, ahead: int) -> Ints:
    """As `protocol.origins`, for one horizon."""
    first, last = int(HISTORY * length) - 1, length - 1 - ahead
    return np.unique(np.linspace(first, last, ORIGINS).astype(np.int64)) if last >= first >= 0 else np.zeros(0, dtype=np.int64)


def anchor(values: Floats, places: Ints, ahead: int) -> Floats:
    """[places, Q] the last value with the quantiles of its own errors over the last 288."""
    said = []
    for place in places.tolist():
        seen = values[max(0, place - 288 - ahead + 1) : place + 1]
        said.append(values[place] + np.quantile(seen[ahead:] - seen[:-ahead], LEVELS))
    return np.maximum(np.array(said), 0.0)


def chosen(data: Path) -> list[Series]:
    """The series of `sets`."""
    rng, by_group = np.random.default_rng(SEED), dict[str, list[Series]]()
    for one in [*load_demand(data), *load_arrivals(data)]:
        values = one.values[-NEWEST:]
        start = one.start + one.step * (len(one.values) - len(values))
        if len(origins(len(values), AHEAD[0])):
            made = Series(one.dataset, one.metric, one.entity, one.name, start, one.step, values)
            by_group.setdefault(one.group, []).append(made)
    return [
        members[which]
        for members in by_group.values()
        for which in np.sort(rng.choice(len(members), min(len(members), EACH), replace=False)).tolist()
    ]


def shown(series: Sequence[Series]) -> list[tuple[dict[int, Floats], dict[int, Floats]]]:
    """Of each series, by horizon: the forecasts [origins, Q], and the repeated ones. Series of a set run side by side, each at its
    own time of day."""
    said: list[tuple[dict[int, Floats], dict[int, Floats]]] = [({}, {}) for _ in series]
    together: dict[tuple[str, float, float], list[int]] = {}
    for which, one in enumerate(series):
        together.setdefault((one.dataset, one.start, one.step), []).append(which)
    for (_, start, step), members in together.items():
        forecaster, wanted = Forecaster(shipped(), step), dict[int, list[tuple[int, int, int]]]()
        for which in members:
            for ahead in AHEAD:
                places = origins(len(series[which].values), ahead)
                said[which][0][ahead], said[which][1][ahead] = (np.zeros((len(places), len(LEVELS))) for _ in range(2))
                for number, place in enumerate(places.tolist()):
                    wanted.setdefault(place, []).append((which, ahead, number))
        for tick in range(max(wanted) + 1):
            here = [which for which in members if tick < len(series[which].values)]
            values = np.array([series[which].values[tick] for which in here])
            metric, ask = np.zeros(len(here), np.int64), np.ones(len(here), np.bool_)
            answers = forecaster.step(here, values, start + tick * step, metric, ask)
            if tick in wanted:
                later = forecaster.later(np.arange(len(here))).values
                for which, ahead, number in wanted[tick]:
                    row = here.index(which)
                    said[which][0][ahead][number] = later[row, LATER.index(ahead)][_Q]
                    said[which][1][ahead][number] = np.array(answers[row][0][-1])[_Q]
    return said


def sets(claims: Claims, data: Path) -> dict[str, object]:
    """Accuracy and coverage on the public series."""
    series = chosen(data)
    said, found = shown(series), dict[str, object]()
    for ahead in AHEAD:
        sums: dict[str, Floats] = {}
        covered, count = np.zeros(len(LEVELS)), 0
        for one, (ours, repeated) in zip(series, said, strict=True):
            places = origins(len(one.values), ahead)
            if not len(places):
                continue
            came = one.values[places + ahead]
            lost = [pinball(came, each).sum() for each in (ours[ahead], repeated[ahead], anchor(one.values, places, ahead))]
            sums[one.group] = sums.get(one.group, np.zeros(3)) + lost
            covered, count = covered + (came[:, None] <= ours[ahead]).sum(axis=0), count + len(places)
        table = {group: (lost / lost[2])[:2].tolist() for group, lost in sums.items() if lost[2] > 0}
        mine, theirs = np.exp(np.mean(np.log(np.array(list(table.values()))), axis=0)).tolist()
        found[str(ahead)] = {"wql": mine, "repeated": theirs, "coverage": (covered / count).tolist(), "groups": table}
        claims.at_most(f"{ahead} steps ahead: wQL beside the last value with its own errors", mine, 1)
        claims.at_most(f"{ahead} steps ahead: wQL beside the repeated forecast", mine / theirs, 1)
        worst = max(table, key=lambda group: table[group][0])
        claims.at_most(f"{ahead} steps ahead: largest wQL beside the last value, on {worst}", table[worst][0], 1.02)
        for level in (0.9, 0.95):
            share = float(covered[LEVELS.index(level)] / count)
            claims.at_most(f"{ahead} steps ahead: points off coverage of {level:.0%}", 100 * abs(share - level), 2.5)
    return found


# --- days at a tick a second ------------------------------------------------------------------------------------------------------


def alike(values: Floats, lag: int) -> float:
    """Autocorrelation."""
    return float(np.corrcoef(values[:-lag], values[lag:])[0, 1])


def seconds(data: Path, days: float) -> tuple[list[str], Floats]:
    """(names, [series, seconds] values) of the series with a daily shape."""
    rng, length = np.random.default_rng(SEED), round(days * DAY)
    names, made = list[str](), list[Floats]()
    demand = load_demand(data)
    for group, count in DAILY.items():
        ranked = []
        for one in (one for one in demand if one.group == group):
            lag = round(DAY / one.step)
            if len(one.values) > (4 + days) * lag + 2:
                ranked.append((alike(one.values[: 4 * lag], lag), one))
        for _, one in [pair for pair in sorted(ranked, key=lambda pair: -pair[0]) if pair[0] >= ALIKE][:count]:
            values = one.values[round(4 * DAY / one.step) :]
            rate = np.interp(np.arange(length) / one.step, np.arange(len(values)), values)
            shape = 1 / np.maximum(np.median(np.abs(np.diff(values))) / np.maximum(rate, 1e-9), 0.02) ** 2
            made.append(rate * rng.gamma(shape) / shape)
            names.append(f"{one.group} {one.name}")
    files = {one.dataset: one for one in load_arrivals(data)}
    true = files["nasa_http_1995_1s"]
    made.append(true.values[4 * DAY : 4 * DAY + length])
    for name, mean in (("gentd26_requests", None), ("limbo_wikipedia", 20.0)):
        one = files[name]
        values = one.values[round(2 * DAY / one.step) :] / one.step
        rate = np.interp(np.arange(length) / one.step, np.arange(len(values)), values)
        made.append(rng.poisson(rate if mean is None else rate * mean / rate.mean()).astype(np.float64))
    return [*names, true.dataset, "gentd26_requests", "limbo_wikipedia"], np.array(made)


def step(forecaster: Forecaster, values: Floats, at: float) -> Floats:
    """[n, H, Q] forecasts after a tick."""
    n = len(values)
    keys = [(f"g{which}", "cpu") for which in range(n)]
    answers = forecaster.step(keys, values, at, np.zeros(n, np.int64), np.ones(n, np.bool_))
    return np.array([rows for rows, _ in answers])


def days(claims: Claims, data: Path) -> dict[str, object]:
    """The third day, beside the repeated forecast."""
    names, values = seconds(data, 3 + max(LATER) / DAY)
    forecaster, columns = Forecaster(shipped(), 1.0), np.ascontiguousarray(values.T)
    at, ours, repeated = list[int](), list[Floats](), list[Floats]()
    for tick in range(3 * DAY):
        near = step(forecaster, columns[tick], float(tick))
        if tick >= 2 * DAY and tick % STEP == 0:
            at.append(tick)
            ours.append(forecaster.later(np.arange(len(values))).values[..., _Q])
            repeated.append(near[:, -1, _Q])
    found: dict[str, object] = {"series": names}
    for place, ahead in enumerate(LATER):
        came = values[:, np.array(at) + ahead].T
        said = np.array(ours)[:, :, place]
        ratios = pinball(came, said).sum(axis=(0, 2)) / pinball(came, np.array(repeated)).sum(axis=(0, 2))
        mean, shares = float(np.exp(np.mean(np.log(ratios)))), (came[..., None] <= said).mean(axis=(0, 1))
        found[str(ahead)] = {"ratio": mean, "coverage": shares.tolist(), "ratios": ratios.tolist()}
        print(f"third day, {ahead} s ahead: {mean:.3f} of the repeated one's loss, best series {ratios.min():.2f}", flush=True)
        claims.at_most(f"third day, {ahead} s ahead: loss beside the repeated forecast", mean, 0.6)
        for level in (0.9, 0.95):
            off = 100 * abs(float(shares[LEVELS.index(level)]) - level)
            claims.at_most(f"third day, {ahead} s ahead: points off coverage of {level:.0%}", off, 2.5)
    return found


# --- a restart, and cost ----------------------------------------------------------------------------------------------------------


def restart(claims: Claims, data: Path) -> dict[str, float]:
    """Losses after a restart, beside those without it."""
    _, values = seconds(data, (BEFORE + GONE + AFTER + max(LATER)) / DAY)
    steady, again = Forecaster(shipped(), 1.0), Forecaster(shipped(), 1.0)
    for tick in range(BEFORE):
        step(steady, values[:, tick], float(tick))
    with tempfile.TemporaryDirectory() as folder:
        ForecastStore(Path(folder)).write(steady.kept(), 1.0, 0)
        kept = ForecastStore(Path(folder)).read(1.0)
    assert kept is not None
    again.remember(kept)
    for tick in range(BEFORE, BEFORE + GONE):
        step(steady, values[:, tick], float(tick))
    lost = np.zeros((2, 2))
    for tick in range(BEFORE + GONE, BEFORE + GONE + AFTER):
        for which, forecaster in enumerate((steady, again)):
            near = step(forecaster, values[:, tick], float(tick))[:, :, _Q]
            later = forecaster.later(np.arange(len(values))).values[..., _Q]
            size = values.mean(axis=1)[:, None, None]
            lost[which, 0] += (pinball(values[:, tick + 1], near[:, 0])[:, None] / size).mean()
            lost[which, 1] += (pinball(values[:, tick + max(LATER)], later[:, -1])[:, None] / size).mean()
    ratios = (lost[1] / lost[0]).tolist()
    claims.at_most(f"loss in the {AFTER} s after a restart, 1 s ahead, beside that without one", ratios[0], 1.01)
    claims.at_most("the same an hour ahead", ratios[1], 1.01)
    return {"near": ratios[0], "later": ratios[1]}


def cost(claims: Claims) -> dict[str, float]:
    """CPU and memory of 1,000 groups, and of the file that is kept of two metrics of each."""
    milliseconds, mebibytes = cost_of()
    claims.at_most("1,000 groups, all horizons and quantiles: CPU ms a tick", milliseconds, 20)
    claims.at_most("1,000 groups: MiB of resident memory", mebibytes, 10)
    rng, forecaster, keys = np.random.default_rng(SEED), Forecaster(shipped(), 1.0), [(f"g{i}", "cpu") for i in range(2000)]
    metric, ask = np.zeros(2000, np.int64), np.ones(2000, np.bool_)
    for tick in range(40):
        forecaster.step(keys, rng.gamma(4, 0.25, 2000), float(tick), metric, ask)
    with tempfile.TemporaryDirectory() as folder:
        store = ForecastStore(Path(folder))
        begin = time.thread_time()
        store.write(forecaster.kept(), 1.0, 0)
        wrote, size = time.thread_time() - begin, store.path.stat().st_size / 2**20
        again, values = Forecaster(shipped(), 1.0), rng.gamma(4, 0.25, 2000)
        begin = time.thread_time()
        kept = store.read(1.0)
        assert kept is not None
        again.remember(kept)
        again.step(keys, values, 41.0, metric, ask)
        read = time.thread_time() - begin
    claims.at_most("1,000 groups of two metrics: MiB that are kept on disk", size, 16)
    claims.at_most("CPU seconds to write them", wrote, 0.3)
    claims.at_most("CPU seconds to start from them, first tick included", read, 0.3)
    return {"ms": milliseconds, "mib": mebibytes, "file": size, "write": wrote, "read": read}


def main() -> int:
    """Run the parts asked for and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    wanted = given.only.split(",")
    if not set(wanted) <= set(PARTS):
        parser.error(f"--only takes {', '.join(PARTS)}")
    claims, figures = Claims(), dict[str, object]()
    for name, part in (("sets", sets), ("days", days), ("restart", restart)):
        if name in wanted:
            figures[name] = part(claims, directory(given.data))
    if "cost" in wanted:
        figures["cost"] = cost(claims)
    claims.close(given.json, **figures)
    return 0 if all(row["holds"] for row in claims.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
