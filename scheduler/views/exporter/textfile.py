"""Writes the metrics as a file for node_exporter's textfile collector: a new file, renamed over the old one."""

from __future__ import annotations

import os
from pathlib import Path

MODE = 0o644
"""node_exporter runs as a user of its own."""


def write(path: Path, body: bytes) -> None:
    """Replace `path`. Raises OSError."""
    new = path.with_name(f".{path.name}.{os.getpid()}")  # node_exporter reads *.prom only
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            os.fchmod(file.fileno(), MODE)  # whatever the umask is
        new.rename(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
