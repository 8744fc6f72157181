"""Records in words: the page of a decision, the tables of `decisions`, `status` and `undo`. Reads only the decision log;
`explain/process_page.py` has the page of a process.

Every page is built from the log, so it shows what the decision was based on, not what holds now.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from ...models.records import HORIZONS, QUANTILES, Forecast, Score
from ..config.paths import Paths
from ..decide.policies.quarantine.words import rarity
from ..decision import Action, Flag, Outcome, Recycle, ResizePool, Restore, Session, Set, Tick
from ..hands.faults import Status
from ..places import cgroup_of, process_of
from ..read.text import printable
from ..store.decisions import DecisionReader, LoggedDecision
from ..words import figure, moment
from . import sentences
from .delay_words import causal_test
from .gathered import gather, headline, likeness, reason, tally
from .layout import labelled, paragraph, part, printed, table

UNITS = {"cpu": "cores", "rss": "MiB", "load": "Erlangs"}
"""How a forecast's metric is shown."""


class ExplainError(Exception):
    """The log does not have what was asked for; the text says what to do."""


# --- decisions ----------------------------------------------------------------------------------------------------------------


DECISION_HEADERS = ("time", "id", "what", "outcome", "reason")

LOOKED_AT = 5000
"""A table with a limit reads at most this many decisions (chosen): several of a tick are one line."""

LEAST_REASON = 24
"""Columns of a reason below which decisions are not shown as a table (chosen: less than four words fit)."""


def gathered(found: Iterable[LoggedDecision]) -> list[list[LoggedDecision]]:
    """Decisions and refusals of a tick that are shown as one, in the order of the first of each."""

    def key(logged: LoggedDecision) -> tuple[Hashable, ...]:
        refusal = logged.refusal
        return logged.session, logged.seq, likeness(logged.decision), None if refusal is None else refusal.rule

    return gather(found, key)


def decision_row(alike: Sequence[LoggedDecision], day: bool) -> tuple[str, ...]:
    """A line of the table of decisions, for decisions shown as one. `day`: whether the time has its date."""
    first, decisions = alike[0], [logged.decision for logged in alike]
    refusal = first.refusal
    why = reason(decisions) if refusal is None else f"{refusal.rule}: {refusal.text}"
    verdicts = tally(logged.effects[-1].verdict for logged in alike if logged.effect_json)
    came = ", ".join(filter(None, (tally(logged.status for logged in alike), verdicts)))
    return moment(first.wall, day), first.id, headline(decisions), came, why


def decision_table(found: Iterable[LoggedDecision], day: bool, width: int | None, most: int | None = None) -> str:
    """The table of decisions, its latest `most` lines."""
    rows = [decision_row(alike, day) for alike in gathered(found)[-most if most else None :]]
    return "\n".join(_laid_out(DECISION_HEADERS, rows, width, 19 if day else 8))


def decision_lines(found: Iterable[Sequence[LoggedDecision]], width: int | None) -> list[str]:
    """Lines for following decisions, gathered, as they are made."""
    return _laid_out((), [decision_row(alike, day=False) for alike in found], width, 8)


def _laid_out(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, time: int) -> list[str]:
    """Rows of decisions. In a pipe each is a line, with columns that do not depend on the other rows. On a terminal too narrow for
    the table each takes several lines, so that outcome and reason are shown whole. `time`: columns of a time."""
    if width is None:
        lines = ([headers] if headers else []) + list(rows)
        return [printable(f"{at:<{time}}  {id_:<14}  {what:<40}  {outcome:<9}  {why}") for at, id_, what, outcome, why in lines]
    least = (time, 14)
    left = sum(max(len(printable(row[column])) for row in (DECISION_HEADERS, *rows)) + 2 for column in range(4))
    if width - left >= LEAST_REASON:
        return table(headers, rows, width, least=least)
    folded = list[str]()
    for at, id_, what, outcome, why in rows:
        folded += [
            printable(f"{at}  {id_}"),
            *(f"  {line}" for text in (outcome, what, why) for line in paragraph(text, width - 2)),
        ]
    return folded


def page(paths: Paths, id_: str, width: int | None = None) -> str:
    """Everything about one decision, from the log: the answer to `nicety why ID`. `width`: of the terminal.

    Raises ExplainError, StoreError.
    """
    with DecisionReader(paths.decisions) as reader:
        return decision_page(*look_up(reader, id_), width)


def look_up(reader: DecisionReader, id_: str) -> tuple[LoggedDecision, Tick | None, Session | None]:
    """A decision with its tick and session; None for what the log has lost. Raises ExplainError, StoreError."""
    found = reader.find(id=id_, limit=1)
    if not found:
        raise ExplainError(f'no decision "{id_}" in {reader.path}; `nicety decisions` lists them; a number means a pid')
    logged = found[0]
    there = reader.tick(logged.session, logged.seq)
    session = next((it.session for it in reader.sessions() if it.id == logged.session), None)
    return logged, None if there is None else there.tick, session


