"""What forecasts have learned is kept across restarts, and no file can stop the daemon or poison a forecast."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from nicety.models.forecast.demand import Forecaster
from nicety.models.forecast.kept import Kept
from nicety.scheduler.store.forecasts import EVERY_NS, MAGIC, ForecastStore

SECOND = 10**9


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path / "state"


def kept(ticks: int = 50) -> Kept:
    forecaster = Forecaster(None, 1.0)
    keys = [("web", "cpu"), ("[red]\x1b[31m" + "x" * 4000, "rss")]
    for tick in range(ticks):
        forecaster.step(keys, np.array([1.0 + tick % 3, 5e9]), float(tick), np.array([0, 1]), np.zeros(2, np.bool_))
    return forecaster.kept()


def test_what_is_written_is_read_back(state: Path) -> None:
    was = kept()
    store = ForecastStore(state)
    store.write(was, 1.0, 0)
    found = ForecastStore(state).read(1.0)
    assert found is not None
    assert (found.keys, found.at.tolist(), found.to_bytes()) == (was.keys, was.at.tolist(), was.to_bytes())
    assert store.path.stat().st_mode & 0o077 == 0
    assert (store.trouble, [path.name for path in state.iterdir()]) == ("", ["forecasts.bin"])


def test_nothing_is_read_where_there_is_nothing_or_another_interval(state: Path) -> None:
    store = ForecastStore(state)
    assert (store.read(1.0), store.trouble) == (None, "")
    store.write(kept(), 1.0, 0)
    assert (store.read(2.0), store.trouble) == (None, "")


def test_it_is_written_every_quarter_of_an_hour(state: Path) -> None:
    store = ForecastStore(state)
    assert [store.due(at) for at in (0, EVERY_NS - 1, EVERY_NS)] == [False, False, True]
    store.write(kept(), 1.0, EVERY_NS)
    assert [store.due(EVERY_NS + at) for at in (1, EVERY_NS)] == [False, True]


def damaged(data: bytes) -> dict[str, bytes]:
    body = data[len(MAGIC) + 32 :]

    def signed(changed: bytes) -> bytes:
        return MAGIC + hashlib.sha256(changed).digest() + changed

    return {
        "its checksum does not fit": data[:-1] + bytes([data[-1] ^ 1]),
        "another version": data.replace(b"forecasts 1", b"forecasts 9", 1),
        "is damaged": signed(body[:-5]),
        "does not fit 2 series": signed(_shorter(body)),
        "something else": b"",
    }


def _shorter(body: bytes) -> bytes:
    """The record with a part that is too short."""
    record = msgspec.msgpack.decode(body)
    record["parts"]["experts.past"] = record["parts"]["experts.past"][:-4]
    return msgspec.msgpack.encode(record)


@pytest.mark.parametrize(
    "says", ["its checksum does not fit", "another version", "is damaged", "does not fit 2 series", "something else"]
)
def test_a_damaged_file_is_not_used_and_the_next_write_replaces_it(state: Path, says: str) -> None:
    store = ForecastStore(state)
    store.write(kept(), 1.0, 0)
    store.path.write_bytes(damaged(store.path.read_bytes())[says])
    assert store.read(1.0) is None
    assert says in store.trouble
    assert store.trouble.endswith("forecasts learn the habits of groups again")
    store.write(kept(), 1.0, 0)
    assert (store.trouble, store.read(1.0) is None) == ("", False)


def test_a_file_that_is_too_large_is_not_read_whole(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ForecastStore(state)
    store.write(kept(), 1.0, 0)
    monkeypatch.setattr("nicety.scheduler.store.forecasts.MOST_BYTES", 1000)
    assert store.read(1.0) is None
    assert "more than 0 MiB" in store.trouble


def test_a_full_disk_is_told_and_the_old_file_stays(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ForecastStore(state)
    store.write(kept(), 1.0, 0)
    before = store.path.read_bytes()
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        store.write(kept(80), 1.0, 0)
    assert "No space left" in store.trouble
    assert store.path.read_bytes() == before


def test_a_planted_link_is_replaced_and_never_written_through(state: Path, tmp_path: Path) -> None:
    target = tmp_path / "victim"
    target.write_text("mine")
    (state / "forecasts.bin").symlink_to(target)
    store = ForecastStore(state)
    if os.geteuid() == 0:
        assert store.read(1.0) is None
        assert "symbolic link" in store.trouble
    store.write(kept(), 1.0, 0)
    assert target.read_text() == "mine"
    assert not store.path.is_symlink()
