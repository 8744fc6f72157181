"""Opens the past. What reads it is loaded only then, because it brings numpy."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from ...interpreter import load_numpy

if TYPE_CHECKING:
    from ...explain.past import Past


def open_past(stores: Path) -> Past:
    """What was recorded in a state directory. Raises StoreError if there is nothing, or it may not be read."""
    load_numpy()
    from ...explain.past import Past

    return Past(stores, socket.gethostname())
