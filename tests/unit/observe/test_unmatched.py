"""A group that nothing belongs to is named, with what was probably meant."""

from __future__ import annotations

import time

import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Identity
from nicety.scheduler.config.sections import parse
from nicety.scheduler.observe.unmatched import AGAIN_NS, FIRST_NS, Watch, nearest, unmatched


def identity(program: str, unit: str = "", cgroup: str = "/", uid: int = 0) -> Identity:
    return Identity("comm", program, cgroup, unit, uid)


THERE = [
    identity("python3 uvicorn", unit="api.service", cgroup="/system.slice/api.service", uid=33),
    identity("postgres", unit="postgresql@16-main.service", cgroup="/system.slice/postgresql.slice", uid=70),
    identity("python3 train.py", cgroup="/batch/a", uid=1000),
    identity("redis-server", unit="redis.service"),
    identity("sleep"),
]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('program = "uvicorn"', '(program = "uvicorn"); did you mean program = "python3 uvicorn"?'),
        ('program = "Postgres"', '(program = "Postgres"); did you mean program = "postgres"?'),
        ('program = "train"', '(program = "train"); did you mean program = "python3 train.py"?'),
        ('program = "redis"', '(program = "redis"); did you mean program = "redis-server"?'),
        ('program = "redis-sevrer*"', '(program = "redis-sevrer*"); did you mean program = "redis-server"?'),
        ('unit = "api"', '(unit = "api"); did you mean unit = "api.service"?'),
        ('cgroup = "/batch"', '(cgroup = "/batch"); did you mean cgroup = "/batch/a"?'),
        ('program = "mysqld"', '(program = "mysqld"); no process has such a name now'),
        ('program = "postgres"\nuid = 5', '(program = "postgres", uid = 5); no process matches all of them'),
        (
            'program = "sleep"\nunit = "redis.service"',
            '(program = "sleep", unit = "redis.service"); no process matches all of them',
        ),
        (
            'program = "uvicorn"\nunit = "api.service"',
            '(program = "uvicorn", unit = "api.service"); did you mean program = "python3 uvicorn"?',
        ),
    ],
)
def test_a_rule_that_fits_nothing_is_told_the_nearest_name(rule: str, said: str) -> None:
    (found,) = unmatched(parse(f"[groups.api]\n{rule}\n"), THERE)
    assert found.text == f"[groups.api] matches nothing {said}"
    assert found.group == "api"
    assert (found.meant != "") == ("did you mean" in said)


def test_a_rule_that_fits_is_not_told() -> None:
    config = parse(
        '[groups.a]\nprogram = "post*"\n[groups.b]\nuid = 1000\n[groups.c]\nunit = "redis.service"\nclass = "interactive"\n'
    )
    assert unmatched(config, THERE) == []


def test_a_rule_that_comes_too_late_is_told_who_takes_its_processes() -> None:
    config = parse('[groups.all]\nprogram = "python3 *"\n[groups.api]\nprogram = "python3 uvicorn"\n')
    (found,) = unmatched(config, THERE)
    assert found.text == "[groups.api] has no process: all that it matches belongs to [groups.all], because the first match counts"


def test_nothing_is_near_to_nothing() -> None:
    assert nearest("uvicorn", ()) == ""
    assert nearest("*", {"postgres"}) == ""


def test_a_look_is_taken_after_a_while_and_then_now_and_then() -> None:
    watch = Watch(parse('[groups.api]\nprogram = "uvicorn"\n[groups.db]\nprogram = "postgres"\n'))
    there = {ProcId(number, 1): identity for number, identity in enumerate(THERE)}
    assert watch.notes(0, there) == ()
    assert watch.notes(FIRST_NS - 1, there) == ()
    (note,) = watch.notes(FIRST_NS, there)
    assert note.topic == "groups api"
    assert note.text.endswith('did you mean program = "python3 uvicorn"?')
    assert note.figures == {"group": "api", "meant": 'program = "python3 uvicorn"'}
    there[ProcId(99, 1)] = identity("uvicorn")
    assert watch.notes(FIRST_NS + AGAIN_NS - 1, there) == (note,)
    assert watch.notes(FIRST_NS + AGAIN_NS, there) == ()


def test_beside_many_processes_a_look_takes_a_blink() -> None:
    """With as many names as processes, which a storm of programs is: what is compared has a limit."""
    there = [identity(f"python3 job{number}.py", cgroup=f"/c{number}") for number in range(10_000)]
    config = parse("".join(f'[groups.g{number}]\nprogram = "uvicorn{number}"\n' for number in range(10)))
    began = time.process_time()
    assert len(unmatched(config, there)) == 10
    assert time.process_time() - began < 5.0, "it takes about 0.4 s"
