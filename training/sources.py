"""Where traces come from: the machines behind the given paths, and what each recorded. Knows files, not what they are for.

A machine is a folder of trace files (a trace store, or the state directory around it), or a folder of Parquet files as
`nicety export traces --format parquet` writes them; a folder of such folders is a fleet. A path may also be a file: trace files of
one folder belong together, each Parquet file is a machine.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..models.identity import ProcId
from ..models.records import SAMPLE, HostSample, Identity, Known, Snapshot, Trait
from ..scheduler.hands.safe_files import StoreError
from ..scheduler.read.text import printable
from ..scheduler.store.export import COLUMNS
from ..scheduler.store.traces import FILE_NAME, Lost, Recording, TraceSession, read_traces, sessions

DEPTH = 4
"""How deep folders are searched for machines: fleet/region/machine/traces (chosen)."""

BATCH = 1 << 16
"""Rows of a Parquet file that are read at a time: as many as `nicety export` puts into a row group."""

TICKS_PER_SECOND = 100
"""Unit of `start_ticks` and `uptime_ticks`: USER_HZ."""

Columns = dict[str, NDArray[Any]]


class Read(Protocol):
    """Snapshots in the order they were recorded; after the iteration `lost` has what could not be read."""

    lost: list[Lost]

    def __iter__(self) -> Iterator[tuple[Recording, Snapshot]]: ...


@dataclass(frozen=True, slots=True)
class MachineTraces:
    """Traces of one machine."""

    name: str  # of the folder or file they are in; no two machines have the same
    paths: tuple[Path, ...]
    parquet: bool

    def sessions(self, interval: float) -> list[TraceSession]:
        """What was recorded, oldest first. `interval`: as for `read`. Raises StoreError."""
        return _parquet_sessions(self.paths, interval) if self.parquet else sessions(self.paths)

    def read(self, interval: float, since: int | None = None, until: int | None = None) -> Read:
        """The snapshots with since <= wall < until (ns). Raises StoreError, also during the iteration.

        `interval`: seconds a tick, for Parquet, which does not record it: a measured one within 10 % counts as this.
        """
        if self.parquet:
            return ParquetRead(self.paths, interval, since, until)
        return read_traces(self.paths, since=since, until=until)


def machines(given: Sequence[Path]) -> list[MachineTraces]:
    """The machines behind some paths, sorted by name. Raises StoreError if there are none, or a path cannot be read."""
    found: dict[tuple[Path, bool], tuple[str, tuple[Path, ...]]] = {}
    for path in given:
        try:
            path.stat()
            for where, name, paths, parquet in _found(path, path, DEPTH):
                key = where.resolve(), parquet
                before = found.get(key, (name, ()))
                found[key] = before[0], tuple(dict.fromkeys((*before[1], *paths)))
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise StoreError(f"cannot read {error.filename or path}: {reason}; check the path and its permissions") from None
    if not found:
        raise StoreError(f"no traces in {', '.join(map(str, given)) or 'nothing'}; record some with `nicety record`")
    names = [name for name, _ in found.values()]
    return sorted(
        (
            MachineTraces(printable(name if names.count(name) == 1 else str(where)), paths, parquet)
            for (where, parquet), (name, paths) in found.items()
        ),
        key=lambda machine: machine.name,
    )


def _found(path: Path, given: Path, depth: int) -> Iterator[tuple[Path, str, tuple[Path, ...], bool]]:
    """(folder or file, name, paths, whether they are Parquet) of each machine at or below `path`. Raises OSError."""
    if not path.is_dir():
        if path.suffix == ".parquet":
            yield path, path.stem, (path,), True
        else:
            yield path.parent, _name(path.parent, path.parent), (path,), False
        return
    children = sorted(path.iterdir())
    traces = path / "traces"
    if any(FILE_NAME.fullmatch(child.name) for child in children):
        yield path, _name(path, given), (path,), False
    elif traces.is_dir() and any(FILE_NAME.fullmatch(child.name) for child in traces.iterdir()):
        yield traces, _name(path, given), (traces,), False
    elif parquet := tuple(child for child in children if child.suffix == ".parquet"):
        yield path, _name(path, given), parquet, True
    elif depth:
        for child in children:
            if child.is_dir():
                yield from _found(child, given, depth - 1)


def _name(folder: Path, given: Path) -> str:
    """A machine's name: the path to its folder from the given one, or the given folder's own name."""
    folder, given = folder.absolute(), given.absolute()
    parts = [part for part in folder.relative_to(given).parts if part != "traces"]
    if parts:
        return "/".join(parts)
    return folder.parent.name if folder.name == "traces" else folder.name


# --- Parquet ------------------------------------------------------------------------------------------------------------------


class ParquetRead:
    """The snapshots in Parquet files, as `Read`. They hold only what processes did, no host counters and no pools."""

    def __init__(self, paths: Sequence[Path], interval: float, since: int | None, until: int | None) -> None:
        self._paths = paths
        self._interval = interval
        self._since = since
        self._until = until
        self.lost: list[Lost] = []

    def __iter__(self) -> Iterator[tuple[Recording, Snapshot]]:
        self.lost = []
        intervals = {session.id: session.interval for session in _parquet_sessions(self._paths, self._interval)}
        builder = _Builder()
        for path in self._paths:
            session = ""
            try:
                for tick in _ticks(path, self._since, self._until):
                    session, wall = str(tick["session"][0]), int(tick["wall_ns"][0])
                    if (self._since is None or wall >= self._since) and (self._until is None or wall < self._until):
                        recording = Recording(session, str(tick["boot_id"][0]), intervals.get(session, self._interval))
                        yield recording, builder.snapshot(tick)
            except _FlawError as flaw:
                self.lost.append(Lost(path, session, None, None, None, str(flaw)))


class _FlawError(Exception):
    """The rest of a Parquet file cannot be used. The message says why."""


class _Builder:
    """Builds snapshots from columns."""

    def __init__(self) -> None:
        self._identities: dict[tuple[str, str, str, str, int, int, int], Identity] = {}
        self._ahead: dict[str, int] = {}  # by boot: clock ticks of suspension seen so far

    def snapshot(self, tick: Columns) -> Snapshot:
        """The columns of one tick. Raises _FlawError."""
        table = np.zeros(len(tick["pid"]), dtype=SAMPLE)
        for name in SAMPLE.names or ():
            if name in tick and name not in ("session", "state"):
                table[name] = tick[name]
        table["session"] = tick["kernel_session"]
        table["state"] = [ord(text) & 0xFF if len(text) == 1 else 0 for text in tick["state"].tolist()]
        for bit, column in (
            (Known.WAIT, "wait_ns"),
            (Known.IO, "read_chars"),
            (Known.FDS, "fds"),
            (Known.SOCKETS, "serves"),
            (Known.KEYS, "reads_keystrokes"),
        ):
            table["known"] |= np.where(tick[f"known {column}"], int(bit), 0).astype(np.uint8)
        for trait, column in (
            (Trait.SERVES, "serves"),
            (Trait.SERVES_LOCALLY, "serves_locally"),
            (Trait.TERMINAL, "terminal"),
            (Trait.READS_KEYSTROKES, "reads_keystrokes"),
            (Trait.HAS_WINDOW, "has_window"),
            (Trait.PIPE_FED, "pipe_fed"),
            (Trait.PIPE_SERVER, "pipe_server"),
        ):
            table["traits"] |= np.where(tick[column], int(trait), 0).astype(np.uint8)
        order = np.lexsort((table["start_ticks"], table["pid"]))
        table = table[order]
        ids = list(map(ProcId, table["pid"].tolist(), table["start_ticks"].tolist()))
        texts = (tick[name][order].tolist() for name in ("comm", "program", "cgroup", "unit", "uid", "port", "owner"))
        identities = dict(zip(ids, itertools.starmap(self._identity, zip(*texts, strict=True)), strict=True))
        if len(identities) < len(ids):
            raise _FlawError("a process occurs twice in one tick: the file is not from nicety, or its rows were sorted")
        at = int(tick["at_ns"][0])
        uptime = self._uptime(str(tick["boot_id"][0]), at, int(table["start_ticks"].max()))
        host = HostSample((0,) * int(tick["machine_cpus"][0]), 0, 0, None)  # no export has how busy they were
        return Snapshot(at, int(tick["wall_ns"][0]), uptime, table, identities, host, ())

    def _identity(self, comm: str, program: str, cgroup: str, unit: str, uid: int, port: int, owner: int) -> Identity:
        """Equal identities are the same object, as a reader of /proc gives them."""
        key = comm, program, cgroup, unit, uid, port, owner
        found = self._identities.get(key)
        if found is None:
            names = printable(comm), printable(program), printable(cgroup), printable(unit)
            found = self._identities[key] = Identity(*names, uid, port, real_uid=None if owner == uid else owner)
        return found

    def _uptime(self, boot: str, at: int, youngest: int) -> int:
        """Clock ticks since boot, which the files lack: the monotonic clock, plus the time that the machine was suspended. It shows
        in processes that started later than the monotonic clock allows."""
        own = at * TICKS_PER_SECOND // 10**9
        self._ahead[boot] = max(self._ahead.get(boot, 0), youngest - own)
        return own + self._ahead[boot]


def _parquet_sessions(paths: Sequence[Path], interval: float) -> list[TraceSession]:
    """The sessions in Parquet files. The time between ticks is their median; a median near `interval` counts as `interval`."""
    found: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for path in paths:
        try:
            for batch in _batches(path, ("session", "boot_id", "at_ns", "wall_ns"), None, None):
                edges = _edges(batch)[:-1]
                keys = zip(batch["session"][edges].tolist(), batch["boot_id"][edges].tolist(), strict=True)
                for key, at, wall in zip(keys, batch["at_ns"][edges].tolist(), batch["wall_ns"][edges].tolist(), strict=True):
                    ticks = found.setdefault(key, [])
                    if not ticks or ticks[-1][0] != at:
                        ticks.append((at, wall))
        except _FlawError:
            continue  # reported when it is read
    result = []
    for (session, boot), ticks in found.items():
        times = np.array(ticks)
        every = float(np.median(np.diff(times[:, 0]))) / 1e9 if len(times) > 1 else interval
        every = interval if abs(every - interval) <= 0.1 * interval else float(f"{every:.2g}")
        result.append(TraceSession(session, boot, every, int(times[0, 1]), int(times[-1, 1]), len(times), 0))
    return result


def _ticks(path: Path, since: int | None, until: int | None) -> Iterator[Columns]:
    """The columns of one tick after another. Raises as `_batches`."""
    rest: Columns = {}
    for batch in _batches(path, [name for name in COLUMNS if name != "wall"], since, until):
        whole = {name: np.concatenate([rest[name], column]) for name, column in batch.items()} if rest else batch
        edges = _edges(whole).tolist()
        for start, end in itertools.pairwise(edges[:-1]):
            yield {name: column[start:end] for name, column in whole.items()}
        rest = {name: column[edges[-2] :] for name, column in whole.items()}
    if rest:
        yield rest


def _edges(columns: Columns) -> NDArray[np.int64]:
    """Where ticks begin in columns that are not empty, and their end."""
    at, session = columns["at_ns"], columns["session"]
    return np.concatenate([[0], np.flatnonzero((at[1:] != at[:-1]) | (session[1:] != session[:-1])) + 1, [len(at)]])


def _batches(path: Path, names: Sequence[str], since: int | None, until: int | None) -> Iterator[Columns]:
    """Columns of a file, some rows at a time; row groups that hold nothing of the time are skipped. Null becomes 0, false or "",
    and `known NAME` says where a value is not null.

    Raises StoreError if it is not an export of nicety, _FlawError where it is damaged.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise StoreError(
            f"{path} needs pyarrow, which is not installed; in nicety's checkout, run: pip install '.[parquet]'"
        ) from None
    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            schema = file.schema_arrow
            wrong = [
                name for name in names if name not in schema.names or schema.field(name).type != getattr(pyarrow, COLUMNS[name])()
            ]
            if wrong:
                raise StoreError(
                    f"{path} is not an export of this version: {', '.join(wrong)} missing or of another type; "
                    "make one with `nicety export traces --format parquet -o FILE`"
                )
            groups = [at for at in range(file.num_row_groups) if _overlaps(file.metadata.row_group(at), since, until)]
            for batch in file.iter_batches(BATCH, row_groups=groups, columns=list(names), use_threads=False):
                if batch.num_rows:
                    yield _plain(batch, names)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _FlawError(f"cannot be read: {' '.join(str(error).split())}") from None


def _overlaps(group: Any, since: int | None, until: int | None) -> bool:
    """Whether a row group may hold ticks of the time asked for."""
    for at in range(group.num_columns):
        column = group.column(at)
        if column.path_in_schema == "wall_ns" and column.statistics is not None and column.statistics.has_min_max:
            low, high = column.statistics.min, column.statistics.max
            return (since is None or high >= since) and (until is None or low < until)
    return True


def _plain(batch: Any, names: Sequence[str]) -> Columns:
    plain: Columns = {}
    for name in names:
        column = batch.column(batch.schema.get_field_index(name))
        plain[f"known {name}"] = column.is_valid().to_numpy(zero_copy_only=False)
        if COLUMNS[name] == "string":
            coded = column.fill_null("").dictionary_encode()
            plain[name] = np.array(coded.dictionary.to_pylist(), dtype=object)[coded.indices.to_numpy()]
        else:
            plain[name] = column.fill_null(False if COLUMNS[name] == "bool_" else 0).to_numpy(zero_copy_only=False)
    return plain
