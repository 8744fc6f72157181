"""The file of what replays chose: whole or not at all, and clear where it cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from nicety.scheduler.decision import Chosen, Rules
from nicety.scheduler.hands.safe_files import StoreError
from nicety.scheduler.store.chosen import ChosenStore, Kept

KEPT = Kept(Chosen("web", Rules.CONSTANT, 8, 8.0, 18.0, 2.0, 7.0, 9.5), "0123456789abcdef", 7)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = ChosenStore(tmp_path)
    assert store.read() == ()
    store.write([KEPT])
    assert ChosenStore(tmp_path).read() == (KEPT,)
    store.write([])
    assert store.read() == ()


@pytest.mark.parametrize("damage", [b"", b"[", b"{}", b'[{"chosen": 1}]', b"\xff", b'[{"settings": "x", "wall": 1}]'])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, damage: bytes) -> None:
    store = ChosenStore(tmp_path)
    store.write([KEPT])
    store.path.write_bytes(damage)
    with pytest.raises(StoreError, match=r"chosen\.json is damaged: .*remove it, and the loads are replayed again"):
        store.read()
