"""Twelve kinds of faults in real worker pools under real load, and hours without faults: what do nicety and its peers report?

    python -m benchmarks.anomaly.campaign record DIR                  # takes 35 minutes and nearly a whole CPU
    python -m benchmarks.anomaly.campaign judge DIR... --json FILE    # may be repeated, as fast as the CPU allows

`record` starts its own pools, makes one worker after the other faulty, and stores what nicety's reader saw (`DIR/traces`) and what
was done (`DIR/truth.jsonl`). It touches only its own processes and needs no privileges. `judge` runs the real observer and engine
over the traces and compares their flags with the truth. The first minutes have no faults; they train the model and the peers.
Several recordings are judged together: a recording with `--faults 0` adds healthy hours, which low rates of false alarms need.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from nicety.scheduler.config.sections import Quarantine

from ..claims import Claims
from .peers import PEERS
from .pools import CampaignError
from .record import read_truth, record
from .replay import Setting, fit, measured, replay
from .truth import (
    KINDS,
    LEAKS,
    LIGHT,
    PROMPT,
    REACTION,
    SECOND,
    STORMS,
    Alarm,
    Healthy,
    Hit,
    Judgement,
    Truth,
    healthy,
    judge,
    poisson_interval,
    together,
)

DEFAULT = Quarantine().false_alarms_per_day
FOR_EVER = 1 << 62
"""ns"""

UNFINISHED = 150.0
"""Most seconds that a fault lasts. If a recording was killed, the faults of this time before its end are missing from its truth."""

MODELS = ("trained", "baseline")
RATES = (100.0, 300.0, 500.0, 1000.0)
"""Settings at which the rate of false alarms is measured. Chosen: some dozens of worker-hours give no alarm to count at lower
ones."""

FALSE_SHARE = 0.05
"""Most share of all reports that may be about healthy workers (false discoveries). Chosen."""


def judged(truth: Truth, alarms: list[Alarm], holes: list[tuple[int, int]]) -> Judgement:
    """Judge the alarms after the part of the recording that is used for training."""
    header = truth.header
    seen = [alarm for alarm in alarms if header.trained < alarm.at <= header.end]
    return judge(truth.faults, seen, [*holes, (header.end, FOR_EVER)])


def table(rows: Mapping[str, Judgement], good: Healthy) -> str:
    """A line for each detector: faults found in time / injected by kind, and its wrong alarms."""
    head = f"{'detector':<26}" + "".join(f"{kind:>13}" for kind in KINDS)
    head += f"{'named':>7}{'false':>7}{'/day/100':>10}{'siblings':>9}{'victims':>8}{'after':>6}"
    lines = [head]
    for name, result in rows.items():
        line = f"{name:<26}"
        for kind in KINDS:
            line += f"{_cell([hit for hit in result.of([kind]) if hit.fault.variant != LIGHT]):>13}"
        named = result.named(KINDS)
        line += f"{'-' if name in ('IsolationForest', 'ECOD', 'Netdata') else f'{named:.0%}':>7}{len(result.false):>7}"
        line += f"{good.per_day_per_100(len(result.false)):>10.1f}"
        line += f"{len(result.siblings):>9}{len(result.victims):>8}{len(result.after):>6}"
        lines.append(line)
    return "\n".join(lines)


def by_variant(result: Judgement) -> dict[str, str]:
    """Faults found in time / injected, by kind and variant."""
    ways = sorted({(KINDS.index(hit.fault.kind), hit.fault.variant) for hit in result.hits})
    hits = {(kind, way): [hit for hit in result.of([KINDS[kind]]) if hit.fault.variant == way] for kind, way in ways}
    return {f"{KINDS[kind]} ({way})": _cell(found) for (kind, way), found in hits.items()}


def _cell(hits: list[Hit]) -> str:
    """Faults found in time / injected, and the median delay."""
    times = [hit.seconds for hit in hits if hit.in_time]
    return f"{len(times)}/{len(hits)}" + (f" {np.median(times):.0f}s" if times else "")


def claim(claims: Claims, name: str, result: Judgement, good: Healthy) -> None:
    """Add the claims about one of our own detectors."""

    def share(text: str, value: float, bound: float) -> None:
        """Add a claim about a share. NaN, a share of nothing, falls short."""
        if np.isnan(value):
            claims.add(f"{name}: {text}, share", "none", f">= {bound:g}", False)
        else:
            claims.at_least(f"{name}: {text}, share", value, bound)

    for kind in PROMPT:
        share(f"{kind} found within {REACTION:g} s", result.recall([kind]), 0.95)
    for kind in LEAKS:
        share(f"{kind} found before half of the headroom is gone", result.recall([kind]), 0.95)
    share(f"storms of both kinds found within {REACTION:g} s", result.recall(STORMS), 0.95)
    share("leaks of all kinds found before half of the headroom is gone", result.recall(LEAKS), 0.95)
    share("found faults whose first flag has the right kind", result.named(KINDS), 0.90)
    share("found faults whose last flag has the right kind", result.named(KINDS, corrected=True), 0.90)
    false = good.per_day_per_100(len(result.false))
    claims.at_most(f"{name}: false alarms per day per 100 workers at the default setting", false, 1.0)
    wrong = len(result.false) + len(result.siblings) + len(result.victims)
    right = sum(hit.first is not None for hit in result.hits)
    claims.at_most(f"{name}: reports about healthy workers, share", wrong / max(wrong + right, 1), FALSE_SHARE)
    starved = result.of(["starved"])
    share(
        "antagonist of a starved worker named", sum(hit.antagonist for hit in starved) / len(starved) if starved else np.nan, 0.90
    )


def claim_step_up(claims: Claims, model: str, recordings: Sequence[Recording]) -> dict[str, int]:
    """Add a claim about what a step-up procedure over the workers of a tick would report in addition. The policy does without it;
    quarantine.py says why."""
    more = healthy_ones = 0
    for recording in recordings:
        stepped_up = recording.stepped_up[model]
        found = {hit.fault.id for hit in recording.found[Setting(model, DEFAULT)].hits if hit.in_time}
        more += sum(hit.in_time and hit.fault.id not in found for hit in stepped_up.hits)
        healthy_ones += len({(alarm.pool, alarm.worker) for alarm in (*stepped_up.false, *stepped_up.siblings)})
    print(f"{model}: stepping up would report {more} more faults and {healthy_ones} healthy workers, without patience")
    claims.at_most(f"{model}: faults that only stepping up (Benjamini-Hochberg) would report", more, 0)
    return {"faults": more, "healthy": healthy_ones}


def claim_rate(claims: Claims, setting: Setting, result: Judgement, good: Healthy) -> dict[str, Any]:
    """Add a claim that the measured rate is within a factor of 2 of the setting, and print whether the count suffices to judge
    that."""
    count, expected = len(result.false), good.expected(setting.rate)
    low, high = (bound / expected for bound in poisson_interval(count))
    verdict = "within 2" if low >= 0.5 and high <= 2 else "beyond 2" if high < 0.5 or low > 2 else "too few to judge"
    print(
        f"{setting.model}, set to {setting.rate:g} a day per 100 workers: {count} false alarms, {expected:.2g} expected; "
        f"95 % interval {low:.2g} to {high:.2g} times the setting: {verdict}"
    )
    ratio = count / expected
    text = f"{setting.model}: false alarms / setting, at {setting.rate:g} a day per 100 workers"
    claims.add(text, ratio, "0.5..2", 0.5 <= ratio <= 2)
    row = {"model": setting.model, "set": setting.rate, "seen": count, "expected": expected}
    return row | {"low": low, "high": high, "verdict": verdict}


def missed(result: Judgement, begin: int) -> list[str]:
    """A line for each fault that was not found in time or not named right."""
    lines = []
    for hit in result.hits:
        fault = hit.fault
        if hit.in_time and hit.named:
            continue
        what = "not found" if hit.first is None else f"called {hit.first.kind or 'odd'} after {hit.seconds:.0f} s"
        what += " and corrected" if hit.corrected and not hit.named else ""
        late = "" if hit.in_time or hit.first is None else ", too late"
        lines.append(
            f"{_moment(fault.onset, begin)} fault {fault.id} {fault.kind} ({fault.variant}, {fault.strength:g}) in {fault.pool} "
            f"pid {fault.workers[0][0]} for {(fault.end - fault.onset) / SECOND:.0f} s: {what}{late}"
        )
    return lines


def wrong(alarms: list[Alarm], truth: Truth) -> list[str]:
    """A line for each alarm, with the recent events of its pool."""
    lines = []
    for alarm in alarms:
        lately = [event for event in truth.events if event.onset <= alarm.at <= event.end + 120 * SECOND]
        going = ", ".join(event.what for event in lately if event.pool == alarm.pool) or "nothing special"
        who = f"{alarm.pool} pid {alarm.worker[0]}"
        lines.append(f"{_moment(alarm.at, truth.header.begin)} {who} called {alarm.kind} ({going}): {alarm.text}")
    return lines


def _moment(at: int, begin: int) -> str:
    seconds = (at - begin) / SECOND
    return f"{int(seconds // 60):3d}:{seconds % 60:04.1f}"


def show(truth: Truth, good: Healthy) -> None:
    """Print what was recorded."""
    header = truth.header
    counts = Counter(fault.kind for fault in truth.faults)
    workers = sum(header.pools.values())
    minutes = (header.end - header.begin) / SECOND / 60
    print(
        f"{minutes:.0f} minutes, {len(header.pools)} pools, {workers} workers; {len(truth.faults)} faults: "
        + ", ".join(f"{counts[kind]} {kind}" for kind in KINDS)
    )
    events = Counter(event.what for event in truth.events)
    print(
        f"healthy after the training part: {good.pool_hours:.1f} pool-hours, {good.worker_hours:.1f} worker-hours; "
        + ", ".join(f"{count} x {what}" for what, count in sorted(events.items()))
    )


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording and its judgements."""

    truth: Truth
    good: Healthy
    found: Mapping[Setting, Judgement]
    peers: Mapping[str, Judgement]
    stepped_up: Mapping[str, Judgement]  # by model


