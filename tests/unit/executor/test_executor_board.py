"""The board: what one side writes the other reads, and nobody is led astray by a file that is not what it says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nicety.scheduler.executor import board as executor_board
from nicety.scheduler.executor.board import (
    BOARD_BYTES,
    CAPACITY,
    SLOTS_AT,
    Board,
    BoardFile,
    Slot,
    State,
    Word,
    WorkerState,
    boards,
    directories,
    start_ticks,
)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"NICETY_RUN_DIR": str(tmp_path / "run")}


def opened(board: Board) -> BoardFile:
    assert board.path is not None
    return BoardFile(board.path, os.geteuid())


def test_what_the_owner_writes_is_read(environ: dict[str, str]) -> None:
    board = Board("features", environ, 1)
    words = board.words
    words[Word.MINIMUM], words[Word.MAXIMUM], words[Word.TARGET], words[Word.QUEUED] = 1, 8, 4, 2**40
    words[Word.WAIT_NS] = 2**63 + 1
    first, second = board.take_slot(os.getpid()), board.take_slot(1)
    words[first + Slot.BUSY_NS], words[first + Slot.STATE] = 77, WorkerState.BUSY
    board.give_slot(second)
    for ns in range(20):
        board.started(ns)
    board.publish()
    file = opened(board)
    view = file.read()
    assert view.name == "features"
    assert view.owner == (os.getpid(), start_ticks(os.getpid()))
    assert (view.state, view.minimum, view.maximum, view.target) == (State.RUNNING, 1, 8, 4)
    assert (view.queued, view.wait_ns) == (2**40, 2**63 + 1)
    assert [(w.pid, w.start_ticks, w.doing, w.busy_ns) for w in view.workers] == [
        (os.getpid(), start_ticks(os.getpid()), WorkerState.BUSY, 77)
    ]
    assert sorted(view.starts_ns) == list(range(4, 20)), "the last sixteen"
    board.remove()
    assert file.read().state is State.ENDED
    assert boards(environ, os.geteuid()) == ([], "")
    file.close()


def test_what_nicety_asks_is_seen_by_the_owner_and_told_from_the_request_before(environ: dict[str, str]) -> None:
    board = Board("x", environ, 1)
    board.publish()
    file = opened(board)
    first = file.ask(Word.ASKED, 3)
    assert board.words[Word.ASKED] == first
    assert first & 0xFFFF_FFFF == 3
    again = file.ask(Word.ASKED, 3)
    assert again != first
    assert again & 0xFFFF_FFFF == 3
    file.close()
    board.remove()


def test_slots_are_used_again_and_never_beyond_the_end(environ: dict[str, str]) -> None:
    board = Board("x", environ, 1)
    slots = [board.take_slot(1) for _ in range(CAPACITY)]
    assert len(set(slots)) == CAPACITY
    assert min(slots) == SLOTS_AT
    assert board.take_slot(1) == 0, "a worker too many is not shown"
    board.give_slot(slots[5])
    assert board.take_slot(1) == slots[5]
    board.give_slot(0)
    board.remove()


def test_a_board_is_private_and_so_is_its_directory(environ: dict[str, str], tmp_path: Path) -> None:
    board = Board("x", environ, 1)
    assert board.path is not None
    assert board.path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    board.remove()
    (tmp_path / "run").chmod(0o777)
    open_to_all = Board("x", environ, 2)
    assert open_to_all.path is None
    assert "not a directory of ours alone" in open_to_all.reason
    open_to_all.words[Word.QUEUED] = 1  # works all the same
    assert boards(environ, os.geteuid())[1].endswith("alone")


def test_a_link_in_place_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    assert Board("x", {"NICETY_RUN_DIR": str(tmp_path / "run")}, 1).path is None
    assert not list((tmp_path / "elsewhere").iterdir())


def test_files_that_are_no_boards_are_refused(environ: dict[str, str], tmp_path: Path) -> None:
    board = Board("x", environ, 1)
    assert board.path is not None
    with pytest.raises(ValueError, match="no executor's board"):  # not published yet
        opened(board)
    board.publish()
    file = opened(board)
    board.words[Word.SLOTS] = 2**60
    assert file.read().workers == (), "a count beyond all bounds is cut"
    board.words[Word.VERSION] = 9
    with pytest.raises(ValueError, match="version 9"):
        file.read()
    os.truncate(board.path, 100)  # no SIGBUS
    with pytest.raises(ValueError, match="too short"):
        file.read()
    file.close()
    with pytest.raises(ValueError, match="not a file of uid"):
        BoardFile(board.path, os.geteuid() + 1)
    (tmp_path / "link.board").symlink_to(board.path)
    with pytest.raises(OSError, match="symbolic links"):
        BoardFile(tmp_path / "link.board", os.geteuid())
    os.truncate(board.path, BOARD_BYTES)
    board.remove()


def test_boards_of_the_dead_are_removed_and_others_left(environ: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    namespace = executor_board.pid_namespace()
    dead = run / f"{namespace}-{os.getpid()}-1-1.board"  # our pid, but not our start time
    foreign = run / f"{namespace + 1}-{os.getpid()}-1-1.board"  # pids of another namespace say nothing here
    other = run / "notes.board"
    for path in (dead, foreign, other):
        path.touch()
    board = Board("x", environ, 7)
    assert board.path is not None
    assert sorted(path.name for path in run.iterdir()) == sorted([foreign.name, other.name, board.path.name])
    assert boards(environ, os.geteuid())[0] == [board.path]
    board.remove()


def test_a_forked_copy_of_the_owner_removes_nothing(environ: dict[str, str]) -> None:
    board = Board("x", environ, 1)
    assert board.path is not None
    pid = os.fork()
    if pid == 0:
        board.remove()
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.path.exists()
    assert board.words[Word.STATE] == State.RUNNING
    board.remove()


def test_where_boards_are() -> None:
    assert directories({"NICETY_RUN_DIR": "/x", "XDG_RUNTIME_DIR": "/run/user/7"}, 7) == (Path("/x"),)
    assert directories({"XDG_RUNTIME_DIR": "/run/user/7"}, 0) == (Path("/run/nicety"), Path("/tmp/nicety-0"))
    assert directories({"XDG_RUNTIME_DIR": "/r"}, 7) == (Path("/r/nicety"), Path("/tmp/nicety-7"))
    assert directories({}, 7) == (Path("/run/user/7/nicety"), Path("/tmp/nicety-7"))


def test_a_long_name_is_cut(environ: dict[str, str]) -> None:
    board = Board("ä" * 100, environ, 1)
    board.publish()
    file = opened(board)
    assert file.read().name == "ä" * 32
    file.close()
    board.remove()
