"""Whose processes are whose: owners, units and slices that users cannot make up, and places that several users share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, Identity, Snapshot
from nicety.scheduler.config.sections import Tenants
from nicety.scheduler.decision import Member, Shared
from nicety.scheduler.observe.tenancy import NOBODY, Tenancy, owner_of, slices_and_unit
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace

ALICE, BOB = 1000, 1001


@dataclass
class Proc:
    """A process of a snapshot."""

    owner: int
    session: int = 1
    cgroup: str = "/"
    parent: int = 1
    uid: int | None = None  # the effective one, if it is not the owner's

    @property
    def identity(self) -> Identity:
        uid = self.owner if self.uid is None else self.uid
        return Identity("x", "x", self.cgroup, "", uid, real_uid=None if uid == self.owner else self.owner)


def a_snapshot(there: Mapping[int, Proc]) -> Snapshot:
    table = np.zeros(len(there), dtype=SAMPLE)
    table["pid"] = table["start_ticks"] = list(there)
    table["ppid"], table["session"] = ([getattr(each, key) for each in there.values()] for key in ("parent", "session"))
    identities = {ProcId(pid, pid): each.identity for pid, each in there.items()}
    return Snapshot(1, 1, 100, table, identities, HostSample((0, 0), 1, 1, None), ())


def shared(there: Mapping[int, Proc], *batch: int, **config: object) -> tuple[Shared, ...]:
    members = [
        Member(ProcId(pid, pid), there[pid].session, there[pid].cgroup, 0, there[pid].parent, owner=there[pid].owner)
        for pid in batch
    ]
    return Tenancy(Tenants(**config)).shared(a_snapshot(there), members)  # type: ignore[arg-type]


def test_the_owner_of_a_set_uid_program_is_who_started_it() -> None:
    assert owner_of(Proc(ALICE, uid=0).identity) == ALICE


def test_nobodys_processes_are_not_taken_for_one_users() -> None:
    assert owner_of(Proc(NOBODY).identity) is None


def test_where_all_is_one_users_nothing_is_shared() -> None:
    assert shared({10: Proc(ALICE), 11: Proc(ALICE)}, 10) == ()


def test_a_session_with_another_users_process_is_shared_and_other_sessions_are_not() -> None:
    there = {10: Proc(ALICE, session=10), 11: Proc(BOB, session=10), 12: Proc(ALICE, session=12), 13: Proc(BOB, session=13)}
    assert shared(there, 10, 12) == (Shared(SessionPlace(10, ProcId(10, 10)), (ALICE, BOB)),)


def test_a_cgroup_is_shared_with_all_below_it_and_the_root_is_nobodys() -> None:
    there = {
        10: Proc(ALICE, 10, "/jobs/a"),
        11: Proc(BOB, 11, "/jobs/b"),
        12: Proc(0, 12, "/"),
    }
    assert shared(there, 10) == (Shared(CgroupPlace("/jobs"), (ALICE, BOB)),)


def test_a_process_from_which_another_users_descends_is_shared() -> None:
    there = {
        10: Proc(ALICE, 10),
        11: Proc(ALICE, 11, parent=10),
        12: Proc(BOB, 12, parent=11),
        13: Proc(ALICE, 13),
    }
    assert shared(there, 10, 13) == (Shared(ProcessPlace(ProcId(10, 10)), (ALICE, BOB)),)


def test_what_may_be_demoted_for_anybody_shares_nothing_but_is_taken_along_by_nobody() -> None:
    there = {10: Proc(ALICE, 10), 11: Proc(BOB, 10)}
    assert shared(there, 10, may_be_demoted=["user 1001"]) == ()
    assert shared(there, 11, may_be_demoted=["user 1001"]) == (Shared(SessionPlace(10, ProcId(11, 11)), (ALICE,)),)


def test_one_team_shares_everything_and_nothing_is_reported() -> None:
    assert shared({10: Proc(ALICE, 10), 11: Proc(BOB, 10)}, 10, apart=False) == ()


def test_new_processes_are_seen() -> None:
    there = {10: Proc(ALICE, 10)}
    tenancy, batch = Tenancy(Tenants()), [Member(ProcId(10, 10), 10, "/", 0, owner=ALICE)]
    assert tenancy.shared(a_snapshot(there), batch) == ()
    assert len(tenancy.shared(a_snapshot({**there, 11: Proc(BOB, 10)}), batch)) == 1


@pytest.mark.parametrize(
    ("cgroup", "slices", "unit"),
    [
        ("/system.slice/backup.service", ("system.slice",), "backup.service"),
        ("/batch.slice/batch-night.slice/x.scope/deep", ("batch.slice", "batch-night.slice"), "x.scope"),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/backup.service",
            ("user.slice", "user-1000.slice"),
            "user@1000.service",
        ),
        ("/docker/0123", (), ""),
        ("/", (), ""),
    ],
)
def test_only_what_an_administrator_made_counts_as_a_slice_or_unit(cgroup: str, slices: tuple[str, ...], unit: str) -> None:
    assert slices_and_unit(cgroup) == (slices, unit)


OWN_UNIT = Proc(ALICE, cgroup="/user.slice/user-1000.slice/user@1000.service/app.slice/backup.service").identity
SYSTEM_UNIT = Proc(ALICE, cgroup="/system.slice/backup.service").identity


@pytest.mark.parametrize(
    ("entry", "identity", "has"),
    [
        ("user 1000", SYSTEM_UNIT, True),
        ("user 1001", SYSTEM_UNIT, False),
        ("unit backup.service", SYSTEM_UNIT, True),
        ("unit back*", SYSTEM_UNIT, True),
        ("unit backup.service", OWN_UNIT, False),
        ("slice system.slice", SYSTEM_UNIT, True),
        ("slice app.slice", OWN_UNIT, False),
        ("slice user-1000.slice", OWN_UNIT, True),
    ],
)
def test_an_entry_names_users_units_and_slices(entry: str, identity: Identity, has: bool) -> None:
    tenancy = Tenancy(Tenants(may_be_demoted=[entry], may_be_helped=[entry]))
    assert tenancy.yields([identity]) == tenancy.favours([identity]) == has
    assert not tenancy.yields([identity, Proc(7777).identity]), "all processes of a group must be in it"
