"""Where live frames come from: the daemon while it runs, else a process that reads the machine."""

from __future__ import annotations

from pathlib import Path

from nicety.scheduler.frame import Frame, pack
from nicety.scheduler.testing.frames import WALL, a_frame, an_own
from nicety.scheduler.views.top.following import DEAD_SECONDS, Following

NOW = WALL + 0.5


class Reader:
    """A process that reads, as a test plays it."""

    def __init__(self, path: Path) -> None:
        self.path, self.trouble, self.closed = path, "", False
        self.frames = 0

    def write(self, **changes: object) -> None:
        self.frames += 1
        replace(self.path, a_frame(own=an_own(session="alone", mode="observe"), seq=self.frames, wall=NOW, **changes))

    def close(self) -> None:
        self.closed = True


def replace(path: Path, frame: Frame) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(pack(frame))
    new.rename(path)


class Machine:
    """A daemon that may run, and what stands in for it."""

    def __init__(self, tmp_path: Path) -> None:
        self.frame = tmp_path / "frame"
        self.readers: list[Reader] = []
        self.alive = True
        self.refuses = False
        self.tmp_path = tmp_path
        self.following = Following([self.frame], self.start, lambda pid: self.alive)

    def start(self) -> Reader:
        if self.refuses:
            raise OSError(11, "Resource temporarily unavailable")
        self.readers.append(Reader(self.tmp_path / f"alone{len(self.readers)}"))
        return self.readers[-1]

    def session(self) -> str:
        return "" if self.following.frame is None else self.following.frame.own.session

    def daemon_writes(self, **changes: object) -> None:
        replace(self.frame, a_frame(**changes))


def test_the_daemons_frames_are_followed_and_nothing_is_started(tmp_path: Path) -> None:
    there = Machine(tmp_path)
    there.daemon_writes()
    assert there.following.look(NOW)
    assert there.following.frame == a_frame()
    assert not there.following.look(NOW)
    there.daemon_writes(seq=3600)
    assert there.following.look(NOW)
    assert there.following.frame is not None
    assert there.following.frame.seq == 3600
    assert there.readers == []
    assert not there.following.when(NOW).alone


def test_without_a_daemon_the_machine_is_read_until_one_is_there(tmp_path: Path) -> None:
    there = Machine(tmp_path)
    there.following.look(NOW)
    assert there.session() == ""
    assert there.following.when(NOW).alone
    (reader,) = there.readers
    reader.write()
    assert there.following.look(NOW)
    assert there.session() == "alone"
    there.daemon_writes()
    assert there.following.look(NOW)
    assert there.following.frame == a_frame()
    assert reader.closed
    assert not there.following.when(NOW).alone
    there.frame.unlink()
    there.following.look(NOW)
    assert len(there.readers) == 2
    there.following.close()
    assert there.readers[1].closed


def test_a_daemon_that_is_late_is_waited_for_and_a_dead_one_is_not(tmp_path: Path) -> None:
    there = Machine(tmp_path)
    there.daemon_writes()
    there.following.look(WALL + 5)
    assert there.following.when(WALL + 5).late == 5
    assert there.readers == []
    there.alive = False
    there.following.look(WALL + 5)
    assert len(there.readers) == 1
    assert there.following.when(WALL + 6).said == "the daemon's last frame is 6 s old"
    assert there.following.frame == a_frame()  # until there is a newer one


def test_a_daemon_that_has_stopped_is_given_up_after_a_while(tmp_path: Path) -> None:
    there = Machine(tmp_path)
    there.daemon_writes()
    there.following.look(WALL + DEAD_SECONDS)
    assert there.readers == []
    there.following.look(WALL + DEAD_SECONDS + 1)
    assert len(there.readers) == 1
    there.daemon_writes(seq=3600, wall=WALL + DEAD_SECONDS + 2)
    assert there.following.look(WALL + DEAD_SECONDS + 2)
    assert there.readers[0].closed


def test_a_frame_of_another_version_or_a_damaged_one_is_a_sentence(tmp_path: Path) -> None:
    there = Machine(tmp_path)
    there.frame.write_bytes(pack(a_frame()).replace(b"nicety frame 1 ", b"nicety frame 9 "))
    there.following.look(NOW)
    assert "a frame of version 9" in there.following.when(NOW).said
    there.frame.write_bytes(pack(a_frame())[:-9])
    there.following.look(NOW)
    assert "cut short or damaged" in there.following.when(NOW).said
    assert len(there.readers) == 1
    there.daemon_writes()
    assert there.following.look(NOW)
    assert there.following.when(NOW).said == ""


def test_a_machine_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    there = Machine(tmp_path)
    there.refuses = True
    there.following.look(NOW)
    assert there.following.failed == "what reads the machine cannot be started: Resource temporarily unavailable"
    assert there.following.when(NOW).said == there.following.failed
    other = Machine(tmp_path)
    other.following.look(NOW)
    other.readers[0].trouble = "what reads the machine has ended: no memory"
    assert other.following.when(NOW).said == "what reads the machine has ended: no memory"
