"""An hour of a machine as frames: one of health, and one for each fault that somebody should hear of.

A frame every `STEP` seconds. Health is not calm: load comes and goes, a tick is late now and then, a pool is at its maximum for two
minutes. A fault begins after ten minutes and lasts for eighteen. Counters that it moved go back then, as when a daemon restarts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from ..frame import Change, Count, Decided, Delay, Frame, Group, Incident, Machine, Pool
from .frames import MIB, WALL, a_band, a_frame, a_shown_group, a_shown_pool, an_own

STEP = 30
"""Seconds between two frames."""

LENGTH = 3600

BEGIN, END = 600, 1680
"""Seconds at which a fault begins and ends."""

Fault = Callable[[Frame, int], Frame | None]
"""Changes the frame at a second of the hour; None: there is none. Called while the fault lasts."""


def hour(fault: Fault | None = None, wall: float = WALL) -> Iterator[tuple[int, Frame | None]]:
    """(second, frame) of the hour that begins at `wall`."""
    chance = random.Random(26)  # noqa: S311 - for figures
    for at in range(0, LENGTH + STEP, STEP):
        frame: Frame | None = healthy(at, wall, chance)
        if fault is not None and frame is not None and BEGIN <= at < END:
            frame = fault(frame, at)
        yield at, frame


def healthy(at: int, wall: float, chance: random.Random) -> Frame:
    """The frame of a second of an hour of health."""
    wave = 1 + 0.5 * math.sin(at / LENGTH * 6 * math.pi)
    spike = 1800 <= at < 1920  # two minutes with all workers busy, as happens
    load = round(wave * 3 * chance.uniform(0.9, 1.1), 3)
    web = a_shown_pool(
        "web",
        size=16 if spike else max(2, round(load * 1.8)),
        wanted=16 if spike else max(2, round(load * 1.8)) + (at % 300 == 0),
        busy=15.5 if spike else load,
        queued=2.0 if spike else 0.1,
        load=16.0 if spike else load,
        arrivals=round(load * 10, 2),
        p95=0.2,
        forecast=a_band(load, load * 1.4),
        trouble="it is being reloaded" if at % 900 == 0 else "",
    )
    jobs = a_shown_pool(
        "jobs",
        kind="celery",
        size=4,
        wanted=4,
        busy=2.4,
        queued=0.4,
        load=2.4,
        p95=2.0,
        service=1.2,
        arrivals=2.0,
        objective="utilization 70%",
        aim="utilization",
        aim_value=0.7,
        forecast=a_band(2.4, 3.0),
    )
    mail = a_shown_pool("mail", size=2, wanted=2, busy=1.0, load=1.0, queued=0.1, objective="wait 2s", aim="wait", aim_value=2.0)
    wait = 0.6 if at % 1200 == 0 else 0.02
    demoted = Change("autogroup", "0", "19", 3, "redis", "5e551017-0.0", wall)
    groups = [
        a_shown_group("encode", "batch", 1.1 * wave, 0.5, memory=900 * MIB, forecast=a_band(1.6, 2.0), changes=[demoted]),
        a_shown_group("postgres", "interactive", 0.4, 0.01, memory=2048 * MIB, memory_forecast=a_band(2.2e9, 2.4e9)),
        a_shown_group(
            "redis", "interactive", 0.3, wait, forecast=a_band(0.3, 0.5), delay=Delay(wait, [("encode", wait)], 0.0, 0.0, 0.0, 0.0)
        ),
        a_shown_group("sshd", memory=9 * MIB),
        a_shown_group("web", "interactive", 0.2 * wave, 0.01, given=True, certainty=None, throttled=0.3 if at % 600 == 0 else 0.0),
    ]
    many = at // 120
    counts = [
        Count("decisions", "pool_size", "", many),
        Count("decisions", "priority", "", many // 2),
        Count("effects", "pool_size", "helped", many // 2),
        Count("effects", "priority", "hurt", at // 1800),
        Count("outcomes", "pool_size", "applied", many),
        Count("outcomes", "priority", "applied", many // 2),
        Count("outcomes", "priority", "failed", at // 1200),
        Count("refusals", "priority", "cool-down", many // 4),
    ]
    decided = Decided(f"5e551017-{at}.0", wall + at, "pool_size", "pool web", "size 5", "load 3", 1, "applied", "helped")
    return a_frame(
        seq=at,
        wall=wall + at,
        own=an_own(running=7200.0 + at, ticks=7200 + at, missed=at // 300, cpu=72.0 + at * 0.012, session="5e551017"),
        machine=Machine("box", 2, 1.9, 0.02, 0.0, 8 << 30, 4 << 30, [0.3, 0.0, 0.01]),
        groups=groups,
        pools=[jobs, mail, web],
        incidents=[],
        decisions=[decided],
        counts=counts,
    )


def _own(**changes: Any) -> Fault:
    return lambda frame, _at: msgspec.structs.replace(frame, own=msgspec.structs.replace(frame.own, **changes))


def _growing(since: float, **rates: float) -> Fault:
    """Fields of the daemon that grow by `rates` a second more than usual."""

    def fault(frame: Frame, at: int) -> Frame:
        more = {field: getattr(frame.own, field) + round(rate * (at - since)) for field, rate in rates.items()}
        return msgspec.structs.replace(frame, own=msgspec.structs.replace(frame.own, **more))

    return fault


def _pool(name: str, **changes: Any) -> Fault:
    def changed(pool: Pool) -> Pool:
        return msgspec.structs.replace(pool, **changes) if pool.name == name else pool

    return lambda frame, _at: msgspec.structs.replace(frame, pools=[changed(pool) for pool in frame.pools])


def _group(name: str, **changes: Any) -> Fault:
    def changed(group: Group) -> Group:
        return msgspec.structs.replace(group, **changes) if group.name == name else group

    return lambda frame, _at: msgspec.structs.replace(frame, groups=[changed(group) for group in frame.groups])


def _count(what: str, policy: str, kind: str) -> Fault:
    """One more every minute."""

    def fault(frame: Frame, at: int) -> Frame:
        counts = [
            msgspec.structs.replace(it, times=it.times + (at - BEGIN) // 60) if (it.what, it.policy, it.kind) == wanted else it
            for it in frame.counts
        ]
        return msgspec.structs.replace(frame, counts=counts)

    wanted = what, policy, kind
    return fault


def _restarts(frame: Frame, at: int) -> Frame:
    """A new daemon every five minutes."""
    since = at % 300
    mine = {"running": float(since), "ticks": since, "missed": 0, "cpu": 0.012 * since, "session": f"{at - since:08x}"}
    own = msgspec.structs.replace(frame.own, **mine)
    return msgspec.structs.replace(frame, own=own, counts=[])


def _leak(frame: Frame, at: int) -> Frame:
    incident = Incident("5e551017-600.0", "web", [410], "leak", frame.wall - (at - BEGIN), "its memory grows")
    return msgspec.structs.replace(frame, incidents=[incident])


def _stolen(frame: Frame, _at: int) -> Frame:
    return msgspec.structs.replace(frame, machine=msgspec.structs.replace(frame.machine, steal=0.6))


def _many_pools(frame: Frame, _at: int) -> Frame:
    return msgspec.structs.replace(frame, pools=[*frame.pools, *(a_shown_pool(f"z{n:02}", aim="", size=5) for n in range(90))])


FAULTS: Mapping[str, Fault] = {
    "NicetyDown": lambda _frame, _at: None,
    "NicetyRestarts": _restarts,
    "NicetyCannotAct": _own(cannot="no change of nice: CAP_SYS_NICE is missing"),
    "NicetyPausedForLong": _own(paused=True),
    "NicetyMissesTicks": _growing(BEGIN, missed=0.5),
    "NicetyOverBudget": _growing(BEGIN, cpu=0.05),
    "NicetyLosesRecords": _growing(BEGIN, lost=1.0),
    "NicetyTrouble": _own(troubles=["traces: No space left on device"]),
    "NicetyPoolsWithoutMetrics": _many_pools,
    "NicetyChangesFail": _count("outcomes", "priority", "failed"),
    "NicetyDoesHarm": _count("effects", "priority", "hurt"),
    "NicetyInteractiveWaits": _group("redis", wait=0.3),
    "NicetyInteractiveThrottled": _group("web", throttled=0.4),
    "NicetyStolenTime": _stolen,
    "NicetyPoolAtMaximum": _pool("web", size=16, wanted=16, queued=1.5, p95=0.1),
    "NicetyPoolTooSmall": _pool("jobs", wanted=8),
    "NicetyPoolTrouble": _pool("jobs", trouble="its pid file is gone"),
    "NicetyObjectiveMissed": _pool("web", p95=0.4),
    "NicetyIncident": _leak,
}
"""A fault by the alert that it must raise. Two more alerts are about the exporter: its file is damaged, or it does not answer."""

OBJECTIVES: Mapping[str, Fault] = {"wait": _pool("mail", queued=60.0), "utilization": _pool("jobs", load=3.6)}
"""The same alert about objectives of the other kinds."""
