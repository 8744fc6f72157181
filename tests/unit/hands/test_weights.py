"""The weight of a cgroup: what is written to its files, and what is left. The files are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from nicety.scheduler.hands.faults import Status, Trouble
from nicety.scheduler.hands.knobs.cgroup import Cgroups, Mount
from nicety.scheduler.hands.knobs.weights import write_weight
from nicety.scheduler.hands.places import Control


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cgroup of the same path on v1 and on v2."""
    made = tmp_path / "jobs"
    made.mkdir()
    for name, text in (("cpu.shares", "1024"), ("cpu.weight", "100"), ("cpu.idle", "0")):
        (made / name).write_text(f"{text}\n")
    return made


@pytest.mark.parametrize(
    ("control", "before", "least", "most"),
    [(Control.CPU_SHARES, 1024, 2, 262_144), (Control.CPU_WEIGHT, 100, 1, 10_000), (Control.CPU_IDLE, 0, 0, 1)],
)
def test_all_that_the_kernel_accepts_is_written_and_nothing_else(
    folder: Path, control: Control, before: int, least: int, most: int
) -> None:
    mount = Mount(str(folder.parent), "/")
    cgroups = Cgroups(mount if control is Control.CPU_SHARES else None, mount, None)
    for wrong in (least - 1, most + 1):
        refused = write_weight(cgroups, control, "/jobs", before, wrong)
        assert refused == Trouble(Status.FAILED, f"{control} {wrong} is not within {least}..{most}")
        assert int((folder / control.value).read_text()) == before
    for expected, value in ((before, most), (most, least)):
        assert write_weight(cgroups, control, "/jobs", expected, value) is None
        assert int((folder / control.value).read_text().split()[0]) == value
