"""The protocol of comparing forecasts of demand and of arrivals on public series: origins, horizons and scores.

Must not know how forecasts are made. A series comes from a file (`forecast/*.parquet`), or counts the requests of a file in equal
intervals (`arrivals/*.parquet`). Its first 60 % are history, on which a model may be fitted. The rest has up to 30 evenly spaced
origins. A forecast may use all values up to its origin; it has horizons of 1, 6 and 12 steps and quantiles .5, .9 and .95.

wQL(q) = 2 x sum of pinball losses / sum of |y|; a set's metric has the mean over the three quantiles, all its series and horizons
pooled; a forecaster's figure is the geometric mean over all set:metric of its wQL relative to the anchor's: below 1 is better. The
anchor is the last value with the empirical quantiles of its own errors at each horizon over the last 288 samples.

The data came with figures of baselines, but without all details. Found by trial, measured here / published:

- Demand: horizons pooled, the last origin 12 steps before the end, and only the seven sets in `PUBLISHED`: EWMA .923 / .924, window
  quantile of 12 .929 / .930, of 48 .938 / .941, of 288 1.189 / 1.185, raw persistence 1.434 / 1.44, boosting .863 / .858. The sets
  are a guess: of all choices of sets and ways to average (by series, set or horizon; medians) this meets the figures best, and two
  choices of four and five sets meet them within .01 too. With all ten sets the same are .944, 1.016, 1.087, 1.476, 1.564 and .846:
  those of plain windows mostly for the network means of the Alibaba cluster, which hardly ever move.
- Seasonal naive is 1.34 / 1.36 as the value a day before with its own errors, over the groups with more than a day of history; with
  the last value standing in elsewhere it is 1.17. No moving maximum of 2 to 288 samples gives 1.16 as one value for all quantiles:
  of 3 it is 1.25, of 12 1.57. The maximum of 6 with its own errors gives 1.15.
- Arrivals: intervals as in `COUNTED` give EWMA .962 / .965, window quantile of 48 .943 / .954, boosting .66 / .661. A file is one
  series with 90 values to forecast, so other intervals fit as well, and each figure is uncertain by several hundredths.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HISTORY = 0.6
ORIGINS = 30
HORIZONS: tuple[int, ...] = (1, 6, 12)
LEVELS: tuple[float, ...] = (0.5, 0.9, 0.95)

VARIABLE = "NICETY_DATA"
"""Environment variable with the directory of the data."""

PUBLISHED = ("azure_vm_v1", "gcd_jobs_2011", "gentd26_pods", "llm_server_aging", "nezha_pods", "planetlab_2011", "smd_machines")
"""Sets that reproduce the figures that came with the data."""

COUNTED = {
    "azure_llm_code": 10.0,  # of less than an hour
    "gentd26_requests": 60.0,
    "surf_lisa_jobs_2022a": 1800.0,
    "swf_nasa_ipsc_1993": 1800.0,
}
"""Seconds of an interval in which a file's events are counted: seconds and minutes for services, half hours for batch jobs."""

STEPS = {"limbo_wikipedia": 3600.0}
"""Seconds between rows of files whose `t` is the number of the row: by its autocorrelation the day is 24 rows."""


@dataclass(frozen=True, slots=True)
class Series:
    """Equally spaced values of one metric of one entity."""

    dataset: str  # name of its file
    metric: str
    entity: str  # VM, pod, job, server, or the file of arrivals
    name: str
    start: float  # seconds of the first value
    step: float  # seconds between values
    values: Floats

    @property
    def group(self) -> str:
        """Set and metric; series of a group are scored together."""
        return f"{self.dataset}:{self.metric}"

    @property
    def history(self) -> int:
        """Number of values that a model may be fitted on."""
        return int(HISTORY * len(self.values))

    def times(self) -> Floats:
        """[n] seconds of each value."""
        return np.asarray(self.start + self.step * np.arange(len(self.values)))


@dataclass(frozen=True, slots=True)
class Panel:
    """Series of one group that have the same length and step, so that they can be forecast together."""

    dataset: str
    metric: str
    start: Floats  # [S] seconds of the first value
    step: float
    values: Floats  # [S, n]

    @property
    def history(self) -> int:
        """Number of values that a model may be fitted on."""
        return int(HISTORY * self.values.shape[1])


