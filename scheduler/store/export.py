"""Traces and decisions for other programs: csv, jsonl, parquet. Must not know how either is stored.

A sample file has one row per process and tick: raw counters, never rates; what was not read is empty or null. The file
appears whole or not at all. Parquet needs pyarrow, which is imported only on request and never by the daemon.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

import msgspec

from ..hands.safe_files import StoreError
from ..printed import plain
from .decisions import DecisionReader, LoggedDecision
from .files import NamedFile, replacing
from .records import record_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...models.records import Identity, Snapshot

Format = Literal["csv", "jsonl", "parquet"]

COLUMNS: dict[str, str] = {
    "session": "string",
    "boot_id": "string",
    "at_ns": "int64",
    "wall": "string",
    "wall_ns": "int64",
    "machine_cpus": "uint16",
    "pid": "uint32",
    "start_ticks": "uint64",
    "comm": "string",
    "program": "string",
    "cgroup": "string",
    "unit": "string",
    "uid": "int64",
    "owner": "int64",
    "port": "uint16",
    "ppid": "uint32",
    "kernel_session": "uint32",
    "state": "string",
    "nice": "int8",
    "policy": "uint8",
    "threads": "uint32",
    "last_cpu": "uint16",
    "cpu_ns": "uint64",
    "cpu_exact": "bool_",
    "wait_ns": "uint64",
    "timeslices": "uint64",
    "minor_faults": "uint64",
    "major_faults": "uint64",
    "child_faults": "uint64",
    "child_cpu_ns": "uint64",
    "rss_bytes": "uint64",
    "read_chars": "uint64",
    "write_chars": "uint64",
    "read_bytes": "uint64",
    "write_bytes": "uint64",
    "fds": "uint32",
    "serves": "bool_",
    "serves_locally": "bool_",
    "terminal": "bool_",
    "reads_keystrokes": "bool_",
    "has_window": "bool_",
    "pipe_fed": "bool_",
    "pipe_server": "bool_",
}
"""Columns of a sample file and their Arrow types. `session` is the recording's, `kernel_session` getsid(2) of the process;
`machine_cpus` is the number of CPUs of the machine, the most that anything can use; `cpu_exact` is false if cpu_ns is in steps of
10 ms; the last seven are of `Trait`."""

DECISION_COLUMNS = (
    *("wall", "wall_ns", "id", "session", "seq", "policy", "action", "target", "pids", "status"),
    *("rule", "why", "figures", "refused_by", "refused_because", "outcome", "effect", "before", "after"),
)
"""Columns of decisions as csv; jsonl has the whole records."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_PARQUET_ROWS, _TEXT_ROWS = 1 << 16, 1 << 12


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what could not be."""

    rows: int
    ticks: int  # 0 for decisions
    lost: tuple[str, ...]  # one line per loss, never ""


@dataclass(frozen=True, slots=True)
class _Column:
    """The values of a column in some rows."""

    values: NDArray[Any]
    there: NDArray[np.bool_] | None = None  # which of them are known; None: all
    words: Sequence[str | int | None] | None = None  # what the values are places in; None: they are the values themselves

    def cells(self) -> list[Any]:
        """Plain values, None for unknown."""
        values: list[Any] = self.values.tolist()
        if self.words is not None:
            return [self.words[place] for place in values]
        if self.there is not None:
            return [value if there else None for value, there in zip(values, self.there.tolist(), strict=True)]
        return values


class _Sink(Protocol):
    """Rows into one format."""

    rows: int
    """So many rows of samples are written at once."""

    def write_samples(self, columns: Mapping[str, _Column]) -> None:
        """Write as many rows as each column has values."""
        ...

    def finish(self) -> None:
        """Write the last bytes of the file."""
        ...

    def close(self) -> None:
        """Release the file, finished or not: nothing is written to it from now on."""
        ...


def export(
    paths: Path | Iterable[Path],
    out: Path | NamedFile,
    format: Format,  # noqa: A002 - the word of the command line
    *,
    since: int | None = None,
    until: int | None = None,
    session: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Exported:
    """Write the samples of traces to `out`. Paths, times and session as for `traces.read_traces`.

    `progress` is called after each tick with the number of ticks done. Raises TraceError without traces, StoreError if `out` cannot
    be written, or pyarrow is missing; then `out` is as it was.
    """
    from .traces import read_traces  # brings numpy, which decisions do without

    read = read_traces(paths, since=since, until=until, session=session)
    rows = ticks = 0
    with replacing(out) as file:
        sink = _sink(format, file)
        try:
            stretch = _Stretch()
            for recording, snapshot in read:
                stretch.add(recording.id, recording.boot_id, snapshot)
                rows += len(snapshot.table)
                ticks += 1
                if stretch.rows >= sink.rows:
                    sink.write_samples(stretch.columns())
                    stretch = _Stretch()
                if progress is not None:
                    progress(ticks)
            if stretch.rows:
                sink.write_samples(stretch.columns())
            sink.finish()
        finally:
            sink.close()
    lost = []
    for it in read.lost:
        if it.first is None:
            where = ""
        elif it.last is None:
            where = f", session {it.session}, from tick {it.first}"
        else:
            where = f", session {it.session}, ticks {it.first} to {it.last}"
        lost.append(f"{it.path.name}{where}: {it.reason}")
    return Exported(rows, ticks, tuple(lost))


def export_decisions(
    log: Path,
    out: Path | NamedFile,
    format: Literal["csv", "jsonl"],  # noqa: A002 - as above
    *,
    since: int | None = None,
    until: int | None = None,
) -> Exported:
    """Write the decisions and refusals of a decision log with what became of them, oldest first. Errors as in `export`."""
    rows = 0
    lost = []
    with DecisionReader(log) as reader, replacing(out) as file:
        sink = _Csv(file, DECISION_COLUMNS) if format == "csv" else _JsonLines(file)
        try:
            for it in reader.all_decisions():
                if isinstance(it, str):
                    lost.append(it)
                elif not it.intact:
                    lost.append(f"decision {it.id} (number {it.n}): its checksum does not hold")
                elif (since is None or it.wall >= since) and (until is None or it.wall < until):
                    cells = _decision_cells(it) if format == "csv" else _whole(it)
                    sink.write({name: [value] for name, value in cells.items()})
                    rows += 1
            sink.finish()
        finally:
            sink.close()
    return Exported(rows, 0, tuple(lost))


# --- rows ---------------------------------------------------------------------------------------------------------------------


class _Stretch:
    """Samples of some ticks, as they are collected."""

    def __init__(self) -> None:
        self.rows = 0
        self._ticks: list[tuple[str, str, Snapshot]] = []
        self._identities: list[Identity | None] = []  # of each row; None: unknown

    def add(self, session: str, boot_id: str, snapshot: Snapshot) -> None:
        """Add a tick."""
        table = snapshot.table
        self.rows += len(table)
        self._ticks.append((session, boot_id, snapshot))
        known: Mapping[Any, Identity] = snapshot.identities  # a ProcId is such a pair, and takes longer to make
        self._identities += map(known.get, zip(table["pid"].tolist(), table["start_ticks"].tolist(), strict=True))

    def columns(self) -> dict[str, _Column]:
        """All columns, in their order."""
        import numpy as np

        from ...models.records import Known, Trait

        snapshots = [snapshot for _, _, snapshot in self._ticks]
        table = np.concatenate([snapshot.table for snapshot in snapshots])
        counts = [len(snapshot.table) for snapshot in snapshots]
        tick = np.repeat(np.arange(len(snapshots)), counts)
        ids = np.fromiter(map(id, self._identities), dtype=np.int64, count=self.rows)
        _, first, who = np.unique(ids, return_index=True, return_inverse=True)
        identities = [self._identities[row] for row in first.tolist()]
        known, traits = table["known"], table["traits"]

        def of_tick(words: Sequence[str | int]) -> _Column:
            return _Column(tick, words=words)

        def of_identity(word: Callable[[Identity], str | int | None], unknown: str | None = "") -> _Column:
            return _Column(who, words=[unknown if it is None else word(it) for it in identities])

        def numbers(name: str, bit: Known | None = None) -> _Column:
            return _Column(np.ascontiguousarray(table[name]), None if bit is None else (known & bit) != 0)

        def trait(which: Trait, bit: Known | None = None) -> _Column:
            return _Column((traits & which) != 0, None if bit is None else (known & bit) != 0)

        columns = {
            "session": of_tick([session for session, _, _ in self._ticks]),
            "boot_id": of_tick([boot_id for _, boot_id, _ in self._ticks]),
            "at_ns": of_tick([snapshot.at for snapshot in snapshots]),
            "wall": of_tick([_iso(snapshot.wall) for snapshot in snapshots]),
            "wall_ns": of_tick([snapshot.wall for snapshot in snapshots]),
            "machine_cpus": of_tick([len(snapshot.host.cpu_busy_ns) for snapshot in snapshots]),
            "comm": of_identity(lambda it: it.comm),
            "program": of_identity(lambda it: it.program),
            "cgroup": of_identity(lambda it: it.cgroup),
            "unit": of_identity(lambda it: it.unit),
            "uid": of_identity(lambda it: it.uid, None),
            "owner": of_identity(lambda it: it.owner, None),
            "port": of_identity(lambda it: it.port or None, None),
            "kernel_session": numbers("session"),
            "state": _Column(table["state"], words=[None, *map(chr, range(1, 256))]),
            "cpu_exact": _Column((known & Known.WAIT) != 0),
            "fds": numbers("fds", Known.FDS),
            "serves": trait(Trait.SERVES, Known.SOCKETS),
            "serves_locally": trait(Trait.SERVES_LOCALLY, Known.SOCKETS),
            "terminal": trait(Trait.TERMINAL),
            "reads_keystrokes": trait(Trait.READS_KEYSTROKES, Known.KEYS),
            "has_window": trait(Trait.HAS_WINDOW, Known.SOCKETS),
            "pipe_fed": trait(Trait.PIPE_FED),
            "pipe_server": trait(Trait.PIPE_SERVER),
        }
        for name in ("wait_ns", "timeslices"):
            columns[name] = numbers(name, Known.WAIT)
        for name in ("read_chars", "write_chars", "read_bytes", "write_bytes"):
            columns[name] = numbers(name, Known.IO)
        return {name: columns[name] if name in columns else numbers(name) for name in COLUMNS}


def _whole(it: LoggedDecision) -> dict[str, Any]:
    return {**plain(record_of(it)), "wall": _iso(it.wall), "wall_ns": it.wall}


def _decision_cells(it: LoggedDecision) -> dict[str, Any]:
    row = plain(record_of(it))
    why, refusal = row["decision"]["why"], row["refusal"] or {}
    effect = row["effects"][-1] if row["effects"] else {}
    return {
        **{name: row[name] for name in ("id", "session", "seq", "policy", "action", "target", "status")},
        "wall": _iso(it.wall),
        "wall_ns": it.wall,
        "pids": " ".join(map(str, it.pids)),
        "rule": why["rule"],
        "why": why["text"],
        "figures": msgspec.json.encode(why["figures"], order="deterministic").decode(),
        "refused_by": refusal.get("rule"),
        "refused_because": refusal.get("text"),
        "outcome": row["outcomes"][-1]["detail"] if row["outcomes"] else None,
        "effect": effect.get("verdict"),
        "before": effect.get("before"),
        "after": effect.get("after"),
    }


def _iso(wall: int) -> str:
    """UTC with microseconds; "" for a time outside the calendar."""
    try:
        return (_EPOCH + timedelta(microseconds=wall // 1000)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except OverflowError:
        return ""


# --- formats ------------------------------------------------------------------------------------------------------------------


def _sink(format: str, file: BinaryIO) -> _Sink:  # noqa: A002 - as above
    match format:
        case "csv":
            return _Csv(file, tuple(COLUMNS))
        case "jsonl":
            return _JsonLines(file)
        case "parquet":
            return _Parquet(file)
    raise StoreError(f'unknown format "{format}"; choose csv, jsonl or parquet')


class _Csv:
    """RFC 4180 with a header. Text that a spreadsheet would run as a formula gets an apostrophe in front."""

    rows = _TEXT_ROWS

    def __init__(self, file: BinaryIO, columns: tuple[str, ...]) -> None:
        self._columns = columns
        self._file = file
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self._writer = csv.writer(self._text)
        self._writer.writerow(columns)

    def write_samples(self, columns: Mapping[str, _Column]) -> None:
        """As `write`."""
        self.write({name: column.cells() for name, column in columns.items()})

    def write(self, columns: Mapping[str, list[Any]]) -> None:
        """As many rows as each column has values. None is an empty cell."""
        self._writer.writerows(zip(*(self._guarded(columns[name]) for name in self._columns), strict=True))

    def finish(self) -> None:
        """Flush."""
        self._text.flush()

    def close(self) -> None:
        """Leave the file open for its owner."""
        if not self._file.closed:
            self._text.detach()

    def _guarded(self, cells: list[Any]) -> Iterator[Any]:
        return (f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell for cell in cells)


class _JsonLines:
    """One JSON object per line."""

    rows = _TEXT_ROWS

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._encoder = msgspec.json.Encoder()

    def write_samples(self, columns: Mapping[str, _Column]) -> None:
        """As `write`."""
        self.write({name: column.cells() for name, column in columns.items()})

    def write(self, columns: Mapping[str, list[Any]]) -> None:
        """As many rows as each column has values. None is null."""
        names = tuple(columns)
        self._file.write(
            self._encoder.encode_lines([dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)])
        )

    def finish(self) -> None:
        """Nothing is left."""

    def close(self) -> None:
        """Nothing is held."""


class _Parquet:
    """Row groups of `_PARQUET_ROWS`, zstd, with page checksums: Parquet's default reads flipped bytes without an error."""

    rows = _PARQUET_ROWS

    def __init__(self, file: BinaryIO) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise StoreError(
                "parquet needs pyarrow, which is not installed; in nicety's checkout, run: pip install '.[parquet]'"
            ) from None
        self._arrow = pyarrow
        self._schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in COLUMNS.items()])
        words = [name for name, kind in COLUMNS.items() if kind == "string"]  # a dictionary of counters takes more time and bytes
        self._writer = pyarrow.parquet.ParquetWriter(
            file, self._schema, compression="zstd", use_dictionary=words, write_page_checksum=True
        )

    def write_samples(self, columns: Mapping[str, _Column]) -> None:
        """Write a row group. Unknown is null."""
        arrays = [self._array(columns[field.name], field.type) for field in self._schema]
        self._writer.write_table(self._arrow.table(arrays, schema=self._schema), row_group_size=2 * _PARQUET_ROWS)

    def _array(self, column: _Column, kind: Any) -> Any:
        if column.words is not None:
            return self._arrow.array(column.words, kind).take(self._arrow.array(column.values))
        return self._arrow.array(column.values, kind, mask=None if column.there is None else ~column.there)

    def finish(self) -> None:
        """Write the footer."""
        self._writer.close()

    def close(self) -> None:
        """Without this an unfinished writer writes its footer when it is garbage-collected, into a file that is closed by then."""
        self._writer.is_open = False
