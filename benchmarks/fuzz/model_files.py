"""Targets: model files. Checksums are right, so that what is behind them is reached; only the raw archive has wrong ones too."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nicety.models.anomaly.detectors import KINDS
from nicety.models.anomaly.model import AnomalyModel
from nicety.models.artifact import (
    FEATURES,
    SHIPPED,
    Artifact,
    ArtifactError,
    Card,
    DataRange,
    history,
    live_digest,
    load,
    save,
)
from nicety.models.behaviour import BEHAVIOUR_FEATURES, BehaviourModel
from nicety.models.forecast.demand import DEMAND_FEATURES
from nicety.models.forecast.network import Network

from .target import DAMAGE, WHOLE, BrokenError, Case, Edits, Target, overwrite, workplace, write

KINDS_OF_MODELS = ("anomaly", "behaviour", "demand")
"""The first byte of a case says of which kind the model is."""


def _arrays(kind: str) -> dict[str, NDArray[Any]]:
    """The arrays of a valid model."""
    if kind == "anomaly":
        seen, tail = np.array([0.5, 1.5]), np.array([2.0, 0.1, 0.2, 1.0])
        return {f"{each}_{part}": value for each in KINDS for part, value in (("seen", seen), ("tail", tail))}
    digest = (SHIPPED / kind / "live").read_text().strip()
    return dict(load(SHIPPED, kind, digest).arrays)


def _files(kind: str) -> tuple[dict[str, Any], bytes]:
    """The card of a valid model, and its archive."""
    card = Card(kind, 1.0, DataRange(1, 2, 3, 4, 5, "d"), ({"metric": "cpu", "gain": 0.5},), "1", 1, 2, FEATURES[kind])
    with workplace() as place:
        digest = save(place, kind, card, _arrays(kind))
        folder = place / kind / digest
        return json.loads((folder / "card.json").read_bytes()), (folder / "model.npz").read_bytes()


class _Shop:
    """Puts models whose checksums hold into a directory, one at a time."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def load(self, kind: str, card: bytes, packed: bytes) -> Artifact | None:
        """The model of these files; None if it is refused as documented."""
        digest = hashlib.sha256(card).hexdigest()
        folder = self._place / kind / digest
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(folder / "card.json", card)
        write(folder / "model.npz", packed)
        try:
            return load(self._place, kind, digest)
        except ArtifactError:
            return None
        finally:
            shutil.rmtree(folder)


def _sealed(card: Mapping[str, Any], packed: bytes) -> bytes:
    """The text of the card for this archive."""
    return json.dumps({**card, "arrays_digest": hashlib.sha256(packed).hexdigest()}).encode()


# --- cards --------------------------------------------------------------------------------------------------------------------


def _card_seeds() -> Sequence[bytes]:
    cards = [bytes([place]) + json.dumps(_files(kind)[0]).encode() for place, kind in enumerate(KINDS_OF_MODELS)]
    return [*cards, b"\0{}", b"\1[]", b"\2" + b"[" * 2000, b"\0" + b'{"interval": ' + b"9" * 500 + b"}"]


def _prepare_card(place: Path) -> Case:
    shop = _Shop(place)
    packed = {kind: _files(kind)[1] for kind in KINDS_OF_MODELS}

    def run(case: bytes) -> None:
        kind = KINDS_OF_MODELS[case[0] % len(KINDS_OF_MODELS)] if case else "anomaly"
        model = shop.load(kind, case[1:], packed[kind])
        if model is not None:
            json.dumps(asdict(model.card), allow_nan=False)  # NaN and infinity have no place in a card

    return run


# --- arrays -------------------------------------------------------------------------------------------------------------------


def _array_seeds() -> Sequence[bytes]:
    return [bytes([kind]) + damage for kind in range(len(KINDS_OF_MODELS)) for damage in DAMAGE[:7]] + [
        bytes([kind]) + overwrite(90, np.float64(value).tobytes())
        for kind in range(len(KINDS_OF_MODELS))
        for value in (np.nan, np.inf, -1.0, 1e308, 5e-324)
    ]


