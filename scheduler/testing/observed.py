"""What is observed of made-up processes: their rates. Must not know who looks at them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...models.features import Floats, Rates


def a_rate(cpu: Sequence[float], wait: Sequence[float] = (), brief: Sequence[float] = ()) -> Rates:
    """Rates of processes that use and wait for so many cores, all else 0. Nothing given is 0 for each."""
    nothing = np.zeros(len(cpu))

    def given(values: Sequence[float]) -> Floats:
        return np.array(values, dtype=np.float64) if values else nothing

    used, waited = given(cpu), given(wait)
    known = np.ones(len(cpu), dtype=np.bool_)
    return Rates(used, given(brief), waited, used + waited, nothing, nothing, nothing, nothing, known, nothing)
