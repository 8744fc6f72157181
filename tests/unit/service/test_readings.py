"""The adapter and the newest sample of each pool in use."""

from __future__ import annotations

import pytest

from nicety.models.identity import ProcId
from nicety.models.records import PoolSample
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.service.readings import Readings


class Adapter:
    """A pool without workers; `broken` ones cannot be read."""

    def __init__(self, name: str, *, broken: bool = False) -> None:
        self.name, self.broken, self.closed = name, broken, 0

    def probe(self) -> None:
        pass

    def read(self) -> PoolSample:
        if self.broken:
            raise RuntimeError("injected")
        return PoolSample(self.name, 0, 0, 0.0, (), None, None, "")

    def resize(self, size: int) -> tuple[Status, str]:
        raise NotImplementedError(size)

    def recycle(self, worker: ProcId) -> tuple[Status, str]:
        raise NotImplementedError(worker)

    def close(self) -> None:
        self.closed += 1


def test_each_read_puts_new_samples_into_what_is_shared() -> None:
    pools = Readings({"web": Adapter("web"), "jobs": Adapter("jobs")})
    shared = pools.samples
    first = pools.read()
    assert [sample.pool for sample in first] == ["jobs", "web"]
    second = pools.read()
    assert second == first
    assert all(new is not old for new, old in zip(second, first, strict=True)), "the actuator tells by that what is newer"
    assert tuple(shared.values()) == second


def test_if_one_cannot_be_read_those_before_it_are_new_and_the_others_as_they_were() -> None:
    web = Adapter("web")
    pools = Readings({"jobs": Adapter("jobs"), "web": web})
    jobs_before, web_before = pools.read()
    web.broken = True
    with pytest.raises(RuntimeError, match="injected"):
        pools.read()
    assert pools.samples["jobs"] is not jobs_before
    assert pools.samples["web"] is web_before


def test_a_dropped_pool_is_closed_and_its_sample_is_gone() -> None:
    web = Adapter("web")
    pools = Readings({"jobs": Adapter("jobs"), "web": web})
    pools.read()
    pools.drop("web")
    assert web.closed == 1
    assert (list(pools.adapters), list(pools.samples)) == (["jobs"], ["jobs"])
