"""A decision in three sentences, with which every page of `nicety why` begins: what was done, why, and what came of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..decide.policies.quarantine.words import WHAT
from ..decision import Decision, Digest, Effect, Flag, Outcome, Recycle, Refusal, ResizePool, Restore, Set
from ..hands.faults import Status
from ..hands.fences import Limits, limits_in_words
from ..hands.places import Control, cpu_list
from ..places import cgroup_of, process_of
from ..words import figure, share
from .delay_words import WAIT
from .gathered import describe, plural

MEANING = {
    Status.APPLIED: "done, and read back",
    Status.OBSERVED: "observed only: nothing was written",
    Status.UNCHANGED: "it had this value already",
    Status.PARTIAL: "done in part",
    Status.VANISHED: "the target was gone",
    Status.REFUSED: "the kernel or the pool said no",
    Status.FOREIGN: "somebody else had changed it: left alone from now on",
    Status.FAILED: "failed",
    Status.BLOCKED: "not done: nicety lacked a writable ledger, descriptors or memory",
    Status.LATER: "not done: the kernel was busy, the next try may succeed",
    Status.RELIEVED: "restored at once: it starved, or another process waited for a lock that it holds",
}

VERDICTS = {
    "helped": "it helped",
    "no effect": "it had no effect",
    "hurt": "it made that worse",
    "more contention": "that got worse, but batch work wants far more than then",
    "cannot tell": "whether it helped cannot be told",
}
"""What an effect's verdict means for the figure that comes after it."""

_DONE = frozenset({Status.APPLIED, Status.PARTIAL, Status.UNCHANGED, Status.RELIEVED, Status.FOREIGN})
"""First outcomes after which something was done, or needed not to be."""


def what(decision: Decision, refusal: Refusal | None, outcomes: Sequence[Outcome]) -> str:
    """The first sentence: what was done, or would have been."""
    did, do, rest = _doing(decision)
    if refusal is not None:
        return f"nicety wanted to {do} {rest}, but its guard refused."
    if not outcomes:
        return f"nicety decided to {do} {rest}."
    status = outcomes[0].status
    if status is Status.OBSERVED:
        return f"nicety would {do} {rest}, but it only observes."
    return f"nicety {did} {rest}." if status in _DONE else f"nicety tried to {do} {rest}."


def why(decision: Decision) -> str:
    """The second sentence."""
    return f"Why: {decision.why.text}"


def came(decision: Decision, refusal: Refusal | None, outcomes: Sequence[Outcome], effects: Sequence[Effect]) -> str:
    """The third sentence: what came of it."""
    if refusal is not None:
        return f"Nothing was changed, by the guard's rule {refusal.rule}: {refusal.text}"
    if not outcomes:
        return "No outcome is in the log (yet)."
    status = outcomes[-1].status
    said = f"{MEANING[status][0].upper()}{MEANING[status][1:]}"
    said += f"; {verdict_in_words(effects[-1])}" if effects else ""
    undone = isinstance(decision.action, Set) and len(outcomes) > 1 and status in (Status.APPLIED, Status.UNCHANGED)
    return f"{said}; put back since then." if undone else f"{said}."


def verdict_in_words(effect: Effect) -> str:
    """Whether it helped, and by which figures."""
    return f"{VERDICTS.get(effect.verdict, effect.verdict)}: {effect_in_words(effect)}"


def setting(action: Set, session: str = "a session", inside: str = "") -> str:
    """What was set and what that means. `session`: what to call the session; `inside`: what to say behind the name of a cgroup."""
    value = action.value
    match action.control:
        case Control.AUTOGROUP:
            return f"nice {value} of {session} as a whole (autogroup)"
        case Control.NICE:
            return f"nice {value} of every thread"
        case Control.POLICY:
            return f"{describe(action)} of every thread"
        case Control.AFFINITY:
            return f"only CPUs {cpu_list(value if isinstance(value, tuple) else (value,))}"
        case Control.SLICE:
            return f"{describe(action)} of every thread before it is asked to yield"
        case Control.CPU_IDLE:
            return f"cgroup {cgroup_of(action.on)}{inside}, runs only when nothing else wants the CPU (cpu.idle {value})"
        case Control.CPU_SHARES:
            return f"{value} shares instead of 1024 for cgroup {cgroup_of(action.on)}{inside}"
        case Control.FENCE:
            process = process_of(action.on)
            whose = "" if process is None else f" of process {process.pid} and its descendants"
            limits = limits_in_words(Limits(*value)) if isinstance(value, tuple) else ""
            return f"a cgroup{whose}: {limits}"
        case Control.CPU_WEIGHT:
            return f"weight {value} instead of 100 for cgroup {cgroup_of(action.on)}{inside}"
        case _:
            return describe(action)


def effect_in_words(effect: Effect) -> str:
    """What a change did to the figure that it was meant to improve.

    >>> effect_in_words(Effect("s-1.0", "wait of group web, cores per core of demand", 0.31, 0.02, 3, "helped"))
    'web waited for a CPU 31 % of its demand before, 2 % after 3 ticks'
    >>> effect_in_words(Effect("s-1.0", "queued work of pool web", 2.0, 3.0, 5, "helped", unchanged=(12.0, 12.0)))
    'queued work of pool web: 2 before, 3 after 5 ticks, where the old size would have had 12'
    """
    wait = WAIT.fullmatch(effect.metric)
    if wait is None:
        said = f"{effect.metric}: {figure(effect.before)} before, {figure(effect.after)} after {effect.ticks} ticks"
        return said + _unchanged(effect)
    before, after = share(effect.before), share(effect.after)
    return f"{wait[1]} waited for a CPU {before} of its demand before, {after} after {effect.ticks} ticks"


def _unchanged(effect: Effect) -> str:
    """What the figure would have been at the old size of the pool, after a comma; "" if that is not known."""
    if effect.unchanged is None:
        return ""
    least, most = effect.unchanged
    if most is None:
        return f", where the old size would have had at least {figure(least)}"
    between = figure(least) if most - least < 1e-3 else f"{figure(least)} to {figure(most)}"
    return f", where the old size would have had {between}"


def _doing(decision: Decision) -> tuple[str, str, str]:
    """(what was done, the same as an infinitive, to what): ("asked", "ask", "pool web for 8 workers instead of 5")."""
    target, action = decision.target, decision.action
    match action:
        case ResizePool(size=size):
            before = decision.why.figures.get("current")
            return "asked", "ask", f"{target} for {plural(size, 'worker')}{'' if before is None else f' instead of {before}'}"
        case Recycle(worker=worker, pool=pool):
            return "replaced", "replace", f"worker {worker.pid} of pool {pool}"
        case Flag(kind=kind, over=over, worker=worker):
            pid = f"process {worker.pid}"
            return "reported", "report", f"{pid}: its {kind} is over" if over else f"{pid}, which {WHAT.get(kind, kind)}"
        case Digest(incidents=incidents):
            return "reported", "report", f"{incidents} more incidents in one line"
        case Restore(control=Control.FENCE):
            return "let", "let", f"{target} out of its fence"
        case Restore(control=control):
            return "put", "put", f"{control} of {target} back to what it was"
        case Set(control=Control.FENCE, value=tuple(value)):
            return "put", "put", f"{target} into a cgroup of its own: {limits_in_words(Limits(*value))}"
        case Set(control=Control.CPU_IDLE | Control.CPU_SHARES | Control.CPU_WEIGHT):
            return "set", "set", f"{describe(action)} of {target}"
        case Set():
            return "set", "set", f"{setting(action, 'its session')}, for {target}"
