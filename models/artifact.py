"""Model files: arrays and a card, written atomically and checked before use. Knows the layout, not what a model predicts.

    models/KIND/DIGEST/card.json    what the model is and what it was trained on; DIGEST is its SHA-256
    models/KIND/DIGEST/model.npz    its arrays; the card has their SHA-256
    models/KIND/live                the digest of the promoted model
    models/KIND/history             what was live before, one per line, the latest last: a digest, or "none"

The package has a directory of the same form, `shipped`, with the models for users who have trained none.

All input is treated as hostile: sizes and shapes are checked before anything is decompressed, nothing is ever unpickled, and files
that others could have written are refused. Uses numpy and the standard library only.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import re
import stat
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .anomaly.evidence import CHANNELS
from .anomaly.model import AnomalyModel
from .behaviour import BEHAVIOUR_FEATURES, BehaviourModel
from .forecast.demand import DEMAND_FEATURES
from .forecast.mixture import trained
from .records import HORIZONS, QUANTILES, WINDOW

SCHEMA = 1
"""Version of card and arrays together: a change of either, or of what a feature means, needs a new number."""

FEATURES: Mapping[str, tuple[str, ...]] = {"demand": DEMAND_FEATURES, "anomaly": CHANNELS, "behaviour": BEHAVIOUR_FEATURES}
"""Kinds of models, and the inputs of each."""

SHIPPED = Path(__file__).resolve().parent / "shipped"
"""Models that come with the package: read-only, and as trusted as the code beside them."""

MAX_BYTES = 64 << 20
"""Maximum bytes of a model file, packed or unpacked. Chosen: a demand model takes about 0.2 MB."""

MAX_CARD_BYTES = 1 << 20
"""Maximum bytes of a card (chosen)."""
MAX_TEXT = 4096
"""Maximum characters of a text in a card. Chosen: the names of the sets that a shipped model was trained on take some hundreds."""

INTERVALS = (0.001, 86_400.0)
"""Limits of a card's seconds per tick (chosen): from less than any kernel clock counts to a day."""

MOST = 2**63 - 1
"""Largest whole number in a card: the largest that times in ns and arrays can hold."""

MOST_FLOAT = sys.float_info.max
HISTORY = 64  # chosen: most promotions that can be rolled back; older ones are forgotten
MAX_ARRAYS = 64  # chosen: most arrays of a model

DTYPES = ("<f8", "<f4", "<i4", "<i8", "|b1", "|u1")
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb".{10}\{'descr': '([<|][a-z]\d)', 'fortran_order': False, 'shape': \((\d{1,9},|\d{1,9}, \d{1,9})\), \} *\n", re.DOTALL
)
"""The header of an npy file as numpy writes it for a plain array of one or two dimensions. numpy's own reader evaluates the header
as Python text, in several ways for the sake of old files; nothing here needs that."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\.npy")
_DIGEST = re.compile(r"[0-9a-f]{64}")

Arrays = Mapping[str, NDArray[Any]]

Cell = str | float | bool | list[float] | None
"""What a card's table may hold, whole numbers included."""


class ArtifactError(Exception):
    """A model cannot be used or saved. The message says why and what to do next."""


@dataclass(frozen=True, slots=True)
class DataRange:
    """What a model was trained on."""

    first_wall: int  # ns since 1970
    last_wall: int
    ticks: int
    processes: int  # most in one tick
    groups: int
    digest: str  # SHA-256 over the values that training saw


@dataclass(frozen=True, slots=True)
class Card:
    """What a model is: all a reader must know before using its arrays."""

    kind: str  # one of FEATURES
    interval: float  # seconds per tick
    data: DataRange
    metrics: tuple[Mapping[str, Any], ...]  # the results on held-out time for which it was promoted
    version: str  # of nicety
    created: int  # wall clock ns
    cpus: int  # of the machine that trained it
    features: tuple[str, ...]
    schema: int = SCHEMA
    horizons: tuple[int, ...] = HORIZONS
    quantiles: tuple[float, ...] = QUANTILES
    window: int = WINDOW
    features_digest: str = ""  # filled in by `save`
    arrays_digest: str = ""  # filled in by `save`


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model that passed all checks but one: whether `card.interval` is the caller's."""

    card: Card
    arrays: Arrays
    digest: str


