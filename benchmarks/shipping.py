"""Writes a model into the package as the one that nicety comes with."""

from __future__ import annotations

import shutil
from pathlib import Path

from nicety.models.artifact import SHIPPED, Arrays, Card, promote, save


def ship(card: Card, arrays: Arrays, folder: Path = SHIPPED) -> str:
    """Put the model in the place of the one before, readable for everybody; its digest. `folder`: of all kinds."""
    place = folder / card.kind
    if place.exists():
        shutil.rmtree(place)
    digest = save(folder, card.kind, card, arrays)
    promote(folder, card.kind, digest)
    (place / "history").unlink()  # nothing to go back to
    for path in (folder, place, *place.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return digest
