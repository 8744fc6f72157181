"""Why something is demoted, eased or given back: the sentence and the figures of its decisions. Pure: decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ....config.sections import Config
from ....decision import Group, Tick, Why
from ....hands.places import Control
from ....observe.rivals import touches, who_touches
from ....places import CgroupPlace
from ...tenants import Tenants
from ..policy import figures
from .cases import Case
from .contention import CALM, View
from .held import Held
from .memory import PriorityMemory
from .pairs import ANYBODY, RELIEVED
from .slices import HARM, LONG_TICKS, Phase
from .strikes import STRIKES
from .supply import ALONE, LEAST_FREED, apart, wait_share

LISTED = (Control.CPU_WEIGHT, Control.CPU_SHARES, Control.CPU_IDLE, Control.AUTOGROUP, Control.FENCE, Control.NICE)
"""Controls that a decision lists when they were dropped for the group."""

NAMED = 5
"""A decision names this many rejected contenders, the busiest, and gives the number of the others."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the changes of a tick have in common."""

    tick: Tick
    views: Mapping[str, View]  # by party, at least one
    groups: Mapping[str, Group]
    cases: Mapping[str, Case]  # by contender
    refused: tuple[str, ...]  # contenders that are not demoted, and why

    def view(self, change: Held) -> View:
        """The contention that a change is made for. A slice is made for that of any party."""
        return self.views.get(change.party) or next(iter(self.views.values()))


