"""The sentries of a process that acts: whoever dies, everything is put back within two seconds. Read from the kernel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.act.sentries import sentries_of_this_process
from nicety.scheduler.hands.ledger import NAME, StateLock, open_changes
from nicety.scheduler.testing.puppet import Puppet
from nicety.scheduler.testing.sentries import kill_with_sentries, sentries_of
from nicety.scheduler.testing.waiting import within

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only CAP_SYS_NICE can lower a nice again"),
]

ACTOR = """
import sys, time
from pathlib import Path
from nicety.models.identity import ProcId
from nicety.scheduler.act.sentries import sentries_of_this_process
from nicety.scheduler.decision import Set
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import ProcessPlace, SessionPlace
from nicety.scheduler.testing.bench import Bench
state, *victims = sys.argv[1:]
sentries = sentries_of_this_process(Path(state))
with Bench(Path(state)) as bench:
    sentries.keep(time.monotonic_ns())
    assert not sentries.trouble, sentries.trouble
    for victim in victims:
        process = ProcId(*map(int, victim.split(":")))
        bench.apply(Set(Control.NICE, ProcessPlace(process), 10), Set(Control.AFFINITY, ProcessPlace(process), (0,)))
    print("acting", flush=True)
    for order in sys.stdin:
        if order == "dismiss\\n":
            bench.actuator.undo()
            sentries.dismiss()
            print("dismissed", flush=True)
        else:
            sentries.keep(time.monotonic_ns())
            print("kept", flush=True)
"""


UNDO = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from nicety.scheduler.__main__ import main
try:
    main()
finally:
    import resource
    print(*resource.getrusage(resource.RUSAGE_CHILDREN)[:3])
"""


