"""Which families of processes are pools: masters and workers of each kind, among others that only look like them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicety.models.identity import ProcId
from nicety.scheduler.config.sections import Config, parse
from nicety.scheduler.pools.finding.blocks import block
from nicety.scheduler.pools.finding.found import FindError, Found, Process, Table
from nicety.scheduler.pools.finding.invocation import PROGRAMS, kind_of, may_be, option, positionals, whole_number
from nicety.scheduler.pools.finding.search import everything, machine, quickly
from nicety.scheduler.testing.process_tree import ProcessTree

PYTHON = "/srv/env/bin/python3"
SPAWNED = [PYTHON, "-c", "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5, pipe_handle=7)"]
WORKER, TRACKER = [*SPAWNED, "--multiprocessing-fork"], [PYTHON, "-c", "from multiprocessing.resource_tracker import main;main(4)"]


@pytest.fixture
def tree(tmp_path: Path) -> ProcessTree:
    tree = ProcessTree(tmp_path / "proc")
    tree.add(1, 0, ["/sbin/init"], exe="/usr/lib/systemd/systemd")
    tree.add(20, 1, ["-bash"], exe="/usr/bin/bash")
    return tree


def family(tree: ProcessTree, pid: int, arguments: Sequence[str], *workers: Sequence[str], **more: str) -> None:
    """A main process, and children with the pids after its own."""
    tree.add(pid, 20, arguments, **more)
    for number, own in enumerate(workers, 1):
        tree.add(pid + number, pid, own, **more)


def found(tree: ProcessTree, config: Config | None = None) -> list[Found]:
    return everything(machine(tree.root), config or Config(), {"NICETY_RUN_DIR": str(tree.root)}, tree.root)


def only(tree: ProcessTree) -> Found:
    (one,) = found(tree)
    return one


# --- masters and workers -------------------------------------------------------------------------------------------------------


def script(name: str, *arguments: str) -> list[str]:
    return [PYTHON, f"/srv/env/bin/{name}", *arguments]


FAMILIES: dict[str, tuple[list[str], list[list[str]], str, str, int]] = {
    # main process, its children, kind, name, workers
    "gunicorn": (
        script("gunicorn", "-w2", "shop.wsgi:app"),
        [script("gunicorn", "-w2", "shop.wsgi:app")] * 2,
        "gunicorn",
        "shop",
        2,
    ),
    "gunicorn with titles": (["gunicorn: master [shop]"], [["gunicorn: worker [shop]"]] * 3, "gunicorn", "shop", 3),
    "python -m gunicorn": (
        [PYTHON, "-m", "gunicorn", "--pid", "/run/web.pid", "web:app"],
        [[PYTHON, "-m", "gunicorn", "--pid", "/run/web.pid", "web:app"]],
        *("gunicorn", "web", 1),
    ),
    "celery": (
        script("celery", "-A", "shop", "worker", "-n", "jobs@%h"),
        [script("celery", "-A", "shop", "worker", "-n", "jobs@%h")] * 2,
        *("celery", "jobs", 2),
    ),
    "celery with titles": (
        ["[celeryd: celery@here:MainProcess] -active- (-A shop.jobs worker -c 2)"],
        [[f"[celeryd: celery@here:ForkPoolWorker-{number}]"] for number in (1, 2)],
        *("celery", "shop", 2),
    ),
    "uvicorn": (script("uvicorn", "api:app", "--workers", "2"), [TRACKER, WORKER, WORKER], "uvicorn", "api", 2),
    "fastapi": (script("fastapi", "run", "--workers", "2", "api.py"), [TRACKER, WORKER, WORKER], "uvicorn", "api", 2),
    "hypercorn": (script("hypercorn", "api:app", "-w", "2"), [TRACKER, WORKER, WORKER], "hypercorn", "api", 2),
    "granian": (
        ["granian asgi 127.0.0.1:80 api:app"],
        [["granian asgi 127.0.0.1:80 api:app worker-1"], ["granian asgi 127.0.0.1:80 api:app worker-2"]],
        *("granian", "api", 2),
    ),
    "rq": (
        script("rq", "worker-pool", "-n", "2", "mail"),
        [script("rq", "worker-pool", "-n", "2", "mail")] * 2,
        "rq",
        "rq-mail",
        2,
    ),
    "dramatiq": (script("dramatiq", "-p2", "shop.jobs"), [script("dramatiq", "-p2", "shop.jobs")] * 2, "dramatiq", "shop", 2),
    "huey": (
        script("huey_consumer", "shop.huey", "-k", "process", "-w", "2"),
        [script("huey_consumer", "shop.huey", "-k", "process", "-w", "2")] * 3,
        *("huey", "shop", 2),
    ),
    "arq": (script("arq", "shop.Settings"), [], "arq", "shop", 1),
    "puma": (["puma 6.4.0 (tcp://0.0.0.0:3000) [shop]"], [["puma: cluster worker 0: 40 [shop]"]] * 2, "puma", "puma", 2),
    "unicorn": (
        ["unicorn master -c unicorn.rb"],
        [[f"unicorn worker[{n}] -c unicorn.rb"] for n in range(2)],
        "unicorn",
        "unicorn",
        2,
    ),
    "php-fpm": (
        ["php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)"],
        [["php-fpm: pool www"], ["php-fpm: pool www"]],
        *("php-fpm", "php-fpm", 2),
    ),
}


SIZED = ("gunicorn", "celery", "rq", "dramatiq", "huey", "arq")


@pytest.mark.parametrize("what", FAMILIES)
def test_a_pool_is_known_with_its_master_its_workers_and_a_name(tree: ProcessTree, what: str) -> None:
    main, children, kind, name, workers = FAMILIES[what]
    programs = {"puma": "/usr/bin/ruby3.1", "unicorn": "/usr/bin/ruby3.1", "php-fpm": "/usr/sbin/php-fpm8.2"}
    family(tree, 40, main, *children, exe=programs.get(kind, "/usr/bin/python3.11"))
    one = only(tree)
    assert (one.kind, one.name, one.pid, len(one.workers)) == (kind, name, 40, workers)
    assert one.worth_a_line == (not one.unsized or workers > 1)


def test_a_child_that_is_another_master_is_a_pool_of_its_own(tree: ProcessTree) -> None:
    family(tree, 40, script("gunicorn", "a:app"), script("gunicorn", "a:app"), script("gunicorn", "b:app"))
    tree.add(50, 42, script("gunicorn", "b:app"))
    assert [(one.name, one.pid, one.workers) for one in found(tree)] == [("a", 40, (41,)), ("b", 42, (50,))]


def test_a_fork_of_a_worker_makes_no_master_of_it(tree: ProcessTree) -> None:
    family(tree, 40, script("gunicorn", "a:app"), script("gunicorn", "a:app"))
    tree.add(50, 41, script("gunicorn", "a:app"))
    assert only(tree).workers == (41,)


def test_a_server_whose_only_child_is_another_program_is_no_pool(tree: ProcessTree) -> None:
    tree.add(40, 20, script("gunicorn", "a:app"))
    tree.add(41, 40, ["/usr/bin/logger", "-t", "web"], exe="/usr/bin/logger")
    assert found(tree) == []


def test_workers_started_alike_are_one_pool_and_others_another(tree: ProcessTree) -> None:
    for pid, queue in ((40, "mail"), (41, "mail"), (42, "slow")):
        tree.add(pid, 20, script("rq", "worker", "--name", f"w{pid}", queue))
    assert [(one.name, one.workers) for one in found(tree)] == [("rq-mail", (40, 41)), ("rq-slow", (42,))]


def test_a_job_that_a_worker_has_forked_is_no_worker(tree: ProcessTree) -> None:
    family(tree, 40, script("rq", "worker", "mail"), script("rq", "worker", "mail"))
    assert only(tree).workers == (40,)


@pytest.mark.parametrize("bare", ["user@1000.service", "getty@tty1.service", "session-2.scope"])
def test_copies_of_a_template_are_a_pool_but_not_sessions(tree: ProcessTree, bare: str) -> None:
    for number in (1, 2):
        tree.add(40 + number, 1, [PYTHON, "/srv/thumbs.py"], unit=f"thumbs@{number}.service")
        tree.add(50 + number, 1, ["/usr/bin/other"], exe="/usr/bin/other", unit=bare.replace("1000", f"{number}"))
    one = only(tree)
    assert (one.kind, one.name, one.workers, one.master) == ("systemd", "thumbs", (41, 42), None)


def test_copies_below_supervisord_are_a_pool_also_where_their_names_are_hidden(tree: ProcessTree) -> None:
    tree.add(40, 1, [PYTHON, "/usr/bin/supervisord", "-n"])
    for pid, arguments in ((41, ["thumbs.py"]), (42, ["thumbs.py"]), (43, ["beat.py"])):
        tree.add(pid, 40, [PYTHON, *arguments])
    one = only(tree)
    assert (one.kind, one.name, one.workers) == ("supervisord", "thumbs", (41, 42))
    assert "run this as root" in one.unsized


DECOYS: dict[str, tuple[str, list[list[str]]]] = {
    "postgres": (
        "/usr/lib/postgresql/15/bin/postgres",
        [["postgres: main: checkpointer"], ["postgres: shop shop [local] idle"]] * 2,
    ),
    "nginx": ("/usr/sbin/nginx", [["nginx: worker process"]] * 4),
    "make": ("/usr/bin/make", [["cc1", "-O2", "a.c"], ["cc1", "-O2", "b.c"]]),
    "pytest": ("/usr/bin/python3.11", [[PYTHON, "-u", "-c", "import sys;exec(eval(sys.stdin.readline()))"]] * 4),
    "node cluster": ("/usr/bin/node", [["/usr/bin/node", "/srv/server.js"]] * 4),
    "chromium": ("/usr/lib/chromium/chromium", [["/usr/lib/chromium/chromium", "--type=renderer"]] * 6),
    "tmux": ("/usr/bin/tmux", [["-bash"]] * 3),
    "sshd": ("/usr/sbin/sshd", [["sshd: alice [priv]"], ["sshd: bob [priv]"]]),
    "multiprocessing": ("/usr/bin/python3.11", [WORKER] * 4),
}


def test_families_of_other_programs_are_no_pools(tree: ProcessTree) -> None:
    for number, (name, (exe, children)) in enumerate(DECOYS.items(), 1):
        family(tree, 100 * number, [exe, name] if "python" in exe else [name, "-x"], *children, exe=exe)
    assert found(tree) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["vim", "gunicorn.conf.py"],
        ["sudo", "-u", "www", "gunicorn", "a:app"],
        script("celery", "-A", "shop", "beat"),
        script("celery", "-A", "shop", "flower"),
        script("rq", "info"),
        script("rqscheduler"),
        script("uvicorn", "api:app", "--reload"),
        script("fastapi", "dev", "api.py"),
        script("gunicorn", "a:app"),  # without workers, and listening nowhere
        script("arq", "--check", "shop.Settings"),
        [PYTHON, "-c", "import gunicorn"],
        ["tail", "-f", "uvicorn"],
        ["uwsgi", "--http", ":80", "--processes", "2", "--wsgi-file", "a.py"],
    ],
)
def test_a_program_that_only_looks_like_a_pool_is_none(tree: ProcessTree, arguments: list[str]) -> None:
    exe = "/usr/bin/python3.11" if arguments[0] == PYTHON else f"/usr/bin/{arguments[0]}"
    children = [WORKER] if {"--reload", "dev"} & {*arguments} else [arguments] if arguments[0] == "uwsgi" else []
    family(tree, 40, arguments, *children, exe=exe)
    assert found(tree) == []


# --- what can be sized, and what is missing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (script("fastapi", "run", "a.py"), "it has one worker and no supervisor"),
        (script("gunicorn", "-k", "gevent", "--threads=4", "a:app"), ""),
        (script("gunicorn", "--reuse-port", "a:app"), "each worker has a queue of its own"),
        (script("gunicorn", "-k", "sync", "a:app"), ""),
        (script("celery", "worker", "--autoscale", "4,1"), "it sizes itself"),
        (script("celery", "worker", "-P", "gevent"), "the pool gevent has no processes to size"),
        (script("celery", "worker"), ""),
    ],
)
def test_what_cannot_be_resized_says_why(tree: ProcessTree, arguments: list[str], why: str) -> None:
    family(tree, 40, arguments, arguments)
    one = only(tree)
    assert one.unsized.startswith(why)
    assert bool(one.unsized) == bool(why)
    if why:
        with pytest.raises(FindError, match="cannot be resized"):
            block(one)


UWSGI = ["uwsgi", "--master", "--processes", "6", "--stats", "stats", "--pidfile", "/run/shop.pid", "--module", "shop:app"]


def test_a_uwsgi_says_which_lines_its_configuration_lacks(tree: ProcessTree) -> None:
    family(tree, 40, UWSGI, UWSGI, UWSGI, exe="/usr/bin/uwsgi-core")
    one = only(tree)
    assert one.unsized == "its configuration lacks what resizes it"
    assert one.missing == (
        "put into uWSGI's configuration, and restart it: cheaper = 1, cheaper-algo = manual, master-fifo = /PATH",
    )


def test_a_uwsgi_that_can_be_resized_has_the_paths_of_its_ini_file(tree: ProcessTree, tmp_path: Path) -> None:
    ini = "[uwsgi]\nmaster = true\nworkers = 3\ncheaper = 1\ncheaper-algo = manual\nmaster-fifo = fifo\nstats = :9191\n"
    (tmp_path / "shop.ini").write_text(ini)
    arguments = ["uwsgi", "--ini", "shop.ini"]
    family(tree, 40, arguments, arguments, arguments, exe="/usr/bin/uwsgi-core", directory=str(tmp_path))
    one = only(tree)
    keys = {key.name: key.value for key in one.keys}
    assert one.unsized == ""
    assert (keys["fifo"], keys["stats"], keys["pid"], keys["maximum"]) == (f"{tmp_path}/fifo", ":9191", 40, 3)
    assert len(one.missing) == 1


def test_a_queues_worker_becomes_a_command_with_one_process(tree: ProcessTree) -> None:
    arguments = script("rq", "worker-pool", "-n", "3", "-u", "redis://:secret@10.0.0.1/2", "mail", "slow")
    family(tree, 40, arguments, arguments, arguments, arguments)
    one = only(tree)
    config = parse(block(one)).pools["rq-mail"]
    assert config.command == script("rq", "worker", "-u", "redis://:secret@10.0.0.1/2", "mail", "slow")
    assert (config.directory, config.minimum, config.maximum) == ("/srv/app", 1, 6)
    assert config.queue is not None
    assert config.queue.rq == "redis://:secret@10.0.0.1/2/mail,slow"
    assert "secret" not in str(one.record())
    assert "pid 40" in one.before


PREFETCH = ["env", "dramatiq_queue_prefetch=1"]


@pytest.mark.parametrize(
    ("arguments", "forks", "command", "jobs", "signal"),
    [
        (
            script("dramatiq", "shop", "-p2", "-t", "3"),
            2,
            ["env", "dramatiq_queue_prefetch=1", *script("dramatiq", "shop")],
            6,
            "SIGTERM",
        ),
        (
            script("huey_consumer", "shop.huey", "-w", "3"),
            0,
            script("huey_consumer", "shop.huey", "-w", "1", "-k", "thread"),
            3,
            "SIGINT",
        ),
        (script("huey_consumer", "shop.huey", "-g", "TERM"), 0, script("huey_consumer", "shop.huey", "-g", "TERM"), 4, "SIGTERM"),
        (script("arq", "shop.Settings"), 0, script("arq", "shop.Settings"), 4, "SIGTERM"),
    ],
)
def test_a_worker_of_a_command_pool_does_one_job_and_leaves_after_it(
    tree: ProcessTree, arguments: list[str], forks: int, command: list[str], jobs: int, signal: str
) -> None:
    family(tree, 40, arguments, *[arguments] * forks)
    one = only(tree)
    config = next(iter(parse(block(one)).pools.values()))
    assert config.command[: len(command)] == command
    assert (config.maximum, config.drain_signal) == (jobs, signal)
    assert one.missing[0].startswith(f"say where its waiting work is counted: [pools.NAME.queue] {one.kind} = ")
    assert ("job_completion_wait" in str(one.missing)) == (one.kind == "arq")


# --- copies that a supervisor keeps ----------------------------------------------------------------------------------------------


def test_the_numbers_of_a_template_are_its_places(tree: ProcessTree) -> None:
    for number in (3, 4):
        tree.add(40 + number, 1, script("rq", "worker", "--url", "redis://127.0.0.1/1", "mail"), unit=f"mail@{number}.service")
        tree.add(50 + number, 40 + number, script("rq", "worker", "mail"), unit=f"mail@{number}.service")
    one = only(tree)
    config = parse(block(one)).pools["mail"]
    assert (one.kind, one.workers, config.unit, config.first, config.minimum) == ("systemd", (43, 44), "mail@%d", 3, 1)
    assert config.queue is not None
    assert config.queue.rq == "redis://127.0.0.1/1/mail"
    assert [each.configured for each in found(tree, parse(block(one)))] == [True]
    assert quickly(machine(tree.root), parse(block(one)), tree.root)[0].configured


def test_supervisord_says_what_it_calls_its_processes(tree: ProcessTree) -> None:
    tree.add(40, 1, [PYTHON, "/usr/bin/supervisord", "-c", "conf/s.conf"])
    for number in (0, 1, 2):
        names = f"PATH=/bin SUPERVISOR_ENABLED=1 SUPERVISOR_PROCESS_NAME=thumbs_{number:02d} SUPERVISOR_GROUP_NAME=thumbs"
        tree.add(41 + number, 40, [PYTHON, "thumbs.py", str(number)], environ=names)
    tree.add(50, 40, [PYTHON, "beat.py"], environ="SUPERVISOR_PROCESS_NAME=beat SUPERVISOR_GROUP_NAME=beat")
    one = only(tree)
    config = parse(block(one)).pools["thumbs"]
    assert (one.kind, one.workers, config.unit, config.first) == ("supervisord", (41, 42, 43), "thumbs:thumbs_%02d", None)
    assert (config.maximum, config.command) == (3, ["supervisorctl", "-c", "/srv/app/conf/s.conf"])
    assert [each.configured for each in found(tree, parse(block(one)))] == [True]


# --- the configuration ---------------------------------------------------------------------------------------------------------


def test_what_the_configuration_has_is_known_by_pid_pid_file_and_command(tree: ProcessTree, tmp_path: Path) -> None:
    family(tree, 40, script("gunicorn", "a:app"), script("gunicorn", "a:app"))
    family(tree, 50, script("gunicorn", "--pid", "b.pid", "b:app"), script("gunicorn", "--pid", "b.pid", "b:app"))
    family(tree, 60, script("gunicorn", "c:app"), script("gunicorn", "c:app"))
    tree.add(70, 20, script("rq", "worker", "mail"))
    (tmp_path / "b.pid").write_text("50\n")
    config = parse(
        f'[pools.one]\nkind = "gunicorn"\npid = 40\n[pools.two]\nkind = "gunicorn"\npidfile = "{tmp_path}/b.pid"\n'
        '[pools.three]\nkind = "command"\ncommand = ["/srv/env/bin/rq", "worker", "mail"]\n[groups.c]\nprogram = "c"\n'
    )
    seen = [(one.name, one.pid, one.configured) for one in found(tree, config)]
    assert seen == [("one", 40, True), ("three", 70, True), ("two", 50, True), ("c-2", 60, False)]


def test_the_workers_of_a_command_pool_are_one_pool(tree: ProcessTree) -> None:
    command = script("dramatiq", "shop", "--processes", "1", "--threads", "1")
    for pid in (40, 50):
        family(tree, pid, command, command)
    one = only(tree)
    assert (one.workers, one.master) == ((40, 50), None)
    there = found(
        tree,
        parse(
            '[pools.mail]\nkind = "command"\ncommand = ["env", "A=1", "dramatiq", "shop", "--processes", "1", "--threads", "1"]\n'
        ),
    )
    assert [(each.name, each.configured, each.workers) for each in there] == [("mail", True, (40, 50))]


def test_pools_without_a_name_of_their_own_are_called_by_unit_or_kind_and_number(tree: ProcessTree) -> None:
    for pid, unit in ((40, ""), (50, ""), (60, "shop.service")):
        family(tree, pid, script("gunicorn", "app:app"), script("gunicorn", "app:app"), unit=unit)
    assert [one.name for one in found(tree)] == ["gunicorn", "gunicorn-2", "shop"]


@pytest.mark.parametrize("what", [what for what, family in FAMILIES.items() if family[2] in SIZED])
def test_a_block_is_what_the_parser_reads(tree: ProcessTree, what: str) -> None:
    main, children, *_ = FAMILIES[what]
    family(tree, 40, main, *children)
    one = only(tree)
    config = parse(block(one))
    (pool,) = config.pools.values()
    assert (list(config.pools), pool.minimum <= len(one.workers) <= pool.maximum) == ([one.name], True)
    assert found(tree, config) == [replace(one, configured=True)]


def test_a_block_holds_what_an_argument_makes_of_it(tree: ProcessTree) -> None:
    arguments = script("arq", 'a"b\\.c\x7f\nclass = "exempt"')
    tree.add(40, 20, arguments)
    (pool,) = parse(block(only(tree))).pools.values()
    assert (pool.command, pool.class_) == (arguments, "batch")


def test_an_argument_that_is_no_text_has_no_block(tree: ProcessTree) -> None:
    tree.add(40, 20, script("arq", "a.b"))
    (tree.root / "40" / "cmdline").write_bytes(b"/usr/bin/python3\0/bin/arq\0a.\xff\0")
    with pytest.raises(FindError, match="not UTF-8"):
        block(only(tree))


# --- words ---------------------------------------------------------------------------------------------------------------------


def test_options_are_read_in_every_form() -> None:
    forms = ("-w 4", "-w4", "--workers 4", "--workers=4", "-w 1 -w4", "x")
    assert [option(words.split(), "-w", "--workers") for words in forms] == [*["4"] * 5, None]
    assert [whole_number(["-w", text], "-w") for text in ("4", "four", "", "9" * 5000)] == [4, None, None, None]
    assert list(positionals(["-v", "a", "--url", "b", "--x=1", "-c3", "c"], {"-v"})) == ["a", "c"]


@pytest.mark.parametrize("kind", PROGRAMS)
def test_each_kind_is_looked_at_by_its_name_alone(kind: str) -> None:
    assert may_be(kind)
    assert kind_of([f"/usr/bin/{kind}", "x"]) == kind


WORDS = st.lists(
    st.one_of(
        st.sampled_from(
            [*PROGRAMS, PYTHON, "-m", "-u", "worker", "worker-pool", "--master", "-k", "process", "-w", "9" * 5000, "redis://["]
        ),
        st.text(max_size=20),
    ),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, min_size=2, max_size=4))
def test_no_argument_list_breaks_the_search(lists: list[list[str]]) -> None:
    processes = [Process(ProcId(10 + at, at), 10 if at else 1, 0, "", "python3 rq") for at in range(len(lists))]
    table = Table(processes, lambda pid: tuple(word.replace("\0", "") for word in lists[pid - 10]))
    for one in quickly(table, Config(), Path("/nonexistent")):
        assert one.workers
        one.record()
