"""The machine at a tick: how busy it is, how much of that no visible process did, and which rivals tune processes on it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...models.features import Rates
from ...models.identity import ProcId
from ...models.records import Identity, Snapshot
from ..decision import Abilities, Machine
from .rivals import running

UNSEEN_TICKS = 5
"""Ticks over which CPU use that no visible process accounts for is smoothed (chosen): the kernel counts busy time in steps of
10 ms, and counts children that come and go only when they are collected."""

UNSEEN_LEAST = 0.1
"""Share of the CPUs that unseen work must use before it is reported. On 2 CPUs, busy with builds, disk writes or loopback traffic,
unaccounted use stayed below 0.02 of them. It reached 0.1 for two ticks when a storm of processes was ended from outside: the kernel
does not report the last CPU use of a child whose parent ignores SIGCHLD."""


class MachineFigures:
    """Builds `Machine` from one snapshot after another."""

    def __init__(self, abilities: Abilities, own: ProcId) -> None:
        self._abilities = abilities
        self._own = own
        self._unseen = 0.0  # cores, smoothed; may be negative, because the clocks differ
        self._kernel = 0.0  # cores that the kernel used in the last step
        self._rivals: tuple[Mapping[ProcId, Identity] | None, tuple[str, ...]] = (None, ())  # (identities, the rivals among them)

    def step(self, before: Snapshot, now: Snapshot, rates: Rates) -> Machine:
        """The machine between two snapshots; `rates`: those between them."""
        elapsed, pressure = now.at - before.at, None
        use = machine_use(before, now, rates)
        self._unseen += (use.busy - use.seen - self._unseen) / UNSEEN_TICKS
        self._kernel = use.kernel
        if now.host.pressure_us is not None and before.host.pressure_us is not None:
            cpu, memory, io = (
                min(max(here - was, 0) * 1000 / elapsed, 1.0)
                for here, was in zip(now.host.pressure_us, before.host.pressure_us, strict=True)
            )
            pressure = (cpu, memory, io)
        return self._machine(now, use.busy, use.steal, pressure)

    @property
    def outside(self) -> float:
        """Cores used in the last step by what is in no table: the kernel, and processes that nicety cannot see, however few."""
        return self._kernel + max(self._unseen, 0.0)

    def gap(self, snapshot: Snapshot) -> Machine:
        """The machine after a gap: what it did is unknown, and smoothing starts again."""
        self._unseen = 0.0
        return self.at_rest(snapshot)

    def at_rest(self, snapshot: Snapshot) -> Machine:
        """The machine without the figures that need an earlier snapshot."""
        return self._machine(snapshot, 0.0, 0.0, None)

    def follow(self, before: MachineFigures) -> None:
        """Take over the state of another one of the same machine."""
        self._unseen, self._rivals = before._unseen, before._rivals

    def _machine(self, snapshot: Snapshot, busy: float, steal: float, pressure: tuple[float, float, float] | None) -> Machine:
        host, cpus = snapshot.host, len(snapshot.host.cpu_busy_ns)
        return Machine(
            cpus=cpus,
            busy=busy,
            memory_total=host.memory_total,
            memory_available=host.memory_available,
            pressure=pressure,
            autogroup=self._abilities.autogroup,
            cpu_cgroup=self._abilities.cpu_cgroup,
            may_renice=self._abilities.may_renice,
            rivals=self._running_rivals(snapshot.identities),
            steal=steal,
            unseen=self._unseen if self._unseen >= UNSEEN_LEAST * cpus > 0 else 0.0,
        )

    def _running_rivals(self, identities: Mapping[ProcId, Identity]) -> tuple[str, ...]:
        """Programs that also tune processes. Searched only when a process started, ended or became another program."""
        if self._rivals[0] is not identities:
            own = identities.get(self._own)
            self._rivals = identities, running(identities.values(), 0 if own is None else own.uid)
        return self._rivals[1]


@dataclass(frozen=True, slots=True)
class MachineUse:
    """Cores of a machine between two snapshots."""

    busy: float  # in use
    steal: float  # that the hypervisor gave to others
    seen: float  # in use by visible processes, their brief children and the kernel; clock differences may put it above `busy`
    kernel: float  # part of `seen` that is in no table: interrupts and, where they show, kernel threads


def machine_use(before: Snapshot, now: Snapshot, rate: Rates) -> MachineUse:
    """What the machine did between two snapshots; `rate` holds the rates between them.

    A process that was not visible before may have used all of its CPU time since then.
    """
    host, then, elapsed, cpus = now.host, before.host, now.at - before.at, float(len(now.host.cpu_busy_ns))
    busy = sum(max(here - was, 0) for here, was in zip(host.cpu_busy_ns, then.cpu_busy_ns, strict=False)) / elapsed
    kernel = max(host.kernel_ns - then.kernel_ns, 0) / elapsed
    new = ~rate.known
    most = np.minimum(now.table["cpu_ns"][new] / elapsed, now.table["threads"][new])
    return MachineUse(
        busy=min(busy, cpus),
        steal=min(max(host.steal_ns - then.steal_ns, 0) / elapsed, cpus),
        seen=kernel + float(rate.cpu.sum() + rate.brief.sum() + most.sum()),
        kernel=kernel,
    )
