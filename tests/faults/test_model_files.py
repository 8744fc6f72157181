"""Model files that are damaged, crafted or somebody else's: an error that says why, no model, no crash, no large allocation."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nicety.models.artifact import MAX_ARRAYS, MAX_BYTES, ArtifactError, Card, DataRange, load, load_live, promote, rollback, save
from nicety.models.forecast.demand import DEMAND_FEATURES
from nicety.models.forecast.network import Network
from nicety.models.records import QUANTILES

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


def arrays() -> dict[str, NDArray[Any]]:
    made: dict[str, NDArray[Any]] = {name: np.zeros(shape, dtype=np.float32) for name, shape in Network.SHAPES.items()}
    return {**made, "bias3": np.ones(len(QUANTILES), dtype=np.float32), "speaks": np.ones(3, dtype=np.bool_)}


def make(models: Path) -> Path:
    """A live model; its folder."""
    card = Card("demand", 1.0, DataRange(1, 2, 3, 4, 5, ""), (), "1", 1, 2, DEMAND_FEATURES)
    digest = save(models, "demand", card, arrays())
    promote(models, "demand", digest)
    return models / "demand" / digest


@pytest.fixture
def models(tmp_path: Path) -> Path:
    make(tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def place(models: Path) -> Path:
    (found,) = (path for path in (models / "demand").iterdir() if path.is_dir())
    return found


def craft(models: Path, packed: bytes, **changes: Any) -> str:
    """A model whose checksums hold, with these bytes as its arrays: what an attacker who may write here would leave."""
    (old,) = (path for path in (models / "demand").iterdir() if path.is_dir())
    raw = json.loads((old / "card.json").read_text())
    raw.update(changes)
    raw["arrays_digest"] = hashlib.sha256(packed).hexdigest()
    text = json.dumps(raw).encode()
    digest = hashlib.sha256(text).hexdigest()
    folder = models / "demand" / digest
    folder.mkdir(mode=0o700)
    for name, data in (("card.json", text), ("model.npz", packed)):
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)
    return digest


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0))
    return buffer.getvalue()


def good() -> dict[str, bytes]:
    return {f"{name}.npy": npy(array) for name, array in arrays().items()}


# --- damage -------------------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_flipped_bit_or_cut_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    models = tmp_path_factory.getbasetemp() / "flipped"
    if not models.exists():
        make(models)
    (folder,) = (path for path in (models / "demand").iterdir() if path.is_dir())
    path = folder / data.draw(st.sampled_from(["card.json", "model.npz"]))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        path.write_bytes(whole[:at] if data.draw(st.booleans()) else damaged)
        with pytest.raises(ArtifactError, match=r"damaged.*nicety train"):
            load_live(models, "demand")
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("text", [b"", b"\n", b"../../../etc/passwd", b"\xff" * 64, b"ab" * 4096])
def test_a_damaged_live_file_is_told_apart_from_none(models: Path, text: bytes) -> None:
    (models / "demand" / "live").write_bytes(text)
    with pytest.raises(ArtifactError, match="live"):
        load_live(models, "demand")


@pytest.mark.parametrize("name", ["card.json", "model.npz"])
def test_a_model_without_its_card_or_arrays_is_not_loaded(models: Path, place: Path, name: str) -> None:
    (place / name).unlink()
    with pytest.raises(ArtifactError, match="not whole"):
        load_live(models, "demand")


def test_a_live_file_that_names_a_model_that_is_gone_says_so(models: Path, place: Path) -> None:
    shutil.rmtree(place)
    with pytest.raises(ArtifactError, match="not there"):
        load_live(models, "demand")


# --- crafted files ------------------------------------------------------------------------------------------------------------


def with_header(header: bytes, data: bytes = b"") -> dict[str, bytes]:
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data
    return {**good(), "bias3.npy": member}


def pickled() -> dict[str, bytes]:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([{"os": "system"}], dtype=object), version=(1, 0), allow_pickle=True)
    return {**good(), "bias3.npy": buffer.getvalue()}


CRAFTED: dict[str, tuple[Callable[[], bytes], str]] = {
    "no zip": (lambda: b"not a zip", "not a whole npz"),
    "nothing in it": (lambda: npz({}), "0 arrays"),
    "too many": (lambda: npz({f"a{i}.npy": b"" for i in range(MAX_ARRAYS + 1)}), f"{MAX_ARRAYS + 1} arrays"),
    "a path": (lambda: npz({**good(), "../../x.npy": b""}), "does not belong"),
    "another file": (lambda: npz({**good(), "x.pkl": b""}), "does not belong"),
    "objects": (lambda: npz(pickled()), "bias3.npy is not"),
    "structured": (lambda: npz({**good(), "bias3.npy": npy(np.zeros(3, [("a", "<f8")]))}), "bias3.npy is not"),
    "complex": (lambda: npz({**good(), "bias3.npy": npy(np.zeros(3, complex))}), "bias3.npy is not"),
    "half precision": (lambda: npz({**good(), "bias3.npy": npy(np.zeros(4, np.float16))}), "type <f2"),
    "big endian": (lambda: npz({**good(), "bias3.npy": npy(np.zeros(3, ">f8"))}), "bias3.npy is not"),
    "Fortran order": (lambda: npz({**good(), "out.npy": npy(np.asfortranarray(np.zeros((32, 4), np.float32)))}), "out.npy is not"),
    "three dimensions": (lambda: npz({**good(), "out.npy": npy(np.zeros((1, 32, 4), np.float32))}), "out.npy is not"),
    "longer than it says": (lambda: npz({**good(), "bias3.npy": npy(np.ones(4, np.float32)) + b"x"}), "has 17 bytes"),
    "shorter than it says": (lambda: npz({**good(), "bias3.npy": npy(np.ones(4, np.float32))[:-1]}), "has 15 bytes"),
    "negative size": (
        lambda: npz(with_header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-4, -1), }\n", b"x" * 32)),
        "bias3.npy is not",
    ),
    "gigantic size": (
        lambda: npz(with_header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999,), }\n")),
        "has 0 bytes",
    ),
    "gigantic product": (
        lambda: npz(with_header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }\n")),
        "bias3.npy is not",
    ),
    "long header": (lambda: npz(with_header(b" " * 4000 + b"{}\n")), "bias3.npy is not"),
    "no header": (lambda: npz(with_header(b"__import__('os').abort()\n")), "bias3.npy is not"),
    "another npy version": (lambda: npz({**good(), "bias3.npy": b"\x93NUMPY\x02\x00" + b" " * 100}), "bias3.npy is not"),
    "no npy": (lambda: npz({**good(), "bias3.npy": b"\x00" * 100}), "bias3.npy is not"),
    "boolean 2": (lambda: npz({**good(), "speaks.npy": npy(np.zeros(3, np.bool_))[:-1] + b"\x02"}), "neither true"),
    "other compression": (lambda: npz(good(), zipfile.ZIP_BZIP2), "compressed in a way"),
    "absurd": (lambda: npz({**good(), "bias3.npy": npy(np.full(4, 1e9, np.float32))}), "absurdly large"),
    "not a number": (lambda: npz({**good(), "bias3.npy": npy(np.full(4, np.nan, np.float32))}), "not finite"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_arrays_are_refused_for_what_they_are(models: Path, name: str) -> None:
    build, says = CRAFTED[name]
    digest = craft(models, build())
    with pytest.raises(ArtifactError) as caught:
        load(models, "demand", digest)
    assert says in str(caught.value)
    assert "nicety train" in str(caught.value)


def test_the_crafted_files_differ_from_a_good_one_only_in_their_fault(models: Path) -> None:
    assert load(models, "demand", craft(models, npz(good()))).arrays["bias3"].tolist() == [1.0] * 4


def test_a_zip_bomb_is_not_unpacked(models: Path) -> None:
    bomb = npz({**good(), "bias3.npy": bytes(MAX_BYTES + 1)})
    assert len(bomb) < 1 << 20
    digest = craft(models, bomb)
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError, match="unpacked"):
            load(models, "demand", digest)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_a_member_that_is_larger_than_the_archive_says_is_not_unpacked(models: Path) -> None:
    packed = bytearray(npz({"bias3.npy": bytes(MAX_BYTES // 2)}))
    entry = packed.rindex(b"PK\x01\x02")
    packed[entry + 24 : entry + 28] = (64).to_bytes(4, "little")  # uncompressed size in the directory
    digest = craft(models, bytes(packed))
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError):
            load(models, "demand", digest)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_a_file_larger_than_any_model_is_not_read(models: Path, place: Path) -> None:
    os.truncate(place / "model.npz", MAX_BYTES + 1)  # sparse: takes no room on disk
    with pytest.raises(ArtifactError, match="more than"):
        load_live(models, "demand")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_arrays_with_any_bytes_changed_load_or_are_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """As above, but with checksums that hold: what remains is a whole model or an ArtifactError."""
    models = tmp_path_factory.mktemp("mutated") / "models"
    make(models)
    packed = bytearray(npz(good(), data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    digest = craft(models, bytes(packed))
    try:
        artefact = load(models, "demand", digest)
    except ArtifactError:
        return
    assert np.isfinite(artefact.arrays["bias3"]).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"interval": "1"},
        {"interval": True},
        {"interval": None},
        {"data": []},
        {"data": {}},
        {"metrics": 3},
        {"features": None},
        {"horizons": [1, "3"]},
        {"created": 1.5},
    ],
)
def test_a_card_with_wrong_types_is_refused(models: Path, changes: dict[str, Any]) -> None:
    digest = craft(models, npz(good()), **changes)
    with pytest.raises(ArtifactError, match="is not the card of a model"):
        load(models, "demand", digest)


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_card_that_is_no_card_is_refused(models: Path, text: bytes) -> None:
    digest = hashlib.sha256(text).hexdigest()
    folder = models / "demand" / digest
    folder.mkdir(mode=0o700)
    (folder / "card.json").write_bytes(text)
    (folder / "card.json").chmod(0o600)
    with pytest.raises(ArtifactError, match="is not the card of a model"):
        load(models, "demand", digest)


# --- whose files --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["", "demand", "live", "folder", "card.json", "model.npz"])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_what_others_may_write_is_refused_with_the_fix(models: Path, place: Path, which: str, mode: int) -> None:
    path = {
        "": models,
        "demand": models / "demand",
        "live": models / "demand" / "live",
        "folder": place,
        "card.json": place / "card.json",
        "model.npz": place / "model.npz",
    }[which]
    path.chmod(path.stat().st_mode | mode)
    with pytest.raises(ArtifactError, match=f"others may write.*chmod go-w {path}"):
        load_live(models, "demand")


@ROOT
@pytest.mark.parametrize("which", ["../..", "..", "../live", "", "card.json", "model.npz"])
def test_root_takes_no_model_of_another_user(models: Path, place: Path, which: str) -> None:
    os.chown(place / which, 65534, 65534)
    with pytest.raises(ArtifactError, match=r"belongs to user 65534.*chown"):
        load_live(models, "demand")


@ROOT
@pytest.mark.parametrize("how", ["theirs", "open to all", "sticky"])
def test_root_takes_no_model_from_below_a_folder_that_others_can_exchange(tmp_path: Path, how: str) -> None:
    above = tmp_path / "above"
    models = above / "between" / "models"
    make(models)
    if how == "theirs":
        os.chown(above, 65534, 65534)
    else:
        above.chmod(0o777 if how == "open to all" else 0o1777)
    if how == "sticky":
        assert load_live(models, "demand") is not None, "nobody can rename what is not his in such a folder"
        return
    with pytest.raises(ArtifactError, match=f"others may exchange what is in {above}"):
        load_live(models, "demand")


@pytest.mark.parametrize("name", ["card.json", "model.npz"])
def test_links_are_not_followed(models: Path, place: Path, name: str, tmp_path: Path) -> None:
    (place / name).rename(tmp_path / name)
    (place / name).symlink_to(tmp_path / name)
    with pytest.raises(ArtifactError, match="link"):
        load_live(models, "demand")


def test_a_linked_folder_is_not_followed(models: Path, place: Path, tmp_path: Path) -> None:
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="link"):
        load_live(models, "demand")


@pytest.mark.parametrize("linked", ["models", "demand"])
def test_no_choice_of_a_model_is_written_through_a_linked_folder(models: Path, place: Path, tmp_path: Path, linked: str) -> None:
    folder = models if linked == "models" else models / "demand"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    before = {path: path.read_bytes() for path in sorted((tmp_path / "elsewhere").rglob("*")) if path.is_file()}
    for digest in (None, place.name):
        with pytest.raises(ArtifactError, match="link"):
            promote(models, "demand", digest)
    with pytest.raises(ArtifactError, match="link"):
        rollback(models, "demand")
    assert {path: path.read_bytes() for path in sorted((tmp_path / "elsewhere").rglob("*")) if path.is_file()} == before


def test_a_pipe_in_place_of_a_file_does_not_block(models: Path, place: Path) -> None:
    (place / "card.json").unlink()
    os.mkfifo(place / "card.json", 0o600)
    with pytest.raises(ArtifactError, match="not of the expected type"):
        load_live(models, "demand")


def test_a_failed_save_leaves_the_live_model_and_no_rubbish(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_live(models, "demand")
    assert before is not None
    real = os.fsync

    def full(descriptor: int) -> None:
        real(descriptor)
        raise OSError(28, "No space left on device")

    card = Card("demand", 2.0, DataRange(1, 2, 3, 4, 5, ""), (), "1", 9, 2, DEMAND_FEATURES)
    other = save(models, "demand", replace(card, created=7), arrays())
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match=r"No space left.*free space"):
        save(models, "demand", card, arrays())
    with pytest.raises(ArtifactError, match="No space left"):
        promote(models, "demand", other)
    monkeypatch.undo()
    now = load_live(models, "demand")
    assert now is not None
    assert now.digest == before.digest
    assert not list(models.rglob("*.part"))
