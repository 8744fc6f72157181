"""`nicety record`: reads the machine and stores the snapshots. Decides nothing, starts nothing, changes nothing."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from ..config.paths import Paths
from ..config.sections import Config
from ..hands.kernel import Clock
from ..hands.ledger import StateLock
from ..pools.build import build
from ..read.facts import probe
from ..read.reader import open_source
from ..store.files import size_with_companions
from ..store.traces import TraceWriter
from ..words import size, span
from .settings import as_read


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a recording."""

    seconds: float
    ticks: int
    processes: int  # in the last tick
    written: int  # bytes by which the traces grew; negative if old days were dropped for the budget
    dropped: int  # ticks that could not be written
    trouble: str  # why the last of them could not be written; "" if none was lost

    def line(self) -> str:
        """The progress for people."""
        lost = f", {_ticks(self.dropped)} lost" if self.dropped else ""
        grown = f", {size(max(self.written, 0))}"
        return f"{span(self.seconds)}: {_ticks(self.ticks)}, {self.processes} processes{grown}{lost}"


class Interrupted(Exception):  # noqa: N818 - the usual end of a recording, not an error
    """Ctrl-C or SIGTERM ended the recording; everything is written."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        super().__init__(progress.line())


def record(
    config: Config, paths: Paths, clock: Clock, interval: float, duration: float | None, tell: Callable[[Progress], None]
) -> Progress:
    """Record a tick every `interval` seconds for `duration` seconds (None: until KeyboardInterrupt, raised as Interrupted).

    Pools that are running are recorded as pools. Command pools are not started. Missed ticks are skipped, not made up for.
    Raises StateBusyError while another nicety uses the state directory, StoreError if it cannot be used.
    """
    config = as_read(config)
    running = {name: pool for name, pool in config.pools.items() if pool.kind != "command"}
    config = msgspec.structs.replace(config, pools=running)
    with StateLock(paths.stores):
        writer = TraceWriter(
            paths.stores,
            boot_id=probe().boot_id,
            session=secrets.token_hex(4),
            budget_bytes=config.store.trace_bytes,
            interval=interval,
        )
        source = open_source(config.daemon.reader, slow_every=config.daemon.slow_every)
        pools = build(config, clock, state_dir=paths.stores)
        step, look = round(interval * 1e9), round(min(config.daemon.probe_interval, interval) * 1e9)
        began = clock.monotonic()
        size_before = _stored(paths)
        progress = Progress(0.0, 0, 0, 0, 0, "")
        due = began
        try:
            while duration is None or due - began <= duration * 1e9:
                while (now := clock.monotonic()) < due:
                    for pool in pools.values():
                        pool.probe()
                    clock.sleep_until(min(due, now + look) if pools else due)
                snapshot = source.read(now, clock.wall(), tuple(pool.read() for pool in pools.values()))
                writer.append(snapshot)
                progress = Progress(
                    seconds=(now - began) / 1e9,
                    ticks=progress.ticks + 1,
                    processes=len(snapshot.table),
                    written=_stored(paths) - size_before,
                    dropped=writer.dropped,
                    trouble=writer.last_error or progress.trouble,
                )
                tell(progress)
                due += step * max(1, -(-(clock.monotonic() - due) // step))
        except KeyboardInterrupt:
            raise Interrupted(progress) from None
        finally:
            for pool in pools.values():
                pool.close()
            source.close()
            writer.close()
    return progress


def _ticks(number: int) -> str:
    return f"{number} tick" if number == 1 else f"{number} ticks"


def _stored(paths: Paths) -> int:
    """Bytes of all trace files."""
    return sum(size_with_companions(path) for path in sorted(paths.traces.glob("*.db")))