def judge_recording(folder: Path, peers: bool) -> Recording:
    """Judge one recording, with models trained on its first minutes."""
    truth = read_truth(folder)
    if not truth.header.end:
        last = max([truth.header.trained, *(fault.end - round(UNFINISHED * SECOND) for fault in truth.faults)])
        truth.header = msgspec.structs.replace(truth.header, end=last)
        print(f"the recording has no end: it is judged up to {UNFINISHED:g} s before the last fault that is over")
    started = time.process_time()
    ticks, lives, holes = measured(folder, truth)
    good = healthy(truth.header.pools, truth.faults, truth.header.trained, truth.header.end, holes)
    show(truth, good)
    if holes:
        lost = sum(end - begin for begin, end in holes) / SECOND
        print(f"holes of {lost:.0f} s in the recording: faults that should have been found then are not judged")
    fitted = fit(ticks, truth)
    print(f"trained on {len(ticks)} ticks: {fitted.reason}", flush=True)
    reported = replay(folder, truth, fitted, [Setting(model, rate) for model in MODELS for rate in (DEFAULT, *RATES)])
    print(f"replayed in {time.process_time() - started:.0f} s of CPU", flush=True)
    others = {name: judged(truth, peer(lives, truth.header.trained), holes) for name, peer in PEERS.items()} if peers else {}
    return Recording(
        truth,
        good,
        {setting: judged(truth, alarms, holes) for setting, alarms in reported.flags.items()},
        others,
        {model: judged(truth, reported.stepped_up[Setting(model, DEFAULT)], holes) for model in MODELS},
    )


