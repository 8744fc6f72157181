"""The targets of fuzzing. A new one is a module with a `Target`, listed here."""

from __future__ import annotations

from . import configuration, decisions, frames, ledger, model_files, protocol, small_files, traces
from .target import Target

TARGETS: tuple[Target, ...] = (
    model_files.CARD,
    model_files.ARRAYS,
    model_files.ARCHIVE,
    model_files.POINTERS,
    ledger.FILE,
    ledger.LINES,
    ledger.VERSION_1,
    traces.FILE,
    traces.RECORDS,
    decisions.FILE,
    decisions.RECORDS,
    small_files.SMALL,
    small_files.KEPT,
    frames.FRAMES,
    frames.ANSWERS,
    protocol.PROTOCOL,
    configuration.TEXT,
    configuration.SCHEMA,
)


def named(name: str) -> Target:
    """The target of this name. Raises ValueError."""
    for target in TARGETS:
        if target.name == name:
            return target
    raise ValueError(f'no target is called "{name}"; there are {", ".join(target.name for target in TARGETS)}')
