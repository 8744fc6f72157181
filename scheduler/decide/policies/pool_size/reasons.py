"""Why a pool is resized: the sentence and the figures of its decisions. Pure: decides nothing."""

from __future__ import annotations

import math

from .....models.scaling import WORTH
from ....config.sections import Config
from ....decision import Chosen, Note, Pool, Predicted, Rules, Scaled, Tick, Why
from ..policy import Figures, figures
from .need import MARGIN, UNLIKE, Bound, Need, SizeRule, busy_share
from .objective import Goal, Sizing


class PoolReasons:
    """Says why."""

    def __init__(self, config: Config, sizing: Sizing) -> None:
        self._config = config.pool_size
        self._sizing = sizing

    def why(self, pool: Pool, need: Need, size: int, current: int) -> Why:
        """Why a pool changes from `current` to `size` workers."""
        config = self._config
        seconds, source = need.expected.seconds, need.expected.source
        predicted = pool.predicted
        rule = SizeRule.FEWER if size < current else need.rule
        return Why(
            rule=rule.value,
            text=f"{pool.name}: {current} to {size} workers: {self._text(pool, need, rule, seconds)}",
            figures=figures(
                load_now=pool.load,
                load_60s=pool.load_stable,
                load_6s=pool.load_panic,
                load_since_fall=None if need.fallen is None else need.mean,
                fallen_seconds=need.fallen,
                queued=pool.queued,
                forecast_median=need.expected.median,
                forecast_used=need.forecast,
                forecast_quantile=config.quantile,
                horizon_seconds=seconds,
                start_seconds=pool.start_seconds,
                forecast_source=source or "none",
                seasonality=_standing(predicted),
                **({} if predicted is None else _figures(predicted)),
                workers_by_season=need.by_season,
                workers_by_forecast=need.by_forecast,
                workers_by_reactive_rule=need.by_reaction,
                workers_by_cpu_headroom=need.by_cpu,
                workers_by_memory_headroom=need.by_memory,
                workers_by_scaling_curve=need.by_scaling,
                workers_by_starved_starts=need.by_starts,
                rules=None if need.chosen is None else need.chosen.rules.value,
                workers_by_replay=_constant(need),
                **({} if pool.scaling is None or need.by_scaling is None else _curve(pool.scaling)),
                minimum=pool.minimum,
                maximum=pool.maximum,
                limit_that_bound=need.bound.value or "none",
                **self._objective_figures(pool, need, size),
                size=pool.size,
                current=current,
            ),
            rejected=(*self._fewer(pool, need, size), *self._rejected(pool, need, source)),
            flips=self._flips(pool, need, size, current),
        )

    def held(self, tick: Tick, pool: Pool) -> Note:
        """Why a pool is not grown that needs more workers."""
        starting = [worker for worker in pool.workers if not worker.ready]
        return Note(
            f"starts {pool.name}",
            f"{pool.name}: the load asks for more workers, but none is started: those started before waited for a CPU for longer "
            "than they ran, and all CPUs are busy.",
            figures(
                starting=len(starting),
                starting_wait_cores=sum(worker.wait for worker in starting),
                starting_cpu_cores=sum(worker.cpu for worker in starting),
                start_seconds=pool.start_seconds,
                busy_cores=tick.machine.busy,
                load_now=pool.load,
                size=pool.size,
            ),
        )

    def _text(self, pool: Pool, need: Need, rule: SizeRule, seconds: float) -> str:
        """Why, in a sentence."""
        config, predicted = self._config, pool.predicted
        if predicted is not None and need.by_season is not None:
            period = _period(predicted)
            if rule is SizeRule.SEASONALITY:
                return (
                    f"{period} predicts {predicted.median:.3g} Erlang of load, at most {predicted.high:.3g}, "
                    f"within {predicted.horizon:.3g} s."
                )
            if rule is SizeRule.PRESENT:
                return f"the load is {pool.load:.3g} Erlang (busy and queued); {period} had predicted {predicted.now:.3g}."
            if rule is SizeRule.FEWER:
                soon = f"no more workers are needed in the next {config.down_after:g} s"
                return f"the load has fallen as {period} had predicted, and {soon}."
        if need.chosen is not None and need.rule is SizeRule.CONSTANT and rule in (SizeRule.CONSTANT, SizeRule.FEWER):
            return f"a replay of {need.chosen.hours:.3g} h of its load chose a constant size of {need.chosen.size}."
        if rule is SizeRule.FEWER and need.fallen is not None:
            return f"the load fell {need.fallen:.3g} s ago and has been {need.mean:.3g} Erlang since."
        if rule is SizeRule.FEWER:
            return f"no more were needed in the last {config.down_after:g} s."
        if rule is SizeRule.FORECAST:
            by = "" if pool.later is None else f", by {need.expected.source}"
            return f"up to {need.forecast:.3g} Erlang of load are expected in {seconds:g} s{by}."
        if rule is SizeRule.MINIMUM:
            return "the configured minimum."
        load = pool.load_panic if rule is SizeRule.PANIC and pool.load_panic is not None else need.mean
        objective = self._sizing.objective(pool)
        aim = f"the target is {config.target:g} per worker" if objective is None else f"the objective is {objective}"
        return f"the load has been {load:.3g} Erlang; {aim}."

    def _sized_for(self, pool: Pool, need: Need) -> tuple[float, float]:
        """The load that the rule sizes for, and the busy share that it aims at."""
        config = self._config
        if need.rule is SizeRule.CONSTANT:
            return pool.load_stable or 0.0, config.predicted_target
        if need.by_season is not None and pool.predicted is not None and need.rule is not SizeRule.PRESENT:
            return max(pool.predicted.median, 0.0), busy_share(config, pool.predicted)
        if need.forecast is not None and (need.rule is SizeRule.FORECAST or need.mean is None):
            return need.forecast, config.predicted_target
        if need.rule is SizeRule.PRESENT or need.mean is None:
            return pool.load or 0.0, config.predicted_target
        recent = pool.load_panic if need.rule is SizeRule.PANIC and pool.load_panic is not None else need.mean
        return recent, config.target

    def unkept(self, pool: Pool, need: Need) -> str:
        """Why the objective cannot be kept, and what to do; "": it can, or there is none."""
        objective = self._sizing.objective(pool)
        if objective is None:
            return ""
        if objective.goal is not Goal.UTILIZATION and pool.service is None:
            return (
                f"service times are not known, so {objective} cannot be kept and the load alone decides; they are known after some "
                "dozens of requests where single requests can be seen, else set objective = { utilization = 0.7 }"
            )
        if self._sizing.beyond(pool):
            return (
                f"more than 5 % of the requests take longer than {objective.value:g} s even if none waits, so no number of workers "
                f"keeps {objective}; look at what they wait for, such as a database, or allow more"
            )
        load, share = self._sized_for(pool, need)
        if need.rule is SizeRule.CONSTANT or self._sizing.wanted(load, pool, share) <= need.workers:
            return ""
        rooms = (need.by_cpu, Bound.CPU), (need.by_memory, Bound.MEMORY), (need.by_scaling, Bound.SCALING)
        least = min(((room, bound) for room, bound in rooms if room is not None), default=(pool.maximum, Bound.MAXIMUM))
        if least[0] >= pool.maximum:
            return f"{objective} takes more than {pool.maximum} workers, the maximum; raise it or allow more"
        if least[1] is Bound.SCALING:
            return (
                f"{objective} takes more workers than are worth having (scaling curve); look for a quota or a lock that they share"
            )
        return f"{objective} takes more workers than this machine has room for ({least[1]}); move work elsewhere or allow more"

    def _objective_figures(self, pool: Pool, need: Need, size: int) -> Figures:
        """The objective, and what is predicted of it with one worker fewer, as decided, and with one more."""
        objective, service = self._sizing.objective(pool), pool.service
        if objective is None:
            return {}
        found: dict[str, float | int | str | None] = {
            "objective": str(objective),
            "objective_unkept": self.unkept(pool, need) or None,
        }
        if objective.goal is not Goal.UTILIZATION and service is not None:
            found |= {"service_mean_seconds": service.mean, "service_p95_seconds": service.p95, "capacity": pool.capacity}
            load, share = self._sized_for(pool, need)
            for name, workers in (("one_fewer", size - 1), ("as_decided", size), ("one_more", size + 1)):
                found[f"workers_{name}"] = workers
                found[f"p95_{name}"] = _seconds(self._sizing.expected(workers, load, pool, share))
        return figures(**found)

    def _fewer(self, pool: Pool, need: Need, size: int) -> tuple[str, ...]:
        """Why not one worker fewer, if the objective says so."""
        objective = self._sizing.objective(pool)
        load, share = self._sized_for(pool, need)
        expected = self._sizing.expected(size - 1, load, pool, share)
        if (
            objective is None
            or expected is None
            or size <= pool.minimum
            or expected <= objective.value
            or self._sizing.beyond(pool)
        ):
            return ()
        return (f"{size - 1} workers: the predicted p95 is {_seconds(expected)}, the objective {objective}",)

    def _rejected(self, pool: Pool, need: Need, source: str) -> tuple[str, ...]:
        said, predicted = [], pool.predicted
        if source and need.forecast is None and need.chosen is None:
            said.append(f"the load forecast of {source}: not a finite number, ignored")
        if need.by_season is not None:
            for workers, whose in ((need.by_reaction, "the reactive rule"), (need.by_forecast, "the forecast")):
                if workers is not None and workers != need.change:
                    said.append(f"{workers} workers, which {whose} asks for: the load follows its seasonal pattern")
        else:
            if need.chosen is not None:
                said.append(f"the other rules: {_cheapest(need.chosen)}")
            elif predicted is not None:
                right = f"{_share(predicted)} of its newest period came as predicted"
                said.append(f"what {_period(predicted)} predicts: not trusted; {right}")
            if need.by_reaction is not None and need.by_forecast is not None and need.by_reaction != need.by_forecast:
                less = min((need.by_reaction, "the reactive rule"), (need.by_forecast, "the forecast"))
                said.append(f"{less[0]} workers, which {less[1]} alone asks for: the larger of the two counts")
        if need.bound:
            because = _little(pool.scaling) if need.bound is Bound.SCALING and pool.scaling is not None else ""
            said.append(f"{need.change} workers, which the load asks for: limited by {need.bound}{because}")
        return tuple(said)

    def _flips(self, pool: Pool, need: Need, size: int, current: int) -> tuple[str, ...]:
        if need.bound is Bound.SCALING and size > current and pool.scaling is not None:
            least = WORTH * pool.scaling.single
            lift = f"more than {least:.2g} cores used by each worker beyond {need.by_scaling} would lift the limit"
            return (*self._flips_of_load(pool, need, size, current), lift)
        return self._flips_of_load(pool, need, size, current)

    def _flips_of_load(self, pool: Pool, need: Need, size: int, current: int) -> tuple[str, ...]:
        config = self._config
        if need.rule is SizeRule.CONSTANT and need.chosen is not None:
            most, usual = UNLIKE * need.chosen.peak, f"{need.chosen.least:.3g} to {need.chosen.most:.3g} Erlang"
            return (
                f"a mean load above {most:.3g} Erlang would add workers",
                f"a load of other than {usual} for ten minutes would bring back all rules",
            )
        quantile = "median" if config.quantile == 0.5 else f"{config.quantile:.0%} quantile"
        forecast = f"a {quantile} of the load forecast"
        if need.by_season is not None and pool.predicted is not None:
            unlike = "load unlike what was predicted would bring back the reactive rule"
            share = busy_share(config, pool.predicted)
            if size < current:
                enough = f"{self._sizing.load_for(current - 1, pool, share):.3g} Erlang or more"
                return f"{enough} predicted for the next {config.down_after:g} s would have kept {current}", unlike
            most = self._sizing.load_for(current, pool, share)
            return f"at most {most:.3g} Erlang predicted, and no more at present, would keep {current}", unlike
        if size < current:
            most = self._sizing.load_for(current - 1, pool, config.predicted_target) / MARGIN
            mean = self._sizing.load_for(current - 1, pool, config.target) / MARGIN
            text = f"in the last {config.down_after:g} s {forecast} above {most:.3g} Erlang, or a mean load above {mean:.3g},"
            return (f"{text} would have kept {current}",)
        said = []
        if need.by_forecast is not None and need.by_forecast > current:
            said.append(f"{forecast} below {self._sizing.load_for(current, pool, config.predicted_target):.3g} Erlang")
        if need.by_reaction is not None and need.by_reaction > current:
            said.append(f"a mean load below {self._sizing.load_for(current, pool, config.target):.3g} Erlang")
        return (" and ".join(said) + f" would keep {current}",) if said else ()