def judge_recordings(folders: Sequence[Path], peers: bool, details: bool, claims: Claims) -> dict[str, Any]:
    """Judge all recordings together; the figures for JSON."""
    recordings = [judge_recording(folder, peers) for folder in folders]
    good = sum((recording.good for recording in recordings), Healthy(0.0, 0.0))
    found = {each: together(recording.found[each] for recording in recordings) for each in recordings[0].found}
    rows = {f"nicety {model}": found[Setting(model, DEFAULT)] for model in MODELS}
    rows |= {name: together(recording.peers[name] for recording in recordings) for name in recordings[0].peers}
    claims.at_least("faults injected and judged", len(rows[f"nicety {MODELS[0]}"].hits), 200)
    claims.at_least("healthy running watched, pool-hours", good.pool_hours, 6)
    print(table(rows, good))
    rates: list[dict[str, Any]] = []
    more: dict[str, dict[str, int]] = {}
    for model in MODELS:
        print(f"{model}: " + ", ".join(f"{name} {cell}" for name, cell in by_variant(rows[f"nicety {model}"]).items()))
        claim(claims, model, rows[f"nicety {model}"], good)
        more[model] = claim_step_up(claims, model, recordings)
        rates += [claim_rate(claims, Setting(model, rate), found[Setting(model, rate)], good) for rate in RATES]
    for recording in recordings if details else ():
        for model in MODELS:
            tell(model, recording.found[Setting(model, DEFAULT)], recording.found[Setting(model, max(RATES))], recording.truth)
    return {
        "pool_hours": good.pool_hours,
        "worker_hours": good.worker_hours,
        "faults": dict(Counter(fault.kind for recording in recordings for fault in recording.truth.faults)),
        "detectors": {name: figures(result, good) for name, result in rows.items()},
        "rates": rates,
        "stepping_up": more,
    }


