"""What supervisors say of their places."""

from __future__ import annotations

import pytest

from nicety.scheduler.hands.pool_blocks import Block
from nicety.scheduler.hands.pool_places import place_command, place_name
from nicety.scheduler.pools.supervised.answers import AnswerError, Place, State, parse

THUMBS = Block("supervisord", unit="thumbs:thumbs_%02d", maximum=8)
WORKERS = Block("systemd", unit="worker@%d", maximum=3)

SUPERVISORCTL = """\
thumbs:thumbs_00                 RUNNING   pid 614, uptime 0:00:01
thumbs:thumbs_01                 STOPPED   Not started
thumbs:thumbs_02                 STARTING
thumbs:thumbs_03                 FATAL     Exited too quickly (process log may have details)
thumbs:thumbs_04                 EXITED    Dec 02 10:03 AM
thumbs:thumbs_05                 STOPPING
thumbs:thumbs_06                 BACKOFF   can't find command 'nothing'
"""

SYSTEMCTL = """\
MainPID=4711
Id=worker@1.service
LoadState=loaded
ActiveState=active

MainPID=0
Id=worker@2.service
LoadState=loaded
ActiveState=inactive
"""


def test_each_state_of_supervisord_is_understood() -> None:
    assert parse(THUMBS, SUPERVISORCTL) == {
        0: Place(State.UP, 614, "RUNNING"),
        1: Place(State.OFF, 0, "STOPPED"),
        2: Place(State.UP, 0, "STARTING"),
        3: Place(State.FAILED, 0, "FATAL"),
        4: Place(State.ENDED, 0, "EXITED"),
        5: Place(State.LEAVING, 0, "STOPPING"),
        6: Place(State.UP, 0, "BACKOFF"),
        7: Place(State.MISSING, 0, "not found"),
    }


def test_properties_of_units_are_understood_in_any_order() -> None:
    assert parse(WORKERS, SYSTEMCTL) == {
        0: Place(State.UP, 4711, "active"),
        1: Place(State.OFF, 0, "inactive"),
        2: Place(State.MISSING, 0, "not found"),
    }


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("activating", State.UP),
        ("reloading", State.UP),
        ("deactivating", State.LEAVING),
        ("failed", State.FAILED),
    ],
)
def test_other_states_of_a_unit(word: str, state: State) -> None:
    said = f"Id=worker@1.service\nLoadState=loaded\nActiveState={word}\nMainPID=0\n"
    assert parse(WORKERS, said)[0] == Place(state, 0, word)


def test_a_template_that_does_not_exist_has_no_places() -> None:
    said = "\n".join(f"Id=worker@{n}.service\nLoadState=not-found\nActiveState=inactive\nMainPID=0\n" for n in (1, 2, 3))
    assert {place.state for place in parse(WORKERS, said).values()} == {State.MISSING}


@pytest.mark.parametrize("said", ["", "unix:///run/supervisor.sock no such file", "thumbs:* ERROR (no such group)"])
def test_what_is_no_answer_is_quoted_with_the_next_step(said: str) -> None:
    with pytest.raises(AnswerError, match="Correct command, or unit") as error:
        parse(THUMBS, said)
    assert (said or "nothing") in str(error.value)


def test_places_are_numbered_from_first() -> None:
    assert place_name(THUMBS, 0) == "thumbs:thumbs_00"
    assert place_name(WORKERS, 0) == "worker@1.service"
    assert place_name(WORKERS._replace(first=10, unit="worker@%03d.service"), 2) == "worker@012.service"


def test_all_places_are_asked_for_in_one_command() -> None:
    assert place_command(THUMBS, "status", 0) == ["supervisorctl", "status", "thumbs:*"]
    user = WORKERS._replace(command=["systemctl", "--user"])
    names = ["worker@1.service", "worker@2.service", "worker@3.service"]
    assert place_command(user, "status", 0) == [
        "systemctl",
        "--user",
        "show",
        "--property=Id,LoadState,ActiveState,MainPID",
        *names,
    ]
    assert place_command(user, "stop", 2) == ["systemctl", "--user", "--no-block", "stop", "worker@3.service"]
    assert place_command(THUMBS, "restart", 1) == ["supervisorctl", "restart", "thumbs:thumbs_01"]


@pytest.mark.parametrize("unit", ["", "worker@", "--help@%d", "worker@%s", "worker@%d %d", "worker@%d;reboot", "worker%d"])
def test_a_unit_that_names_no_place_is_refused(unit: str) -> None:
    with pytest.raises(ValueError, match="names no place"):
        place_name(WORKERS._replace(unit=unit), 0)
