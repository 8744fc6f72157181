"""Compares demand forecasts with all baselines: accuracy, coverage, cold start, use as limits, changes of a load, wrong models,
cost.

    python -m benchmarks.forecast.model --data DIR [--only PART,...] [--sets SET,...] [--series N] [--json FILE] [--ship]

DIR has the public traces (`forecast/*.parquet`, `arrivals/*.parquet`; or set NICETY_DATA) for the parts `demand` and `arrivals`,
which take more than an hour, and `untrained`. `--sets` and `--series` take some sets, and at most N series of each: the figures are
then of these. The parts `change`, `wrong`, `cost`, `trees` and `training` need no data. The daemon's own code is scored:
`models.forecast.demand.Forecaster` gets each series value by value, with its online correction, and forecasts at the origins of
`protocol.py`. There are four models for each set of series, fitted only on histories (the first 60 % of each series):

    own history    starts from other sets' histories and is fitted on the set's own, with its contest, as `nicety train` does it
    as before      the same with the network alone, which always goes 60 % of the way of 600 steps
    all histories  one model fitted on the histories of all sets together
    other sets     one model fitted on the histories of the other sets: it has never seen the set that it is scored on

`untrained` is how pools fare before any training: each file of arrivals is forecast by a model of the sets in `SHIPPED` and
`SHIPPED_ARRIVALS` without those from the same source.

`--ship` writes the model that nicety comes with to `models/shipped`, or to another folder with `--into DIR`. It is fitted on the
sets whose licence allows it. It speaks for the loads of pools if it passes the gate of `untrained`.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from .peers import PEERS, Crane, Peer, fit_boosting, forecasts

# isort: split
# Peers before nicety: what importing leaves free of memory moves the figure of `measure` by up to 1.5 MiB.

from nicety import __version__
from nicety.models import artifact
from nicety.models.forecast import demand as runtime
from nicety.models.forecast.answers import TrainedModel
from nicety.models.forecast.demand import DEMAND_FEATURES, METRICS, Forecaster
from nicety.models.forecast.mixture import member, trained
from nicety.models.forecast.network import Arrays, Network
from nicety.models.records import HORIZONS as TICKS
from nicety.models.records import QUANTILES
from nicety.training.contest import BOOSTED, milliseconds, more_of
from nicety.training.demand import fit_model
from nicety.training.fit import ONWARD, Way, fit_demand
from nicety.training.flatten import flat
from nicety.training.stream import Samples, SeriesRun, stream

from .. import ROOT
from ..claims import Claims
from ..shipping import ship
from .protocol import (
    HORIZONS,
    LEVELS,
    PUBLISHED,
    Floats,
    Ints,
    Losses,
    Series,
    as_limits,
    directory,
    load_arrivals,
    load_demand,
    losses,
    origins,
    panels,
    relative,
)

SEED = 1
EACH = 20_000
"""Origins of a set's history that a model is fitted on. Chosen."""

LONG, SEEN = 100_000, 2_000
"""In a series with more than `LONG` values, each origin sees only the last `SEEN` values. Chosen: five million values would take
hours."""

ITSELF = (sys.executable, "-m", "benchmarks.forecast.model")
"""The command of a measurement that needs its own process."""

ARRIVALS, BEFORE = 0.635, 1.08
"""What the forecasts of arrivals aim at: wQL with the file's own history, and the factor by which it may be worse before any
training."""

LONG_HISTORY = 4000
"""Values of a series whose history counts as long."""

COLD = 12
"""Values of a group after which a cold start is judged. Chosen."""

SHIPPED = ("azure_vm_v1", "exathlon_executors", "gcd_jobs_2011", "llm_server_aging", "nezha_pods", "smd_machines", "surf_lisa_jobs")
"""Sets whose licence allows a model that is distributed: CC-BY 4.0 (Azure, Google), MIT, Apache-2.0."""

SHIPPED_ARRIVALS = ("azure_llm_code", "nasa_http_1995_1s", "nasa_http_1995_60s")
"""Files of arrivals that may be used so: CC-BY 4.0 (Azure), free to redistribute (NASA, Internet Traffic Archive). Of the others no
licence is known, or it allows research only."""

SOURCES = {"nasa_http_1995_1s": "nasa_http_1995", "nasa_http_1995_60s": "nasa_http_1995"}
"""Files from the same source, which are left out together."""

SPOKEN = ("cpu", "rss")
"""Metrics that the shipped model always forecasts. It forecasts the loads of pools where it passes the gate."""

GATE, GATE_ANY = 1.5, 3.0
"""Points by which the 90 and 95 % quantiles of unseen arrivals may be off, over all files and on any. A value equal to a quantile
counts as covered by the share that the quantile promises: counts are small whole numbers, and ties say nothing."""

