"""Writes `configs/default.toml` and `docs/configuration.md` from `sections.py`: `python -m nicety.scheduler.config.reference`.

A test compares both files with its output, so no key goes undocumented. Knows the layout of the checkout, not what a key means.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from ...models.records import Class
from .sections import Config, GroupRule, Objective, PoolConfig, Queue

WIDTH = 120
"""Columns of the comments in the default file. Chosen: a file that people read in a terminal."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section."""

    name: str
    type: str  # for people: "number", "one of flag, demote, recycle"
    limits: str  # "0.05 to 60"; "": no limits
    default: Any  # msgspec.NODEFAULT: must be given; None: not set
    description: str


EXAMPLES: dict[type[msgspec.Struct], tuple[str, dict[str, Any]]] = {
    GroupRule: (
        "groups.reports",
        {"program": "python3 report.py", "uid": 1000, "unit": "reports.service", "cgroup": "/batch/*", "class": "batch"},
    ),
    PoolConfig: (
        "pools.resize",
        {
            "kind": "command",
            "initial": 2,
            "class": "batch",
            "pidfile": "/run/app/gunicorn.pid",
            "pid": 4711,
            "command": ["/usr/bin/python3", "/srv/app/worker.py"],
            "directory": "/srv/app",
            "user": "app",
        },
    ),
    Queue: ("pools.resize.queue", {"files": "/var/spool/app/new/*"}),
    Objective: ("pools.resize.objective", {"p95": "300ms"}),
}
"""Sections that have no defaults, because the user names them. The default file shows them as comments, with these values."""


def keys(section: type[msgspec.Struct]) -> Iterator[Key]:
    """Every plain key of a section, in the order of its class. Nested sections are left out."""
    hints = get_type_hints(section, include_extras=True)
    for item in msgspec.structs.fields(section):
        description, limits, plain = "", "", hints[item.name]
        for meta in _metas(plain):
            description = meta.description or description
            limits = _limits(meta) or limits
        kind = _type(plain)
        if kind is None:
            continue
        default = item.default_factory() if item.default_factory is not msgspec.NODEFAULT else item.default
        yield Key(item.encode_name, kind, limits, default, description)


def sections() -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """(name, class) of the sections that always exist, in the order of `Config`."""
    for name, hint in get_type_hints(Config).items():
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield name, hint


def default_toml() -> str:
    """The text of `configs/default.toml`."""
    lines = [
        "# Every key of nicety's configuration with its default. Copy the keys that you change to /etc/nicety/nicety.toml; for a",
        "# daemon that runs as your user, to ~/.config/nicety/nicety.toml. A key that is not there has the value below.",
        "# Generated from scheduler/config/sections.py by `python -m nicety.scheduler.config.reference`.",
    ]
    for name, section in sections():
        lines += ["", *_comment(_doc(section)), f"[{name}]"]
        for key in keys(section):
            lines += [*_comment(_remark(key)), f"{key.name} = {_toml(key.default)}"]
    for section, (name, values) in EXAMPLES.items():
        lines += ["", *_comment(_doc(section)), f"# [{name}]"]
        for key in keys(section):
            value = values.get(key.name, key.default)
            lines += [*_comment("  " + _remark(key)), f"# {key.name} = {_toml(value)}"]
    return "\n".join(lines) + "\n"


INTRODUCTION = """\
nicety reads the first of these files: the one that `--config` or `$NICETY_CONFIG` names,
`$XDG_CONFIG_HOME/nicety/nicety.toml` (not for root), `/etc/nicety/nicety.toml`. Without a file it uses the defaults.
Unknown keys, wrong types and numbers that are not finite are errors. All errors are reported at once with file and
line. `nicety doctor` checks a file without using it. On SIGHUP (`systemctl reload nicety`) nicety reads the file
again; a file with errors changes nothing. `state_dir`, `socket`, `control_group` and `reader` of `[daemon]` cannot
change until the next start: a file that changes one of them is refused. A pool that the new file no longer has gets its
original size back."""
"""How the configuration is found, read and changed."""


def all_sections() -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """(name, class) of every section, those that users name last."""
    yield from sections()
    yield from (("groups.NAME", GroupRule), ("pools.NAME", PoolConfig))
    yield from (("pools.NAME.queue", Queue), ("pools.NAME.objective", Objective))


def markdown() -> str:
    """The text of `docs/configuration.md`."""
    lines = [
        "# Configuration",
        "",
        "Generated from `scheduler/config/sections.py` by `python -m nicety.scheduler.config.reference`.",
        "[default.toml](../configs/default.toml) has the same keys ready to copy, [examples](../configs/examples) whole files.",
        "",
        *INTRODUCTION.splitlines(),
    ]
    for name, section in all_sections():
        lines += ["", f"## [{name}]", "", _doc(section), "", "| key | type | default | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{key.name}` | {_cell(_kind(key))} | {_cell(shown(key.default))} | {_cell(key.description)} |"
            for key in keys(section)
        ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write both files into the checkout that has this module."""
    root = Path(__file__).resolve().parents[2]
    for path, text in ((root / "configs" / "default.toml", default_toml()), (root / "docs" / "configuration.md", markdown())):
        path.write_text(text, encoding="utf-8")
        sys.stderr.write(f"wrote {path.relative_to(root)}\n")
    return 0


def _metas(hint: Any) -> Iterator[msgspec.Meta]:
    """Every Meta in a hint, also inside `… | None`."""
    if isinstance(hint, msgspec.Meta):
        yield hint
    for part in get_args(hint):
        yield from _metas(part)


def _type(hint: Any) -> str | None:
    """The type in words; None for a nested section."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return "one of " + ", ".join(f'"{value}"' for value in arguments)
    if hint is Class:
        return "one of " + ", ".join(f'"{value}"' for value in Class)
    if origin is list:
        return "list of strings"
    if origin in (UnionType, Union):
        rest = [part for part in arguments if part is not type(None)]
        return _type(rest[0])
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}.get(hint)


def _limits(meta: msgspec.Meta) -> str:
    low = "" if meta.ge is None else f"{_number(meta.ge)}"
    above = "" if meta.gt is None else f"more than {_number(meta.gt)}"
    below = "" if meta.lt is None else f"less than {_number(meta.lt)}"
    high = "" if meta.le is None else f"{_number(meta.le)}"
    if above:
        return ", ".join(filter(None, (above, below, high and f"at most {high}")))
    if low and high:
        return f"{low} to {high}"
    return f"at least {low}" if low else f"at most {high}" if high else ""


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _kind(key: Key) -> str:
    return f"{key.type}, {key.limits}" if key.limits else key.type


def _remark(key: Key) -> str:
    """Description and limits, as the default file has them before the key."""
    remarks = [part for part in (key.limits, key.type if key.type.startswith("one of") else "") if part]
    return (
        key.description
        + (f" ({'; '.join(remarks)})" if remarks else "")
        + (" Must be given." if key.default is msgspec.NODEFAULT else "")
    )


def _doc(section: type[msgspec.Struct]) -> str:
    return " ".join((section.__doc__ or "").split())


def shown(default: Any) -> str:
    """A default in words, as Markdown."""
    if default is msgspec.NODEFAULT:
        return "must be given"
    return "not set" if default is None else f"`{_toml(default)}`"


def _toml(value: Any) -> str:
    """A value as TOML writes it; JSON's strings, numbers and lists are TOML's too."""
    return json.dumps(value, ensure_ascii=False)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, WIDTH, subsequent_indent=text[: len(text) - len(text.lstrip())])]


if __name__ == "__main__":
    sys.exit(main())
