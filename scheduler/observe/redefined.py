"""Finds the groups and pools that a new configuration defines differently: what was learned of them no longer holds. Pure."""

from __future__ import annotations

import msgspec

from ..config.sections import Config, GroupRule, PoolConfig


def redefined_pools(before: Config, now: Config) -> set[str]:
    """Pools that came, went or were redefined. Other limits, another class or another objective alone do not redefine a pool."""

    def same(a: PoolConfig | None, b: PoolConfig | None) -> bool:
        if a is None or b is None:
            return False
        alike = msgspec.structs.replace(b, minimum=a.minimum, maximum=a.maximum, class_=a.class_, initial=a.initial)
        return msgspec.structs.replace(alike, objective=a.objective) == a

    return {name for name in before.pools.keys() | now.pools.keys() if not same(before.pools.get(name), now.pools.get(name))}


def regrouped(before: Config, now: Config) -> set[str]:
    """Groups of the configuration that came, went or match differently now; all of them if the order of the rules has changed."""

    def rules(config: Config) -> dict[str, GroupRule]:
        return {name: msgspec.structs.replace(rule, class_=None) for name, rule in config.groups.items()}

    then, there = rules(before), rules(now)
    if [name for name in then if name in there] != [name for name in there if name in then]:
        return {*then, *there}
    return {name for name in then.keys() | there.keys() if then.get(name) != there.get(name)}
