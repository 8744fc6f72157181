"""Each key of the live view, and what it leads to."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from nicety.scheduler.frame import Decided, Frame, Processes
from nicety.scheduler.service.answers.control_socket import ControlError
from nicety.scheduler.testing.frames import WALL, a_frame, an_own
from nicety.scheduler.testing.top import AnsweringDaemon, LiveFrames, RecordedMoment, RecordedSeconds, StandingClock
from nicety.scheduler.views.top.bookmarks import Bookmarks, place_of_bookmarks
from nicety.scheduler.views.top.desk import HELP, Desk, Job, Pager, Prompt, Question, thing_of, why_target
from nicety.scheduler.views.top.glyphs import BLOCKS
from nicety.scheduler.views.top.head import When
from nicety.scheduler.views.top.moments import moment_of
from nicety.scheduler.views.top.page import Screen
from nicety.scheduler.views.top.tables import Note, Tab, rows_of


class Seat:
    """A desk, and a person at it."""

    def __init__(self, tmp_path: Path, frame: Frame | None = None) -> None:
        self.live, self.past, self.daemon, self.clock = (
            LiveFrames(frame or a_frame()),
            RecordedSeconds(),
            AnsweringDaemon(),
            StandingClock(),
        )
        self.bookmarks = Bookmarks(tmp_path / "nicety" / "bookmarks.json")
        self.desk = Desk(self.live, lambda: self.past, self.daemon, self.bookmarks, self.clock, BLOCKS)
        self.desk.look()

    def press(self, *keys: str) -> str:
        """Press keys, do the jobs, and look: the text of the screen."""
        for key in keys:
            self.desk.key(key, key if len(key) == 1 else None)
            self.work()
        return self.text()

    def type(self, text: str) -> str:
        return self.press(*(char for char in text))

    def work(self) -> None:
        while self.desk.jobs:
            job: Job = self.desk.jobs.pop(0)
            job.done(job.work())

    def screen(self) -> Screen:
        return self.desk.screen(100, 30)

    def text(self) -> str:
        return "\n".join("".join(text for text, _ in line) for line in self.screen().lines)

    def tab(self) -> Tab:
        return self.desk.view.tab

    def over(self) -> Pager | Prompt | Question | None:
        return self.desk.over

    def went(self) -> tuple[str, float]:
        return self.past.asked[-1]

    def is_past(self) -> bool:
        return self.desk.is_past


@pytest.fixture
def seat(tmp_path: Path) -> Seat:
    return Seat(tmp_path)


def test_digits_and_tab_choose_the_table(seat: Seat) -> None:
    for number, tab in enumerate(Tab, 1):
        seat.press(str(number))
        assert seat.tab() is tab
    seat.press("tab")
    assert seat.tab() is Tab.GROUPS
    seat.press("shift+tab")
    assert seat.tab() is Tab.NOTES
    seat.press("9")
    assert seat.tab() is Tab.NOTES


def test_arrows_choose_a_row_and_stop_at_the_ends(seat: Seat) -> None:
    seat.press("down")
    assert seat.desk.view.table.cursor == "web"
    seat.press("down", "down", "down")
    assert seat.desk.view.table.cursor == "redis"
    seat.press("k", "k", "k", "k")
    assert seat.desk.view.table.cursor == "ffmpeg"
    seat.press("ctrl+d")
    assert seat.desk.view.table.cursor == "redis"
    seat.press("ctrl+u")
    assert seat.desk.view.table.cursor == "ffmpeg"


def test_sorting_goes_through_the_columns_and_reverses(seat: Seat) -> None:
    seat.screen()
    assert (seat.desk.view.table.by, seat.desk.view.table.falls) == ("demand", True)
    assert "sorted by" in seat.press("s")
    assert seat.desk.view.table.by != "demand"
    seat.press("S")
    assert seat.desk.view.table.by == "demand"
    seat.press("r")
    assert not seat.desk.view.table.falls
    found = [place.name for place in seat.screen().places if place.what == "row"]
    assert found == ["redis", "web", "ffmpeg"]


def test_clicks_sort_choose_and_switch(seat: Seat) -> None:
    screen = seat.screen()
    title = next(place for place in screen.places if place.what == "sort" and place.name == "name")
    seat.desk.clicked(title.begin, title.y)
    assert (seat.desk.view.table.by, seat.desk.view.table.falls) == ("name", False)
    seat.desk.clicked(title.begin, title.y)
    assert seat.desk.view.table.falls
    row = next(place for place in seat.screen().places if place.what == "row" and place.name == "redis")
    seat.desk.clicked(5, row.y)
    assert seat.desk.view.table.cursor == "redis"
    tab = next(place for place in screen.places if place.what == "tab" and place.name == Tab.POOLS)
    seat.desk.clicked(tab.begin, tab.y)
    assert seat.tab() is Tab.POOLS
    seat.desk.clicked(0, 0)
    seat.desk.wheeled(3)
    assert seat.desk.view.table.cursor == "web"


def test_search_narrows_as_it_is_typed_and_escape_shows_all(seat: Seat) -> None:
    seat.press("/")
    assert "search: red_" in seat.type("red")
    assert [place.name for place in seat.screen().places if place.what == "row"] == ["redis"]
    text = seat.press("enter")
    assert 'with "red"' in text
    seat.press("escape")
    assert seat.desk.view.table.filter == ""
    seat.press("/")
    seat.desk.pasted("nothing\nlike this")
    assert "none matches" in seat.text()
    seat.press("backspace", "ctrl+u")
    over = seat.over()
    assert isinstance(over, Prompt)
    assert over.text == ""
    seat.press("x", "escape")
    assert (seat.over(), seat.desk.view.table.filter) == (None, "")


def test_space_opens_the_processes_of_a_group_and_escape_goes_back(seat: Seat) -> None:
    text = seat.press("space")
    assert seat.tab() is Tab.PROCESSES
    assert "of group ffmpeg" in text
    assert {place.name for place in seat.screen().places if place.what == "row"} == {"100", "101"}
    seat.press("space")
    assert seat.desk.view.group == ""
    seat.press("space", "escape")
    assert (seat.tab(), seat.desk.view.group) == (Tab.GROUPS, "")


def test_the_tree_has_children_below_their_parents(seat: Seat) -> None:
    seat.press("t")
    assert seat.tab() is Tab.PROCESSES
    found = [place.name for place in seat.screen().places if place.what == "row"]
    assert found.index("101") == found.index("100") + 1
    assert "└─ffmpeg" in seat.text()
    seat.press("t")
    assert "└─" not in seat.text()


def test_a_circle_of_parents_hides_nobody(tmp_path: Path) -> None:
    one = a_frame().processes
    columns = {name: getattr(one, name)[:2] for name in one.__struct_fields__ if name != "left_out"}
    seat = Seat(tmp_path, a_frame(processes=Processes(**{**columns, "pid": [5, 6], "parent": [6, 5], "left_out": 0})))
    seat.press("t")
    assert {place.name for place in seat.screen().places if place.what == "row"} == {"5", "6"}


def test_idle_groups_are_shown_on_request(seat: Seat) -> None:
    assert "sshd" not in seat.text()
    assert "sshd" in seat.press("i")


def test_why_opens_the_page_beside_the_screen(seat: Seat) -> None:
    seat.desk.key("w", "w")
    assert "asking why 5e551017-3598.0" in seat.text()
    seat.work()
    assert isinstance(seat.over(), Pager)
    assert "because of 5e551017-3598.0" in seat.text()
    assert seat.daemon.asked == [("why", ("5e551017-3598.0",))]
    seat.press("escape")
    assert seat.over() is None
    seat.press("2", "enter")
    assert seat.daemon.asked[-1] == ("why", ("101",))


def test_what_is_asked_about_each_row() -> None:
    frame = a_frame(notes=["a note"])
    asked = {tab: [why_target(row, frame) for row in rows_of(tab, frame)] for tab in Tab}
    assert asked[Tab.GROUPS] == ["5e551017-3598.0", "200", "300", ""]
    assert asked[Tab.PROCESSES] == ["100", "101", "200", "300"]
    assert asked[Tab.POOLS] == ["5e551017-3500.0"]
    assert asked[Tab.INCIDENTS] == ["5e551017-3000.1"]
    assert asked[Tab.DECISIONS] == ["5e551017-3598.0", "5e551017-3500.0"]
    assert asked[Tab.NOTES] == [""]


def test_what_is_undone_at_each_row() -> None:
    frame = a_frame()
    assert [thing_of(row, frame) for row in rows_of(Tab.GROUPS, frame)][:2] == [("group", "ffmpeg"), ("group", "redis")]
    assert thing_of(rows_of(Tab.PROCESSES, frame)[2], frame) == ("group", "redis")
    assert thing_of(rows_of(Tab.POOLS, frame)[0], frame) == ("pool", "web")
    assert thing_of(rows_of(Tab.INCIDENTS, frame)[0], frame) == ("pool", "web")
    assert [thing_of(row, frame) for row in rows_of(Tab.DECISIONS, frame)] == [("group", "ffmpeg"), ("pool", "web")]
    gone = Decided("1-1.0", WALL, "priority", "group gone", "nice 19", "", 1, "applied", "")
    assert thing_of(gone, frame) is None
    assert thing_of(Note(0, "a"), frame) is None


def test_undo_asks_first_and_says_what_will_happen(seat: Seat) -> None:
    text = seat.press("u")
    assert isinstance(seat.over(), Question)
    assert "Stop acting on group ffmpeg? nicety puts back 1 change in force there" in text
    assert "nothing was changed" in seat.press("n")
    assert seat.daemon.asked == []
    seat.daemon.answers["observe"] = {"outcomes": [{"status": "applied"}, {"status": "foreign"}]}
    text = seat.press("u", "y")
    assert seat.daemon.asked == [("observe", ("group ffmpeg",))]
    assert "group ffmpeg is only observed now; 1 of 2 values are back (foreign)" in text


def test_undo_without_the_right_says_so(seat: Seat) -> None:
    seat.daemon.answers["observe"] = ControlError('"observe" is only for root and the daemon\'s own user')
    assert "only for root and the daemon's own user" in seat.press("u", "y")


def test_nothing_is_undone_where_nothing_is_in_force(tmp_path: Path) -> None:
    seat = Seat(tmp_path, a_frame(own=an_own(mode="observe"), groups=[group for group in a_frame().groups if not group.changes]))
    assert "only observes: nothing of it is in force" in seat.press("u")
    seat.live.said = When(alone=True)
    assert "no daemon runs" in seat.press("u")
    assert "no daemon runs" in seat.press("p")
    assert seat.daemon.asked == []


def test_pause_and_resume(seat: Seat) -> None:
    assert "paused: nothing new is decided" in seat.press("p")
    seat.live.frame = a_frame(own=an_own(paused=True))
    assert "resumed" in seat.press("p")
    assert seat.daemon.asked == [("pause", ()), ("resume", ())]
    seat.daemon.answers["resume"] = ControlError("permission denied; ask as root")
    assert "ask as root" in seat.press("p")


def test_left_and_right_step_through_the_past(seat: Seat) -> None:
    assert "this is the present" in seat.press("right")
    text = seat.press("left")
    assert seat.past.asked == [("at", WALL - 0.5)]
    assert "THE PAST" in text
    assert seat.is_past()
    seat.press("left", "left", "right")
    assert seat.past.asked[1:] == [("step", -1), ("step", -1), ("step", 1)]
    assert "undone" in seat.press("u")
    seat.press("end")
    assert not seat.is_past()
    assert "live" in seat.text()


def test_larger_steps_and_the_ends(seat: Seat) -> None:
    seat.press("shift+left")
    assert seat.went() == ("at", WALL - 60)
    seat.press("pageup")
    assert seat.went() == ("at", WALL - 660)
    seat.press("pagedown", "shift+right")
    assert not seat.is_past()
    seat.press("home")
    assert seat.went() == ("first", 0)
    seat.press("pagedown")
    assert seat.went() == ("at", WALL - 86400 + 600)
    seat.press("escape")
    assert not seat.is_past()


def test_g_goes_to_a_time(seat: Seat) -> None:
    seat.press("g")
    seat.type("-2h")
    seat.press("enter")
    assert seat.past.asked == [("at", WALL - 7200)]
    seat.press("g")
    seat.type("soon")
    assert '"soon" is no time; type e.g. 03:00' in seat.press("enter")
    seat.press("g", "enter")
    assert len(seat.past.asked) == 1
    seat.press("g")
    seat.type("now")
    seat.press("enter")
    assert not seat.is_past()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("03:00", "2026-05-04 03:00:00"),
        ("14:20:05", "2026-05-03 14:20:05"),
        ("yesterday 14:20", "2026-05-03 14:20:00"),
        ("today 03:00", "2026-05-04 03:00:00"),
        ("2026-04-30 1:02", "2026-04-30 01:02:00"),
        ("-90s", "2026-05-04 11:58:30"),
        ("1.5h ago", "2026-05-04 10:30:00"),
        ("-1d", "2026-05-03 12:00:00"),
        (" NOW ", "2026-05-04 12:00:00"),
    ],
)
def test_times_as_people_name_them(text: str, expected: str) -> None:
    assert moment_of(text, datetime(2026, 5, 4, 12, 0, tzinfo=UTC)).strftime("%Y-%m-%d %H:%M:%S") == expected


@pytest.mark.parametrize(
    "text", ["", "25:00", "soon", "-2y", "2026-13-01 03:00", "tomorrow 03:00", "3", "-999999999999d", "03:00 yesterday"]
)
def test_other_words_are_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no time; type e\.g\. 03:00"):
        moment_of(text, datetime(2026, 5, 4, 12, 0, tzinfo=UTC))


def test_a_past_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    seat = Seat(tmp_path)

    def refuse() -> RecordedSeconds:
        raise OSError("no decision log at /x; `nicety run` writes one")

    seat.desk = Desk(seat.live, refuse, seat.daemon, seat.bookmarks, seat.clock, BLOCKS)
    assert "no decision log at /x" in seat.press("left")
    assert not seat.is_past()


def test_a_moment_without_a_frame_says_why(tmp_path: Path) -> None:
    seat = Seat(tmp_path)
    seat.past.at = lambda wall: RecordedMoment(None, "the tick cannot be read: damaged")  # type: ignore[method-assign]
    assert "the tick cannot be read: damaged" in seat.press("left")
    assert "live" in seat.press("end")


def test_bookmarks_are_kept_listed_visited_and_removed(seat: Seat, tmp_path: Path) -> None:
    seat.press("left", "b")
    seat.type("slow")
    assert "kept; B lists the bookmarks" in seat.press("enter")
    assert "bookmark: slow" in seat.text()
    seat.press("end", "b", "enter")
    again = Bookmarks(tmp_path / "nicety" / "bookmarks.json")
    assert [it.text for it in again.all] == ["slow", seat.bookmarks.all[1].text]
    assert (tmp_path / "nicety" / "bookmarks.json").stat().st_mode & 0o777 == 0o600
    assert "slow" in seat.press("B")
    seat.press("enter")
    assert seat.went() == ("at", seat.bookmarks.all[0].wall)
    seat.press("B", "down", "d")
    assert [it.text for it in seat.bookmarks.all] == ["slow"]
    seat.press("d")
    assert "no moment is kept yet" in seat.text()


def test_bookmarks_are_in_the_state_directory_of_the_user(tmp_path: Path) -> None:
    home, stores = tmp_path / "home", tmp_path / "stores"
    assert place_of_bookmarks({}, home, stores, 1000) == home / ".local/state/nicety/bookmarks.json"
    assert place_of_bookmarks({"XDG_STATE_HOME": "/x"}, home, stores, 1000) == Path("/x/nicety/bookmarks.json")
    assert place_of_bookmarks({}, home, stores, 0) == home / ".local/state/nicety/bookmarks.json"
    stores.mkdir()
    assert place_of_bookmarks({}, home, stores, 0) == stores / "bookmarks.json"


def test_bookmarks_that_cannot_be_read_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "bookmarks.json"
    path.write_text("{")
    kept = Bookmarks(path)
    assert "cannot be read" in kept.trouble
    kept.add(1.0, "a")
    assert path.read_text() == "{"


def test_help_scrolls_and_closes(seat: Seat) -> None:
    text = seat.press("?")
    assert "What is on the screen" in text
    assert "more lines" in text
    seat.press("end")
    assert "bookmark this moment" in seat.text()
    seat.press("pageup", "up", "home", "space", "q")
    assert seat.over() is None
    for key in ("Enter, w", "Shift-Left", "PgUp, PgDn", "Home, End", "  g  ", "  b, B", "  u  ", "  p  ", "  /  ", "  t  "):
        assert key in HELP


def test_q_leaves(seat: Seat) -> None:
    seat.press("x")
    assert not seat.desk.ended
    seat.press("q")
    assert seat.desk.ended


def test_a_message_goes_after_a_while(seat: Seat) -> None:
    assert "this is the present" in seat.press("right")
    seat.clock.seconds += 7
    seat.desk.look()
    assert "this is the present" in seat.text()
    seat.clock.seconds += 2
    assert seat.desk.look()
    assert "this is the present" not in seat.text()


def test_before_the_first_frame_it_says_what_it_waits_for(tmp_path: Path) -> None:
    seat = Seat(tmp_path)
    seat.live.frame = None
    assert "waiting for the daemon's first frame" in seat.text()
    seat.live.said = When(alone=True, said="frame: permission denied")
    assert "looking at the machine by itself; frame: permission denied" in seat.text()
    assert "nothing to pause" in seat.press("down", "u", "w", "b", "space", "p")
    assert seat.daemon.asked == []


def test_the_screen_changes_only_where_something_did(seat: Seat) -> None:
    assert not seat.desk.look()
    seat.live.new = True
    assert seat.desk.look()
    seat.live.said = When(late=4.0)
    assert seat.desk.look()
