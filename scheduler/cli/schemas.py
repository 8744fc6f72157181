"""JSON Schemas of what `--json` prints: `nicety schema`. Made from the structs that are printed and the comments on their fields.

A schema leaves room for keys that a later version adds: docs/json.md. Knows which command prints which struct, not what it means.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from functools import cache
from inspect import getsource
from typing import Annotated, Any

import msgspec
import typer

from .names import starting
from .shared import command, print_json, say

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def _doctor() -> tuple[type, ...]:
    from ..service.doctor import Examination

    return (Examination,)


def _status() -> tuple[type, ...]:
    from ..service.answers.status import NotRunning, Running

    return Running, NotRunning


def _pools() -> tuple[type, ...]:
    from ..pools.finding.found import FoundPools

    return (FoundPools,)


def _decisions() -> tuple[type, ...]:
    from ..store.records import DecisionRecord

    return (DecisionRecord,)


def _anomalies() -> tuple[type, ...]:
    from ..explain.incident_page import Incidents

    return (Incidents,)


def _why() -> tuple[type, ...]:
    from ..explain.process_page import WhyProcess
    from ..explain.why_records import WhyDecision, WhyIncident

    return WhyDecision, WhyIncident, WhyProcess


def _models() -> tuple[type, ...]:
    from ..explain.model_page import Models

    return (Models,)


def _replay() -> tuple[type, ...]:
    from ..replay import Replay

    return (Replay,)


def _simulate() -> tuple[type, ...]:
    from ..simulation.run import Simulated

    return (Simulated,)


def _undo() -> tuple[type, ...]:
    from ..act.undo import Undone

    return (Undone,)


def _top() -> tuple[type, ...]:
    from ..views.top.plain import Seen

    return (Seen,)


def _notify() -> tuple[type, ...]:
    from ..views.notify.events import Told

    return (Told,)


def _frame() -> tuple[type, ...]:
    from ..frame import Frame

    return (Frame,)


OUTPUTS: dict[str, tuple[Callable[[], tuple[type, ...]], str]] = {
    "doctor": (_doctor, "what nicety doctor --json prints"),
    "status": (_status, "what nicety status --json prints"),
    "pools": (_pools, "what nicety pools --json prints"),
    "decisions": (_decisions, "a line of nicety decisions --json"),
    "anomalies": (_anomalies, "what nicety anomalies --json prints"),
    "why": (_why, "what nicety why --json prints: of a decision, an incident or a process"),
    "models list": (_models, "what nicety models list --json prints"),
    "replay": (_replay, "what nicety replay --json prints"),
    "simulate": (_simulate, "what nicety simulate --json writes"),
    "undo": (_undo, "what nicety undo --json prints"),
    "observe": (_undo, "what nicety observe --json prints"),
    "top": (_top, "a line of nicety top --json, one a tick"),
    "notify": (_notify, "what nicety notify gives to its command on standard input"),
    "frame": (_frame, "the JSON of a frame (docs/frame.md)"),
}
"""The structs of each output, and what it is. A command with two or more prints one of them."""


def _completed(incomplete: str) -> list[str]:
    """Commands that are described, by their first word, for the completion of a shell."""
    return starting(incomplete, (name.partition(" ")[0] for name in OUTPUTS))


@command("schema", "nicety schema status")
def schema(
    name: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND", help="The command whose JSON is described.", show_default=False, autocompletion=_completed
        ),
    ] = None,
) -> None:
    """Print the JSON Schema of what a command prints with --json.

    Without COMMAND, lists them all. docs/json.md says what stays as it is in later versions.
    """
    wanted = " ".join(name or ())
    if not wanted:
        from ..explain.layout import columns, table

        print(*table(("command", "describes"), [(one, what) for one, (_, what) in OUTPUTS.items()], columns()), sep="\n")
        return
    if wanted not in OUTPUTS:
        raise typer.BadParameter(f'"{wanted}" prints no JSON; those that do: {", ".join(OUTPUTS)}', param_hint="COMMAND")
    print_json(schema_of(wanted))
    say("keys may be added within a schema number; docs/json.md has the promise")


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema of one of `OUTPUTS`."""
    make, what = OUTPUTS[name]
    types = make()
    found, parts = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    made: dict[str, Any] = {"$schema": DRAFT, "title": f"nicety {name}", "description": f"{what[0].upper()}{what[1:]}."}
    made |= found[0] if len(types) == 1 else {"oneOf": list(found)}
    classes = {one.__name__: one for one in _structs(types)}
    return made | {"$defs": {part: _described(text, classes.get(part)) for part, text in sorted(parts.items())}}


def _structs(types: tuple[type, ...]) -> Iterator[type]:
    """Every class with fields that is reached."""
    seen = set[type]()
    left: list[Any] = list(msgspec.inspect.multi_type_info(types))
    while left:
        info = left.pop()
        if isinstance(info, tuple):
            left += info
        elif isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
            one = getattr(info, "cls", None)
            if one is not None and hasattr(info, "fields"):
                if one in seen:
                    continue
                seen.add(one)
                yield one
            left += [value for key in info.__struct_fields__ if isinstance(value := getattr(info, key), (tuple, msgspec.Struct))]


def _described(part: dict[str, Any], cls: type | None) -> dict[str, Any]:
    """A definition as it is printed: every key is there, others may follow, and the comments of the fields say what they mean."""
    made = {key: value for key, value in part.items() if key not in ("additionalProperties", "required")}
    doc = cls.__doc__ if cls is not None else part.get("description")
    made["description"] = _json_words(" ".join((doc or "").split()))
    said = {} if cls is None else comments(cls)
    if "prefixItems" in made and cls is not None:
        names = getattr(cls, "__struct_fields__", None) or cls._fields  # type: ignore[attr-defined]  # a NamedTuple
        items = zip(names, made["prefixItems"], strict=True)
        made["prefixItems"] = [_field(item, name, said.get(name, "")) for name, item in items]
        made["minItems"] = len(names)
    if "properties" in made:
        optional = _optional(cls)
        made["required"] = [name for name in made["properties"] if name not in optional]
        made["properties"] = {
            name: _field(item, "", said.get(name) or said.get(f"{name}_", "")) for name, item in made["properties"].items()
        }
    return made


def _optional(cls: type | None) -> set[str]:
    """Keys that may be missing."""
    if cls is None or not issubclass(cls, msgspec.Struct):
        return set()
    return {field.encode_name for field in msgspec.structs.fields(cls) if field.default is msgspec.UNSET}


def _field(item: dict[str, Any], title: str, comment: str) -> dict[str, Any]:
    made = {key: value for key, value in item.items() if key != "default"}
    return made | ({"title": title} if title else {}) | ({"description": _json_words(comment)} if comment else {})


def _json_words(text: str) -> str:
    """Words of Python as JSON has them."""
    return re.sub(r"\b(None|True|False)\b", lambda word: {"None": "null"}.get(word[0], word[0].lower()), text)


@cache
def comments(cls: type) -> dict[str, str]:
    """The comment behind each field of a class and its bases."""
    found: dict[str, str] = {}
    for base in reversed([one for one in cls.__mro__ if one.__module__.startswith("nicety.")]):
        text = getsource(base)
        behind = {
            token.start[0]: token.string.removeprefix("#").strip()
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type == tokenize.COMMENT and not token.string.startswith("# type:")
        }
        (node,) = ast.parse(text).body
        assert isinstance(node, ast.ClassDef)
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                lines = range(field.lineno, (field.end_lineno or field.lineno) + 1)
                said = next((behind[line] for line in lines if line in behind), "")
                if said:
                    found[field.target.id] = said
    return found
