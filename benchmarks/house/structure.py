"""The shape of the code in figures: rooms, which imports which, cycles, imports against the flow, sizes, names.

    python -m benchmarks.house.structure [--root DIR] [--json FILE]
    python -m benchmarks.house.structure --diagram

A room is a folder of `scheduler/`, or `models` and `training`; the modules at the top of `scheduler/` are its nouns, its drivers
(the loop and the replay) or its edges (the command line and what only tests and trials need). Data flows through the rooms in the
order of `FLOORS`: a room may import those before it. `--root` measures another checkout, in which every folder counts as a room.
`--diagram` prints the picture of docs/architecture.md; `tests/test_architecture.py` holds both to each other.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from .. import ROOT
from ..claims import Claims

LAYERS = ("models", "scheduler", "training")

FLOORS = (
    *("models", "hands", "nouns", "config", "read", "observe", "decide", "store", "act", "executor", "pools", "explain", "service"),
    *("drivers", "edges"),
)
"""Rooms below and in `scheduler/`, in the order in which data flows; each may import those before it."""

DRIVERS = frozenset({"daemon", "replay", "running"})
EDGES = frozenset({"cli", "__main__", "views", "simulation", "demo", "testing"})

CORE = ("hands", "observe", "decide", "act")
"""Where strings and asserts that stand in for types count."""


def modules(root: Path) -> dict[str, Path]:
    """All modules of a checkout by dotted name."""
    found = {}
    for layer in LAYERS:
        for path in sorted((root / layer).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def reached(name: str, known: Mapping[str, Path]) -> set[str]:
    """Modules of ours that this one imports, in functions too."""
    path = known[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module.split(".") if node.module else ())]
            for alias in node.names:
                target = ".".join([*base, alias.name])
                found.add(target if target in known else ".".join(base))
    return found & known.keys()


def room_of(name: str) -> str:
    """The room of a module: one of `FLOORS`, `training`, or a folder that is none of them."""
    layer, *rest = name.split(".")
    if layer != "scheduler" or not rest:
        return layer if layer != "scheduler" else "nouns"
    if rest[0] in DRIVERS:
        return "drivers"
    if rest[0] in EDGES:
        return "edges"
    return rest[0] if len(rest) > 1 or rest[0] in FLOORS else "nouns"


def against(known: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """(module, what it imports) for each import of a room that comes later in the flow."""
    rank = {room: floor for floor, room in enumerate(FLOORS)}
    for name in sorted(known):
        own = rank.get(room_of(name))
        for target in sorted(reached(name, known)) if own is not None else ():
            if rank.get(room_of(target), len(FLOORS)) > own:
                yield name, target


def cycle(known: Mapping[str, Path]) -> list[str]:
    """A circle of modules that import each other; [] if there is none."""
    graph = {name: {target for target in reached(name, known) if not name.startswith(f"{target}.")} for name in known}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def diagram(known: Mapping[str, Path]) -> str:
    """The rooms from the last to the first, how many modules each has, and what it imports."""
    uses, count = defaultdict(set), Counter(room_of(name) for name in known)
    for name in known:
        uses[room_of(name)] |= {room_of(target) for target in reached(name, known)} - {room_of(name)}
    lines = []
    for room in reversed([*FLOORS, "training"]):
        below = [each for each in reversed(FLOORS) if each in uses[room]]
        lines.append(f"{room:<9}{count[room]:>4}  {'<- ' if below else ''}{' '.join(below)}".rstrip())
    return "\n".join(lines)


@dataclass(frozen=True)
class Sizes:
    """The largest class and function, and figures that should be small."""

    largest_class: tuple[int, str]  # lines, name
    longest_function: tuple[int, str]
    shared_names: dict[str, int]  # class name -> modules
    comparisons: int  # with a string, in the core
    asserts: int  # that something is not None or of a type, in the core


def sizes(known: Mapping[str, Path]) -> Sizes:
    """The sizes of all modules except those of tests."""
    classes, functions, where = [(0, "")], [(0, "")], defaultdict(set)
    comparisons = asserts = 0
    for name, path in known.items():
        core = room_of(name) in CORE or name.startswith("scheduler.policies")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                classes.append(((node.end_lineno or 0) - node.lineno + 1, f"{name}.{node.name}"))
                if not node.name.startswith("_"):
                    where[node.name].add(name)
            elif isinstance(node, ast.FunctionDef):
                functions.append(((node.end_lineno or 0) - node.lineno + 1, f"{name}.{node.name}"))
            elif core and isinstance(node, ast.Compare):
                comparisons += any(isinstance(each, ast.Constant) and isinstance(each.value, str) for each in node.comparators)
            elif core and isinstance(node, ast.Assert):
                text = ast.unparse(node.test)
                asserts += "is not None" in text or "isinstance" in text
    shared = {name: len(found) for name, found in sorted(where.items()) if len(found) > 1}
    return Sizes(max(classes), max(functions), shared, comparisons, asserts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="a checkout")
    parser.add_argument("--diagram", action="store_true", help="print the picture of docs/architecture.md")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    known = modules(asked.root)
    if asked.diagram:
        print(diagram(known))
        return
    edges = {(room_of(name), room_of(target)) for name in known for target in reached(name, known)}
    edges = {(room, other) for room, other in edges if room != other}
    wrong, circle, found = list(against(known)), cycle(known), sizes(known)
    for name, target in wrong:
        print(f"against the flow: {name} imports {target}")
    if circle:
        print(f"a circle: {' -> '.join(circle)}")
    print(f"largest class: {found.largest_class[1]}; longest function: {found.longest_function[1]}")
    claims = Claims()
    claims.at_most("imports against the flow", len(wrong), 0)
    claims.at_most("circles of modules", int(bool(circle)), 0)
    rooms = {room_of(name) for name in known}
    for text, figure in (
        ("modules", len(known)),
        ("rooms", len(rooms)),
        ("pairs of rooms, one of which imports the other", len(edges)),
        ("most modules in a room", max(Counter(map(room_of, known)).values())),
        ("lines of the largest class", found.largest_class[0]),
        ("lines of the longest function", found.longest_function[0]),
        ("public class names in more than one module", len(found.shared_names)),
        ("comparisons with a string in observe, decide, act", found.comparisons),
        ("asserts that stand in for types in observe, decide, act", found.asserts),
    ):
        claims.add(text, figure, "", True)
    claims.close(asked.json, shared_names=found.shared_names)


if __name__ == "__main__":
    main()
