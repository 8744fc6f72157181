"""Commands that read what was decided: decisions, anomalies, why, replay."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import names
from .shared import (
    FINDINGS,
    SHOWN,
    STALE_SECONDS,
    ConfigOption,
    JsonOption,
    Progress,
    StateOption,
    anomalies_app,
    command,
    duration,
    escaped,
    guarded_command,
    load_stores,
    print_json,
    say,
)

if TYPE_CHECKING:
    from ..config.paths import Paths
    from ..store.decisions import DecisionReader


class Kind(StrEnum):
    """What `decisions --kind` takes: a policy, or a kind of change."""

    POOL_SIZE = "pool_size"
    PRIORITY = "priority"
    PLACEMENT = "placement"
    QUARANTINE = "quarantine"
    SET = "set"
    RESTORE = "restore"
    RESIZE = "resize"
    RECYCLE = "recycle"
    FLAG = "flag"
    DIGEST = "digest"


class Ending(StrEnum):
    """What `decisions --status` takes: the outcome of a decision."""

    APPLIED = "applied"
    OBSERVED = "observed"
    UNCHANGED = "unchanged"
    PARTIAL = "partial"
    VANISHED = "vanished"
    REFUSED = "refused"
    FOREIGN = "foreign"
    FAILED = "failed"
    RELIEVED = "relieved"
    GUARD = "refused-by-guard"
    NONE = "no-outcome"


@command("decisions", "nicety decisions --since 1h --kind priority")
def decisions(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new ones as they are made.")] = False,
    since: Annotated[float | None, typer.Option(parser=duration, metavar="TIME", help="How far to look back, e.g. 1h.")] = None,
    kind: Annotated[
        Kind | None, typer.Option(metavar="KIND", help=f"Only this policy or kind of change: {', '.join(Kind)}.")
    ] = None,
    target: Annotated[str | None, typer.Option(metavar="TEXT", help="Only targets with this text in their name.")] = None,
    pid: Annotated[int | None, typer.Option(metavar="PID", help="Only about this process.")] = None,
    status: Annotated[Ending | None, typer.Option(metavar="STATUS", help=f"Only with this outcome: {', '.join(Ending)}.")] = None,
    count: Annotated[
        int | None, typer.Option("-n", min=1, metavar="N", help="Only the latest N lines (default: 20, with --since all).")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """List decisions and refusals, the latest last.

    Decisions of one tick that do the same to one group share a line; --json lists each.
    """
    from ..explain.decision_page import LOOKED_AT, decision_lines, decision_table, gathered
    from ..explain.layout import columns
    from ..store.decisions import DecisionReader, LoggedDecision
    from ..store.records import record_of

    _, paths = load_stores(context, config, state_dir)
    wanted: dict[str, Any] = {
        "since": None if since is None else time.time_ns() - round(since * 1e9),
        "kind": None if kind is None else kind.value,
        "target": target,
        "pid": pid,
        "status": None if status is None else status.replace("-", " "),
    }
    limit = count if count is not None or since is not None else 20

    def fits(logged: LoggedDecision) -> bool:
        return (
            (kind is None or kind in (logged.policy, logged.action))
            and (target is None or target in logged.target)
            and (pid is None or pid in logged.pids)
            and (status is None or wanted["status"] == logged.status)
        )

    with DecisionReader(paths.decisions) as reader:
        last = max((logged.n for logged in reader.find(limit=1)), default=0)
        found = reader.find(**wanted, limit=limit if as_json or limit is None else max(limit, LOOKED_AT))[::-1]
        if as_json:
            for logged in found:
                print_json(record_of(logged))
        elif follow:
            latest = gathered(found)[-limit if limit else None :]
            print(*decision_lines(latest, columns()), sep="\n")
        elif found:
            print(decision_table(found, since is None or since > 43200, columns(), limit))
        else:
            say("no decision matches; `nicety decisions` without options lists the latest" if last else "nothing was decided yet")
        if not follow:
            return
        new = list[LoggedDecision]()

        def tell() -> None:
            for line in decision_lines(gathered(new), columns()):
                print(line)
            new.clear()
            sys.stdout.flush()

        def wait() -> bool:
            tell()  # decisions of a tick are written together
            time.sleep(0.2)
            return True

        tell()
        for logged in reader.follow(wait, last):
            if fits(logged) and as_json:
                print_json(record_of(logged))
            elif fits(logged):
                new.append(logged)


@anomalies_app.callback()
def _anomalies(
    context: typer.Context,
    since: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="TIME", help="How far to look back (default: 1d). Open ones are always listed."),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """List incidents of workers, and report false alarms.

    Lists what is wrong, since when, how sure it is, compared with which workers, and what to do. `nicety why ID` shows all that is
    known of an incident, with a snapshot of the process. Exit 3 if an incident is open.
    """
    if context.invoked_subcommand is None:
        guarded_command(_list_anomalies)(context, 86_400.0 if since is None else since, as_json, config, state_dir)


def _list_anomalies(context: typer.Context, since: float, as_json: bool, config: str | None, state_dir: str | None) -> None:
    from ..explain import incident_page
    from ..explain.layout import page_columns
    from ..store.decisions import DecisionReader
    from ..store.feedback import FeedbackStore

    _, paths = load_stores(context, config, state_dir)
    now = time.time_ns()
    begin = now - round(since * 1e9)
    feedback = FeedbackStore(paths.stores).read()
    with DecisionReader(paths.decisions) as reader:
        found = incident_page.incidents(reader, feedback, begin)
        summed = incident_page.digests(reader, begin)
        latest = reader.latest()
    if as_json:
        print_json(incident_page.Incidents(incidents=[incident_page.as_record(incident) for incident in found]))
    elif found or summed or feedback:
        print(incident_page.list_page(found, summed, feedback, now, page_columns()))
    else:
        say("no incident in this time; `nicety anomalies --since 30d` looks further back")
    wall = None if latest is None or latest.tick is None else latest.tick.wall
    if wall is not None and now - wall > STALE_SECONDS * 1e9:
        from ..words import moment

        say(f"nicety: no daemon is watching: the last tick was at {moment(wall)}; start one with `nicety run`")
    if any(incident.open for incident in found):
        raise typer.Exit(FINDINGS)


@command("wrong", "nicety anomalies wrong 4eda4857-5.0", anomalies_app)
def anomalies_wrong(
    context: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="Id of the incident (`nicety anomalies` lists them).")],
    undo: Annotated[bool, typer.Option("--undo", help="Withdraw this: such incidents are reported as before.")] = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Report that an incident was a false alarm.

    From then on, an incident of the same kind in the same pool is reported only if its score is one and a half times the highest
    score of this one. A running daemon learns this with its next tick. If the incident is still open, it ends, and what was done
    about it is put back.
    """
    from ..decision import FEEDBACK_MARGIN, Feedback
    from ..explain import incident_page
    from ..explain.decision_page import ExplainError
    from ..store.decisions import DecisionReader
    from ..store.feedback import FeedbackStore
    from ..words import figure

    _, paths = load_stores(context, config, state_dir)
    feedback = FeedbackStore(paths.stores)
    if undo:
        taken = feedback.remove(id_)
        if taken is None:
            known = ", ".join(item.id for item in feedback.read()) or "none"
            raise ExplainError(f'"{id_}" was not reported as wrong; these incidents were: {known}')
        say(f"withdrawn: {taken.kind} in {taken.pool} is reported as before")
        return
    with DecisionReader(paths.decisions) as reader:
        incident = incident_page.find(reader, feedback.read(), id_)
        latest = reader.latest()
        wall = latest.tick.wall if latest is not None and latest.tick is not None else incident.first.wall
        value = incident_page.peak(reader, incident, wall)
    item = Feedback(incident.id, incident.flag.pool, incident.flag.kind, value, time.time_ns())
    feedback.add(item)
    unit = "a duration of {} s" if item.kind == "deadlock" else "a score of {}"
    say(
        f"learned: {item.kind} in {item.pool} is now reported only with more than "
        f"{unit.format(figure(FEEDBACK_MARGIN * value))}; `nicety anomalies wrong --undo {item.id}` withdraws this"
    )


