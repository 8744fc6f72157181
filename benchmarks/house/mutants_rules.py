"""Which places of a module may be mutated, and where a place is. Knows the syntax tree only, no library of mutants.

Left out is what no test of behaviour can see:

- annotations, aliases of types and what is under `if TYPE_CHECKING`: nothing reads them at run time
- `assert`: it repeats what the code ensures, so a weaker one changes nothing
- texts of exceptions: words for people (docstrings and other texts are never mutated: no mutation is made of strings)
- options of class decorators and class headers (`frozen=True`, `slots=True`): they forbid mistakes, they do nothing
- decorators for type checkers (`override`, `overload`, `final`), and caches (`cache`, `lru_cache`), which change no answer
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from dataclasses import dataclass

Position = tuple[int, int]
"""(line from 1, column in characters from 0), as in an editor and in parso."""

UNSEEN = frozenset({"override", "overload", "final", "runtime_checkable"})
"""Decorators that only type checkers read."""

CACHES = frozenset({"cache", "lru_cache"})

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.ClassDef)


@dataclass(frozen=True)
class Where:
    """Where a place is."""

    name: str  # of the function or class around it, with dots; "" at the top
    lines: range  # of its statement; of `if`, `for` and the like only the header
    at_import: bool  # it runs when the module is imported, or only once in a process


@dataclass(frozen=True)
class _Statement:
    node: ast.stmt | ast.ExceptHandler
    first: Position  # with its decorators
    last: Position
    body: Position | None  # where its block begins


class Module:
    """The syntax tree of a module.

    >>> module = Module("def f(a: int = 3):\\n    assert a > 1\\n    return a + 1\\n")
    >>> module.matters((1, 15)), module.matters((1, 9)), module.matters((2, 13)), module.matters((3, 13))
    (True, False, False, True)
    >>> module.where((3, 13))
    Where(name='f', lines=range(3, 4), at_import=False)
    """

    def __init__(self, source: str) -> None:
        self._lines = source.split("\n")
        self._tree = ast.parse(source)
        self._left_out = [self._span(node) for node in _without_effect(self._tree)]
        nodes = (node for node in ast.walk(self._tree) if isinstance(node, ast.stmt | ast.ExceptHandler))
        self._statements = [self._around(node) for node in nodes]
        for node in _unseen_decorators(self._tree):
            (line, column), last = self._span(node)
            self._left_out.append(((line, column - len("@")), last))

    def matters(self, at: Position) -> bool:
        """Whether a mutation at this place can change what the program does, by the rules above."""
        return not any(first <= at < last for first, last in self._left_out)

    def where(self, at: Position) -> Where:
        """The names and the statement around a place."""
        names, at_import = [], True
        statement, size = range(at[0], at[0] + 1), math.inf
        for around in self._statements:
            if not around.first <= at < around.last:
                continue
            node, inside = around.node, around.body is not None and around.body <= at
            if isinstance(node, _SCOPES):
                names.append(node.name)
            if isinstance(node, _FUNCTIONS) and inside:
                at_import = any(_name(each) in CACHES for each in node.decorator_list)
            header = range(around.first[0], around.last[0] + 1 if around.body is None else max(around.body[0], around.first[0] + 1))
            if not inside and len(header) < size:
                statement, size = header, len(header)
        return Where(".".join(names), statement, at_import)

    def _around(self, node: ast.stmt | ast.ExceptHandler) -> _Statement:
        first, last = self._span(node)
        decorators, body = getattr(node, "decorator_list", ()), getattr(node, "body", ())
        first = min([first, *((self._span(each)[0][0], 0) for each in decorators)])
        return _Statement(node, first, last, self._span(body[0])[0] if body else None)

    def _span(self, node: ast.AST) -> tuple[Position, Position]:
        """Columns in characters: those of `ast` are in bytes."""
        line, column = getattr(node, "lineno"), getattr(node, "col_offset")  # noqa: B009  # not every node has a place; these do
        last, end = getattr(node, "end_lineno"), getattr(node, "end_col_offset")  # noqa: B009
        return (line, self._characters(line, column)), (last, self._characters(last, end))

    def _characters(self, line: int, column: int) -> int:
        return len(self._lines[line - 1].encode()[:column].decode())


def _without_effect(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes in which no mutation matters."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            yield node.annotation
        elif isinstance(node, ast.Assert) or (isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING"):
            yield node
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from (each for part in node.exc.args for each in ast.walk(part) if isinstance(each, ast.JoinedStr))
        if isinstance(node, _FUNCTIONS) and node.returns:
            yield node.returns
        if isinstance(node, ast.ClassDef):
            options = [
                *node.keywords,
                *(each for call in node.decorator_list if isinstance(call, ast.Call) for each in call.keywords),
            ]
            yield from (each.value for each in options)
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.BitOr):
            yield node.value


def _unseen_decorators(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, _SCOPES):
            yield from (each for each in node.decorator_list if _name(each) in UNSEEN | CACHES)


def _name(node: ast.expr) -> str:
    """The last name of `a.name` or `name(...)`; "" if it is neither."""
    if isinstance(node, ast.Call):
        return _name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
