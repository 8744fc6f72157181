"""Delays in a sentence: for whom a group waits, and what came of demoting one of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..decision import Decision, Delay, Effect
from ..words import figure, share

WAIT = re.compile(r"wait of group (.*), cores per core of demand")
"""The figure of an effect on a wait, in the words of `decide/effects.py`."""

LEAST_SHOWN = 0.005
"""Cores below which a part is added to the others (chosen): it would be shown as 0."""

LEAST_FALL = 0.05
"""Share of the wait before by which it must differ to have fallen or risen (chosen)."""


def delay_in_words(delay: Delay) -> str:
    """For whom a group waits, the largest first; what its quota keeps from it is no part of the wait.

    >>> delay_in_words(Delay("web", 0.8, (("ffmpeg", 0.6),), 0.1, 0.1, 0.0, 0.0, 0.0))
    'waits 0.8 cores: 0.6 for ffmpeg, 0.1 for its own threads, 0.1 for others'
    >>> delay_in_words(Delay("web", 0.002, (), 0.002, 0.0, 0.0, 0.0, 0.61))
    'its own quota keeps 0.61 cores from it'
    """
    parts = [
        *delay.by,
        ("its own threads", delay.own),
        ("the kernel and what nicety cannot see", delay.unseen),
        ("the hypervisor", delay.steal),
    ]
    named = sorted((it for it in parts if it[1] >= LEAST_SHOWN), key=lambda it: -it[1])
    rest = delay.wait - sum(cores for _, cores in named)
    named += [("others", rest)] if rest >= LEAST_SHOWN else []
    said = f"waits {_cores(delay.wait)}" + (
        f": {', '.join(f'{_number(cores)} for {name}' for name, cores in named)}" if named else ""
    )
    kept = f"its own quota keeps {_cores(delay.throttled)} from it" if delay.throttled >= LEAST_SHOWN else ""
    return "; ".join(filter(None, (said if named or not kept else "", kept)))


def put_down_to(delay: Delay, culprit: str) -> str:
    """How much of a delay was put down to a culprit.

    >>> put_down_to(Delay("web", 0.8, (("ffmpeg", 0.6),), 0.1, 0.1, 0.0, 0.0, 0.0), "ffmpeg")
    '75 % of its delay was put down to ffmpeg'
    """
    cores = dict(delay.by).get(culprit)
    if cores is None or delay.wait <= 0.0:
        return f"{culprit} was not among those that delayed it most"
    return f"{share(cores / delay.wait)} of its delay was put down to {culprit}"


def causal_test(decision: Decision, delays: Iterable[Delay], effects: Iterable[Effect]) -> list[str]:
    """The causal test of a demotion: for whom its victim waited, how much of that was put down to the demoted group, and what came
    of the wait without it. [] for other decisions, and if the victim's delay is not known."""
    victim, culprit = (decision.why.figures.get(name) for name in ("victim", "contender"))
    delay = next((it for it in delays if it.group == victim), None)
    if delay is None or not isinstance(culprit, str):
        return []
    fell = [_fell(effect) for effect in effects if WAIT.fullmatch(effect.metric)]
    return [
        f"{delay.group} {delay_in_words(delay)}",
        f"{put_down_to(delay, culprit)}; {fell[-1] if fell else 'what its demotion changed is not measured'}",
    ]


def _fell(effect: Effect) -> str:
    change = (effect.after - effect.before) / effect.before if effect.before > 0.0 else 0.0
    if abs(change) < LEAST_FALL:
        return "with it demoted, the wait stayed as it was"
    return f"with it demoted, the wait {'fell' if change < 0 else 'rose'} by {share(abs(change))}"


def _number(cores: float) -> str:
    return figure(round(cores, 2))


def _cores(cores: float) -> str:
    return f"{_number(cores)} cores"
