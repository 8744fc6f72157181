"""Figures and claims of the field scenes. Pure: works on records of what was measured and changed, and starts no program.

A window is some seconds of one condition. The windows of a pair follow each other, so what slows the machine for a minute slows
both. The claims rest on the ratios within pairs: the mean of their logarithms, with a t interval of 95 %.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from scipy.stats import t as students

from ..claims import Claims

LEVEL = 0.95
"""Confidence level of the intervals."""

WORSE, LESS_WORK, NARROW, GAIN, SHARE = 1.05, 0.97, 0.10, 0.30, 0.80
"""The aims of docs/field.md: the highest ratio of p99, the lowest ratio of batch work, the widest half-width of an interval, the
gain in p99 that excuses a lower or wider figure, and the share of the hand-picked control's gain that nicety must reach."""

HAND_GAINS = 0.95
"""The hand-picked control gains if its whole interval of p99 lies below 1 and its ratio is at most this. Chosen."""

MISSED, ANSWER = 0.05, 0.2
"""Most share of ticks that the daemon may miss, and most seconds until its socket answers. Asked for beside a hundred hogs; here
applied to every scene."""

SUPPLIES, LEAST_FREED = 0.5, 0.05
"""Least share of what the victim lacks that the contender, alone or with all that are demoted together, must be able to free; and
the least cores that it must free itself. Chosen for "a good part" in decision 0012."""

BATCH_NARROW = 0.03
"""Half-width of the interval of batch work at which a scene may end early: what `LESS_WORK` allows."""

FEWEST = 6
"""Pairs before which no scene ends early. Chosen: with fewer, an interval is wide, or narrow by chance."""


class Condition(StrEnum):
    """What is done in a window."""

    NOTHING = "nothing"
    HAND = "hand"
    NICETY = "nicety"


class Role(StrEnum):
    """What a program is to the people who run it. The scene knows it; nicety does not."""

    SERVICE = "service"  # somebody waits for its answers
    CLIENT = "client"  # waits for a service, and somebody waits for it
    BATCH = "batch"  # its throughput counts
    OTHER = "other"  # neither: a worker of a queue, a launcher


SENSITIVE = frozenset({Role.SERVICE, Role.CLIENT})


@dataclass(frozen=True)
class Window:
    """One condition for some seconds."""

    condition: Condition
    pair: int
    p50: float  # seconds
    p99: float  # seconds
    requests: int
    lost: int  # never answered
    stalls: int  # times that the machine stood still
    work: float | None  # cores that the batch used; None: the scene has none
    own: float | None = None  # cores that the daemon used; None: there was none
    answer: float | None = None  # seconds until its socket answered; None: there was no daemon


@dataclass(frozen=True)
class Change:
    """A demotion that was carried out, and the programs that it met, directly or through a session or cgroup."""

    decision: str
    control: str
    target: str
    programs: tuple[str, ...]  # names in the scene; () if it met no known program
    sensitive: tuple[str, ...]  # the interactive ones of `programs`
    victim: str
    contender: str
    lacks: float | None  # cores that the victim lacks; None: the decision does not say
    frees: float | None  # cores that the contender can free
    together: float | None = None  # cores that all contenders demoted for this victim can free; None: it is the only one


@dataclass(frozen=True)
class Record:
    """The results of one scene."""

    scene: str
    windows: tuple[Window, ...] = ()
    control: str = ""  # the best by hand; "": nothing can be set, and `hand` is `nothing` once more
    changes: tuple[Change, ...] = ()
    relieved: tuple[tuple[str, str], ...] = ()  # (victim, contender) of each relief
    kernel: tuple[str, ...] = ()  # interactive programs that the kernel showed as demoted, and how
    demotes: bool = True  # False: in this scene no demotion can be right
    hours: float = 0.0  # hours that nicety ran
    missed: float | None = None  # share of ticks that the daemon missed; None: too few ticks
    trouble: str = ""  # why the scene did not run to its end; "": it did
    tried: dict[str, tuple[float, float | None]] = field(default_factory=dict)  # control -> (p99, batch work) of its trial


