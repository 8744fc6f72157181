"""Draws mutants by a seed, with the operators of cosmic-ray. Runs nothing and writes nothing.

First a place is drawn, then one of its mutations, so that a place with many mutations does not count more. A hash of the seed and
of the place's text decides which places are drawn, so an edit elsewhere in the code does not change the draw.

Comparisons get their neighbour and their opposite (`<` becomes `<=` or `>=`), arithmetic its counterpart. The other operators of
cosmic-ray (`+` becomes `<<`, `<` becomes `is`) are left out: nearly every test sees them, and they would flatter the score.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

from .mutants_rules import Module, Position, Where

_COMPARISONS = ("Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt")
_SAME = ("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is")
_ARITHMETIC = ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Div", "FloorDiv_Mul", "Mod_Mul", "Mod_FloorDiv", "Pow_Mul")
_BITS = ("BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitOr", "LShift_RShift", "RShift_LShift")

OPERATORS = (
    *(f"ReplaceComparisonOperator_{pair}" for pair in (*_COMPARISONS, *_SAME)),
    *(f"ReplaceBinaryOperator_{pair}" for pair in (*_ARITHMETIC, *_BITS)),
    *("ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_Delete_Invert"),
    *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd", "AddNot", "NumberReplacer"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ExceptionReplacer", "RemoveDecorator", "ZeroIterationForLoop"),
)
"""Names of the operators of cosmic-ray that are used."""


@dataclass(frozen=True)
class Place:
    """Something in the code that can be mutated."""

    file: str  # from the root of the checkout
    at: Position
    where: Where
    name: str  # what it is, without its line
    choices: tuple[tuple[str, int], ...]  # (operator, how many of its places come before in the file)


@dataclass(frozen=True)
class Mutant:
    """A place with one change."""

    id: str  # of what it is; an edit elsewhere does not change it
    place: Place
    code: str  # of the whole file
    was: str  # the lines that change
    becomes: str

    @property
    def title(self) -> str:
        """file:line and the function."""
        return f"{self.place.file}:{self.place.at[0]} {self.place.where.name}".rstrip()


def places(root: Path, files: Iterable[str]) -> Iterator[Place]:
    """All places of these files that matter."""
    operators = {name: get_operator(f"core/{name}")() for name in OPERATORS}
    for file in files:
        source = (root / file).read_text()
        module, lines = Module(source), source.split("\n")
        found: dict[tuple[Position, Position], list[tuple[str, int]]] = defaultdict(list)
        before: Counter[str] = Counter()
        for node in ast_nodes(get_ast(source)):
            for name, operator in operators.items():
                for span in operator.mutation_positions(node):
                    found[span].append((name, before[name]))
                    before[name] += 1
        twins: Counter[str] = Counter()
        for (first, last), choices in sorted(found.items()):
            if not module.matters(first):
                continue
            where = module.where(first)
            text = lines[first[0] - 1]
            column = first[1] - (len(text) - len(text.lstrip()))
            name = f"{file} {where.name} {text.strip()} {column} {last[0] - first[0]}"
            twins[name] += 1
            yield Place(file, first, where, f"{name} {twins[name]}", tuple(choices))


def draw(root: Path, trees: Mapping[str, list[Place]], number: int, seed: int) -> list[Mutant]:
    """`number` mutants, from each tree in proportion to its places; fewer if there are no more."""
    shares = _shares({tree: len(found) for tree, found in trees.items()}, number)
    drawn = []
    for tree, found in trees.items():
        ranked = iter(sorted(found, key=lambda place: _hash(seed, place.name)))
        wanted = shares[tree]
        while wanted and (place := next(ranked, None)):
            mutant = _mutant(root, place, seed)
            if mutant:
                drawn.append(mutant)
                wanted -= 1
    return drawn


def _shares(counts: Mapping[str, int], number: int) -> dict[str, int]:
    """Whole numbers that add up to `number`, in proportion to the counts; the largest remainders are rounded up."""
    total = sum(counts.values())
    shares = {name: number * count // total for name, count in counts.items()}
    remainders = sorted(counts, key=lambda name: (-(number * counts[name] % total), name))
    for name in remainders[: number - sum(shares.values())]:
        shares[name] += 1
    return shares


def _mutant(root: Path, place: Place, seed: int) -> Mutant | None:
    """One mutation of the place; None if the result is not a program, or the same program."""
    operator, before = place.choices[_hash(seed, "choice", place.name) % len(place.choices)]
    source = (root / place.file).read_text()
    code = mutate_code(source, get_operator(f"core/{operator}")(), before)
    try:
        if code is None or ast.dump(ast.parse(code)) == ast.dump(ast.parse(source)):
            return None
    except SyntaxError:
        return None
    lines = list(difflib.ndiff(source.splitlines(), code.splitlines()))
    was = "\n".join(line[2:].strip() for line in lines if line.startswith("- "))
    becomes = "\n".join(line[2:].strip() for line in lines if line.startswith("+ "))
    return Mutant(f"{_hash(place.name, operator, becomes):016x}", place, code, was, becomes)


def _hash(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:8], "big")
