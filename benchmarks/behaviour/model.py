"""Whether the behaviour model distinguishes services from batch work, on programs that it was not trained on.

    python -m benchmarks.behaviour.model CORPUS... [--json FILE] [--ship] [--compare]
    python -m benchmarks.behaviour.model CORPUS... --shipped [--json FILE]

A CORPUS is a folder that `programs.py record` wrote; several must have the same labels. The model is fitted to the programs that
are not in `held_out.txt`. Then every performance of a held-out program is judged tick by tick, as the daemon would after a cold
start. `--ship` writes this model to `models/shipped`; it has never seen the held-out programs. `--shipped` judges the model that
nicety comes with instead of fitting one; a corpus of only held-out programs is enough for that (`programs.py record --held-out`).
`--compare` adds the results of a random forest and of a single rule on the same rows. `--training-only` never reads the held-out
programs.

A performance is one program in one recorded session. It is *decided* if it is classified as interactive or batch. For an exempt
program no decision is right, so the decided share covers only the other two classes, and each class given to an exempt program
counts as a wrong decision. All programs count equally, however often they were performed.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nicety import __version__
from nicety.models.artifact import FEATURES, Card, DataRange, shipped
from nicety.models.behaviour import BEHAVIOUR_CHANNELS, BEHAVIOUR_FEATURES, CLASSES, BehaviourModel, Behaviours, Floats, Summaries
from nicety.models.records import Class, Spared
from nicety.scheduler.config.sections import Config, parse
from nicety.scheduler.explain.layout import table
from nicety.scheduler.observe.measure import Measurer
from nicety.scheduler.store.traces import read_traces
from nicety.training.behaviour_fit import CERTAINTY, Fitted, Programs, Sightings, fit_behaviour, folds, log_loss, verdicts

from ..claims import Claims
from ..shipping import ship

MOMENTS = (5, 10, 20)
"""Ticks of activity after which verdicts are counted. Chosen."""

HOG_CORES = (0.25, 0.9)
"""Least CPU use and demand, in cores, of the tick from which the time until batch work is known is counted: the program wants a
CPU and got some of it. A service is protected within two ticks if the batch work is known within one or two. Chosen."""

BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 1.0)
"""Limits of the bins of the calibration table. Chosen."""

Ticks = list[tuple[tuple[str, ...], Floats]]


@dataclass(frozen=True, slots=True)
class Corpus:
    """A recording with its labels."""

    config: Config
    classes: Mapping[str, Class]  # of groups
    families: Mapping[str, str]
    held_out: frozenset[str]
    sessions: tuple[Ticks, ...]
    data: DataRange


@dataclass(slots=True)
class Performance:
    """One program in one session, as the daemon would have judged it."""

    program: str
    class_: Class
    said: dict[int, Class] = field(default_factory=dict)  # verdict by ticks of activity; the last one stands for later moments
    right_after: int | None = None  # ticks of activity until the class was right; None: never
    worked: int = 0  # ticks of activity since the first one with HOG_CORES; 0: there was none
    worked_after: int | None = None  # like right_after, but counted like `worked`; 0: the class was right before
    active: int = 0
    p: tuple[float, float] = (0.0, 0.0)  # probabilities of interactive and batch at the end
    ever_batch: bool = False
    evidence: tuple[tuple[str, float, float], ...] = ()
    spared: Spared | None = None  # at the end

    @property
    def end(self) -> Class:
        """The verdict at the last moment."""
        return self.said.get(MOMENTS[-1], Class.EXEMPT)


def load(*directories: Path) -> Corpus:
    """Read a corpus. Processes in no group with a class are left out of the ticks, because their true class is not known."""
    from .programs import PROGRAMS

    labels, *others = {((place / "labels.toml").read_text(), (place / "held_out.txt").read_text()) for place in directories}
    if others:
        raise SystemExit("the recordings have different labels or held-out programs")
    config = parse(labels[0], "labels.toml")
    classes = {name: Class(rule.class_) for name, rule in config.groups.items() if rule.class_ is not None}
    families = {program.name: program.family or program.name for program in PROGRAMS}
    held_out = frozenset(labels[1].split())
    unknown = sorted(held_out - classes.keys())
    if unknown:
        raise SystemExit(f"held_out.txt names {', '.join(unknown)}, and labels.toml has no such group")
    across = {families.get(name, name) for name in held_out} & {families.get(name, name) for name in classes.keys() - held_out}
    if across:
        raise SystemExit(f"families on both sides of the split: {', '.join(sorted(across))}")
    sessions: list[Ticks] = []
    session, measurer = "", Measurer(config)
    walls, processes, ticks = list[int](), 0, 0
    for recording, snapshot in read_traces([place / "traces" for place in directories]):
        if recording.id != session:
            session, measurer = recording.id, Measurer(config, recording.interval)
            sessions.append([])
        measured = measurer.measure(snapshot)
        if measured is None:
            continue
        walls.append(snapshot.wall)
        processes, ticks = max(processes, len(snapshot.table)), ticks + 1
        known = [place for place, name in enumerate(measured.groups) if name in classes]
        sessions[-1].append((tuple(measured.groups[place] for place in known), measured.behaviour[known]))
    data = DataRange(min(walls), max(walls), ticks, processes, len(classes) - len(held_out), "")
    return Corpus(config, classes, families, held_out, tuple(sessions), data)


def programs_of(corpus: Corpus, wanted: frozenset[str], *, classes: Mapping[str, Class] | None = None) -> Programs:
    """Rows of the wanted programs, from all sessions."""
    sightings = Sightings(1.0)
    chosen = {name: class_ for name, class_ in (classes or corpus.classes).items() if name in wanted}
    tick = 0
    for session in corpus.sessions:
        sightings.cut()
        for groups, values in session:
            sightings.add(tick, groups, values, chosen)
            tick += 1
    found = sightings.finish().programs()
    families = tuple(corpus.families.get(name, name) for name in found.names)
    return Programs(found.names, families, found.classes, found.rows, found.owners)


def perform(model: BehaviourModel, corpus: Corpus, wanted: frozenset[str], certainty: float = CERTAINTY) -> list[Performance]:
    """Every performance of the wanted programs, judged by the code that the daemon uses."""
    found = []
    for session in corpus.sessions:
        behaviours, summaries = Behaviours(model, certainty), Summaries()
        seen: dict[str, Performance] = {}
        for groups, values in session:
            said = behaviours.step(groups, values)
            _, active = summaries.step(groups, values)
            for place, name in enumerate(groups):
                if name not in wanted or not active[place]:
                    continue
                mine = seen.setdefault(name, Performance(name, corpus.classes[name]))
                mine.active += 1
                cpu, wait = values[place, BEHAVIOUR_CHANNELS.index("cpu")], values[place, BEHAVIOUR_CHANNELS.index("wait")]
                if (cpu >= HOG_CORES[0] and cpu + wait >= HOG_CORES[1]) or mine.worked:
                    mine.worked += 1
                behaviour = said[place]
                if behaviour is None:
                    continue
                mine.p, mine.evidence = (behaviour.p_interactive, behaviour.p_batch), behaviour.evidence
                mine.spared = behaviour.spared
                mine.ever_batch |= behaviour.inferred is Class.BATCH
                if behaviour.inferred is mine.class_ and mine.right_after is None:
                    mine.right_after = mine.active
                    mine.worked_after = mine.worked
                for moment in MOMENTS:
                    if mine.active <= moment:
                        mine.said[moment] = behaviour.inferred
        found += seen.values()
    return found


@dataclass(frozen=True, slots=True)
class Score:
    """The result of a set of performances at one moment."""

    programs: int
    decided: float
    right: float
    harmed: int  # performances of interactive programs called batch
    harmed_programs: tuple[str, ...]


def score(performances: Sequence[Performance], moment: int) -> Score:
    """Shares of programs at a moment; each program counts with the share of its performances."""
    by: dict[str, list[Performance]] = defaultdict(list)
    for mine in performances:
        by[mine.program].append(mine)
    decided, right, wrong, two = 0.0, 0.0, 0.0, 0
    for plays in by.values():
        said = [mine.said.get(moment, Class.EXEMPT) for mine in plays]
        truth = plays[0].class_
        given = sum(answer is not Class.EXEMPT for answer in said) / len(said)
        hits = sum(answer is truth for answer in said) / len(said) if truth is not Class.EXEMPT else 0.0
        two += truth is not Class.EXEMPT
        decided += given if truth is not Class.EXEMPT else 0.0
        right += hits
        wrong += given - hits
    harmed = [mine.program for mine in performances if (mine.class_, mine.said.get(moment)) == (Class.INTERACTIVE, Class.BATCH)]
    return Score(len(by), decided / max(two, 1), right / max(right + wrong, 1e-9), len(harmed), tuple(sorted(set(harmed))))


def calibration(chances: Floats, programs: Programs) -> list[list[str]]:
    """Rows of the calibration table: how often a class with a probability in each bin was true, on programs that were not fitted
    to. The rows of a program share its weight."""
    answers, weights = programs.answers(), programs.weights()
    rows = []
    for low, high in pairwise(BINS):
        cells = [f"{low:.0%} to {high:.0%}"]
        for column in (0, 1):
            p = chances[:, column]
            mine = (p >= low) & ((p < high) | (high == 1.0))
            weight = weights[mine].sum()
            if weight <= 0:
                cells += ["", "", ""]
                continue
            true = (weights[mine] * (answers[mine] == column)).sum() / weight
            cells += [f"{weight:.1f}", f"{np.average(p[mine], weights=weights[mine]):.0%}", f"{true:.0%}"]
        rows.append(cells)
    return rows


def compared(programs: Programs, fitted: Fitted) -> list[list[str]]:
    """The results of other models on the same rows, each fitted without the family of the program that it judges."""
    from sklearn.ensemble import RandomForestClassifier

    forest, rule = np.zeros((len(programs.rows), len(CLASSES))), np.zeros((len(programs.rows), len(CLASSES)))
    filled = np.where(np.isnan(programs.rows), -1.0, programs.rows)
    for known, judged in folds(programs):
        train, test = np.isin(programs.owners, known), np.isin(programs.owners, judged)
        model = RandomForestClassifier(300, min_samples_leaf=3, max_features=0.4, random_state=1, n_jobs=1)
        model.fit(filled[train], programs.answers()[train], sample_weight=programs.weights()[train])
        forest[np.ix_(test, model.classes_)] = np.clip(model.predict_proba(filled[test]), 0.005, 0.99)
    listens = np.nan_to_num(programs.rows[:, BEHAVIOUR_FEATURES.index("listens")]) > 0
    busy = programs.rows[:, BEHAVIOUR_FEATURES.index("cores_wanted")] > 0.9
    rule[:] = (0.05, 0.05, 0.9)
    rule[busy & ~listens] = (0.03, 0.94, 0.03)
    rule[listens] = (0.94, 0.03, 0.03)
    rows = []
    for name, chances in (("additive model", fitted.chances), ("random forest", forest), ("listens, else busy", rule)):
        said = verdicts(name, chances, programs)
        two = [row for row in said if row.class_ is not Class.EXEMPT]
        given = [row for row in said if row.said is not Class.EXEMPT]
        rows.append(
            [
                name,
                f"{log_loss(chances, programs):.3f}",
                f"{sum(row.said is not Class.EXEMPT for row in two) / len(two):.0%}",
                f"{sum(row.said is row.class_ for row in given) / max(len(given), 1):.0%}",
                str(sum((row.class_, row.said) == (Class.INTERACTIVE, Class.BATCH) for row in said)),
            ]
        )
    return rows


def times(performances: Sequence[Performance]) -> dict[str, list[float]]:
    """Ticks until the class was right, inf: never. For batch work since its first tick with HOG_CORES, for services since their
    first activity."""
    hogs = [mine.worked_after for mine in performances if mine.class_ is Class.BATCH and mine.worked]
    services = [mine.right_after for mine in performances if mine.class_ is Class.INTERACTIVE]
    return {
        kind: sorted(math.inf if after is None else float(after) for after in found)
        for kind, found in (("batch", hogs), ("interactive", services))
    }


def cost(model: BehaviourModel, groups: int = 1000, ticks: int = 40) -> float:
    """Median ms of CPU of a tick in which every group is active, each in a different way."""
    rng = np.random.default_rng(1)
    base = rng.gamma(1.0, 0.3, (groups, len(BEHAVIOUR_CHANNELS)))
    base[:, :2] = 1 + rng.integers(0, 4, (groups, 2))
    base[:, BEHAVIOUR_CHANNELS.index("timeslices")] *= 300
    base[:, BEHAVIOUR_CHANNELS.index("brief")] *= rng.random(groups) < 0.02  # few start what comes and goes
    used = [BEHAVIOUR_CHANNELS.index(name) for name in ("cpu", "brief", "wait")]
    base[:, BEHAVIOUR_CHANNELS.index("demand")] = base[:, used].sum(axis=1)  # as measured, it is never less than what was used
    traits = slice(BEHAVIOUR_CHANNELS.index("serves"), None)
    base[:, traits] = rng.random(base[:, traits].shape) < 0.2
    names, behaviours, spent = [f"program {i}" for i in range(groups)], Behaviours(model, CERTAINTY), []
    for _ in range(ticks):
        values = base * rng.uniform(0.9, 1.1, base.shape)
        began = time.process_time()
        behaviours.step(names, values)
        spent.append((time.process_time() - began) * 1e3)
    return statistics.median(spent)


def made_shipped(fitted: Fitted, corpus: Corpus, rows: Sequence[Mapping[str, Any]]) -> str:
    """Ship the model with nicety; its digest."""
    card = Card(
        kind="behaviour",
        interval=1.0,
        data=corpus.data,
        metrics=tuple(rows),
        version=__version__,
        created=time.time_ns(),
        cpus=os.cpu_count() or 1,
        features=FEATURES["behaviour"],
    )
    return ship(card, fitted.arrays)


def by_program(performances: Sequence[Performance]) -> Iterator[list[str]]:
    """A row for each program: its class, the verdicts on its performances, and the strongest evidence."""
    by: dict[str, list[Performance]] = defaultdict(list)
    for mine in performances:
        by[mine.program].append(mine)
    for name, plays in sorted(by.items(), key=lambda entry: (entry[1][0].class_, entry[0])):
        said = Counter(mine.end for mine in plays)
        after = [mine.right_after for mine in plays if mine.right_after is not None]
        evidence = max(plays, key=lambda mine: max(mine.p)).evidence
        reasons = [f"{feature} {value:g} ({push:+.1f})" for feature, value, push in evidence[:3]]
        spared = Counter(f"not batch: {mine.spared}" for mine in plays if mine.spared is not None)
        yield [
            name,
            plays[0].class_,
            " ".join(f"{answer} {count}" if len(plays) > 1 else answer for answer, count in said.most_common()),
            f"{statistics.fmean(mine.p[0] for mine in plays):.0%}",
            f"{statistics.fmean(mine.p[1] for mine in plays):.0%}",
            f"{statistics.median(after):.0f}" if after else "",
            ", ".join([*spared, *reasons]),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="+")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--shipped", action="store_true", help="judge the model that nicety comes with, and fit none")
    parser.add_argument("--ship", action="store_true", help="write the model to models/shipped")
    parser.add_argument("--compare", action="store_true", help="fit other models to the same rows too")
    parser.add_argument("--training-only", action="store_true", help="do not look at held-out programs")
    arguments = parser.parse_args()
    if arguments.shipped and (arguments.ship or arguments.compare or arguments.training_only):
        parser.error("--shipped fits no model: it goes with --json only")
    corpus = load(*arguments.corpus)
    if arguments.shipped:
        artefact = shipped("behaviour")
        if artefact is None:
            raise SystemExit("nicety comes with no behaviour model here")
        print(f"the model that nicety comes with: {artefact.digest[:8]}\n")
        judge(BehaviourModel.from_arrays(artefact.arrays, artefact.digest), corpus).close(arguments.json)
        return
    fitted, programs = fit(corpus, compare=arguments.compare)
    unseen = [{"programs": len(programs.names), "loss_without_family": fitted.loss(programs), "blind": _blind(programs)}]
    if arguments.training_only:
        rows = [
            [row.program, row.class_, row.said, f"{row.p_interactive:.0%}", f"{row.p_batch:.0%}", f"{row.loss:.2f}"]
            for row in sorted(verdicts("", fitted.chances, programs), key=lambda row: (row.class_, -row.loss))
        ]
        print(*table(("training program", "is", "without its family called", "p latency", "p batch", "loss"), rows), sep="\n")
        if arguments.ship:
            print(f"shipped as {made_shipped(fitted, corpus, unseen)[:8]}")
        return
    verdict = judge(BehaviourModel.from_arrays(fitted.arrays, ""), corpus)
    if arguments.ship:
        print(f"shipped as {made_shipped(fitted, corpus, [*unseen, *verdict.metrics])[:8]}")
    verdict.close(arguments.json, calibration=calibration(fitted.chances, programs), training_loss=fitted.loss(programs))


def fit(corpus: Corpus, *, compare: bool) -> tuple[Fitted, Programs]:
    """Fit a model to the programs that are not held out; (model, programs). Prints its results on programs of left-out families."""
    programs = programs_of(corpus, frozenset(corpus.classes) - corpus.held_out)
    began = time.process_time()
    fitted = fit_behaviour(programs)
    print(
        f"{len(programs.names)} training programs of {len(set(programs.families))} families, {len(programs.rows)} rows, fitted in "
        f"{time.process_time() - began:.1f} s of CPU; strength {fitted.strength:g}, temperature {fitted.temperature:.2f}, loss on "
        f"programs without their family {fitted.loss(programs):.3f} (always the commonest: {_blind(programs):.3f})\n"
    )
    if compare:
        headers = ("model, by family left out", "loss", "decided", "right", "interactive called batch")
        print(*table(headers, compared(programs, fitted)), "", sep="\n")
    headers = ("probability", "interactive: programs", "said", "true", "batch: programs", "said", "true")
    print(*table(headers, calibration(fitted.chances, programs)), "", sep="\n")
    return fitted, programs


@dataclass(frozen=True, slots=True)
class Judged:
    """The judgement of a model on the held-out programs."""

    claims: Claims
    metrics: list[dict[str, Any]]  # for its card: programs, and shares decided and right, at each moment
    rows: dict[str, Any]  # for --json

    def close(self, path: Path | None, **more: Any) -> None:
        """Print the claims and write everything to the path, if there is one."""
        self.claims.close(path, **self.rows, **more)


def judge(model: BehaviourModel, corpus: Corpus) -> Judged:
    """Judge every performance of a held-out program, as the daemon would. Prints a table."""
    every = perform(model, corpus, corpus.held_out)
    performances = [mine for mine in every if mine.active >= MOMENTS[0]]
    idle = sorted(corpus.held_out - {mine.program for mine in performances})
    columns = ("program", "is", "called", "p interactive", "p batch", "after", "because of")
    print("programs kept out of training:", *table(columns, list(by_program(performances))), "", sep="\n")
    if idle:
        print(f"not judged, because they were active in fewer than {MOMENTS[0]} ticks of every session: {', '.join(idle)}\n")
    claims = Claims()
    claims.at_least("held-out programs judged", score(performances, MOMENTS[-1]).programs, 20)
    metrics = []
    for moment in MOMENTS:
        now = score(performances, moment)
        claims.at_least(f"right among decided, after {moment} ticks", now.right, 0.90)
        claims.at_least(f"decided, after {moment} ticks", now.decided, 0.70)
        claims.at_most(f"interactive called batch, after {moment} ticks", now.harmed, 0)
        metrics.append({"ticks": moment, "programs": now.programs, "decided": now.decided, "right": now.right})
    ever = sum(mine.ever_batch for mine in every if mine.class_ is Class.INTERACTIVE)
    claims.at_most("interactive called batch, at any time", ever, 0)
    spans = times(performances)
    for kind, found in spans.items():
        known = ", ".join(f"{sum(after <= limit for after in found)} within {limit}" for limit in (1, 2, 3, 5, 10))
        print(f"{len(found)} performances of {kind} programs: known {known} ticks")
    print()
    if spans["batch"]:
        claims.at_most("ticks until a hog is batch, median", statistics.median(spans["batch"]), 2)
    if spans["interactive"]:
        claims.at_most("ticks until a service is interactive, median", statistics.median(spans["interactive"]), 5)
    claims.at_most("ms of CPU a tick of 1,000 active groups, median", cost(model), 2)
    rows = {
        "programs": [dict(zip(columns, row, strict=True)) for row in by_program(performances)],
        "ticks_until_right": {kind: [None if math.isinf(after) else after for after in found] for kind, found in spans.items()},
        "not_judged": idle,
    }
    return Judged(claims, metrics, rows)


def _blind(programs: Programs) -> float:
    """The loss of a model that knows only the frequency of the classes."""
    weights = programs.weights()
    share = np.array([weights[programs.answers() == at].sum() for at in range(len(CLASSES))]) / weights.sum()
    return log_loss(np.broadcast_to(np.maximum(share, 1e-6), (len(programs.rows), len(CLASSES))), programs)


if __name__ == "__main__":
    main()
