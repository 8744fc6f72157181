"""Places that decisions name: a process, a session or a cgroup. Pure.

`hands/places.py` has the places where the kernel keeps what was decided.
"""

from __future__ import annotations

import msgspec

from ..models.identity import ProcId
from .hands.places import Cgroup


class ProcessPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="process"):
    """A process with all its threads; for a fence, with all its children too."""

    id: ProcId


class SessionPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="session"):
    """The autogroup of a session, as a decision names it."""

    session: int
    through: ProcId  # a member of the session, through which the control is written


class CgroupPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="cgroup"):
    """A cgroup."""

    path: str  # in the cpu hierarchy


DecisionPlace = ProcessPlace | SessionPlace | CgroupPlace
"""A place that a decision names."""


def cgroup_of(place: DecisionPlace) -> str | None:
    """The path of a cgroup; None: the place is not a cgroup."""
    return place.path if isinstance(place, CgroupPlace) else None


def process_of(place: DecisionPlace) -> ProcId | None:
    """The process of a place, or the one through which it is found: a member of a session. None: a cgroup."""
    match place:
        case ProcessPlace(id=process) | SessionPlace(through=process):
            return process
        case CgroupPlace():
            return None


def place_in_kernel(place: DecisionPlace) -> ProcId | Cgroup:
    """How the hands name it: a session is named by the process through which it is found."""
    return process_of(place) or Cgroup(cgroup_of(place) or "")
