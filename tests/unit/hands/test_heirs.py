"""Who may have inherited from whom, in families that the test makes up."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from nicety.models.identity import ProcId
from nicety.scheduler.hands.changes import Entry, EntryStatus
from nicety.scheduler.hands.heirs import Family, Leader, reach_of
from nicety.scheduler.hands.kernel import Kin, Reach
from nicety.scheduler.hands.pids import Pids
from nicety.scheduler.hands.places import Control, Knob, ThreadId, ThreadPlace

NUMBERS = range(1, 7)
KIN = st.builds(Kin, st.builds(ProcId, st.sampled_from(NUMBERS), st.integers(1, 3)), *[st.sampled_from(NUMBERS)] * 3)
KINS = st.lists(KIN, max_size=len(NUMBERS), unique_by=lambda kin: kin.id.pid)


def change(process: ProcId, session: int, group: int, since: int) -> Entry:
    knob = Knob(Control.NICE, ThreadPlace(process, ThreadId(*process)))
    return Entry(1, "", "", "", 0, knob, session, group, since, 0, 0, 5, EntryStatus.DONE)


def within(kins: list[Kin], reach: Reach) -> list[Kin]:
    """Those within, and their parents, whatever the order in which they are seen."""
    seen, found = Pids(), list[Kin]()
    for kin in kins:
        seen.add(kin.id.pid)
        if kin.id.start_ticks >= reach.since and reach.has(kin.id.pid, *kin[1:], seen):
            found.append(kin)
    parents = {kin.parent for kin in found}
    return [kin for kin in kins if kin in found or kin.id.pid in parents]


@given(KINS, st.lists(st.tuples(KIN, st.integers(0, 3)), min_size=1, max_size=2))
@example(
    [Kin(ProcId(1, 1), 6, 6, 6), Kin(ProcId(2, 1), 2, 1, 1), Kin(ProcId(3, 1), 6, 2, 4)],
    [(Kin(ProcId(1, 1), 6, 2, 6), 0)],
)
@settings(max_examples=300)
def test_all_heirs_are_within_reach(kins: list[Kin], parents: list[tuple[Kin, int]]) -> None:
    if kins:
        parents.append((kins[0], parents[0][1]))
    leaders = [Leader(kin.id, (change(kin.id, kin.session, kin.group, since),)) for kin, since in parents]
    some, everybody = Family(within(kins, reach_of(leaders))), Family(kins)
    for process, chain in leaders:
        assert some.heirs(process, chain) == everybody.heirs(process, chain)


@given(KINS, KIN, st.integers(0, 3))
@example([Kin(ProcId(1, 1), 6, 6, 6), Kin(ProcId(2, 3), 1, 1, 1)], Kin(ProcId(1, 2), 6, 5, 5), 2)
@settings(max_examples=300)
def test_one_process_is_an_heir_if_it_is_among_all_heirs(kins: list[Kin], parent: Kin, since: int) -> None:
    family = Family(kins)
    everybody = [ProcId(pid, start) for pid in NUMBERS for start in (1, 2, 3)]
    for process in {parent.id, *(kin.id for kin in kins)}:
        chain = (change(process, parent.session, parent.group, since),)
        assert [each for each in everybody if family.is_heir(each, process, chain)] == list(family.heirs(process, chain))


@given(st.sets(st.integers(0, 1 << 22), max_size=40), st.lists(st.integers(0, 1 << 22), max_size=40))
def test_a_set_of_pids_has_what_it_was_given_and_nothing_else(pids: set[int], others: list[int]) -> None:
    found = Pids(pids)
    assert all(pid in found for pid in pids)
    near = {near for pid in pids for near in (pid - 1, pid + 1, pid + 8) if near >= 0}
    assert [pid for pid in (*others, *near) if pid in found] == [pid for pid in (*others, *near) if pid in pids]