@dataclass(frozen=True)
class Interval:
    """Ratio of two conditions over the pairs."""

    ratio: float
    low: float
    high: float
    pairs: int

    @property
    def width(self) -> float:
        """Distance from the ratio to the upper end, as a share of the ratio. The lower end is nearer."""
        return self.high / self.ratio - 1


def interval(ratios: Sequence[float]) -> Interval | None:
    """Geometric mean with its interval; None for fewer than two ratios."""
    if len(ratios) < 2:
        return None
    logarithms = np.log(ratios)
    mean, error = float(np.mean(logarithms)), float(np.std(logarithms, ddof=1) / np.sqrt(len(ratios)))
    reach = float(students.ppf((1 + LEVEL) / 2, len(ratios) - 1)) * error
    return Interval(float(np.exp(mean)), float(np.exp(mean - reach)), float(np.exp(mean + reach)), len(ratios))


def ratios(windows: Sequence[Window], condition: Condition, figure: str) -> list[float]:
    """The figure under this condition divided by the one under nothing, for each pair that has both."""
    of = {(window.condition, window.pair): getattr(window, figure) for window in windows}
    found = []
    for (which, pair), value in sorted(of.items()):
        base = of.get((Condition.NOTHING, pair))
        if which == condition and value and base:
            found.append(value / base)
    return found


def compare(windows: Sequence[Window], condition: Condition, figure: str) -> Interval | None:
    """Interval of this figure's ratios; None for fewer than two."""
    return interval(ratios(windows, condition, figure))


def gains_enough(p99: Interval) -> bool:
    """Whether p99 gains enough to excuse less batch work."""
    return p99.ratio <= 1 - GAIN


def enough(windows: Sequence[Window]) -> bool:
    """Whether the intervals are narrow enough to end the scene before its last pair."""
    p99, work = compare(windows, Condition.NICETY, "p99"), compare(windows, Condition.NICETY, "work")
    if p99 is None or p99.pairs < FEWEST:
        return False
    settled = p99.width < NARROW or p99.high <= 1 - GAIN
    return settled and (work is None or work.width < BATCH_NARROW)


def plan(pairs: int) -> list[tuple[Condition, int]]:
    """(condition, pair) of all windows. Two pairs and one window of the control: A B B A H, so that nicety is started only once.

    >>> [f"{condition} {pair}" for condition, pair in plan(2)]
    ['nothing 0', 'nicety 0', 'nicety 1', 'nothing 1', 'hand 1']
    """
    turns = list[tuple[Condition, int]]()
    for first in range(0, pairs, 2):
        turns += [(Condition.NOTHING, first), (Condition.NICETY, first)]
        last = first
        if first + 1 < pairs:
            last = first + 1
            turns += [(Condition.NICETY, last), (Condition.NOTHING, last)]
        turns.append((Condition.HAND, last))
    return turns


def best(tried: dict[str, tuple[float, float | None]], unhindered: float | None) -> str:
    """The control with the least p99 of those that leave the batch nine tenths of its work. If none does: of all."""
    fair = {name: p99 for name, (p99, work) in tried.items() if not unhindered or work is None or work >= 0.9 * unhindered}
    candidates = fair or {name: p99 for name, (p99, _) in tried.items()}
    return min(candidates, key=lambda name: candidates[name]) if candidates else ""


def cannot_supply(change: Change) -> bool:
    """Whether the demotion can free too little of what the victim lacks, or does not say how much."""
    if change.lacks is None or change.frees is None:
        return True
    return change.frees < LEAST_FREED or max(change.frees, change.together or 0.0) < SUPPLIES * change.lacks


def relieved_an_hour(record: Record) -> float:
    """Reliefs an hour of the pair that was relieved most often. A scene shorter than an hour counts as an hour."""
    most = max(Counter(record.relieved).values(), default=0)
    return most / max(1.0, record.hours)


def claim(claims: Claims, record: Record) -> None:
    """Add the claims of one scene."""
    name = record.scene
    if record.trouble:
        claims.add(f"{name}: ran to its end", record.trouble, "yes", False)
        return
    claims.add(f"{name}: ran to its end", "yes", "yes", True)
    _claim_figures(claims, record)
    _claim_changes(claims, record)