def tell(model: str, result: Judgement, worst: Judgement, truth: Truth) -> None:
    """Print each fault that was missed and each wrong alarm."""
    print(f"\n{model}: missed, late or named wrong")
    print("\n".join(missed(result, truth.header.begin)))
    for title, alarms in (
        ("false alarms", result.false),
        ("siblings of the faulty", result.siblings),
        ("victims of an antagonist elsewhere", result.victims),
        ("after a fault", result.after),
        (f"false alarms at {max(RATES):g} a day", worst.false),
    ):
        print(f"\n{model}: {title}")
        print("\n".join(wrong(alarms, truth)))


def figures(result: Judgement, good: Healthy) -> dict[str, Any]:
    """A detector's row of the table, for JSON."""
    delays = {kind: result.delay([kind]) for kind in KINDS}
    return {
        "by_variant": by_variant(result),
        "found_in_time": {kind: sum(hit.in_time for hit in result.of([kind])) for kind in KINDS},
        "median_seconds": {kind: None if np.isnan(delay) else round(delay, 1) for kind, delay in delays.items()},
        "first_kind_right": {kind: sum(hit.named for hit in result.of([kind])) for kind in KINDS},
        "last_kind_right": {kind: sum(hit.corrected for hit in result.of([kind])) for kind in KINDS},
        "false_alarms": len(result.false),
        "false_alarms_per_day_per_100": good.per_day_per_100(len(result.false)),
        "siblings": len(result.siblings),
        "victims": len(result.victims),
        "after": len(result.after),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Faults and healthy hours in real pools, and what nicety and its peers report.")
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="start pools, make workers faulty, and record it")
    recording.add_argument("folder", type=Path, metavar="DIR", help="folder for the recording")
    recording.add_argument("--minutes", type=float, default=35, help="minutes to record (default 35)")
    recording.add_argument("--pools", type=int, default=28, help="pools of 3 to 6 workers (default 28)")
    recording.add_argument("--faults", type=int, default=216, help="faults to inject (default 216: 18 of each kind)")
    recording.add_argument("--trained", type=float, default=4, help="minutes without faults at the start (default 4)")
    recording.add_argument("--most", type=int, default=14, help="most faults at a time, in different pools (default 14)")
    recording.add_argument("--seed", type=int, default=1, help="seed of the load, the faults and their times (default 1)")
    recording.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help="inject only these faults")
    judging = commands.add_parser("judge", help="replay a recording and compare with the truth")
    judging.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="a recording; several are judged together")
    judging.add_argument("--no-peers", action="store_true", help="judge only nicety")
    judging.add_argument("--details", action="store_true", help="print each fault that was missed and each wrong alarm")
    judging.add_argument("--json", type=Path, metavar="FILE", help="write the claims as JSON")
    options = parser.parse_args()
    try:
        if options.command == "record":
            truth = record(
                options.folder,
                options.minutes,
                options.pools,
                options.faults,
                options.trained,
                options.most,
                options.seed,
                options.kinds,
            )
            show(truth, healthy(truth.header.pools, truth.faults, truth.header.trained, truth.header.end))
            return 0
        claims = Claims()
        report = judge_recordings(options.folders, not options.no_peers, options.details, claims)
    except CampaignError as error:
        print(f"anomaly_campaign: {error}", file=sys.stderr)
        return 1
    claims.close(options.json, **report)
    return 0 if all(row["holds"] for row in claims.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
