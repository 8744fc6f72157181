"""Finds the process pools of programs that use `nicety.scheduler.executor.Executor`, by their boards. Must not know sizes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ....models.identity import ProcId
from ...executor.board import BoardFile, BoardView, State, boards
from ..sensing.signals import identify
from .found import Found, Key, user_name


def find(uids: set[int], environ: Mapping[str, str], proc_root: Path) -> Iterator[Found]:
    """Each executor that has begun to work, of these users."""
    seen = set[tuple[int, str]]()
    for uid in sorted(uids):
        # another user's runtime directory is not the one that our environment names
        known = environ if uid == os.geteuid() else {key: value for key, value in environ.items() if key == "NICETY_RUN_DIR"}
        for path in boards(known, uid)[0]:
            view = _read(path, uid)
            if view is None or view.state is not State.RUNNING or (uid, view.name) in seen:
                continue
            owner = ProcId(*view.owner)
            if identify(proc_root, owner.pid) == owner:
                seen.add((uid, view.name))  # of several with one name the oldest is sized
                yield _found(view, owner, uid)


def _read(path: Path, uid: int) -> BoardView | None:
    try:
        board = BoardFile(path, uid)
    except (OSError, ValueError):
        return None
    try:
        return board.read()
    finally:
        board.close()


def _found(view: BoardView, owner: ProcId, uid: int) -> Found:
    user = () if uid == os.geteuid() else (Key("user", user_name(uid), "whose program it is"),)
    return Found(
        kind="executor",
        name=view.name,
        master=owner,
        workers=tuple(sorted(worker.pid for worker in view.workers)),
        uid=uid,
        reached="its board",
        keys=(
            Key("kind", "executor"),
            Key("executor", view.name, "Executor(name=...)"),
            *user,
            Key("minimum", max(view.minimum, 1), "its program's own"),
            Key("maximum", view.maximum, "its program's max_workers"),
            Key("class", "batch", "only throughput counts: it may be demoted beside a service"),
        ),
    )
