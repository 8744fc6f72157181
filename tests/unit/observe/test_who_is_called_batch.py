"""Snapshots to classes, for machines on which it is not plain who is who: as the daemon would call them, with the shipped model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nicety.models.artifact import shipped
from nicety.models.behaviour import BehaviourModel, Behaviours
from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Behaviour, Class, HostSample, Identity, Known, Snapshot, Trait
from nicety.scheduler.config.sections import parse
from nicety.scheduler.observe.measure import Measured, Measurer

MS = 1_000_000
AGE = 1000  # clock ticks for which a process that is no newcomer has been there


@dataclass(frozen=True, slots=True)
class Doing:
    """What a process is and does each second."""

    program: str
    parent: int = 1
    cpu: float = 0.0  # seconds
    timeslices: int = 50
    faults: int = 0
    traits: int = 0  # of Trait
    known: int = Known.WAIT | Known.SOCKETS | Known.KEYS
    born: int = 0  # tick in which it starts
    settled: bool = True  # it was there long before the first tick
    collects: float = 0.0  # seconds of CPU of children that came and went


def called(ticks: int, processes: Mapping[int, Doing]) -> list[tuple[Measured, dict[str, Behaviour | None]]]:
    """What is measured and said at each tick."""
    artefact = shipped("behaviour")
    assert artefact is not None
    behaviours = Behaviours(BehaviourModel.from_arrays(artefact.arrays, artefact.digest), 0.9)
    measurer, told = Measurer(parse(""), 1.0), []
    for tick in range(ticks + 1):
        measured = measurer.measure(seen(tick, processes))
        if measured is not None:
            said = behaviours.step(measured.groups, measured.behaviour)
            told.append((measured, dict(zip(measured.groups, said, strict=True))))
    return told


def seen(tick: int, processes: Mapping[int, Doing]) -> Snapshot:
    there = {pid: doing for pid, doing in sorted(processes.items()) if doing.born <= tick}
    table = np.zeros(len(there), SAMPLE)
    ids = [
        ProcId(pid, 100 * doing.born + (50 if doing.born else -AGE if doing.settled else 0) + 5000) for pid, doing in there.items()
    ]
    for row, (doing, id_) in enumerate(zip(there.values(), ids, strict=True)):
        since = tick - doing.born + 1
        record = table[row]
        record["pid"], record["start_ticks"], record["ppid"], record["session"] = *id_, doing.parent, 7
        record["cpu_ns"], record["timeslices"] = round(since * doing.cpu * 1e9), since * doing.timeslices
        record["minor_faults"], record["threads"], record["state"] = since * doing.faults, 1, ord("R")
        record["known"], record["traits"] = int(doing.known), int(doing.traits)
        if "child_cpu_ns" in (SAMPLE.names or ()):
            record["child_cpu_ns"] = round(since * doing.collects * 1e9)
    identities = {
        id_: Identity(doing.program[:15], doing.program, "/", "", 0) for id_, doing in zip(ids, there.values(), strict=True)
    }
    at = (50 + tick) * 1000 * MS
    return Snapshot(at, at, 5000 + 100 * tick + 100, table, identities, HostSample((at, at), 1 << 33, 1 << 32, None), ())


def group(measured: Measured, pid: int) -> str:
    return next(measured.members[row] for id_, row in measured.rows.items() if id_.pid == pid)


def classes(told: Sequence[tuple[Measured, dict[str, Behaviour | None]]], pid: int) -> list[Class | None]:
    found = [said[group(measured, pid)] for measured, said in told if any(id_.pid == pid for id_ in measured.rows)]
    return [None if behaviour is None else behaviour.inferred for behaviour in found]


def test_a_server_whose_workers_are_spawned_is_not_called_batch_for_a_pool_that_spawns_too() -> None:
    """A3: all of them are called "python3 -c"."""
    machine = {100: Doing("python3 hypercorn", timeslices=5), 200: Doing("python3 crunch.py", timeslices=5)}
    machine |= {pid: Doing("python3 -c", 100, 0.05, 400, traits=Trait.SERVES) for pid in (101, 102)}
    machine |= {pid: Doing("python3 -c", 200, 0.95, 60) for pid in (201, 202)}
    told = called(20, machine)
    assert group(told[-1][0], 101) != group(told[-1][0], 201)
    assert Class.BATCH not in classes(told, 101)
    assert classes(told, 101)[-1] is Class.INTERACTIVE
    assert classes(told, 201)[-1] is Class.BATCH


def test_what_only_starts_is_not_called_batch() -> None:
    """A4: ipykernel for 2 ticks, mpd, dask and hypercorn's master for 1."""
    told = called(6, {100: Doing("python3 hypercorn", 1, 0.9, 150, 36_000, born=1)})
    assert len(classes(told, 100)) == 6
    assert Class.BATCH not in classes(told, 100)


def test_what_may_serve_unseen_is_not_called_batch() -> None:
    """D2: without root gunicorn is batch, because its sockets are not seen."""
    told = called(20, {100: Doing("python3 gunicorn", 1, 0.95, 60, known=Known.WAIT | Known.KEYS)})
    assert Class.BATCH not in classes(told, 100)


def test_a_build_of_short_processes_is_one_group_and_batch() -> None:
    """B5: each cc1 by itself lives too briefly to be known, and make looks like a shell."""
    machine = {20: Doing("bash", timeslices=1), 100: Doing("make", 20, 0.01, 300, 2_000, collects=1.6)}
    machine |= {110 + at: Doing("cc1", 100, 0.3, 30, 9_000, born=at) for at in range(1, 12)}
    told = called(12, machine)
    assert {group(told[-1][0], pid) for pid in (100, *range(115, 120))} == {"program make"}
    assert classes(told, 100)[-1] is Class.BATCH
    assert group(told[-1][0], 20) == "program bash"
    assert Class.BATCH not in classes(told, 20)
