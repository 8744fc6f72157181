"""Figures for people: times, durations, bytes, shares. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime


def moment(wall: int, day: bool = True) -> str:
    """A wall time (ns since 1970) as local time for people. `day`: with the date."""
    return datetime.fromtimestamp(wall / 1e9, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S" if day else "%H:%M:%S")


def span(seconds: float) -> str:
    """A duration for people.

    >>> span(3725)
    '1 h 2 min'
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 60:
        return f"{int(minutes)} min {int(seconds % 60)} s"
    return f"{int(hours)} h {int(minutes % 60)} min" if hours < 24 else f"{int(days)} d {int(hours % 24)} h"


def size(number: float) -> str:
    """Bytes for people.

    >>> size(3 << 20)
    '3.0 MiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def share(value: float) -> str:
    """A share in per cent with two significant digits. It may exceed 100 %: a wait may be many times the demand.

    >>> share(0.312), share(0.004), share(0)
    ('31 %', '0.4 %', '0 %')
    """
    return f"{figure(float(f'{value * 100:.2g}'))} %"


def figure(value: float | int | str) -> str:
    """A number for people: floats with four significant digits, or "unknown" if not finite; integers and strings as they are."""
    if isinstance(value, float):
        return (
            f"{value:.4g}" if math.isfinite(value) and abs(value) < 1e6 else f"{value:.0f}" if math.isfinite(value) else "unknown"
        )
    return str(value)