def save(directory: Path, kind: str, card: Card, arrays: Arrays) -> str:
    """Write a model below `directory` and return its digest. Only `promote` makes it live. Raises ArtifactError."""
    if card.kind != kind:
        raise ArtifactError(f"a card of kind {card.kind} does not fit a {kind} model; this is a fault of the caller")
    packed = _pack(arrays)
    card = replace(card, features_digest=_features_digest(card), arrays_digest=hashlib.sha256(packed).hexdigest())
    text = json.dumps(asdict(card), indent=1, sort_keys=True, allow_nan=False).encode()
    digest = hashlib.sha256(text).hexdigest()
    place = directory / kind / digest
    try:
        for folder in (directory, directory / kind, place):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check(os.lstat(folder), folder, stat.S_ISDIR)
        _write(place / "model.npz", packed)
        _write(place / "card.json", text)  # last: a directory without a card is no model
    except OSError as error:
        raise _trouble(f"cannot save the {kind} model below {directory}", error) from None
    load(directory, kind, digest)
    return digest


def promote(directory: Path, kind: str, digest: str | None) -> None:
    """Make a saved model the live one, atomically. None: no saved model, so that the shipped one or the baseline is used.

    Raises ArtifactError, and then the old one stays live.
    """
    if digest is not None:
        load(directory, kind, digest)
    past = history(directory, kind)
    try:
        before = live_digest(directory, kind)
    except ArtifactError:
        pass  # whatever was live cannot be rolled back to
    else:
        if before == digest:
            return
        past = (*past, before)[-HISTORY:]
    # History first: if the machine stops in between, it also holds what is live, and `rollback` skips that
    _set_live(directory, kind, digest, past, history_first=True)


def rollback(directory: Path, kind: str) -> str | None:
    """Make live again what was live before, and return its digest; None: no saved model. Raises ArtifactError if there is nothing
    to go back to, or if it cannot be used."""
    now, past = live_digest(directory, kind), list(history(directory, kind))
    while past and past[-1] == now:
        past.pop()
    if not past:
        before_it = f"no {kind} model is known to have been live before {now[:8]}" if now else ""
        nothing = before_it or f"no {kind} model of your own was ever live"
        raise ArtifactError(
            f"{nothing}, so there is nothing to go back to; choose one of `nicety models list`: nicety models promote {kind} DIGEST"
        )
    before = past.pop()
    if before is not None:
        try:
            load(directory, kind, before)
        except ArtifactError as error:
            raise ArtifactError(
                f"cannot go back to the {kind} model {before[:8]}…: {error}; or choose another: nicety models promote {kind} DIGEST"
            ) from None
    _set_live(directory, kind, before, past, history_first=False)
    return before


def history(directory: Path, kind: str) -> tuple[str | None, ...]:
    """What was live before, the latest last; None: no saved model. Raises ArtifactError for a file with any other content."""
    path = directory / kind / "history"
    try:
        text = _read(path, HISTORY * 65)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _trouble(f"cannot read {path}", error) from None
    lines = text.decode("ascii", "replace").splitlines()
    for number, line in enumerate(lines, 1):
        if line != "none" and not _DIGEST.fullmatch(line):
            raise ArtifactError(f"{path}:{number} is damaged: it has no digest; remove it: only the history for rollback is lost")
    return tuple(None if line == "none" else line for line in lines)


def saved(directory: Path, kind: str) -> dict[str, Card | ArtifactError]:
    """All models below `directory`, sorted by digest: the card, or why the model cannot be used."""
    try:
        names = sorted(path.name for path in (directory / kind).iterdir() if _DIGEST.fullmatch(path.name))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _trouble(f"cannot look into {directory / kind}", error) from None
    found: dict[str, Card | ArtifactError] = {}
    for digest in names:
        try:
            found[digest] = load(directory, kind, digest).card
        except ArtifactError as error:
            found[digest] = error
    return found


def live_digest(directory: Path, kind: str) -> str | None:
    """Digest of the live model; None if none was promoted. Raises ArtifactError for a file with any other content."""
    path = directory / kind / "live"
    try:
        _check(os.lstat(directory), directory, stat.S_ISDIR)
        _check_above(directory)
        _check(os.lstat(directory / kind), directory / kind, stat.S_ISDIR)
        text = _read(path, 256)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _trouble(f"cannot read {path}", error) from None
    digest = text.decode("ascii", "replace").strip()
    if not _DIGEST.fullmatch(digest):
        raise ArtifactError(f"{path} is damaged: it has no digest; remove it and run: nicety train")
    return digest


