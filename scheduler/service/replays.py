"""Replays of what pools did, in the background: which rules would have sized each most cheaply. Its answer speaks from then on.

Starts a replay when it is due, takes its result, keeps it over restarts, and drops it when the pool's section changes or its load
has other habits than the replayed one. Knows how to run `nicety.scheduler.simulation.contest`, not how it chooses.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..config.sections import Config
from ..decision import Chosen, Pool, Rules
from ..explain.logstream import INFO, NOTICE, WARNING
from ..hands.safe_files import StoreError
from ..interpreter import PYTHON
from ..store.chosen import ChosenStore, Kept, PoolReplay, ReplayedRules
from ..words import span
from .background import Background, Limits, MakesIdle

CONTEST = (*PYTHON, "-m", "nicety.scheduler.simulation.contest")

FIRST_NS = 3600 * 10**9
"""ns of running before the first replay of a pool, and between two replays at least (chosen): it needs an hour of a recording."""

LIMITS = Limits(7200.0, "two hours", 1 << 29, "512 MiB")
"""Time and memory of a replay. Chosen: a day of ten pools at 1 Hz takes that long on an idle CPU. Those whose choice is oldest come
first, so the others come the next time."""

HABIT_NS = 600 * 10**9
"""ns of a mean load that is compared with those of the replay: `simulation.contest.HABIT`."""

ODD = 1.25
"""A load has other habits from this factor beyond what the replay had (chosen)."""

Said = list[tuple[int, str]]
"""(priority, sentence) for the log."""


@dataclass(slots=True)
class _Window:
    """The load of a pool since `begin`, monotonic ns."""

    begin: int
    total: float = 0.0
    ticks: int = 0


class Replays:
    """The chosen rules of all pools. Times are monotonic ns.

    `tick` must be called from a thread that lives as long as the daemon: see `Background`.
    """

    def __init__(
        self, directory: Path, arguments: Sequence[str], command: Sequence[str] = CONTEST, hands: MakesIdle | None = None
    ) -> None:
        """`directory` of the stores. `arguments`: where configuration and state are, for the replay."""
        self._store = ChosenStore(directory)
        self._command = (*command, *arguments)
        self._config = Config()
        self._kept: dict[str, Kept] = {}
        self._windows: dict[str, _Window] = {}
        self._due: int | None = None
        self._asked: dict[str, str] = {}  # pools that are replayed now, with the settings that the replay has read
        self._background = Background("replay", hands)
        self.trouble = ""
        """Why what was chosen is not kept over restarts; "": it is."""

    def begin(self, config: Config, now: int, wall: int) -> None:
        """Take up what an earlier daemon chose."""
        self._config = config
        try:
            kept = {each.chosen.pool: each for each in self._store.read()}
        except StoreError as error:
            self.trouble, kept = str(error), {}
        self._kept = {name: each for name, each in kept.items() if each.settings == _settings(config, name)}
        oldest = min((each.wall for each in self._kept.values()), default=wall)
        missing = _replayed(config) - self._kept.keys()
        self._put_off(now, FIRST_NS if missing else max(FIRST_NS, self._period() - max(wall - oldest, 0)))

    def configure(self, config: Config, now: int) -> None:
        """Use another configuration. What was chosen for pools whose section is another one is dropped."""
        hours = self._config.pool_size.replay_hours
        self._config = config
        dropped = [name for name, each in self._kept.items() if each.settings != _settings(config, name)]
        for name in dropped:
            del self._kept[name]
        if config.pool_size.replay_hours != hours or dropped or _replayed(config) - self._kept.keys():
            self._put_off(now, FIRST_NS)
        if not config.pool_size.replay_hours:
            self._kept = {}
            self._background.stop(now, "pool_size.replay_hours is 0 now")

    @property
    def chosen(self) -> tuple[Chosen, ...]:
        """The rules in force, where not all count, sorted by pool."""
        return tuple(each.chosen for _, each in sorted(self._kept.items()) if each.chosen.rules is not Rules.ALL)

    def tick(self, pools: Iterable[Pool], now: int, wall: int) -> Said:
        """Follow the loads, start a replay that is due, and take the result of one that has ended."""
        said = self._follow(pools, now)
        if self._background.pid is not None:
            ended = self._background.look(now, LIMITS)
            if ended is None:
                return said
            changed = any(_settings(self._config, name) != settings for name, settings in self._asked.items())
            self._put_off(now, FIRST_NS if changed else self._period())
            found = _results(ended.result)
            said += [line for replay in found for line in self._take(replay, wall)]
            if len(found) < len(self._asked):
                why = f"was stopped: {ended.stopped_for}" if ended.stopped_for else f"failed {ended.failure}"
                said.append((WARNING, f"the replay of the pools' loads {why}; the next one {self._next(now)}"))
            return said
        names = sorted(_replayed(self._config), key=lambda name: (self._kept[name].wall if name in self._kept else 0, name))
        if self._due is None or now < self._due or not names:
            return said
        self._put_off(now, self._period())
        self._asked = {name: _settings(self._config, name) for name in names}
        command = (*self._command, *(word for name in names for word in ("--pool", name)))
        try:
            pid = self._background.start(command, now)
            said.append((INFO, f"replay of the load of {', '.join(names)} began: pid {pid}, {self._background.where}"))
        except (OSError, subprocess.SubprocessError) as error:
            said.append((WARNING, f"the pools' loads could not be replayed: {error}; the next time {self._next(now)}"))
        return said

    def state(self, now: int) -> str:
        """The running replay, or when the next one is due, for people."""
        if self._background.pid is not None:
            return f"pid {self._background.pid}, since {span(self._background.seconds(now))}"
        return "off" if self._due is None or not _replayed(self._config) else f"in {span((self._due - now) / 1e9)}"

    def close(self) -> None:
        """End a running replay. Idempotent."""
        self._background.close()

    def _take(self, replay: PoolReplay, wall: int) -> Said:
        """Use a result from now on."""
        chosen, before = replay.chosen, self._kept.get(replay.pool)
        settings = _settings(self._config, replay.pool)
        if not settings or self._asked.get(replay.pool) != settings:
            return []  # a reload has changed what it was asked about
        if chosen is None:
            return [(INFO, f"replay: {replay.trouble}")]
        self._kept[replay.pool] = Kept(chosen, settings, wall)
        self._windows.pop(replay.pool, None)
        self._write()
        same = before is not None and (before.chosen.rules, before.chosen.size) == (chosen.rules, chosen.size)
        table = "; ".join(_row(row) for row in replay.table)
        stays = "still " if same else ""
        kept = any(row.keeps for row in replay.table)
        found = "no others kept it with clearly fewer workers" if kept else "no rules kept it"
        text = (
            f"replay: pool {replay.pool} is {stays}sized by {chosen.rules.words(chosen.size)}. The goal was a p95 of at most "
            f"{replay.most:.3g} s in {chosen.hours:.3g} h of its load, and {found} (workers, p95): {table}"
        )
        return [(INFO if same else NOTICE, text)]

    def _follow(self, pools: Iterable[Pool], now: int) -> Said:
        """Drop rules whose load has other habits by now."""
        said: Said = []
        for pool in pools:
            kept = self._kept.get(pool.name)
            if kept is None or pool.load is None:
                self._windows.pop(pool.name, None)
                continue
            window = self._windows.setdefault(pool.name, _Window(now))
            window.total, window.ticks = window.total + pool.load, window.ticks + 1
            if now - window.begin < HABIT_NS:
                continue
            mean, least, most = window.total / window.ticks, kept.chosen.least, kept.chosen.most
            del self._windows[pool.name]
            if least / ODD <= mean <= most * ODD:
                continue
            del self._kept[pool.name]
            self._write()
            self._put_off(now, FIRST_NS)
            text = (
                f"replay: the load of pool {pool.name} has changed: {mean:.3g} Erlang over the last {span(HABIT_NS / 1e9)}, "
                f"outside of the replayed {least:.3g} to {most:.3g}. All rules count again; the next replay {self._next(now)}"
            )
            said.append((NOTICE, text))
        return said

    def _write(self) -> None:
        try:
            self._store.write(each for _, each in sorted(self._kept.items()))
            self.trouble = ""
        except StoreError as error:
            self.trouble = str(error)

    def _period(self) -> int:
        return round(self._config.pool_size.replay_hours * 3600e9)

    def _put_off(self, now: int, by: int) -> None:
        """Make the next replay due in so many ns; never if they are switched off."""
        self._due = now + by if self._config.pool_size.replay_hours else None

    def _next(self, now: int) -> str:
        return "is switched off" if self._due is None else f"comes in {span((self._due - now) / 1e9)}"


def _results(output: bytes) -> list[PoolReplay]:
    """What a replay printed, a pool a line; the last line may be cut off."""
    found = []
    for line in output.splitlines():
        try:
            found.append(msgspec.json.decode(line, type=PoolReplay))
        except msgspec.MsgspecError:
            break
    return found


def _replayed(config: Config) -> set[str]:
    """Pools that are replayed: those whose size is not a rule of its owner's."""
    pools = config.pools.items() if config.pool_size.enabled and config.pool_size.replay_hours else ()
    return {name for name, pool in pools if pool.objective is None or not pool.objective.utilization}


def _settings(config: Config, name: str) -> str:
    """What a choice for this pool rests on, as a digest; "": there is no such pool, or it is not replayed."""
    if name not in _replayed(config):
        return ""
    pool = config.pools[name]
    rests = msgspec.json.encode((pool.minimum, pool.maximum, pool.objective, config.pool_size, config.daemon.interval))
    return hashlib.sha256(rests).hexdigest()[:16]


def _row(row: ReplayedRules) -> str:
    late = "" if row.keeps else ", too late"
    return f"{row.rules.words(row.size)}: {row.workers:.3g}, {row.seconds:.3g} s{late}"
