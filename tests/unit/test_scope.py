"""Which decisions are carried out: the table of docs/acting.md, and the names that people give."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicety.models.identity import ProcId
from nicety.scheduler.act.scoped import as_record, words
from nicety.scheduler.config.sections import Config, ConfigError, parse
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decision import (
    Abilities,
    Action,
    Decision,
    Digest,
    Flag,
    Grant,
    Recycle,
    ResizePool,
    Scope,
    Session,
    Set,
    Why,
    encode,
)
from nicety.scheduler.explain.status_page import status_page
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace
from nicety.scheduler.scope import ACT, EVERYTHING, OBSERVE, POLICIES, ScopeError, act_on, acts, left, observe, resolve, things
from nicety.scheduler.words import moment

WORKER = ProcId(7, 1)


def decision(policy: str, action: Action, **figures: Any) -> Decision:
    return Decision("s-0.0", policy, "target", action, Why("rule", "because", figures, (), ()))


RESIZE = decision("pool_size", ResizePool("web", 4))
DEMOTE = decision("priority", Set(Control.NICE, ProcessPlace(WORKER), 19), victim="api", contender="hogs")
SESSION = decision("priority", Set(Control.AUTOGROUP, SessionPlace(WORKER.pid, WORKER), 19), victim="api", contender="hogs")
CGROUP = decision("priority", Set(Control.CPU_WEIGHT, CgroupPlace("/batch"), 1), victim="api", contender="hogs")
SLICE = decision("priority", Set(Control.SLICE, ProcessPlace(WORKER), 100_000), victim="api")
CONFINE = decision("placement", Set(Control.AFFINITY, ProcessPlace(WORKER), (0,)), group="hogs")
FENCE = decision("quarantine", Set(Control.FENCE, ProcessPlace(WORKER), (1, 2, 3)), pool="web")
RECYCLE = decision("quarantine", Recycle("web", WORKER), pool="web")
FLAG = decision("quarantine", Flag("web", WORKER, "spin"))
DIGEST = decision("quarantine", Digest(3))
ALL = (RESIZE, DEMOTE, SESSION, CGROUP, SLICE, CONFINE, FENCE, RECYCLE, FLAG, DIGEST)


@pytest.mark.parametrize(
    ("named", "acting"),
    [
        (("policy pool_size",), (RESIZE,)),
        (("policy priority",), (DEMOTE, SESSION, CGROUP, SLICE)),
        (("policy placement",), (CONFINE,)),
        (("policy quarantine",), (FENCE, RECYCLE, FLAG, DIGEST)),
        (("web",), (RESIZE, FENCE, RECYCLE, FLAG)),
        (("api",), (DEMOTE, SESSION, CGROUP, SLICE)),  # whom it protects
        (("hogs",), (DEMOTE, SESSION, CGROUP, CONFINE)),  # whom it changes
        (("nobody",), ()),
        ((), ALL),
    ],
)
def test_a_decision_acts_if_its_policy_its_pool_or_a_group_of_it_is_named(
    named: tuple[str, ...], acting: tuple[Decision, ...]
) -> None:
    scope = act_on(OBSERVE, named, None)
    assert tuple(each for each in ALL if acts(scope, things(each))) == acting


def test_nothing_acts_while_everything_is_observed() -> None:
    assert not any(acts(OBSERVE, things(each)) for each in ALL)
    assert all(acts(ACT, things(each)) for each in ALL)


def test_what_is_spared_is_observed_although_something_wider_acts() -> None:
    scope = observe(ACT, ("api",))
    assert scope == Scope((Grant(EVERYTHING),), ("api",))
    assert [acts(scope, things(each)) for each in (RESIZE, DEMOTE, SLICE, CONFINE)] == [True, False, False, True]
    assert act_on(scope, ("api",), None).spared == ()
    assert act_on(scope, (), None) == ACT


def test_to_observe_the_last_thing_is_to_observe() -> None:
    scope = act_on(OBSERVE, ("web", "policy priority"), None)
    only = observe(scope, ("web",))
    assert only == Scope((Grant("policy priority"),), ("web",))
    assert observe(only, ("policy priority",)) == OBSERVE
    assert observe(scope, ()) == OBSERVE


def test_each_thing_has_its_own_time() -> None:
    scope = act_on(act_on(OBSERVE, ("policy priority",), None), ("web",), 50)
    assert left(scope, 49) is scope
    assert left(scope, 50) == Scope((Grant("policy priority"),))
    assert left(act_on(OBSERVE, (), 50), 51) == OBSERVE
    assert act_on(scope, ("web",), 90).grants == (Grant("policy priority"), Grant("web", 90)), "it is given again"


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["web", "api", "policy priority"]), st.none() | st.integers(0, 100))))
def test_a_scope_is_in_order_and_each_thing_once_whatever_was_asked_for(asked: list[tuple[bool, str, int | None]]) -> None:
    scope = OBSERVE
    for more, thing, until in asked:
        scope = act_on(scope, (thing,), until) if more else observe(scope, (thing,))
        assert acts(scope, {thing}) == (more and bool(scope.grants))
        names = [grant.thing for grant in scope.grants]
        assert names == sorted(set(names))
        assert list(scope.spared) == sorted(set(scope.spared))
        assert not set(names) & set(scope.spared)
        assert names or not scope.spared


# --- names ------------------------------------------------------------------------------------------------------------------------


def test_people_name_policies_pools_groups_and_groups_seen_now() -> None:
    words_ = ["web", "priority", "backup", "program make", "web"]
    assert resolve(words_, {"web"}, {"backup"}, {"program make"}) == ("web", "policy priority", "backup", "program make")


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("wbe", 'the nearest is "web"'),
        ("nginx", 'the nearest is "program nginx"'),
        ("pool-size", 'the nearest is "pool_size"'),
        ("", "policies are placement, pool_size, priority, quarantine"),
        ("*", "policies are"),
        ("pool nobody", "no policy, pool or group"),
        ("policy web", "no policy, pool or group"),
    ],
)
def test_a_name_that_means_nothing_is_refused_with_the_nearest(word: str, says: str) -> None:
    with pytest.raises(ScopeError) as refused:
        resolve([word], {"web"}, {"backup"}, {"program nginx"})
    assert says in str(refused.value)
    assert "nicety status" in str(refused.value), "the next step"


def test_a_name_of_a_policy_and_a_pool_has_to_be_told_apart() -> None:
    with pytest.raises(ScopeError, match='is a policy and a pool; say "policy priority" or "pool priority"'):
        resolve(["priority"], {"priority"}, (), ())
    with pytest.raises(ScopeError, match='is a policy and a group; say "policy placement" or "group placement"'):
        resolve(["placement"], (), {"placement"}, ())
    assert resolve(["policy priority", "pool priority"], {"priority"}, (), ()) == ("policy priority", "priority")


def test_the_policies_are_those_of_the_engine() -> None:
    assert sorted(policy.name for policy in Engine(Config(), "")._policies) == list(POLICIES)


def test_the_configuration_names_what_it_acts_on() -> None:
    text = '[daemon]\nact = true\nact_on = ["priority", "api"]\n[groups.api]\nprogram = "api"\n'
    assert parse(text).daemon.act_on == ["priority", "api"]
    with pytest.raises(ConfigError) as refused:
        parse(text.replace('"api"]', '"ap", "program make"]'), "x.toml")
    (said,) = refused.value.problems
    assert said.startswith('x.toml:3: daemon.act_on: no policy, pool or group is called "ap"; the nearest is "api"')
    assert '"program make"' in said
    assert said.endswith("a section [groups.NAME] gives a group a name")


# --- words ------------------------------------------------------------------------------------------------------------------------


def test_it_is_told_what_acts_and_for_how_long() -> None:
    assert words(OBSERVE, 0) == "observing"
    assert words(ACT, 0) == "acting"
    hour = act_on(OBSERVE, ("web",), 3600 * 10**9)
    assert words(hour, 60 * 10**9) == "acting on web for another 59 min 0 s"
    assert words(act_on(OBSERVE, (), 10**10), 0) == "acting on everything for another 10 s"
    assert words(observe(ACT, ("api", "policy pool_size")), 0) == "acting, but not on api, policy pool_size"
    assert as_record(hour, 60 * 10**9, 100 * 10**9) == {
        "acting_on": [{"thing": "web", "seconds_left": 3540.0, "until": moment(3640 * 10**9)}],
        "spared": [],
    }


def test_status_shows_it_as_text_too() -> None:
    scope = observe(act_on(act_on(OBSERVE, ("web",), 3600 * 10**9), ("policy priority",), None), ("api",))
    answer = {"mode": "act", "scope": words(scope, 0), "cannot": "nothing will be demoted", **as_record(scope, 0, 0)}
    page = " ".join(status_page(answer, None).split())
    assert "acting on policy priority, web for another 1 h 0 min, but not on api" in page
    assert "cannot nothing will be demoted" in page
    assert "None" not in page


def test_the_header_of_a_session_says_it_and_older_headers_can_be_read() -> None:
    session = Session("1", "b", 0, "0", "act", WORKER, Abilities(True, "", True), {}, {}, {}, scope=act_on(OBSERVE, ("web",), 5))
    again = msgspec.json.decode(encode(session), type=Session)
    assert again.scope == Scope((Grant("web", 5),))
    old = msgspec.json.decode(encode(session))
    del old["scope"]
    assert msgspec.convert(old, Session).scope == OBSERVE
