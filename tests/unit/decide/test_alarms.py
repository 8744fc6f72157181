"""How many incidents are reported one by one in a day, and when the others are summed up."""

from __future__ import annotations

from nicety.scheduler.decide.policies.quarantine.alarms import DAY, DIGEST_SECONDS, Alarms

SECOND = 10**9


def test_a_report_counts_for_a_day() -> None:
    alarms = Alarms(reports=[0, 10 * SECOND])
    assert alarms.left(round(DAY) * SECOND - 1, budget=3) == 1
    assert alarms.left(round(DAY) * SECOND, budget=3) == 2
    assert alarms.reports == [10 * SECOND]


def test_what_is_beyond_the_budget_is_summed_up_once_an_hour() -> None:
    alarms = Alarms()
    assert alarms.due(0) == 0
    for kind in ("leak", "spin", "leak"):
        alarms.mute(kind, "web")
    assert alarms.due(0) == 3
    assert alarms.why(50).text.startswith("3 more incidents: 2 leak in web, 1 spin in web. 50 were reported within 24 h")
    alarms.digest(0)
    alarms.mute("leak", "web")
    assert alarms.due(round(DIGEST_SECONDS) * SECOND - 1) == 0
    assert alarms.due(round(DIGEST_SECONDS) * SECOND) == 1