def load(directory: Path, kind: str, digest: str | None = None) -> Artifact:
    """The model `digest`, by default the live one, if it is whole, safe and made for this version. Raises ArtifactError."""
    if kind not in FEATURES:
        raise ArtifactError(f"there is no kind of model {kind!r}; there are {', '.join(FEATURES)}")
    digest = digest or live_digest(directory, kind)
    if digest is None:
        raise ArtifactError(f"no {kind} model is live in {directory}; run: nicety train")
    if not _DIGEST.fullmatch(digest):
        raise ArtifactError(f"{digest!r} is not the digest of a model; give one of the folders in {directory / kind}")
    place = directory / kind / digest
    try:
        for folder in (directory, directory / kind, place):
            _check(os.lstat(folder), folder, stat.S_ISDIR)
        _check_above(directory)
        text = _read(place / "card.json", MAX_CARD_BYTES)
        if hashlib.sha256(text).hexdigest() != digest:
            raise ArtifactError(f"{place / 'card.json'} is damaged: its checksum is not {digest[:8]}…; run: nicety train")
        card = _card(text, place / "card.json", kind)
        packed = _read(place / "model.npz", MAX_BYTES)
    except OSError as error:
        raise _trouble(f"cannot read the {kind} model {digest[:8]}… in {directory}", error) from None
    path = place / "model.npz"
    if hashlib.sha256(packed).hexdigest() != card.arrays_digest:
        raise ArtifactError(f"{path} is damaged: its checksum is not the card's; run: nicety train")
    try:
        arrays = _unpack(packed)
        _try(kind, arrays, digest, card.interval)
    except ValueError as error:
        raise ArtifactError(f"{path} cannot be used as {kind} model: {error}; run: nicety train") from None
    return Artifact(card, arrays, digest)


def load_live(directory: Path, kind: str) -> Artifact | None:
    """The live model; None if none was promoted yet. Raises ArtifactError if it cannot be used."""
    digest = live_digest(directory, kind)
    return None if digest is None else load(directory, kind, digest)


def shipped(kind: str) -> Artifact | None:
    """The model of this kind that comes with nicety; None if none does. Raises ArtifactError if it cannot be used."""
    return load_live(SHIPPED, kind)


def _try(kind: str, arrays: Arrays, digest: str, interval: float) -> None:
    """Raise ValueError unless the arrays make a model."""
    if kind == "demand":
        trained(arrays, digest)
    elif kind == "behaviour":
        BehaviourModel.from_arrays(arrays, digest)
    else:
        AnomalyModel.from_arrays(arrays, digest, interval)


# --- the card -----------------------------------------------------------------------------------------------------------------


def _features_digest(card: Card) -> str:
    """Equal for models with the same inputs and outputs."""
    text = json.dumps([card.schema, card.features, card.horizons, card.quantiles, card.window])
    return hashlib.sha256(text.encode()).hexdigest()


