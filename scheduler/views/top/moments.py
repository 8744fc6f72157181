"""Moments as people name them. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BACK = re.compile(r"(?:-\s*(\d+(?:\.\d+)?)\s*([smhd])|(\d+(?:\.\d+)?)\s*([smhd])\s+ago)")
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?")
_DAY = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})")


def moment_of(text: str, now: datetime) -> datetime:
    """The moment that is named: "03:00", "yesterday 14:20", "2026-05-01 14:20:30", "-2h", "10m ago" or "now".

    A time alone is the last one before `now`. Raises ValueError, with what to type, for anything else.

    >>> now = datetime(2026, 5, 4, 12, 0)
    >>> [moment_of(text, now).isoformat(" ", "minutes") for text in ("03:00", "14:20", "-2h", "yesterday 14:20")]
    ['2026-05-04 03:00', '2026-05-03 14:20', '2026-05-04 10:00', '2026-05-03 14:20']
    """
    words = text.strip().lower()
    if words == "now":
        return now
    back = _BACK.fullmatch(words)
    if back is not None:
        number, unit = (back[1], back[2]) if back[1] else (back[3], back[4])
        try:
            return now - timedelta(seconds=float(number) * _UNITS[unit])
        except OverflowError:
            raise ValueError(_meant(text)) from None
    day, _, clock = words.rpartition(" ")
    time = _CLOCK.fullmatch(clock)
    if time is None:
        raise ValueError(_meant(text))
    try:
        at = now.replace(hour=int(time[1]), minute=int(time[2]), second=int(time[3] or 0), microsecond=0)
        named = _DAY.fullmatch(day)
        if named is not None:
            return at.replace(year=int(named[1]), month=int(named[2]), day=int(named[3]))
    except ValueError:
        raise ValueError(_meant(text)) from None
    if day == "yesterday":
        return at - timedelta(days=1)
    if day not in ("", "today"):
        raise ValueError(_meant(text))
    return at if day == "today" or at <= now else at - timedelta(days=1)


def _meant(text: str) -> str:
    return f'"{text}" is no time; type e.g. 03:00, yesterday 14:20, 2026-05-01 14:20, or -2h'
