"""The text that a Prometheus gets: what prometheus-client's own parsers read, once a tick, with whatever names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from nicety.scheduler.frame import Frame, pack
from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.testing.frames import HOSTILE, WALL, a_frame, a_shown_group, a_shown_pool
from nicety.scheduler.views.exporter.collector import OPEN, Exporter
from nicety.scheduler.views.source import FrameSource

ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
"""What Prometheus 2.42 asks for."""


def parse_open(text: str) -> list[Any]:
    """Families of OpenMetrics."""
    return list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


class Stage:
    def __init__(self, path: Path) -> None:
        self.path, self.said = path, list[str]()
        self.clock = FakeClock(wall=round(WALL * 1e9))
        self.exporter = Exporter(FrameSource([path]), 2000, self.clock, self.said.append)

    def write(self, frame: Frame) -> None:
        new = self.path.with_name("new")
        new.write_bytes(pack(frame))
        new.rename(self.path)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "frame")


def test_both_formats_say_the_same_and_only_one_has_exemplars(stage: Stage) -> None:
    stage.write(a_frame())
    plain, open_ = stage.exporter.answer("*/*"), stage.exporter.answer(ACCEPT)
    assert plain.content_type.startswith("text/plain; version=0.0.4")
    assert open_.content_type.startswith(OPEN)
    flat = [
        {(s.name, tuple(sorted(s.labels.items()))): s.value for family in found for s in family.samples}
        for found in (parse_plain(plain.body.decode()), parse_open(open_.body.decode()))
    ]
    assert flat[0] == flat[1]
    assert flat[0]["nicety_group_cpu_cores", (("group", "ffmpeg"),)] == 1.3
    samples = [s for family in parse_open(open_.body.decode()) for s in family.samples]
    (decided,) = [s for s in samples if s.name == "nicety_decisions_total" and s.labels["policy"] == "priority"]
    assert decided.exemplar is not None
    assert decided.exemplar.labels == {"decision": "5e551017-3598.0"}
    assert b"# {" not in plain.body


def test_names_of_strangers_come_back_as_their_labels(stage: Stage) -> None:
    names = sorted(set(HOSTILE))
    stage.write(a_frame(groups=[a_shown_group(name) for name in names], pools=[a_shown_pool(name) for name in names]))
    parsers: dict[str, Callable[[str], Iterable[Any]]] = {"": parse_plain, ACCEPT: parse_open}
    for accept, parse in parsers.items():
        text = stage.exporter.answer(accept).body.decode()
        families = {family.name: family.samples for family in parse(text)}
        assert len(families["nicety_group_cpu_cores"]) == len(names)
        assert len(families["nicety_pool_workers"]) == len(names)
        assert all(line.isprintable() for line in text.splitlines())


def test_all_that_ask_within_a_tick_get_one_answer(stage: Stage) -> None:
    stage.write(a_frame(seq=1))
    first = stage.exporter.answer("")
    assert stage.exporter.answer("") is first
    assert stage.exporter.answer(ACCEPT) is not first
    assert stage.exporter.answer("") is first
    stage.write(a_frame(seq=2, groups=[]))
    assert b"ffmpeg" not in stage.exporter.answer("").body


def test_a_daemon_that_stops_writing_is_down_and_its_age_grows(stage: Stage) -> None:
    stage.write(a_frame())
    assert b"nicety_up 1.0" in stage.exporter.answer("").body
    stage.clock.advance(60 * 10**9)
    body = stage.exporter.answer("").body
    assert b"nicety_up 0.0" in body
    assert b"\nnicety_frame_age_seconds 60.0\n" in body
    assert b"ffmpeg" not in body


def test_a_frame_that_cannot_be_read_is_said_once_and_shown(stage: Stage) -> None:
    stage.path.write_bytes(b"no frame")
    for _ in range(3):
        assert b"nicety_exporter_frame_unreadable 1.0" in stage.exporter.answer("").body
    assert stage.said == ["not a frame of nicety; check the path"]
    stage.write(a_frame())
    assert b"nicety_exporter_frame_unreadable 0.0" in stage.exporter.answer("").body
    assert len(stage.said) == 1


def test_a_budget_that_does_not_suffice_is_said_once(stage: Stage) -> None:
    groups = [a_shown_group(f"g{n}") for n in range(500)]
    for seq in range(3):
        stage.write(a_frame(seq=seq, groups=groups))
        stage.exporter.answer("")
    (said,) = stage.said
    assert said.endswith("groups are summed up as other, to stay within 2000 series; raise --series to see them")


def test_a_new_session_with_the_same_number_is_a_new_frame(stage: Stage) -> None:
    frame = a_frame(seq=1)
    stage.write(frame)
    stage.exporter.answer("")
    stage.write(msgspec.structs.replace(frame, own=msgspec.structs.replace(frame.own, session="ffffffff", version="0.2.0")))
    assert b'version="0.2.0"' in stage.exporter.answer("").body
