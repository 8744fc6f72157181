"""Records an anomaly campaign: real pools under load, some with faults, read every second into a trace store."""

from __future__ import annotations

import contextlib
import math
import os
import random
import secrets
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nicety.models.records import Deadlock
from nicety.scheduler.observe.deadlocks import Deadlocks
from nicety.scheduler.read.facts import probe
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.read.waits import LinuxWaits
from nicety.scheduler.store.traces import TraceWriter

from .faults import Injector
from .pools import CampaignError, CampaignPool, sizes
from .truth import SECOND, Event, Fault, Header, Truth

INTERVAL = 1.0
STEP = 0.1
"""Seconds between two looks at workers and queues, and between two batches of requests. Chosen."""

FIRST = -10
"""Nice value of the recorder, if permitted. Chosen: an antagonist must not delay its ticks, because a late tick is a hole."""

BUDGET = 8 << 30
"""Most bytes of the traces. Chosen, far above what is needed: an hour takes some dozens of MiB."""

TRUTH = "truth.jsonl"

DEADLOCKS = "deadlocks.jsonl"
"""File of the deadlocks that nicety saw. They are found by looking at the live machine, so they are not in the traces."""


def record(
    folder: Path, minutes: float, pools: int, faults: int, trained: float, most: int, seed: int, kinds: Sequence[str]
) -> Truth:
    """Record `minutes` of `pools` pools, with `faults` faults after the first `trained` minutes, at most `most` at a time.

    If it is interrupted, everything recorded so far is on disk.
    """
    truth_file = folder / TRUTH
    if truth_file.exists():
        raise CampaignError(f"{truth_file} is there already; give an empty directory")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    rng = random.Random(seed)
    running: list[CampaignPool] = []
    with tempfile.TemporaryDirectory() as place:
        shared = Path(place)
        (shared / "data").write_bytes(rng.randbytes(1 << 17))
        writer = TraceWriter(folder, boot_id=probe().boot_id, session=secrets.token_hex(4), budget_bytes=BUDGET, interval=INTERVAL)
        readers = _Readers(ProcSource(), Deadlocks(LinuxWaits()), writer)
        try:
            for name, character, workers in sizes(pools, rng):
                running.append(CampaignPool(name, character, workers, shared, random.Random(rng.random())))
            with contextlib.suppress(PermissionError):  # after the pools have been started: they keep their own
                os.setpriority(os.PRIO_PROCESS, 0, FIRST)
            begin = time.monotonic_ns()
            end = begin + round(minutes * 60 * SECOND)
            header = Header(
                interval=INTERVAL,
                seed=seed,
                pools={pool.name: pool.workers for pool in running},
                begin=begin,
                trained=begin + round(trained * 60 * SECOND),
            )
            log = _Log(folder, header)
            injector = Injector(
                running, kinds, faults, header.trained, end - 80 * SECOND, shared, random.Random(rng.random()), most
            )
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            try:
                _run(running, injector, readers, log, end)
            except KeyboardInterrupt:
                pass
            finally:  # antagonists are ended too
                for fault in injector.close(time.monotonic_ns()):
                    log.fault(fault)
                log.close(time.monotonic_ns())
            for line in injector.failed:
                print(f"not injected: {line}")
            if writer.dropped:
                print(f"{writer.dropped} ticks could not be written: {writer.last_error}")
        finally:
            for pool in running:
                pool.let_go()
            for pool in running:
                pool.close()
            readers.close()
    return read_truth(folder)


@dataclass(frozen=True, slots=True)
class _Readers:
    """The readers of the machine and the writer of the traces."""

    source: ProcSource
    deadlocks: Deadlocks
    writer: TraceWriter

    def close(self) -> None:
        self.writer.close()
        self.source.close()
        self.deadlocks.close()


def _run(pools: list[CampaignPool], injector: Injector, readers: _Readers, log: _Log, end: int) -> None:
    due = time.monotonic()
    ticks = missed = 0
    while time.monotonic_ns() < end:
        while (now := time.monotonic()) < due:
            for pool in pools:
                pool.feed(now)
                pool.probe()
            time.sleep(max(min(STEP, due - time.monotonic()), 0.001))
        snapshot = readers.source.read(time.monotonic_ns(), time.time_ns(), tuple(pool.read() for pool in pools))
        readers.writer.append(snapshot)
        log.deadlocks(snapshot.at, readers.deadlocks.step(snapshot))
        now_ns = time.monotonic_ns()
        for fault in injector.step(now_ns):
            log.fault(fault)
        for pool in pools:
            event = pool.live(now_ns, quiet=pool.name in injector.pools_with_faults)
            if event is not None:
                log.event(event)
        ticks += 1
        if ticks % 60 == 0:
            workers = sum(len(pool.workers) for pool in snapshot.pools)
            print(f"{ticks} ticks, {workers} workers, {log.faults} faults, {missed} ticks missed", flush=True)
        # missed ticks are skipped, not caught up, as `nicety record` does
        steps = max(1, math.ceil((time.monotonic() - due) / INTERVAL))
        due += INTERVAL * steps
        missed += steps - 1


class _Log:
    """Writes the truth and the deadlocks, line by line."""

    def __init__(self, folder: Path, header: Header) -> None:
        self._header = header
        self._file = (folder / TRUTH).open("wb")
        self._deadlocks = (folder / DEADLOCKS).open("wb")
        self.faults = 0
        self._write("header", header)

    def fault(self, fault: Fault) -> None:
        self.faults += 1
        self._write("fault", fault)

    def event(self, event: Event) -> None:
        self._write("event", event)

    def deadlocks(self, at: int, found: tuple[Deadlock, ...]) -> None:
        if found:
            self._deadlocks.write(msgspec.json.encode([at, found]) + b"\n")
            self._deadlocks.flush()

    def close(self, at: int) -> None:
        self._write("header", msgspec.structs.replace(self._header, end=at))
        self._file.close()
        self._deadlocks.close()

    def _write(self, what: str, record: Header | Fault | Event) -> None:
        self._file.write(msgspec.json.encode({what: record}) + b"\n")
        self._file.flush()


def read_truth(folder: Path) -> Truth:
    """The truth of a recording; if that still runs or was killed, the part that is on disk."""
    try:
        lines = (folder / TRUTH).read_bytes().splitlines()
    except FileNotFoundError:
        raise CampaignError(f"{folder} has no {TRUTH}; record a campaign there first") from None
    truth: Truth | None = None
    for line in lines:
        ((what, value),) = msgspec.json.decode(line).items()
        if what == "header":
            header = msgspec.convert(value, Header)
            truth = Truth(header) if truth is None else Truth(header, truth.faults, truth.events)
        elif truth is not None and what == "fault":
            truth.faults.append(msgspec.convert(value, Fault))
        elif truth is not None:
            truth.events.append(msgspec.convert(value, Event))
    if truth is None:
        raise CampaignError(f"{folder / TRUTH} has no header: it was cut off; record again")
    return truth


def read_deadlocks(folder: Path) -> Mapping[int, tuple[Deadlock, ...]]:
    """The deadlocks that were seen, by the `at` of the snapshot; empty if there were none."""
    path = folder / DEADLOCKS
    lines = path.read_bytes().splitlines() if path.exists() else []
    return dict(msgspec.json.decode(line, type=tuple[int, tuple[Deadlock, ...]]) for line in lines)
