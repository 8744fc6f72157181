"""What is decided rests on the memory alone: engines and policies that are made anew from it in between decide the same."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from golden_runs import RUNS, Run, golden, log

from nicety.scheduler.config.sections import Config
from nicety.scheduler.decide.policies.registry import Memories, policies
from nicety.scheduler.decision import Topology

SHORT = sorted(RUNS.keys() - {"mixed", "demo"})


class Anew:
    """The policy with this number, made anew before each call from its memory, which went through JSON."""

    def __init__(self, number: int, config: Config, memories: Memories, topology: Topology) -> None:
        self.made_of, self.number, self.calls = (config, memories, topology), number, list[str]()
        self.name = policies(*self.made_of)[number].name

    def __getattr__(self, method: str) -> Any:
        self.calls.append(method)
        memory = getattr(self.made_of[1], self.name)
        again = msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(memory))), type(memory))
        for field in memory.__struct_fields__:
            setattr(memory, field, getattr(again, field))
        return getattr(policies(*self.made_of)[self.number], method)


def run_of(name: str) -> Run:
    run = RUNS[name]()
    assert isinstance(run, Run)
    return run


@pytest.mark.parametrize("name", SHORT)
def test_an_engine_resumed_between_every_two_ticks_decides_the_same(name: str) -> None:
    run = dataclasses.replace(run_of(name), resumed_every=1)
    assert list(log(run)) == golden(name).read_text().splitlines()


@pytest.mark.parametrize("name", SHORT)
def test_a_policy_made_anew_between_any_two_calls_decides_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[Anew]()

    def anew(config: Config, memories: Memories, topology: Topology) -> Iterable[Anew]:
        found = [Anew(number, config, memories, topology) for number in range(len(policies(config, memories, topology)))]
        made.extend(found)
        return found

    monkeypatch.setattr("nicety.scheduler.decide.engine.policies", anew)
    assert list(log(run_of(name))) == golden(name).read_text().splitlines()
    assert {"propose", "admit", "learn"} <= {call for policy in made for call in policy.calls}