class Actor:
    """A process that has changed two others, and has sentries."""

    def __init__(self, state: Path, victims: list[ProcId]) -> None:
        self.state = state
        command = [sys.executable, "-c", ACTOR, str(state), *(f"{pid}:{start}" for pid, start in victims)]
        self.log = state.parent / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.hear("acting")

    @property
    def pid(self) -> int:
        return self.process.pid

    def hear(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{word}\n", self.log.read_text()

    def keeps(self) -> int:
        """It looks after its sentries, as once a tick. Returns how many there are."""
        self.tell("keep")
        self.hear("kept")
        return len(sentries_of(self.state))

    def tell(self, order: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()


@pytest.fixture
def victims() -> Iterator[list[ProcId]]:
    with Puppet() as one, Puppet() as other:
        yield [one.id, other.id]


@pytest.fixture
def actor(tmp_path: Path, victims: list[ProcId]) -> Iterator[Actor]:
    made = Actor(tmp_path / "state", victims)
    yield made
    for pid in sentries_of(made.state):
        os.kill(pid, signal.SIGKILL)
    made.process.kill()
    made.process.communicate()


def values(victims: list[ProcId]) -> list[tuple[int, set[int]]]:
    return [(os.getpriority(os.PRIO_PROCESS, pid), os.sched_getaffinity(pid)) for pid, _ in victims]


ALL = os.sched_getaffinity(0)
CHANGED, BACK = [(10, {0})] * 2, [(0, ALL)] * 2


@pytest.mark.parametrize("also", ["nobody", "first sentry", "second sentry"])
def test_what_is_changed_comes_back_within_two_seconds_whoever_dies_with_it(actor: Actor, victims: list[ProcId], also: str) -> None:
    assert values(victims) == CHANGED
    first, second = sentries_of(actor.state)
    dying = [actor.pid, *({"first sentry": [first], "second sentry": [second]}.get(also, []))]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in dying:
            os.kill(pid, number)
    assert within(2.0, lambda: values(victims) == BACK), values(victims)
    assert within(2.0, lambda: sentries_of(actor.state) == []), "the sentries end when their work is done"
    assert open_changes(str(actor.state)) == []
    (said,) = [json.loads(line) for line in actor.log.read_text().splitlines()]
    assert said["text"] == "the daemon died; a sentry put 4 values back"
    StateLock(actor.state).release()


def test_a_sentry_that_dies_is_replaced_by_the_other_and_both_by_the_daemon(actor: Actor, victims: list[ProcId]) -> None:
    for number in (0, 1):
        both = sentries_of(actor.state)
        os.kill(both[number], signal.SIGKILL)
        assert within(2.0, lambda both=both: len(set(sentries_of(actor.state)) - set(both)) == 1)  # type: ignore[misc]
    before = sentries_of(actor.state)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in before:
            os.kill(pid, number)
    assert within(2.0, lambda: sentries_of(actor.state) == [])
    assert within(2.0, lambda: actor.keeps() == 2), "a daemon asks once a tick, within seconds of its start too"
    assert values(victims) == CHANGED, "nothing is put back while the daemon lives"
    actor.process.kill()
    assert within(2.0, lambda: values(victims) == BACK)


def test_what_somebody_changed_by_hand_is_left_and_told(actor: Actor, victims: list[ProcId]) -> None:
    os.setpriority(os.PRIO_PROCESS, victims[0].pid, 7)
    actor.process.kill()
    assert within(2.0, lambda: values(victims) == [(7, ALL), (0, ALL)])
    assert within(2.0, lambda: sentries_of(actor.state) == [])
    (said,) = [json.loads(line) for line in actor.log.read_text().splitlines()]
    assert "put 3 values back, and left 1: left: somebody changed nice of pid" in said["text"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_what_is_sent_to_the_whole_group_does_not_end_a_sentry(actor: Actor, number: signal.Signals) -> None:
    before = sentries_of(actor.state)
    for pid in before:
        os.kill(pid, number)
    actor.tell("keep")
    actor.hear("kept")
    assert sentries_of(actor.state) == before


def test_a_daemon_that_ends_well_dismisses_them_and_they_say_nothing(actor: Actor, victims: list[ProcId]) -> None:
    actor.tell("dismiss")
    actor.hear("dismissed")
    assert within(2.0, lambda: sentries_of(actor.state) == [])
    actor.process.communicate(timeout=10)
    assert actor.log.read_text() == ""
    assert values(victims) == BACK


def test_both_gone_with_the_daemon_leaves_it_to_undo(actor: Actor, victims: list[ProcId]) -> None:
    kill_with_sentries(actor.pid, actor.state)
    actor.process.wait()
    assert not within(0.3, lambda: values(victims) != CHANGED)
    undo = [sys.executable, "-m", "nicety.scheduler", "undo", "--state-dir", str(actor.state), "--json"]
    done = subprocess.run(undo, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [(outcome["status"], outcome["changed"]) for outcome in json.loads(done.stdout)["outcomes"]] == [("applied", 1)] * 4
    assert values(victims) == BACK


def test_an_undo_prints_names_that_the_terminal_has_no_letters_for(actor: Actor, victims: list[ProcId]) -> None:
    kill_with_sentries(actor.pid, actor.state)
    actor.process.wait()
    path = actor.state / NAME
    lines = path.read_bytes().splitlines()[1:]
    texts = [line[9:].replace(b'"t"', '"tö"'.encode()) for line in lines]
    path.write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(text), text) for text in (b'["nicety ledger",2]', *texts)))
    undo = [sys.executable, "-m", "nicety.scheduler", "undo", "--state-dir", str(actor.state)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(undo, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("t\\xf6") == 4
    assert values(victims) == BACK


def test_what_goes_wrong_in_a_hurry_is_printed() -> None:
    code = "import sys; from nicety.scheduler.hands.urgent import urgently; sys.exit(urgently(lambda: 1 // 0))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_a_sentry_that_cannot_be_started_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentries = sentries_of_this_process(tmp_path)
    with monkeypatch.context() as failing:
        failing.setattr("nicety.scheduler.act.sentries._COMMAND", ("/nowhere/python",))
        sentries.keep(0)
    assert (
        sentries.trouble == "no sentry could be started (No such file or directory): after kill -9 changes stay until `nicety undo`"
    )
    sentries.keep(9 * 10**9)
    assert sentries_of(tmp_path) == [], "not at once"
    sentries.keep(11 * 10**9)
    assert sentries.trouble == ""
    assert sentries.pid in sentries_of(tmp_path)
    sentries.dismiss()
    assert within(2.0, lambda: sentries_of(tmp_path) == [])


def test_the_sentry_needs_the_standard_library_only_and_is_small(actor: Actor) -> None:
    first, second = sentries_of(actor.state)
    maps = {line.split()[-1] for pid in (first, second) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()}
    assert not [path for path in maps if "site-packages" in path or "numpy" in path or "msgspec" in path]
    peak = Path(f"/proc/{first}/status").read_text().partition("VmHWM:")[2].split()[0]
    assert int(peak) < 14_000, "kB: 11,400 were measured"
    assert (actor.state / NAME).exists()


def test_an_undo_takes_little_memory(actor: Actor, victims: list[ProcId]) -> None:
    kill_with_sentries(actor.pid, actor.state)
    actor.process.wait()
    undo = ["-I", "-S", "-c", UNDO, str(Path(__file__).parents[2] / "src"), "undo", "--state-dir", str(actor.state), "--json"]
    done = subprocess.run([sys.executable, *undo], capture_output=True, text=True, env={}, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert values(victims) == BACK
    printed, _, usage = done.stdout.rstrip().rpartition("\n")
    assert [outcome["status"] for outcome in json.loads(printed)["outcomes"]] == ["applied"] * 4, "also into a pipe"
    user, system, peak = map(float, usage.split())
    assert peak < 14_000, "kB: 11,500 were measured"
    assert user + system < 0.5, "s: 0.03 was measured"
