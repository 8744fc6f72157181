"""Look-ups of ways and of who is taken along say what the plain searches say that they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from nicety.models.identity import ProcId
from nicety.models.records import Class
from nicety.scheduler.config.sections import Config
from nicety.scheduler.decide.guard import Guard, GuardMemory
from nicety.scheduler.decide.policies.priority.mechanisms import Ground, Place, Step
from nicety.scheduler.decision import Decision, Machine, Member, Set, Tick, Why
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, SessionPlace, cgroup_of
from nicety.scheduler.testing.ticks import a_group, a_machine, a_member, a_pool, a_tick

PATHS = st.sampled_from(["/", "/a", "/a/b", "/a/b/c", "/a/x", "/ab", "/b", "/b/c", "/b/c/d/e"])
SESSIONS = st.integers(1, 6)
PLACES = st.tuples(PATHS, SESSIONS)
MACHINES = st.builds(
    lambda autogroup, version: a_machine(autogroup=autogroup, cpu_cgroup=version), st.booleans(), st.sampled_from(["", "v1", "v2"])
)


def under(cgroup: str, path: str) -> bool:
    """Whether the cgroup is the one at `path` or below it."""
    return cgroup == path or cgroup.startswith(path.rstrip("/") + "/")


def parting(cgroup: str, other: str) -> str | None:
    """The ancestor of `cgroup` (or itself) just below where its path parts from `other`; None if `other` is it or below it."""
    own, theirs = [part for part in cgroup.split("/") if part], [part for part in other.split("/") if part]
    for depth, part in enumerate(own):
        if depth >= len(theirs) or theirs[depth] != part:
            return "/" + "/".join(own[: depth + 1])
    return None


def routes(own: Place, other: Place, machine: Machine) -> Iterator[Step]:
    """Controls that may lower processes at `own` against those at `other`, one pair at a time."""
    weighs = Control.CPU_WEIGHT if machine.cpu_cgroup == "v2" else Control.CPU_SHARES
    (cgroup, session), (other_cgroup, other_session) = own, other
    if not machine.cpu_cgroup:
        cgroup = other_cgroup = "/"
    parted = parting(cgroup, other_cgroup)
    if parted is not None:
        yield weighs, parted
        yield Control.CPU_IDLE, parted
    elif cgroup == "/" and machine.autogroup and (session != other_session or other_cgroup != "/"):
        yield Control.AUTOGROUP, ""
    if parted is None and machine.cpu_cgroup:
        yield Control.FENCE, ""
    yield Control.NICE, ""
    yield Control.POLICY, ""


def spares(own: Place, step: Step, spared: Sequence[Place]) -> bool:
    control, path = step
    if control is Control.AUTOGROUP:
        return not any(session == own[1] for _, session in spared)
    return not (path and any(under(cgroup, path) for cgroup, _ in spared))


@settings(max_examples=300, deadline=None)
@given(
    PLACES,
    st.lists(PLACES, min_size=1, max_size=8),
    st.lists(PLACES, max_size=2),
    MACHINES,
    st.sets(st.sampled_from([Control.AUTOGROUP, Control.CPU_SHARES, Control.CPU_IDLE, Control.FENCE, Control.NICE])),
)
def test_the_ways_are_those_of_each_pair(
    own: Place, places: list[Place], more: list[Place], machine: Machine, closed: set[Control]
) -> None:
    spared = [*places, *more]
    ground = Ground(places, spared, machine)

    def open_(steps: Iterable[Step]) -> list[Step]:
        return [step for step in steps if step[0] not in closed]

    searched = {next((step for step in open_(routes(own, other, machine)) if spares(own, step, spared)), None) for other in places}
    assert ground.ways(own, closed) == searched - {None}
    assert {tuple(steps) for steps in ground.routes(own)} == {tuple(routes(own, other, machine)) for other in places}


MEMBERS = st.builds(a_member, st.integers(20, 40), SESSIONS, PATHS)


def would_take_along(tick: Tick, action: Set, listed: frozenset[ProcId]) -> bool:
    """Searched in all members, one after the other."""
    wide = action.control is Control.AUTOGROUP
    members = {member.id: (group, member) for group in tick.groups for member in group.members}
    session = action.on.session if isinstance(action.on, SessionPlace) else None

    def covers(member: Member) -> bool:
        return member.session == session if wide else under(member.cgroup, cgroup_of(action.on) or "")

    pools = {pool.name for pool in tick.pools}
    own = {id_ for id_, (group, _) in members.items() if group.name in pools}
    return (
        (tick.home is not None and covers(tick.home))
        or (wide and any(id_.pid == session for id_ in listed - own))
        or any(covers(member) and group.name not in pools and id_ in listed for id_, (group, member) in members.items())
        or any(map(covers, tick.sheltered))
    )


@settings(max_examples=300, deadline=None)
@given(
    st.lists(MEMBERS, min_size=1, max_size=8, unique_by=lambda member: member.id),
    st.lists(MEMBERS, max_size=3, unique_by=lambda member: member.id),
    st.sets(st.integers(1, 40), max_size=4),
    st.none() | MEMBERS,
    st.lists(MEMBERS, max_size=1),
    PATHS.filter(lambda path: path != "/"),
)
def test_the_guard_refuses_what_would_take_the_protected_along(
    batch: list[Member], pooled: list[Member], protected: set[int], home: Member | None, sheltered: list[Member], cgroup: str
) -> None:
    ids = {member.id for member in batch}
    groups = [
        a_group("hogs", Class.BATCH, batch),
        a_group("web", Class.BATCH, [member for member in pooled if member.id not in ids]),
    ]
    listed = frozenset(ProcId(pid, pid) for pid in protected)
    tick = a_tick(1, groups=groups, pools=[a_pool(size=0)], protected=tuple(sorted(listed)), home=home, sheltered=tuple(sheltered))
    for action in (
        Set(Control.AUTOGROUP, SessionPlace(batch[0].session, batch[0].id), 5),
        Set(Control.CPU_SHARES, CgroupPlace(cgroup), 10),
    ):
        _, refusals = Guard(Config(), "s", GuardMemory()).review(
            tick, [Decision("", "priority", "t", action, Why("rule", "text", {}, (), ()))]
        )
        assert [refusal.rule for refusal in refusals] == ["never touch"] * would_take_along(tick, action, listed)
