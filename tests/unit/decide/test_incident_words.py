"""Every kind has words: what it is, compared with whom, what to do; and no evidence is lost."""

from __future__ import annotations

import pytest

from nicety.models.records import Anomaly
from nicety.scheduler.decide.policies.quarantine.words import ADVICE, WHAT, advice, onset, rarity, stories


@pytest.mark.parametrize("kind", Anomaly)
def test_every_kind_says_what_it_is_and_what_to_do(kind: Anomaly) -> None:
    assert WHAT[kind]
    said = advice(kind, 4711, "web", "s-5.0")
    assert len(said) == len(ADVICE[kind]) >= 2
    assert not any("{" in text or " ID" in text for text in said)
    assert any("4711" in text for text in said) or kind in (Anomaly.CRASH_LOOP, Anomaly.DEADLOCK, Anomaly.STARVED)


@pytest.mark.parametrize("kind", Anomaly)
def test_evidence_without_words_is_shown_by_its_name(kind: Anomaly) -> None:
    assert isinstance(stories(kind, {}), tuple), "no evidence is no error"
    assert stories("a kind of next year", {"lost_packets": 7.0, "siblings_lost_packets": 0.5}) == (
        "lost packets 7",
        "siblings lost packets 0.5",
    )


@pytest.mark.parametrize(
    ("kind", "evidence", "doing", "compared"),
    [
        (
            Anomaly.LEAK,
            {"growth_mib": 34.0, "seconds": 24.0, "now_mib": 120.0, "hits_limit_seconds": 90.0},
            "its memory grew by 34 MiB in 24 s to 120 MiB: the machine's memory is used up in 90 s at this pace",
            "no siblings to compare with",
        ),
        (
            Anomaly.FD_LEAK,
            {"growth_fds": 300.0, "seconds": 48.0, "siblings_growth_fds": 0.0, "now_fds": 1310.0, "siblings_fds": 20.0},
            "its open descriptors grew by 300 in 48 s to 1,310",
            "siblings' median grew by 0 to 20",
        ),
        (
            Anomaly.LEAK,
            {"growth_mib": 9.4, "seconds": 24.0, "siblings_growth_mib": 10.4},
            "its memory grew by 9.4 MiB in 24 s",
            "siblings' median grew by 10 MiB",
        ),
        (
            Anomaly.SPIN,
            {"cpu_cores": 1.0, "seconds_without_io": 30.0, "siblings_bytes_per_cpu_second": 2e6},
            "uses 1.00 cores and has read and written nothing for 30 s of CPU",
            "; siblings read and write 2,000,000 bytes per second of CPU, it 0",
        ),
        (
            Anomaly.STARVED,
            {"wait_cores": 0.9, "wait_share": 0.93, "siblings_wait_share": 0.04},
            "waits for a CPU 93 % of the time that it wants one (0.90 cores)",
            "siblings' median waits 4 %",
        ),
        (
            Anomaly.SLOW,
            {"cpu_for_the_same_work_times_siblings": 6.0, "seconds": 40.0},
            "takes 6 times the CPU of its siblings' median for the same work, for 40 s",
            "",
        ),
        (
            Anomaly.CRASH_LOOP,
            {"ended_soon": 5.0, "seconds": 30.0, "median_life_seconds": 2.0, "usual_life_seconds": 9000.0},
            "5 workers ended within 30 s, after a median life of 2 s",
            "workers of this pool usually live 2 h 30 min",
        ),
        (
            Anomaly.ZOMBIE,
            {"zombies": 3.0, "seconds": 70.0},
            "3 processes ended up to 70 s ago, and the exit status was not collected",
            "",
        ),
        (
            Anomaly.OUTLIER,
            {"rss_times_siblings": 1.1, "fds_times_siblings": 9.0},
            "has descriptors 9 times its siblings' median",
            "other traits, times siblings' median: memory 1.1",
        ),
        (
            Anomaly.OUTLIER,
            {
                "rss_times_own_past": 2.0,
                "fds_times_own_past": 1.0,
                "threads_times_own_past": 9.6,
                "rss_deviations": 3.0,
                "threads_deviations": 30.0,
                "seconds": 75.0,
                "own_past_seconds": 1800.0,
            },
            "unlike its own past: threads 9.6 times its previous maximum, for 75 s; it went 30 standard deviations away",
            "also, times the previous maximum: memory 2; its own past is 30 min 0 s long",
        ),
        (
            Anomaly.OUTLIER,
            {"fds_times_own_past": 3.0},
            "unlike its own past: descriptors 3 times its previous maximum",
            "",
        ),
        (
            Anomaly.OUTLIER,
            {"fds_times_own_past": 3.0, "fds_deviations": 0.0},
            "unlike its own past: descriptors 3 times its previous maximum",
            "",
        ),
    ],
)
def test_what_it_does_and_with_whom_it_is_compared(kind: Anomaly, evidence: dict[str, float], doing: str, compared: str) -> None:
    assert stories(kind, evidence) == (doing, compared)


def test_onset_is_what_the_evidence_looked_back_to() -> None:
    assert onset({"seconds_without_progress": 14.7, "usual_seconds": 90.0}) == 14.7
    assert onset({"seconds": 24.0}) == 24.0
    assert onset({"usual_seconds": 3.0}) == 0.0


@pytest.mark.parametrize(
    ("p", "words"), [(1.0, "1 in 1"), (1.389e-6, "1 in 720,000"), (1e-9, "1 in 1 billion"), (0.0, "1 in 1,000 billion or fewer")]
)
def test_a_p_value_is_one_in_so_many(p: float, words: str) -> None:
    assert rarity(p) == words
