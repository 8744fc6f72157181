"""A past for views to look back on, written by the real writers: a day with a night, bursts, a pool, decisions and an incident."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...models.identity import ProcId
from ...models.records import SAMPLE, Class, HostSample, Identity, Known, Snapshot
from ..decision import Abilities, Decision, Effect, Flag, Outcome, Session, Set, Tick, Verdict, Why
from ..hands.faults import Status
from ..hands.places import Control
from ..places import ProcessPlace
from ..store.decisions import DecisionLog
from ..store.traces import TraceWriter
from .ticks import a_forecast, a_group, a_machine, a_member, a_pool, a_tick

SECOND = 1_000_000_000
DAY = 86400.0
BURST = 37
"""Every so many ticks a group uses much, and is demoted in the next one; the effect is known some ticks later."""

CPUS = 8


def names_of(count: int) -> list[str]:
    """Names of groups."""
    return [f"program worker-{number:03}" for number in range(count)]


def write_past(
    directory: Path,
    *,
    end: int,
    ticks: int,
    interval: float = 1.0,
    names: Sequence[str] = (),
    session: str = "0000da7e",
    budget: int = 1 << 40,
) -> None:
    """Fill the decision log of a state directory with `ticks` ticks up to `end` (wall ns), one every `interval` seconds."""
    log = DecisionLog(directory, budget)
    rng = np.random.default_rng(1)
    log.begin(
        Session(
            id=session,
            boot_id="boot",
            wall=end - round(ticks * interval * SECOND),
            version="0",
            mode="act",
            own=ProcId(9, 9),
            abilities=Abilities(True, "v2", True),
            config={"daemon": {"act": True, "interval": interval}},
            artefacts={"demand": "3f9a"},
            engine={},
        )
    )
    shares = 0.3 / (1 + np.arange(len(names)))
    for seq in range(ticks):
        wall = end - round((ticks - 1 - seq) * interval * SECOND)
        log.append(_tick(seq, wall, names, shares * rng.uniform(0.5, 1.5, len(names))), *_said(session, seq, names))
    log.close()


def _tick(seq: int, wall: int, names: Sequence[str], use: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Tick:
    daily = 0.6 - 0.4 * math.cos(2 * math.pi * (wall / SECOND % DAY) / DAY)
    cpu = use * daily
    wait = cpu * 0.1
    if names and seq % BURST == 0:
        cpu[seq // BURST % len(names)] += 2.0
        wait[(seq // BURST + 1) % len(names)] += 1.5
    groups = [
        a_group(name, Class.BATCH if at % 3 else Class.INTERACTIVE, [a_member(1000 + at)], float(cpu[at]), float(wait[at]))
        for at, name in enumerate(names)
    ]
    tick = a_tick(
        seq,
        machine=a_machine(cpus=CPUS, busy=float(min(cpu.sum() + 0.2, CPUS))),
        groups=groups,
        pools=[a_pool("web", size=3 + seq // 600 % 4, load=4 * daily)],
        forecasts=[
            *(a_forecast(name, "cpu", float(cpu[at])) for at, name in enumerate(names)),
            a_forecast("web", "load", 4 * daily),
        ],
    )
    return Tick(**{field: getattr(tick, field) for field in tick.__struct_fields__ if field != "wall"}, wall=wall)


def _said(session: str, seq: int, names: Sequence[str]) -> tuple[Verdict, list[Outcome]]:
    """What was decided in a tick, and what came of it."""
    decisions: list[Decision] = []
    outcomes: list[Outcome] = []
    effects: list[Effect] = []
    after = seq % BURST
    if names and seq >= BURST and after == 1:
        at = seq // BURST % len(names)
        name, victim = names[at], names[(at + 1) % len(names)]
        id_ = f"{session}-{seq}.0"
        why = Why("contention", f"{victim} waits 1.5 cores beside {name}: nice of {name} to 10.", {"wait": 1.5}, (), ())
        on = ProcessPlace(ProcId(1000 + at, 1000 + at))
        decisions.append(Decision(id_, "priority", f"group {name} pid {1000 + at}", Set(Control.NICE, on, 10), why))
        outcomes.append(Outcome(id_, Status.APPLIED, name, "", 1))
    if names and seq >= BURST and after == 5:
        victim = names[(seq // BURST + 1) % len(names)]
        effects.append(
            Effect(f"{session}-{seq - 4}.0", f"wait of group {victim}, cores per core of demand", 0.6, 0.05, 3, "helped")
        )
    if seq and seq % 1000 == 0:
        why = Why("leak", "worker 9001 of web grows by 2 MiB a minute, its siblings by none.", {}, (), ())
        decisions.append(
            Decision(f"{session}-{seq}.9", "quarantine", "worker 9001 of web", Flag("web", ProcId(9001, 9001), "leak"), why)
        )
    return Verdict(tuple(decisions), (), tuple(effects)), outcomes


def write_traces(directory: Path, *, end: int, ticks: int, names: Sequence[str], session: str = "0000da7e") -> None:
    """Fill the traces of a state directory with `ticks` snapshots up to `end`, one a second; a process for each name, of which the
    first uses a core and the second waits for half of one."""
    writer = TraceWriter(directory, boot_id="boot", session=session, budget_bytes=1 << 40, interval=1.0)
    table = np.zeros(len(names), dtype=SAMPLE)
    table["pid"] = table["start_ticks"] = np.arange(1000, 1000 + len(names))
    table["rss_bytes"], table["state"], table["known"], table["threads"] = 10 << 20, ord("S"), int(Known.WAIT), 1
    ids = [ProcId(pid, pid) for pid in table["pid"].tolist()]
    identities = {id_: Identity(name, name, "/", "", 0) for id_, name in zip(ids, names, strict=True)}
    for seq in range(ticks):
        table = table.copy()
        table["cpu_ns"][0] += SECOND
        table["wait_ns"][1] += SECOND // 2
        wall = end - (ticks - 1 - seq) * SECOND
        busy = (seq * SECOND,) + (0,) * (CPUS - 1)
        writer.append(Snapshot(wall, wall, 10**6 + 100 * seq, table, identities, HostSample(busy, 8 << 30, 6 << 30, None), ()))
    writer.close()
