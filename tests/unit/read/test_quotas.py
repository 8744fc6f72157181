"""CPU quotas of cgroups, on directories in the form of a cgroup hierarchy."""

from __future__ import annotations

from pathlib import Path

import pytest

from nicety.models.records import Quota
from nicety.scheduler.hands.knobs.cgroup import Cgroups, Mount
from nicety.scheduler.read.quotas import LOOK_TICKS, Quotas


class Hierarchy:
    """A cgroup hierarchy below a directory."""

    def __init__(self, root: Path, v1: bool) -> None:
        self.root, self.v1 = root, v1

    def cgroup(self, path: str, quota: int | None, throttled_us: int) -> None:
        """Make it, or change it."""
        here = self.root / path.lstrip("/")
        here.mkdir(parents=True, exist_ok=True)
        if self.v1:
            (here / "cpu.cfs_quota_us").write_text(f"{-1 if quota is None else quota}\n")
            (here / "cpu.stat").write_text(f"nr_periods 3\nnr_throttled 1\nthrottled_time {throttled_us * 1000}\n")
        else:
            (here / "cpu.max").write_text(f"{'max' if quota is None else quota} 100000\n")
            (here / "cpu.stat").write_text(f"usage_usec 7\nnr_throttled 1\nthrottled_usec {throttled_us}\n")

    def quotas(self) -> Quotas:
        mount = Mount(str(self.root), "/")
        return Quotas(Cgroups(mount, None, None) if self.v1 else Cgroups(None, mount, None))


@pytest.fixture(params=[True, False], ids=["v1", "v2"])
def hierarchy(request: pytest.FixtureRequest, tmp_path: Path) -> Hierarchy:
    return Hierarchy(tmp_path, request.param)


def test_those_with_a_quota_are_read_and_ancestors_are_among_them(hierarchy: Hierarchy) -> None:
    hierarchy.cgroup("/", None, 0)
    hierarchy.cgroup("/pod", 20_000, 5)
    hierarchy.cgroup("/pod/web", None, 0)
    hierarchy.cgroup("/other", 0, 7)
    hierarchy.cgroup("/elsewhere", 10_000, 9)
    quotas, homes = hierarchy.quotas(), frozenset({"/pod/web", "/other", "/gone", "/../up"})
    assert quotas.read(homes) == (Quota("/other", 7000), Quota("/pod", 5000))
    hierarchy.cgroup("/pod", 20_000, 11)
    assert quotas.read(homes) == (Quota("/other", 7000), Quota("/pod", 11_000))


def test_a_quota_that_comes_or_goes_is_noticed_within_half_a_minute(hierarchy: Hierarchy) -> None:
    hierarchy.cgroup("/", None, 0)
    for number in range(40):
        hierarchy.cgroup(f"/c{number:02}", None, 0)
    quotas, homes = hierarchy.quotas(), frozenset(f"/c{number:02}" for number in range(40))
    assert quotas.read(homes) == ()
    hierarchy.cgroup("/c07", 1000, 3)
    seen = [quotas.read(homes) for _ in range(LOOK_TICKS)]
    assert seen[-1] == (Quota("/c07", 3000),)
    hierarchy.cgroup("/c07", None, 3)
    seen = [quotas.read(homes) for _ in range(LOOK_TICKS)]
    assert seen[-1] == ()


def test_who_comes_is_looked_at_once_and_who_goes_is_forgotten(hierarchy: Hierarchy) -> None:
    hierarchy.cgroup("/a", 1000, 3)
    hierarchy.cgroup("/b", 1000, 4)
    quotas = hierarchy.quotas()
    assert quotas.read(frozenset({"/a"})) == (Quota("/a", 3000),)
    assert quotas.read(frozenset({"/b"})) == (Quota("/b", 4000),)
    assert quotas.read(frozenset()) == ()


def test_what_cannot_be_read_has_no_quota(hierarchy: Hierarchy) -> None:
    hierarchy.cgroup("/a", 1000, 3)
    hierarchy.cgroup("/b", 1000, 3)
    quotas, homes = hierarchy.quotas(), frozenset({"/a", "/b"})
    assert len(quotas.read(homes)) == 2
    (hierarchy.root / "a" / "cpu.stat").unlink()
    (hierarchy.root / "b" / "cpu.stat").write_text("throttled_time soon\nthrottled_usec soon\n")
    assert quotas.read(homes) == ()


def test_a_machine_without_cgroups_has_no_quotas(tmp_path: Path) -> None:
    assert Quotas.of(tmp_path).read(frozenset({"/", "/a"})) == ()
