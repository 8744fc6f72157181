"""Traces and decisions for other programs: csv, jsonl, parquet. Must not know how either is stored.

A sample file has one row per process and tick: raw counters, never rates; what was not read is empty or null. The file
appears whole or not at all. Parquet needs pyarrow, which is imported only on request and never by the daemon.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import msgspec

from ..hands.safe_files import StoreError
from ..printed import plain
from .decisions import DecisionReader, LoggedDecision
from .files import NamedFile, replacing
from .records import record_of

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
_PARQUET_ROWS = 1 << 16


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what could not be."""

    rows: int
    ticks: int  # 0 for decisions
    lost: tuple[str, ...]  # one line per loss, never ""


class _Sink(Protocol):
    """Rows into one format."""

    def write(self, columns: Mapping[str, list[Any]]) -> None:
        """Write as many rows as each column has values, None for unknown."""
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
            for recording, snapshot in read:
                columns = _samples(recording.id, recording.boot_id, snapshot)
                sink.write(columns)
                rows += len(columns["pid"])
                ticks += 1
                if progress is not None:
                    progress(ticks)
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


def _samples(session: str, boot_id: str, snapshot: Any) -> dict[str, list[Any]]:
    """The columns of one snapshot."""
    from ...models.identity import ProcId
    from ...models.records import Identity, Known, Trait

    table = snapshot.table
    n = len(table)
    nobody = Identity("", "", "", "", -1)
    ids = [
        snapshot.identities.get(ProcId(*key), nobody)
        for key in zip(table["pid"].tolist(), table["start_ticks"].tolist(), strict=True)
    ]
    known = table["known"]

    def numbers(name: str, bit: Known | None = None) -> list[Any]:
        values = table[name].tolist()
        if bit is None:
            return list(values)
        return [value if there else None for value, there in zip(values, (known & bit) != 0, strict=True)]

    def traits(trait: Trait, bit: Known | None = None) -> list[Any]:
        has = ((table["traits"] & trait) != 0).tolist()
        return has if bit is None else [value if there else None for value, there in zip(has, (known & bit) != 0, strict=True)]

    columns: dict[str, list[Any]] = {
        "session": [session] * n,
        "boot_id": [boot_id] * n,
        "at_ns": [snapshot.at] * n,
        "wall": [_iso(snapshot.wall)] * n,
        "wall_ns": [snapshot.wall] * n,
        "machine_cpus": [len(snapshot.host.cpu_busy_ns)] * n,
        "comm": [it.comm for it in ids],
        "program": [it.program for it in ids],
        "cgroup": [it.cgroup for it in ids],
        "unit": [it.unit for it in ids],
        "uid": [None if it is nobody else it.uid for it in ids],
        "owner": [None if it is nobody else it.owner for it in ids],
        "port": [it.port or None for it in ids],
        "kernel_session": numbers("session"),
        "state": [chr(code) if code else None for code in table["state"].tolist()],
        "cpu_exact": ((known & Known.WAIT) != 0).tolist(),
        "fds": numbers("fds", Known.FDS),
        "serves": traits(Trait.SERVES, Known.SOCKETS),
        "serves_locally": traits(Trait.SERVES_LOCALLY, Known.SOCKETS),
        "terminal": traits(Trait.TERMINAL),
        "reads_keystrokes": traits(Trait.READS_KEYSTROKES, Known.KEYS),
        "has_window": traits(Trait.HAS_WINDOW, Known.SOCKETS),
        "pipe_fed": traits(Trait.PIPE_FED),
        "pipe_server": traits(Trait.PIPE_SERVER),
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

    def __init__(self, file: BinaryIO, columns: tuple[str, ...]) -> None:
        self._columns = columns
        self._file = file
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self._writer = csv.writer(self._text)
        self._writer.writerow(columns)

    def write(self, columns: Mapping[str, list[Any]]) -> None:
        """None is an empty cell."""
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

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._encoder = msgspec.json.Encoder()

    def write(self, columns: Mapping[str, list[Any]]) -> None:
        """None is null."""
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

    def __init__(self, file: BinaryIO) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise StoreError("parquet needs pyarrow, which is not installed; run: pip install 'nicety[parquet]'") from None
        self._arrow = pyarrow
        self._schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in COLUMNS.items()])
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema, compression="zstd", write_page_checksum=True)
        self._waiting: list[Any] = []
        self._rows = 0

    def write(self, columns: Mapping[str, list[Any]]) -> None:
        """None is null."""
        batch = self._arrow.record_batch([columns[name] for name in COLUMNS], schema=self._schema)
        self._waiting.append(batch)
        self._rows += batch.num_rows
        if self._rows >= _PARQUET_ROWS:
            self._write_waiting()

    def finish(self) -> None:
        """Write the last row group and the footer."""
        self._write_waiting()
        self._writer.close()

    def close(self) -> None:
        """Without this an unfinished writer writes its footer when it is garbage-collected, into a file that is closed by then."""
        self._writer.is_open = False

    def _write_waiting(self) -> None:
        if self._waiting:
            self._writer.write_table(self._arrow.Table.from_batches(self._waiting, self._schema), row_group_size=_PARQUET_ROWS)
        self._waiting, self._rows = [], 0
