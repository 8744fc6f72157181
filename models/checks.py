"""What every model must do, as functions that raise `CheckError` at the first broken promise. Pure.

Knows interfaces, not implementations. Shipped, so that authors of other models can check them in the same way.
"""

from __future__ import annotations

import numpy as np

from .anomaly.detectors import KINDS
from .anomaly.evidence import CHANNELS
from .anomaly.model import Scorer, score
from .behaviour import BEHAVIOUR_FEATURES, CLASSES, SEEN, BehaviourModel
from .features import told
from .forecast.answers import DemandModel, answer
from .forecast.baseline import Floats, Forecasts, Ints
from .forecast.demand import MIN_TICKS, fallback, forecasts, rows
from .forecast.experts import Experts
from .identity import ProcId
from .records import HORIZONS, QUANTILES, WINDOW, Class


class CheckError(AssertionError):
    """A model breaks a promise; the text says which."""


def series_zoo() -> tuple[Floats, Ints]:
    """(windows [n, WINDOW], lengths [n]) of every kind seen in live data: the same at each call."""
    rng = np.random.default_rng(20_240_229)
    t = np.arange(WINDOW)
    walk = np.abs(np.cumsum(rng.normal(0, 1, WINDOW)) + 20)
    full = [
        2 + np.sin(t / 5),
        np.where(t % 20 < 5, 3.0, 0.2) + rng.uniform(0, 0.01, WINDOW),
        np.where(rng.random(WINDOW) < 0.05, 8.0, 0.0),
        walk,
        np.floor(walk / 5),
        np.exp(rng.normal(0, 2, WINDOW)),
        t * 4096.0,
        np.where(t < WINDOW - 1, 0.0, 1.0),
        np.where(t < WINDOW - 1, 1.0, 0.0),
        np.full(WINDOW, 3.7e9),
        np.zeros(WINDOW),
        walk * 1e280,
        walk * 1e-280,
        walk,
    ]
    windows, lengths = np.array(full), np.full(len(full), WINDOW)
    windows[-1, 10:90:7] = np.nan  # unknown ticks inside
    windows[-1, -1] = np.nan
    for length in (1, 2, 3, 8, 15, 16, 17, 40, 100):
        short = np.full(WINDOW, np.nan)
        short[-length:] = walk[:length]
        windows, lengths = np.vstack([windows, short]), np.append(lengths, length)
    return windows, lengths


class Streamed:
    """A demand model, or the fallback without one, as a forecaster of windows: it is fed them tick by tick."""

    def __init__(self, model: DemandModel | None) -> None:
        self._model = model

    @property
    def name(self) -> str:
        """See `Forecasts`."""
        return "experts" if self._model is None else self._model.name

    def predict(self, windows: Floats, lengths: Ints) -> Floats:
        """See `Forecasts`."""
        n = len(windows)
        known = np.isfinite(windows) & (np.arange(WINDOW) >= WINDOW - lengths[:, None])
        begins = np.where(known.any(axis=1), np.argmax(known, axis=1), WINDOW)
        experts = Experts(n + LEAST_SLOTS, 1.0)
        values = np.zeros((n + LEAST_SLOTS, WINDOW))
        values[:n] = np.where(known, windows, np.nan)
        fresh = np.full(n + LEAST_SLOTS, -1)
        fresh[:n] = begins
        seen = experts.step(values[:, 0], np.zeros(len(fresh)), np.ones(len(fresh), dtype=np.bool_))
        for tick in range(1, WINDOW):
            seen = experts.step(values[:, tick], np.full(len(fresh), float(tick)), fresh == tick)
        answers = fallback(seen)
        if self._model is not None:
            asked = np.flatnonzero(experts.age[:n] >= MIN_TICKS)
            said = answer(self._model, rows(experts, seen)[:, :, asked], answers[:, :, asked], np.zeros(len(asked), dtype=np.int64))
            answers = answers.copy()
            answers[:, :, asked] = said
        found = forecasts(seen, answers)[:n]
        found[begins == WINDOW] = np.nan
        return found


LEAST_SLOTS = 8
"""Extra series, because numpy sums a single series in another order than several (chosen)."""


