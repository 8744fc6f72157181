"""Tasks are done in order, one task in this process, and as many processes as the memory is enough for."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from nicety.training.crew import BASE_BYTES, SHARE, Crew, Until, processes


def of(number: int) -> tuple[int, int]:
    return number, os.getpid()


def test_one_process_does_all_in_order_and_only_when_it_is_asked() -> None:
    begun: list[int] = []

    def tasks() -> Iterator[tuple[int]]:
        for number in range(5):
            begun.append(number)
            yield (number,)

    results = Crew(1).each(of, tasks())
    assert next(results) == (0, os.getpid())
    assert begun == [0, 1]
    assert [number for number, _ in results] == [1, 2, 3, 4]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("count", [0, 1])
def test_for_one_task_no_process_is_started(jobs: int, count: int) -> None:
    assert list(Crew(jobs).each(of, [(number,) for number in range(count)])) == [(number, os.getpid()) for number in range(count)]


def test_more_memory_is_enough_for_more_processes() -> None:
    each = BASE_BYTES / SHARE
    assert [processes(9, round(memory)) for memory in (0, each, 1.99 * each, 2 * each, 8 * each)] == [1, 1, 1, 2, 8]
    assert [processes(wanted, round(8 * each)) for wanted in (3, None)] == [3, min(len(os.sched_getaffinity(0)), 8)]


def test_where_the_executor_does_not_run_one_process_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert processes(4, 1 << 40) == 1


def test_time_is_up_at_its_end() -> None:
    assert Until(float("inf"))(7)
    assert not Until(0.0)()
