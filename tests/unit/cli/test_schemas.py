"""What a command prints with --json is what its schema says, key for key."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import typer

from nicety.models.identity import ProcId
from nicety.models.records import Class
from nicety.scheduler.cli import app
from nicety.scheduler.cli.schemas import OUTPUTS, comments, schema_of
from nicety.scheduler.cli.system_files import commands
from nicety.scheduler.config.sections import Config, to_builtins
from nicety.scheduler.decision import Abilities, Decision, Effect, Flag, Outcome, Refusal, ResizePool, Session, Verdict, Why
from nicety.scheduler.explain.why_records import WhyDecision
from nicety.scheduler.frame import Delay, Frame, pack
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.service.answers import control_socket
from nicety.scheduler.service.answers.status import Running
from nicety.scheduler.store.decisions import DecisionLog
from nicety.scheduler.testing.frames import a_band, a_frame, a_shown_group, a_shown_pool, an_own
from nicety.scheduler.testing.ticks import a_group, a_pool, a_tick

Invoke = Callable[..., Any]
WHY = Why("forecast floor", "a load of 4 Erlang is to be expected.", {"load": 4.0, "p": 1e-4}, ("a reactive rule",), ("less load",))


FIGURES = {"demo"}
"""Commands whose --json is a file of figures for people who compare runs: docs/json.md."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log with a resize that helped, a refusal and an incident."""
    log = DecisionLog(tmp_path / "state", 64 << 20)
    rights = Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True)
    log.begin(Session("5e551017", "boot", 0, "0", "act", ProcId(1, 1), rights, to_builtins(Config()), {}, {}))
    resize = Decision("5e551017-1.0", "pool_size", "pool web", ResizePool("web", 4), WHY)
    refused = Decision("5e551017-1.1", "pool_size", "pool web", ResizePool("web", 40), WHY)
    flag = Decision("5e551017-1.2", "quarantine", "pool web worker 9001", Flag("web", ProcId(9001, 9001), "leak"), WHY)
    tick = a_tick(1, pools=[a_pool("web")], groups=[a_group("web", Class.INTERACTIVE)])
    outcomes = tuple(Outcome(one.id, Status.APPLIED, one.target, "", 1) for one in (resize, flag))
    log.append(tick, Verdict((resize, flag), (Refusal(refused, "limits", "at most 8"),), ()), outcomes)
    effect = Effect("5e551017-1.0", "queue of pool web", 4.0, 1.0, 7, "helped", unchanged=(3.0, None))
    log.append(a_tick(2, pools=[a_pool("web")]), Verdict((), (), (effect,)), ())
    log.close()
    return tmp_path / "state"