DENSE = 400
"""Origins of each file for the gate, evenly over its test part (chosen: 30 are too few for a share within 3 points)."""

_H = [TICKS.index(horizon) for horizon in HORIZONS]
_Q = [QUANTILES.index(level) for level in LEVELS]
_LIMITS = (0.9, 0.95, 0.99)
"""Levels that are tried as limits; the claims are about the last one."""

PARTS = ("demand", "arrivals", "untrained", "change", "wrong", "cost", "trees", "training")


@dataclass(frozen=True, slots=True)
class Said:
    """A forecaster's quantiles for one series."""

    quantiles: Floats  # [origins, H, Q]
    cold: Floats | None  # [H, Q] after COLD values; None for a series shown in pieces
    next: Floats  # [n, QUANTILES] of the next value, at each value of the test part but the last; empty likewise


# --- data -------------------------------------------------------------------------------------------------------------------------


def pieces(series: Series, places: Ints) -> list[tuple[SeriesRun, Ints]]:
    """The series as runs to feed in, each with the places in it at which forecasts are made."""
    values = series.values.astype(np.float32)
    if len(values) <= LONG:
        return [(SeriesRun(series.name, series.metric, 0, values, series.start), places)]
    made = []
    for place in places.tolist():
        first = max(place + 1 - SEEN, 0)
        part = values[first : place + 1 + max(TICKS)]
        made.append((SeriesRun(series.name, series.metric, 0, part, series.start + first * series.step), np.array([place - first])))
    return made


