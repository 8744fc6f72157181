"""Targets: the configuration, as text and as tables of the real schema."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicety.scheduler.config.paths import read_config
from nicety.scheduler.config.sections import Config, ConfigError, from_builtins, to_builtins

from .. import ROOT
from .target import BrokenError, Case, Target, write

QUIET = settings(database=None, deadline=None, max_examples=1, suppress_health_check=list(HealthCheck))
"""Hypothesis only turns bytes into values here: the engine chooses the bytes."""

_WORDS = (
    *(b"[pools.a]\n", b"[groups.a]\n", b"[[pools]]\n", b'kind = "command"\n', b'kind = "uwsgi"\n', b"class = ", b"queue = {", b"}"),
    *(b'"""', b"'''", b"\\u0000", b"\\uD800", b"inf", b"nan", b"1979-05-27T07:32:00Z", b"[[[[", b"a.b.c = ", b"\r\n", b"\xff"),
)


def _text_seeds() -> Sequence[bytes]:
    examples = [path.read_bytes() for path in sorted((ROOT / "configs" / "examples").glob("*.toml"))]
    crafted = (
        b"",
        b"[daemon]\ninterval = nan\nact_on = ['priority']\n",
        b'[pools."a b"]\nkind = "command"\ncommand = [\n "x",\n "y"]\n',
        b"[priority]\nnice = 3\nnice = 4\n",
        b'[groups."new\\nline"]\nprogram = "x"\n',
        b"x = " + b"[" * 3000,
        b"x" + b".a" * 2000 + b" = 1\n",
        b"[daemon]\nact_on = [\n" + b'"",\n' * 1900 + b"]\nx = 1\n",
    )
    return [case for case in (*crafted, *examples) if len(case) <= TEXT.longest]


def _prepare_text(place: Path) -> Case:
    path = place / "nicety.toml"

    def run(case: bytes) -> None:
        write(path, case)
        _check(path)

    return run


def _check(path: Path) -> None:
    """A configuration, equal to what the decision log would have of it, or an error with a line for each problem."""
    try:
        config = read_config(path, 0)
    except ConfigError as error:
        if not error.problems or not all(problem and problem.isprintable() for problem in error.problems):
            raise BrokenError(f"not a line for each problem: {error.problems}") from None
        return
    kept = to_builtins(config)  # without what may be a password
    if to_builtins(from_builtins(kept)) != kept:
        raise BrokenError("the configuration does not come back from the decision log")


# --- the schema ---------------------------------------------------------------------------------------------------------------

_NAME = st.sampled_from(("a", "b", "web", "priority", "a.b")) | st.text(max_size=4)
_JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers(), max_size=2)


RIGHT = 15
"""For each value of any kind at least so many have the key's type. Chosen: so that some whole configurations are valid."""


def _values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a key: mostly of its type and near its limits."""
    if get_origin(hint) is Annotated:
        hint, *metas = get_args(hint)
        limits = [limit for meta in metas for limit in (meta.gt, meta.ge, meta.lt, meta.le) if limit is not None]
    else:
        limits = []
    if get_origin(hint) is dict:
        return st.dictionaries(_NAME, _section(get_args(hint)[1]), max_size=3)
    options: list[st.SearchStrategy[Any]] = []
    for kind in (hint, *get_args(hint)):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return _section(kind)
        if isinstance(kind, str):
            options.append(st.just(kind))  # a Literal
        elif get_origin(kind) is Annotated:
            options.append(_values(kind))
        elif kind is bool:
            options.append(st.booleans())
        elif kind in (int, float):
            near = [limit + step for limit in limits or [0] for step in (-1, 0, 1)]
            options.append(st.sampled_from([*map(kind, near), *((math.nan, math.inf) if kind is float else ())]))
        elif isinstance(kind, type) and issubclass(kind, str):
            options.append(st.sampled_from([*getattr(kind, "__members__", {}).values(), "", "/x", "$X", "redis://h/0/q", "\0"]))
    if get_origin(hint) is list:
        options.append(st.lists(_NAME, max_size=3))
    return _one_of(*options * (RIGHT // len(options) + 1), _JUNK)


def _section(cls: type[msgspec.Struct]) -> st.SearchStrategy[dict[str, Any]]:
    """Tables of a section: any of its keys, often with their defaults, now and then an unknown one."""
    hints = get_type_hints(cls, include_extras=True)
    keys = {}
    for field in msgspec.structs.fields(cls):
        values = _values(hints[field.name])
        usual = field.default not in (msgspec.NODEFAULT, None)
        keys[field.encode_name] = _one_of(*[st.just(field.default)] * RIGHT, values) if usual else values
    required = {field.encode_name: keys.pop(field.encode_name) for field in msgspec.structs.fields(cls) if field.required}
    known = st.fixed_dictionaries(required, optional=keys)
    return st.tuples(known, _one_of(*[st.just({})] * RIGHT, st.dictionaries(_NAME, _JUNK, max_size=1))).map(
        lambda both: {**both[1], **both[0]}
    )


def _one_of(*strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A value of one of these; unlike `st.one_of`, one that is given often is used often."""
    return st.sampled_from(strategies).flatmap(lambda chosen: chosen)


def toml(value: Any) -> str:
    """A value in TOML; tables are inline.

    >>> toml({"a": [1, "x"], "b c": {"d": True}})
    '{"a" = [1, "x"], "b c" = {"d" = true}}'
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(str(key))} = {toml(each)}" for key, each in value.items() if each is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(each) for each in value if each is not None) + "]"
    if isinstance(value, str):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool | float) else str(value)


def _prepare_schema(place: Path) -> Case:
    path = place / "nicety.toml"

    @QUIET
    @given(_section(Config), st.booleans())
    def check(tables: dict[str, Any], long: bool) -> None:
        lines = (
            f"[{toml(name)}]\n" + "".join(f"{toml(key)} = {toml(each)}\n" for key, each in table.items() if each is not None)
            if long and isinstance(table, dict)
            else f"{toml(name)} = {toml(table)}\n"
            for name, table in sorted(tables.items(), key=lambda item: long and isinstance(item[1], dict))
            if table is not None
        )
        write(path, "".join(lines).encode("utf-8", "replace"))
        _check(path)

    return of_bytes(check)


def of_bytes(check: Any) -> Case:
    """A case of a Hypothesis test: its values come from the bytes."""
    fuzz = check.hypothesis.fuzz_one_input

    def run(case: bytes) -> None:
        fuzz(case)

    return run


def random_bytes() -> Sequence[bytes]:
    """Seeds from which Hypothesis can draw values, the same each time."""
    return [b"", b"\0" * 256, *(random.Random(seed).randbytes(200 * seed) for seed in range(1, 16))]


TEXT = Target("config text", _text_seeds, _prepare_text, _WORDS, longest=8192)
SCHEMA = Target("config schema", random_bytes, _prepare_schema)
