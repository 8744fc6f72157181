"""Whether interactive groups wait for what batch groups use, or soon will, and how far a demotion is eased. Pure: demotes
nothing."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from .....models.records import Class
from ....config.sections import Priority as Section
from ....decision import Group, Note, Tick
from ..policy import Memory, Outlook, figures
from .mechanisms import LEVELS
from .supply import WAIT_FLOOR, others, throttled, unseen, wait_share

BUSY = 0.75
"""Share of the CPUs in use from which waiting is contention (chosen): with less in use, a wait only lasts until a thread is woken
on an idle CPU."""

INTERACTIVE_DEMAND, BATCH_DEMAND = 0.01, 0.05
"""Least demand in cores for interactive and for batch groups to count as present (chosen): with less, the first cannot suffer and
the second cannot make them suffer."""

VICTIMS = 4
"""Number of interactive groups for which contenders are sought in a tick, the worst first (chosen): a demotion for one of them
helps the others too."""

REMEMBERED_SECONDS = 120.0
"""Seconds for which an interactive group counts as present after it had work (chosen): an idle service must not wake up
unprotected."""

STOPPED_SECONDS = 60.0
"""Seconds after its own quota stopped a group in which the group is not a victim of others (chosen: bursty requests are stopped in
bursts)."""

SOON = 3
"""Number of horizons that contention is forecast from: 1, 3 and 6 ticks (chosen). A demotion acts at once, so longer horizons gain
nothing."""

EXCESS = 0.05
"""Cores by which the expected demand must exceed the capacity (chosen): on a full machine without waits the two differ only by
rounding."""

CALM = 0.9
"""Contention is over when the expected demand is below this share of the capacity (chosen): the gap prevents flapping."""

LONGEST_EASE = 3600.0
"""Longest time until a demotion is eased again, in seconds (chosen). The time doubles whenever an easing had to be revoked."""


class ContentionMemory(Memory):
    """What `Contention` remembers between ticks."""

    engaged: bool = False  # contention is there or not over for long enough
    calm_since: int | None = None
    level: int = 0  # number of steps by which the demotion is eased, see `mechanisms.value`
    content_since: int | None = None  # since when all protected groups have waited less than half of their target
    ease_seconds: float = 0.0  # how long they must have done so; 0: as configured
    active: dict[str, int] = msgspec.field(default_factory=dict)  # interactive group -> ns when it last had work
    unseen: bool = False  # most of the pressure comes from processes that nicety cannot see
    stopped: dict[str, int] = msgspec.field(
        default_factory=dict
    )  # interactive group -> ns when its own quota last explained its wait


@dataclass(frozen=True, slots=True)
class View:
    """Contention at a tick."""

    victim: Group  # the interactive group that waits most per demand, except those that their own quota stops
    share: float  # its wait per demand
    suffering: tuple[Group, ...]  # interactive groups that wait too long, the worst first, at most `VICTIMS`
    crowded: bool  # the CPUs are in use, and batch work is there
    suffers: bool
    foreseen: bool
    calm: bool
    content: bool  # all protected groups wait less than half of their target
    expected: float  # demand in cores expected soon of all classed groups, at most the CPUs
    capacity: float  # cores left to classed groups
    beyond: float  # cores by which the sum of their demands is expected to exceed the capacity
    soon: dict[str, float]  # cores of demand expected of each classed group within `SOON`


@dataclass(frozen=True, slots=True)
class Sight:
    """The groups of a tick."""

    protected: list[Group]
    contenders: list[Group]
    view: View | None  # None: one of the two is missing, or the policy is disabled


class Contention:
    """Follows contention from tick to tick."""

    def __init__(self, config: Section, memory: ContentionMemory) -> None:
        self._config = config
        self.memory = memory

    def look(self, tick: Tick, *, demoted: bool) -> Sight:
        """The groups of this tick and their contention. Call it once a tick. `demoted`: something is demoted at present."""
        memory = self.memory
        protected = self._protected(tick)
        self._note_stopped(tick, protected)
        contenders = [group for group in tick.groups if group.class_ is Class.BATCH and group.members]
        memory.unseen = bool(self._config.enabled and protected) and unseen(tick.machine, protected, memory.unseen)
        view = self._view(tick, protected, contenders) if self._config.enabled and protected and contenders else None
        self._engage(tick, view)
        self._ease(tick, view, demoted=demoted)
        return Sight(protected, contenders, view)

    def skip(self) -> None:
        """After a gap it is unknown how long it has been calm."""
        self.memory.calm_since = self.memory.content_since = None

    def in_full(self) -> None:
        """The demotion is not eased any more."""
        self.memory.level, self.memory.content_since = 0, None

    def notes(self, tick: Tick) -> list[Note]:
        """What keeps the policy from demoting. Call it after `look`."""
        memory, machine = self.memory, tick.machine
        if not self._config.enabled:
            return []
        protected = [group for group in tick.groups if group.class_ is Class.INTERACTIVE and group.name in memory.active]
        notes = [
            Note(
                topic=f"quota {group.name}",
                text=f"{group.name} waits for its own cgroup's CPU quota: only a larger quota helps, so nothing is demoted.",
                figures=figures(throttled_share=group.throttled, wait_cores=group.wait, cpu_cores=group.cpu),
            )
            for group in protected
            if group.name in memory.stopped
        ]
        if memory.unseen:
            text = (
                "most of the pressure comes from processes that nicety cannot see: in another container or guest, or outside this "
                "PID namespace. Nothing is demoted, because that would not help."
            )
            known = figures(
                unseen_cores=machine.unseen,
                stolen_cores=machine.steal,
                cores_of_others=others(machine, protected),
                busy_cores=machine.busy,
            )
            notes.append(Note("unseen", text, known))
        return notes

    def _protected(self, tick: Tick) -> list[Group]:
        """Interactive groups that have work now, or had some within REMEMBERED_SECONDS."""
        memory, groups = self.memory, [group for group in tick.groups if group.class_ is Class.INTERACTIVE and group.members]
        memory.active = {name: at for name, at in memory.active.items() if tick.at - at <= REMEMBERED_SECONDS * 1e9} | {
            group.name: tick.at for group in groups if group.demand >= INTERACTIVE_DEMAND
        }
        return [group for group in groups if group.name in memory.active]

    def _note_stopped(self, tick: Tick, protected: list[Group]) -> None:
        """Remembers groups that their own quota stops: until STOPPED_SECONDS later they are not victims, because quotas bite from
        time to time."""
        memory = self.memory
        memory.stopped = {name: at for name, at in memory.stopped.items() if tick.at - at <= STOPPED_SECONDS * 1e9} | {
            group.name: tick.at for group in protected if throttled(group)
        }

    def _view(self, tick: Tick, protected: list[Group], contenders: list[Group]) -> View:
        config, machine, outlook = self._config, tick.machine, Outlook(tick)

        def soon(group: Group) -> float:
            said = outlook.highest(group.name, "cpu", SOON, config.quantile)
            return group.demand if said is None else said

        most = float(machine.cpus)
        expected = {group.name: min(soon(group), most) for group in (*protected, *contenders)}
        expected |= {group.name: min(expected[group.name], group.cpu) for group in protected if group.name in self.memory.stopped}
        latency_soon = sum(expected[group.name] for group in protected)
        batch_soon = sum(expected[group.name] for group in contenders)
        latency_now, batch_now = sum(group.demand for group in protected), sum(group.demand for group in contenders)
        classed = sum(group.cpu for group in protected) + sum(group.cpu for group in contenders)
        capacity = machine.cpus - max(0.0, machine.busy - classed)
        both = max(latency_now, latency_soon) >= INTERACTIVE_DEMAND and max(batch_now, batch_soon) >= BATCH_DEMAND
        crowded = machine.busy >= BUSY * machine.cpus and batch_now >= BATCH_DEMAND
        victims = [group for group in protected if group.name not in self.memory.stopped]

        def waiting(share: float) -> list[Group]:
            return [group for group in victims if group.wait > WAIT_FLOOR and wait_share(group) > share]

        worst = sorted(waiting(config.wait), key=lambda group: (wait_share(group), group.name), reverse=True)[:VICTIMS]
        content = not waiting(config.wait / 2)
        victim = max(victims or protected, key=lambda group: (wait_share(group), group.name))
        return View(
            victim=victim,
            share=wait_share(victim),
            suffering=tuple(worst) if crowded else (),
            crowded=crowded,
            suffers=crowded and bool(worst),
            foreseen=both and bool(victims) and latency_soon + batch_soon > capacity + EXCESS,
            calm=not (crowded and not content) and not (both and latency_soon + batch_soon >= CALM * capacity),
            content=content,
            expected=min(latency_soon + batch_soon, most),
            capacity=capacity,
            beyond=latency_soon + batch_soon - capacity,
            soon=expected,
        )

    def _engage(self, tick: Tick, view: View | None) -> None:
        memory = self.memory
        if memory.unseen:
            memory.engaged, memory.calm_since = False, None
        elif view is not None and (view.suffers or view.foreseen):
            memory.engaged, memory.calm_since = True, None
        elif view is None or view.calm:
            if memory.calm_since is None:
                memory.calm_since = tick.at
            if tick.at - memory.calm_since >= self._config.release_after * 1e9:
                memory.engaged = False
        else:
            memory.calm_since = None

    def _ease(self, tick: Tick, view: View | None, *, demoted: bool) -> None:
        """Adapts the demotion to the target: one step weaker after a while without waits, in full again on the first wait."""
        memory = self.memory
        if not memory.engaged or view is None or not demoted:
            self.in_full()
        elif memory.level and view.suffers:
            self.in_full()
            memory.ease_seconds = min(2 * (memory.ease_seconds or self._config.ease_after), LONGEST_EASE)
        elif not view.content:
            memory.content_since = None
        elif memory.content_since is None:
            memory.content_since = tick.at
        elif tick.at - memory.content_since >= (memory.ease_seconds or self._config.ease_after) * 1e9:
            memory.level, memory.content_since = min(memory.level + 1, LEVELS - 1), tick.at
