"""Which group a process falls into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicety.models.records import Identity, Latency, ProcId
from nicety.scheduler.config import parse
from nicety.scheduler.grouping import Grouping

CONFIG = """
[groups.database]
program = "postgres*"
latency = "latency"
[groups.mine]
uid = 1000
program = "python3 *"
[groups.training]
program = "python3 train.py"
cgroup = "/batch/*"
latency = "batch"
[groups.backup]
unit = "backup*.service"
[groups.early]
program = "twice"
latency = "none"
[groups.late]
program = "twice"
[pools.web]
kind = "command"
command = ["web"]
latency = "latency"
"""
PID = ProcId(42, 7)
config = parse(CONFIG)
grouping = Grouping(config)


def identity(program: str = "app", unit: str = "", cgroup: str = "/", uid: int = 0) -> Identity:
    return Identity("comm", program, cgroup, unit, uid)


@pytest.mark.parametrize(
    ("who", "group"),
    [
        (identity("postgres"), "database"),
        (identity("postgres", unit="postgresql.service"), "database"),
        (identity("Postgres"), "program Postgres"),
        (identity("twice"), "early"),
        (identity("python3 train.py", uid=1000, cgroup="/batch/a"), "mine"),
        (identity("python3 train.py", cgroup="/batch/a/b"), "training"),
        (identity("python3 train.py", cgroup="/other"), "program python3 train.py"),
        (identity("tar", unit="backup-home.service"), "backup"),
        (identity("nginx", unit="nginx.service"), "unit nginx.service"),
        (identity("job", unit="run-r1.scope"), "unit run-r1.scope"),
        (identity("app", unit="3f9a3f9a3f9a"), "container 3f9a3f9a3f9a"),
        (identity("app"), "program app"),
    ],
)
def test_rules_come_first_then_units_then_programs(who: Identity, group: str) -> None:
    assert grouping.group_of(who, PID, {}) == group


@pytest.mark.parametrize(
    "unit", ["session-3.scope", "session-c1.scope", "user@1000.service", "init.scope", "vte-spawn-1.scope", "tmux-spawn-a.scope"]
)
def test_what_somebody_started_in_a_login_is_grouped_by_program(unit: str) -> None:
    assert grouping.group_of(identity("make", unit=unit), PID, {}) == "program make"


def test_a_pool_owns_its_members_whatever_the_rules_say() -> None:
    members = {PID: "web"}
    assert grouping.group_of(identity("postgres"), PID, members) == "web"
    assert grouping.group_of(identity("postgres"), ProcId(42, 8), members) == "database"
    assert grouping.group_of(identity("postgres"), PID, {}) == "database"


def test_classes_are_those_of_rules_and_pools_and_else_not_known() -> None:
    wanted = {
        "database": Latency.LATENCY,
        "training": Latency.BATCH,
        "web": Latency.LATENCY,
        "backup": None,
        "early": Latency.NONE,
        "program app": None,
    }
    assert {group: grouping.pinned(group) for group in wanted} == wanted


@given(st.lists(st.builds(identity, program=st.sampled_from(["postgres", "x", "twice"]), uid=st.integers(0, 3)), max_size=30))
def test_answers_do_not_depend_on_what_was_asked_before(asked: list[Identity]) -> None:
    fresh = Grouping(config)
    assert [fresh.group_of(who, PID, {}) for who in asked] == [Grouping(config).group_of(who, PID, {}) for who in asked]


def test_a_storm_of_programs_does_not_fill_memory() -> None:
    fresh = Grouping(parse(""))
    for number in range(10_000):
        assert fresh.group_of(identity(f"p{number}"), PID, {}) == f"program p{number}"
    assert len(fresh._cache) <= 4096
