import numpy as np
import pytest

from nicety.models.anomaly.novelty import MOST, RENEWED, WARM_UP, Floats, Novelty

SEED = 20_261_125


def healthy(n: int, seed: int = SEED) -> np.ndarray:
    """[n, 4] a load with a slow seasonal pattern, two features that follow it, one that is noise, and one that hardly ever
    moves."""
    rng = np.random.default_rng(seed)
    load = 10 + 3 * np.sin(np.arange(n) / 40) + rng.normal(0, 0.5, n)
    return np.column_stack([load, 1e6 * load + rng.normal(0, 3e5, n), rng.normal(50, 5, n), np.full(n, 7.0)])


def scored(values: np.ndarray) -> np.ndarray:
    watch = Novelty(1, values.shape[1])
    return np.array([watch.step(row[None])[0] for row in values])


@pytest.mark.parametrize("kind", ["spike", "step", "quiet", "shaking", "ramp", "together", "still"])
def test_planted_anomalies_rank_above_what_is_normal(kind: str) -> None:
    values = healthy(1400)
    at = slice(1000, 1012)
    if kind == "spike":
        values[at, 0] += 8
    elif kind == "step":
        values[at, 2] += 40
    elif kind == "quiet":
        values[at, :2] = 0
    elif kind == "shaking":
        values[at, 2] += np.resize([30, -30], 12)
    elif kind == "ramp":
        values[at, 1] += 1e6 * np.arange(1, 13)
    elif kind == "together":  # each is usual, never both
        values[at, 0], values[at, 1] = 12, 8e6
    else:  # the one that never moved
        values[at, 3] = 9
    scores = scored(values)[200:]
    planted = np.zeros(1200, dtype=bool)
    planted[800:812] = True
    scores, planted = np.delete(scores, np.arange(812, 840)), np.delete(planted, np.arange(812, 840))  # the way back is odd too
    above = scores[planted][:, None] > scores[~planted]
    assert above.mean() >= 0.9  # the area under the ROC curve


def test_a_score_knows_nothing_later_than_its_tick() -> None:
    values = healthy(300)
    other = values.copy()
    other[200:] *= 3
    assert scored(values)[:200].tolist() == pytest.approx(scored(other)[:200].tolist(), nan_ok=True, abs=0)
    assert scored(other)[203] > 3 * scored(values)[203]


def test_units_and_order_of_features_have_no_influence() -> None:
    values = healthy(300)
    values[200:, 2] += 20
    expected = scored(values)
    assert scored(values * [2.0**40, 2.0**-30, -1.0, 0.25]) == pytest.approx(expected, nan_ok=True, rel=1e-9)
    assert scored(values * [1e-3, 1e9, 7.0, 60.0]) == pytest.approx(expected, nan_ok=True, rel=1e-6)
    assert scored(values[:, [2, 0, 3, 1]]) == pytest.approx(expected, nan_ok=True, rel=1e-6)


def test_series_do_not_influence_each_other_and_a_fresh_row_starts_anew() -> None:
    first, second = healthy(200), healthy(200, seed=3) * 50
    both = Novelty(2, 4)
    pairs = np.stack([first, second], axis=1)
    together = np.array([both.step(rows, np.array([False, tick == 100])) for tick, rows in enumerate(pairs)])
    assert together[:, 0] == pytest.approx(scored(first), nan_ok=True, rel=1e-9)
    assert together[100:, 1] == pytest.approx(scored(second[100:]), nan_ok=True, rel=1e-9)
    assert np.isnan(together[100 : 100 + WARM_UP, 1]).all()
    assert np.isfinite(together[100 + WARM_UP :, 1]).all()


def test_the_same_values_give_the_same_scores() -> None:
    assert scored(healthy(150)).tobytes() == scored(healthy(150)).tobytes()


def test_unknown_values_are_no_evidence() -> None:
    values = healthy(300)
    values[100:200:3, 1] = np.nan
    values[150, 0] = np.inf
    values[151, 0] = -np.inf
    scores = scored(values)
    assert np.isfinite(scores[WARM_UP:]).all()
    assert scores[150:155].max() < 5
    values[250] = np.nan
    alone = scored(values)
    assert np.isnan(alone[250])
    assert np.isfinite(alone[251:]).all()


@pytest.mark.parametrize("size", [0.0, 5e-324, 1e-300, 1.0, 1e308])
def test_any_finite_value_gives_a_finite_score(size: float) -> None:
    values = healthy(120)
    values[:, 0] = size
    values[90:, 0] = -size
    values[100, 1] = 1e308
    values[101, 2] = -1e308
    scores = scored(values)
    assert np.isfinite(scores[WARM_UP:]).all()
    assert scores.shape == (120,)


