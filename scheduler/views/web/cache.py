"""Where the page keeps what can be made again."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path

from ...hands.safe_files import StoreError, private_directory


def cache_file(root: Path, environment: Mapping[str, str]) -> Path | None:
    """The file for the daemon of the state directory `root`, in a directory that nobody else can change; None if there is none."""
    own = environment.get("CACHE_DIRECTORY", "").split(":")[0]  # of a unit, systemd.exec(5)
    places = [Path(own)] if own else []
    if environment.get("XDG_CACHE_HOME"):
        places.append(Path(environment["XDG_CACHE_HOME"]) / "nicety")
    elif environment.get("HOME"):
        places.append(Path(environment["HOME"]) / ".cache" / "nicety")
    for place in places:
        try:
            return private_directory(place) / f"web-{zlib.crc32(os.fsencode(root)):08x}.db"
        except StoreError:
            continue
    return None
