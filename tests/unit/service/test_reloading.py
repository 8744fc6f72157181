"""Which pools a reload releases."""

from __future__ import annotations

import pytest

from nicety.scheduler.config.sections import parse
from nicety.scheduler.service.answers.reloading import is_released


@pytest.mark.parametrize(
    ("now", "released"),
    [
        ('kind = "gunicorn"\npidfile = "/run/web.pid"\nminimum = 2\nmaximum = 30\nclass = "interactive"', False),
        ('kind = "gunicorn"\npidfile = "/run/other.pid"\nmaximum = 30', True),
        ('kind = "command"\ncommand = ["true"]', True),
        ("", True),
    ],
)
def test_a_pool_runs_on_through_a_reload_if_only_its_limits_and_class_are_others(now: str, released: bool) -> None:
    before = parse('[pools.web]\nkind = "gunicorn"\npidfile = "/run/web.pid"\n').pools["web"]
    after = parse(f"[pools.web]\n{now}\n").pools["web"] if now else None
    assert is_released(before, after) is released