def history(series: Sequence[Series]) -> tuple[Samples, list[str]]:
    """(samples to fit on, the group of each origin) of one set. Values outside of the histories are never used."""
    rng = np.random.default_rng(SEED)
    total = sum(one.history for one in series)
    runs, places, groups = [], [], []
    for one in series:
        values = one.values[: one.history].astype(np.float32)
        parts = [(0, len(values))]
        if len(values) > LONG:  # as many pieces as give enough origins, from all over the history
            parts = [(int(end) - SEEN, int(end)) for end in np.sort(rng.integers(SEEN, len(values), 100))]
        for first, last in parts:
            inside = np.arange(SEEN // 2 if len(parts) > 1 else runtime.MIN_TICKS - 1, last - first - 1)
            wanted = EACH * len(values) / total / len(parts)
            if len(inside) > wanted:
                inside = np.sort(rng.choice(inside, max(int(wanted), 1), replace=False))
            runs.append(SeriesRun(one.name, one.metric, 0, values[first:last], one.start + first * one.step))
            places.append(inside)
            groups += [one.group] * len(inside)
    return stream(runs, places, series[0].step), groups


def joined(parts: Sequence[tuple[Samples, list[str]]]) -> tuple[Samples, list[str]]:
    """Several sets as one."""
    columns = [np.concatenate([getattr(samples, field.name) for samples, _ in parts]) for field in fields(Samples)]
    return Samples(*columns), [group for _, groups in parts for group in groups]


# --- forecasts --------------------------------------------------------------------------------------------------------------------


def speak(
    model: TrainedModel | None, series: Sequence[Series], together: int = 1024, where: Callable[[Series], Ints] = origins
) -> list[Said]:
    """The daemon's forecasts for the series of one set, which run side by side like the groups of a machine."""
    shown = [(which, run, places) for which, one in enumerate(series) for run, places in pieces(one, where(one))]
    shortest_first = sorted(range(len(shown)), key=lambda place: len(shown[place][1].values))
    quantiles: list[Floats] = [np.zeros(0)] * len(shown)
    cold: list[Floats | None] = [None] * len(series)
    following: list[Floats] = [np.zeros((0, len(QUANTILES))) for _ in series]
    for low in range(0, len(shown), together):
        batch = shortest_first[low : low + together]
        found = _show(model, [shown[place][1] for place in batch], [shown[place][2] for place in batch], series[0].step)
        for place, (asked, first, soon) in zip(batch, found, strict=True):
            quantiles[place] = asked
            which, run, _ = shown[place]
            one = series[which]
            if len(run.values) == len(one.values):
                cold[which], following[which] = first, soon[one.history - 1 : len(one.values) - 1]
    parts: list[list[Floats]] = [[] for _ in series]
    for (which, _, _), asked in zip(shown, quantiles, strict=True):  # in the order of the origins, however long the pieces are
        parts[which].append(asked)
    return [Said(np.concatenate(asked), first, soon) for asked, first, soon in zip(parts, cold, following, strict=True)]


def _show(
    model: TrainedModel | None, runs: Sequence[SeriesRun], places: Sequence[Ints], step: float
) -> list[tuple[Floats, Floats, Floats]]:
    """([asked, H, Q], [H, Q] after COLD values, [values, QUANTILES] of the next one) of each run. They start together, each at its
    own time of day."""
    by_start: dict[float, list[int]] = {}
    for which, run in enumerate(runs):
        by_start.setdefault(run.at, []).append(which)
    asked = [np.zeros((len(wanted), len(HORIZONS), len(LEVELS))) for wanted in places]
    first = [np.zeros((len(HORIZONS), len(LEVELS))) for _ in runs]
    soon = [np.zeros((len(run.values), len(QUANTILES))) for run in runs]
    at = [dict(zip(wanted.tolist(), range(len(wanted)), strict=True)) for wanted in places]
    for start, members in by_start.items():
        forecaster = Forecaster(model, step)
        for tick in range(max(len(runs[which].values) for which in members)):
            here = [which for which in members if tick < len(runs[which].values)]
            values = np.array([runs[which].values[tick] for which in here], dtype=np.float64)
            metric = np.zeros(len(here), dtype=np.int64)
            made = forecaster.step(here, values, start + tick * step, metric, np.ones(len(here), dtype=np.bool_))
            for which, (rows, _) in zip(here, made, strict=True):
                soon[which][tick] = rows[0]
                if tick in at[which] or tick == COLD - 1:
                    chosen = np.array(rows)[np.ix_(_H, _Q)]
                    if tick in at[which]:
                        asked[which][at[which][tick]] = chosen
                    if tick == COLD - 1:
                        first[which] = chosen
    return list(zip(asked, first, soon, strict=True))


def peer_at(peer: Peer, series: Sequence[Series], place: int) -> list[Floats]:
    """[H, Q] of each series from a baseline that has seen the values up to `place`."""
    said: list[Floats] = [np.zeros(0)] * len(series)
    for members, panel in panels(series):
        for which, made in zip(members.tolist(), peer.forecast(panel, np.array([place]), HORIZONS)[:, 0], strict=True):
            said[which] = made
    return said


# --- accuracy ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One forecaster on all series of demand, or of arrivals."""

    name: str
    found: Losses
    said: list[Floats]


def newest(samples: Samples) -> Ints:
    """[n] ticks of each origin, counted back from the last of its series."""
    ends = np.zeros(int(samples.run.max()) + 1, dtype=np.int64)
    np.maximum.at(ends, samples.run, samples.origin)
    return np.asarray(samples.origin - ends[samples.run])


def fitted(parts: Mapping[str, tuple[Samples, list[str]]], name: str) -> dict[str, TrainedModel]:
    """The models that are scored on set `name`."""
    without = fit_demand(*joined([part for other, part in parts.items() if other != name]), SEED, None)
    samples, groups = parts[name]
    before = fit_demand(samples, groups, SEED, without, way=Way(ONWARD, 0.6))
    own = fit_model(samples, groups, newest(samples), SEED, without)
    shares = dict(zip(("network", *(each.name for each in own.candidates)), own.weights[:, 0].round(2).tolist(), strict=True))
    _tell(f"{name}: {', '.join(f'{share:g} of {who}' for who, share in shares.items())}")
    found = {"other sets": without, "own history": own.arrays([True] * len(METRICS)), "as before": before}
    return {key: trained(arrays, "0" * 64) for key, arrays in found.items()}


@dataclass(frozen=True, slots=True)
class Known:
    """The public series, and the samples of each set's histories."""

    demand: dict[str, list[Series]]
    arrivals: dict[str, list[Series]]
    parts: dict[str, tuple[Samples, list[str]]]  # by set of either

    @classmethod
    def read(cls, data: Path, sets: Sequence[str] = (), most: int | None = None) -> Known:
        """Read all series, or those of some sets, at most so many of each."""
        demand: dict[str, list[Series]] = {}
        for one in load_demand(data):
            if not sets or one.dataset in sets:
                demand.setdefault(one.dataset, []).append(one)
        demand = {name: series[:: max(1, len(series) // most) if most else 1][:most] for name, series in demand.items()}
        arrivals = {one.dataset: [one] for one in load_arrivals(data) if not sets or one.dataset in sets}
        parts = {name: history(series) for name, series in {**demand, **arrivals}.items()}
        _tell("histories read")
        return cls(demand, arrivals, parts)

    def whole(self) -> Network:
        """A model of all histories."""
        return _network(fit_demand(*joined(list(self.parts.values())), SEED, None))


def _network(arrays: Arrays) -> Network:
    return Network(arrays, "0" * 64)


def demand(claims: Claims, known: Known, whole: Network) -> dict[str, object]:
    """Score all forecasters on the series of demand."""
    sets = known.demand
    parts = {name: known.parts[name] for name in sets}
    series = [one for members in sets.values() for one in members]
    said: dict[str, dict[str, list[Said]]] = {}
    for name, members in sets.items():
        models = {**fitted(parts, name), "all histories": whole}
        for key, model in models.items():
            said.setdefault(key, {})[name] = speak(model, members)
        said.setdefault("experts alone", {})[name] = speak(None, members)
        _tell(f"{name}: {len(members)} series")
    rows = [_row(key, sets, made) for key, made in said.items()]
    rows += [_peer(peer, series) for peer in [*PEERS, fit_boosting(False, series), fit_boosting(True, series)]]
    table = _table("demand", rows)
    own, other, before = (next(row for row in rows if row.name == name) for name in ("own history", "other sets", "as before"))
    anchor = rows[[row.name for row in rows].index(PEERS[0].name)]
    for row, bound in ((own, 0.76), (other, 0.785)):
        for where, named in (("the seven sets of the published figures", PUBLISHED), ("all sets", None)):
            if named is None or set(named) & set(sets):
                figure = relative(row.found, anchor.found, named)
                claims.at_most(f"demand, {where}: wQL of the model fitted on {row.name}", figure, bound)
        _covered(claims, "demand", row)
    long = [name for name, members in sets.items() if max(len(one.values) for one in members) >= LONG_HISTORY]
    if long:
        gain = relative(own.found, before.found, long)
        claims.at_most(f"demand, histories of {LONG_HISTORY:,} values and more: wQL beside that of the model as before", gain, 0.95)
    boosting = next(row for row in rows if row.name == "boosting, own set")
    for than, bound in ((anchor, 1.02), (boosting, 1.03)):
        worst, group = max(zip(own.found.wql() / than.found.wql(), own.found.groups, strict=True))
        claims.at_most(f"demand, own history: largest wQL beside {than.name}, on {group}", float(worst), bound)
    return {"table": table, "cold": _cold(claims, sets, said["other sets"]), "limits": _limits(claims, sets, said)}


def arrivals(claims: Claims, known: Known, whole: Network) -> list[dict[str, object]]:
    """Score all forecasters on arrivals, where each file is one series."""
    sets = known.arrivals
    series = [one for members in sets.values() for one in members]
    said: dict[str, dict[str, list[Said]]] = {}
    for name, members in sets.items():
        models: dict[str, TrainedModel | None] = {**fitted(known.parts, name), "all histories": whole, "experts alone": None}
        for key in models:
            said.setdefault(key, {})[name] = speak(models[key], members)
        _tell(f"arrivals: {name}")
    rows = [_row(key, sets, made) for key, made in said.items()]
    rows += [_peer(peer, series) for peer in [*PEERS, fit_boosting(False, series)]]
    anchor = rows[[row.name for row in rows].index(PEERS[0].name)]
    for row in rows:
        if row.name in ("own history", "other sets"):
            bound = ARRIVALS if row.name == "own history" else BEFORE * ARRIVALS
            claims.at_most(f"arrivals: wQL of the model fitted on {row.name}", relative(row.found, anchor.found), bound)
    return _table("arrivals", rows)


def untrained(claims: Claims, known: Known) -> dict[str, object]:
    """How pools fare before any training: accuracy, and the gate of coverage."""
    series = [one for members in known.arrivals.values() for one in members]
    models = _without_source(known)
    said = {name: speak(models[name], known.arrivals[name]) for name in known.arrivals}
    alone = {name: speak(None, known.arrivals[name]) for name in known.arrivals}
    _tell("arrivals before any training")
    rows = [_row(key, known.arrivals, made) for key, made in (("before any training", said), ("experts alone", alone))]
    rows.append(_peer(PEERS[0], series))
    figure = relative(rows[0].found, rows[-1].found)
    claims.at_most("arrivals before any training: wQL", figure, BEFORE * ARRIVALS)
    return {"table": _table("untrained", rows), "gate": gate(claims, known, models)}


def _without_source(known: Known) -> dict[str, TrainedModel]:
    """For each file of arrivals a model of what may be shipped, without what is from the same source."""
    allowed = [name for name in (*SHIPPED, *SHIPPED_ARRIVALS) if name in known.parts]
    made: dict[tuple[str, ...], TrainedModel] = {}
    found = {}
    for name in known.arrivals:
        used = tuple(other for other in allowed if SOURCES.get(other, other) != SOURCES.get(name, name))
        if used not in made:
            made[used] = _network(fit_demand(*joined([known.parts[other] for other in used]), SEED, None))
        found[name] = made[used]
    return found


def gate(claims: Claims, known: Known, models: Mapping[str, TrainedModel]) -> bool:
    """Whether models that never saw a file cover what they promise, on all files together and on each."""
    off: dict[str, Floats] = {}
    for name, members in known.arrivals.items():
        hits = []
        for one, made in zip(members, speak(models[name], members, where=_dense), strict=True):
            came = one.values[_dense(one)[:, None] + np.asarray(HORIZONS)][:, :, None]
            hits.append(
                np.where(came < made.quantiles, 1.0, np.where(came == made.quantiles, np.asarray(LEVELS), 0.0)).mean(axis=1)
            )
        off[name] = 100 * (np.concatenate(hits).mean(axis=0) - np.asarray(LEVELS))
        _tell(f"gate: {name} {off[name].round(1).tolist()}")
    whole, held = np.mean(list(off.values()), axis=0), True
    for level in (0.9, 0.95):
        at = LEVELS.index(level)
        worst, name = max((abs(float(points[at])), name) for name, points in off.items())
        claims.at_most(f"arrivals before any training: points off coverage of {level:.0%}", abs(float(whole[at])), GATE)
        claims.at_most(f"arrivals before any training: points off coverage of {level:.0%} on {name}", worst, GATE_ANY)
        held = held and abs(float(whole[at])) <= GATE and worst <= GATE_ANY
    return held


def _dense(series: Series) -> Ints:
    places = origins(series)
    return np.unique(np.linspace(places[0], places[-1], min(DENSE, int(places[-1] - places[0]) + 1)).astype(np.int64))


def _covered(claims: Claims, what: str, row: Row) -> None:
    """Coverage over all values, and on the set that is farthest off."""
    covered, by_set = row.found.coverage(), row.found.coverage_by_set()
    for level in (0.9, 0.95):
        at = LEVELS.index(level)
        worst, name = max((100 * abs(float(shares[at]) - level), name) for name, shares in by_set.items())
        claims.at_most(f"{what}, {row.name}: points off coverage of {level:.0%}", 100 * abs(float(covered[at]) - level), GATE)
        claims.at_most(f"{what}, {row.name}: points off coverage of {level:.0%} on {name}", worst, GATE_ANY)


def _row(name: str, sets: Mapping[str, Sequence[Series]], said: Mapping[str, Sequence[Said]]) -> Row:
    series = [one for members in sets.values() for one in members]
    made = [one.quantiles for members in sets for one in said[members]]
    return Row(name, losses(series, made), made)


def _peer(peer: Peer, series: Sequence[Series]) -> Row:
    made = forecasts(peer, series)
    _tell(peer.name)
    return Row(peer.name, losses(series, made), made)


def _table(what: str, rows: Sequence[Row]) -> list[dict[str, object]]:
    """Print the figures of all forecasters, the best first, and those of the models by set:metric."""
    anchor = next(row for row in rows if row.name == PEERS[0].name).found
    ordered = sorted(rows, key=lambda row: relative(row.found, anchor))
    table: list[dict[str, object]] = []
    print(f"\n{what}: {'forecaster':<32} relative wQL   coverage of {', '.join(f'{level:.0%}' for level in LEVELS)}   worst set's")
    for row in ordered:
        worst = np.array(list(row.found.coverage_by_set().values())).min(axis=0)
        figures = relative(row.found, anchor), row.found.coverage(), worst
        coverage, least = (" ".join(f"{share:6.1%}" for share in shares) for shares in figures[1:])
        print(f"{what}: {row.name:<32} {figures[0]:12.3f}   {coverage}   {least}")
        groups = dict(zip(row.found.groups, (row.found.wql() / anchor.wql()).tolist(), strict=True))
        table.append(
            {"name": row.name, "wql": figures[0], "coverage": figures[1].tolist(), "worst": worst.tolist(), "groups": groups}
        )
    print()
    return table


def _cold(claims: Claims, sets: Mapping[str, Sequence[Series]], said: Mapping[str, Sequence[Said]]) -> dict[str, float]:
    """wQL after COLD values of an unknown series, for the model that never saw its set, and for the baselines."""
    series = [one for members in sets.values() for one in members]
    ours = [one.cold for members in sets for one in said[members]]
    groups = sorted({one.group for one in series})
    near = np.array([horizon for horizon in HORIZONS if horizon < COLD])  # at longer horizons no baseline has seen its own errors
    found: dict[str, Floats] = {}
    for name, made in [  # crane needs periods that such a series is too short for
        ("other sets", ours),
        *((peer.name, peer_at(peer, series, COLD - 1)) for peer in PEERS if not isinstance(peer, Crane)),
    ]:
        lost, size = np.zeros(len(groups)), np.zeros(len(groups))
        for one, forecast in zip(series, made, strict=True):
            assert forecast is not None
            came, forecast = one.values[COLD - 1 + near][:, None], forecast[: len(near)]
            lost[groups.index(one.group)] += np.maximum(
                np.asarray(LEVELS) * (came - forecast), (np.asarray(LEVELS) - 1) * (came - forecast)
            ).mean()
            size[groups.index(one.group)] += np.abs(came).mean()
        found[name] = 2 * lost / np.where(size > 0, size, 1)
    use = np.all([values > 0 for values in found.values() if np.isfinite(values).all()], axis=0)
    anchor = found[PEERS[0].name][use]
    figures = {
        name: float(np.exp(np.mean(np.log(values[use] / anchor)))) for name, values in found.items() if np.isfinite(values).all()
    }
    best = min((figure, name) for name, figure in figures.items() if name != "other sets")
    print(
        "cold start:",
        ", ".join(f"{name} {figure:.3f}" for name, figure in sorted(figures.items(), key=lambda item: item[1])[:6]),
        "\n",
    )
    claims.at_most(
        f"cold start after {COLD} samples, a set never seen: wQL beside the best baseline ({best[1]})",
        figures["other sets"] / best[0],
        1,
    )
    return figures


def _limits(
    claims: Claims, sets: Mapping[str, Sequence[Series]], said: Mapping[str, Mapping[str, Sequence[Said]]]
) -> dict[str, dict[str, float]]:
    """Judge upper quantiles as limits for the next value."""
    series = [one for members in sets.values() for one in members if len(one.values) <= LONG]
    found = {}
    for key in ("own history", "other sets"):
        made = [one.next for members in sets for one in said[key][members] if len(one.next)]
        for level in _LIMITS:
            row = as_limits(series, [quantiles[:, QUANTILES.index(level)] for quantiles in made]).row()
            found[f"{key}, {level:.0%}"] = row
            print(
                f"limits, {key}, {level:.0%} quantile: slack {row['slack']:.1%}, breaches {row['breaches']:.2%}, of a fixed limit "
                f"{row['fixed']:.2%}, {row['fewer']:.1f} times as many"
            )
    row = found[f"own history, {_LIMITS[-1]:.0%}"]
    claims.at_most(f"{_LIMITS[-1]:.0%} quantile as a limit: slack", row["slack"], 0.23)
    claims.at_least("its breaches: so many times fewer than a fixed limit of equal slack", row["fewer"], 10)
    return found


def _tell(what: str) -> None:
    print(f"[{time.monotonic() - _BEGAN:5.0f} s] {what}", file=sys.stderr, flush=True)


_BEGAN = time.monotonic()


# --- parts without data -----------------------------------------------------------------------------------------------------------


def shipped() -> Network:
    """The model that nicety comes with."""
    found = artifact.shipped("demand")
    if found is None:
        raise SystemExit("nicety has no demand model of its own: make it with --ship")
    return Network(found.arrays, found.digest)


def change(claims: Claims) -> dict[str, dict[str, float]]:
    """Coverage after a load has changed its level, its noise, its period or everything: in the 100 ticks after the first 100."""
    rng = np.random.default_rng(SEED)
    groups, before, after = 300, 400, 200 + max(TICKS)  # with 40 groups, chance moves a share by half a point
    tick = np.arange(before + after)
    late = tick >= before
    kinds = {
        "four times the level": np.where(late, 4.0, 1.0) * rng.gamma(9, 1 / 9, (groups, len(tick))),
        "a tenth of the level": np.where(late, 0.1, 1.0) * rng.gamma(9, 1 / 9, (groups, len(tick))),
        "five times the noise": 1 + np.where(late, 0.25, 0.05) * rng.normal(0, 1, (groups, len(tick))),
        "a period of 20 becomes 33": 2
        + np.sin(2 * np.pi * tick / np.where(late, 33, 20))
        + rng.normal(0, 0.1, (groups, len(tick))),
        "steady becomes bursty": np.where(late, 6 * (rng.random((groups, len(tick))) < 0.15), 1.0)
        + rng.gamma(4, 0.02, (groups, len(tick))),
    }
    found: dict[str, dict[str, float]] = {}
    for kind, values in kinds.items():
        series = np.maximum(values, 0.0)
        forecaster, said = Forecaster(shipped(), 1.0), []
        for at in range(len(tick)):
            metric, ask = np.zeros(groups, dtype=np.int64), np.ones(groups, dtype=np.bool_)
            said.append(np.array([rows for rows, _ in forecaster.step(range(groups), series[:, at], float(at), metric, ask)]))
        window = range(before + 100, before + 200)
        below = np.array(
            [
                [series[:, at + h][:, None] <= said[at][:, place][:, _Q] for place, h in zip(_H, HORIZONS, strict=True)]
                for at in window
            ]
        )
        shares = below.mean(axis=(0, 1, 2))
        found[kind] = dict(zip(map(str, LEVELS), shares.tolist(), strict=True))
        for level in (0.9, 0.95):
            off = 100 * abs(found[kind][str(level)] - level)
            claims.at_most(f"the load changes, {kind}: points off coverage of {level:.0%} after 100 ticks", off, 3)
    return found


class _Wrong:
    """A model that is wrong on purpose."""

    name = "demand wrong"

    def __init__(self, answers: Callable[[np.ndarray], np.ndarray]) -> None:
        self._answers = answers

    def answers(self, _made: np.ndarray, start: np.ndarray, _metric: np.ndarray) -> np.ndarray:
        """See `demand.DemandModel`."""
        return np.asarray(self._answers(start), dtype=np.float32)


def wrong(claims: Claims) -> dict[str, dict[str, object]]:
    """Ticks until a deliberately wrong model has no more weight, counted from its first possible forecast."""
    rng = np.random.default_rng(SEED)
    models = {
        "constant": lambda start: np.full_like(start, 25.0),
        "NaN": lambda start: np.full_like(start, np.nan),
        "ten times too high": lambda start: 10 * np.abs(start) + 10,
    }
    found: dict[str, dict[str, object]] = {}
    for name, answers in models.items():
        for groups in (1, 30):
            series = rng.gamma(4, 0.25, (groups, 200))
            forecaster, spoke, until = Forecaster(_Wrong(answers), 1.0), 0, 200
            for at in range(200):
                metric, ask = np.zeros(groups, dtype=np.int64), np.ones(groups, dtype=np.bool_)
                made = forecaster.step(range(groups), series[:, at], float(at), metric, ask)
                spoke += any(source == _Wrong.name for _, source in made)
                if any(not change.heard for change in forecaster.changes):
                    until = at + 1 - runtime.MIN_TICKS
                    break
            found[f"{name}, {groups}"] = {"ticks": until, "spoke": spoke}
            claims.at_most(f"a model whose forecasts are {name}: ticks until it has no weight, {groups} groups", until, 60)
    return found


def cost(claims: Claims) -> dict[str, float]:
    """CPU and memory of a tick's forecasts for 1,000 groups in one thread, measured in separate processes."""
    milliseconds, mebibytes = cost_of()
    claims.at_most("1,000 groups, all horizons and quantiles: CPU ms a tick", milliseconds, 20)
    claims.at_most("1,000 groups: MiB of resident memory", mebibytes, 10)
    return {"ms": milliseconds, "mib": mebibytes}


def cost_of() -> tuple[float, float]:
    """What `measure` prints, in a process of its own."""
    text = subprocess.run([*ITSELF, "--measure"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    milliseconds, mebibytes = map(float, text.split())
    return milliseconds, mebibytes


def measure() -> None:
    """Print CPU milliseconds and resident MiB of 1,000 groups; for `cost`.

    Memory is the peak of the process minus its size before the first group. It includes the working memory of a step, what numpy
    and BLAS take at their first use, and the forecasts of the last tick, which the daemon holds while the next are made. A tick
    stands for a little more than ten minutes: 1,100 of them fill all rings, and each bin of the hour, the day and the week.
    """
    rng = np.random.default_rng(SEED)
    groups, ticks, interval = 1000, 1100, 610.0
    keys = [(f"group{i}", "cpu") for i in range(groups)]
    phase, ask, metric = np.arange(groups), np.ones(groups, dtype=np.bool_), np.zeros(groups, dtype=np.int64)
    model, spent = shipped(), []
    Path("/proc/self/clear_refs").write_text("5")  # forget the largest resident size that there was
    before = _resident("VmRSS")
    forecaster = Forecaster(model, interval)
    for at in range(ticks):
        values = np.maximum(1 + np.sin(at / 5 + phase) + rng.normal(0, 0.2, groups), 0)
        begin = time.thread_time()
        made = forecaster.step(keys, values, at * interval, metric, ask)
        spent.append(1e3 * (time.thread_time() - begin))
    assert {source for _, source in made} == {model.name}
    print(f"{np.median(spent):.3f} {(_resident('VmHWM') - before) / 2**10:.3f}")


def _resident(name: str) -> int:
    """KiB by that name in /proc/self/status."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))


def trees(claims: Claims) -> dict[str, float]:
    """What members of a mixture cost a tick beside the network, and how far flat trees are from scikit-learn's predictions."""
    rng = np.random.default_rng(SEED)
    seen = rng.normal(0, 1, (100_000, len(DEMAND_FEATURES))).astype(np.float32)
    seen[:, ::2] = np.round(seen[:, ::2] * 4) / 8  # ties
    target = np.sin(3 * seen[:, 0]) + seen[:, 1] * seen[:, 2] + rng.normal(0, 0.3, len(seen))
    boosted = [
        HistGradientBoostingRegressor(loss="quantile", quantile=level, random_state=SEED, **BOOSTED).fit(
            seen[:20_000], target[:20_000]
        )
        for level in QUANTILES
    ]
    lines = [Ridge().fit(seen[:20_000], target[:20_000]) for _ in QUANTILES]
    found, members = {}, {"boosting": flat(boosted), "linear": flat(lines)}
    base = artifact.shipped("demand")
    assert base is not None
    own = {name: array for name, array in base.arrays.items() if name != "speaks"}
    found["network, ms"] = milliseconds([member("network", own)], seen)
    for name, flattened in members.items():
        assert flattened is not None
        found[f"{name}, ms"] = milliseconds([member(*flattened)], seen)
        claims.at_most(f"{name}: CPU beside that of the network", found[f"{name}, ms"] / found["network, ms"], 2.5)
    expected = np.stack([model.predict(seen.astype(np.float64)) for model in boosted], axis=1)
    assert members["boosting"] is not None
    found["difference"] = float(np.abs(more_of(members["boosting"], seen) - expected).max())
    claims.at_most("flat trees beside scikit-learn: largest difference over 100,000 rows", found["difference"], 1e-12)
    return found


def training(claims: Claims) -> dict[str, float]:
    """Time and memory of a fit to a million rows, including the experts, in a separate process."""
    begin = time.perf_counter()
    text = subprocess.run([*ITSELF, "--train"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - begin
    rows, peak = text.split()
    claims.at_least("rows (origin and horizon) trained on", float(rows), 1_000_000)
    claims.at_most("seconds to train on them", seconds, 90)
    claims.at_most("its largest resident memory, GiB", float(peak), 2)
    return {"rows": float(rows), "seconds": seconds, "gib": float(peak)}


def train() -> None:
    """Stream and fit a million rows; for `training`."""
    rng = np.random.default_rng(SEED)
    runs = [SeriesRun(f"g{i}", "cpu", 0, rng.gamma(4, 0.25, 1100).cumsum().astype(np.float32) % 7, 0.0) for i in range(200)]
    samples = stream(runs, [np.arange(8, 1050) for _ in runs], 1.0)
    base = artifact.shipped("demand")
    fit_demand(samples, [runs[which].metric for which in samples.run.tolist()], SEED, None if base is None else base.arrays)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(samples.rows.shape[0] * samples.rows.shape[1], peak)


# --- the model that nicety comes with ---------------------------------------------------------------------------------------------


def fit_shipped(known: Known, place: Path) -> str:
    """Fit the model and write it below a folder; its digest. It speaks for the loads of pools if it passes the gate."""
    used = [name for name in (*SHIPPED, *SHIPPED_ARRIVALS) if name in known.parts]
    samples, groups = joined([known.parts[name] for name in used])
    claims = Claims()
    loads = gate(claims, known, _without_source(known))
    claims.close(None)
    spoken = {*SPOKEN, *(("load",) if loads else ())}
    arrays = {**fit_demand(samples, groups, SEED, None), "speaks": np.array([metric in spoken for metric in METRICS])}
    series = [one for name in used for one in (*known.demand.get(name, ()), *known.arrivals.get(name, ()))]
    entities = len({(one.dataset, one.entity) for one in series})
    card = artifact.Card(
        kind="demand",
        interval=1.0,
        data=artifact.DataRange(0, 0, max(one.history for one in series), 0, entities, ""),
        metrics=({"sets": ", ".join(used), "series": len(series), "rows": int(np.isfinite(samples.targets).sum())},),
        version=__version__,
        created=time.time_ns(),
        cpus=1,
        features=DEMAND_FEATURES,
    )
    return ship(card, arrays, place)


def main() -> int:
    """Run the parts asked for and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sets", default="", help="only these sets, separated by commas")
    parser.add_argument("--series", type=int, help="at most so many series of each set")
    parser.add_argument("--ship", action="store_true")
    parser.add_argument("--into", type=Path, default=artifact.SHIPPED, help="folder for --ship")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure or given.train:
        measure() if given.measure else train()
        return 0
    sets = given.sets.split(",") if given.sets else []
    if given.ship:
        print(f"shipped as {fit_shipped(Known.read(directory(given.data), sets, given.series), given.into)[:8]}")
        return 0
    wanted = given.only.split(",")
    if not set(wanted) <= set(PARTS):
        parser.error(f"--only takes {', '.join(PARTS)}")
    claims, figures = Claims(), {}
    if {"demand", "arrivals", "untrained"} & set(wanted):
        known = Known.read(directory(given.data), sets, given.series)
        whole = known.whole() if {"demand", "arrivals"} & set(wanted) else shipped()
        figures.update(
            {name: part(claims, known, whole) for name, part in (("demand", demand), ("arrivals", arrivals)) if name in wanted}
        )
        if "untrained" in wanted:
            figures["untrained"] = untrained(claims, known)
    for name, part in (("change", change), ("wrong", wrong), ("cost", cost), ("trees", trees), ("training", training)):
        if name in wanted:
            figures[name] = part(claims)
    claims.close(given.json, **figures)
    return 0 if all(row["holds"] for row in claims.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
