"""Which process each row is: from the table, whatever order the identities have. What is not known of its behaviour."""

from __future__ import annotations

import numpy as np

from nicety.models.behaviour import BEHAVIOUR_CHANNELS
from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, Identity, Known, Snapshot, Trait
from nicety.scheduler.config.sections import parse
from nicety.scheduler.observe.measure import Measured, Measurer

IDS = [ProcId(10, 7), ProcId(20, 3), ProcId(300, 5000)]


def snapshot(at: int, ids: list[ProcId]) -> Snapshot:
    """The processes of `IDS`, which each used as much CPU as their pid says, with their identities in the order of `ids`."""
    table = np.zeros(len(IDS), SAMPLE)
    for record, id_ in zip(table, IDS, strict=True):
        record["pid"], record["start_ticks"], record["cpu_ns"] = *id_, at * id_.pid * 10**6
    identities = {id_: Identity(f"app{id_.pid}", f"app{id_.pid}", "/", "", 0) for id_ in ids}
    return Snapshot(at * 10**9, at * 10**9, 10**6 + 100 * at, table, identities, HostSample((at, at), 1 << 33, 1 << 32, None), ())


def measured(ids: list[ProcId]) -> tuple[Snapshot, Measured]:
    """The second of two snapshots, and what happened between them."""
    measurer, last = Measurer(parse(""), 1.0), snapshot(2, ids)
    measurer.measure(snapshot(1, ids))
    found = measurer.measure(last)
    assert found is not None
    return last, found


def test_rows_have_their_own_names_and_figures_whatever_the_order_of_the_identities() -> None:
    for ids in (IDS, IDS[::-1], [IDS[1], IDS[0], IDS[2]]):
        _, found = measured(ids)
        assert found.rows == {id_: row for row, id_ in enumerate(IDS)}
        assert found.members == ("program app10", "program app20", "program app300")
        assert np.allclose(found.cpu, [0.01, 0.02, 0.3])


def test_what_is_known_of_more_than_the_table_has_adds_no_row() -> None:
    _, found = measured([*IDS, ProcId(4000, 1)])
    assert list(found.rows) == IDS


def test_a_process_has_one_id_that_the_snapshot_and_the_measurer_share() -> None:
    last, found = measured(IDS)
    assert all(mine is theirs for mine, theirs in zip(found.rows, last.identities, strict=True))


def test_page_faults_that_nobody_counts_and_terminals_that_cannot_be_asked_are_unknown() -> None:
    snapshots = snapshot(1, IDS), snapshot(2, IDS)
    for now, each in enumerate(snapshots):
        each.table["minor_faults"] = [0, 30, 500 + 7 * now]
        each.table["known"] = [0, int(Known.KEYS), 0]
        each.table["traits"] = [0, 0, int(Trait.TERMINAL)]
    measurer = Measurer(parse(""), 1.0)
    found = [measurer.measure(each) for each in snapshots][-1]
    assert found is not None
    for channel, values in (("faults", [np.nan, 0, 7]), ("terminal", [np.nan, 0, 1])):
        assert np.array_equal(found.behaviour[:, BEHAVIOUR_CHANNELS.index(channel)], values, equal_nan=True)
