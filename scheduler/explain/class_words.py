"""A program's class in words: the class, how sure it is, and the evidence. Reads a group as it was logged.

The only table that maps the features of `models.behaviour` to words; a feature not in it is shown by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...models.records import LOADING_SECONDS, Behaviour, Class, Ruled, Spared
from ..decision import Group, Session
from ..words import figure, size


def percent(share: float) -> str:
    """A share for people; a share that is not exactly certain never shows as 100 %.

    >>> percent(0.974), percent(0.9996), percent(0.0004), percent(0.0)
    ('97 %', 'over 99 %', 'under 1 %', '0 %')
    """
    if 0.99 < share < 1:
        return "over 99 %"
    return "under 1 %" if 0 < share < 0.005 else f"{share:.0%}".replace("%", " %")


CLASS = {Class.INTERACTIVE: "interactive", Class.BATCH: "batch", Class.EXEMPT: "neither"}
"""What a class is called."""

SPARED = {
    Spared.READS_KEYSTROKES: "but it reads single keystrokes, so somebody may be typing",
    Spared.HAS_WINDOW: "but it has a window or plays sound",
    Spared.SERVER: "but it works for a server",
    Spared.PIPE_SERVER: "but its parent sends it requests through a pipe",
    Spared.UNSEEN: "but its sockets cannot be seen, so it may serve somebody",
    Spared.YOUNG: "but it has just started, and may still be loading its code",
    Spared.LOADING: f"but in its first {LOADING_SECONDS:.0f} s somebody may be waiting for it to load",
    Spared.LITTLE: "but it wants too little CPU for a demotion to gain anything",
}
"""Why a group that looks like batch work is not called batch."""


RULED = {
    Ruled.SWARM: "by the rule for swarms: its work is done by processes that live for less than a tick",
    Ruled.SUCCEEDS: "as what it has just taken the place of was",
}
"""Why a group gets a class that its own behaviour does not show."""


def class_of(group: Group, session: Session | None) -> str:
    """The class of a group, how sure it is, and its source."""
    behaviour, name = group.behaviour, CLASS[group.class_]
    if behaviour is None:
        if group.class_ is not Class.EXEMPT:
            return f"{name}, by the configuration"
        if _pinned(group.name, session):
            return "none, by the configuration: left alone"
        return "not known: its behaviour has not been seen yet, or no behaviour model is in use; left alone"
    if behaviour.ruled is not None:
        return f"{name}, {RULED[behaviour.ruled]}"
    if behaviour.inferred is not Class.EXEMPT:
        return f"{name} ({percent(_chance(behaviour))} sure, by {behaviour.source})"
    neither = 1.0 - behaviour.p_interactive - behaviour.p_batch
    needed = _certainty(session)
    if needed is not None and neither >= needed:
        return f"neither interactive nor batch ({percent(neither)} sure, by {behaviour.source}): left alone"
    if behaviour.spared is not None:
        sure = f"looks like batch ({percent(behaviour.p_batch)} sure, by {behaviour.source})"
        return f"not called batch: {sure}, {SPARED[behaviour.spared]}: left alone"
    text = f"not sure: {percent(behaviour.p_interactive)} interactive, {percent(behaviour.p_batch)} batch"
    if needed is None:
        return f"{text} (by {behaviour.source}): left alone"
    if behaviour.p_batch >= needed:
        least = percent((1.0 - needed) / 2)
        return f"{text}; batch also needs at most {least} interactive: left alone (by {behaviour.source})"
    return f"{text}; at least {percent(needed)} is needed: left alone (by {behaviour.source})"


def _chance(behaviour: Behaviour) -> float:
    return behaviour.p_interactive if behaviour.inferred is Class.INTERACTIVE else behaviour.p_batch


def _certainty(session: Session | None) -> float | None:
    """The probability needed for a class, as configured when the tick was made; None: unknown."""
    value = None if session is None else session.config.get("models", {}).get("certainty")
    return value if isinstance(value, float) else None


def _pinned(group: str, session: Session | None) -> bool:
    config = {} if session is None else session.config
    return any(config.get(section, {}).get(group, {}).get("class") is not None for section in ("groups", "pools"))


def _per(text: str) -> Callable[[float], str]:
    return lambda value: text.format(figure(value))


def _has(yes: str, no: str) -> Callable[[float], str]:
    return lambda value: yes if value >= 0.5 else no


PHRASES: Mapping[str, Callable[[float], str]] = {
    "burst_ms": _per("runs {} ms at a time"),
    "runs_per_second": _per("is put on a CPU {} times a second"),
    "busy_per_thread": lambda value: (
        ("never sleeps" if value >= 0.95 else "seldom sleeps" if value >= 0.5 else "mostly sleeps")
        + f" (each thread wants a CPU {percent(value)} of the time)"
    ),
    "cores_wanted": lambda value: "wants a whole CPU or more" if value >= 1 else f"wants {percent(value)} of a CPU",
    "whole_cores": lambda value: (
        f"wants whole CPUs {percent(value)} of the time, as threads that never sleep do"
        if value >= 0.05
        else "seldom wants whole CPUs, as threads that never sleep would"
    ),
    "wait_per_cpu": _per("waits {} s for a CPU per second that it runs"),
    "bytes_per_cpu_second": lambda value: f"reads and writes {size(value)} per second of CPU",
    "bytes_per_run": lambda value: f"reads and writes {size(value)} each time that it runs",
    "faults_per_cpu_second": _per("takes {} page faults per second of CPU"),
    "brief_cores": _per("its children that come and go use {} CPUs"),
    "threads": lambda value: "has one thread" if value < 1.5 else f"has {value:.0f} threads",
    "processes": lambda value: "is one process" if value < 1.5 else f"is {value:.0f} processes",
    "listens": _has("listens on a network socket", "has no listening network socket"),
    "listens_locally": _has("listens on a local socket", "has no listening local socket"),
    "works_for_listener": _has("its parent listens on a socket, as a server's master does", "its parent listens on no socket"),
    "in_terminal": _has("is in the foreground of a terminal", "is not in the foreground of a terminal"),
    "reads_keystrokes": _has("reads each key as it is typed, as an editor does", "reads no single keys, as an editor would"),
    "young": lambda value: (
        f"{percent(value)} of its processes have just started" if value >= 0.005 else "none of its processes has just started"
    ),
    "unsteadiness": lambda value: f"its CPU use is {'steady' if value < 0.3 else 'unsteady'} (varies by {percent(value)})",
    "irregularity": lambda value: (
        f"wakes {'like a clock' if value < 0.3 else 'irregularly'} (the number a tick varies by {percent(value)})"
    ),
}
"""The meaning of each feature of `models.behaviour` in words, by name."""


def behaves(feature: str, value: float) -> str:
    """A figure about a program's behaviour, in words.

    >>> behaves("burst_ms", 3.9), behaves("moon_phase", 0.25)
    ('runs 3.9 ms at a time', 'moon phase 0.25')
    """
    phrase = PHRASES.get(feature)
    return f"{feature.replace('_', ' ')} {figure(value)}" if phrase is None else phrase(value)


def evidence(behaviour: Behaviour) -> tuple[list[str], list[str]]:
    """What speaks for the class and what against it, the strongest of each first."""
    said = [(behaves(feature, value), push) for feature, value, push in behaviour.evidence]
    return [text for text, push in said if push >= 0], [text for text, push in said if push < 0]