class PriorityReasons:
    """Says why."""

    def __init__(self, config: Config, tenants: Tenants, memory: PriorityMemory) -> None:
        self._config = config.priority
        self._tenants = tenants
        self._pools = frozenset(config.pools)
        self._memory = memory

    def change(self, context: Context, change: Held, follow: int = 0) -> Why:
        """Why a control is set. `follow`: number of further changes that wait for a later tick."""
        tick, view, groups = context.tick, context.view(change), context.groups
        group = groups[change.group]
        short = change.control is Control.SLICE
        rule, text = self._slice_reason(change) if short else self._reason(view, group, change)
        trial = self._memory.slices.trials.get(change.group)
        config = self._config
        case = None if short else context.cases.get(change.group)
        victim = groups.get(change.victim, view.victim)
        return Why(
            rule=rule,
            text=text if not follow else f"{text} {follow} more changes follow.",
            figures=figures(
                victim=change.victim,
                victim_wait_before=wait_share(victim),
                wait_with_short_slices=None if trial is None or not short else trial.short,
                wait_without=None if trial is None or not short else trial.long,
                victim_wait_cores=victim.wait,
                victim_demand_cores=victim.demand,
                victim_lacks_cores=None if case is None else case.lacks,
                wait_target=config.wait,
                expected_cores=view.expected,
                capacity_cores=view.capacity,
                forecast_quantile=config.quantile,
                contender=None if short else group.name,
                contender_cpu_cores=None if short else group.cpu,
                contender_wait_cores=None if short else group.wait,
                contender_processes=None if short else group.processes,
                contender_frees_cores=None if case is None else case.frees,
                all_free_cores=None if case is None or not case.together else case.together,
                mechanism=str(change.control),
                level=0 if change.control is Control.FENCE else self._memory.contention.level(change.party),  # a fence is not eased
                value=change.strength,
            ),
            rejected=(*self._rejected(tick, group, change), *(() if short else context.refused)),
            flips=self._flips(group, change),
        )

    def back(self, tick: Tick, held: Held, there: bool, alive: bool) -> Why:
        """Why a control is restored. `there`: the group still has its class; `alive`: the fenced process still runs."""
        config, flips = self._config, tuple[str, ...]()
        trial = self._memory.slices.trials.get(held.group)
        pause = None if held.control is Control.SLICE else self._memory.pairs.pause(held.victim, held.group, tick.at)
        if self._memory.contention.unseen:
            rule, reason = "unseen", "Most of the pressure comes from processes that nicety cannot see"
        elif pause is not None:
            seconds = (pause.until - tick.at) / 1e9
            rule = "relieved" if pause.why == RELIEVED else "no effect"
            reason = f"The demotion of {held.group} for {held.victim} {pause.why}, so it pauses for {seconds:.0f} s"
        elif not self._memory.contention.engaged(held.party):
            rule, reason = "contention over", f"Contention has been over for {config.release_after:g} s"
            flips = (f"an expected demand of at least {CALM:.0%} of the capacity would have kept it",)
        elif not there:
            rule, reason = "contender gone", f"{held.group} is gone, or has another class now"
        elif not alive:
            rule, reason = "root gone", f"The fenced process of {held.group} has ended"
        elif held.control is Control.SLICE and trial is not None and trial.phase is Phase.LONG:
            rule, reason = "slice compared", f"{held.group} runs {LONG_TICKS} ticks without short slices, to measure what they gain"
        elif held.control is Control.SLICE and trial is not None and trial.phase is Phase.DROPPED:
            rule, reason = "slice does harm", f"{held.group} waits less without short slices"
            flips = (f"waits with and without them that differ by less than {HARM:.0%}",)
        elif held.control is Control.SLICE:
            rule, reason = "nothing demoted", f"No batch group is demoted any more, so {held.group} needs no short slices"
        else:
            rule, reason = "mechanism changed", f"Another control now separates {held.group} from {held.victim}"
        what = f"{held.control} of {held.target} back to what it was"
        if held.control is Control.FENCE:
            what = f"{held.target} and its descendants leave their fence"
        return Why(
            rule=rule,
            text=f"{reason}: {what}.",
            figures=figures(group=held.group, victim=held.victim, value=held.strength, release_after_seconds=config.release_after),
            rejected=(),
            flips=flips,
        )

    def refused(self, tick: Tick, contenders: list[Group], cases: Mapping[str, Case]) -> tuple[str, ...]:
        """Busy contenders that are not demoted, and why."""
        left = [group for group in contenders if group.name not in cases and group.cpu > 0]
        left.sort(key=lambda group: (-group.cpu, group.name))
        case = max(cases.values(), key=lambda case: case.lacks, default=None)
        groups = {group.name: group for group in tick.groups}
        said = []
        for group in left[:NAMED]:
            pause = None if case is None else self._memory.pairs.pause(case.victim, group.name, tick.at)
            if pause is not None:
                victim = f" for {pause.victim}" if pause.victim != ANYBODY else ""
                said.append(
                    f"{group.name}: its demotion{victim} {pause.why}, so it pauses for {(pause.until - tick.at) / 1e9:.0f} s"
                )
            elif case is not None and case.victim in groups and not self._tenants.may(groups[case.victim], group):
                whose = self._tenants.whose
                said.append(
                    f"{group.name}: it belongs to {whose(group)}, {case.victim} to {whose(groups[case.victim])}; [tenants] keeps "
                    "them apart"
                )
            elif case is not None and case.victim in groups and apart(groups[case.victim], group):
                said.append(f"{group.name}: it and {case.victim} are bound to different CPUs")
            elif case is not None:
                said.append(f"{group.name}: it uses {group.cpu:.2f} cores, too few to help {case.victim}")
        if len(left) > NAMED and case is not None:
            said.append(f"{len(left) - NAMED} more groups that use less")
        return tuple(said)

    def _flips(self, group: Group, change: Held) -> tuple[str, ...]:
        config = self._config
        most = f"{config.wait / 2:.1%} of its demand"
        calm = f"it is given back {config.release_after:g} s after {change.victim} last waited more than {most}"
        if change.control is Control.SLICE:
            return f"{calm} and the demotions are over", f"a comparison in which it waits {HARM:.0%} less without short slices"
        return (
            f"{calm} and the expected demand fits the capacity",
            f"less than {LEAST_FREED:g} cores used by {group.name}, or less than {ALONE:.0%} of what {change.victim} lacks",
        )

    def _reason(self, view: View, group: Group, change: Held) -> tuple[str, str]:
        held, victim = self._memory.held.get(change.key), change.victim
        if held is not None and held.value == change.value:
            held = None  # only observed, for another victim
        what = f"{change.control} of {change.target} to {change.value}"
        if change.control is Control.FENCE:
            what = f"{change.target} and its descendants into a cgroup of their own with weight {change.strength} instead of 100"
        share = next((wait_share(each) for each in view.suffering if each.name == victim), None)
        if held is not None and self._memory.contention.level(change.party):
            return "eased", f"{victim} waits for less than half of its target: {what}, one step gentler."
        if held is not None:
            return (
                "not eased any more",
                f"{view.victim.name} has waited {view.share:.1%} of its demand since the demotion was eased: {what} again.",
            )
        if share is not None:
            return "contention now", f"{victim} waits {share:.1%} of its demand for a CPU beside {group.name}: {what}."
        if view.foreseen:
            beyond = f"Demand is expected to exceed the {view.capacity:.2f} cores available by {view.beyond:.2f}"
            return "contention foreseen", f"{beyond}, and {victim} shares them with {group.name}: {what}."
        return "contention not over", f"{group.name} is demoted already: {what} as well."

    def _slice_reason(self, change: Held) -> tuple[str, str]:
        trial, what = self._memory.slices.trials.get(change.group), f"time slices of {change.strength / 1e6:g} ms"
        if trial is not None and trial.phase is Phase.KEPT and trial.long is None:
            return (
                "short slice",
                f"{change.group} waits only {trial.short:.1%} of its demand with short slices: {change.target} gets {what}.",
            )
        if trial is not None and trial.phase is Phase.KEPT:
            return "short slice", f"{change.group} does not wait less without short slices: {change.target} gets {what}."
        return (
            "short slice, compared later",
            f"{change.group} is protected: {change.target} gets {what}; a later comparison decides whether it keeps them.",
        )

    def _rejected(self, tick: Tick, group: Group, change: Held) -> tuple[str, ...]:
        if change.control is Control.SLICE:
            return ("a short slice without a demotion: by itself it gains little",)
        theirs = touches(tick.machine.rivals)
        said = [
            f"{control}: {STRIKES} times refused or without effect on {group.name}"
            for control in LISTED
            if self._memory.strikes.dropped(control, group.name)
        ]
        said += [f"{control}: left to {', '.join(who_touches(control, tick.machine.rivals))}" for control in sorted(theirs)]
        if change.control is Control.AUTOGROUP:
            said.append("nice of each process: does nothing across sessions while autogroup is on")
        elif isinstance(change.on, CgroupPlace):
            said.append("nice of each process, or of its autogroup: does nothing across cgroups")
        elif change.control is Control.FENCE:
            said.append("nice of each process: it slows a swarm less than the weight of a cgroup does")
        elif group.name in self._memory.swarms.mixed:
            said.append("a cgroup of its own: a process that must not be demoted descends from it, or did a moment ago")
        if group.name in self._pools:
            said.append(f"more than nice {self._config.pool_nice} inside a pool: a demoted lock holder would starve its siblings")
        return tuple(said)
