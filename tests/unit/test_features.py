"""Rates between two sample tables."""

from __future__ import annotations

import numpy as np
import pytest

from nicety.models.features import rates
from nicety.models.records import SAMPLE, Known, SampleTable

SECOND = 1_000_000_000


def table(*rows: dict[str, int]) -> SampleTable:
    made = np.zeros(len(rows), dtype=SAMPLE)
    for i, row in enumerate(rows):
        for name, value in row.items():
            made[name][i] = value
    return made


def test_a_counter_becomes_cores() -> None:
    before = table({"pid": 5, "start_ticks": 7, "cpu_ns": 10 * SECOND, "wait_ns": SECOND})
    after = table({"pid": 5, "start_ticks": 7, "cpu_ns": 11 * SECOND, "wait_ns": 2 * SECOND})
    rate = rates(before, after, 0, 2 * SECOND, 100)
    assert rate.cpu.tolist() == [0.5]
    assert rate.wait.tolist() == [0.5]
    assert rate.known.tolist() == [True]


def test_a_process_born_in_between_counts_from_zero() -> None:
    rate = rates(table(), table({"pid": 9, "start_ticks": 150, "cpu_ns": SECOND}), 0, SECOND, 100)
    assert rate.cpu.tolist() == [1.0]
    assert rate.known.tolist() == [True]


def test_an_older_process_first_seen_now_has_no_rate() -> None:
    rate = rates(table(), table({"pid": 9, "start_ticks": 50, "cpu_ns": 99 * SECOND}), 0, SECOND, 100)
    assert rate.cpu.tolist() == [0.0]
    assert rate.known.tolist() == [False]


def test_a_reused_pid_is_another_process() -> None:
    before = table({"pid": 5, "start_ticks": 7, "cpu_ns": 50 * SECOND})
    after = table({"pid": 5, "start_ticks": 180, "cpu_ns": SECOND})
    assert rates(before, after, 0, SECOND, 100).cpu.tolist() == [1.0]


def test_a_counter_that_went_back_is_no_negative_rate() -> None:
    before = table({"pid": 5, "start_ticks": 7, "cpu_ns": 50 * SECOND, "minor_faults": 9})
    after = table({"pid": 5, "start_ticks": 7, "cpu_ns": 40 * SECOND, "minor_faults": 3})
    rate = rates(before, after, 0, SECOND, 100)
    assert rate.cpu.tolist() == [0.0]
    assert rate.faults.tolist() == [0.0]


def test_io_is_known_only_where_both_tables_know_it() -> None:
    both = {"pid": 1, "start_ticks": 1, "known": int(Known.IO)}
    once = {"pid": 2, "start_ticks": 1, "known": 0}
    before = table({**both, "read_chars": 100}, once)
    after = table({**both, "read_chars": 300, "write_chars": 50}, {**once, "known": int(Known.IO), "read_chars": 7})
    chars = rates(before, after, 0, SECOND, 100).chars
    assert chars[0] == 250.0
    assert np.isnan(chars[1])


def test_tables_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="in order of time"):
        rates(table(), table(), 5, 5, 0)
