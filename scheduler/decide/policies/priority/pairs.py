"""Pairs that are not demoted for a while: a demotion of the contender had to be put back, or did not help the victim. Pure.

A pause doubles each time, up to hours, and is forgotten after a long quiet. Times are monotonic ns of ticks.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..policy import Memory

FIRST_NO_EFFECT = 60.0
"""Seconds until a contender is demoted again for a victim after a demotion without effect (chosen)."""

FIRST_RELIEF = 3600.0
"""Seconds until a contender that had to be put back at once is demoted again (chosen: at most once an hour)."""

LONGEST = 4 * 3600.0
"""Seconds of the longest pause, and of the quiet after a pause in which it is forgotten (chosen)."""

ANYBODY = ""
"""The victim of a pause that holds for all victims: the contender starved, held a lock, or cannot be demoted by any mechanism."""

MOST = 4096
"""Most pauses that are remembered; of more, those that end first are forgotten (chosen)."""

RELIEVED, NO_EFFECT = "had to be put back", "had no effect"
"""Why there is a pause, as the end of a sentence that begins with "the demotion"."""


class Pause(Memory):
    """A contender is not demoted for a victim."""

    victim: str  # group, or `ANYBODY`
    contender: str  # group
    why: str  # RELIEVED or NO_EFFECT
    seconds: float  # length of the last pause: the next one is twice as long
    until: int  # monotonic ns


class Pairs(Memory):
    """The pauses by pair."""

    pauses: dict[str, Pause] = msgspec.field(default_factory=dict)

    def pause(self, victim: str, contender: str, at: int) -> Pause | None:
        """The pause in force for this pair, the later to end if there are two."""
        if not self.pauses:
            return None
        found: Pause | None = None
        for name in (victim, ANYBODY):
            pause = self.pauses.get(_key(name, contender))
            if pause is not None and at < pause.until and (found is None or pause.until > found.until):
                found = pause
        return found

    def relieved(self, contender: str, at: int) -> None:
        """A demotion of the contender did harm and was put back at once."""
        self._begin(ANYBODY, contender, RELIEVED, FIRST_RELIEF, at)

    def without_effect(self, victim: str, contender: str, at: int) -> None:
        """The victim waits as long as before although the contender is demoted. `ANYBODY`: no mechanism is left that could demote
        it."""
        self._begin(victim, contender, NO_EFFECT, FIRST_NO_EFFECT, at)

    def forget(self, at: int) -> None:
        """Drops pauses that are long over, and those beyond MOST."""
        if len(self.pauses) > MOST or any(at - pause.until > LONGEST * 1e9 for pause in self.pauses.values()):
            kept = sorted(self.pauses.items(), key=lambda item: (-item[1].until, item[0]))[:MOST]
            self.pauses = {key: pause for key, pause in kept if at - pause.until <= LONGEST * 1e9}

    def _begin(self, victim: str, contender: str, why: str, first: float, at: int) -> None:
        key = _key(victim, contender)
        before = self.pauses.get(key)
        if before is not None and at < before.until and before.seconds >= first:
            return  # each of a group's many changes may report it
        seconds = first if before is None else max(first, min(2 * before.seconds, LONGEST))
        self.pauses[key] = Pause(victim, contender, why, seconds, at + round(seconds * 1e9))


def pairs_of(pauses: Iterable[Pause]) -> Pairs:
    """The pauses of an earlier run, to begin with."""
    return Pairs({_key(pause.victim, pause.contender): pause for pause in pauses})


def _key(victim: str, contender: str) -> str:
    return f"{len(victim)} {victim} {contender}"  # the length: names may have spaces in them