def _card(text: bytes, path: Path, kind: str) -> Card:
    """The card in `text`, if its model is for this version and all its values are within a card's limits.

    The only place where a card is checked: every figure of a returned card is valid. Raises ArtifactError.
    """
    try:
        raw = json.loads(text)
        data = raw["data"]
        card = Card(
            kind=_text(raw["kind"]),
            interval=_number(raw["interval"], *INTERVALS),
            data=DataRange(
                first_wall=_whole(data["first_wall"]),
                last_wall=_whole(data["last_wall"]),
                ticks=_whole(data["ticks"]),
                processes=_whole(data["processes"]),
                groups=_whole(data["groups"]),
                digest=_text(data["digest"]),
            ),
            metrics=_rows(raw["metrics"]),
            version=_text(raw["version"]),
            created=_whole(raw["created"]),
            cpus=_whole(raw["cpus"]),
            features=tuple(map(_text, _list(raw["features"]))),
            schema=_whole(raw["schema"]),
            horizons=tuple(map(_whole, _list(raw["horizons"]))),
            quantiles=tuple(_number(each, 0.0, 1.0) for each in _list(raw["quantiles"])),
            window=_whole(raw["window"]),
            features_digest=_text(raw["features_digest"]),
            arrays_digest=_text(raw["arrays_digest"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path} is not the card of a model: {type(error).__name__} {error}; run: nicety train") from None
    if card.schema != SCHEMA:
        raise ArtifactError(f"{path} has schema {card.schema}, but this version reads {SCHEMA}; run: nicety train")
    if card.kind != kind:
        raise ArtifactError(f"{path} is of a {card.kind!r} model, not of a {kind} model; move it to where it belongs")
    expected = (FEATURES[kind], HORIZONS, QUANTILES, WINDOW)
    if (card.features, card.horizons, card.quantiles, card.window) != expected or card.features_digest != _features_digest(card):
        raise ArtifactError(
            f"{path}: the model was trained by nicety {card.version} on other features, horizons or quantiles; run: nicety train"
        )
    return card


def _rows(value: object) -> tuple[dict[str, Cell], ...]:
    """The table of a card: rows of named cells."""
    rows = []
    for row in _list(value):
        if not isinstance(row, dict):
            raise TypeError(f"{_shown(row)} where a row of the table belongs")
        rows.append({_text(name): _cell(each) for name, each in row.items()})
    return tuple(rows)


def _cell(value: object) -> Cell:
    """A text, a number, None, or a list of numbers, as in the tables of trainings."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return [_figure(each) for each in value]
    return _figure(value)


def _figure(value: object) -> float:
    """A number of any sign, whole if written so."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _whole(value, -MOST)
    return _number(value, -MOST_FLOAT, MOST_FLOAT)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{_shown(value)} where a text belongs")
    if len(value) > MAX_TEXT or not value.isprintable():
        raise ValueError(f"{_shown(value)} where a text of at most {MAX_TEXT} printable characters belongs")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"{_shown(value)} where a list belongs")
    return value


def _whole(value: object, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{_shown(value)} where a whole number belongs")
    if not least <= value <= MOST:
        raise ValueError(f"{_shown(value)} is not within {least} and {MOST}")
    return value


def _number(value: object, least: float, most: float) -> float:
    """A number within the limits. They are checked before conversion: a whole number may be larger than any float."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{_shown(value)} where a number belongs")
    if not least <= value <= most:
        raise ValueError(f"{_shown(value)} is not a number within {least:g} and {most:g}")
    return float(value)


def _shown(value: object) -> str:
    """A value of a card, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- the arrays ---------------------------------------------------------------------------------------------------------------


def _pack(arrays: Arrays) -> bytes:
    """The bytes of an npz. The same arrays give the same bytes: sorted, without times."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(arrays[name]), version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue())
    return buffer.getvalue()


def _unpack(packed: bytes) -> dict[str, NDArray[Any]]:
    """The arrays in the bytes of an npz. Raises ValueError. What declares itself too large is not unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            members = archive.infolist()
            if not 1 <= len(members) <= MAX_ARRAYS:
                raise ValueError(f"{len(members)} arrays; from 1 to {MAX_ARRAYS} are allowed")
            if sum(member.file_size for member in members) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES >> 20} MiB unpacked")
            arrays: dict[str, NDArray[Any]] = {}
            for member in members:
                name = member.filename
                if not _NAME.fullmatch(name) or name[:-4] in arrays or member.flag_bits & 1:
                    raise ValueError(f"{name!r} does not belong there")
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"{name} is compressed in a way that models are not")
                with archive.open(member) as file:
                    arrays[name[:-4]] = _array(name, file.read(member.file_size + 1), member.file_size)
            return arrays
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, OverflowError) as error:
        raise ValueError(f"not a whole npz file ({error})") from None


def _array(name: str, data: bytes, size: int) -> NDArray[Any]:
    """One array from its npy bytes. Raises ValueError."""
    if len(data) != size:
        raise ValueError(f"{name} is not as long as the archive says")
    header = _HEADER.match(data)
    if header is None or data[:8] != _MAGIC or int.from_bytes(data[8:10], "little") != header.end() - 10:
        raise ValueError(f"{name} is not an array of one or two dimensions as models have them, or of another type")
    if header[1].decode() not in DTYPES:
        raise ValueError(f"{name} is of type {header[1].decode()}; models have {', '.join(DTYPES)}")
    dtype = np.dtype(header[1].decode())
    shape = tuple(int(length) for length in header[2].rstrip(b",").split(b","))
    left = len(data) - header.end()
    if math.prod(shape) * dtype.itemsize != left:
        raise ValueError(f"{name} says {shape} of {dtype} and has {left} bytes")
    if dtype.kind == "b" and left and max(data[header.end() :]) > 1:
        raise ValueError(f"{name} has booleans that are neither true nor false")
    return np.frombuffer(data, dtype, offset=header.end()).reshape(shape)


