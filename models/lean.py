"""`NamedTuple` and `Protocol` without `typing`, which takes two megabytes and 5 ms: for the hands, which must be small.

To a type checker they are those of `typing`. At run time they do what is needed of them: a class of annotated fields becomes a
tuple with names, and a protocol is a class.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
    from typing import Protocol as Protocol
else:
    from collections import namedtuple

    class _Named(type):
        def __new__(cls, name, bases, body):
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = tuple(body.get("__annotations__", ()))
            made = namedtuple(name, fields, defaults=[body[field] for field in fields if field in body], module=body["__module__"])
            for key, value in body.items():
                if key == "__annotations__" or not (key in fields or key in ("__module__", "__qualname__")):
                    setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_Named):
        """A tuple with names, from the annotated fields of the class."""

    class Protocol:
        """A class that says what others must have."""