def _constant(need: Need) -> int | None:
    return need.chosen.size if need.chosen is not None and need.chosen.rules is Rules.CONSTANT else None


def _cheapest(chosen: Chosen) -> str:
    took = f"{chosen.rules.words(chosen.size)} took {chosen.workers:.3g} workers in a replay of {chosen.hours:.3g} h"
    return f"{took}, and none that was as good took clearly fewer"


def _seconds(expected: float | None) -> str | None:
    """A predicted time for people; None: it is not predicted."""
    return None if expected is None else f"{expected:.3g} s" if math.isfinite(expected) else "without end"


def _period(predicted: Predicted) -> str:
    return f"a seasonal pattern of {predicted.period:.4g} s, seen {predicted.seen} times,"


def _share(predicted: Predicted) -> str:
    return f"{max(predicted.right, 0.0):.0%}"


def _standing(predicted: Predicted | None) -> str:
    return "none" if predicted is None else "trusted" if predicted.trusted else "not trusted"


def _figures(predicted: Predicted) -> dict[str, float | int]:
    return {
        "season_seconds": predicted.period,
        "seasons_seen": predicted.seen,
        "season_right": predicted.right,
        "season_abrupt": predicted.abrupt,
        "season_horizon_seconds": predicted.horizon,
        "predicted_now": predicted.now,
        "predicted_median": predicted.median,
        "predicted_high": predicted.high,
    }


def _curve(scaling: Scaled) -> dict[str, float | int]:
    return {
        "scaling_single_cores": scaling.single,
        "scaling_contention": scaling.contention,
        "scaling_coherency": scaling.coherency,
        "scaling_sizes_seen": scaling.sizes,
        "scaling_largest_seen": scaling.largest,
    }


def _little(scaling: Scaled) -> str:
    added = "" if scaling.adds is None else f" (each added {scaling.adds:.2g} cores)"
    return (
        f", seen at {scaling.sizes} sizes up to {scaling.largest:.3g}: one more would do less than {WORTH:.0%} of a worker{added}"
    )
