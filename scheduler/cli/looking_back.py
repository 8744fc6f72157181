"""Commands that read what was decided: decisions, anomalies, why, replay."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .shared import (
    FINDINGS,
    SHOWN,
    STALE_SECONDS,
    ConfigOption,
    JsonOption,
    StateOption,
    anomalies_app,
    command,
    duration,
    escaped,
    guarded_command,
    load_files,
    load_numpy,
    print_json,
    say,
)

if TYPE_CHECKING:
    pass


class Kind(StrEnum):
    """What `decisions --kind` takes: a policy, or what kind of change it is."""

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
    """What `decisions --status` takes."""

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
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones as they come.")] = False,
    since: Annotated[
        float | None, typer.Option(parser=duration, metavar="TIME", help="Only of the last so much time, e.g. 1h.")
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only of this policy or kind of change.")] = None,
    target: Annotated[str | None, typer.Option(metavar="TEXT", help="Only if the target has this in its name.")] = None,
    pid: Annotated[int | None, typer.Option(metavar="PID", help="Only about this process.")] = None,
    status: Annotated[Ending | None, typer.Option(help="Only those that ended so.")] = None,
    count: Annotated[
        int | None, typer.Option("-n", min=1, metavar="N", help="At most the latest so many lines; 20 unless --since.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """List decisions and refusals, the latest last.

    Decisions of a tick that do the same to one group are a line; --json has each by itself.
    """
    from ..explain.decision_page import LOOKED_AT, decision_lines, decision_table, gathered
    from ..explain.layout import columns
    from ..explain.logstream import ascii_json
    from ..store.decisions import DecisionReader, LoggedDecision

    _, paths = load_files(context, config, state_dir)
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
                print(ascii_json(logged.to_builtins()))
        elif follow:
            latest = gathered(found)[-limit if limit else None :]
            print(*decision_lines(latest, columns()), sep="\n")
        elif found:
            print(decision_table(found, since is None or since > 43200, columns(), limit))
        else:
            say("no decision fits; `nicety decisions` without options lists the latest")
        if not follow:
            return
        new = list[LoggedDecision]()

        def tell() -> None:
            for line in decision_lines(gathered(new), columns()):
                print(line)
            new.clear()
            sys.stdout.flush()

        def wait() -> bool:
            tell()  # those of a tick are there together
            time.sleep(0.2)
            return True

        tell()
        for logged in reader.follow(wait, last):
            if fits(logged) and as_json:
                print(ascii_json(logged.to_builtins()))
            elif fits(logged):
                new.append(logged)


@anomalies_app.callback()
def _anomalies(
    context: typer.Context,
    since: Annotated[
        float | None, typer.Option(parser=duration, metavar="TIME", help="Those of the last so much time and all open ones; 1d.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """List incidents: what, since when, how sure, compared with whom, what to do.

    Exit 3 if one is open. `nicety why ID` has all that is known of one, with a snapshot of the process.
    """
    if context.invoked_subcommand is None:
        guarded_command(_list_anomalies)(context, 86_400.0 if since is None else since, as_json, config, state_dir)


def _list_anomalies(context: typer.Context, since: float, as_json: bool, config: str | None, state_dir: str | None) -> None:
    from ..explain import incident_page
    from ..explain.layout import columns
    from ..store.decisions import DecisionReader
    from ..store.feedback import FeedbackStore

    _, paths = load_files(context, config, state_dir)
    now = time.time_ns()
    begin = now - round(since * 1e9)
    feedback = FeedbackStore(paths.root).read()
    with DecisionReader(paths.decisions) as reader:
        found = incident_page.incidents(reader, feedback, begin)
        summed = incident_page.digests(reader, begin)
        latest = reader.latest()
    if as_json:
        print_json([incident_page.as_record(incident) for incident in found])
    elif found or summed or feedback:
        print(incident_page.list_page(found, summed, feedback, now, columns()))
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
    id_: Annotated[str, typer.Argument(metavar="ID", help="The incident (`nicety anomalies` lists them).")],
    undo: Annotated[bool, typer.Option("--undo", help="Take it back: from now on such incidents are reported as before.")] = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Say that an incident was none.

    From then on what looks like it, the same kind in the same pool, is reported only if its score is one and a half times the
    highest of this one. A running daemon learns it with its next tick; if the incident is open it ends, and what was done about it
    is put back.
    """
    from ..decision import FEEDBACK_MARGIN, Feedback
    from ..explain import incident_page
    from ..explain.decision_page import ExplainError
    from ..store.decisions import DecisionReader
    from ..store.feedback import FeedbackStore
    from ..words import figure

    _, paths = load_files(context, config, state_dir)
    feedback = FeedbackStore(paths.root)
    if undo:
        taken = feedback.remove(id_)
        if taken is None:
            known = ", ".join(item.id for item in feedback.read()) or "none"
            raise ExplainError(f'"{id_}" was not called wrong; what was: {known}')
        say(f"taken back: {taken.kind} in {taken.pool} is reported as before")
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
        f"learned: {item.kind} in {item.pool} needs more than {unit.format(figure(FEEDBACK_MARGIN * value))} from now on; "
        f"nicety anomalies wrong --undo {item.id} takes it back"
    )


