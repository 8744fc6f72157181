"""Ticks with their verdicts to bytes and back: what changed since the tick before, part by part. Pure; knows no file.

A tick is split into cells: one for each group, for the members of a group, for each pool, worker, forecast, score, decision, and so
on. `Encoder` writes only the cells that changed; `Cells` puts them together again, as canonical JSON. Both need every tick since a
keyframe, which builds on nothing. What does not change costs no bytes, however many members a group has.

A record is the msgpack array `_Record`. Its body, before zlib:

    shift       1 byte: how many low bits are zero in all differences, and left out
    mask        1 byte: which of the eight byte planes of the differences are not all zeros
    planes      each plane with its bit set: one byte of each value of the forecasts that are new or changed
    texts       JSON of each other new or changed cell, with newlines between them

The values of forecasts are doubles. Their bits are taken as integers, and the zigzag differences to the forecast before are
written (to zeros for a new one). zlib knows the old texts of the changed cells as its dictionary. Needs no numpy: a reader of a
single tick would wait longer for its import than for the numbers.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from ..decision import Member, Outcome, Tick, Verdict

MAX_BYTES = 1 << 24
"""A record whose body unpacks to more is damage, and none is written. Chosen: a tick with 10,000 processes takes about 1 MB."""

MAX_CELLS = 1 << 17
"""Likewise of its cells: as many as processes can be recorded (`codec.MAX_ROWS`)."""

LEVEL = 6
"""Of zlib. Measured on a tick of 40 groups and a pool of 13: a tenth smaller than level 1, for 0.1 ms."""

MAX_VALUES = 1 << 20
"""Likewise of the values of its forecasts: 100 for each of 10,000 groups (chosen)."""

_LANE = (1 << 64) - 1
_WINDOW = 1 << 15  # bytes of a dictionary that zlib can use
_APART = b"\x1f"  # between members in a text: JSON has no control characters


class RecordError(ValueError):
    """Bytes that no encoder has written, or that do not follow the tick before; or a tick that is too large to be read back."""


class _Record(msgspec.Struct, array_like=True):
    changed: bytes  # a bit for each cell of the tick before: it is there and has changed
    gone: list[int]  # places of those that are gone
    new: list[int]  # places of the new cells, among all
    parts: bytes  # what each of them belongs to
    hunks: list[tuple[int, int]]  # of each members' cell that changed: how many members stay at its beginning and end
    values: int  # of the forecasts that are new or changed
    body: bytes


class _Forecast(msgspec.Struct):
    """As `models.records.Forecast`, with the values in any sequence."""

    target: str
    metric: str
    values: list[list[float]]
    source: str


class _Head(NamedTuple):
    """A forecast without its values."""

    target: str
    metric: str
    source: str
    shape: tuple[int, ...]  # values at each horizon


_JSON = msgspec.json.Encoder(order="deterministic").encode  # as `decision.encode`
_PACK = msgspec.msgpack.Encoder(order="deterministic").encode
_HEAD = msgspec.json.Decoder(_Head)
_RECORD = msgspec.msgpack.Decoder(_Record)

_TICK = (
    "at",
    "gap",
    "paused",
    "machine",
    "protected",
    "groups",
    "pools",
    "forecasts",
    "scores",
    "outcomes",
    "home",
    "deadlocks",
    "starved_workers",
    "feedback",
    "sheltered",
    "shared",
    "chosen",
    "delays",
)
"""Fields of `decision.Tick` in their order, but `seq` and `wall`, which are the row's."""

_VERDICT = ("decisions", "refusals", "effects", "notes")
"""Fields of `decision.Verdict`, in their order."""

_DONE = "outcomes of the verdict"
_PARTS = (*_TICK, *_VERDICT, _DONE, "members", "workers")
"""What a cell belongs to, by the number that stands for it."""

_NUMBERS = {part: number for number, part in enumerate(_PARTS)}
_FORECASTS, _MEMBERS, _WORKERS = _NUMBERS["forecasts"], _NUMBERS["members"], _NUMBERS["workers"]

