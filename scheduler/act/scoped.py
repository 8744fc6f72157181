"""The actuator of the daemon: acts on what the scope names, and observes the rest. Also says what is acted on.

Knows scopes, the hands and both other actuators. Must not know policies, configuration or the decision log.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ...models.records import PoolSample
from ..decision import Decision, Group, Outcome, ResizePool, Restore, Scope
from ..hands.changes import Entry
from ..hands.kernel import Clock, Kernel
from ..hands.places import Control
from ..ports import Hands, Locks, PoolAdapter
from ..printed import Part, plain
from ..scope import EVERYTHING, OBSERVE, acts, things
from ..words import moment, span
from .actuate import Acting
from .looks import ProgramOf, unknown_program
from .observing import Observing


class Scoped:
    """The actuator that acts on some things. Restores always act: only what was really changed can be restored.

    The ledger is opened when something is acted on for the first time, and stays open until `close`: what is in force there is
    relieved, settled and undone whatever the scope is by then. `samples` as in `Acting`.
    """

    def __init__(
        self,
        hands: Hands,
        kernel: Kernel,
        locks: Locks,
        pools: Mapping[str, PoolAdapter],
        samples: Mapping[str, PoolSample],
        clock: Clock,
        program_of: ProgramOf = unknown_program,
    ) -> None:
        self.mode = "observe"
        self.scope = OBSERVE
        self._hands = hands
        self._kernel = kernel
        self._locks = locks
        self._pools = pools
        self._samples = samples
        self._clock = clock
        self._program_of = program_of
        self._observing = Observing(kernel, pools, samples, hands.forbidden)
        self._acting: Acting | None = None
        self._limits: tuple[float, float] | None = None

    def prepare(self, scope: Scope) -> str:
        """Open the ledger if the scope acts on something and it is not open yet. Returns why it cannot be written, "" if it can.
        Raises LedgerError if it cannot be used at all."""
        if not scope.grants or self._acting is not None:
            return ""
        self._hands.open()
        self._acting = Acting(self._hands, self._kernel, self._locks, self._pools, self._samples, self._clock, self._program_of)
        if self._limits is not None:
            self._acting.limit(*self._limits)
        return self._hands.trouble

    def act_on(self, scope: Scope) -> None:
        """Use this scope from the next decision on. What is in force stays in force: see `keep`. Raises LedgerError as `prepare`
        does."""
        self.prepare(scope)
        self.scope = scope
        self.mode = "act" if scope.grants else "observe"

    def keep(self, held: Iterable[Restore | ResizePool]) -> tuple[Outcome, ...]:
        """See `Acting.keep`."""
        return () if self._acting is None else self._acting.keep(held)

    @property
    def has_acted(self) -> bool:
        """Whether something is acted on, or was: the ledger is open."""
        return self._acting is not None

    @property
    def trouble(self) -> str:
        """Why the last write of the ledger failed, "" if it succeeded or is not needed."""
        return self._hands.trouble

    def outstanding(self) -> tuple[Entry, ...]:
        """What is in force, oldest first."""
        return self._hands.book.outstanding()

    def close(self) -> None:
        """Close the ledger."""
        self._hands.close()

    # --- ports.Actuator --------------------------------------------------------------------------------------------------------

    def apply(self, decisions: Sequence[Decision]) -> tuple[Outcome, ...]:
        """One outcome per decision, in order."""
        acting = [decision for decision in decisions if self._acts(decision)]
        if self._acting is None or not acting:
            return self._observing.apply(decisions)
        carried = iter(self._acting.apply(acting))
        return tuple(next(carried) if self._acts(decision) else self._observing.apply((decision,))[0] for decision in decisions)

    def settle(self) -> tuple[Outcome, ...]:
        """See `Acting.settle`."""
        return () if self._acting is None else self._acting.settle()

    def undo(self) -> tuple[Outcome, ...]:
        """See `Acting.undo`."""
        return () if self._acting is None else self._acting.undo()

    def release(self, pools: Collection[str]) -> tuple[Outcome, ...]:
        """See `Acting.release`."""
        return () if self._acting is None else self._acting.release(pools)

    def limit(self, starve_seconds: float, floor: float) -> None:
        """See `ports.Actuator`."""
        self._limits = starve_seconds, floor
        if self._acting is not None:
            self._acting.limit(starve_seconds, floor)

    def relieve(self, groups: Sequence[Group]) -> float | None:
        """See `Acting.relieve`."""
        return None if self._acting is None else self._acting.relieve(groups)

    def _acts(self, decision: Decision) -> bool:
        return self._acting is not None and (isinstance(decision.action, Restore) or acts(self.scope, things(decision)))


def words(scope: Scope, now: int) -> str:
    """What is acted on, for people. `now`: monotonic ns.

    >>> from nicety.scheduler.decision import Grant
    >>> words(Scope((Grant("web", 3600 * 10**9),), ("policy priority",)), 0)
    'acting on web for another 1 h 0 min, but not on policy priority'
    """
    if not scope.grants:
        return "observing"
    parts = []
    for grant in scope.grants:
        left = "" if grant.until is None else f" for another {span((grant.until - now) / 1e9)}"
        parts.append(("everything" if grant.thing == EVERYTHING else grant.thing) + left)
    text = "acting" if parts == ["everything"] else f"acting on {', '.join(parts)}"
    return text + (f", but not on {', '.join(scope.spared)}" if scope.spared else "")


class ActedOn(Part, frozen=True):
    """A thing that is acted on."""

    thing: str  # "everything", "policy NAME", or a pool or group by its name
    seconds_left: float | None  # None: there is no end
    until: str | None  # local time; None: there is no end


class Spared(Part, frozen=True):
    """A thing that is observed although something wider is acted on."""

    thing: str


def as_record(scope: Scope, now: int, wall: int) -> dict[str, Any]:
    """What is acted on, for programs: `acting_on` has records of `ActedOn`, `spared` of `Spared`. `now`: monotonic ns, `wall`: ns
    since 1970."""
    acted_on = [
        ActedOn(
            "everything" if grant.thing == EVERYTHING else grant.thing,
            None if grant.until is None else max(0.0, (grant.until - now) / 1e9),
            None if grant.until is None else moment(wall + grant.until - now),
        )
        for grant in scope.grants
    ]
    return {"acting_on": [plain(each) for each in acted_on], "spared": [plain(Spared(thing)) for thing in scope.spared]}


def unable(hands: Hands) -> str:
    """What an acting daemon cannot do with its rights, with the reason and the remedy; "" if it may do everything."""
    reason = hands.forbidden(Control.NICE)
    return f"nothing will be demoted by nice, autogroup or scheduling policy: {reason}" if reason else ""
