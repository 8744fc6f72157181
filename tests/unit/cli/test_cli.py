"""The command line without a daemon: exit codes, what goes where, and that no mistake of a user ends in a traceback."""

from __future__ import annotations

import importlib
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler import cli
from nicety.scheduler.cli import shared
from nicety.scheduler.config import paths
from nicety.scheduler.config.paths import PathError
from nicety.scheduler.config.sections import Config, ConfigError, to_builtins
from nicety.scheduler.decision import Abilities, Decision, Outcome, Refusal, ResizePool, Session, Verdict, Why
from nicety.scheduler.explain import failures
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.store.decisions import DecisionLog
from nicety.scheduler.testing.ticks import a_pool, a_tick

COMMANDS = sorted(str(command.name) for command in cli.app.registered_commands)


Invoke = Callable[..., Any]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A state directory with a log: a resize in tick 3 of every 10, a refusal in tick 7."""
    log = DecisionLog(tmp_path / "state", 1 << 22)
    rights = Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True)
    log.begin(Session("5e551017", "boot", 0, "0", "act", ProcId(1, 1), rights, to_builtins(Config()), {}, {}))
    why = Why("forecast floor", "a load of 4 Erlang is to be expected.", {"load": 4.0}, ("größer: ł",), ())
    for seq in range(100):
        decision = Decision(f"s-{seq}.0", "pool_size", "pool web", ResizePool("web", 2 + seq % 7), why)
        decisions = (decision,) if seq % 10 == 3 else ()
        refusals = (Refusal(decision, "cool-down", "changed 1 s ago"),) if seq % 10 == 7 else ()
        outcomes = (Outcome(decision.id, Status.APPLIED, "pool web", "", 1),) if decisions else ()
        log.append(a_tick(seq, pools=[a_pool("web")]), Verdict(decisions, refusals, ()), outcomes)
    log.close()
    return tmp_path / "state"


# --- usage --------------------------------------------------------------------------------------------------------------------


def test_the_version_is_data(nicety: Invoke) -> None:
    from nicety import __version__

    said = nicety("--version")
    assert (said.code, said.out, said.err) == (0, f"nicety {__version__}\n", "")


def test_all_commands_of_the_design_are_there() -> None:
    design = {"doctor", "record", "train", "run", "status", "decisions", "why", "undo", "replay", "export", "demo"}
    design |= {"pause", "resume", "reload", "simulate", "act", "observe", "hands", "top", "web", "exporter", "notify", "schema"}
    assert sorted(design) == COMMANDS


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_every_command_explains_itself_with_an_example(nicety: Invoke, command: str) -> None:
    result = nicety(command, "--help")
    assert result.code == 0
    assert f"Example: nicety {command}" in " ".join(result.out.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["decisions", "--nonsense"],
        ["decisions", "--kind", "nonsense"],
        ["decisions", "--since", "yesterday"],
        ["decisions", "-n", "0"],
        ["record", "--interval", "0"],
        ["record", "--duration", "-5"],
        ["pause", "--for", "1e400"],
        ["why"],
        ["export", "nonsense", "-o", "x"],
        ["export", "traces"],
        ["export", "decisions", "--format", "parquet", "-o", "x"],
    ],
)
def test_wrong_usage_is_exit_2_with_a_hint_on_stderr(nicety: Invoke, arguments: list[str]) -> None:
    result = nicety(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert "Error" in result.err


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400), (" 5 s ", 5)])
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert shared.duration(text) == seconds


# --- what a user can get wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["decisions"], "no decision log at"),
        (["why", "s-3.0"], "no decision log at"),
        (["why", "4711"], "no decision log at"),
        (["replay"], "no decision log at"),
        (["export", "decisions", "-o", "/dev/null/x"], "no decision log at"),
        (["status"], "no daemon listens at"),
        (["pause"], "start one with `nicety run`"),
        (["resume"], "start one with `nicety run`"),
        (["reload"], "start one with `nicety run`"),
        (["--config", "/nowhere.toml", "decisions"], "configuration /nowhere.toml: No such file"),
        (["decisions", "--config", "/nowhere.toml"], "check the path, or leave --config out"),
        (["decisions", "--config", "/"], "Is a directory"),
    ],
)
def test_what_is_not_there_is_one_line_with_cause_and_next_step(nicety: Invoke, arguments: list[str], said: str) -> None:
    result = nicety(*arguments)
    assert result.code == 1
    assert result.out == ""
    assert said in result.err
    assert result.err.count("\n") == 1
    assert result.err.startswith("nicety: ")


def test_all_errors_of_a_configuration_are_told_at_once(nicety: Invoke, tmp_path: Path) -> None:
    config = tmp_path / "n.toml"
    config.write_text('[daemon]\nintervall = 1\nact = "yes"\n')
    result = nicety("--config", config, "status")
    assert result.code == 1
    assert result.err.splitlines() == [
        f'nicety: {config}:2: daemon.intervall: unknown key; did you mean "interval"?',
        f"nicety: {config}:3: daemon.act: must be true or false, not text; the default is false",
    ]


def test_a_log_of_something_else_is_named(nicety: Invoke, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "decisions.db").write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    result = nicety("decisions")
    assert result.code == 1
    assert "decisions.db" in result.err


def test_an_unknown_decision_or_session_is_told_what_there_is(nicety: Invoke, log: Path) -> None:
    assert "`nicety decisions` lists them" in nicety("why", "s-4.0").err
    unknown = nicety("replay", "--session", "nonsense")
    assert unknown.code == 1
    assert 'no session "nonsense"; it has 5e551017' in unknown.err


def test_a_pid_that_nobody_knows_is_an_error(nicety: Invoke, log: Path) -> None:
    result = nicety("why", "4194304")
    assert result.code == 1
    assert "no process 4194304 is running, and the log has none" in result.err


def test_a_fault_of_ours_leaves_its_traceback_in_a_file(
    nicety: Invoke, log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from nicety.scheduler.explain import decision_page as explain

    monkeypatch.setattr(explain, "look_up", lambda *_: 1 / 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = nicety("why", "s-3.0")
    assert result.code == 1
    assert "a fault in nicety itself: ZeroDivisionError" in result.err
    (written,) = tmp_path.glob("nicety-error-*.txt")
    assert "ZeroDivisionError" in written.read_text()
    assert str(written) in result.err
    monkeypatch.setenv("NICETY_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.app(args=["why", "s-3.0"], prog_name="nicety")


@pytest.mark.parametrize("name", sorted(failures.USER_ERRORS))
def test_every_error_that_is_named_as_the_users_exists(name: str) -> None:
    module, _, kind = name.rpartition(".")
    assert issubclass(getattr(importlib.import_module(f"nicety.{module}"), kind), Exception)


# --- reading ------------------------------------------------------------------------------------------------------------------


def test_decisions_are_a_table_with_the_latest_last(nicety: Invoke, log: Path) -> None:
    result = nicety("decisions")
    lines = result.out.splitlines()
    assert result.code == 0
    assert lines[0].split()[:2] == ["time", "id"]
    assert len(lines) == 21
    assert "s-97.0" in lines[-1]
    assert "refused by guard" in lines[-1]
    assert "pool web: size 4" in lines[-2]


def test_decisions_are_json_lines_when_asked(nicety: Invoke, log: Path) -> None:
    records = [json.loads(line) for line in nicety("decisions", "--json", "-n", "3").out.splitlines()]
    assert [record["id"] for record in records] == ["s-87.0", "s-93.0", "s-97.0"]
    assert records[1]["decision"]["action"] == {"type": "resize", "pool": "web", "size": 4}


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (["--status", "refused-by-guard"], 10),
        (["--status", "applied"], 10),
        (["--kind", "resize"], 20),
        (["--kind", "priority"], 0),
        (["--target", "web"], 20),
        (["--target", "db"], 0),
        (["--pid", "9001"], 20),
        (["--pid", "1"], 0),
        (["--status", "applied", "--pid", "9001", "-n", "5"], 5),
    ],
)
def test_decisions_can_be_filtered(nicety: Invoke, log: Path, filters: list[str], count: int) -> None:
    assert len(nicety("decisions", "--json", "-n", "50", *filters).out.splitlines()) == count


def test_nothing_found_is_said_on_stderr_and_no_failure(nicety: Invoke, log: Path) -> None:
    result = nicety("decisions", "--kind", "quarantine")
    assert (result.code, result.out) == (0, "")
    assert "no decision matches" in result.err


def test_why_explains_a_decision_and_a_process(nicety: Invoke, log: Path) -> None:
    assert "Why: a load of 4 Erlang" in nicety("why", "s-3.0").out
    assert json.loads(nicety("why", "s-3.0", "--json").out)["status"] == "applied"
    page = nicety("why", "9001").out
    assert "worker of pool web" in page
    assert "s-97.0" in page
    record = json.loads(nicety("why", "9001", "--json").out)
    assert record["pool"]["name"] == "web"
    assert len(record["decisions"]) == 10


def test_options_may_stand_before_or_after_the_command(nicety: Invoke, log: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    log.rename(moved)
    assert nicety("decisions").code == 1
    assert nicety("--state-dir", moved, "decisions").code == 0
    assert nicety("decisions", "--state-dir", moved).code == 0


def test_a_reader_that_leaves_early_is_no_error(log: Path) -> None:
    command = [sys.executable, "-m", "nicety.scheduler", "--state-dir", str(log), "decisions", "--json", "-n", "1000"]
    reading, writing = os.pipe()
    with subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        os.close(reading)
        assert process.stderr is not None
        said = process.stderr.read()
    assert said == b""
    assert process.returncode == 0


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", b"gr\\xf6\\xdfer: \\u0142"), ("latin-1", b"gr\xf6\xdfer: \\u0142")])
def test_what_a_terminal_has_no_letter_for_is_escaped(log: Path, encoding: str, shown: bytes) -> None:
    command = [sys.executable, "-m", "nicety.scheduler", "--state-dir", str(log), "why", "s-3.0"]
    environ = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, env=environ, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown in done.stdout


def test_undo_with_nothing_to_undo_is_no_error(nicety: Invoke) -> None:
    result = nicety("undo")
    assert (result.code, result.out) == (0, "")
    assert "nothing to undo" in result.err


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status.APPLIED, 0),
        (Status.VANISHED, 0),
        (Status.FOREIGN, 3),
        (Status.PARTIAL, 3),
        (Status.BLOCKED, 1),
        (Status.LATER, 1),
        (Status.FAILED, 1),
        (Status.REFUSED, 1),
    ],
)
def test_undo_ends_well_only_if_all_is_back(nicety: Invoke, monkeypatch: pytest.MonkeyPatch, status: Status, code: int) -> None:
    back = Outcome("", Status.APPLIED, "pid 7", "nice of pid 7: 19 -> 0", 0)
    left = Outcome("", status, "pid 8", "nice of pid 8: what became of it", 0)
    monkeypatch.setattr("nicety.scheduler.act.undo.undo_from_ledger", lambda *_, **__: (back, left))
    result = nicety("undo")
    assert result.code == code
    assert "what became of it" in result.out


def test_a_broken_configuration_does_not_keep_anybody_from_undoing(
    nicety: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "n.toml"
    config.write_text("[daemon]\nintervall = 1\n")
    result = nicety("--config", config, "--state-dir", tmp_path / "state", "undo")
    assert result.code == 0
    assert "undoing without the configuration" in result.err
    monkeypatch.delenv("NICETY_STATE_DIR")
    lost = nicety("--config", config, "undo")
    assert lost.code == 1
    assert "`nicety undo --state-dir DIR` undoes without it" in lost.err


# --- where things lie ---------------------------------------------------------------------------------------------------------


def test_the_state_directory_is_the_one_named_nearest(tmp_path: Path) -> None:
    home = {"HOME": "/home/u"}
    assert paths.state_paths(Config(), None, home, 0).root == Path("/var/lib/nicety")
    assert paths.state_paths(Config(), None, home, 1000).root == Path("/home/u/.local/state/nicety")
    assert paths.state_paths(Config(), None, {**home, "XDG_STATE_HOME": "/s"}, 1000).root == Path("/s/nicety")
    assert paths.state_paths(Config(), None, {**home, "NICETY_STATE_DIR": "/e"}, 1000).root == Path("/e")
    assert paths.state_paths(Config(), "/x", {**home, "NICETY_STATE_DIR": "/e"}, 1000).root == Path("/x")
    assert paths.state_paths(Config(), "/x", home, 0).socket == Path("/x/control.sock")


def test_a_user_without_a_home_directory_reads_the_configuration_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the services that only read: systemd makes their user when they start."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    monkeypatch.setattr(paths, "SYSTEM_CONFIG", tmp_path / "nicety.toml")
    assert paths.find_config(None, {}, 61000) is None
    (tmp_path / "nicety.toml").write_text("")
    assert paths.find_config(None, {}, 61000) == tmp_path / "nicety.toml"
    (tmp_path / "nicety.toml").unlink()
    with pytest.raises(paths.PathError, match="no home directory"):
        paths.place_of_config(None, {}, 61000)


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, int]:
    """(root's home directory, one that a user may write, who he is); he came by `sudo -u`, which kept $HOME."""
    roots, own, uid = tmp_path / "root", tmp_path / "u", 4242
    for path, mode in ((roots, 0o700), (own, 0o777)):  # the latter stands for his own: only root could give it to him
        path.mkdir()
        path.chmod(mode)
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: pwd.struct_passwd(("u", "x", uid, uid, "", str(own), "/bin/sh")))
    return roots, own, uid