def decision_page(logged: LoggedDecision, tick: Tick | None, session: Session | None, width: int | None = None) -> str:
    """The page of a decision: what was decided, why and what came of it in a sentence each, then the evidence.

    Without its tick it has no forecasts. `width`: of the terminal.
    """
    from .figure_words import in_words  # imported only when a page is made

    decision, refusal, outcomes, effects = logged.decision, logged.refusal, logged.outcomes, logged.effects
    why = decision.why
    mode = "" if session is None else f", {session.mode} mode"
    three = (
        sentences.what(decision, refusal, outcomes),
        sentences.why(decision),
        sentences.came(decision, refusal, outcomes, effects),
    )
    lines = [line for sentence in three for line in paragraph(sentence, width)]
    about = f"decision {decision.id} of policy {decision.policy}, rule {why.rule}, {moment(logged.wall)}, tick {logged.seq}{mode}"
    lines += ["", *paragraph(about, width)]
    if not logged.intact:
        lines.append("its checksum does not match: the log was damaged or changed")
    lines += part("Figures", labelled(in_words(why.figures), None if width is None else width - 2))
    for forecast in [] if tick is None else forecasts_about(decision.action, tick):
        title = f"Forecast of {forecast.target} {forecast.metric}, {UNITS.get(forecast.metric, 'unknown unit')}"
        lines += part(title, _forecast(forecast))
    score = None if tick is None else score_of(decision.action, tick)
    if score is not None:
        lines += part("Score", score_lines(score), width)
    lines += part("Rejected", why.rejected or ["nothing else was considered"], width)
    lines += part("Would have flipped it", why.flips or ["the rule does not say"], width)
    causes = [] if tick is None else causal_test(decision, tick.delays, effects)
    if causes:
        lines += part("Who delayed it", causes, width)
    if outcomes:
        lines += part("What happened", [_outcome(outcome) for outcome in outcomes], width)
    if effects:
        lines += part("Did it help", [sentences.verdict_in_words(effect) for effect in effects], width)
    elif refusal is None and any(outcome.status in (Status.APPLIED, Status.PARTIAL) for outcome in outcomes):
        lines += part("Did it help", ["not measured (yet)"], width)
    return printed(lines)


def forecasts_about(action: Action, tick: Tick) -> list[Forecast]:
    """The tick's forecasts that an action may be based on: a pool's load and CPU, the CPU of the group of a process or cgroup."""
    match action:
        case ResizePool(pool=name):
            wanted = {(name, "load"), (name, "cpu")}
        case Set(on=on) | Restore(on=on):
            members = [(group.name, member) for group in tick.groups for member in group.members]
            wanted = {(name, "cpu") for name, member in members if member.id == process_of(on) or member.cgroup == cgroup_of(on)}
        case _:
            wanted = set()
    return [forecast for forecast in tick.forecasts if (forecast.target, forecast.metric) in wanted]


def score_of(action: Action, tick: Tick) -> Score | None:
    """The score that a flag or recycling is based on."""
    if not isinstance(action, Flag | Recycle):
        return None
    found = [score for score in tick.scores if score.id == action.worker]
    kind = action.kind if isinstance(action, Flag) else ""
    return min(found, key=lambda score: (score.kind != kind, score.p), default=None)


# --- undo ----------------------------------------------------------------------------------------------------------


def outcome_table(outcomes: Sequence[Outcome], width: int | None) -> str:
    """What an undo did, one line for each outcome."""
    rows = [(outcome.target, str(outcome.status), outcome.detail) for outcome in outcomes]
    return "\n".join(table(("target", "outcome", "detail"), rows, width))


# --- parts --------------------------------------------------------------------------------------------------------------------


def _forecast(forecast: Forecast) -> list[str]:
    scale = 1 / (1 << 20) if forecast.metric == "rss" else 1.0
    rows = [(f"{level:.0%}", *(figure(round(row[at] * scale, 3)) for row in forecast.values)) for at, level in enumerate(QUANTILES)]
    return [*table(("ticks ahead", *map(str, HORIZONS)), rows), f"by {forecast.source}"]


def score_lines(score: Score) -> list[str]:
    """A score and the figures that it is based on."""
    from .figure_words import evidence_in_words

    head = f"{score.kind}: score {figure(score.value)}, as {rarity(score.p)} healthy worker-minutes, by {score.source}"
    return [head, *(f"{label}: {value}" for label, value in evidence_in_words(dict(score.evidence)))]


def _outcome(outcome: Outcome) -> str:
    detail = f": {outcome.detail}" if outcome.detail else ""
    changed = f" ({outcome.changed} written)" if outcome.changed else ""
    return f"{outcome.target}: {sentences.MEANING[outcome.status]}{changed}{detail}"
