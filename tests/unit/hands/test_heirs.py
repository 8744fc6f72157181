"""Who may have inherited from whom, in families that the test makes up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nicety.models.identity import ProcId
from nicety.scheduler.hands.changes import Entry, EntryStatus
from nicety.scheduler.hands.heirs import Family
from nicety.scheduler.hands.kernel import Kin
from nicety.scheduler.hands.pids import Pids
from nicety.scheduler.hands.places import Control, Knob, ThreadId, ThreadPlace

KIN = st.builds(Kin, st.builds(ProcId, st.integers(1, 12), st.integers(1, 9)), *[st.integers(0, 12)] * 3)
FAMILIES = st.lists(KIN, max_size=12, unique_by=lambda kin: kin.id.pid).map(Family)


def change(process: ProcId, session: int, group: int, since: int) -> Entry:
    knob = Knob(Control.NICE, ThreadPlace(process, ThreadId(*process)))
    return Entry(1, "", "", "", 0, knob, session, group, since, 0, 0, 5, EntryStatus.DONE)


@given(FAMILIES, KIN, st.integers(0, 10))
def test_one_process_is_an_heir_if_it_is_among_all_heirs(family: Family, parent: Kin, since: int) -> None:
    process = parent.id
    chain = (change(process, parent.session, parent.group, since),)
    heirs = family.heirs(process, chain)
    everybody = [ProcId(pid, start) for pid in range(1, 13) for start in range(1, 10)]
    assert [each for each in everybody if family.is_heir(each, process, chain)] == list(heirs)


@given(st.sets(st.integers(0, 1 << 22), max_size=40), st.lists(st.integers(0, 1 << 22), max_size=40))
def test_a_set_of_pids_has_what_it_was_given_and_nothing_else(pids: set[int], others: list[int]) -> None:
    found = Pids(pids)
    assert all(pid in found for pid in pids)
    near = {near for pid in pids for near in (pid - 1, pid + 1, pid + 8) if near >= 0}
    assert [pid for pid in (*others, *near) if pid in found] == [pid for pid in (*others, *near) if pid in pids]
