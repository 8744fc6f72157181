"""The keys of a block that depend on what runs now: limits, class, and how a main process is named. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .found import Key, Process

AS_COMMAND = "as a command pool: nicety starts the workers"
"""How workers are reached that nothing resizes while they run."""

SERVES = Key("class", "interactive", "somebody waits for its answers: it is protected")
WORKS_OFF = Key("class", "batch", "only throughput counts: it may be demoted beside a service")


def limits(workers: int, *, serves: bool, most: int | None = None) -> tuple[Key, Key]:
    """The minimum and the maximum for a pool that has so many workers now. `serves`: somebody waits for its answers. `most`: how
    many it has room for."""
    least = Key("minimum", 2, "one serves while another starts") if serves and workers > 1 else Key("minimum", 1, "when idle")
    if most is not None and most < 2 * workers:
        return least._replace(value=min(int(least.value), most)), Key("maximum", most, "it has room for no more")  # type: ignore[arg-type]
    return least, Key("maximum", max(2 * workers, 4), f"twice the {workers} that run now" if workers > 1 else "one runs now")


def named_by(pidfile: str | None, master: Process, where: str) -> Key:
    """How the main process is named. `where`: what sets its pid file."""
    if pidfile and pidfile.startswith("/"):
        return Key("pidfile", pidfile, where)
    return Key("pid", master.id.pid, "only until it restarts; then give its pid file")


def without_pidfile(pidfile: str | None, advice: str) -> Sequence[str]:
    """What is missing where a main process has no pid file of a full path."""
    return () if pidfile and pidfile.startswith("/") else (f"{advice}; until then its pid is used, which counts until it restarts",)


def command_keys(command: Sequence[str], workers: int, jobs: int) -> tuple[Key, ...]:
    """The keys of a command pool in place of workers that run with these arguments now. `jobs`: how many they do at once, where
    one of the pool's does one."""
    least, most = limits(workers, serves=False)
    if jobs > workers:
        most = Key("maximum", jobs, f"{jobs} jobs run at once now, and a worker does one")
    return (
        Key("kind", "command", "nicety starts the workers itself"),
        Key("command", list(command), "one worker, as it runs now"),
        least,
        most,
        WORKS_OFF,
    )


def stop_first(pids: Sequence[int]) -> str:
    """What to do before a command pool takes the place of these processes."""
    return f"stop what runs now, and what starts it (pid {' '.join(map(str, pids))}): nicety starts the workers itself"
