"""Pages get each frame once, whole or as what changed; those that do not keep up are dropped."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nicety.scheduler.frame import Frame, pack
from nicety.scheduler.testing.frames import WALL, a_frame, a_shown_group
from nicety.scheduler.views.source import FrameSource
from nicety.scheduler.views.web import live as module
from nicety.scheduler.views.web.live import FullError, Live, Page, changes


class Daemon:
    """Writes frames as a daemon does."""

    def __init__(self, place: Path) -> None:
        self.file = place / "frame"
        self.wall = WALL
        self.live = Live(FrameSource([self.file]), lambda: self.wall)

    def write(self, frame: Frame) -> None:
        new = self.file.with_name("new")
        new.write_bytes(pack(frame))
        new.replace(self.file)
        self.live.look()


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(tmp_path)


def frame(seq: int, cpu: float = 1.0, **more: Any) -> Frame:
    groups = [a_shown_group("busy", cpu=cpu), a_shown_group("idle")]
    return a_frame(seq=seq, wall=WALL + seq, groups=more.pop("groups", groups), **more)


def taken(page: Page) -> list[tuple[str, str, Any]]:
    """(id, kind, value) of the events that wait."""
    found = []
    while not page.events.empty():
        event = page.events.get_nowait()
        if event is None:
            found.append(("", "end", None))
            continue
        id_, kind, data, *rest = event.decode().split("\n")
        assert rest == ["", ""]
        found.append((id_[4:], kind[7:], msgspec.json.decode(data[6:])))
    return found


def test_a_page_gets_the_whole_frame_first_and_then_what_changed(daemon: Daemon) -> None:
    daemon.write(frame(1))
    page = daemon.live.join("")
    daemon.write(frame(2, cpu=1.5))
    (_, first, whole), (_, second, change) = taken(page)
    assert (first, second) == ("frame", "change")
    assert {group["name"] for group in whole["groups"]} == {"busy", "idle"}
    assert "processes" not in whole
    assert [(group["name"], group["cpu"]) for group in change["groups"]] == [("busy", 1.5)]
    assert change["groups_gone"] == []
    assert "decisions" not in change


def test_a_group_that_ends_is_gone(daemon: Daemon) -> None:
    change = changes(frame(1), frame(2, groups=[a_shown_group("idle")]))
    assert change["groups_gone"] == ["busy"]


def test_a_page_that_connects_again_gets_only_what_it_missed(daemon: Daemon) -> None:
    daemon.write(frame(1))
    page = daemon.live.join("")
    daemon.write(frame(2, cpu=2.0))
    last = taken(page)[-1][0]
    daemon.live.leave(page)
    for seq in (3, 4):
        daemon.write(frame(seq, cpu=float(seq)))
    missed = taken(daemon.live.join(last))
    assert [(kind, value["seq"]) for _, kind, value in missed] == [("change", 3), ("change", 4)]
    assert taken(daemon.live.join(missed[-1][0])) == []


@pytest.mark.parametrize("last", ["00000000-1", "x", "-", "1", "9" * 5000, "-" + "9" * 5000])
def test_an_id_that_is_not_known_gets_a_whole_frame(daemon: Daemon, last: str) -> None:
    daemon.write(frame(1))
    assert [kind for _, kind, _ in taken(daemon.live.join(last))] == ["frame"]


def test_another_session_of_the_daemon_is_a_whole_frame(daemon: Daemon) -> None:
    daemon.write(frame(5))
    page = daemon.live.join("")
    other = frame(0)
    daemon.write(msgspec.structs.replace(other, own=msgspec.structs.replace(other.own, session="another")))
    assert [kind for _, kind, _ in taken(page)] == ["frame", "frame"]


def test_a_daemon_that_ends_or_is_late_is_reported_once_and_comes_back(daemon: Daemon) -> None:
    daemon.write(frame(1))
    page = daemon.live.join("")
    daemon.wall = WALL + 60
    daemon.live.look()
    daemon.live.look()
    daemon.file.unlink()
    daemon.live.look()
    daemon.write(frame(2))
    kinds = [(kind, value.get("why", "")) for _, kind, value in taken(page)]
    assert [kind for kind, _ in kinds] == ["frame", "quiet", "quiet", "frame"]
    assert "late" in kinds[1][1]
    assert "nicety run" in kinds[2][1]


def test_a_page_without_a_daemon_is_told_why(daemon: Daemon) -> None:
    daemon.live.look()
    assert "nicety run" in taken(daemon.live.join(""))[0][2]["why"]


def test_a_page_that_takes_nothing_is_dropped_and_others_are_not(daemon: Daemon) -> None:
    daemon.write(frame(0))
    slow, quick = daemon.live.join(""), daemon.live.join("")
    for seq in range(1, module.MOST_WAITING + 3):
        daemon.write(frame(seq, cpu=float(seq)))
        assert taken(quick)
    assert daemon.live.pages == 1
    assert taken(slow)[-1][1] == "end"
    assert slow.events.qsize() == 0


def test_there_are_only_so_many_pages(daemon: Daemon) -> None:
    pages = [daemon.live.join("") for _ in range(module.MOST_PAGES)]
    with pytest.raises(FullError, match="close one"):
        daemon.live.join("")
    daemon.live.leave(pages[0])
    daemon.live.join("")
    daemon.live.close()
    assert taken(pages[1])[-1][1] == "end"


def test_following_looks_again_and_again(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)

    async def follow() -> list[str]:
        task = asyncio.create_task(daemon.live.follow())
        page = daemon.live.join("")
        daemon.file.write_bytes(pack(frame(1)))
        kinds = []
        while "frame" not in kinds:
            await asyncio.sleep(0)
            kinds += [kind for _, kind, _ in taken(page)]
        task.cancel()
        return kinds

    assert "frame" in asyncio.run(follow())
