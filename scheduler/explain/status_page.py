"""The daemon's answer to `status` in words: what it does, its notes, what is in force, and a line for each pool and group.

Fits a terminal of 80 columns, with a line for each group and pool: a name that is too long loses its middle there. No id is cut.
Parts of the answer that this page does not know are shown with their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..words import figure, moment, share, size, span
from .class_words import percent
from .gathered import plural
from .layout import GAP, indented, labelled, part, printed, shortened, table

SHOWN = 20
"""Most groups shown, those that use most CPU first (chosen); --json has all."""

SHORTEST = 16
"""Least columns of a group's name (chosen): on a terminal that has not even these, each group takes several lines."""

LABEL = 10
"""Columns of the labels in the first part (chosen: the longest known one is "own cost")."""

Record = Mapping[str, Any]

CONTROLS = {"autogroup": "nice of the session", "fence": "cgroup of its own", "pool.size": "size"}
"""Display names of some controls."""

HEAD = frozenset(
    {
        "schema",
        "running",
        "version",
        "mode",
        "paused",
        "running_seconds",
        "session",
        "ticks",
        "missed_ticks",
        "cpus",
        "scope",
        "cannot",
    }
)
COST = frozenset({"own_cpu_seconds", "own_memory_bytes", "trace_ticks_dropped", "decision_ticks_dropped"})
MODELS = frozenset({"demand_model", "behaviour_model", "anomaly_model", "retraining", "replay"})
LISTS = frozenset({"schema", "running", "acting_on", "spared", "notes", "changes", "changes_in_force", "pools", "groups"})


def status_page(answer: Record, width: int | None) -> str:
    """The page. `width`: of the terminal, None if there is none."""
    lines = _facts(answer, width)
    notes = answer.get("notes") or ()
    if notes:
        lines += part("Notes", [note["text"] for note in notes], width)
    lines += ["", *changes_in_words(answer.get("changes") or (), width)]
    if answer.get("pools"):
        lines += ["", *_pools(answer["pools"], width)]
    if answer.get("groups"):
        lines += ["", *_groups(answer["groups"], width)]
    for key, value in answer.items():
        if key not in LISTS and isinstance(value, list) and value:
            lines += part(_named(key), [_in_words(key, item) for item in value], width)
    return printed(lines)


# --- the daemon ---------------------------------------------------------------------------------------------------------------


def _facts(answer: Record, width: int | None) -> list[str]:
    rows = [("nicety", _head(answer)), ("cannot", str(answer.get("cannot", "")))]
    rows += [("own cost", _cost(answer)), ("budget", _budget(answer)), ("models", _models(answer))]
    known = HEAD | COST | MODELS | LISTS | {"budget"}
    rows += [
        (_named(key), _in_words(key, value)) for key, value in answer.items() if key not in known and not isinstance(value, list)
    ]
    return labelled([(label, text) for label, text in rows if text], width, LABEL)


def _head(answer: Record) -> str:
    mode = {"act": str(answer.get("scope", "acting")), "observe": "observing: nothing is changed"}.get(
        str(answer.get("mode")), str(answer.get("mode", ""))
    )
    said = [str(answer.get("version", "")), mode, "paused: nothing new is decided" if answer.get("paused") else ""]
    if "running_seconds" in answer:
        said.append(f"for {span(float(answer['running_seconds']))}")
    if "ticks" in answer:
        missed = answer.get("missed_ticks", 0)
        said.append(f"{plural(int(answer['ticks']), 'tick')}" + (f" ({missed} missed)" if missed else ""))
    said.append(f"session {answer['session']}" if "session" in answer else "")
    return ", ".join(part for part in said if part)


def _cost(answer: Record) -> str:
    said = []
    seconds, running = answer.get("own_cpu_seconds"), answer.get("running_seconds")
    if seconds is not None:
        part = f" ({share(float(seconds) / float(running))} of one CPU)" if running else ""
        said.append(f"{float(seconds):.1f} s of CPU{part}")
    if "own_memory_bytes" in answer:
        said.append(size(float(answer["own_memory_bytes"])))
    lost = [("trace", answer.get("trace_ticks_dropped", 0)), ("decision", answer.get("decision_ticks_dropped", 0))]
    said += [f"{plural(int(many), f'{store} tick')} lost" for store, many in lost if many]
    return ", ".join(said)


def _budget(answer: Record) -> str:
    budget = answer.get("budget")
    if not isinstance(budget, dict):
        return ""
    used = "not measured yet" if budget["share"] is None else f"{share(float(budget['share']))} used"
    reduced = budget["reduced"]
    said = f"; less often: {'; '.join(reduced)}" if reduced else ""
    return f"{used}, of {share(float(budget['limit']))} of one CPU{said}"


def _models(answer: Record) -> str:
    said = [f"{kind} {answer[f'{kind}_model']}" for kind in ("demand", "behaviour", "anomaly") if f"{kind}_model" in answer]
    due = ((name, answer.get(name)) for name in ("retraining", "replay"))
    return ", ".join([*said, *(f"{name} {state}" for name, state in due if state and state != "off")])


# --- changes ------------------------------------------------------------------------------------------------------------------


