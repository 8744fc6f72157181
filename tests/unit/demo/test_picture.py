"""The demo says first what it is about to show, and draws at the end what was measured: on any terminal, and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from nicety.scheduler.demo.picture import BLOCKS, PARTS, bars, each_second, over_time, shortened
from nicety.scheduler.demo.run import OPENING, SPANS, Half, pictures

WITHOUT = Half(
    requests=2445,
    lost=0,
    p50=903.0,
    p99=5047.0,
    batch=2347.0,
    web_size=3.0,
    web_sizes=(3,),
    spool_size=3.0,
    files=1000,
    unfinished=5,
    late_p50=0.1,
    late_p95=0.2,
    broken={},
    flagged=(),
    resizes=0,
    slowest=tuple(100.0 * second for second in range(60)),
    web_load=tuple([3.0] * 60),
    web_workers=tuple([3.0] * 60),
)
ACTED = replace(
    WITHOUT,
    p99=158.0,
    batch=1970.0,
    slowest=tuple([150.0] * 59 + [math.nan]),
    web_load=tuple([2.0] * 30 + [8.0] * 30),
    web_workers=tuple([3.0] * 30 + [8.0] * 30),
)


def test_the_demo_says_in_ten_lines_what_it_is_about_to_show() -> None:
    lines = OPENING.format(workers=3, hogs=4, directory="/tmp/nicety-demo-abcdefgh", **SPANS).splitlines()
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_picture_fits_its_terminal(width: int, blocks: bool) -> None:
    lines = pictures(WITHOUT, ACTED, width, blocks)
    assert max(map(len, lines)) <= width
    assert len(lines) <= 24, "it fits a screen"
    assert blocks or "\n".join(lines).isascii()


def test_bars_are_as_long_as_what_was_measured() -> None:
    lines = pictures(WITHOUT, ACTED, 80)
    found = {
        name: line for line in lines for name in ("5047 ms", "158 ms", "2347 rounds/s", "1970 rounds/s") if line.endswith(name)
    }
    long, short = (sum(PARTS.index(mark) for mark in found[name] if mark in PARTS[1:]) for name in ("5047 ms", "158 ms"))
    assert short / long == pytest.approx(158 / 5047, abs=0.01)
    most, less = (
        sum(PARTS.index(mark) for mark in found[name] if mark in PARTS[1:]) for name in ("2347 rounds/s", "1970 rounds/s")
    )
    assert less / most == pytest.approx(1970 / 2347, abs=0.01)


def test_what_is_compared_is_drawn_to_the_same_scale() -> None:
    lines = pictures(WITHOUT, ACTED, 80)
    at = lines.index("slowest answer of each second, ms")
    without, acted = lines[at + 1 : at + 4], lines[at + 4 : at + 7]
    assert without[0].split()[0] == acted[0].split()[0] == "5900"
    assert without[2].count("█") > 30
    assert "█" not in "".join(acted), "150 ms are an eighth of a line at most"
    assert set(acted[2]) & set(BLOCKS[1:])


def test_a_second_without_an_answer_leaves_a_gap() -> None:
    (row,) = over_time([1.0, math.nan, 1.0], 1, 1.0)
    assert row == "█ █"


def test_what_cannot_be_measured_against_anything_is_drawn_as_nothing() -> None:
    assert over_time([0.0, 0.0], 2, 0.0) == ["  ", "  "]
    assert bars([("a", 0.0, "0")], 20) == ["a   0"]


def test_a_lost_request_fills_its_bar() -> None:
    (first, second) = bars([("a", math.inf, "lost"), ("b", 2.0, "2 ms")], 20)
    assert first.count("█") == second.count("█") > 5


def test_samples_are_put_together_by_the_second_and_to_the_width() -> None:
    seconds = each_second([(0.2, 5.0), (0.9, 7.0), (1.5, math.inf), (2.0, 1.0), (3.0, 9.0)], 3, highest=True)
    assert seconds[0] == 7.0
    assert math.isnan(seconds[1])
    assert seconds[2] == 1.0
    assert len(seconds) == 3
    assert shortened([1.0, 2.0, 3.0], 80, highest=True) == [1.0, 2.0, 3.0]
    assert len(shortened([1.0] * 60, 48, highest=False)) == 30
