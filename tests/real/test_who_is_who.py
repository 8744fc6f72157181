"""Who belongs to whom on this machine: real servers, spawned workers, and swarms of short processes. All bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from nicety.models.artifact import shipped
from nicety.models.behaviour import BehaviourModel, Behaviours
from nicety.models.records import Behaviour, Class, Ruled
from nicety.scheduler.config.sections import parse
from nicety.scheduler.observe.measure import Measured, Measurer
from nicety.scheduler.read.proc import ProcSource

DEADLINE = 40.0  # seconds for anything that a loaded machine may delay


class Looker:
    """The reader, the measurer and the classes of one machine, as the daemon has them."""

    def __init__(self) -> None:
        self.source = ProcSource()
        self._measurer = Measurer(parse(""), 1.0)
        artefact = shipped("behaviour")
        assert artefact is not None
        self._behaviours = Behaviours(BehaviourModel.from_arrays(artefact.arrays, artefact.digest), 0.9)

    def look(self) -> tuple[Measured | None, Mapping[str, Behaviour | None]]:
        measured = self._measurer.measure(self.source.read(time.monotonic_ns(), time.time_ns(), ()))
        if measured is None:
            return None, {}
        said = self._behaviours.step(measured.groups, measured.behaviour)
        return measured, dict(zip(measured.groups, said, strict=True))

    def groups(self) -> Mapping[int, str]:
        """The group by pid."""
        measured, _ = self.look()
        if measured is None:
            return {}
        return {id_.pid: measured.members[row] for id_, row in measured.rows.items()}


@pytest.fixture
def looker() -> Iterator[Looker]:
    looker = Looker()
    looker.look()
    yield looker
    looker.source.close()


@contextmanager
def session(*command: str, where: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command in a session of its own that is ended on leaving, with all in it."""
    process = subprocess.Popen(
        command, cwd=where, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def members(pid: int) -> list[int]:
    """Pids of a session, by start."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == pid and fields[0] != b"Z":
                found.append(int(entry.name))
    return sorted(found)


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < end, "nothing of it within the deadline"
        time.sleep(0.1)


SPAWNS = """
    import multiprocessing, socket, sys, time
    def work(busy):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            sum(range(1000)) if busy else time.sleep(0.05)
    if __name__ == "__main__":
        context = multiprocessing.get_context("spawn")
        if sys.argv[1] == "serve":
            listener = socket.create_server(("127.0.0.1", 0))
        for _ in range(2):
            context.Process(target=work, args=(sys.argv[1] == "crunch",), daemon=True).start()
        time.sleep(60)
"""


def test_workers_that_a_server_and_a_pool_spawn_are_not_one_group(looker: Looker, tmp_path: Path) -> None:
    for name in ("server.py", "crunch.py"):
        (tmp_path / name).write_text(textwrap.dedent(SPAWNS))
    with (
        session(sys.executable, "server.py", "serve", where=tmp_path) as server,
        session(sys.executable, "server.py", "serve", where=tmp_path) as other,
        session(sys.executable, "crunch.py", "crunch", where=tmp_path) as pool,
    ):
        leaders = [server.pid, other.pid, pool.pid]
        until(lambda: all(len(members(pid)) == 4 for pid in leaders))  # with the resource tracker
        found = looker.groups()
        names = [{found[pid] for pid in members(leader)} for leader in leaders]
        assert [len(one) for one in names] == [1, 1, 1]
        (first,), (second,), (third,) = names
        assert third == "program python3 crunch.py"
        assert first != second
        assert all(one.startswith("program python3 server.py :") for one in (first, second))


JOBS = "yes x | head -n 100000 | xargs -P 6 -n 1 sh -c 'i=0; while [ $i -lt 4000 ]; do i=$((i+1)); done'"


def test_a_swarm_of_short_jobs_is_one_group_and_batch_within_seconds(looker: Looker, tmp_path: Path) -> None:
    """Each job runs some milliseconds, so that hardly any is in two tables."""
    (tmp_path / "jobs.sh").write_text(JOBS)
    with session("bash", "jobs.sh", where=tmp_path) as swarm:
        end = time.monotonic() + DEADLINE
        while True:
            time.sleep(1.0)
            measured, said = looker.look()
            assert measured is not None
            behaviour = said.get("program bash jobs.sh")
            if behaviour is not None and behaviour.inferred is Class.BATCH:
                break
            assert time.monotonic() < end, f"it is {behaviour}"
        assert behaviour.ruled in (Ruled.SWARM, None)
        groups = {measured.members[row] for id_, row in measured.rows.items() if id_.pid in members(swarm.pid)}
        assert groups <= {"program bash jobs.sh"}
        at = measured.groups.index("program bash jobs.sh")
        assert measured.brief[at] > 0
        assert "program sh -c" not in {group[: len("program sh -c")] for group in groups}