@command("why", "nicety why 4711")
def why(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="ID|PID|GROUP",
            help="Id of a decision (`nicety decisions` shows them), a pid, or the name of a group or pool (`nicety status`).",
            autocompletion=names.pools_and_groups,
        ),
    ],
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Explain a decision, an incident, or what was done to a process, group or pool.

    Says in three sentences what was done, why, and what came of it. The figures follow.

    For a decision: its rule and figures, the forecast it rests on, what was rejected, what would have flipped it, what happened,
    and whether it helped.

    For an incident (`nicety anomalies`): what is wrong, since when, how sure it is, compared with which workers, what to do, and a
    snapshot of the process.

    For a process, group or pool: its class and the signs for it; which victim it was demoted for, or which contenders it is
    protected from; how long the victim waited before and after; which controls were used; and when they are put back. Or why
    nothing was done.
    """
    from ..explain import decision_page as explain
    from ..explain.layout import page_columns
    from ..store.decisions import DecisionReader

    _, paths = load_stores(context, config, state_dir)
    width = page_columns()
    with DecisionReader(paths.decisions) as reader:
        if not what.isdecimal() and reader.find(id=what, limit=1):
            _why_decision(reader, paths, what, as_json, width)
            return
        from ..explain.account import account, group_account  # brings numpy
        from ..explain.process_page import as_record, process_page
        from ..read.process import ancestors, see

        if not what.isdecimal():
            about = group_account(reader, what)
        else:
            pid = int(what)
            try:
                seen = see(pid)
            except OSError as error:
                raise explain.ExplainError(f"cannot read process {pid}: {error.strerror}; run this as root") from error
            about = account(reader, pid, seen, () if seen is None else tuple(ancestors(seen)))
            if about.seen is None and not about.decisions and about.place.unknown:
                raise explain.ExplainError(
                    f'no process {pid} is running, and the log has none; "{what}" is not the id of a decision either'
                )
        if as_json:
            print_json(as_record(about))
        else:
            print(process_page(about, width))


def _why_decision(reader: DecisionReader, paths: Paths, id_: str, as_json: bool, width: int) -> None:
    """Explain a decision, or the incident that it reports."""
    from ..decision import Flag
    from ..explain import decision_page as explain

    logged, tick, session = explain.look_up(reader, id_)
    if isinstance(logged.decision.action, Flag):
        from ..explain import incident_page
        from ..store.feedback import FeedbackStore

        incident = incident_page.find(reader, FeedbackStore(paths.stores).read(), id_)
        looks = reader.evidence(incident.id)
        if as_json:
            from ..explain.why_records import WhyIncident

            print_json(WhyIncident(incident=incident_page.as_record(incident, looks)))
        else:
            print(incident_page.incident_page(incident, looks, session, time.time_ns(), width))
    elif as_json:
        from ..explain.why_records import WhyDecision
        from ..store.records import delay_record, fields_of

        forecasts = [] if tick is None else explain.forecasts_about(logged.decision.action, tick)
        delays = [] if tick is None else [delay_record(delay) for delay in tick.delays]
        print_json(WhyDecision(**fields_of(logged), forecasts=list(forecasts), delays=delays))
    else:
        print(explain.decision_page(logged, tick, session, width))


@command("replay", "nicety replay --session 3f9a01bc")
def replay(
    context: typer.Context,
    session: Annotated[str | None, typer.Option(metavar="ID", help="Only this session.", show_default=False)] = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory of the traces (default: the state directory).", show_default=False),
    ] = None,
    since: Annotated[float | None, typer.Option(parser=duration, metavar="TIME", help="How far to look back, e.g. 1h.")] = None,
    until: Annotated[float | None, typer.Option(parser=duration, metavar="TIME", help="How long ago to stop, e.g. 10m.")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Repeat every decision of the log and compare the results.

    Decisions are repeated from the log alone. If the traces are there, every figure that the decisions rest on is computed again
    too. If anything differs, prints session, tick and place, and exits with 3. Of a session that began before --since, only
    decisions are repeated.
    """
    from ..explain.decision_page import ExplainError
    from ..explain.gathered import plural
    from ..store.decisions import DecisionReader

    _, paths = load_stores(context, config, state_dir)
    with DecisionReader(paths.decisions) as reader:
        known = reader.sessions()
    ids = [each.id for each in known]
    if session is not None and session not in ids:
        raise ExplainError(f'the log has no session "{session}"; it has {", ".join(ids) or "none"}')

    from ..interpreter import load_numpy

    load_numpy()
    from ..replay import as_record
    from ..replay import replay as again

    now = time.time_ns()
    begin, end = (None if given is None else now - round(given * 1e9) for given in (since, until))
    total = sum(each.ticks for each in known if session in (None, each.id))
    with Progress("ticks", total if begin is None and end is None else None) as progress:
        found = again(paths, session=session, trace=trace, since=begin, until=end, progress=progress)
    if as_json:
        print_json(as_record(found))
    else:
        print(
            f"{plural(found.sessions, 'session')}, {plural(found.ticks, 'tick')}: {plural(found.decisions, 'decision')} and "
            f"{plural(found.refusals, 'refusal')} made again, and the figures of {plural(found.observed, 'tick')} from the traces"
        )
        for it in found.differences[:SHOWN]:
            made = it.again or "nothing"
            print(escaped(f"session {it.session}, tick {it.seq}: {it.where}: recorded {it.recorded}, made again {made}"))
        if len(found.differences) > SHOWN:
            print(f"... and {len(found.differences) - SHOWN} more; --json has all")
        print(f"{len(found.differences)} differences" if found.differences else "identical")
    for note in found.notes:
        say(escaped(f"nicety: {note}"))
    if found.differences:
        raise typer.Exit(FINDINGS)
    if found.ticks == 0:
        raise ExplainError(f"{paths.decisions} has no ticks to replay; `nicety run` writes some")
