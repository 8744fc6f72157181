"""Reads arrival traces: CSV by the standard library, Parquet by pyarrow if it is installed. Knows the columns, not their use.

Columns (others are ignored):

    count                one row an interval, which `t` begins, in seconds; without `t` a row is a second
    t_submit or t        one row a request, in seconds; `service_s` is how long each took, if known
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .arrivals import LoadError, Trace

Floats = NDArray[np.float64]

COLUMNS = ("t_submit", "t", "count", "service_s")

MOST_ROWS = 20_000_000
"""Files with more rows are refused before they use up all memory. Chosen."""


def read(path: Path) -> Trace:
    """The trace in a file. Raises LoadError with cause and next step, OSError if it cannot be opened."""
    columns = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    times = columns.get("t_submit", columns.get("t"))
    counts, services = columns.get("count"), columns.get("service_s")
    if counts is None and times is None:
        raise LoadError(f"{path}: no column {', '.join(COLUMNS[:3])}; a file of arrivals has `count` (with `t`), or `t_submit`")
    rows = len(counts) if counts is not None else 0 if times is None else len(times)
    if rows < 2:
        raise LoadError(f"{path}: {rows} rows are too few; give a file with at least two")
    for name, values in columns.items():
        bad = np.flatnonzero(~np.isfinite(values) | ((values < 0) & (name not in ("t", "t_submit"))))
        if len(bad):
            raise LoadError(f"{path}: row {bad[0] + 1}: {name} is {values[bad[0]]:g}; correct it or leave the row out")
    if counts is not None:
        return _counted(path, times, counts)
    assert times is not None, "checked above"
    order = np.argsort(times, kind="stable")
    return Trace(path.stem, times[order], None, None if services is None else services[order], 0.0)


def _counted(path: Path, times: Floats | None, counts: Floats) -> Trace:
    if times is None:
        times = np.arange(len(counts), dtype=np.float64)
    steps = np.diff(times)
    step = float(np.median(steps))
    if step <= 0 or (steps < step * 0.999).any():
        raise LoadError(
            f"{path}: its intervals are not in order of time, or one occurs twice; sort the rows by t and merge equal ones"
        )
    return Trace(path.stem, times, counts, None, step)


def _csv(path: Path) -> dict[str, Floats]:
    found: dict[str, list[float]] = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.DictReader(file)
        try:
            names = [name for name in COLUMNS if name in (rows.fieldnames or ())]
            found = {name: [] for name in names}
            for number, row in enumerate(rows, 2):
                if number > MOST_ROWS:
                    raise LoadError(f"{path}: more than {MOST_ROWS} rows; cut a piece out of it")
                for name in names:
                    try:
                        found[name].append(float(row[name]))
                    except (TypeError, ValueError):
                        raise LoadError(f'{path}:{number}: {name} is "{row[name]}", not a number; correct the line') from None
        except csv.Error as error:
            raise LoadError(f"{path}: not a CSV file: {error}; give CSV with a header, or a .parquet file") from None
    return {name: np.array(values) for name, values in found.items()}


def _parquet(path: Path) -> dict[str, Floats]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise LoadError(
            "parquet needs pyarrow, which is not installed; in nicety's checkout, run: pip install '.[parquet]'"
        ) from None
    with path.open("rb") as file:
        try:
            content = pyarrow.parquet.ParquetFile(file)
            if content.metadata.num_rows > MOST_ROWS:
                raise LoadError(f"{path}: more than {MOST_ROWS} rows; cut a piece out of it")
            table = content.read(columns=[name for name in COLUMNS if name in content.schema_arrow.names])
            return {name: np.asarray(table[name].to_numpy(), dtype=np.float64) for name in table.column_names}
        except (pyarrow.ArrowException, ValueError, TypeError) as error:
            raise LoadError(f"{path}: not a Parquet file of numbers: {error}") from None
