"""Whatever a brain asks, in any order: what the hands write is within their limits and has an entry, and when the brain is gone
every value is as it was. `benchmarks/fuzz/protocol.py` has the world and looks at every write; the long run is `make fuzz`.
"""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicety.models.identity import ProcId
from nicety.scheduler.hands import limits, planning
from nicety.scheduler.hands.changes import EntryStatus
from nicety.scheduler.hands.faults import Trouble
from nicety.scheduler.hands.kernel import Who
from nicety.scheduler.hands.limits import Limiter
from nicety.scheduler.hands.places import Control
from nicety.scheduler.hands.wire import VERSION, GoneError

protocol: Any = importlib.import_module("benchmarks.fuzz.protocol")
target: Any = importlib.import_module("benchmarks.fuzz.target")

KNOWN = protocol.Watched()
PROCESSES = [each.id for each in KNOWN.processes.values()]

NUMBERS = st.sampled_from([0, 1, -1, 2, 3, 5, 10, 15, 19, 20, -20, 100, 512, 1024, 5_000_000, 1 << 31, 1 << 70])
JUNK = st.none() | st.booleans() | NUMBERS | st.floats() | st.text(max_size=4) | st.lists(NUMBERS, max_size=3)
PROCESS = st.sampled_from([[*KNOWN.plain]]) | st.sampled_from([[*each] for each in PROCESSES])
PATH = (
    st.sampled_from(["/a", "/a/b"])
    | st.sampled_from(["/a", "/a/b", "/kept", "/", "//a", "/a/", "/a/../kept", "a", ""])
    | st.text(max_size=4)
)
VALUES: dict[str, st.SearchStrategy[object]] = {
    Control.NICE: st.integers(-2, 21),
    Control.AUTOGROUP: st.integers(-2, 21),
    Control.POLICY: st.integers(0, 7),
    Control.CPU_SHARES: st.integers(0, 2000),
    Control.CPU_IDLE: st.integers(0, 2),
    Control.AFFINITY: st.lists(st.integers(-1, 4), max_size=4),
    Control.FENCE: st.lists(st.sampled_from([0, 1, 8, 500, 1 << 26, -1]), min_size=2, max_size=5),
    Control.SLICE: st.sampled_from([0, 100_000, 5_000_000, -5]),
}
OF_CGROUPS = (Control.CPU_SHARES, Control.CPU_WEIGHT, Control.CPU_IDLE)


@st.composite
def orders(draw: st.DrawFn) -> list[object]:
    """An order that may be carried out; now and then with a field that is anything."""
    control = draw(st.sampled_from(list(Control)))
    place = [None, None, draw(PATH)] if control in OF_CGROUPS else [*draw(PROCESS), ""]
    value = draw(st.none() | VALUES.get(control, NUMBERS))
    made: list[object] = ["s-0.1", "target", control, *place, value, None, draw(st.sampled_from([None, "app"]))]
    if draw(st.integers(0, 15)) == 15:
        made[draw(st.integers(0, len(made) - 1))] = draw(JUNK)
    return made


SUBJECT = st.one_of(
    st.tuples(st.sampled_from(list(Control)), PROCESS).map(lambda each: [each[0], *each[1], ""]),
    PATH.map(lambda path: [Control.CPU_SHARES, None, None, path]),
    st.integers(1, 12).map(lambda number: [Control.AUTOGROUP, *PROCESSES[1], f"autogroup-{number}"]),
    JUNK,
)
POOL = st.tuples(PROCESS, st.sampled_from(["web", "x", "\n"])).map(lambda each: [Control.POOL_SIZE, *each[0], each[1]])
REQUEST = st.one_of(
    st.tuples(st.just("change"), st.tuples(st.lists(orders(), max_size=6))),
    st.tuples(st.just("change"), st.tuples(st.lists(orders(), max_size=6))),
    st.tuples(st.sampled_from(["put back", "undo"]), st.tuples(st.lists(SUBJECT, max_size=4))),
    st.tuples(st.sampled_from(["sweep", "recover", "open", "farewell"]), st.just(())),
    st.tuples(st.just("resize"), st.tuples(st.just("s"), st.just("t"), POOL | SUBJECT, *[NUMBERS] * 3)),
    st.tuples(
        st.just("settle"), st.tuples(st.lists(st.tuples(st.integers(-1, 30), st.sampled_from(list(EntryStatus))), max_size=6))
    ),
    st.tuples(st.sampled_from(["hello", "forbidden", "own nice", "change", "undo", "nothing"]), st.lists(JUNK, max_size=3)),
)


def texts(requests: list[object]) -> list[bytes]:
    return [json.dumps(request).encode() for request in requests]


@settings(max_examples=60, deadline=None)
@given(st.lists(REQUEST, min_size=1, max_size=8).map(texts), st.binary(max_size=8))
def test_no_request_makes_the_hands_do_what_they_must_not(requests: list[bytes], raw: bytes) -> None:
    with target.workplace() as folder:
        protocol.attack(folder, requests, raw)


def test_the_requests_are_not_all_refused() -> None:
    """The examples reach the kernel: else they would show nothing."""
    said = Counter[str]()

    @settings(max_examples=30, deadline=None, derandomize=True, database=None)
    @given(st.lists(REQUEST, min_size=4, max_size=8).map(texts))
    def run(requests: list[bytes]) -> None:
        with target.workplace() as folder:
            for kind, result, *_ in protocol.attack(folder, requests):
                said[kind] += 1
                said.update(each[2] for each in result.get("done", ()) if len(each) == 5) if isinstance(result, dict) else None

    run()
    assert min(said[each] for each in ("ok", "refused", "applied", "unchanged")) >= 5, said


UNLIMITED: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "a value may be raised": lambda patch: patch.setattr(planning, "favours", lambda *_: False),
    "any value is in range": lambda patch: patch.setattr(limits, "_out_of_range", lambda _: ""),
    "no process is spared": lambda patch: patch.setattr(Limiter, "_process", lambda *_: None),
    "a session is not looked at": lambda patch: patch.setattr(Limiter, "_touches", lambda *_: None),
}


@pytest.mark.parametrize("name", UNLIMITED)
def test_hands_without_one_of_their_limits_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    UNLIMITED[name](monkeypatch)
    orders = [
        protocol.order(KNOWN.lowered, "nice", 2),
        protocol.order(KNOWN.pinned, "affinity", [0, 1, 2]),
        protocol.order(KNOWN.plain, "nice", -5),
        protocol.order(KNOWN.named, "nice", 5),
        protocol.order(KNOWN.shell, "autogroup", 5),
        protocol.order("/kept", "cpu.shares", 5),
        protocol.order(KNOWN.plain, "fence", [1, 0, 0, 0]),
    ]
    with target.workplace() as folder, pytest.raises(target.BrokenError):
        protocol.attack(folder, texts([["change", [[each]]] for each in orders]))


def test_a_brain_that_dies_within_a_request_does_not_have_it_carried_out() -> None:
    """Else a long last request would be, while nobody puts back what was changed before."""
    with target.workplace() as folder, closing(protocol.Hands(folder)) as hands:
        for text in texts([["hello", [VERSION]], ["open", []]]):
            hands.ask(text)
        who = hands.kernel.who

        def dying(process: ProcId) -> Who | Trouble:
            hands.brain.close()
            found: Who | Trouble = who(process)
            return found

        hands.kernel.who = dying
        (request,) = texts([["change", [[protocol.order(KNOWN.plain, "nice", value) for value in (5, 6)]]]])
        with pytest.raises(GoneError):
            hands.ask(request)
        assert hands.kernel.writes == []
