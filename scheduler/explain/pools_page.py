"""The pools of a machine in words: a row for each, then what is missing, and what to type. Must not know how they were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .layout import labelled, printed, table

Record = Mapping[str, Any]
"""A pool as in `nicety pools --json`."""


def pools_page(pools: Sequence[Record], width: int | None) -> str:
    """The page. `width`: of the terminal, None if there is none."""
    headers = ("pool", "kind", "workers", "pid", "user", "state")
    rows = [
        (it["name"], it["kind"], str(len(it["workers"])), str(it["master"] or it["workers"][0]), it["user"], _state(it))
        for it in pools
    ]
    lines = table(headers, rows, width, right=(2, 3))
    for it in pools:
        facts = [("reached by", it["reached"])] if it["resizable"] else [("not sized", it["reason"])]
        facts += [("missing", text) for text in it["missing"] if not it["configured"]]
        if it["resizable"] and not it["configured"]:
            facts.append(("to size it", f"nicety pools adopt {it['name']}"))
        lines += ["", f"{it['name']}", *labelled(facts, width, 10, 2)]
    return printed(lines)


def _state(pool: Record) -> str:
    if pool["configured"]:
        return "configured"
    return "can be adopted" if pool["resizable"] else "not sized"
