"""`nicety models`: what there is and which is live, going back and forth, and that what is damaged is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nicety.models import artifact
from nicety.models.anomaly.detectors import KINDS
from nicety.models.artifact import (
    FEATURES,
    HISTORY,
    ArtifactError,
    Card,
    DataRange,
    history,
    live_digest,
    promote,
    rollback,
    save,
    saved,
    shipped,
)
from nicety.scheduler.cli.models import ModelKind
from nicety.scheduler.explain import model_page
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.service.answers.control_socket import ControlError, ControlSocket

Invoke = Callable[..., Any]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "state" / "models"


ROWS = (
    {"kind": "leak", "found": 18, "injected": 20, "false_alarms": 1},
    {"kind": "spin", "found": 20, "injected": 20, "false_alarms": 0},
)


def anomaly(models: Path, created: int) -> str:
    """A saved anomaly model; its digest."""
    tails = {f"{kind}_tail": np.array([0.0, 0.2, 0.1, 1.0]) for kind in KINDS}
    arrays = {**tails, **{f"{kind}_seen": np.arange(3.0) for kind in KINDS}}
    data = DataRange(0, 3_600_000_000_000, 3600, 200, 40, "")
    return save(models, "anomaly", Card("anomaly", 1.0, data, ROWS, "1.2.3", created, 2, FEATURES["anomaly"]), arrays)


def behaviour(models: Path) -> str:
    """A saved copy of the behaviour model that nicety comes with, with another card; its digest."""
    coming = shipped("behaviour")
    assert coming is not None
    card = Card("behaviour", 1.0, coming.card.data, (), "1.2.3", 9, 2, FEATURES["behaviour"])
    return save(models, "behaviour", card, coming.arrays)


def listed(nicety: Invoke) -> dict[str, dict[str, Any]]:
    result = nicety("models", "list", "--json")
    return {model["digest"]: model for model in json.loads(result.out)["models"]}


# --- the store ----------------------------------------------------------------------------------------------------------------


def test_going_back_goes_back_as_often_as_there_was_something(models: Path) -> None:
    first, second, third = (anomaly(models, created) for created in (1, 2, 3))
    for digest in (first, second, third):
        promote(models, "anomaly", digest)
    assert history(models, "anomaly") == (None, first, second)
    assert [rollback(models, "anomaly") for _ in range(3)] == [second, first, None]
    assert live_digest(models, "anomaly") is None
    with pytest.raises(ArtifactError, match=r"nothing to go back to.*nicety models promote anomaly DIGEST"):
        rollback(models, "anomaly")


def test_to_promote_what_is_live_already_changes_nothing(models: Path) -> None:
    first, second = anomaly(models, 1), anomaly(models, 2)
    for digest in (first, second, second, second):
        promote(models, "anomaly", digest)
    assert history(models, "anomaly") == (None, first)
    assert rollback(models, "anomaly") == first


@pytest.mark.parametrize(
    ("act", "live", "back"),
    [(lambda models, digest: promote(models, "anomaly", digest), 1, 0), (lambda models, _: rollback(models, "anomaly"), 0, None)],
    ids=["promote", "rollback"],
)
def test_a_machine_that_stops_between_the_two_files_loses_nothing(
    models: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path, str], object], live: int, back: int | None
) -> None:
    digests = [anomaly(models, created) for created in (1, 2, 3)]
    promote(models, "anomaly", digests[0])
    promote(models, "anomaly", digests[1])
    real, written = artifact._write, list[Path]()

    def stop(path: Path, data: bytes) -> None:
        if written:
            raise OSError(5, "power is gone")
        written.append(path)
        real(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(artifact, "_write", stop)
        with pytest.raises(ArtifactError, match="Input/output error"):
            act(models, digests[2])
    assert len(written) == 1
    assert live_digest(models, "anomaly") == digests[live]
    assert rollback(models, "anomaly") == (None if back is None else digests[back])


def test_history_is_bounded(models: Path) -> None:
    digests = [anomaly(models, created) for created in (1, 2)]
    for turn in range(HISTORY + 10):
        promote(models, "anomaly", digests[turn % 2])
    assert len(history(models, "anomaly")) == HISTORY
    assert rollback(models, "anomaly") == digests[HISTORY % 2]


def test_a_model_that_was_live_before_and_is_gone_is_named(models: Path) -> None:
    first, second = anomaly(models, 1), anomaly(models, 2)
    promote(models, "anomaly", first)
    promote(models, "anomaly", second)
    shutil.rmtree(models / "anomaly" / first)
    with pytest.raises(ArtifactError, match=rf"cannot go back to the anomaly model {first[:8]}.*not there.*promote anomaly DIGEST"):
        rollback(models, "anomaly")
    assert live_digest(models, "anomaly") == second
    assert history(models, "anomaly") == (None, first)


@pytest.mark.parametrize("text", [b"\xff\n", b"../../etc\n", b"none\nab\n", b"none\n" + b"a" * 5000])
def test_a_damaged_history_is_named_and_what_is_live_stays(models: Path, text: bytes) -> None:
    first, second = anomaly(models, 1), anomaly(models, 2)
    promote(models, "anomaly", first)
    (models / "anomaly" / "history").write_bytes(text)
    with pytest.raises(ArtifactError, match=r"history.*remove it"):
        promote(models, "anomaly", second)
    with pytest.raises(ArtifactError, match=r"history.*remove it"):
        rollback(models, "anomaly")
    assert live_digest(models, "anomaly") == first


def test_what_is_live_cannot_be_read_and_is_replaced(models: Path) -> None:
    first, second = anomaly(models, 1), anomaly(models, 2)
    promote(models, "anomaly", first)
    (models / "anomaly" / "live").write_text("nonsense\n")
    promote(models, "anomaly", second)
    assert live_digest(models, "anomaly") == second
    assert history(models, "anomaly") == (None,)


def test_all_that_was_saved_is_found_and_what_cannot_be_used_has_its_reason(models: Path) -> None:
    good, bad = sorted(anomaly(models, created) for created in (1, 2))
    (models / "anomaly" / bad / "model.npz").write_bytes(b"PK")
    (models / "anomaly" / "notes").mkdir()
    found = saved(models, "anomaly")
    assert list(found) == [good, bad]
    assert isinstance(found[good], Card)
    assert "checksum" in str(found[bad])
    assert saved(models, "demand") == {}


# --- list ---------------------------------------------------------------------------------------------------------------------


def test_the_kinds_that_can_be_chosen_are_those_that_there_are() -> None:
    assert set(ModelKind) == set(FEATURES)


def test_the_list_says_what_is_live_what_was_and_what_there_is(nicety: Invoke, models: Path) -> None:
    first, second, third = (anomaly(models, created) for created in (1, 2, 3))
    for digest in (first, second):
        promote(models, "anomaly", digest)
    found = listed(nicety)
    assert [digest for digest in found if found[digest]["live"] and not found[digest]["shipped"]] == [second]
    assert [digest for digest in found if found[digest]["previous"]] == [first]
    lines = [line for line in nicety("models", "list").out.splitlines() if line.startswith("anomaly")]
    assert [line.split()[1] for line in lines] == [third[:12], second[:12], first[:12]], "the youngest first"
    assert [line.split()[2] for line in lines] == ["saved", "live", "previous"]
    assert all("40 groups, 3600 ticks of 1 s in 1 h 0 min" in line for line in lines)
    assert all("1.2.3" in line for line in lines)
    assert all(line.endswith("found 38 of 40, 1 false alarms") for line in lines)


def test_the_model_that_nicety_comes_with_is_live_until_another_is(nicety: Invoke, models: Path) -> None:
    coming = shipped("behaviour")
    assert coming is not None
    shown = listed(nicety)[coming.digest]
    assert (shown["shipped"], shown["live"], shown["previous"]) == (True, True, False)
    assert shown["score"] == "loss 0.278 on 83 programs not seen"
    promote(models, "behaviour", behaviour(models))
    shown = listed(nicety)[coming.digest]
    assert (shown["shipped"], shown["live"], shown["previous"]) == (True, False, True)


def test_damage_is_named_on_stderr_and_is_a_finding(nicety: Invoke, models: Path) -> None:
    live, other = anomaly(models, 1), anomaly(models, 2)
    promote(models, "anomaly", live)
    assert nicety("models", "list").code == 0
    (models / "anomaly" / other / "card.json").write_text("{}")
    (models / "anomaly" / "history").write_text("nonsense\n")
    result = nicety("models", "list")
    assert result.code == 3
    assert "history:1 is damaged" in result.err
    assert f"card.json is damaged: its checksum is not {other[:8]}" in result.err
    assert any("unusable" in line for line in result.out.splitlines() if other[:12] in line)
    shutil.rmtree(models / "anomaly" / live)
    assert f"the live anomaly model {live[:12]} is missing" in nicety("models", "list").err


@pytest.mark.parametrize(
    ("kind", "rows", "said"),
    [
        (
            "demand",
            [
                {"forecaster": name, "metric": metric, "horizon": horizon, "wql": wql}
                for metric, horizon in (("cpu", 1), ("rss", 6))
                for name, wql in (("new model", 0.2), ("last value", 0.4))
            ],
            "loss 0.50 of the last value's",
        ),
        (
            "behaviour",
            [{"model": name, "loss": loss} for name, loss in (("a", 0.2), ("a", 0.4), ("b", 9))],
            "loss 0.300 on 2 groups",
        ),
        ("anomaly", list(ROWS), "found 38 of 40, 1 false alarms"),
        ("demand", [], ""),
        ("demand", [{"forecaster": "new model"}], ""),
        ("behaviour", [], ""),
        ("behaviour", [{"model": "new", "loss": "much"}], ""),
        ("anomaly", [{"kind": "leak"}], ""),
    ],
)
def test_how_it_did_is_what_its_card_says_or_nothing(kind: str, rows: list[dict[str, Any]], said: str) -> None:
    data = DataRange(0, 1, 1, 1, 1, "")
    assert model_page.score(Card(kind, 1.0, data, tuple(rows), "1", 1, 2, FEATURES[kind])) == said


# --- promote and rollback -------------------------------------------------------------------------------------------------------


def test_a_model_is_promoted_by_how_its_digest_begins_and_can_be_gone_back_from(nicety: Invoke, models: Path) -> None:
    first, second = anomaly(models, 1), anomaly(models, 2)
    result = nicety("models", "promote", "anomaly", first[:10].upper())
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines() == [
        f"the anomaly model {first[:12]} is live",
        "no daemon is running here; the next `nicety run` uses the live models",
    ]
    assert nicety("models", "promote", "anomaly", second).code == 0
    assert f"the anomaly model {first[:12]} is live again" in nicety("models", "rollback", "anomaly").err
    assert live_digest(models, "anomaly") == first
    assert "none of your own anomaly models is live any more" in nicety("models", "rollback", "anomaly").err
    assert listed(nicety)[first]["live"] is False


def test_the_one_that_nicety_comes_with_can_be_chosen_again(nicety: Invoke, models: Path) -> None:
    coming = shipped("behaviour")
    assert coming is not None
    own = behaviour(models)
    promote(models, "behaviour", own)
    assert nicety("models", "promote", "behaviour", coming.digest[:8]).code == 0
    assert live_digest(models, "behaviour") is None
    assert nicety("models", "rollback", "behaviour").code == 0
    assert live_digest(models, "behaviour") == own


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["promote", "demand", "ab"], 'no demand model begins with "ab"; `nicety models list` shows what there is'),
        (["promote", "anomaly", ""], "2 anomaly models begin with"),
        (["rollback", "demand"], "no demand model of your own was ever live"),
    ],
)
def test_what_cannot_be_done_is_one_line_with_the_next_step(nicety: Invoke, models: Path, arguments: list[str], said: str) -> None:
    anomaly(models, 1)
    anomaly(models, 2)
    result = nicety("models", *arguments)
    assert (result.code, result.out) == (1, "")
    assert said in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["promote", "nonsense", "ab"], ["promote", "demand"], ["rollback"], ["nonsense"]])
def test_wrong_usage_is_exit_2(nicety: Invoke, arguments: list[str]) -> None:
    assert nicety("models", *arguments).code == 2


@pytest.mark.parametrize("command", ["list", "promote", "rollback"])
def test_every_command_explains_itself_with_an_example(nicety: Invoke, command: str) -> None:
    result = nicety("models", command, "--help")
    assert result.code == 0
    assert f"Example: nicety models {command}" in " ".join(result.out.split())


def test_a_damaged_model_is_not_promoted(nicety: Invoke, models: Path) -> None:
    live, other = anomaly(models, 1), anomaly(models, 2)
    promote(models, "anomaly", live)
    (models / "anomaly" / other / "model.npz").write_bytes(b"")
    result = nicety("models", "promote", "anomaly", other)
    assert result.code == 1
    assert "its checksum is not the card's" in result.err
    assert live_digest(models, "anomaly") == live


# --- a daemon that runs -----------------------------------------------------------------------------------------------------------


class Serving:
    """A control socket that answers `reload` from a thread."""

    def __init__(self, state: Path, trouble: str) -> None:
        import threading

        self.asked = 0
        self._trouble = trouble
        self._socket = ControlSocket(state / "control.sock", {"reload": self._reload}, "", clock=SystemClock())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _reload(self, _request: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        if self._trouble:
            raise ControlError(self._trouble)
        return {}

    def _run(self) -> None:
        while not self._stop.is_set():
            self._socket.serve(0.01)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()


@pytest.fixture
def serve(models: Path) -> Iterator[Callable[[str], Serving]]:
    made: list[Serving] = []

    def start(trouble: str = "") -> Serving:
        models.parent.mkdir(mode=0o700, exist_ok=True)
        made.append(Serving(models.parent, trouble))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_a_running_daemon_is_told(nicety: Invoke, models: Path, serve: Callable[..., Serving]) -> None:
    first = anomaly(models, 1)
    daemon = serve()
    result = nicety("models", "promote", "anomaly", first)
    assert result.code == 0
    assert "the running daemon uses the live models now" in result.err
    assert nicety("models", "rollback", "anomaly").code == 0
    assert daemon.asked == 2


def test_a_daemon_that_does_not_take_it_is_an_error_with_the_next_step(
    nicety: Invoke, models: Path, serve: Callable[..., Serving]
) -> None:
    first = anomaly(models, 1)
    trouble = "the old configuration stays in force: n.toml:3: no such key"
    serve(trouble)
    result = nicety("models", "promote", "anomaly", first)
    assert result.code == 1
    assert live_digest(models, "anomaly") == first
    assert f"the running daemon does not use it yet: {trouble}; then run `nicety reload`" in result.err