def test_what_never_moved_and_moves_counts_a_bounded_surprise() -> None:
    values = np.full((200, 2), 3.0)
    values[150:, 1] = 4.0
    scores = scored(values)
    assert scores[WARM_UP:150].max() == 0
    assert 0 < scores[150] <= MOST**2


def test_memory_does_not_grow_with_the_length_of_a_series() -> None:
    def size(watch: Novelty) -> int:
        return sum(part.nbytes for part in vars(watch).values() if isinstance(part, np.ndarray))

    watch = Novelty(3, 4)
    before = size(watch)
    for row in healthy(200):
        watch.step(np.stack([row] * 3))
    assert size(watch) == before < 3 * 2 * 8 * (3 * 4) ** 2 + 3 * 8 * 10 * (3 * 4) + 1000


def test_inverting_matrices_gets_rare_as_the_past_gets_long(monkeypatch: pytest.MonkeyPatch) -> None:
    inverted: list[int] = []
    original = np.linalg.inv

    def counted(matrices: Floats) -> Floats:
        inverted.append(len(matrices))
        return np.asarray(original(matrices))

    monkeypatch.setattr(np.linalg, "inv", counted)
    scored(healthy(1000))
    assert RENEWED < sum(inverted) < 140


def test_it_says_which_feature_was_how_far_off() -> None:
    watch = Novelty(1, 4)
    values = healthy(400)
    values[-1, 2] = 0
    for row in values:
        watch.step(row[None])
    assert watch.deviations()[0, 2] < -5
    assert np.abs(watch.deviations()[0, [0, 1, 3]]).max() < 5
    assert watch.shares()[0].argmax() == 2
    assert watch.shares()[0].sum() == pytest.approx(1.0)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        Novelty(0, 3)
    with pytest.raises(ValueError, match="1 or more"):
        Novelty(2, 0)
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        Novelty(2, 3).step(np.zeros((3, 2)))


def test_a_tick_in_which_nothing_is_known_teaches_nothing() -> None:
    values = np.random.default_rng(5).normal(size=(200, 1, 3))
    whole, holes = Novelty(1, 3), Novelty(1, 3)
    for tick, row in enumerate(values):
        if tick % 10 == 7:
            assert np.isnan(holes.step(np.full((1, 3), np.nan))).all()
        assert np.array_equal(whole.step(row), holes.step(row), equal_nan=True)


def test_a_spike_fades_from_the_score_within_some_ticks_and_no_score_is_negative() -> None:
    watch, values = Novelty(1, 2), np.random.default_rng(6).normal(size=(300, 1, 2))
    values[250] = 50.0
    scores = [float(watch.step(row)[0]) for row in values]
    assert min(scores[40:]) >= 0.0
    assert scores[250] > 10 * max(scores[200:250])
    assert scores[253] > scores[254] > scores[255] > scores[250] / 2
    assert scores[265] < scores[250] / 5


def test_differences_below_the_least_deviation_mean_nothing_in_any_unit() -> None:
    still = np.full((200, 1), 7.0)
    still[150:] = 7.1

    def highest(values: np.ndarray, least: float | None) -> float:
        watch = Novelty(1, 1, None if least is None else [least])
        return float(np.nanmax([watch.step(row[None])[0] for row in values]))

    assert highest(still, None) > 100  # it had never moved
    assert highest(still, 1.0) < 0.05
    assert highest(1e-6 * still, 1e-6) == pytest.approx(highest(still, 1.0), rel=1e-6)


def test_a_least_deviation_is_given_for_every_feature_or_for_none() -> None:
    with pytest.raises(ValueError, match="least must be one figure for each of 2 features, not 1"):
        Novelty(1, 2, [0.1])


def test_a_score_fades_with_a_rate_of_018_a_tick() -> None:
    values = healthy(260)
    values[250, 2] += 60
    scores = scored(values)
    assert scores[250] > 5 * scores[249]
    assert (scores[251:] >= 0.82 * scores[250:-1] * (1 - 1e-9)).all()
    assert scores[258] < 0.5 * scores[250]


def test_ticks_of_which_nothing_is_known_change_nothing() -> None:
    values = healthy(200)
    values[150:, 2] += 20
    watch = Novelty(1, 4)
    scores = []
    for tick, row in enumerate(values):
        for _ in range(3 if tick % 20 == 19 else 0):
            assert np.isnan(watch.step(np.full((1, 4), np.nan))[0])
        scores.append(watch.step(row[None])[0])
    assert np.array(scores) == pytest.approx(scored(values), nan_ok=True, rel=1e-12)