def check_forecaster(model: Forecasts) -> None:
    """All that holds for every forecaster, trained or not, for any series. Raises CheckError."""
    windows, lengths = series_zoo()
    given = windows.copy()
    said = model.predict(windows, lengths)
    _hold(bool(model.name.strip()), "has a name")
    _hold(np.array_equal(windows, given, equal_nan=True), "leaves its input alone")
    _hold(said.shape == (len(windows), len(HORIZONS), len(QUANTILES)), f"gives [n, horizons, quantiles], not {said.shape}")
    _hold(bool(np.isfinite(said).all()), f"gives finite values, not so for series {_which(~np.isfinite(said))}")
    _hold(bool((said >= 0).all()), f"gives no negative demand, not so for series {_which(said < 0)}")
    _hold(bool((np.diff(said, axis=2) >= 0).all()), f"rises in the quantile, not so for series {_which(np.diff(said, axis=2) < 0)}")
    _hold(np.array_equal(said, model.predict(windows, lengths)), "gives the same for the same")
    _check_independence(model, windows, lengths, said)
    _check_known_series(model)
    _check_scale(model)
    _hold(model.predict(windows[:0], lengths[:0]).shape == (0, len(HORIZONS), len(QUANTILES)), "takes no series at all")


def _check_independence(model: Forecasts, windows: Floats, lengths: Ints, said: Floats) -> None:
    """A forecast depends on its own series only, to the last bit. Otherwise a replay would depend on what else ran."""
    order = np.random.default_rng(1).permutation(len(windows))
    _hold(np.array_equal(said[order], model.predict(windows[order], lengths[order])), "does not depend on the order of series")
    for row in range(len(windows)):
        alone = model.predict(windows[row : row + 1], lengths[row : row + 1])[0]
        _hold(np.array_equal(said[row], alone), f"does not depend on the other series, not so for series {row}")
    many = model.predict(np.repeat(windows, 40, axis=0), np.repeat(lengths, 40))
    _hold(np.array_equal(np.repeat(said, 40, axis=0), many), "does not depend on how many series there are")
    older = np.where(np.arange(WINDOW) < WINDOW - lengths[:, None], 123.0, windows)
    _hold(np.array_equal(said, model.predict(older, lengths)), "does not look at what is older than the series")


def _check_known_series(model: Forecasts) -> None:
    """Series for which the answer is obvious."""
    constant = model.predict(np.full((2, WINDOW), [[0.0], [7.0]]), np.full(2, WINDOW))
    _hold(bool(np.allclose(constant, [[[0.0]], [[7.0]]], rtol=1e-9, atol=1e-12)), "says that a constant stays what it is")
    one = np.full((1, WINDOW), np.nan)
    one[0, -1] = 5.0
    single = model.predict(one, np.ones(1, dtype=np.int64))[0]
    _hold(bool(((single >= 2.5) & (single <= 15.0)).all()), f"stays near the only value known, {single.tolist()} for 5")
    _hold(bool((single[:, -1] > single[:, 0]).all()), "is not certain after one value")


def _check_scale(model: Forecasts) -> None:
    """Demand in millicores is demand in cores times 1000."""
    windows, lengths = series_zoo()
    usual = np.nanmax(windows, axis=1) < 1e12
    windows, lengths = windows[usual], lengths[usual]
    said = model.predict(windows, lengths)
    largest = np.fmax.reduce(windows, axis=1)[:, None, None]
    for factor in (2.0**-20, 1000.0, 2.0**20):
        scaled = model.predict(windows * factor, lengths)
        wrong = np.abs(scaled - said * factor) > 1e-6 * largest * factor
        _hold(not wrong.any(), f"scales with its series, not so for series {_which(wrong)} times {factor:g}")


def _hold(promise: bool, what: str) -> None:
    if not promise:
        raise CheckError(f"the model breaks the promise that it {what}")


def _which(wrong: np.ndarray) -> list[int]:
    return [int(row) for row in np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))]