def test_a_home_of_somebody_else_is_left_for_ones_own_and_that_is_said(homes: tuple[Path, Path, int]) -> None:
    roots, own, uid = homes
    found = paths.state_paths(Config(), None, {"HOME": str(roots)}, uid)
    assert found.root == own / ".local/state/nicety"
    assert found.said == f"uid 4242 may not write {roots} ($HOME): the state is kept in {own}/.local/state/nicety"
    assert paths.state_paths(Config(), None, {"HOME": str(own)}, uid).said == ""
    assert paths.state_paths(Config(), "/x", {"HOME": str(roots)}, uid) == paths.Paths(Path("/x"), Path("/x/control.sock"))


def test_without_any_home_that_can_be_written_it_is_said_what_to_give(homes: tuple[Path, Path, int]) -> None:
    roots, own, uid = homes
    own.chmod(0o755)
    with pytest.raises(PathError, match=rf"uid 4242 may not write {roots} \(\$HOME\), nor {own}; give --state-dir DIR"):
        paths.state_paths(Config(), None, {"HOME": str(roots)}, uid)
    made = roots / ".local/state/nicety"
    made.mkdir(parents=True)
    made.chmod(0o777)
    assert paths.state_paths(Config(), None, {"HOME": str(roots)}, uid).root == made, "somebody made it for him"


