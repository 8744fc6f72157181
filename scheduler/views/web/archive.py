"""What the page shows of the past. Reads the decision log in the background, the newest first, and answers from what it has read.

All methods are called in one thread, which is not the server's: SQLite's connections belong to it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ...config.paths import Paths
from ...config.sections import Config
from ...explain.decision_page import page
from ...explain.history import FIGURES, GROUP, KEPT, PIECE, POOL, WIDTHS, Bucket, Moment, Piece, Target, marks, moment
from ...hands.safe_files import StoreError
from ...store.decisions import DecisionReader
from .rollups import KEPT_SECONDS, Rollups

RAW_SECONDS = 660
"""Longest time of which single ticks are shown (chosen: 11 minutes of ticks are read in a third of a second)."""

COLUMNS = 1500
"""Most buckets in an answer (chosen: a wide screen has as many columns)."""

MOST_GROUPS = 250
"""Groups in an answer, those that used most; the others are one (chosen: `history.MOST_TARGETS` without pools)."""

ROUNDED = 5
"""Seconds to which the times of an answer are rounded, so that pages opened together share one (chosen)."""

MOST_CACHED = 3 << 20
"""Bytes of answers that are kept (chosen: a day of 200 groups, and twenty live views)."""

CORES, MEBIBYTES = 1000.0, 1 / (1 << 20)
"""Answers are in thousandths of a core and in MiB, as whole numbers: half the length."""


class AskError(Exception):
    """A question that has no answer. The message says the cause and what to do."""


class Archive:
    """The past of one daemon."""

    def __init__(self, paths: Paths, config: Config, kept: Path | None, wall: Callable[[], float]) -> None:
        """`kept`: the file of the rollups, None if there can be none. `wall`: seconds since 1970."""
        self._paths, self._config, self._wall = paths, config, wall
        self.rollups = Rollups(kept)
        self._reader: DecisionReader | None = None
        self._inode = 0
        self._next = -1  # id from which ticks are new; -1: not known
        self._open: Piece | None = None  # which has the newest ticks
        self._filling: Iterator[None] | None = None
        self._oldest = 0.0  # start of the oldest piece that was looked for
        self._answers: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()
        self._cached = 0
        self.complete = False
        """Whether all that the log has was read."""
        self.trouble = ""
        """Why there is no history; ""."""

    # --- reading ahead ----------------------------------------------------------------------------------------------------------

    def advance(self, steps: int) -> bool:
        """Read at most about so many ticks. Returns whether there is more to read now."""
        try:
            reader = self._log()
            read = self._read_new(reader, steps)
            if read >= steps:
                return True
            if self._filling is None and not self.complete:
                self._filling = self._fill(reader)
            for _ in range(read, steps):
                if self._filling is None:
                    return False
                if next(self._filling, self) is self:
                    self._filling, self.complete = None, True
        except StoreError as error:
            self._lose(str(error))
            return False
        return True

    def close(self) -> None:
        """Close all files."""
        self._lose("")
        self.rollups.close()

    def _log(self) -> DecisionReader:
        """The decision log, opened again if another one is in its place."""
        try:
            inode = self._paths.decisions.stat().st_ino
        except OSError:
            inode = 0
        if self._reader is None or inode != self._inode:
            self._lose("")
            self._reader, self._inode = DecisionReader(self._paths.decisions), inode
            self.complete = False
            self._forget()
        self.trouble = ""
        return self._reader

    def _lose(self, why: str) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader, self._filling, self._open, self._next = None, None, None, -1
        self.trouble = why

    def _read_new(self, reader: DecisionReader, steps: int) -> int:
        """Take ticks that came since the last call."""
        if self._open is None:
            start = self._wall() // PIECE * PIECE
            first = reader.place_since(round(start * 1e9))
            if first is None:  # no tick is as new
                last = reader.place_at(1 << 62)
                start = start if last is None else last.wall / 1e9 // PIECE * PIECE
                first = reader.place_since(round(start * 1e9))
            self._open, self._next, self._oldest = Piece(start), 0 if first is None else first.id, start
        read = 0
        for id_, wall, text in reader.texts(self._next):
            start = wall / 1e9 // PIECE * PIECE
            if start != self._open.start:
                self.rollups.add(int(self._open.start), self._open.buckets(), self._wall())
                self._open = Piece(start)
            self._open.add(wall, text)
            self._next, read = id_ + 1, read + 1
            if read >= steps:
                break
        return read

    def _fill(self, reader: DecisionReader) -> Iterator[None]:
        """Reads older pieces, the newest first; stops after each tick."""
        limit = self._wall() - KEPT_SECONDS[PIECE]
        while True:
            before = reader.place_at(round(self._oldest * 1e9) - 1)
            if before is None or before.wall / 1e9 < limit:
                return
            start = before.wall / 1e9 // PIECE * PIECE
            self._oldest = start
            if self.rollups.has(int(start)):
                continue
            piece, end = Piece(start), round((start + PIECE) * 1e9)
            first = reader.place_since(round(start * 1e9))
            for _, wall, text in reader.texts(0 if first is None else first.id):
                if wall >= end:
                    break
                piece.add(wall, text)
                yield
            self.rollups.add(int(start), piece.buckets(), self._wall())
            self._forget()

    # --- answers ----------------------------------------------------------------------------------------------------------------

    def series(self, since: float, until: float) -> bytes:
        """JSON of all figures from `since` until `until`, seconds since 1970. Raises AskError, StoreError."""
        width = width_of(until - since)
        unit = width or ROUNDED
        since, until = since // unit * unit, until // unit * unit + unit
        key = (since, until, int(self._wall() // unit))
        answer = self._answers.get(key)
        if answer is None:
            answer = self._keep(key, self._series(width, since, until))
        return answer

    def target(self, target: Target, since: float, until: float) -> bytes:
        """JSON of the figures of one target, with peaks and forecast. Raises AskError, StoreError."""
        buckets = self._buckets(width_of(until - since), since, until)
        found = [(it.start, it.figures[:, it.targets.index(target)].copy()) for it in buckets if target in it.targets]
        if not found:
            raise AskError(f"nothing is known of {target[0]} {target[1]} in this time; choose another")
        columns = np.array([figures for _, figures in found])
        names = (*FIGURES[target[0]], *(f"{name}_most" for name in FIGURES[target[0]][:2]))
        figures = {name: _plain(columns[:, at]) for at, name in enumerate(names) if name}
        return msgspec.json.encode({"t": [start for start, _ in found], **figures})

    def moment(self, at: float) -> Moment:
        """The second of a time. Raises AskError, StoreError."""
        found = moment(self._log(), self._paths, self._config, at)
        if found is None:
            raise AskError("the decision log has nothing of that time; choose a later one")
        return found

    def why(self, id_: str) -> str:
        """The page of a decision. Raises ExplainError, StoreError."""
        return page(self._paths, id_)

    def _forget(self) -> None:
        """More is known now than when these answers were given."""
        self._answers.clear()
        self._cached = 0

    def _keep(self, key: tuple[Any, ...], answer: bytes) -> bytes:
        self._answers[key] = answer
        self._cached += len(answer)
        while self._cached > MOST_CACHED and len(self._answers) > 1:
            self._cached -= len(self._answers.popitem(last=False)[1])
        return answer

    def _buckets(self, width: int, since: float, until: float) -> Iterator[Bucket]:
        """In the order of time."""
        if width == 0:
            reader, piece = self._log(), Piece(since, (0,))
            first, end = reader.place_since(round(since * 1e9)), round(until * 1e9)
            for _, wall, text in () if first is None else reader.texts(first.id):
                if wall >= end:
                    break
                piece.add(wall, text)
            yield from piece.buckets()
            return
        yield from self.rollups.between(width, since, until)
        newest = [] if self._open is None else self._open.buckets()
        yield from (it for it in newest if it.width == width and since <= it.start < until)

    def _series(self, width: int, since: float, until: float) -> bytes:
        drawn = _Drawn(round((until - since) / width) + 1 if width else 0)
        for bucket in self._buckets(width, since, until):
            drawn.add(bucket)
        try:
            made = marks(self._log(), since, until, width or 1)
        except StoreError as error:
            made, self.trouble = [], str(error)
        head = {
            "since": since,
            "until": until,
            "width": width,
            "marks": made,
            "complete": self.complete,
            "trouble": self.trouble,
            **drawn.machine(),
        }
        parts = msgspec.json.encode(head)[:-1], b",".join(drawn.groups()), b",".join(drawn.pools())
        return b'%b,"groups":[%b],"pools":[%b]}' % parts


class _Drawn:
    """The figures of an answer, by target and time: what is read is not kept."""

    def __init__(self, most: int) -> None:
        """`most`: times to make room for; 0: not known."""
        self._times: list[tuple[float, float, float]] = []  # start, busiest, worst
        self._machine: list[list[float]] = []
        self._places: dict[str, int] = {}
        self._groups = np.zeros((most, 0, 3), dtype=np.float32)  # [time, place, figure]
        self._pools: dict[str, dict[int, list[float]]] = {}  # name -> time -> figures

    def add(self, bucket: Bucket) -> None:
        """Take what comes next."""
        column = len(self._times)
        self._times.append((bucket.start, bucket.busiest, bucket.worst))
        machine = [math.nan] * KEPT
        at, columns = list[int](), list[int]()
        for place, (kind, name) in enumerate(bucket.targets):
            if kind == GROUP:
                at.append(self._places.setdefault(name, len(self._places)))
                columns.append(place)
            elif kind == POOL:
                self._pools.setdefault(name, {})[column] = bucket.figures[:, place].tolist()
            else:
                machine = bucket.figures[:, place].tolist()
        self._machine.append(machine)
        needed = (column + 1, len(self._places), 3)
        if any(need > have for need, have in zip(needed, self._groups.shape, strict=True)):
            sizes = [have if need <= have else need + need // 2 for need, have in zip(needed, self._groups.shape, strict=True)]
            self._groups = np.pad(self._groups, [(0, size - have) for size, have in zip(sizes, self._groups.shape, strict=True)])
        self._groups[column, at] = np.nan_to_num(bucket.figures[:3, columns].T)

    def machine(self) -> dict[str, Any]:
        """Times, and the figures of the whole machine."""
        times = np.array(self._times).reshape(-1, 3)
        figures = np.array(self._machine).reshape(-1, KEPT)
        known = len(figures) > 0
        return {
            "t": times[:, 0].tolist(),
            "busiest": times[:, 1].tolist(),
            "worst": times[:, 2].tolist(),
            "cpus": int(np.nanmax(figures[:, 5])) if known else 0,
            "memory_total": int(np.nanmax(figures[:, 4]) * MEBIBYTES) if known else 0,
            "busy": _whole(figures[:, 0] * CORES),
            "busy_most": _whole(figures[:, 6] * CORES),
            "wait": _whole(figures[:, 1] * CORES),
            "wait_most": _whole(figures[:, 7] * CORES),
            "memory": _whole(figures[:, 2] * MEBIBYTES),
        }

    def groups(self) -> Iterator[bytes]:
        """JSON of each group, those that used most first, and of the others together, whose name is ""."""
        figures = self._groups[: len(self._times)]
        used = figures[:, : len(self._places), :2].sum(axis=(0, 2), dtype=np.float64) if self._times else np.zeros(0)
        order = sorted((name for name in self._places if name), key=lambda name: (-used[self._places[name]], name))
        for name in order[:MOST_GROUPS]:
            yield _group(name, figures[:, self._places[name]])
        rest = [self._places[name] for name in (*order[MOST_GROUPS:], *({""} & self._places.keys()))]
        if rest:
            yield _group("", figures[:, rest].sum(axis=1))

    def pools(self) -> Iterator[bytes]:
        """JSON of each pool."""
        names = (*FIGURES[POOL], "load_most", "queued_most")
        for name, found in sorted(self._pools.items()):
            columns = np.full((KEPT, len(self._times)), np.nan)
            for column, figures in found.items():
                columns[:, column] = figures
            yield msgspec.json.encode({"name": name, **{figure: _plain(columns[at]) for at, figure in enumerate(names)}})


def width_of(seconds: float) -> int:
    """Width of the buckets that show so many seconds; 0: single ticks.

    >>> [width_of(seconds) for seconds in (300, 3600, 86400, 7 * 86400)]
    [0, 10, 60, 600]
    """
    if seconds <= RAW_SECONDS:
        return 0
    return next((width for width in WIDTHS if seconds <= width * COLUMNS), WIDTHS[-1])


def _group(name: str, figures: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    """JSON of a group. `figures`: cpu, wait and memory at each time."""
    cpu, wait, memory = figures.T
    found = {"name": name, "cpu": _whole(cpu * CORES), "wait": _whole(wait * CORES), "memory": _whole(memory * MEBIBYTES)}
    return msgspec.json.encode(found)


def _whole(values: np.ndarray[Any, np.dtype[Any]]) -> list[int]:
    return list(np.rint(np.nan_to_num(values)).astype(np.int64).tolist())


def _plain(values: np.ndarray[Any, np.dtype[Any]]) -> list[float | None]:
    return [None if value != value else round(value, 3) for value in values.tolist()]
