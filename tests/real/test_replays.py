"""Replays in the background: when they run, what their result does, and when it no longer counts. The program is a stand-in."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest

from nicety.scheduler.config.sections import Config, Objective, PoolConfig, PoolSize
from nicety.scheduler.decision import Chosen, Rules
from nicety.scheduler.explain.logstream import INFO, NOTICE, WARNING
from nicety.scheduler.service.replays import Replays, Said
from nicety.scheduler.store.chosen import ChosenStore, PoolReplay, ReplayedRules
from nicety.scheduler.testing.ticks import a_pool

HOUR = 3600 * 10**9
MINUTE = 60 * 10**9
CONSTANT = Chosen("web", Rules.CONSTANT, 8, workers=8.0, hours=18.0, least=2.0, most=7.0, peak=9.0)
TABLE = (
    ReplayedRules(Rules.ALL, 0, seconds=0.9, workers=9.5, keeps=True),
    ReplayedRules(Rules.CONSTANT, 8, seconds=0.95, workers=8.0, keeps=True),
    ReplayedRules(Rules.REACTIVE, 0, seconds=1.2, workers=9.0, keeps=False),
)
PROGRAM = """
import sys, pathlib
pathlib.Path({asked!r}).write_text(" ".join(sys.argv[1:]))
print(pathlib.Path({answer!r}).read_text())
"""


class Bench:
    """A daemon's replays, whose program answers what `answer` has."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.answer = folder, folder / "asked", folder / "answer"
        self.say(PoolReplay("web", CONSTANT, TABLE, 1.0, ""))
        self.command = (sys.executable, "-c", PROGRAM.format(asked=str(self.asked), answer=str(self.answer)))
        self.replays = self.fresh()

    def fresh(self) -> Replays:
        return Replays(self.folder, ("--state-dir", "x"), self.command)

    def say(self, *found: PoolReplay) -> None:
        self.answer.write_bytes(b"\n".join(map(msgspec.json.encode, found)))

    def run(self, now: int, wall: int = 0) -> Said:
        """Start what is due at `now`, and wait for its end."""
        runs = self.replays._background.pid is not None
        said = self.replays.tick((), now, wall)
        if self.replays._background.pid is not None and not runs:
            priority, text = said.pop()
            assert (priority, text.startswith("replay of the load of ")) == (INFO, True)
            assert f" began: pid {self.replays._background.pid}, only on idle CPUs" in text
        deadline = time.monotonic() + 20
        while self.replays._background.pid is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
            said += self.replays.tick((), now, wall)
        return said

    def follow(self, load: float, begin: int, minutes: int) -> Said:
        """Ticks of this load, one a minute."""
        pool = a_pool("web", 8, load)
        return [line for turn in range(minutes + 1) for line in self.replays.tick((pool,), begin + turn * MINUTE, 0)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.replays.close()


def configured(hours: float = 24.0, changes: Mapping[str, object] = MappingProxyType({})) -> Config:
    pool = PoolConfig(**{"kind": "command", "command": ["x"], "maximum": 16, **changes})  # type: ignore[arg-type]
    return Config(pool_size=PoolSize(replay_hours=hours), pools={"web": pool})


def sizes(replays: Replays) -> list[int]:
    return [chosen.size for chosen in replays.chosen]


def test_the_first_replay_comes_after_an_hour_and_the_next_after_a_day(bench: Bench) -> None:
    bench.replays.begin(configured(), 0, 0)
    assert bench.replays.state(HOUR // 2) == "in 30 min 0 s"
    assert bench.run(HOUR - 1) == []
    assert not bench.asked.exists()
    asked = "The goal was a p95 of at most 1 s in 18 h of its load,"
    table = "(workers, p95): all rules: 9.5, 0.9 s; a constant size of 8: 8, 0.95 s; the reactive rule: 9, 1.2 s, too late"
    assert bench.run(HOUR) == [
        (
            NOTICE,
            f"replay: pool web is sized by a constant size of 8. {asked} and no others kept it with clearly fewer workers {table}",
        )
    ]
    assert bench.asked.read_text() == "--state-dir x --pool web"
    assert bench.replays.chosen == (CONSTANT,)
    bench.asked.unlink()
    assert bench.run(25 * HOUR - 1) == []
    ((priority, text),) = bench.run(25 * HOUR)
    assert (priority, "is still sized by a constant size of 8" in text) == (INFO, True)


def test_what_was_chosen_holds_after_a_restart_and_is_replayed_when_it_is_a_day_old(bench: Bench) -> None:
    bench.replays.begin(configured(), 0, 0)
    bench.run(HOUR, wall=100 * HOUR)
    bench.replays = bench.fresh()
    bench.replays.begin(configured(), 0, 110 * HOUR)
    assert bench.replays.chosen == (CONSTANT,)
    assert bench.run(14 * HOUR - 1) == []
    assert len(bench.run(14 * HOUR)) == 1


@pytest.mark.parametrize("changes", [{"maximum": 12}, {"minimum": 3}, {"objective": Objective(p95="1s")}])
def test_other_limits_or_another_objective_drop_it(bench: Bench, changes: dict[str, object]) -> None:
    bench.replays.begin(configured(), 0, 0)
    bench.run(HOUR)
    bench.replays.configure(configured(changes={"drain_timeout": 7}), 2 * HOUR)
    assert sizes(bench.replays) == [8]
    bench.replays.configure(configured(changes=changes), 2 * HOUR)
    assert sizes(bench.replays) == []
    assert bench.run(3 * HOUR - 1) == []
    assert len(bench.run(3 * HOUR)) == 1
    after = bench.fresh()
    after.begin(configured(), 0, 0)
    assert after.chosen == (), "a restart with the old section does not bring it back"


def test_a_load_with_other_habits_brings_all_rules_back_and_a_replay_within_the_hour(bench: Bench) -> None:
    bench.replays.begin(configured(), 0, 0)
    bench.run(HOUR)
    assert bench.follow(6.9, HOUR, 60) == []
    assert bench.follow(8.7, 2 * HOUR + MINUTE, 40) == [], "a quarter more than it had is chance"
    assert bench.follow(8.7, 3 * HOUR, 0) == []
    assert bench.follow(8.9, 3 * HOUR + MINUTE, 9) == []
    ((priority, text),) = bench.follow(8.9, 3 * HOUR + 11 * MINUTE, 0)
    why = "8.9 Erlang over the last 10 min 0 s, outside of the replayed 2 to 7"
    again = "All rules count again; the next replay comes in 1 h 0 min"
    assert (priority, text) == (NOTICE, f"replay: the load of pool web has changed: {why}. {again}")
    assert bench.replays.chosen == ()
    assert ChosenStore(bench.folder).read() == ()
    assert bench.run(4 * HOUR + 10 * MINUTE) == []
    assert len(bench.run(4 * HOUR + 11 * MINUTE)) == 1


def test_all_rules_are_kept_as_a_choice_and_are_none_for_the_policy(bench: Bench) -> None:
    every = Chosen("web", Rules.ALL, 0, 9.5, 18.0, 2.0, 7.0, 9.0)
    bench.say(PoolReplay("web", every, TABLE[2:], 1.0, ""))
    bench.replays.begin(configured(), 0, 0)
    ((priority, text),) = bench.run(HOUR)
    assert (priority, "is sized by all rules" in text, "and no rules kept it (workers" in text) == (NOTICE, True, True)
    assert bench.replays.chosen == ()
    assert [kept.chosen for kept in ChosenStore(bench.folder).read()] == [every]


def test_a_pool_that_cannot_be_replayed_keeps_what_it_had_and_the_reason_is_logged(bench: Bench) -> None:
    bench.replays.begin(configured(), 0, 0)
    bench.run(HOUR)
    bench.say(PoolReplay("web", None, (), 0.0, "web: recorded for 7 s; a replay needs 1800"))
    assert bench.run(25 * HOUR) == [(INFO, "replay: web: recorded for 7 s; a replay needs 1800")]
    assert bench.replays.chosen == (CONSTANT,)


def test_what_a_replay_found_before_it_was_stopped_counts_and_the_others_come_first_the_next_time(bench: Bench) -> None:
    pool = PoolConfig(kind="command", command=["x"], maximum=16)
    bench.replays.begin(Config(pools={"web": pool, "zeta": pool}), 0, 0)
    ((first, _), (second, text)) = bench.run(HOUR, wall=HOUR)
    assert (first, second, text) == (
        NOTICE,
        WARNING,
        "the replay of the pools' loads failed (status 0): without a message; the next one comes in 1 d 0 h",
    )
    assert bench.replays.chosen == (CONSTANT,)
    bench.run(25 * HOUR)
    assert bench.asked.read_text() == "--state-dir x --pool zeta --pool web"


def test_a_program_that_fails_is_told_with_its_last_words(bench: Bench) -> None:
    bench.answer.unlink()
    bench.replays.begin(configured(), 0, 0)
    ((priority, text),) = bench.run(HOUR)
    assert priority == WARNING
    assert text.startswith("the replay of the pools' loads failed (status 1): FileNotFoundError:")
    assert text.endswith("; the next one comes in 1 d 0 h")


def test_what_was_found_for_other_limits_is_dropped(bench: Bench) -> None:
    bench.replays.begin(configured(), 0, 0)
    bench.replays.tick((), HOUR, 0)
    bench.replays.configure(configured(changes={"maximum": 6}), HOUR)
    assert bench.run(HOUR) == []
    assert bench.replays.chosen == ()
    assert ChosenStore(bench.folder).read() == ()
    assert len(bench.run(2 * HOUR)) == 1, "the new limits are replayed"


def test_switched_off_during_a_replay_nothing_of_it_counts(bench: Bench) -> None:
    bench.replays.begin(configured(), 0, 0)
    bench.replays.tick((), HOUR, 0)
    bench.replays.configure(configured(hours=0.0), HOUR)
    said = bench.run(HOUR)
    assert all("pool_size.replay_hours is 0 now" in text for _, text in said)
    assert bench.replays.chosen == ()


@pytest.mark.parametrize("config", [configured(hours=0.0), configured(changes={"objective": Objective(utilization=0.7)}), Config()])
def test_nothing_is_replayed_where_nothing_is_to_be_chosen(bench: Bench, config: Config) -> None:
    bench.replays.begin(config, 0, 0)
    assert bench.replays.state(HOUR) == "off"
    assert bench.run(100 * HOUR) == []
    assert not bench.asked.exists()


def test_switched_off_by_a_reload_all_rules_count_again(bench: Bench) -> None:
    bench.replays.begin(configured(), 0, 0)
    bench.run(HOUR)
    bench.replays.configure(configured(hours=0.0), 2 * HOUR)
    assert bench.replays.chosen == ()
    assert bench.run(100 * HOUR) == []


def test_a_damaged_file_is_a_trouble_until_the_next_choice(bench: Bench) -> None:
    (bench.folder / "chosen.json").write_text("x")
    bench.replays.begin(configured(), 0, 0)
    assert "chosen.json is damaged" in bench.replays.trouble
    bench.run(HOUR)
    assert bench.replays.trouble == ""
    assert bench.replays.chosen == (CONSTANT,)