def test_the_configuration_is_the_one_named_nearest_and_never_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nicety.toml").write_text("[daemon]\nact = true\n")
    assert paths.load_config(None, {"HOME": "/nowhere"}, 1000).config == Config()
    own = tmp_path / "nicety" / "nicety.toml"
    own.parent.mkdir()
    own.write_text("[daemon]\ninterval = 2\n")
    loaded = paths.load_config(None, {"XDG_CONFIG_HOME": str(tmp_path)}, 1000)
    assert (loaded.path, loaded.config.daemon.interval) == (own, 2.0)
    assert paths.load_config("nicety.toml", {}, 1000).config.daemon.act
    assert paths.load_config(None, {"NICETY_CONFIG": "nicety.toml"}, 1000).config.daemon.act


def test_root_does_not_obey_a_file_that_everybody_may_write(tmp_path: Path) -> None:
    path = tmp_path / "n.toml"
    path.write_text("")
    path.chmod(0o666)
    with pytest.raises(PathError, match="everybody may write it"):
        paths.read_config(path, 0)
    assert paths.read_config(path, 1000) == Config()


def test_a_file_that_is_no_text_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "n.toml"
    path.write_bytes(b"[daemon]\n# \xff\n")
    with pytest.raises(ConfigError, match=r"n\.toml:2: not UTF-8"):
        paths.read_config(path, 1000)