def _prepare_arrays(place: Path) -> Case:
    shop = _Shop(place)
    models = {}
    for kind in KINDS_OF_MODELS:
        card, packed = _files(kind)
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            members = [(member.filename, archive.read(member)) for member in archive.infolist()]
        models[kind] = card, members, Edits(b"".join(data for _, data in members))

    def run(case: bytes) -> None:
        kind = KINDS_OF_MODELS[case[0] % len(KINDS_OF_MODELS)] if case else "anomaly"
        card, members, edits = models[kind]
        data = edits(case[1:])
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, member in members:
                archive.writestr(name, data[: len(member)])
                data = data[len(member) :]
        packed = buffer.getvalue()
        model = shop.load(kind, _sealed(card, packed), packed)
        if model is not None:
            _use(kind, model)

    return run


def _use(kind: str, model: Artifact) -> None:
    """An accepted model must answer with numbers."""
    with np.errstate(all="ignore"):
        if kind == "demand":
            network = Network(model.arrays, model.digest)
            made = np.linspace(-3, 3, 2 * len(DEMAND_FEATURES), dtype=np.float32).reshape(2, -1)
            said = network.answers(made, np.zeros((2, 4), dtype=np.float32), np.zeros(2, dtype=np.int64))
        elif kind == "behaviour":
            behaviour = BehaviourModel.from_arrays(model.arrays, model.digest)
            rows = np.linspace(0, 9, 2 * len(BEHAVIOUR_FEATURES)).reshape(2, -1)
            said = behaviour.probabilities(rows)
            if not np.allclose(said.sum(axis=1), 1.0):
                raise BrokenError(f"probabilities {said.tolist()}")
        else:
            _, tails = AnomalyModel.from_arrays(model.arrays, model.digest, model.card.interval).tails(model.card.interval)
            said = np.concatenate([tail.p(np.array([0.0, 1.0, 50.0, 1e9])) for tail in tails.values()])
            if not ((said > 0) & (said <= 1)).all():
                raise BrokenError(f"p-values {said.tolist()}")
    if not np.isfinite(said).all():
        raise BrokenError(f"answers {said.tolist()}")


# --- archives -----------------------------------------------------------------------------------------------------------------


def _archive_seeds() -> Sequence[bytes]:
    packed = _files("anomaly")[1]
    return [*DAMAGE[:9], bytes([WHOLE]) + packed[-200:], bytes([WHOLE]) + b"PK\5\6" + b"\0" * 18]


def _prepare_archive(place: Path) -> Case:
    shop = _Shop(place)
    card, packed = _files("anomaly")
    edits = Edits(packed)

    def run(case: bytes) -> None:
        data = edits(case)
        model = shop.load("anomaly", _sealed(card, data), data)
        if model is not None:
            _use("anomaly", model)

    return run


# --- which model is live ------------------------------------------------------------------------------------------------------


def _pointer_seeds() -> Sequence[bytes]:
    digest = b"ab" * 32
    return [b"", digest, digest + b"\n", b"none\n" + digest + b"\nnone\n", digest.upper(), b"\n\n", b"\xff" * 64, digest * 65]


def _prepare_pointers(place: Path) -> Case:
    folder = place / "demand"
    folder.mkdir(mode=0o700)

    def run(case: bytes) -> None:
        write(folder / "live", case)
        write(folder / "history", case)
        for read in (live_digest, history, load):
            try:
                read(place, "demand")
            except ArtifactError:
                pass

    return run


_JSON = (b"{", b"}", b"[", b"]", b'":', b"null", b"true", b"NaN", b"Infinity", b"1e999", b"-1", b'"interval":', b'"metrics":')

CARD = Target("model card", _card_seeds, _prepare_card, _JSON)
ARRAYS = Target("model arrays", _array_seeds, _prepare_arrays, (b"'descr': '<f8'", b"(1, 1)", b"\x93NUMPY\1\0", b"|b1", b"<i8"))
ARCHIVE = Target("model archive", _archive_seeds, _prepare_archive, (b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b".npy"))
POINTERS = Target("model live", _pointer_seeds, _prepare_pointers, (b"none\n", b"ab" * 32), share=0.5)
