"""Groups of the configuration that no process belongs to, with the nearest name that exists. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ...models.identity import ProcId
from ...models.records import Identity
from ..config.sections import Config, GroupRule
from ..decision import Note
from .grouping import Rule

FIRST_NS = 10 * 10**9
"""ns from the first tick of a configuration to the first search for its groups (chosen): what is started with nicety runs by
then."""

AGAIN_NS = 60 * 10**9
"""ns between two such searches (chosen): each takes some milliseconds with 10,000 processes."""

MOST = 1000
"""Most names that a name is compared with (chosen): about 20 µs each."""

NEAR = 0.6
"""Similarity from which a name is taken as the one meant (difflib's own default)."""


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A `[groups.NAME]` that no process belongs to."""

    group: str
    text: str  # a sentence
    meant: str  # 'program = "python3 uvicorn"', "" where nothing is near


def unmatched(config: Config, identities: Iterable[Identity]) -> list[Unmatched]:
    """The groups whose rules match no process, or only those that earlier rules took; in the order of the configuration."""
    there = dict.fromkeys(identities)
    rules = {name: Rule(rule) for name, rule in config.groups.items()}
    found = []
    for number, (name, rule) in enumerate(rules.items()):
        before = [other for other, _ in zip(rules, range(number), strict=False)]
        taken = set[str]()
        for identity in there:
            if not rule.matches(identity):
                continue
            first = next((other for other in before if rules[other].matches(identity)), None)
            if first is None:
                break
            taken.add(first)
        else:
            found.append(_taken(name, taken) if taken else _absent(name, config.groups[name], there))
    return found


def _taken(name: str, taken: Collection[str]) -> Unmatched:
    others = " and ".join(f"[groups.{other}]" for other in sorted(taken))
    return Unmatched(
        name, f"[groups.{name}] has no process: all that it matches belongs to {others}, because the first match counts", ""
    )


def _absent(name: str, rule: GroupRule, there: Mapping[Identity, object]) -> Unmatched:
    given = {key: value for key in ("program", "unit", "cgroup") if (value := getattr(rule, key))}
    meant, fits = [], 0
    for key, value in given.items():
        if any(Rule(GroupRule(**{key: value})).matches(identity) for identity in there):
            fits += 1
            continue
        near = nearest(value, {getattr(identity, key) for identity in there} - {""})
        if near:
            meant.append(f'{key} = "{near}"')
    keys = [f'{key} = "{value}"' for key, value in given.items()] + ([] if rule.uid is None else [f"uid = {rule.uid}"])
    suggested = ", ".join(meant)
    if suggested:
        hint = f"; did you mean {suggested}?"
    else:
        none = fits and fits == len(given)
        hint = "; no process matches all of them" if none else "; no process has such a name now"
    return Unmatched(name, f"[groups.{name}] matches nothing ({', '.join(keys)}){hint}", suggested)


def nearest(wanted: str, names: Collection[str]) -> str:
    """The name that was probably meant; "" if none is near.

    >>> nearest("uvicorn", {"python3 uvicorn", "postgres"}), nearest("postgress", {"postgres"}), nearest("mysqld", {"redis-server"})
    ('python3 uvicorn', 'postgres', '')
    """
    core = wanted.strip("*?").casefold()
    known = sorted(names)[:MOST]
    for same in (_is_last_word, _begins):
        found = next((name for name in known if core and same(core, name.casefold())), "")
        if found:
            return found
    folded = {name.casefold(): name for name in reversed(known)}
    last = {name.rpartition(" ")[2]: name for name in reversed(folded)}
    close = difflib.get_close_matches(core, [*folded, *last], n=1, cutoff=NEAR)
    return folded[last.get(close[0], close[0])] if close else ""


def _is_last_word(core: str, name: str) -> bool:
    """Whether it is an interpreter's script, with or without its ending."""
    word = name.rpartition(" ")[2]
    return core in (name, word, word.rpartition(".")[0])


def _begins(core: str, name: str) -> bool:
    return len(core) > 2 and (name.startswith(core) or core.startswith(name + " "))


class Watch:
    """Searches now and then, and gives a note for each group that matches nothing."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._at: int | None = None  # monotonic ns of the next search
        self._notes: tuple[Note, ...] = ()

    def notes(self, at: int, identities: Mapping[ProcId, Identity]) -> tuple[Note, ...]:
        """Notes at a tick. `at`: monotonic ns; `identities`: all processes that exist."""
        if not self._config.groups:
            return ()
        if self._at is None:
            self._at = at + FIRST_NS
        if at >= self._at:
            self._at = at + AGAIN_NS
            found = unmatched(self._config, identities.values())
            self._notes = tuple(Note(f"groups {it.group}", it.text, {"group": it.group, "meant": it.meant}) for it in found)
        return self._notes
