"""A daemon that is told what to act on while it runs: what enters is carried out, what leaves is put back, and it replays."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nicety.scheduler.config.paths import Loaded, Paths
from nicety.scheduler.config.sections import parse
from nicety.scheduler.decision import Grant, ResizePool, Scope, Session
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.ledger import StateLock
from nicety.scheduler.replay import replay
from nicety.scheduler.scope import ScopeError
from nicety.scheduler.service.answers.control_socket import ControlError
from nicety.scheduler.store.decisions import DecisionReader
from nicety.scheduler.testing.hands import daemon_in_process

CONFIG = """
[daemon]
interval = 0.1
probe_interval = 0.02
{daemon}
[priority]
enabled = false
{others}[pools.jobs]
kind = "command"
command = ["{python}", "-c", "import time\\nwhile True: sum(range(20000)); time.sleep(0.01)"]
minimum = 1
maximum = 3
drain_timeout = 2
[pools.jobs.queue]
files = "{spool}/*"
every = 0.1
[pool_size]
down_after = 60.0
"""


OTHERS = """
[groups.others]
program = "*"
class = "batch"
"""
"""What else runs here while the tests do leaves the pool the headroom that it wants."""


class Place:
    """A daemon in this process, with a pool that is too small for the work that waits."""

    def __init__(
        self,
        folder: Path,
        act: bool | None,
        things: tuple[str, ...] = (),
        daemon: str = "",
        others: str = OTHERS,
        **options: Any,
    ) -> None:
        (folder / "spool").mkdir(exist_ok=True)
        for name in range(8):
            (folder / "spool" / str(name)).touch()
        self.file = folder / "nicety.toml"
        self.others = others
        self.write(daemon)
        self.paths = Paths(folder / "state", folder / "state" / "control.sock")
        self.lock = StateLock(self.paths.root)
        loaded = Loaded(parse(self.file.read_text()), self.file)
        self.daemon = daemon_in_process(loaded, self.paths, SystemClock(), act=act, things=things, **options)

    def write(self, daemon: str) -> None:
        values = {"python": sys.executable, "spool": self.file.parent / "spool", "others": self.others}
        self.file.write_text(CONFIG.format(daemon=daemon, **values))

    def run(self, seconds: float) -> None:
        assert self.daemon.run(seconds) == 0

    def asked(self, least: int, seconds: float = 20.0) -> int:
        """Run until the pool is asked for so many workers, or the time is over; what it is asked for then."""
        while seconds > 0 and self.requested() < least:
            self.run(0.5)
            seconds -= 0.5
        return self.requested()

    def requested(self) -> int:
        samples = self.daemon._pools.samples
        return samples["jobs"].requested if "jobs" in samples else 0

    def call(self, verb: str, **request: Any) -> dict[str, Any]:
        return self.daemon._socket._handlers[verb](request)

    def sessions(self) -> list[Session]:
        with DecisionReader(self.paths.decisions) as log:
            return [each.session for each in log.sessions() if each.session is not None]

    def resizes(self) -> list[Status]:
        with DecisionReader(self.paths.decisions) as log:
            ticks = [logged for each in log.sessions() for logged in log.ticks(each.id)]
        wanted = {d.id for tick in ticks if tick.verdict for d in tick.verdict.decisions if isinstance(d.action, ResizePool)}
        found: dict[str, Status] = {}
        for tick in ticks:
            for outcome in tick.outcomes or ():
                if outcome.decision in wanted:
                    found.setdefault(outcome.decision, outcome.status)
        return list(found.values())

    def close(self) -> None:
        self.daemon.close()
        self.lock.release()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path, act=False)
    yield made
    made.close()


def assert_replays(place: Place, sessions: int) -> None:
    found = replay(place.paths)
    assert [str(each) for each in found.differences] == []
    assert found.notes == []
    assert found.sessions == sessions
    assert found.observed > found.ticks * 0.8, "nearly all figures were made again: all but closing ticks"


def test_a_pool_is_turned_on_and_off_while_it_runs_and_it_replays_exactly(place: Place) -> None:
    place.run(3)
    assert place.requested() == 1, "it observes"
    assert not place.paths.ledger.exists()
    told = place.call("act", things=["jobs"])
    assert (told["mode"], told["scope"]) == ("act", "acting on jobs")
    assert place.asked(2) >= 2, "what was only observed is decided again, and carried out"
    assert place.call("status")["acting_on"] == [{"thing": "jobs", "seconds_left": None, "until": None}]
    told = place.call("observe", things=["jobs"])
    assert [outcome["status"] for outcome in told["outcomes"]] == ["applied"]
    place.run(1)
    assert place.requested() == 1, "it has the size back that it had"
    assert (told["mode"], place.call("status")["scope"]) == ("observe", "observing")
    place.close()
    scopes = [session.scope for session in place.sessions()]
    assert scopes == [Scope(), Scope((Grant("jobs"),)), Scope()]
    assert {Status.OBSERVED, Status.APPLIED} <= set(place.resizes())
    assert_replays(place, 3)


def test_what_stays_in_the_scope_stays_in_force(tmp_path: Path) -> None:
    place = Place(tmp_path, act=True)
    try:
        assert place.asked(2) >= 2
        before = place.call("status", full=True)["changes_in_force"]
        assert not place.call("observe", things=["placement"])["outcomes"]
        assert place.call("observe", things=["quarantine"])["scope"] == "acting, but not on policy placement, policy quarantine"
        assert place.call("status", full=True)["changes_in_force"] == before
        place.run(0.5)
        assert place.requested() >= 2
        (outcome,) = place.call("observe", things=["pool_size"])["outcomes"]
        assert outcome["status"] == "applied"
        place.run(1)
        assert place.requested() == 1
    finally:
        place.close()
    assert_replays(place, 4)


def test_after_its_time_it_observes_and_has_put_everything_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = Place(tmp_path, act=True, things=("jobs",), act_seconds=3600.0)
    try:
        assert place.call("status")["scope"].startswith("acting on jobs for another 59 min")
        assert place.asked(2) >= 2
        place.call("act", things=["jobs"], seconds=0.2)
        place.run(1.5)
        status = place.call("status", full=True)
        assert (status["mode"], status["changes_in_force"]) == ("observe", [])
        assert place.requested() == 1
    finally:
        place.close()
    said = capfd.readouterr().err
    assert '"text": "the time to act is over"' in said
    assert '"text": "now observing"' in said
    until = place.sessions()[0].scope.grants[0].until
    assert until is not None
    assert_replays(place, 3)


def test_a_reload_takes_what_the_configuration_says_and_keeps_what_was_learned(tmp_path: Path) -> None:
    place = Place(tmp_path, act=None)
    try:
        place.run(2)
        place.write('act = true\nact_on = ["jobs"]')
        place.call("reload")
        assert place.call("status")["scope"] == "acting on jobs"
        assert place.asked(2) >= 2
        place.call("reload")
        place.run(0.5)
        assert place.requested() >= 2, "what was in force stays so"
        assert place.call("status")["scope"] == "acting on jobs"
    finally:
        place.close()
    assert [session.follows for session in place.sessions()] == ["", *(session.id for session in place.sessions()[:-1])]
    assert_replays(place, 3)


def test_who_was_told_to_act_is_not_told_otherwise_by_the_configuration(tmp_path: Path) -> None:
    place = Place(tmp_path, act=False)
    try:
        place.write("act = true")
        place.call("reload")
        assert place.call("status")["scope"] == "observing"
    finally:
        place.close()


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"things": ["jbos"]}, 'the nearest is "jobs"; `nicety status`'),
        ({"things": "jobs"}, "a list of names"),
        ({"things": [1]}, "a list of names"),
        ({"things": ["jobs"], "seconds": 0}, "no"),
        ({"things": ["jobs"], "seconds": True}, "not a length of time"),
    ],
)
def test_a_request_that_makes_no_sense_changes_nothing(place: Place, request_: dict[str, Any], says: str) -> None:
    with pytest.raises(ControlError, match=says):
        place.call("act", **request_)
    assert place.call("status")["scope"] == "observing"
    assert not place.paths.ledger.exists()


def test_a_group_that_is_seen_now_can_be_named(tmp_path: Path) -> None:
    with closing(Place(tmp_path, act=False, others="")) as place:
        name = next(name for name in sorted(place.daemon._names.groups_now()) if name.startswith("program python"))
        assert place.call("act", things=[name])["scope"] == f"acting on {name}"


def test_a_ledger_that_cannot_be_used_is_said_and_nothing_is_turned_on(place: Place) -> None:
    place.paths.ledger.symlink_to(place.paths.root / "elsewhere")
    with pytest.raises(ControlError, match=r"cannot act: the ledger is not believed: .* is a symbolic link"):
        place.call("act", things=["jobs"])
    assert place.call("status")["scope"] == "observing"
    place.write("act = true")


def test_a_name_that_means_nothing_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(ScopeError, match='no policy, pool or group is called "jbos"; the nearest is "jobs"'):
        Place(tmp_path, act=True, things=("jbos",))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give the right up")
def test_without_the_right_to_renice_that_is_said_before_it_starts(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nicety.scheduler.hands.knobs.control.LinuxKernel.forbidden", lambda _, control: f"{control} is left alone")
    place = Place(tmp_path, act=True)
    try:
        place.run(0.2)
        assert place.call("status")["cannot"].startswith("nothing will be demoted by nice, autogroup or scheduling policy")
    finally:
        place.close()
    lines = capfd.readouterr().err.splitlines()
    said = [number for number, line in enumerate(lines) if "nothing will be demoted by nice" in line]
    started = [number for number, line in enumerate(lines) if "started, acting" in line]
    assert said[0] < started[0]
    assert '"priority": 4' in lines[said[0]]
