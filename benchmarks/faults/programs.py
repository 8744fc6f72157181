"""The programs in which system calls go wrong. A new one is a class as in `changing.py` or `writing.py`, and its name here."""

from __future__ import annotations

from .changing import ActingHalf, Daemon, Undo
from .program import Program
from .writing import Export, Record, Train

PROGRAMS: dict[str, type[Program]] = {program.name: program for program in (ActingHalf, Undo, Record, Export, Train, Daemon)}
"""All of them, quick ones first."""
