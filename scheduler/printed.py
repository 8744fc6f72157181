"""Base of what `--json` prints. Each output is a struct beside the code that makes it, so output and schema cannot differ. Pure.

`nicety schema COMMAND` prints the schema, docs/json.md has the promise. Knows neither what is printed nor how a schema is made.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

SchemaOne = Annotated[int, msgspec.Meta(extra_json_schema={"const": 1})]
"""The number of a schema that never changed. One that changes gets a type of its own with the next number."""


class Part(msgspec.Struct, frozen=True, rename=lambda field: field.rstrip("_")):
    """Base of the parts of an output. `class` is a word of Python: its field is `class_`."""


class Printed(msgspec.Struct, frozen=True, kw_only=True, rename=lambda field: field.rstrip("_")):
    """Base of a whole output."""

    schema: SchemaOne = 1  # number of the schema: another one means that fields have another meaning or are gone


def plain(value: Part | Printed) -> dict[str, Any]:
    """As JSON has it."""
    made: dict[str, Any] = msgspec.to_builtins(value)
    return made