_NAMES: dict[str, Callable[[Any], object]] = {
    "scores": lambda score: (score.id, score.kind),
    "outcomes": lambda outcome: (outcome.target, outcome.status),
    "starved_workers": lambda starved: starved.worker.id,
    "feedback": lambda feedback: feedback.id,
    "shared": lambda shared: shared.on,
    "chosen": lambda chosen: chosen.pool,
    "delays": lambda delay: delay.group,
    "decisions": lambda decision: (decision.policy, decision.target),
    "refusals": lambda refusal: (refusal.decision.policy, refusal.decision.target, refusal.rule),
    "effects": lambda effect: effect.metric,
    "notes": lambda note: note.topic,
    _DONE: lambda outcome: (outcome.target, outcome.status),
}
"""Parts with a cell for each of their elements, and by what an element is found again in the next tick. Groups, pools and forecasts
are treated apart. Every other part is one cell."""


@dataclass(slots=True)
class _Cell:
    """Of the encoder."""

    part: int
    key: object
    state: Any  # equal states: nothing has changed
    text: bytes = b""  # JSON, or of members b""
    members: tuple[bytes, ...] = ()  # JSON of each


# --- writing ------------------------------------------------------------------------------------------------------------------


class Encoder:
    """Keeps the cells of the tick before."""

    def __init__(self) -> None:
        self._before: list[_Cell] = []

    def encode(self, tick: Tick, verdict: Verdict, outcomes: Sequence[Outcome], *, keyframe: bool) -> bytes:
        """The record of a tick after the one that was encoded before; a keyframe builds on none. Raises RecordError for one that no
        reader would unpack: the next one must be a keyframe."""
        before = [] if keyframe else self._before
        places = {cell.key: place for place, cell in enumerate(before)}
        now: list[_Cell] = []
        changed, gone, new, parts, hunks = 0, set(range(len(before))), list[int](), bytearray(), list[tuple[int, int]]()
        texts, known, values, bases = list[bytes](), list[bytes](), list[bytes](), list[bytes]()
        last = -1  # place of the last cell that was there before: later ones must come later in both
        for part, key, thing in _things(tick, verdict, outcomes):
            place = places.get(key, -1)
            old = before[place] if place > last else None
            cell = _Cell(part, key, thing if part == _MEMBERS else _doubles(thing) if part == _FORECASTS else _PACK(thing))
            if old is None:
                new.append(len(now))
                parts.append(part)
            else:
                last = place
                gone.discard(place)
            now.append(cell)
            if old is not None and cell.state == old.state:
                cell.text, cell.members = old.text, old.members
                continue
            if old is not None:
                changed |= 1 << place
            if part == _FORECASTS:
                values.append(cell.state)
                bases.append(bytes(len(cell.state)) if old is None else old.state)
                if old is None:
                    texts.append(_JSON(key))
            elif part == _MEMBERS:
                first, end = (0, 0) if old is None else _stay(old.state, thing)
                made = [_JSON(member) for member in thing[first : len(thing) - end]]
                texts.append(_APART.join(made))
                if old is not None:
                    hunks.append((first, end))
                    known.append(_neighbours(old.members, first, end))
                    made = [*old.members[:first], *made, *old.members[len(old.members) - end :]]
                cell.members = tuple(made)
            else:
                cell.text = _JSON(thing)
                texts.append(cell.text)
                if old is not None:
                    known.append(old.text)
        body = _planes(*_moved(b"".join(values), b"".join(bases))) + b"\n".join(texts)
        if len(body) > MAX_BYTES or len(now) > MAX_CELLS:
            raise RecordError(f"a tick of {len(body)} bytes is not logged: at most {MAX_BYTES} are read back")
        self._before = now
        press = zlib.compressobj(LEVEL, zdict=_dictionary(known))
        return _PACK(
            _Record(
                changed.to_bytes((changed.bit_length() + 7) // 8, "little"),
                sorted(gone),
                new,
                bytes(parts),
                hunks,
                sum(map(len, values)) // 8,
                press.compress(body) + press.flush(),
            )
        )


def _things(tick: Tick, verdict: Verdict, outcomes: Sequence[Outcome]) -> Iterator[tuple[int, object, Any]]:
    """(part, key, what is in it) of each cell, in the order of the record."""
    for record, fields in ((tick, _TICK), (verdict, _VERDICT)):
        for field in fields:
            number, value = _NUMBERS[field], getattr(record, field)
            if field == "groups":
                for group in value:
                    yield number, (number, group.name), msgspec.structs.replace(group, members=())
                    if group.members:
                        yield _MEMBERS, (_MEMBERS, group.name), group.members
            elif field == "pools":
                for pool in value:
                    yield number, (number, pool.name), msgspec.structs.replace(pool, workers=())
                    for worker in pool.workers:
                        yield _WORKERS, (_WORKERS, pool.name, worker.id), worker
            elif field == "forecasts":
                for it in value:
                    yield number, _Head(it.target, it.metric, it.source, tuple(map(len, it.values))), it
            elif field in _NAMES:
                name = _NAMES[field]
                for one in value:
                    yield number, (number, name(one)), one
            else:
                yield number, number, value
    number, name = _NUMBERS[_DONE], _NAMES[_DONE]
    for outcome in outcomes:
        yield number, (number, name(outcome)), outcome


def _doubles(forecast: Any) -> bytes:
    values = list(chain.from_iterable(forecast.values))
    return struct.pack(f"<{len(values)}d", *values)


def _stay(old: Sequence[Member], now: Sequence[Member]) -> tuple[int, int]:
    """How many members are the same at the beginning, and how many at the end."""
    most = min(len(old), len(now))
    first = 0
    while first < most and old[first] == now[first]:
        first += 1
    end = 0
    while end < most - first and old[-1 - end] == now[-1 - end]:
        end += 1
    return first, end


def _neighbours(members: Sequence[bytes], first: int, end: int) -> bytes:
    """The members that are replaced, and one beside them, which new ones resemble."""
    return _APART.join(members[max(first - 1, 0) : max(len(members) - end, 1)])


def _dictionary(texts: Sequence[bytes]) -> bytes:
    """What zlib knows beforehand; it may not be empty."""
    return b"\n".join(texts)[-_WINDOW:] or b"\n"


# --- reading ------------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Read:
    """A cell of the decoder."""

    part: int
    text: bytes  # JSON; of a forecast as it was made last
    members: tuple[bytes, ...] = ()  # JSON of each
    head: _Head | None = None  # of a forecast
    values: bytes = b""  # of a forecast


class Cells:
    """The cells of the newest record that was read."""

    def __init__(self) -> None:
        self._cells: list[_Read] = []

    def follow(self, data: bytes, *, keyframe: bool) -> None:
        """Read the record that comes next, or a keyframe. Raises RecordError for anything else: then only a keyframe helps."""
        try:
            record = _RECORD.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RecordError(str(error)) from None
        before, self._cells = [] if keyframe else self._cells, []
        now, filled = _placed(record, before)
        hunks = iter(record.hunks)
        known, stays = [], dict[int, tuple[int, int]]()
        for place, old in filled:
            cell = now[place]
            if not old or cell.part == _FORECASTS:
                continue
            if cell.part == _MEMBERS:
                first, end = stays[place] = next(hunks, (-1, -1))
                if min(first, end) < 0 or first + end > len(cell.members):
                    raise RecordError("more members stay than there were")
                known.append(_neighbours(cell.members, first, end))
            else:
                known.append(cell.text)
        body = _unzipped(record.body, _dictionary(known))
        numbers, shift, offset = _whole_planes(body, record.values)
        texts = iter(body[offset:].split(b"\n"))
        moved, bases = list[_Read](), list[bytes]()
        for place, old in filled:
            cell = now[place]
            if cell.part == _FORECASTS:
                if not old:
                    try:
                        cell.head = _HEAD.decode(next(texts, b""))
                    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                        raise RecordError(f"a forecast: {error}") from None
                    if min(cell.head.shape, default=0) < 0:
                        raise RecordError("a forecast with fewer than no values")
                    cell.values = bytes(_size(cell.head.shape, record.values))
                moved.append(cell)
                bases.append(cell.values)
            elif cell.part == _MEMBERS:
                made = [one for one in next(texts, b"").split(_APART) if one]
                first, end = stays.get(place, (0, 0))
                cell.members = (*cell.members[:first], *made, *cell.members[len(cell.members) - end :])
            else:
                cell.text = next(texts, b"")
        if next(texts, b""):
            raise RecordError("texts that belong to no cell")
        base = b"".join(bases)
        if len(base) != record.values * 8:
            raise RecordError(f"{record.values} values of forecasts, {len(base) // 8} expected")
        values, at = _put_back(numbers, shift, base), 0
        for cell in moved:
            cell.values, cell.text = values[at : at + len(cell.values)], b""
            at += len(cell.values)
        self._cells = now

    def json(self, seq: int, wall: int) -> tuple[bytes, bytes, bytes]:
        """Canonical JSON of the tick, of the verdict, and of its outcomes."""
        found: list[list[bytes]] = [[] for _ in _PARTS]
        workers: list[list[bytes]] = []
        for cell in self._cells:
            text = cell.text
            if cell.part == _FORECASTS:
                text = cell.text = cell.text or _forecast(cell)
            elif cell.part == _MEMBERS:
                groups = found[_NUMBERS["groups"]]
                if groups:
                    groups[-1] = groups[-1].replace(b'"members":[]', b'"members":[' + b",".join(cell.members) + b"]", 1)
                continue
            elif cell.part == _WORKERS:
                if workers:
                    workers[-1].append(text)
                continue
            elif cell.part == _NUMBERS["pools"]:
                workers.append([])
            found[cell.part].append(text)
        pools = found[_NUMBERS["pools"]]
        for number, texts in enumerate(workers):
            pools[number] = pools[number].replace(b'"workers":[]', b'"workers":[' + b",".join(texts) + b"]", 1)
        tick = b'{"seq":%d,' % seq + _object(_TICK[:1], found) + b',"wall":%d,' % wall + _object(_TICK[1:], found) + b"}"
        return tick, b"{" + _object(_VERDICT, found) + b"}", b"[" + b",".join(found[_NUMBERS[_DONE]]) + b"]"


def _placed(record: _Record, before: Sequence[_Read]) -> tuple[list[_Read], list[tuple[int, bool]]]:
    """The cells of a record in their order, those that it writes still as before or empty, and the places of the latter: (place,
    whether it was there before). Raises RecordError if this cannot be."""
    gone, new, count = record.gone, record.new, len(before) - len(record.gone) + len(record.new)
    if len(record.parts) != len(new) or count > MAX_CELLS or any(part >= len(_PARTS) for part in record.parts):
        raise RecordError("impossible numbers of cells")
    for places, end in ((gone, len(before)), (new, count)):
        if any(b <= a for a, b in pairwise(places)) or (places and not 0 <= places[0] <= places[-1] < end):
            raise RecordError("impossible places of cells")
    changed = int.from_bytes(record.changed, "little")
    if changed.bit_length() > len(before):
        raise RecordError("changes of cells that are not there")
    left = set(gone)
    stays = ((place, cell) for place, cell in enumerate(before) if place not in left)
    added = dict(zip(new, record.parts, strict=True))
    now, filled = list[_Read](), list[tuple[int, bool]]()
    for place in range(count):
        if place in added:
            now.append(_Read(added[place], b""))
            filled.append((place, False))
            continue
        was, cell = next(stays)
        if changed >> was & 1:
            filled.append((place, True))
        now.append(cell)
    return now, filled


def _forecast(cell: _Read) -> bytes:
    """Its JSON."""
    assert cell.head is not None
    values, at, rows = struct.unpack(f"<{len(cell.values) // 8}d", cell.values), 0, []
    for length in cell.head.shape:
        rows.append(list(values[at : at + length]))
        at += length
    return _JSON(_Forecast(cell.head.target, cell.head.metric, rows, cell.head.source))


def _object(fields: Sequence[str], found: Sequence[Sequence[bytes]]) -> bytes:
    """The members of an object of JSON."""
    lists = {"groups", "pools", "forecasts", *_NAMES}
    parts = []
    for field in fields:
        text = b",".join(found[_NUMBERS[field]])
        parts.append(b'"%s":%s' % (field.encode(), b"[" + text + b"]" if field in lists else text))
    return b",".join(parts)


def _size(shape: Sequence[int], most: int) -> int:
    """Bytes of the values of a forecast. Raises RecordError for more values than `most`."""
    if sum(shape) > most:
        raise RecordError("a forecast with more values than the record has")
    return 8 * sum(shape)


def _unzipped(body: bytes, known: bytes) -> bytes:
    unzip = zlib.decompressobj(zdict=known)
    try:
        raw = unzip.decompress(body, MAX_BYTES)
    except zlib.error as error:
        raise RecordError(str(error)) from None
    if not unzip.eof or unzip.unused_data or len(raw) < 2:
        raise RecordError("the record does not end where it should")
    return raw


# --- numbers ------------------------------------------------------------------------------------------------------------------


def _moved(now: bytes, before: bytes) -> tuple[bytes, int]:
    """The zigzag differences of 64-bit integers, modulo 2**64, without the low bits that are zero in all; and how many those are.
    Works on all integers at once, as one long integer with a lane for each."""
    count = len(now) // 8
    low = _lanes(count)
    high = low << 63
    a, b = int.from_bytes(now, "little"), int.from_bytes(before, "little")
    moved = ((a | high) - (b & ~high)) ^ ((a ^ b ^ high) & high)
    shift = _zeros(moved, count)
    moved = moved >> shift | (_filled((moved & high) >> 63) & low * (_LANE ^ _LANE >> shift))
    return (((moved & ~high) << 1) ^ _filled((moved & high) >> 63)).to_bytes(8 * count, "little"), shift


def _put_back(moved: bytes, shift: int, before: bytes) -> bytes:
    """The inverse of `_moved`."""
    count = len(moved) // 8
    low = _lanes(count)
    high = low << 63
    a, b = int.from_bytes(moved, "little"), int.from_bytes(before, "little")
    a = ((a & ~low) >> 1) ^ _filled(a & low)
    a = (a & low * (_LANE >> shift)) << shift
    return (((a & ~high) + (b & ~high)) ^ ((a ^ b) & high)).to_bytes(8 * count, "little")


def _lanes(count: int) -> int:
    """1 in each of so many lanes."""
    return int.from_bytes(b"\1\0\0\0\0\0\0\0" * count, "little")


def _filled(ones: int) -> int:
    """All bits of each lane in which there is 1; the others have 0."""
    return (ones << 64) - ones


def _zeros(numbers: int, count: int) -> int:
    """How many low bits are zero in every lane."""
    while count > 1:
        half = (count + 1) // 2
        numbers = numbers >> 64 * half | numbers & (1 << 64 * half) - 1
        count = half
    return (numbers & -numbers).bit_length() - 1 if numbers else 0


def _planes(numbers: bytes, shift: int) -> bytes:
    """The shift, a byte with a bit for each byte plane, then those planes that are not all zero."""
    planes = [numbers[plane::8] for plane in range(8)]
    used = [plane if any(plane) else b"" for plane in planes]
    return bytes([shift, sum(1 << number for number, plane in enumerate(used) if plane)]) + b"".join(used)


def _whole_planes(body: bytes, count: int) -> tuple[bytes, int, int]:
    """The inverse of `_planes`: `count` numbers, the shift, and where they end in the body. Raises RecordError."""
    shift, mask = body[:2]
    if shift > 63 or not 0 <= count <= MAX_VALUES or len(body) - 2 < mask.bit_count() * count:
        raise RecordError("the record ends within its values")
    numbers, offset = bytearray(8 * count), 2
    for plane in range(8):
        if mask >> plane & 1:
            numbers[plane::8] = body[offset : offset + count]
            offset += count
    return bytes(numbers), shift, offset
