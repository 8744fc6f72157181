"""Who belongs to whom, and what a group is called: from identities and parents alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Identity, Known, Trait
from nicety.scheduler.config.sections import parse
from nicety.scheduler.observe.families import Families, nameless
from nicety.scheduler.observe.grouping import Grouping

INIT, SSHD, SHELL = 1, 10, 20


@dataclass
class Machine:
    """Processes that come and go; who has lost his parent belongs to pid 1."""

    config: str = ""
    pools: dict[ProcId, str] = field(default_factory=dict)
    table: dict[ProcId, tuple[int, Identity]] = field(default_factory=dict)
    sessions: dict[int, int] = field(default_factory=dict)  # where it is not that of the shell
    traits: dict[int, Trait] = field(default_factory=dict)
    unseen: set[int] = field(default_factory=set)  # whose sockets cannot be seen

    def __post_init__(self) -> None:
        self.families = Families(Grouping(parse(self.config)))
        self.start(INIT, "systemd", 0)
        self.start(SSHD, "sshd", INIT)
        self.start(SHELL, "bash", SSHD)

    def start(self, pid: int, program: str, parent: int = SHELL, *, port: int = 0, unit: str = "", uid: int = 0) -> ProcId:
        """A process that started after all with lower pids."""
        id_ = ProcId(pid, pid)
        self.table[id_] = (parent, Identity("comm", program, "/", unit, uid, port))
        return id_

    def end(self, pid: int) -> None:
        del self.table[ProcId(pid, pid)]
        for id_, (parent, identity) in self.table.items():
            if parent == pid:
                self.table[id_] = (INIT, identity)

    def becomes(self, pid: int, **change: object) -> None:
        id_ = ProcId(pid, pid)
        parent, identity = self.table[id_]
        self.table[id_] = (parent, replace(identity, **change))  # type: ignore[arg-type]  # fields of Identity

    def groups(self, brief: Mapping[int, float] | None = None) -> Mapping[int, str]:
        """The group by pid, after a tick. `brief`: cores of brief children that came and went in it, by who waited for them."""
        ids = sorted(self.table)
        parents = [self.table[id_][0] for id_ in ids]
        sessions = [self.sessions.get(id_.pid, SHELL) for id_ in ids]
        self.families.step(ids, parents, sessions, {id_: self.table[id_][1] for id_ in ids}, self.pools)
        table = np.zeros(len(ids), SAMPLE)
        table["known"] = [0 if id_.pid in self.unseen else int(Known.SOCKETS) for id_ in ids]
        table["traits"] = [int(self.traits.get(id_.pid, Trait(0))) for id_ in ids]
        names = self.families.swarms(table, np.array([(brief or {}).get(id_.pid, 0.0) for id_ in ids]), 1.0)
        return {id_.pid: name for id_, name in zip(ids, names, strict=True)}

    def after(self, ticks: int, brief: Mapping[int, float]) -> Mapping[int, str]:
        """The group by pid, after some such ticks."""
        return [self.groups(brief) for _ in range(ticks)][-1]


def test_spawned_workers_of_a_server_and_of_a_pool_are_two_groups() -> None:
    machine = Machine()
    machine.start(100, "python3 hypercorn", port=8000)
    machine.start(101, "python3 -c", 100, port=8000)  # multiprocessing spawn, resource trackers
    machine.start(102, "python3 -c", 100)
    machine.start(200, "python3 crunch.py")
    machine.start(201, "python3 -c", 200)
    machine.start(202, "python3 -m joblib.externals.loky.backend.popen_loky_posix", 200)
    found = machine.groups()
    assert {found[pid] for pid in (100, 101, 102)} == {"program python3 hypercorn :8000"}
    assert {found[pid] for pid in (200, 201, 202)} == {"program python3 crunch.py"}


def test_two_applications_of_one_server_are_two_groups() -> None:
    machine = Machine()
    for master, port in ((100, 8001), (200, 8002)):
        machine.start(master, "python3 gunicorn", port=port)
        machine.start(master + 1, "python3 gunicorn", master, port=port)
    found = machine.groups()
    assert {found[100], found[101]} == {"program python3 gunicorn :8001"}
    assert {found[200], found[201]} == {"program python3 gunicorn :8002"}


def test_a_name_stays_when_others_come_and_when_the_parent_ends() -> None:
    machine = Machine()
    machine.start(100, "python3 uvicorn", port=8001)
    machine.start(101, "python3 -c", 100)
    before = machine.groups()
    machine.start(200, "python3 uvicorn", port=8002)
    assert machine.groups()[100] == before[100]
    machine.becomes(101, comm="other")
    machine.end(100)
    assert machine.groups()[101] == before[101] == "program python3 uvicorn :8001"
    machine.becomes(101, program="sleep")
    assert machine.groups()[101] == "program sleep"


def test_a_family_has_its_port_from_the_first_that_listens_and_keeps_it() -> None:
    machine = Machine()
    machine.start(100, "python3 uvicorn")
    machine.start(101, "python3 -c", 100)
    assert machine.groups()[100] == "program python3 uvicorn"
    machine.becomes(101, port=8001)
    found = machine.groups()
    assert (found[100], found[101]) == ("program python3 uvicorn :8001",) * 2
    machine.becomes(100, port=80)
    machine.becomes(101, port=0)
    assert set(machine.groups().values()) >= {"program python3 uvicorn :8001"}
    assert machine.groups()[100] == "program python3 uvicorn :8001"


def test_inline_code_that_nothing_names_is_a_group_of_its_own() -> None:
    machine = Machine()
    machine.start(100, "python3 -c")
    machine.start(101, "python3 -c", 100)  # forked, or spawned by it
    machine.start(200, "python3 -c")
    machine.start(300, "perl -e", INIT)
    machine.start(400, "python3 -c", SHELL, port=9000)
    found = machine.groups()
    assert found[100] == found[101] == "program python3 -c pid 100"
    assert found[200] == "program python3 -c pid 200"
    assert found[300] == "program perl -e pid 300"
    assert found[400] == "program python3 -c :9000"


def test_what_a_shells_line_starts_has_nothing_in_common() -> None:
    machine = Machine()
    machine.start(100, "bash -c", SSHD)
    machine.start(101, "python3 -c", 100)
    machine.start(102, "python3 -c", 100)
    machine.start(103, "nginx", 100)
    found = machine.groups()
    assert [found[pid] for pid in (100, 101, 102, 103)] == [
        "program bash -c pid 100",
        "program python3 -c pid 101",
        "program python3 -c pid 102",
        "program nginx",
    ]


def test_a_shells_line_is_named_after_what_says_something() -> None:
    machine = Machine()
    machine.start(100, "make")
    machine.start(101, "sh -c", 100)
    machine.start(102, "timeout", 101)
    machine.start(103, "node -e", 102)
    machine.start(104, "cc1", 101)
    found = machine.groups()
    assert {found[pid] for pid in (100, 101, 103)} == {"program make"}
    assert (found[102], found[104]) == ("program timeout", "program cc1")


@pytest.mark.parametrize("parent", ["cron", "systemd", "tmux", "sshd", "bash", "docker-init", "python3 supervisord", "xterm"])
def test_what_starts_everything_names_nothing(parent: str) -> None:
    machine = Machine()
    machine.start(100, parent, INIT)
    machine.start(101, "sh -c", 100)
    assert machine.groups()[101] == "program sh -c pid 101"


def test_users_and_units_are_borders() -> None:
    machine = Machine()
    machine.start(100, "python3 app.py")
    machine.start(101, "python3 -c", 100, uid=33)
    machine.start(102, "python3 -c", 100, unit="session-4.scope")
    machine.start(103, "python3 -c", 100, unit="web.service")
    machine.start(104, "python3 -c", 100, unit="3f9a3f9a3f9a")
    found = machine.groups()
    assert (found[101], found[102]) == ("program python3 -c pid 101", "program python3 -c pid 102")
    assert (found[103], found[104]) == ("unit web.service", "container 3f9a3f9a3f9a")


def test_a_program_of_two_users_is_two_groups() -> None:
    machine = Machine()
    for pid, uid in ((100, 0), (200, 33), (300, 1000), (400, 1001)):
        machine.start(pid, "python3 app.py", uid=uid)
        machine.start(pid + 1, "python3 -c", pid, uid=uid)
    groups = machine.groups()
    assert [groups[pid] for pid in (100, 200, 300, 400)] == [
        "program python3 app.py",
        "program python3 app.py",  # both are the system's
        "program python3 app.py of uid 1000",
        "program python3 app.py of uid 1001",
    ]
    assert all(groups[pid] == groups[pid + 1] for pid in (100, 200, 300, 400))


def test_a_set_uid_program_is_in_no_group_of_root() -> None:
    machine = Machine()
    machine.start(100, "rooted")
    machine.start(200, "rooted")
    machine.becomes(200, real_uid=1000)
    groups = machine.groups()
    assert (groups[100], groups[200]) == ("program rooted", "program rooted of uid 1000")


def test_the_daemons_own_user_and_one_team_need_no_names_of_users() -> None:
    for config, home in (("", 1000), ("[tenants]\napart = false\n", None)):
        machine, grouping = Machine(), Grouping(parse(config))
        grouping.home = home
        machine.families = Families(grouping)
        machine.start(100, "app", uid=1000)
        assert machine.groups()[100] == "program app"


def test_a_unit_of_a_users_own_manager_is_not_taken_for_the_systems() -> None:
    machine = Machine()
    machine.start(100, "sync", unit="backup.service", uid=1000)
    machine.start(200, "sync", unit="backup.service", uid=1000)
    machine.becomes(100, cgroup="/system.slice/backup.service")
    machine.becomes(200, cgroup="/user.slice/user-1000.slice/user@1000.service/app.slice/backup.service")
    groups = machine.groups()
    assert (groups[100], groups[200]) == ("unit backup.service", "unit backup.service of uid 1000")


def test_a_rule_covers_the_nameless_children_of_what_it_names() -> None:
    machine = Machine("[groups.training]\nprogram = 'python3 train.py'\n[groups.one]\nprogram = 'perl -e'")
    machine.start(100, "python3 train.py")
    machine.start(101, "python3 -c", 100)
    machine.start(102, "perl -e", 100)
    machine.start(103, "gzip", 100)
    found = machine.groups()
    assert [found[pid] for pid in (100, 101, 102, 103)] == ["training", "training", "one", "program gzip"]


def test_a_pool_owns_its_members_whatever_the_rules_say_and_their_nameless_children() -> None:
    machine = Machine("[groups.mine]\nprogram = 'postgres'")
    machine.pools = {ProcId(100, 100): "web"}
    machine.start(100, "postgres")
    machine.start(101, "python3 -c", 100)
    machine.start(102, "postgres")
    found = machine.groups()
    assert [found[pid] for pid in (100, 101, 102)] == ["web", "web", "mine"]
    machine.pools = {ProcId(102, 102): "web"}
    assert machine.groups()[102] == "web"
    assert machine.groups()[100] == "web", "who leaves a pool is still at its work"


def test_a_parent_that_comes_later_in_the_table_names_its_children() -> None:
    """Pids begin anew when they are used up."""
    machine = Machine()
    parent, child = ProcId(900, 30), ProcId(50, 31)
    machine.table[parent] = (SHELL, Identity("c", "python3 app.py", "/", "", 0))
    machine.table[child] = (900, Identity("c", "python3 -c", "/", "", 0))
    machine.table[ProcId(60, 5)] = (900, Identity("c", "python3 -c", "/", "", 0))  # older than who has that pid now
    found = machine.groups()
    assert found[50] == "program python3 app.py"
    assert found[60] == "program python3 -c pid 60"


def test_a_parent_that_is_not_in_the_table_names_nobody_and_no_other_takes_its_place() -> None:
    machine = Machine()
    machine.start(24, "python3 app.py")
    machine.start(26, "python3 other.py")
    machine.start(30, "python3 -c", parent=25)
    assert machine.groups()[30] == "program python3 -c pid 30"


def test_a_pid_that_seems_its_own_ancestor_ends_the_search() -> None:
    machine = Machine()
    machine.table[ProcId(70, 5)] = (71, Identity("c", "python3 -c", "/", "", 0))
    machine.table[ProcId(71, 5)] = (70, Identity("c", "python3 -c", "/", "", 0))
    machine.table[ProcId(72, 5)] = (72, Identity("c", "python3 -c", "/", "", 0))
    found = machine.groups()
    assert found[72] == "program python3 -c pid 72"
    assert found[70] == found[71]


@pytest.mark.parametrize(
    ("program", "is_nameless"),
    [
        ("python3 -c", True),
        ("python3", True),
        ("python3 -m multiprocessing.forkserver", True),
        ("python3 -m http.server", False),
        ("python3 worker.py", False),
        ("perl -e", True),
        ("node --eval", True),
        ("ruby -e", True),
        ("php -r", True),
        ("zsh -c", True),
        ("bash", False),
        ("bash build.sh", False),
        ("java org.springframework.boot.loader.launch.JarLauncher", True),
        ("java surefirebooter20261201.jar", True),
        ("java app.jar", False),
        ("postgres", False),
    ],
)
def test_names_that_say_nothing(program: str, is_nameless: bool) -> None:
    assert nameless(program) is is_nameless


PROGRAMS = ("python3 -c", "bash", "bash -c", "make", "python3 app.py", "sudo", "cron")


@given(st.lists(st.tuples(st.sampled_from(PROGRAMS), st.integers(0, 40)), max_size=30))
def test_any_tree_is_named_alike_whether_it_came_at_once_or_one_by_one(tree: list[tuple[str, int]]) -> None:
    at_once, one_by_one = Machine(), Machine()
    found: Mapping[int, str] = {}
    for number, (program, parent) in enumerate(tree):
        pid = 100 + number
        for machine in (at_once, one_by_one):
            machine.start(pid, program, 100 + parent % max(number, 1) if number else SHELL)
        found = one_by_one.groups()
    assert at_once.groups() == (found or one_by_one.groups())


# --- swarms -----------------------------------------------------------------------------------------------------------------------


def build() -> Machine:
    """A make typed into a shell, its recipes, and what shows of them in this tick."""
    machine = Machine()
    machine.start(100, "make")
    machine.start(110, "make", 100)
    machine.start(120, "sh -c", 110)
    machine.start(121, "gcc", 120)
    machine.start(122, "cc1", 121)
    machine.start(200, "vim")
    return machine


def test_a_build_is_one_group_once_its_brief_work_shows() -> None:
    machine = build()
    before = machine.groups()
    assert (before[121], before[122]) == ("program gcc", "program cc1")
    machine.groups({110: 1.5})
    found = machine.groups({110: 1.5})
    assert {found[pid] for pid in (100, 110, 120, 121, 122)} == {"program make"}
    assert (found[SHELL], found[200], found[SSHD]) == ("program bash", "program vim", "program sshd")
    for pid in (120, 121, 122):
        machine.end(pid)
    machine.start(130, "as", 110)
    machine.end(110)
    machine.start(131, "ld", 100)
    found = machine.groups()
    assert (found[130], found[131]) == ("program as", "program make"), "whose parent nobody saw is not known to be of it"


def test_what_was_seen_in_a_swarm_stays_in_it_when_its_parent_ends_or_it_becomes_another_program() -> None:
    machine = build()
    machine.groups({110: 1.5})
    machine.end(121)
    machine.becomes(122, program="as")
    assert machine.groups()[122] == "program make"
    machine.end(100)
    assert machine.groups()[122] == "program make"


def test_a_short_command_or_little_brief_work_is_no_swarm() -> None:
    machine = build()
    assert machine.groups({110: 0.5})[122] == "program cc1"
    found = machine.after(60, {110: 0.12})
    assert found[122] == "program cc1"
    found = machine.after(3, {110: 0.5})
    assert found[122] == "program make"


def test_brief_work_of_several_that_one_drives_is_summed() -> None:
    machine = Machine()
    machine.start(100, "xargs")
    for pid in range(110, 118):
        machine.start(pid, "bash job.sh", 100)
    found = machine.after(20, dict.fromkeys(range(110, 118), 0.05))
    assert {found[pid] for pid in (100, *range(110, 118))} == {"program xargs"}


@pytest.mark.parametrize("collector", [SHELL, SSHD])
def test_a_shell_that_is_typed_into_and_what_starts_sessions_drive_nothing(collector: int) -> None:
    machine = build()
    found = machine.after(9, {collector: 1.5})
    assert (found[SHELL], found[100], found[122], found[200]) == ("program bash", "program make", "program cc1", "program vim")


@pytest.mark.parametrize("trait", [Trait.SERVES, Trait.SERVES_LOCALLY, Trait.READS_KEYSTROKES, Trait.HAS_WINDOW, Trait.PIPE_SERVER])
def test_brief_children_of_what_answers_somebody_are_no_swarm(trait: Trait) -> None:
    machine = build()
    machine.traits = {100: trait, 110: trait}
    found = machine.after(9, {110: 1.5})
    assert found[122] == "program cc1"


def test_what_cannot_be_looked_at_and_the_master_of_a_pool_drive_nothing() -> None:
    machine = build()
    machine.unseen = {100, 110}
    found = machine.after(9, {110: 1.5})
    assert found[122] == "program cc1"
    machine.unseen, machine.pools = set(), {ProcId(100, 100): "web", ProcId(110, 110): "web"}
    found = machine.after(9, {110: 1.5})
    assert (found[100], found[122]) == ("web", "program cc1")


def test_who_listens_or_takes_keys_within_a_swarm_is_no_part_of_it() -> None:
    machine = build()
    machine.start(140, "redis-server", 110, port=6379)
    machine.start(150, "vim", 110)
    machine.traits = {140: Trait.SERVES, 150: Trait.READS_KEYSTROKES}
    found = machine.after(3, {110: 1.5})
    assert (found[140], found[150], found[122]) == ("program redis-server :6379", "program vim", "program make")
    machine.traits = {}
    assert machine.groups({110: 1.5})[150] == "program vim", "it need not be seen twice"


def test_a_swarm_ends_when_its_root_turns_out_to_answer_somebody() -> None:
    machine = build()
    for _ in range(3):
        machine.groups({100: 1.5})
    machine.traits = {100: Trait.SERVES}
    found = machine.groups({100: 1.5})
    assert (found[100], found[122]) == ("program make", "program cc1")


def test_another_session_user_or_cgroup_is_another_matter() -> None:
    machine = build()
    machine.sessions = {110: 110, 120: 110, 121: 110, 122: 110}
    machine.start(160, "daemon", 110)
    found = machine.after(3, {110: 1.5})
    assert {found[pid] for pid in (110, 120, 121, 122)} == {"program make"}
    assert found[160] == "program daemon"


def test_a_line_that_only_wraps_a_build_does_not_name_it() -> None:
    machine = Machine()
    machine.start(100, "timeout")
    machine.start(101, "sh -c", 100)
    machine.start(102, "make", 101)
    found = machine.after(3, {102: 1.0})
    assert (found[100], found[101], found[102]) == ("program timeout", "program sh -c pid 101", "program make")
    loop = Machine()
    loop.start(100, "sh -c", SSHD)
    loop.start(101, "gzip", 100)
    found = loop.after(3, {100: 1.0})
    assert (found[100], found[101]) == ("program sh -c pid 100", "program sh -c pid 100")


def test_a_rule_names_the_swarm_of_what_it_names() -> None:
    machine = build()
    machine.families = Families(Grouping(parse("[groups.build]\nprogram = 'make'\n[groups.linker]\nprogram = 'ld'")))
    machine.start(170, "ld", 121)
    found = machine.after(3, {110: 1.5})
    assert (found[100], found[122], found[170]) == ("build", "build", "linker")


def test_a_storm_of_programs_does_not_fill_memory() -> None:
    machine = Machine()
    for number in range(2000):
        machine.start(1000 + number, f"p{number}")
        machine.groups()
        machine.end(1000 + number)
    machine.groups({1999: 1.0})
    machine.groups()
    assert len(machine.families._entries) == len(machine.table)
    assert not machine.families._drivers