def check_scorer(scorer: Scorer) -> None:
    """All that holds for every scorer of workers, trained or not, for any windows. Raises CheckError."""
    rng = np.random.default_rng(3)
    ids = [ProcId(100 + i, 1) for i in range(24)]
    pools = ["alone", *("pair" for _ in range(2)), *("many" for _ in range(9)), *("torn" for _ in range(12))]
    levels = (0.2, 0.05, 2e7, 40.0, 2e4, 0.2, 8.0, 0.2, 2.0, 0.1)
    values = rng.gamma(2.0, levels, (len(ids), WINDOW, len(CHANNELS)))
    values[3, :, 2] = 4e7 + 3e6 * np.arange(WINDOW)  # grows
    values[4, 60:, :2] = values[4, 60:, 3:5] = 0.0  # stands still
    values[5, 40:, 0], values[5, 40:, 4] = 1.0, 0.0  # spins
    values[6, :, 8] = 4.0 + np.arange(WINDOW)  # starts threads
    values[7, 40:, 9] = 60.0  # and processes
    values[12:][rng.random((12, WINDOW, len(CHANNELS))) < 0.2] = np.nan
    values[12:16, 30, :4] = (-1.0, np.inf, 1e300, -np.inf)
    lengths = np.full(len(ids), WINDOW)
    lengths[16:] = (1, 2, 5, 20, 40, 60, 90, 127)
    values[np.arange(WINDOW) < WINDOW - lengths[:, None]] = np.nan
    windows = np.ascontiguousarray(told(values).transpose(2, 1, 0))
    for interval in (0.1, 1.0, 10.0):
        given = windows.copy()
        found = score(scorer, ids, pools, windows, lengths, interval)
        _hold(np.array_equal(windows, given, equal_nan=True), "leaves its input alone")
        _hold([said.id for said in found] == sorted({said.id for said in found}), "gives each worker one score at most, by id")
        _hold(all(0 < said.p <= 1 for said in found), "gives p-values above 0 and up to 1")
        figures = [figure for said in found for figure in (said.value, *(figure for _, figure in said.evidence))]
        _hold(bool(np.isfinite(figures).all()), "gives finite figures")
        _hold(all(said.source.strip() for said in found), "says where a score comes from")
        _hold(score(scorer, ids, pools, windows, lengths, interval) == found, "gives the same for the same")
        order = rng.permutation(len(ids)).tolist()
        moved = score(scorer, [ids[i] for i in order], [pools[i] for i in order], windows[:, :, order], lengths[order], interval)
        _hold(moved == found, "does not depend on the order of workers")
        for pool in sorted(set(pools)):
            own = [i for i, name in enumerate(pools) if name == pool]
            apart = score(scorer, [ids[i] for i in own], [pool] * len(own), windows[:, :, own], lengths[own], interval)
            _hold(apart == [said for said in found if said.pool == pool], "does not depend on other pools")
        _, tails = scorer.tails(interval)
        for kind in KINDS:
            chances = tails[kind].p(np.linspace(0.0, 200.0, 2001))
            _hold(bool((np.diff(chances) <= 0).all()), f"calls no higher score of {kind} more usual")


def check_behaviour(model: BehaviourModel) -> None:
    """All that holds for every behaviour model, for any rows. Raises CheckError."""
    rng = np.random.default_rng(5)
    rows = rng.uniform(-3.0, 8.0, (60, len(BEHAVIOUR_FEATURES)))
    rows[:, SEEN] = rng.uniform(0.01, 20.0, 60)
    rows[20:40][rng.random((20, len(BEHAVIOUR_FEATURES))) < 0.4] = np.nan
    rows[40:50, :SEEN] = np.nan
    given = rows.copy()
    said = model.probabilities(rows)
    _hold(bool(model.name.strip()), "has a name")
    _hold(np.array_equal(rows, given, equal_nan=True), "leaves its input alone")
    _hold(said.shape == (len(rows), len(CLASSES)), f"gives [n, classes], not {said.shape}")
    _hold(bool(((said >= 0) & (said <= 1)).all()), "gives probabilities")
    _hold(bool(np.allclose(said.sum(axis=1), 1.0, rtol=0, atol=1e-12)), "gives probabilities that sum to 1")
    _hold(np.array_equal(said, model.probabilities(rows)), "gives the same for the same")
    order = rng.permutation(len(rows))
    _hold(np.array_equal(said[order], model.probabilities(rows[order])), "does not depend on the order of groups")
    alone = np.concatenate([model.probabilities(rows[at : at + 1]) for at in range(len(rows))])
    _hold(np.array_equal(said, alone), "does not depend on the other groups")
    _hold(
        np.array_equal(np.tile(said, (30, 1)), model.probabilities(np.tile(rows, (30, 1)))), "does not depend on how many there are"
    )
    _hold(model.probabilities(rows[:0]).shape == (0, len(CLASSES)), "takes no group at all")
    little = rows[:20].copy()
    little[:, SEEN] = 1e-6
    spread = np.abs(model.probabilities(little) - model.probabilities(little[::-1])).max()
    _hold(bool(spread < 0.01), "has no opinion without evidence")
    for row in rows:
        for class_ in Class:
            found = model.evidence(row, class_)
            known = {name for name, value in zip(BEHAVIOUR_FEATURES, row.tolist(), strict=True) if value == value}
            pushes = [abs(push) for _, _, push in found]
            _hold({name for name, _, _ in found} <= known, "takes no unknown feature for evidence")
            _hold(pushes == sorted(pushes, reverse=True), "gives the strongest evidence first")
            _hold(bool(np.isfinite([figure for _, *figures in found for figure in figures]).all()), "gives finite evidence")