def _claim_figures(claims: Claims, record: Record) -> None:
    name, windows = record.scene, record.windows
    p99, work = (compare(windows, Condition.NICETY, figure) for figure in ("p99", "work"))
    _shown(claims, f"{name}: p50, nicety / nothing", compare(windows, Condition.NICETY, "p50"))
    if p99 is None:
        claims.add(f"{name}: interval of p99", "needs two pairs", f"lower end <= {WORSE:g}", False)
        return
    _shown(claims, f"{name}: p99, nicety / nothing", p99)
    claims.at_most(f"{name}: p99, lower end of its interval", p99.low, WORSE)
    claims.add(
        f"{name}: p99, half-width of its interval",
        p99.width,
        f"< {NARROW:g}, or all of it <= {1 - GAIN:g}",
        p99.width < NARROW or p99.high <= 1 - GAIN,
    )
    if work is not None:
        _shown(claims, f"{name}: batch work, nicety / nothing", work)
        bound = f">= {LESS_WORK:g}, or p99 <= {1 - GAIN:g}"
        claims.add(f"{name}: batch work, upper end of its interval", work.high, bound, work.high >= LESS_WORK or gains_enough(p99))
        claims.add(f"{name}: batch work, half-width of its interval", work.width, f"< {NARROW:g}", work.width < NARROW)
    _claim_hand(claims, record, p99)
    lost = sum(window.lost for window in windows if window.condition is Condition.NICETY)
    without = sum(window.lost for window in windows if window.condition is Condition.NOTHING)
    claims.add(f"{name}: requests never answered with nicety (without: {without})", lost, "for comparison", True)
    own = [window.own for window in windows if window.own is not None]
    claims.add(f"{name}: cores that the daemon used", float(np.mean(own)) if own else None, "for comparison", True)
    if record.missed is not None:
        claims.at_most(f"{name}: share of ticks that the daemon missed", record.missed, MISSED)
    answers = [window.answer for window in windows if window.answer is not None]
    if answers:
        claims.at_most(f"{name}: seconds until the daemon's socket answered, longest of {len(answers)}", max(answers), ANSWER)


def _claim_hand(claims: Claims, record: Record, p99: Interval) -> None:
    hand, name = compare(record.windows, Condition.HAND, "p99"), record.scene
    which = f"by hand ({record.control or 'nothing once more'})"
    if hand is None:
        claims.add(f"{name}: p99, {which}", "needs two windows", "for comparison", True)
        return
    _shown(claims, f"{name}: p99, {which} / nothing", hand)
    _shown(claims, f"{name}: batch work, {which} / nothing", compare(record.windows, Condition.HAND, "work"))
    said = f"{name}: p99 gain of nicety / gain {which}"
    if record.control and hand.high < 1 and hand.ratio <= HAND_GAINS:
        claims.at_least(said, (1 - p99.ratio) / (1 - hand.ratio), SHARE)
    else:
        claims.add(said, "no gain by hand", f">= {SHARE:g} if by hand gains", True)


def _claim_changes(claims: Claims, record: Record) -> None:
    name, changes = record.scene, record.changes
    met = sorted({program for change in changes for program in change.sensitive})
    _none(claims, f"{name}: interactive programs demoted, from the decision log", met)
    _none(claims, f"{name}: interactive programs demoted, from the kernel", sorted(set(record.kernel)))
    claims.at_most(f"{name}: demotions that could free too little", sum(map(cannot_supply, changes)), 0)
    claims.at_most(f"{name}: reliefs of the same pair an hour", relieved_an_hour(record), 1)
    if record.demotes:
        claims.add(f"{name}: demotions", len(changes), "for comparison", True)
    else:
        claims.at_most(f"{name}: demotions where none can help", len(changes), 0)
    unknown = sum(not change.programs for change in changes)
    claims.add(f"{name}: demotions of processes outside of the scene", unknown, "for comparison", True)


def _shown(claims: Claims, said: str, found: Interval | None) -> None:
    if found is not None:
        text = f"{found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}], {found.pairs} pairs"
        claims.add(said, text, "for comparison", True)


def _none(claims: Claims, said: str, which: Sequence[str]) -> None:
    claims.add(said, ", ".join(which) or "none", "none", not which)
