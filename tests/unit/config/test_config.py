"""Wrong configurations get one report with every cause, place and next step; no text makes the parser fail otherwise."""

from __future__ import annotations

import json
import math
from typing import get_type_hints

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nicety.models.records import Class
from nicety.scheduler.config.sections import KINDS_OF, Config, ConfigError, PoolConfig, from_builtins, parse, to_builtins

SECTIONS = "daemon, groups, guard, models, placement, pool_size, pools, priority, quarantine, store, tenants, training"

KINDS = 'one of "gunicorn", "uvicorn", "uwsgi", "celery", "executor", "command", "supervisord", "systemd"'

PROTECT = '["systemd*", "sshd*", "dbus-*", "login", "agetty", "Xorg", "gnome-shell"]'

MODELS = "anomaly, behaviour, certainty, demand, retrain_bytes, retrain_hours, retrain_seconds"


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "n.toml")
    return caught.value.problems


GOLDEN: dict[str, tuple[str, list[str]]] = {
    "unknown key with a near one": (
        "[daemon]\nintervall = 2\n",
        ['n.toml:2: daemon.intervall: unknown key; did you mean "interval"?'],
    ),
    "unknown key with no near one": (
        "[models]\nxyz = 2\n",
        [f"n.toml:2: models.xyz: unknown key; known keys: {MODELS}"],
    ),
    "unknown section": ("\n[nonsense]\nx = 1\n", [f"n.toml:2: nonsense: unknown key; known keys: {SECTIONS}"]),
    "not a number": ("[daemon]\ninterval = nan\n", ["n.toml:2: daemon.interval: nan is not a finite number; the default is 1.0"]),
    "infinity": ("[priority]\nwait = inf\n", ["n.toml:2: priority.wait: inf is not a finite number; the default is 0.05"]),
    "wrong type": ('[daemon]\nact = "yes"\n', ["n.toml:2: daemon.act: must be true or false, not text; the default is false"]),
    "truth is no number": (
        "[daemon]\ninterval = true\n",
        ["n.toml:2: daemon.interval: must be a number, not true or false; the default is 1.0"],
    ),
    "wrong type in a list": (
        '[guard]\nprotect = ["a", 3]\n',
        ["n.toml:2: guard.protect: must be text, not a whole number (number 2 of the list); the default is " + PROTECT],
    ),
    "out of limits": (
        "[store]\ntrace_bytes = 1\n",
        ["n.toml:2: store.trace_bytes: must be a whole number >= 1048576; the default is 1073741824"],
    ),
    "no such class": (
        '[groups.x]\nprogram = "a"\nclass = "fast"\n',
        ['n.toml:3: groups.x.class: there is no value "fast"; one of "interactive", "batch", "exempt"'],
    ),
    "no such action": (
        '[quarantine]\naction = "kill"\n',
        ['n.toml:2: quarantine.action: there is no value "kill"; one of "flag", "demote", "fence", "recycle"'],
    ),
    "a level that models do not forecast": (
        "[pool_size]\nquantile = 0.7\n",
        ["n.toml:2: pool_size.quantile: 0.7 is not a level that models forecast; choose one of (0.5, 0.9, 0.95, 0.99)"],
    ),
    "section that is no table": ("pools = 3\n", ["n.toml:1: pools: must be a table, e.g. [pools]"]),
    "named section that is no table": ("[groups]\nx = 1\n", ["n.toml:2: groups.x: must be a table, [groups.x]"]),
    "bad name": (
        '[pools."a b"]\nkind = "command"\n',
        ["n.toml:1: pools.\"a b\": a name has 1 to 64 letters, digits, '_', '-' or '.'; choose another"],
    ),
    "key without default": ("[pools.web]\nminimum = 3\n", [f"n.toml:1: pools.web.kind: missing, and it has no default; {KINDS}"]),
    "gunicorn without master": (
        '[pools.web]\nkind = "gunicorn"\n',
        ['n.toml:1: pools.web: a gunicorn pool needs its master: give pidfile = "..." (gunicorn --pid FILE) or pid = N'],
    ),
    "no worker where one is always kept": (
        '[pools.web]\nkind = "gunicorn"\npid = 7\nminimum = 0\n',
        ["n.toml:4: pools.web.minimum: a pool of kind gunicorn keeps at least one worker: give 1 or more"],
    ),
    "keys of another kind": (
        '[pools.web]\nkind = "gunicorn"\npid = 7\nuser = "www"\n[pools.web.queue]\nfiles = "/x/*"\n',
        [
            "n.toml:4: pools.web.user: only pools of kind command or executor have this key: leave it out",
            "n.toml:5: pools.web.queue: only pools of kind command or supervisord or systemd have this key: leave it out",
        ],
    ),
    "command pool without command": (
        '[pools.w]\nkind = "command"\n',
        ['n.toml:1: pools.w: a command pool needs what to run: give command = ["program", "argument"]'],
    ),
    "minimum over maximum": (
        '[pools.w]\nkind = "command"\ncommand = ["x"]\nminimum = 9\nmaximum = 3\n',
        ["n.toml:4: pools.w.minimum: 9 is more than maximum = 3; change one of them"],
    ),
    "two queues": (
        '[pools.w]\nkind = "command"\ncommand = ["x"]\n[pools.w.queue]\nfiles = "a"\nredis_list = "b"\n',
        [
            (
                "n.toml:4: pools.w.queue: give exactly one of files, command, redis_list, redis_sorted_set, redis_stream, rq, "
                "dramatiq, arq, huey, rabbitmq, sql"
            )
        ],
    ),
    "two objectives": (
        '[pools.w]\nkind = "command"\ncommand = ["x"]\n[pools.w.objective]\np95 = "300ms"\nutilization = 0.7\n',
        ["n.toml:4: pools.w.objective: give exactly one of p95, wait, utilization"],
    ),
    "an objective that is no time": (
        '[pools.w]\nkind = "command"\ncommand = ["x"]\nobjective = { wait = "50 cats" }\n',
        ['n.toml:4: pools.w.objective.wait: "50 cats" is no time above 0; write e.g. "300ms" or "2s"'],
    ),
    "a name for two things": (
        '[groups.w]\nprogram = "x"\n[pools.w]\nkind = "command"\ncommand = ["x"]\n',
        ["n.toml:1: groups.w: a pool has this name already; names are shared, choose another"],
    ),
    "a group of nothing": (
        '[groups.g]\nclass = "batch"\n',
        ["n.toml:1: groups.g: matches nothing: give program, unit, cgroup or uid"],
    ),
    "a character that no path can hold": (
        '[daemon]\nstate_dir = "a\\u0000b"\n',
        ["n.toml:2: daemon.state_dir: holds a NUL character, which no path or argument can; take it out"],
    ),
    "not TOML": ("x = [1,\n", ["n.toml:1: not valid TOML: Invalid value (at end of document); correct it here or above"]),
    "all at once, in the order of the file": (
        '[daemon]\nintervall = 2\nact = "yes"\ninterval = nan\n[store]\ntrace_bytes = 1\n',
        [
            'n.toml:2: daemon.intervall: unknown key; did you mean "interval"?',
            "n.toml:3: daemon.act: must be true or false, not text; the default is false",
            "n.toml:4: daemon.interval: nan is not a finite number; the default is 1.0",
            "n.toml:6: store.trace_bytes: must be a whole number >= 1048576; the default is 1073741824",
        ],
    ),
    "values and what they have to do with each other, in one round": (
        '[daemon]\nact = "yes"\n[pools.w]\nkind = "command"\nminimum = 9\nmaximum = 3\n[groups.g]\nuid = -1\n[pools.x]\npid = 7\n',
        [
            "n.toml:2: daemon.act: must be true or false, not text; the default is false",
            'n.toml:3: pools.w: a command pool needs what to run: give command = ["program", "argument"]',
            "n.toml:5: pools.w.minimum: 9 is more than maximum = 3; change one of them",
            "n.toml:8: groups.g.uid: must be a whole number >= 0; or leave the key out",
            f"n.toml:9: pools.x.kind: missing, and it has no default; {KINDS}",
        ],
    ),
    "keys of a pool without a valid kind are compared too": (
        '[pools.w]\nkind = "celeri"\nminimum = 9\nmaximum = 3\n[pools.x]\nmaximum = 2\ninitial = 5\nqueue = {}\n',
        [
            f'n.toml:2: pools.w.kind: there is no value "celeri"; {KINDS}',
            "n.toml:3: pools.w.minimum: 9 is more than maximum = 3; change one of them",
            f"n.toml:5: pools.x.kind: missing, and it has no default; {KINDS}",
            "n.toml:7: pools.x.initial: 5 is not between minimum = 1 and maximum = 2; change one of them",
            (
                "n.toml:8: pools.x.queue: give exactly one of files, command, redis_list, redis_sorted_set, redis_stream, rq, "
                "dramatiq, arq, huey, rabbitmq, sql"
            ),
        ],
    ),
    "a value that is wrong is compared with nothing": (
        '[pools.w]\nkind = "command"\ncommand = ["x"]\nminimum = 20\nmaximum = "many"\n',
        ["n.toml:5: pools.w.maximum: must be a whole number, not text; the default is 8"],
    ),
    "a key that is misspelt is not missed": (
        '[pools.w]\nkind = "gunicorn"\npidfil = "/run/w.pid"\n[groups.g]\nprogramm = "x"\n',
        [
            'n.toml:3: pools.w.pidfil: unknown key; did you mean "pidfile"?',
            'n.toml:5: groups.g.programm: unknown key; did you mean "program"?',
        ],
    ),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_the_report_of(case: str) -> None:
    text, expected = GOLDEN[case]
    assert problems(text) == expected


FAULTS = """\
[daemon]
interval = "fast"
act_on = ["nothing-like-it"]
[pool_size]
quantile = 0.7
[priority]
wiat = 0.1
[pools.web]
kind = "gunicorn"
minimum = 9
maximum = 3
[pools.jobs]
kind = "comand"
initial = 99
[groups.g]
class = "batch"
[groups.web]
program = "x"
[tenants]
may_be_helped = ["user nobodyatall"]
"""


def test_faults_of_every_sort_are_reported_in_one_round_in_the_order_of_the_file() -> None:
    found = problems(FAULTS)
    assert [problem.split(": ")[:2] for problem in found] == [
        ["n.toml:2", "daemon.interval"],  # a value
        ["n.toml:3", "daemon.act_on"],  # a name that nothing has
        ["n.toml:5", "pool_size.quantile"],  # a value that only the models refuse
        ["n.toml:7", "priority.wiat"],  # an unknown key
        ["n.toml:8", "pools.web"],  # a key that its kind needs
        ["n.toml:10", "pools.web.minimum"],  # two keys that contradict each other
        ["n.toml:13", "pools.jobs.kind"],  # a choice
        ["n.toml:14", "pools.jobs.initial"],  # a relation beside a value that is wrong
        ["n.toml:15", "groups.g"],  # a section that matches nothing
        ["n.toml:17", "groups.web"],  # a name for two things
        ["n.toml:20", "tenants.may_be_helped"],  # a user that is not there
    ]


def test_mending_what_was_reported_leaves_nothing_to_report() -> None:
    mended = FAULTS
    for wrong, right in (
        ('"fast"', "1"),
        ('["nothing-like-it"]', '["web"]'),
        ("0.7", "0.9"),
        ("wiat", "wait"),
        ('kind = "gunicorn"', 'kind = "gunicorn"\npid = 7'),
        ("minimum = 9", "minimum = 2"),
        ('"comand"', '"command"\ncommand = ["x"]'),
        ("99", "3"),
        ("[groups.g]", '[groups.g]\nprogram = "y"'),
        ("[groups.web]", "[groups.web2]"),
        ("user nobodyatall", "user 7"),
    ):
        assert mended.count(wrong) == 1
        mended = mended.replace(wrong, right)
    assert parse(mended).pools["jobs"].initial == 3


def test_the_error_itself_reads_as_the_report() -> None:
    with pytest.raises(ConfigError, match=r"^n\.toml:2: .*\nn\.toml:3: ") as caught:
        parse("[daemon]\na = 1\nb = 2\n", "n.toml")
    assert str(caught.value).splitlines() == caught.value.problems


def test_nothing_is_a_whole_configuration() -> None:
    assert parse("") == Config()


def test_values_arrive_where_they_belong() -> None:
    config = parse(
        '[daemon]\nact = true\ninterval = 2\n[groups.db]\nunit = "postgres*"\nclass = "interactive"\n'
        '[pools.w]\nkind = "command"\ncommand = ["run", "it"]\nqueue.files = "/q/*"\n'
    )
    assert config.daemon.act
    assert config.daemon.interval == 2.0
    assert config.groups["db"].class_ is Class.INTERACTIVE
    assert config.pools["w"].command == ["run", "it"]
    assert config.pools["w"].queue is not None
    assert config.pools["w"].queue.files == "/q/*"


def test_a_configuration_survives_the_decision_log() -> None:
    config = parse('[pools.w]\nkind = "command"\ncommand = ["x"]\nqueue.command = ["count"]\n[groups.g]\nuid = 7\n')
    assert from_builtins(json.loads(json.dumps(to_builtins(config)))) == config


def test_the_decision_log_gets_no_password_of_the_configuration() -> None:
    config = parse(
        '[pools.a]\nkind = "command"\ncommand = ["run", "--password=s3cret"]\nqueue.command = ["redis-cli", "-a", "s3cret"]\n'
        '[pools.b]\nkind = "command"\ncommand = ["run"]\nqueue.redis_list = "redis://app:s3cret@127.0.0.1/0/jobs"\n'
        '[pools.c]\nkind = "celery"\npid = 77\nbroker = "amqp://app:s3cret@127.0.0.1//"\n'
    )
    recorded = to_builtins(config)
    assert "s3cret" not in json.dumps(recorded)
    a, b, c = (recorded["pools"][name] for name in "abc")
    assert (a["command"], a["queue"]["command"]) == (["run", "**"], ["redis-cli", "**"])
    assert (b["command"], b["queue"]["redis_list"]) == (["run"], "redis://app:**@127.0.0.1/0/jobs")
    assert c["broker"] == "amqp://app:**@127.0.0.1//"
    assert from_builtins(recorded).pools["c"].pid == 77


# --- whatever is written ------------------------------------------------------------------------------------------------------

KEYS = ["daemon", "interval", "act", "groups", "pools", "x", "kind", "queue", "files", "program", "uid", "class", "quantile", ""]
scalars = st.one_of(
    st.booleans(),
    st.integers(min_value=-(10**400), max_value=10**400),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["command", "gunicorn", "interactive", "batch"]),
    st.dates(),
    st.times(),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def toml(value: object) -> str:
    """TOML of a value, all tables inline."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf") if math.isinf(value) else repr(value)
    return str(value)


def parses_or_explains(text: str) -> None:
    causes: list[str] = []
    try:
        config = parse(text, "n.toml")
    except ConfigError as error:
        causes, config = error.problems, Config()
        assert causes
    assert all(cause.startswith("n.toml") for cause in causes)
    recorded = to_builtins(config)
    assert to_builtins(from_builtins(recorded)) == recorded
    json.dumps(recorded, allow_nan=False)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=4))
def test_any_document_parses_or_is_explained(document: dict[str, object]) -> None:
    parses_or_explains("\n".join(f"{toml(key)} = {toml(value)}" for key, value in document.items()))


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="abx=[]{}.\"'\n\\#,019-+eETZ_ \t:", max_size=60))
@example("x = " + "[" * 100_000)
@example("x = " + "9" * 5_000)
@example("a." * 1_000 + "c = 1")
def test_any_text_parses_or_is_explained(text: str) -> None:
    parses_or_explains(text)


@settings(max_examples=150, deadline=None)
@given(
    section=st.sampled_from(["daemon", "store", "pool_size", "priority", "placement", "quarantine", "guard"]),
    key=st.sampled_from(sorted({key for section in to_builtins(Config()).values() for key in section})),
    value=scalars,
)
def test_no_value_of_any_key_gets_past_its_limits(section: str, key: str, value: object) -> None:
    parses_or_explains(f"[{section}]\n{key} = {toml(value)}\n")


def test_a_key_that_only_some_kinds_of_pools_have_says_which() -> None:
    told = dict[str, str]()
    for key, hint in get_type_hints(PoolConfig, include_extras=True).items():
        descriptions = [meta.description for meta in hint.__metadata__ if isinstance(meta, msgspec.Meta) and meta.description]
        told[key] = descriptions[-1]
    for key, text in told.items():
        before = text.partition(": ")[0] if ": " in text else ""
        kinds = ("gunicorn", "uvicorn", "uwsgi", "celery", "executor", "command", "supervisord", "systemd")
        named = {kind for kind in kinds if kind in before.split(", ")}
        assert named <= set(KINDS_OF.get(key, ()))
        assert all(kind in text for kind in KINDS_OF.get(key, ()))


def a_uid(name: str) -> int:
    if name == "bob":
        return 1001
    raise LookupError(f'no user is called "{name}"; did you mean "bob"?')


def test_names_of_users_become_uids_when_the_file_is_read() -> None:
    text = '[tenants]\nmay_be_demoted = ["user bob", "user 1002", "unit backup.*", "slice batch.slice"]\n'
    assert parse(text, uid_of=a_uid).tenants.may_be_demoted == ["user 1001", "user 1002", "unit backup.*", "slice batch.slice"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("user bbo", 'no user is called "bbo"; did you mean "bob"?'),
        ("usr bob", '"usr bob" is no "user NAME", "user UID", "unit GLOB" or "slice GLOB"; did you mean "user bob"?'),
        ("backup.service", 'is no "user NAME", "user UID", "unit GLOB" or "slice GLOB"; did you mean "unit backup.service"?'),
        ("batch.slice", 'did you mean "slice batch.slice"?'),
        ("slice batch", '"slice batch" names no slice; did you mean "slice batch.slice"?'),
        ("user", 'is no "user NAME"'),
        ("", 'is no "user NAME"'),
    ],
)
def test_an_entry_that_names_nobody_is_an_error_beside_all_others(entry: str, said: str) -> None:
    text = f"[daemon]\nintervall = 1\n[tenants]\nmay_be_helped = {json.dumps([entry, 'user bob'])}\n"
    with pytest.raises(ConfigError) as caught:
        parse(text, "n.toml", a_uid)
    unknown, wrong = caught.value.problems
    assert unknown.startswith("n.toml:2: daemon.intervall")
    assert wrong.startswith("n.toml:4: tenants.may_be_helped: ")
    assert said in wrong


def test_a_name_without_a_database_of_users_is_an_error() -> None:
    with pytest.raises(ConfigError, match="cannot be looked up here: give the uid"):
        parse('[tenants]\nmay_be_helped = ["user bob"]\n')


@pytest.mark.parametrize(
    ("uid", "system"),
    [(0, True), (999, True), (1000, False), (61183, False), (61184, True), (65519, True), (65520, False), (None, False)],
)
def test_which_users_are_the_systems(uid: int | None, system: bool) -> None:
    assert Config().tenants.is_system(uid) == system
