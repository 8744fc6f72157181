"""The daemon says once that a pool runs here, for what looks so little at the machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nicety.models.records import SAMPLE, HostSample, PoolSample, Snapshot, WorkerSample
from nicety.scheduler.config.sections import Config, parse
from nicety.scheduler.pools.finding.reading import arguments_of
from nicety.scheduler.read.process import see_all
from nicety.scheduler.service import pool_watch
from nicety.scheduler.service.pool_watch import EVERY_NS, PoolWatch
from nicety.scheduler.testing.process_tree import ProcessTree

GUNICORN = ["/usr/bin/python3", "/usr/bin/gunicorn", "shop:app"]


@pytest.fixture
def tree(tmp_path: Path) -> ProcessTree:
    tree = ProcessTree(tmp_path)
    tree.add(1, 0, ["/sbin/init"], exe="/sbin/init")
    return tree


class Watched:
    """A watch that sees the tree every ten seconds."""

    def __init__(self, tree: ProcessTree, monkeypatch: pytest.MonkeyPatch, config: Config | None = None) -> None:
        self._tree, self._at = tree, 0
        self._watch = PoolWatch(config or Config(), tree.root)
        self.pools: tuple[PoolSample, ...] = ()
        """What the adapters see."""
        self.read: list[int] = []
        """Pids whose arguments were read since the last look."""

        def reading(root: Path, pid: int) -> tuple[str, ...]:
            self.read.append(pid)
            return arguments_of(root, pid)

        monkeypatch.setattr(pool_watch, "arguments_of", reading)

    def look(self, later: int = EVERY_NS) -> list[str]:
        """The notes after so many ns."""
        self.read.clear()
        self._at += later
        seen = sorted(see_all(self._tree.root), key=lambda each: each.id)
        table = np.zeros(len(seen), SAMPLE)
        for row, each in zip(table, seen, strict=True):
            row["pid"], row["start_ticks"], row["ppid"] = each.id.pid, each.id.start_ticks, each.parent
        identities = {each.id: each.identity for each in seen}
        snapshot = Snapshot(self._at, 0, 0, table, identities, HostSample((0,), 1, 1, None), self.pools)
        return [note.text for note in self._watch.notes(snapshot)]


def grow(tree: ProcessTree, pid: int, arguments: list[str], workers: int) -> None:
    tree.add(pid, 1, arguments)
    for number in range(1, workers + 1):
        tree.add(pid + number, pid, arguments)


def test_a_pool_is_noted_once_it_has_its_workers_and_until_it_ends(tree: ProcessTree, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tree, monkeypatch)
    tree.add(40, 1, GUNICORN)
    assert watched.look() == []
    tree.add(41, 40, GUNICORN)
    assert watched.look() == ["found a gunicorn of 1 worker (pid 40): nicety pools"]
    assert watched.look() == ["found a gunicorn of 1 worker (pid 40): nicety pools"]
    (tree.root / "40").rename(tree.root.parent / f"{tree.root.name}-ended")
    assert watched.look(later=EVERY_NS // 10) == []


def test_arguments_are_read_only_of_what_is_new_and_may_be_a_pool(tree: ProcessTree, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tree, monkeypatch)
    grow(tree, 40, GUNICORN, 2)
    grow(tree, 60, ["/usr/bin/python3", "train.py"], 4)
    watched.look()
    assert watched.read == []
    watched.look()
    assert set(watched.read) == {40, 41, 42}
    watched.look()
    assert watched.read == []
    tree.add(43, 40, GUNICORN)  # a new worker of a pool that is known
    for _ in range(3):
        watched.look()
        assert watched.read == []


def test_a_pool_whose_master_was_there_before_its_workers_is_found_with_all_of_them(
    tree: ProcessTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tree, monkeypatch)
    tree.add(40, 1, GUNICORN)
    for _ in range(3):
        assert watched.look() == []
    for pid in (41, 42, 43):
        tree.add(pid, 40, GUNICORN)
    watched.look()
    assert watched.look() == ["found a gunicorn of 3 workers (pid 40): nicety pools"]


def test_what_is_configured_or_cannot_be_a_pool_is_not_noted(tree: ProcessTree, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tree, monkeypatch, parse('[pools.web]\nkind = "gunicorn"\npid = 40\n'))
    grow(tree, 40, GUNICORN, 2)
    grow(tree, 50, ["/usr/bin/python3", "/usr/bin/uvicorn", "api:app"], 0)
    for _ in range(3):
        assert watched.look() == []


def test_what_an_adapter_has_is_not_noted(tree: ProcessTree, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tree, monkeypatch)
    for pid in (40, 41):
        tree.add(pid, 1, ["/usr/bin/python3", "/usr/bin/rq", "worker", "mail"])
    process = next(each.id for each in see_all(tree.root) if each.id.pid == 41)
    watched.pools = (PoolSample("mail", 1, 1, None, (WorkerSample(process, None, True),), None, None, ""),)
    for _ in range(3):
        assert watched.look() == []
