"""Paths of cgroups as /proc/PID/cgroup has them, compared as text. Pure: knows no mount."""

from __future__ import annotations

from functools import lru_cache

ROOT = "/"
"""The root cgroup."""


@lru_cache(maxsize=4096)
def ancestors(cgroup: str) -> tuple[str, ...]:
    """The cgroups that this one is in, from the root to itself.

    >>> ancestors("/a/b"), ancestors("/")
    (('/', '/a', '/a/b'), ('/',))
    """
    parts = [part for part in cgroup.split("/") if part]
    return (ROOT, *("/" + "/".join(parts[: depth + 1]) for depth in range(len(parts))))
