"""Figures in a few cells. Pure."""

from __future__ import annotations

from ...frame import Band


def cores(value: float) -> str:
    """Cores in at most five cells; "" for as good as none.

    >>> cores(0.004), cores(0.06), cores(1.25), cores(38.2), cores(1024.0)
    ('', '0.06', '1.25', '38.2', '1024')
    """
    if value < 0.005:
        return ""
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def share(value: float) -> str:
    """A share in per cent in at most four cells; "" for as good as none.

    >>> share(0.001), share(0.314), share(12.5)
    ('', '31%', '999%')
    """
    return "" if value < 0.005 else f"{min(value * 100, 999):.0f}%"


def many(number: int, noun: str) -> str:
    """A number with its noun.

    >>> many(1, "change"), many(3, "change"), many(2, "process")
    ('1 change', '3 changes', '2 processes')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def wait_share(wait: float, demand: float) -> float:
    """For how much of what it wants a group waits."""
    return wait / demand if demand > 0.005 else 0.0


def size(number: float) -> str:
    """Bytes in at most five cells.

    >>> size(0), size(4 << 20), size(1536 << 20), size(300 << 30), size(2 << 40)
    ('0', '4M', '1.5G', '300G', '2.0T')
    """
    for unit in ("", "K", "M"):
        if number < 1023.5:
            return f"{number:.0f}{unit}"
        number /= 1024
    for unit in ("G", "T"):
        if number < 1023.5:
            return f"{number:.1f}{unit}" if number < 99.95 else f"{number:.0f}{unit}"
        number /= 1024
    return f"{number:.1f}P"


def age(seconds: float) -> str:
    """A time that has passed in at most six cells.

    >>> age(4), age(754), age(7500), age(90000)
    ('4s', '12m34s', '2h05m', '1d01h')
    """
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 60:
        return f"{whole}s"
    if minutes < 60:
        return f"{minutes}m{whole % 60:02d}s"
    return f"{hours}h{minutes % 60:02d}m" if hours < 24 else f"{days}d{hours % 24:02d}h"


def band(forecast: Band | None, dash: str) -> str:
    """The last horizon of a forecast: what is expected, and what is exceeded in one of twenty cases.

    >>> band(Band([1.0, 30.0], [0.2, 0.4], [0.5, 1.1], "baseline"), "-")
    '0.4-1.1'
    """
    if forecast is None or not forecast.median:
        return ""
    return f"{_short(forecast.median[-1])}{dash}{_short(forecast.high[-1])}"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}" if value < 9999.5 else f"{value / 1000:.0f}k"


def name_of(group: str) -> str:
    """A group's name as tables have it: most are programs, which need not be said.

    >>> name_of("program make"), name_of("unit ssh.service")
    ('make', 'unit ssh.service')
    """
    return group.removeprefix("program ")


def status_style(status: str) -> str:
    """The style of an outcome or of an effect."""
    if status in ("applied", "helped"):
        return "good"
    if status in ("failed", "blocked", "refused", "hurt", "foreign"):
        return "bad"
    return "warn" if status in ("relieved", "partial", "later", "more contention") else "dim"