def panels(series: Sequence[Series], cells: int = 50_000) -> Iterator[tuple[Ints, Panel]]:
    """(places in `series`, the panel) of all series; a panel of more than one series has at most `cells` values."""
    alike: dict[tuple[str, float, int], list[int]] = {}
    for place, one in enumerate(series):
        alike.setdefault((one.group, one.step, len(one.values)), []).append(place)
    for (_, step, length), places in sorted(alike.items()):
        most = max(1, cells // length)
        for low in range(0, len(places), most):
            chosen = places[low : low + most]
            first = series[chosen[0]]
            start = np.array([series[place].start for place in chosen])
            values = np.array([series[place].values for place in chosen])
            yield np.array(chosen), Panel(first.dataset, first.metric, start, step, values)


def directory(given: Path | None) -> Path:
    """The folder with the data: the given one, or that of the environment variable. Raises SystemExit for none, or one without
    series."""
    named = os.environ.get(VARIABLE)
    found = given if given is not None else Path(named) if named else None
    if found is None:
        raise SystemExit(f"where is the data? Give --data DIR or set {VARIABLE} to the directory with forecast/ and arrivals/")
    if not any(found.glob("forecast/*.parquet")):
        raise SystemExit(f"{found} has no forecast/*.parquet: give the directory that has forecast/ and arrivals/ in it")
    return found


def load_demand(data: Path) -> list[Series]:
    """Every series of `forecast/*.parquet`."""
    return [series for path in sorted(data.glob("forecast/*.parquet")) for series in _long(path)]


def load_arrivals(data: Path) -> list[Series]:
    """Every file of `arrivals/*.parquet` as one series of counts."""
    return [_counts(path) for path in sorted(data.glob("arrivals/*.parquet"))]


def origins(series: Series | Panel) -> Ints:
    """Places of the last value that each forecast may use, rising. Empty for a series too short to be scored."""
    first, last = series.history - 1, series.values.shape[-1] - 1 - max(HORIZONS)
    if first < 0 or last < first:
        return np.zeros(0, dtype=np.int64)
    return np.unique(np.linspace(first, last, ORIGINS).astype(np.int64))


def targets(series: Series, places: Ints) -> Floats:
    """[places, H] the true values at each horizon."""
    return np.asarray(series.values[places[:, None] + np.asarray(HORIZONS)])


@dataclass(frozen=True, slots=True)
class Losses:
    """The losses of one forecaster, summed by group, horizon and quantile."""

    groups: tuple[str, ...]  # set:metric, sorted
    pinball: Floats  # [G, H, Q] sums
    size: Floats  # [G, H] sums of |y|
    covered: Floats  # [G, H, Q] values at or below the quantile
    count: Floats  # [G, H] values

    def wql(self) -> Floats:
        """[G] mean over the quantiles, horizons pooled."""
        return np.asarray(2 * self.pinball.sum(axis=1).mean(axis=1) / self.size.sum(axis=1))

    def coverage(self) -> Floats:
        """[Q] share of all values at or below each quantile."""
        return np.asarray(self.covered.sum(axis=(0, 1)) / self.count.sum())

    def coverage_by_set(self) -> dict[str, Floats]:
        """[Q] coverage for each set, its metrics pooled."""
        sets = np.array([group.partition(":")[0] for group in self.groups])
        return {str(name): self.covered[sets == name].sum(axis=(0, 1)) / self.count[sets == name].sum() for name in np.unique(sets)}


def losses(series: Sequence[Series], said: Sequence[Floats]) -> Losses:
    """Scores forecasts `said[i]` [origins, H, Q] of `series[i]` at `origins(series[i])`."""
    groups = sorted({one.group for one in series})
    pinball = np.zeros((len(groups), len(HORIZONS), len(LEVELS)))
    covered, size = np.zeros_like(pinball), np.zeros(pinball.shape[:2])
    count = np.zeros_like(size)
    levels = np.asarray(LEVELS)
    for one, forecasts in zip(series, said, strict=True):
        places = origins(one)
        if forecasts.shape != (len(places), len(HORIZONS), len(LEVELS)) or not np.isfinite(forecasts).all():
            raise ValueError(f"forecasts of {one.group} {one.name} must be finite [{len(places)}, {len(HORIZONS)}, {len(LEVELS)}]")
        came = targets(one, places)
        error = came[:, :, None] - forecasts
        group = groups.index(one.group)
        pinball[group] += np.maximum(levels * error, (levels - 1) * error).sum(axis=0)
        covered[group] += (error <= 0).sum(axis=0)
        size[group] += np.abs(came).sum(axis=0)
        count[group] += len(places)
    return Losses(tuple(groups), pinball, size, covered, count)


def relative(losses: Losses, anchor: Losses, sets: Collection[str] | None = None) -> float:
    """Geometric mean over the groups of the wQL relative to the anchor's on the same series. `sets`: only over groups of these."""
    assert losses.groups == anchor.groups
    ratios = losses.wql() / anchor.wql()
    counted = [sets is None or group.partition(":")[0] in sets for group in losses.groups]
    return float(np.exp(np.mean(np.log(ratios[counted]))))


def limit_origins(series: Series | Panel, hold: int = 1) -> Ints:
    """Places in the test part at which a new limit is set: each value, or every `hold`-th."""
    return np.arange(series.history - 1, series.values.shape[-1] - 1, hold)


@dataclass(frozen=True, slots=True)
class Limits:
    """The quality of upper quantiles as limits of use. All figures are means over a group's series, which count equally."""

    groups: tuple[str, ...]  # set:metric, sorted
    slack: Floats  # [G] share of the limit that is not used
    breaches: Floats  # [G] share of steps in which more is used than the limit
    fixed: Floats  # [G] breaches of a fixed limit with the same slack

    def row(self) -> dict[str, float]:
        """Means over the groups, which count equally, and the breaches of the fixed limit divided by these."""
        slack, breaches, fixed = (float(np.mean(values)) for values in (self.slack, self.breaches, self.fixed))
        return {"slack": slack, "breaches": breaches, "fixed": fixed, "fewer": fixed / breaches if breaches else np.inf}


def as_limits(series: Sequence[Series], said: Sequence[Floats], hold: int = 1) -> Limits:
    """Judges limits `said[i]` [n] set at `limit_origins(series[i], hold)`, each for the next `hold` steps.

    Slack is the sum of what is left below the limit divided by the sum of limits. A step with use above the limit has a slack of
    0, not a negative one, so it does not offset other steps. The fixed limit is chosen for each series in hindsight, so that its
    slack over the same steps is equal.
    """
    groups = sorted({one.group for one in series})
    rows: list[list[tuple[float, float, float]]] = [[] for _ in groups]
    for one, limits in zip(series, said, strict=True):
        used = one.values[one.history :]
        limit = np.repeat(np.maximum(limits, 0.0), hold)[: len(used)]
        share = slack(used, limit)
        above = float(np.mean(used > fixed_limit(used, share)))
        rows[groups.index(one.group)].append((share, float(np.mean(used > limit)), above))
    means = np.array([np.mean(values, axis=0) for values in rows])
    return Limits(tuple(groups), *means.T)


def slack(used: Floats, limit: Floats | float) -> float:
    """Share of a limit that is not used; 0 for a limit that is always 0."""
    total = float(np.sum(np.broadcast_to(limit, used.shape)))
    return float(np.maximum(limit - used, 0.0).sum()) / total if total > 0 else 0.0


def fixed_limit(used: Floats, share: float) -> float:
    """The fixed limit whose slack over these values is `share`, from 0 to 1; infinite for 1.

    If some values are 0, any limit above 0 has at least their share as slack, so a smaller share gives the limit 0.
    """
    ordered = np.sort(used)
    below, n = np.cumsum(ordered), len(used)
    size = np.where(ordered > 0, ordered, 1.0)
    slacks = np.arange(1, n + 1) / n - below / (n * size)  # of a limit at each of the values
    slacks[ordered <= 0] = 0.0
    k = int(np.searchsorted(slacks, share, side="right"))  # so many values are at or below the limit
    if k == 0:
        return float(ordered[0])
    rest = k / n - share
    return float(below[k - 1] / (n * rest)) if rest > 0 else np.inf


def _long(path: Path) -> Iterator[Series]:
    table = pq.read_table(path, columns=["series_id", "entity", "metric", "t", "y"])
    names, which = _categories(table["series_id"])
    entities, entity = _categories(table["entity"])
    metrics, metric = _categories(table["metric"])
    at, values = table["t"].to_numpy(), table["y"].to_numpy().astype(np.float64)
    order = np.lexsort((at, which))
    cuts = np.flatnonzero(np.diff(which[order])) + 1
    for rows in np.split(order, cuts):
        step = float(at[rows[1]] - at[rows[0]])
        first = rows[0]
        yield Series(
            path.stem, metrics[metric[first]], entities[entity[first]], names[which[first]], float(at[first]), step, values[rows]
        )


def _categories(column: pa.ChunkedArray) -> tuple[list[str], Ints]:
    """(names, place among them of each row)."""
    whole = column.combine_chunks()
    coded = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
    return coded.dictionary.to_pylist(), coded.indices.to_numpy().astype(np.int64)


def _counts(path: Path) -> Series:
    table = pq.read_table(path)
    if "t_submit" in table.column_names:
        at = table["t_submit"].to_numpy()
        step = COUNTED[path.stem]
        start = float(at.min() // step * step)
        counts = np.bincount(((at - start) // step).astype(np.int64)).astype(np.float64)
    else:
        counts = table["count"].to_numpy().astype(np.float64)
        at = table["t"].to_numpy() if "t" in table.column_names else np.arange(2)  # else the row is the second
        start, step = float(at[0]), STEPS.get(path.stem, float(at[1] - at[0]))
    return Series(path.stem, "count", path.stem, path.stem, start, step, counts)
