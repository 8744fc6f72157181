"""The kernel's list of children may leave out one that lives. A list on disk stands in for it here: the gap is a race."""

from __future__ import annotations

from pathlib import Path

from nicety.scheduler.pools.sensing.busy import ChildList

PARENT = 100


def child(root: Path, pid: int, parent: int = PARENT) -> None:
    (root / str(pid)).mkdir(exist_ok=True)
    fields = f"S {parent} " + "0 " * 15 + "1 0 7000 0"
    (root / str(pid) / "stat").write_text(f"{pid} (worker) {fields}\n", encoding="ascii")


def test_a_child_that_is_missing_from_the_list_but_lives_is_still_one(tmp_path: Path) -> None:
    listing = tmp_path / str(PARENT) / "task" / str(PARENT) / "children"
    listing.parent.mkdir(parents=True)
    listing.write_text("101 102 103", encoding="ascii")
    for pid in (101, 102, 103):
        child(tmp_path, pid)
    children = ChildList(tmp_path, PARENT)
    try:
        assert children.pids(0) == [101, 102, 103]
        (tmp_path / "101" / "stat").unlink()  # it has ended, and 102 was left out with it
        listing.write_text("103", encoding="ascii")
        assert children.pids(0) == [102, 103]
        child(tmp_path, 102, parent=1)  # somebody else has this pid now
        assert children.pids(0) == [103]
    finally:
        children.close()