@command("why", "nicety why 4711")
def why(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="ID|PID", help="Id of a decision (`nicety decisions` shows them), or a pid.")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Explain a decision, or what was done about a process.

    Of an incident (`nicety anomalies`): what, since when, how sure, compared with whom, what to do, and a snapshot of the process.
    Of another decision: its rule and figures, the forecast it rests on, what was rejected, what would have flipped it, what
    happened and whether it helped. Of a process: what it is taken for and by what signs; for whom it was demoted or from whom it is
    protected, how long that one waited before and after, by what means, and what gives it back; or why nothing was done.
    """
    import msgspec

    from ..decision import Flag
    from ..explain import decision_page as explain
    from ..explain.layout import columns
    from ..store.decisions import DecisionReader

    _, paths = load_files(context, config, state_dir)
    width = columns()
    with DecisionReader(paths.decisions) as reader:
        if not what.isdecimal():
            logged, tick, session = explain.look_up(reader, what)
            if isinstance(logged.decision.action, Flag):
                from ..explain import incident_page
                from ..store.feedback import FeedbackStore

                incident = incident_page.find(reader, FeedbackStore(paths.root).read(), what)
                looks = reader.evidence(incident.id)
                if as_json:
                    print_json(incident_page.as_record(incident, looks))
                else:
                    print(incident_page.incident_page(incident, looks, session, time.time_ns(), width))
                return
            if as_json:
                forecasts = [] if tick is None else explain.forecasts_about(logged.decision.action, tick)
                print_json({**logged.to_builtins(), "forecasts": msgspec.to_builtins(forecasts)})
            else:
                print(explain.decision_page(logged, tick, session, width))
            return
        from ..explain.account import account  # brings numpy
        from ..explain.process_page import as_record, process_page
        from ..read.process import ancestors, see

        pid = int(what)
        try:
            seen = see(pid)
        except OSError as error:
            raise explain.ExplainError(f"process {pid} cannot be looked at: {error.strerror}; run this as root") from error
        about = account(reader, pid, seen, () if seen is None else tuple(ancestors(seen)))
        if about.seen is None and not about.decisions and about.place.unknown:
            raise explain.ExplainError(f'no process {pid} runs, and the log knows none; "{what}" is no id of a decision either')
        if as_json:
            print_json(as_record(about))
        else:
            print(process_page(about, width))


@command("replay", "nicety replay --session 3f9a01bc")
def replay(
    context: typer.Context,
    session: Annotated[str | None, typer.Option(metavar="ID", help="Only this session; else all.", show_default=False)] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the traces are, if not in the state directory.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Decide everything in the log once more and compare.

    From the log alone for decisions; with the traces for every figure that they rest on. Exit 3, with session, tick and place, if
    anything differs.
    """
    from dataclasses import asdict

    from ..explain.decision_page import ExplainError
    from ..store.decisions import DecisionReader

    _, paths = load_files(context, config, state_dir)
    with DecisionReader(paths.decisions) as reader:
        ids = [each.id for each in reader.sessions()]
    if session is not None and session not in ids:
        raise ExplainError(f'the log has no session "{session}"; it has {", ".join(ids) or "none"}')

    load_numpy()
    from ..replay import replay as again

    found = again(paths, session=session, trace=trace)
    if as_json:
        print_json({**asdict(found), "identical": not found.differences})
    else:
        print(
            f"{found.sessions} sessions, {found.ticks} ticks: {found.decisions} decisions and {found.refusals} refusals made again"
            f", and the figures of {found.observed} ticks from the traces"
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
