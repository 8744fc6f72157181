"""What nicety did in a field scene, from its decision log: demotions, the programs that they met, and reliefs."""

from __future__ import annotations

from pathlib import Path

from nicety.scheduler.decision import Decision, Set
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.fences import name_for
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, ProcessPlace
from nicety.scheduler.store.decisions import DecisionReader, LoggedDecision

from .figures import SENSITIVE, Change, Role
from .stage import Roster, ancestors

NO_DEMOTION = frozenset({Control.SLICE, Control.AFFINITY, Control.POOL_SIZE})
"""Controls that take no CPU from a group in favour of others."""

CARRIED_OUT = frozenset({Status.APPLIED, Status.PARTIAL, Status.RELIEVED})

WHOLE = {Control.CPU_SHARES: 1024, Control.CPU_WEIGHT: 100}
"""The kernel's default weights: a lower one is a demotion. For all other controls a value above 0 is."""


def read(state: Path, roster: Roster, roles: dict[str, Role]) -> tuple[list[Change], list[tuple[str, str]]]:
    """(demotions that were carried out, (victim, contender) of each relief). Raises StoreError if there is no log."""
    changes, relieved = list[Change](), list[tuple[str, str]]()
    with DecisionReader(state) as log:
        for row in log.find(kind="set", newest_first=False):
            decision, done = row.decision, {outcome.status for outcome in row.outcomes}
            if not demotes(decision) or not done & CARRIED_OUT:
                continue
            change = change_of(decision, met(log, row, decision, roster), roles)
            changes.append(change)
            if Status.RELIEVED in done:
                relieved.append((change.victim, change.contender))
    return changes, relieved


def missed(state: Path) -> float | None:
    """Share of ticks that the daemon missed, over all its runs; None for too few ticks. Raises StoreError if there is no log."""
    made = due = 0.0
    with DecisionReader(state) as log:
        for session in log.sessions():
            if session.session is None:
                continue
            interval = float(session.session.config["daemon"]["interval"])
            times = [logged.tick.at / 1e9 for logged in log.ticks(session.id) if logged.tick is not None]
            if len(times) > 1:
                made, due = made + len(times) - 1, due + round((times[-1] - times[0]) / interval)
    return max(0.0, 1 - made / due) if due else None


def demotes(decision: Decision) -> bool:
    """Whether a decision takes CPU from a group."""
    action = decision.action
    if not isinstance(action, Set) or action.control in NO_DEMOTION:
        return False
    if not isinstance(action.value, int):
        return True  # a fence
    whole = WHOLE.get(action.control)
    return action.value > 0 if whole is None else action.value < whole


def change_of(decision: Decision, programs: set[str], roles: dict[str, Role]) -> Change:
    """The record of a demotion that met these programs."""
    action, figures = decision.action, decision.why.figures
    assert isinstance(action, Set), "only that demotes"
    supply = (_number(figures.get(name)) for name in ("victim_lacks_cores", "contender_frees_cores", "all_free_cores"))
    return Change(
        decision.id,
        str(action.control),
        decision.target,
        tuple(sorted(programs)),
        tuple(sorted(name for name in programs if roles.get(name) in SENSITIVE)),
        str(figures.get("victim", "")),
        str(figures.get("contender", decision.target)),
        *supply,
    )


def met(log: DecisionReader, row: LoggedDecision, decision: Decision, roster: Roster) -> set[str]:
    """Programs that the change met. A change of a session or cgroup meets all programs in it, whichever process is named."""
    action = decision.action
    assert isinstance(action, Set), "only that demotes"
    if isinstance(action.on, CgroupPlace):
        path = action.on.path.strip("/")
        below = (names for cgroup, names in roster.cgroups.items() if path in ancestors(cgroup))
        return set().union(*below)
    process = action.on.id if isinstance(action.on, ProcessPlace) else action.on.through
    key = (process.pid, process.start_ticks)
    if action.control is Control.FENCE:  # meets all that was in the fence
        inside = (names for cgroup, names in roster.cgroups.items() if name_for(process) in cgroup.split("/"))
        fenced = set(roster.processes.get(key, ())).union(*inside)
        return fenced or _of_session(roster, _session(log, row, key))
    if action.control is not Control.AUTOGROUP:
        return set(roster.processes.get(key, ())) or _of_session(roster, _session(log, row, key))
    session = roster.session_of.get(key)
    return _of_session(roster, _session(log, row, key) if session is None else session)


def _of_session(roster: Roster, session: int | None) -> set[str]:
    return set() if session is None else set(roster.sessions.get(session, ()))


def _session(log: DecisionReader, row: LoggedDecision, key: tuple[int, int]) -> int | None:
    """The session of a process that lived too briefly for the roster, from the tick; None: not there either."""
    logged = log.tick(row.session, row.seq)
    if logged is None or logged.tick is None:
        return None
    members = (member for group in logged.tick.groups for member in group.members)
    return next((member.session for member in members if (member.id.pid, member.id.start_ticks) == key), None)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
