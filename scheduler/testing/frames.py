"""A plain frame, for tests of views to vary."""

from __future__ import annotations

from typing import Any

from ..frame import Band, Change, Count, Decided, Delay, Frame, Group, Incident, Machine, Own, Pool, Processes

MIB = 1 << 20
WALL = 1_780_000_000.0

HOSTILE = ('"} 1\n# EOF', "a\\nb\\", "\x1b[31mred", "\u202eevil", "x" * 4000, "\xfc" * 4000, "", "{}", "[red]")
"""Names that a program could call itself to harm a view."""


def an_own(**changes: Any) -> Own:
    """A daemon that acts on everything and has run for an hour."""
    values: dict[str, Any] = {
        "pid": 4000,
        "version": "0.1.0",
        "mode": "act",
        "scope": "acting",
        "acting_on": ["everything"],
        "spared": [],
        "cannot": "",
        "paused": False,
        "session": "5e551017",
        "interval": 1.0,
        "running": 3600.0,
        "ticks": 3600,
        "missed": 2,
        "cpu": 36.0,
        "memory": 58 * MIB,
        "budget": 0.03,
        "reduced": [],
    }
    return Own(**{**values, **changes})


def a_shown_group(name: str, class_: str = "exempt", cpu: float = 0.0, wait: float = 0.0, **changes: Any) -> Group:
    """A group of two processes with these figures."""
    values: dict[str, Any] = {
        "name": name,
        "class_": class_,
        "given": False,
        "certainty": None if class_ == "exempt" else 0.97,
        "leans": "",
        "processes": 2,
        "cpu": cpu,
        "brief": 0.0,
        "wait": wait,
        "demand": cpu + wait,
        "memory": 80 * MIB,
        "throttled": 0.0,
    }
    return Group(**{**values, **changes})


def a_shown_pool(name: str = "web", **changes: Any) -> Pool:
    """A gunicorn pool of four workers, half of them busy."""
    values: dict[str, Any] = {
        "name": name,
        "kind": "gunicorn",
        "size": 4,
        "wanted": 5,
        "minimum": 1,
        "maximum": 16,
        "busy": 2.1,
        "queued": 0.0,
        "load": 2.1,
        "arrivals": 21.0,
        "service": 0.1,
        "p95": 0.25,
        "start": 2.0,
        "worker_memory": 50 * MIB,
        "objective": "p95 300ms",
        "aim": "p95",
        "aim_value": 0.3,
        "rules": "all rules",
        "trouble": "",
        "forecast": a_band(2.2, 3.4),
    }
    return Pool(**{**values, **changes})


def a_band(median: float, high: float) -> Band:
    """The same at every horizon."""
    seconds = [1.0, 3.0, 6.0, 12.0, 30.0]
    return Band(seconds, [median] * len(seconds), [high] * len(seconds), "demand 0123456789ab")


def a_frame(**changes: Any) -> Frame:
    """A machine of two CPUs with a service that batch work delays, a pool, and an open incident."""
    demoted = Change("autogroup", "0", "19", 3, "redis", "5e551017-3598.0", WALL - 2)
    values: dict[str, Any] = {
        "seq": 3599,
        "wall": WALL,
        "measured": True,
        "own": an_own(),
        "machine": Machine("box", 2, 1.9, 0.0, 0.0, 8 << 30, 6 << 30, [0.4, 0.0, 0.01]),
        "groups": [
            a_shown_group("ffmpeg", "batch", 1.3, 0.7, processes=3, changes=[demoted], forecast=a_band(1.9, 2.0)),
            a_shown_group(
                "redis",
                "interactive",
                0.2,
                0.1,
                forecast=a_band(0.25, 0.4),
                delay=Delay(0.1, [("ffmpeg", 0.08)], 0.0, 0.01, 0.01, 0.0),
            ),
            a_shown_group("sshd"),
            a_shown_group("web", "interactive", 0.3, 0.02, given=True, certainty=None),
        ],
        "pools": [a_shown_pool()],
        "processes": Processes(
            pid=[100, 101, 200, 300],
            parent=[1, 100, 1, 1],
            group=["ffmpeg", "ffmpeg", "redis", "sshd"],
            name=["ffmpeg", "ffmpeg", "redis-server", "sshd"],
            user=[1000, 1000, 33, 0],
            state=["S", "R", "S", "S"],
            nice=[0, 0, 0, 0],
            threads=[1, 8, 5, 1],
            age=[60.0, 59.5, 86400.0, 90000.0],
            cpu=[0.0, 1.3, 0.2, 0.0],
            wait=[0.0, 0.7, 0.1, 0.0],
            memory=[4 * MIB, 200 * MIB, 80 * MIB, 8 * MIB],
            left_out=12,
        ),
        "incidents": [
            Incident("5e551017-3000.1", "web", [410], "leak", WALL - 599, "its resident memory grows by 1.2 MiB a minute")
        ],
        "decisions": [
            Decided(
                id="5e551017-3598.0",
                wall=WALL - 2,
                policy="priority",
                target="group ffmpeg",
                what="autogroup 19",
                text="redis waits 0.1 cores",
                times=3,
                status="applied",
                effect="",
            ),
            Decided(
                id="5e551017-3500.0",
                wall=WALL - 99,
                policy="pool_size",
                target="pool web",
                what="size 5",
                text="load 2.1, forecast 3.4",
                times=1,
                status="applied",
                effect="helped",
            ),
        ],
        "counts": [
            Count("decisions", "pool_size", "", 12),
            Count("decisions", "priority", "", 7),
            Count("effects", "pool_size", "helped", 9),
            Count("outcomes", "priority", "applied", 7),
            Count("refusals", "priority", "cool-down", 2),
        ],
        "notes": [],
    }
    return Frame(**{**values, **changes})