def closed(schema: Any) -> Any:
    """The schema without room for further keys, which later versions may have and this one may not."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    return made | ({"additionalProperties": False} if "properties" in made and "$schema" not in made else {})


def fits(name: str, value: Any) -> None:
    """Raises if a value is not what the schema of a command says, or has more."""
    jsonschema.Draft202012Validator(closed(schema_of(name))).validate(value)


def printed(nicety: Invoke, *words: str) -> Any:
    return json.loads(nicety(*words, "--json").out)


def test_no_command_that_prints_json_lacks_a_schema() -> None:
    group: Any = typer.main.get_command(app)
    printing = {name for name, each in commands(group) if any("--json" in option.opts for option in each.params)}
    assert printing >= {"status", "why", "decisions", "models list", "top"}, "found nothing to check"
    assert printing - FIGURES == OUTPUTS.keys() - {"frame", "notify"}


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_schema_is_one_and_describes_each_key(name: str) -> None:
    schema = schema_of(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    whole = json.dumps(schema)
    assert "None" not in whole
    assert 'additionalProperties": false' not in whole
    assert all(part["description"] for part in schema["$defs"].values())


@pytest.mark.parametrize("name", [name for name in OUTPUTS if name != "frame"])
def test_every_output_has_the_number_of_its_schema(name: str) -> None:
    schema = schema_of(name)
    tops = schema.get("oneOf") or [schema]
    for top in tops:
        part = schema["$defs"][top["$ref"].rpartition("/")[2]]
        assert part["properties"]["schema"]["const"] == 1
        assert "schema" in part["required"]


def test_the_comment_behind_a_field_is_its_description() -> None:
    frame = schema_of("frame")["$defs"]
    assert comments(Frame)["seq"] == "counts up from 0 in a session"
    assert frame["Group"]["properties"]["class"]["description"] == "interactive, batch or exempt"
    assert (
        schema_of("pools")["$defs"]["FoundPool"]["properties"]["master"]["description"]
        == "pid; null: its workers were started one by one"
    )
    assert comments(Running)["schema"] == "number of the schema: another one means that fields have another meaning or are gone"
    assert comments(WhyDecision)["id"] == '"S-T.N": session, tick, number in the tick', "of a base"
    names = schema_of("decisions")["$defs"]["ProcId"]["prefixItems"]
    assert [item["title"] for item in names] == ["pid", "start_ticks"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("doctor", ["doctor"]),
        ("status", ["status"]),
        ("pools", ["pools"]),
        ("anomalies", ["anomalies", "--since", "9999d"]),
        ("why", ["why", "5e551017-1.0"]),
        ("why", ["why", "5e551017-1.2"]),
        ("why", ["why", "web"]),
        ("why", ["why", "1"]),
        ("models list", ["models", "list"]),
        ("replay", ["replay"]),
        ("undo", ["undo"]),
    ],
)
def test_what_is_printed_fits_its_schema(nicety: Invoke, log: Path, name: str, words: list[str]) -> None:
    value = printed(nicety, *words)
    fits(name, value)
    assert value["schema"] == 1


def test_each_line_of_decisions_fits(nicety: Invoke, log: Path) -> None:
    lines = [json.loads(line) for line in nicety("decisions", "--json").out.splitlines()]
    assert sorted(line["status"] for line in lines) == ["applied", "applied", "refused by guard"]
    for line in lines:
        fits("decisions", line)


def test_a_frame_fits_in_its_file_and_as_top_prints_it(nicety: Invoke, tmp_path: Path) -> None:
    delay = Delay(wait=0.5, by=[("batch", 0.4)], others=0.05, own=0.05, unseen=0.0, steal=0.0)
    group = a_shown_group("web", "interactive", 1.0, 0.5, delay=delay, forecast=a_band(1.0, 2.0))
    seen = a_frame(own=an_own(pid=os.getpid()), groups=[group], pools=[a_shown_pool()], wall=time.time())
    (tmp_path / "frame").write_bytes(pack(seen))
    (tmp_path / "nicety.toml").write_text(f'[daemon]\nframe = "{tmp_path}/frame"\n')
    fits("frame", json.loads(msgspec.json.encode(seen)))
    line = nicety("--config", tmp_path / "nicety.toml", "top", "--json", "--once").out
    (value,) = (json.loads(each) for each in line.splitlines())
    fits("top", value)
    assert (value["schema"], value["alone"], value["frame"]["groups"][0]["name"]) == (1, False, "web")


def test_what_observe_put_back_fits(nicety: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome("5e551017-1.0", Status.APPLIED, "pid 7", "", 1)
    answer = {"ok": True, "scope": "observing", "outcomes": [msgspec.to_builtins(outcome)]}
    monkeypatch.setattr(control_socket, "ask", lambda *_words, **_more: answer)
    value = printed(nicety, "observe", "web")
    fits("observe", value)
    assert [each["decision"] for each in value["outcomes"]] == ["5e551017-1.0"]


def test_a_simulation_fits(nicety: Invoke) -> None:
    said = nicety("simulate", "--seconds", "60", "--warmup", "10", "--seeds", "1", "--rule", "kpa", "--json", "-")
    fits("simulate", json.loads(said.out))


def places(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from places(item)


def test_a_key_that_no_schema_has_is_noticed_at_any_depth(nicety: Invoke, log: Path) -> None:
    value = printed(nicety, "why", "5e551017-1.0")
    seen = 0
    for number, place in enumerate(places(value)):
        if place is value["decision"]["why"]["figures"]:  # any name
            continue
        other = copy.deepcopy(value)
        list(places(other))[number]["more"] = 1
        with pytest.raises(jsonschema.ValidationError):
            fits("why", other)
        jsonschema.Draft202012Validator(schema_of("why")).validate(other)  # as docs/json.md promises
        seen += 1
    assert seen >= 5


def test_a_key_that_is_missing_or_of_another_type_is_noticed(nicety: Invoke, log: Path) -> None:
    value = printed(nicety, "why", "5e551017-1.0")
    for broken in ({**value, "seq": "1"}, {key: item for key, item in value.items() if key != "policy"}, {**value, "schema": 2}):
        with pytest.raises(jsonschema.ValidationError):
            fits("why", broken)


def test_the_command_lists_and_prints_them(nicety: Invoke) -> None:
    listed = nicety("schema")
    assert [line.split("  ")[0] for line in listed.out.splitlines()[1:]] == list(OUTPUTS)
    assert json.loads(nicety("schema", "models", "list").out) == schema_of("models list")
    wrong = nicety("schema", "undone")
    assert wrong.code == 2
    assert "those that do: doctor, status" in wrong.err
