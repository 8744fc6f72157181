"""The past, as the desk asks for it. What reads it is loaded when the past is opened, because it brings numpy."""

from __future__ import annotations

import socket
from pathlib import Path

from ...interpreter import load_numpy
from .desk import Past


def open_recorded(stores: Path) -> Past:
    """What was recorded in a state directory. Raises StoreError if there is nothing, or it may not be read."""
    load_numpy()
    from ...explain.past import Recorded

    return Recorded(stores, socket.gethostname())
