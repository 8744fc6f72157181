"""The past in buckets: sums and peaks are right, the newest comes first, and what was read is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from nicety.scheduler.config.paths import Paths
from nicety.scheduler.config.sections import Config
from nicety.scheduler.explain import history
from nicety.scheduler.explain.history import GROUP, MACHINE, PIECE, Piece, moment
from nicety.scheduler.store.decisions import DecisionReader
from nicety.scheduler.testing.past import BURST, SECOND, names_of, write_past, write_traces
from nicety.scheduler.views.web import archive as module
from nicety.scheduler.views.web.archive import Archive, AskError
from nicety.scheduler.views.web.rollups import Rollups

END = 1_790_000_100 * SECOND
NAMES = names_of(5)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "state", tmp_path / "control.sock")


def opened(paths: Paths, end: int = END, kept: str = "kept.db") -> Archive:
    return Archive(paths, Config(), paths.root.parent / kept, lambda: end / SECOND)


def read(archive: Archive) -> None:
    while archive.advance(50):
        pass


def asked(archive: Archive, seconds: float, end: int = END) -> Any:
    return msgspec.json.decode(archive.series(end / SECOND - seconds, end / SECOND))


def test_a_bucket_has_means_and_peaks_and_knows_their_second() -> None:
    piece = Piece(1000.0, (10,))
    for second, cpu in enumerate((1.0, 4.0, 1.0)):
        groups = [{"name": "a", "cpu": cpu, "wait": 0.5, "rss": 7}] + (
            [{"name": "b", "cpu": 3.0, "wait": 0.0, "rss": 1}] * (second == 2)
        )
        tick = {
            "gap": False,
            "machine": {"cpus": 8, "busy": cpu, "memory_total": 9, "memory_available": 4},
            "groups": groups,
            "pools": [],
            "forecasts": [],
        }
        piece.add((1000 + second) * SECOND, msgspec.json.encode(tick))
    (bucket,) = piece.buckets()
    assert bucket.targets == ((MACHINE, ""), (GROUP, "a"), (GROUP, "b"))
    assert bucket.busiest == 1001.0
    a, b = bucket.figures[:, 1], bucket.figures[:, 2]
    assert (a[0], a[1], a[2], a[6]) == (2.0, 0.5, 7.0, 4.0)
    assert (b[0], b[2], b[6]) == (1.0, 1.0, 3.0)  # a group that is not reported uses nothing, but its memory is not 0
    assert np.isnan(a[3])


def test_ticks_without_rates_and_damaged_ones_are_left_out() -> None:
    piece = Piece(0.0)
    piece.add(
        SECOND,
        b'{"gap":true,"machine":{"cpus":1,"busy":9,"memory_total":1,"memory_available":1},"groups":[],"pools":[],"forecasts":[]}',
    )
    piece.add(SECOND, b"{")
    assert piece.buckets() == []


def test_what_is_left_out_of_a_bucket_is_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_TARGETS", 2)
    piece = Piece(0.0, (10,))
    groups = [{"name": name, "cpu": cpu, "wait": 0.0, "rss": 1} for name, cpu in (("a", 1.0), ("b", 5.0), ("c", 2.0), ("d", 3.0))]
    machine = {"cpus": 8, "busy": 8.0, "memory_total": 1, "memory_available": 1}
    piece.add(SECOND, msgspec.json.encode({"gap": False, "machine": machine, "groups": groups, "pools": [], "forecasts": []}))
    (bucket,) = piece.buckets()
    assert bucket.targets == ((MACHINE, ""), (GROUP, "b"), (GROUP, "d"), (GROUP, ""))
    assert bucket.figures[0].tolist() == [8.0, 5.0, 3.0, 3.0]


@pytest.mark.parametrize(("seconds", "width"), [(120, 0), (3600, 10), (86400, 60), (7 * 86400, 600)])
def test_each_range_has_the_same_use(paths: Paths, seconds: float, width: int) -> None:
    write_past(paths.root, end=END, ticks=100, names=NAMES)
    archive = opened(paths)
    read(archive)
    found = asked(archive, seconds)
    assert found["width"] == width
    assert archive.complete
    assert {group["name"] for group in found["groups"]} == set(NAMES)
    assert max(found["busy_most"]) >= 2000  # a burst is in no range averaged away
    assert [len(group["cpu"]) for group in found["groups"]] == [len(found["t"])] * len(NAMES)
    assert found["pools"][0]["size"][-1] == 3
    assert sum(mark["decisions"] for mark in found["marks"]) == 2
    archive.close()


def test_a_peak_leads_to_its_second(paths: Paths) -> None:
    write_past(paths.root, end=END, ticks=100, names=NAMES)
    archive = opened(paths)
    read(archive)
    found = asked(archive, 3600)
    at = found["busy_most"].index(max(found["busy_most"]))
    second = archive.moment(found["busiest"][at])
    assert second.groups[0].cpu > 2.0
    assert second.wall == found["busiest"][at]
    archive.close()


def test_what_was_read_is_kept_when_the_log_forgets_it(paths: Paths) -> None:
    write_past(paths.root, end=END, ticks=2 * PIECE, names=NAMES)
    archive = opened(paths)
    read(archive)
    before = asked(archive, 3600)
    archive.close()
    (paths.root / "decisions.db").unlink()
    write_past(paths.root, end=END + 60 * SECOND, ticks=60, names=NAMES, session="0000beef")
    again = opened(paths)
    read(again)
    after = asked(again, 3600)
    whole = [time for time in before["t"] if time < END // SECOND // PIECE * PIECE]
    assert set(whole) <= set(after["t"])
    again.close()


def test_new_ticks_are_added(paths: Paths) -> None:
    write_past(paths.root, end=END, ticks=60, names=NAMES)
    archive = opened(paths)
    read(archive)
    write_past(paths.root, end=END + 30 * SECOND, ticks=20, names=["newcomer"], session="0000beef")
    read(archive)
    assert "newcomer" in {group["name"] for group in asked(archive, 3600, END + 60 * SECOND)["groups"]}
    archive.close()


def test_without_a_log_there_is_a_reason_and_then_history(paths: Paths) -> None:
    archive = opened(paths)
    assert not archive.advance(10)
    assert "nicety run" in archive.trouble
    assert asked(archive, 3600)["t"] == []
    write_past(paths.root, end=END, ticks=30, names=NAMES)
    read(archive)
    assert archive.trouble == ""
    assert len(asked(archive, 3600)["t"]) == 4
    archive.close()


def test_a_file_of_something_else_is_made_anew_and_one_that_cannot_be_is_reported(paths: Paths, tmp_path: Path) -> None:
    write_past(paths.root, end=END, ticks=30, names=NAMES)
    (tmp_path / "kept.db").write_bytes(b"no database" * 1000)
    archive = opened(paths)
    read(archive)
    assert archive.rollups.trouble == ""
    archive.close()
    kept = Rollups(tmp_path)  # a directory
    assert "not kept" in kept.trouble
    kept.close()


def test_answers_are_shared_and_bounded(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    write_past(paths.root, end=END, ticks=60, names=NAMES)
    archive = opened(paths)
    read(archive)
    now = END / SECOND
    assert archive.series(now - 60, now) is archive.series(now - 58, now + 0.2)
    monkeypatch.setattr(module, "MOST_CACHED", 1)
    first = archive.series(now - 50, now)
    archive.series(now - 40, now)
    assert archive.series(now - 50, now) is not first
    archive.close()


def test_one_group_has_its_forecast_and_an_unknown_one_an_answer(paths: Paths) -> None:
    write_past(paths.root, end=END, ticks=60, names=NAMES)
    archive = opened(paths)
    read(archive)
    found = msgspec.json.decode(archive.target((GROUP, NAMES[0]), END / SECOND - 3600, END / SECOND))
    assert found["median"] == found["high"]
    assert min(found["high"]) > 0
    with pytest.raises(AskError, match="nothing is known"):
        archive.target((GROUP, "nobody"), END / SECOND - 3600, END / SECOND)
    with pytest.raises(AskError, match="later"):
        archive.moment(1.0)
    archive.close()


def test_a_moment_has_who_why_and_what_came_of_it(paths: Paths) -> None:
    write_past(paths.root, end=END, ticks=2 * BURST + 20, names=NAMES)
    write_traces(paths.root, end=END, ticks=10, names=NAMES)
    with DecisionReader(paths.decisions) as reader:
        found = moment(reader, paths, Config(), END / SECOND + 0.5)
        assert found is not None
        assert [(ran.name, ran.cpu, ran.wait) for ran in found.processes[:2]] == [(NAMES[0], 1.0, 0.0), (NAMES[1], 0.0, 0.5)]
        assert found.delays is not None or "delays" not in msgspec.json.decode(msgspec.json.encode(found.groups[0]))
        (latest, earlier) = found.decisions
        assert latest.wall > earlier.wall
        assert "waits 1.5 cores beside" in latest.why
        assert latest.came == "done, and read back"
        assert latest.helped.startswith("helped: ")
        old = moment(reader, paths, Config(), END / SECOND - 60)
        assert old is not None
        assert old.processes == []
        assert "traces" in old.untold
        assert moment(reader, paths, Config(), 5.0) is None
