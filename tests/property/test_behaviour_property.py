"""Whatever is measured, rows stay in range, answers do not depend on the order of groups, and memory is bounded."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nicety.models.behaviour import BEHAVIOUR_CHANNELS, CLASSES, KNOTS, SEEN, BehaviourModel, Behaviours, Floats, Summaries, decide
from nicety.models.records import Class

values = st.one_of(
    st.floats(width=64),  # NaN, infinities, negative, denormal and huge ones too
    st.floats(0, 4),
    st.sampled_from([0.0, 1.0, 2.0, 1e-3, 1e4, float("nan")]),
)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[list[str], Floats]]:
    """Ticks of up to six groups that come and go."""
    ticks = []
    for _ in range(draw(st.integers(1, 6))):
        names = sorted(draw(st.sets(st.sampled_from("abcdef"), max_size=6)))
        ticks.append((names, draw(hnp.arrays(np.float64, (len(names), len(BEHAVIOUR_CHANNELS)), elements=values, fill=values))))
    return ticks


def a_model(seed: int) -> BehaviourModel:
    rng = np.random.default_rng(seed)
    arrays = {
        "knots": np.sort(rng.normal(0, 3, (SEEN, KNOTS)), axis=1) + np.arange(KNOTS) * 1e-3,
        "pushes": rng.normal(0, 3, (SEEN, KNOTS * len(CLASSES))),
        "start": rng.normal(0, 1, len(CLASSES)),
        "halfway": np.array([0.15]),
    }
    return BehaviourModel.from_arrays(arrays, "5e" * 32)


@settings(max_examples=80, deadline=None)
@given(histories(), st.integers(0, 20))
def test_answers_are_fit_for_use_and_do_not_depend_on_the_order(history: list[tuple[list[str], Floats]], seed: int) -> None:
    model = a_model(seed)
    one, two = Behaviours(model, 0.7), Behaviours(model, 0.7)
    for names, rows in history:
        given_ = rows.copy()
        found = dict(zip(names, one.step(names, rows), strict=True))
        assert np.array_equal(rows, given_, equal_nan=True)
        order = np.random.default_rng(seed).permutation(len(names)).tolist()
        moved = two.step([names[at] for at in order], rows[order])
        assert found == {names[at]: said for at, said in zip(order, moved, strict=True)}
        for said in found.values():
            if said is not None:
                assert 0 <= said.p_interactive <= 1
                assert 0 <= said.p_batch <= 1
                assert said.p_interactive + said.p_batch <= 1 + 1e-3
                assert all(np.isfinite(figures).all() for _, *figures in said.evidence)
                if said.inferred is Class.EXEMPT:
                    assert said.evidence == ()


@settings(max_examples=80, deadline=None)
@given(histories())
def test_rows_are_in_range_or_unknown(history: list[tuple[list[str], Floats]]) -> None:
    summaries = Summaries()
    for names, values_ in history:
        slots, told = summaries.step(names, values_)
        rows = summaries.rows(slots)
        assert not np.isinf(rows).any()
        assert (rows[:, SEEN] >= 0).all()
        assert (rows[told, SEEN] > 0).all()


@settings(max_examples=80, deadline=None)
@given(hnp.arrays(np.float64, (5, 3), elements=st.floats(0.001, 1)), st.integers(0, 2), st.floats(0.55, 0.99))
def test_no_class_is_given_below_certainty_and_none_is_kept_far_below(parts: Floats, before: int, certainty: float) -> None:
    chances = parts / parts.sum(axis=1, keepdims=True)
    held = decide(chances, np.full(5, before), certainty)
    for p, now in zip(chances, held.tolist(), strict=True):
        if CLASSES[now] is not Class.EXEMPT:
            assert p[now] >= (certainty - 0.3 if now == before else certainty) - 1e-12
        if CLASSES[now] is Class.BATCH and now != before:
            assert p[0] <= (1 - certainty) / 2 + 1e-12
