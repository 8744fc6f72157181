"""Which group a process falls into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicety.models.records import Class, Identity
from nicety.scheduler.config.sections import parse
from nicety.scheduler.observe.grouping import Grouping

CONFIG = """
[groups.database]
program = "postgres*"
class = "interactive"
[groups.mine]
uid = 1000
program = "python3 *"
[groups.training]
program = "python3 train.py"
cgroup = "/batch/*"
class = "batch"
[groups.backup]
unit = "backup*.service"
[groups.early]
program = "twice"
class = "exempt"
[groups.late]
program = "twice"
[pools.web]
kind = "command"
command = ["web"]
class = "interactive"
"""
config = parse(CONFIG)
grouping = Grouping(config)


def identity(program: str = "app", unit: str = "", cgroup: str = "/", uid: int = 0) -> Identity:
    return Identity("comm", program, cgroup, unit, uid)


@pytest.mark.parametrize(
    ("who", "group"),
    [
        (identity("postgres"), "database"),
        (identity("postgres", unit="postgresql.service"), "database"),
        (identity("Postgres"), None),
        (identity("twice"), "early"),
        (identity("python3 train.py", uid=1000, cgroup="/batch/a"), "mine"),
        (identity("python3 train.py", cgroup="/batch/a/b"), "training"),
        (identity("python3 train.py", cgroup="/other"), None),
        (identity("tar", unit="backup-home.service"), "backup"),
        (identity("nginx", unit="nginx.service"), "unit nginx.service"),
        (identity("job", unit="run-r1.scope"), "unit run-r1.scope"),
        (identity("app", unit="3f9a3f9a3f9a"), "container 3f9a3f9a3f9a"),
        (identity("app"), None),
    ],
)
def test_rules_come_first_then_units(who: Identity, group: str | None) -> None:
    assert grouping.given(who) == group


@pytest.mark.parametrize(
    "unit", ["session-3.scope", "session-c1.scope", "user@1000.service", "init.scope", "vte-spawn-1.scope", "tmux-spawn-a.scope"]
)
def test_what_somebody_started_in_a_login_is_not_grouped_by_that(unit: str) -> None:
    assert grouping.given(identity("make", unit=unit)) is None


def test_classes_are_those_of_rules_and_pools_and_else_not_known() -> None:
    wanted = {
        "database": Class.INTERACTIVE,
        "training": Class.BATCH,
        "web": Class.INTERACTIVE,
        "backup": None,
        "early": Class.EXEMPT,
        "program app": None,
    }
    assert {group: grouping.pinned(group) for group in wanted} == wanted


@given(st.lists(st.builds(identity, program=st.sampled_from(["postgres", "x", "twice"]), uid=st.integers(0, 3)), max_size=30))
def test_answers_do_not_depend_on_what_was_asked_before(pipe_server: list[Identity]) -> None:
    fresh = Grouping(config)
    assert [fresh.given(who) for who in pipe_server] == [Grouping(config).given(who) for who in pipe_server]


def test_a_storm_of_programs_does_not_fill_memory() -> None:
    fresh = Grouping(parse(""))
    for number in range(10_000):
        assert fresh.given(identity(f"p{number}", unit=f"u{number}.service")) == f"unit u{number}.service"
    assert len(fresh._cache) <= 4096