# --- files --------------------------------------------------------------------------------------------------------------------


def _check(found: os.stat_result, path: Path, right: Callable[[int], bool]) -> None:
    """Raise ArtifactError for a file or folder that somebody else could have put there or could change.

    Files of the package are judged as its code is: anyone who owns or may change that code can do all that a model could, and more.
    So its owner and group are trusted (a checkout with umask 002, a daemon of root from a user's virtual environment). Others are
    not."""
    if stat.S_ISLNK(found.st_mode) or not right(found.st_mode):
        raise ArtifactError(f"{path} is a link, or not of the expected type; move it away and run: nicety train")
    trusted, others = {0, os.geteuid()}, 0o022
    if path.is_relative_to(SHIPPED):
        trusted, others = trusted | {Path(__file__).stat().st_uid}, 0o002
    if found.st_uid not in trusted:
        raise ArtifactError(
            f"{path} belongs to user {found.st_uid}, and models are only taken from root or user {os.geteuid()}; "
            f"if it can be trusted: chown {os.geteuid()} {path}"
        )
    if found.st_mode & others:
        raise ArtifactError(f"others may write to {path} (mode {stat.S_IMODE(found.st_mode):o}); run: chmod go-w {path}")


def _check_above(directory: Path) -> None:
    """As root, raise ArtifactError if another user could put another folder in the place of one further up. In a folder with the
    sticky bit, such as /tmp, nobody can. The package itself is judged as its code is, see `_check`."""
    if os.geteuid() != 0 or directory.is_relative_to(SHIPPED):
        return
    for folder in Path(os.path.realpath(directory)).parents:
        found = folder.stat()
        if found.st_uid != 0 or (found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX):
            raise ArtifactError(
                f"others may exchange what is in {folder}, so root takes no model from {directory}; move it elsewhere"
            )


def _read(path: Path, most: int) -> bytes:
    """The bytes of a file that passes `_check` and has at most `most` bytes. Raises OSError, ArtifactError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        _check(found, path, stat.S_ISREG)
        if found.st_size > most:
            raise ArtifactError(f"{path} has more than {most} bytes, which no model has; remove it and run: nicety train")
        return file.read(found.st_size)  # a file that grows meanwhile fails its checksum


def _write(path: Path, data: bytes) -> None:
    """Write a file atomically and durably. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make a rename or removal in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _set_live(directory: Path, kind: str, digest: str | None, past: Sequence[str | None], history_first: bool) -> None:
    """Write both files, `history` first or last. Raises ArtifactError."""
    live, folder = directory / kind / "live", directory / kind
    lines = "".join(f"{each or 'none'}\n" for each in past).encode()
    try:
        for each in (directory, folder):
            _check(os.lstat(each), each, stat.S_ISDIR)
        if history_first:
            _write(folder / "history", lines)
        if digest is not None:
            _write(live, f"{digest}\n".encode())
        else:
            live.unlink(missing_ok=True)
            _sync(folder)
        if not history_first:
            _write(folder / "history", lines)
    except OSError as error:
        raise _trouble(f"cannot change which {kind} model is live below {directory}", error) from None


def _trouble(what: str, error: OSError) -> ArtifactError:
    steps = {
        errno.ENOSPC: "free space on that disk",
        errno.EDQUOT: "free space: the quota is used up",
        errno.EROFS: "the file system is read-only: choose another directory with --models",
        errno.EACCES: "run as the owner of that directory, or choose another with --models",
        errno.EPERM: "run as the owner of that directory, or choose another with --models",
        errno.ENOENT: "the model is not there or not whole: run nicety train",
        errno.ELOOP: "it is a link, which is not followed: move it away and run nicety train",
        errno.ENOTDIR: "a part of the path is not a directory: check the path",
    }
    cause = os.strerror(error.errno) if error.errno else str(error)
    return ArtifactError(f"{what}: {cause}; {steps.get(error.errno or 0, 'check the disk and the path')}")