def changes_in_words(changes: Sequence[Record], width: int | None) -> list[str]:
    """What is in force, from the records of `in_force.sum_up`."""
    if not changes:
        return ["Nothing is changed"]
    lines = ["Changes in force"]
    for change in changes:
        what, why = _what(change), _why(change)
        if width is None or len(what) + len(why) + 4 <= width:
            lines.append(f"  {what}, {why}")
        else:
            lines += [*indented([what], width), *(f"  {line}" for line in indented([why], width - 2))]
    return lines


def _what(change: Record) -> str:
    """For example: group hogs: nice 0 -> 19 for 4 processes (12 threads)."""
    kinds = (("processes", "process"), ("sessions", "session"), ("cgroups", "cgroup"))
    many = ", ".join(plural(change[kind], noun) for kind, noun in kinds if change[kind])
    threads = f" ({plural(change['threads'], 'thread')})" if change["threads"] > change["processes"] else ""
    takes = f" for {many}{threads}" if many else ""
    control = change["control"]
    before, now = (_value(control, change[name]) for name in ("original", "now"))
    return f"{change['group']}: {CONTROLS.get(control, control)} {before} -> {now}{takes}"


def _value(control: str, value: str) -> str:
    if control == "slice" and value.isdecimal():
        return f"{int(value) / 1e6:g} ms" if int(value) else "the kernel's"
    return f"{value} workers" if control == "pool.size" else value


def _why(change: Record) -> str:
    """For example: protects redis, decision 5e551017-3.0 and 2 more, since 12 s."""
    protects = f"protects {change['protects']}, " if change["protects"] else ""
    more = f" and {change['decisions'] - 1} more" if change["decisions"] > 1 else ""
    since = span(change["since_seconds"]) if "since_seconds" in change else moment(change["since_wall"])
    return f"{protects}decision {change['decision']}{more}, since {since}"


# --- pools and groups ---------------------------------------------------------------------------------------------------------


def _pools(pools: Sequence[Record], width: int | None) -> list[str]:
    figures = {"workers": "size", "wanted": "requested", "busy": "busy", "queued": "queued", "Erlangs": "load"}
    headers = ["pool", *figures]
    rows = [[it["pool"], *(_number(it.get(name)) for name in figures.values())] for it in pools]
    if any(it.get("objective") for it in pools):
        headers.append("objective")
        rows = [[*row, it.get("objective", "")] for row, it in zip(rows, pools, strict=True)]
    said = [f"{pool['pool']}: sized by {pool['rules']}" for pool in pools if pool.get("rules", "all rules") != "all rules"]
    said += [f"{pool['pool']}: {pool['trouble']}" for pool in pools if pool.get("trouble")]
    right = range(1, len(figures) + 1)
    return [*table(headers, rows, width, right=right, whole=range(1, len(headers))), *indented(said, width)]


def _number(value: Any) -> str:
    return "?" if value is None or value == "unknown" else f"{value:.1f}" if isinstance(value, float) else str(value)


def _groups(groups: Sequence[Record], width: int | None) -> list[str]:
    there = [group for group in groups if group["processes"]]
    ordered = sorted(there, key=lambda group: (-group["cpu"], group["group"]))
    shown, rest = ordered[:SHOWN], ordered[SHOWN:]
    headers = ("group", "class", "processes", "cores", "waits", "memory")
    rows: list[tuple[str, ...]] = [
        (
            it["group"],
            _class(it),
            str(it["processes"]),
            f"{it['cpu']:.2f}",
            percent(it["wait"] / (it["cpu"] + it["wait"])) if it["cpu"] + it["wait"] > 0 else "0 %",
            size(it["memory_bytes"]) if "memory_bytes" in it else "",
        )
        for it in shown
    ]
    if width is not None:
        others = sum(max(map(len, column)) + GAP for column in list(zip(headers, *rows, strict=True))[1:])
        rows = [(shortened(name, max(width - others, SHORTEST)), *rest) for name, *rest in rows]
    lines = table(headers, rows, width, right=range(2, len(headers)), whole=range(len(headers)))
    if rest:
        lines.append(f"and {plural(len(rest), 'group')} more with {sum(it['cpu'] for it in rest):.2f} cores; --json has them")
    return lines


def _class(group: Record) -> str:
    """The class and its certainty, "given" if configured; for an undecided group, its likelier class if over 50 %."""
    name, chances = str(group["class"]), {kind: group.get(f"p_{kind}") for kind in ("interactive", "batch")}
    if name in chances:
        chance = chances[name]
        return f"{name}, given" if chance is None else f"{name} {percent(chance)}"
    if all(chance is None for chance in chances.values()):
        return name
    likely = next((f", {kind} {percent(chance)}" for kind, chance in chances.items() if chance is not None and chance > 0.5), "")
    return f"undecided{likely}"


# --- words --------------------------------------------------------------------------------------------------------------------


def _named(key: str) -> str:
    return key.replace("_", " ")


def _in_words(key: str, value: Any) -> str:
    """A value of the daemon's answer for people; its key gives the unit."""
    if value is None or value == "" or value == {} or value == []:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{_named(name)} {_in_words(name, item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(_in_words(key, item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.endswith("bytes"):
        return size(float(value))
    if key.endswith("seconds"):
        return span(float(value))
    return figure(value)
