"""What nicety acts on: everything, or some policies, pools and groups, each until a time; it observes the rest. Pure.

A decision is carried out if everything is granted, or one of: its policy, its pool, the group that it changes, the group that it
protects; unless one of these is spared. `docs/acting.md` has the table. Must not know how anything is carried out.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence

from .decision import Decision, Flag, Grant, Recycle, ResizePool, Scope

EVERYTHING = "*"
"""The thing that stands for everything. No group can have this name."""

POLICIES = ("placement", "pool_size", "priority", "quarantine")
"""Names of all policies, sorted."""

OBSERVE, ACT = Scope(), Scope((Grant(EVERYTHING),))
"""The scope of observe mode, and that of act mode without limits."""

CONCERNS = ("victim", "contender", "group", "pool")
"""Names of the figures of a decision that name a group or pool which it protects or changes."""

_KINDS = ("policy", "pool", "group")
"""Words that may precede a name to say what it names."""


class ScopeError(ValueError):
    """A name that cannot be acted on; the text gives the reason and the fix."""


def policy(name: str) -> str:
    """The thing that stands for a policy."""
    return f"policy {name}"


def things(decision: Decision) -> frozenset[str]:
    """What a decision is about: its policy, its pool, the group it changes and the group it protects."""
    action, figures = decision.action, decision.why.figures
    found = {policy(decision.policy), *(str(figures[name]) for name in CONCERNS if name in figures)}
    if isinstance(action, ResizePool | Recycle | Flag):
        found.add(action.pool)
    return frozenset(found)


def acts(scope: Scope, about: Collection[str]) -> bool:
    """Whether a decision about these things is carried out."""
    granted = any(grant.thing == EVERYTHING or grant.thing in about for grant in scope.grants)
    return granted and not any(thing in about for thing in scope.spared)


def act_on(scope: Scope, named: Sequence[str], until: int | None) -> Scope:
    """The scope with these things acted on (everything if none is named) until this time (monotonic ns; None: no end)."""
    added = tuple(named) or (EVERYTHING,)
    grants = {grant.thing: grant for grant in scope.grants} | {thing: Grant(thing, until) for thing in added}
    spared = set() if EVERYTHING in added else set(scope.spared) - set(added)
    return _scope(grants.values(), spared)


def observe(scope: Scope, named: Sequence[str]) -> Scope:
    """The scope with these things observed (everything if none is named). The remaining grants hold for all else."""
    if not named:
        return OBSERVE
    return _scope((grant for grant in scope.grants if grant.thing not in named), {*scope.spared, *named})


def left(scope: Scope, now: int) -> Scope:
    """The scope without the grants that have ended by `now` (monotonic ns)."""
    if all(grant.until is None or grant.until > now for grant in scope.grants):
        return scope
    return _scope((grant for grant in scope.grants if grant.until is None or grant.until > now), scope.spared)


def resolve(words: Iterable[str], pools: Collection[str], groups: Collection[str], seen: Collection[str]) -> tuple[str, ...]:
    """The things that these words name, each once, in order: policies, pools and groups of the configuration, groups seen now.

    "policy NAME", "pool NAME" and "group NAME" say which is meant if a policy and a pool or group share a name. Raises ScopeError
    for a name that is unknown or ambiguous.
    """
    return tuple(dict.fromkeys(_resolve(word, pools, {*groups, *seen}) for word in words))


def _resolve(word: str, pools: Collection[str], groups: Collection[str]) -> str:
    kind, _, name = word.partition(" ")
    if kind in _KINDS and name in {"policy": POLICIES, "pool": pools, "group": groups}[kind]:
        return policy(name) if kind == "policy" else name
    other = "pool" if word in pools else "group" if word in groups else ""
    if word in POLICIES and other:
        raise ScopeError(f'"{word}" is a policy and a {other}; say "policy {word}" or "{other} {word}"')
    if word in POLICIES:
        return policy(word)
    if other:
        return word
    known = sorted({*POLICIES, *pools, *groups})
    close = [one for one in known if word and word in one] or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f'the nearest is "{close[0]}"' if close else f"policies are {', '.join(POLICIES)}"
    raise ScopeError(f'no policy, pool or group is called "{word}"; {hint}; `nicety status` lists pools and groups')


def _scope(grants: Iterable[Grant], spared: Collection[str]) -> Scope:
    ordered = tuple(sorted(grants, key=lambda grant: grant.thing))
    return Scope(ordered, tuple(sorted(spared)) if ordered else ())
