"""Code, configuration and pages use the words of docs/glossary.md: its last column names what may not be used."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
CODE = ("scheduler", "models", "training", "benchmarks")
PAGES = ("README.md", "docs/*.md", "benchmarks/*.md", "configs/*.toml", "configs/examples/*.toml")


def banned(glossary: str) -> dict[str, str]:
    """What may not be used -> what to write instead: the first and the last cell of each row."""
    found: dict[str, str] = {}
    for line in glossary.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) >= 2 and not set(cells[0]) <= {"-"} and cells[-1] != "not":
            found.update(dict.fromkeys(re.findall(r"`([^`]+)`", cells[-1]), cells[0]))
    return found


def pattern(phrase: str) -> str:
    """A regular expression for a phrase of the last column. An end of a line counts as a blank; `*` is the rest of a word, or a
    word."""
    words = [r"\w+" if word == "*" else re.escape(word).replace(r"\*", r"\w*") for word in phrase.split()]
    return r"(?<![A-Za-z])" + r"[\s#_]+".join(words) + r"(?![A-Za-z])"


BANNED = banned(GLOSSARY.read_text())
LOOSE = re.compile(
    "|".join(r"[\W_]*".join(re.escape(word.strip("*")) for word in phrase.split()) for phrase in BANNED), re.IGNORECASE
)
"""Matches wherever `ANY` may: most files need no closer look."""

TEST = re.compile(r"`test_\w+`")
"""The name of a test on a page: no word of the page's own."""

ANY = re.compile("|".join(f"(?P<w{number}>{pattern(phrase)})" for number, phrase in enumerate(BANNED)), re.IGNORECASE)


def words_of(name: str) -> str:
    """The words of an identifier.

    >>> words_of("ByRhythm_seen")
    'By Rhythm seen'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_+", " ", name).strip()


def of_python(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of everything in a module that has words: names, comments, strings. Comments in a row are one text."""
    comment: tuple[int, str] | None = None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comment = (comment[0], f"{comment[1]} {token.string}") if comment else (token.start[0], token.string)
            continue
        if token.type in (tokenize.NL, tokenize.NEWLINE):
            continue
        if comment:
            yield comment
            comment = None
        if token.type == tokenize.STRING:
            yield token.start[0], token.string
        elif token.type == tokenize.NAME:
            yield token.start[0], words_of(token.string)


def violations(name: str, text: str) -> list[str]:
    """What is wrong with a file, `name` says of what kind it is, one line each: place, what was used, what to write instead."""
    if not LOOSE.search(text):
        return []
    pieces = of_python(text) if name.endswith(".py") else [(1, TEST.sub("", text))]
    instead = list(BANNED.values())
    return [
        f"{name}:{line + piece[: match.start()].count(chr(10))}: {match[0]!r}: write {instead[int(str(match.lastgroup)[1:])]!r}"
        for line, piece in pieces
        for match in ANY.finditer(piece)
    ]


def files() -> list[Path]:
    """Everything that is held to the glossary."""
    code = [path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))]
    return [*code, *(path for glob in PAGES for path in sorted(ROOT.glob(glob)) if path != GLOSSARY)]


def test_the_words_are_those_of_the_glossary() -> None:
    found = [said for path in files() for said in violations(str(path.relative_to(ROOT)), path.read_text())]
    assert not found, "\n".join(found)


def test_there_is_something_to_hold() -> None:
    assert len(files()) > 200
    assert len(BANNED) > 25


@pytest.mark.parametrize(
    ("name", "text", "used"),
    [
        ("a.md", "The rhythm of the load is known.\n", "rhythm"),
        ("a.md", "Every latency\ngroup is protected.\n", "latency\ngroup"),
        ("a.md", "A model is checked each five minutes.\n", "each five minutes"),
        ("a.toml", "# Whoever listens is interactive.\n", "Whoever"),
        ("a.py", "class Rhythms:\n    pass\n", "Rhythms"),
        ("a.py", "def f(lesson_count: int) -> None: ...\n", "lesson"),
        ("a.py", 'def f() -> None:\n    """The user is told of it."""\n', "is told"),
        ("a.py", "x = 1  # the load goes to\n# and fro\n", "to\n# and fro"),
        ("a.py", 'raise ValueError(f"{name} is foretold")\n', "foretold"),
        ("a.py", "_wished = {}\n", "wished"),
    ],
)
def test_another_word_is_found_with_its_place(name: str, text: str, used: str) -> None:
    found = violations(name, "x = 0\n" + text if name.endswith(".py") else "\n" + text)
    assert len(found) == 1, found
    assert found[0].startswith(f"{name}:2") or found[0].startswith(f"{name}:3")
    assert re.sub(r"[\s#]+", " ", used) in re.sub(r"[\s#]+|\\n", " ", found[0])


@pytest.mark.parametrize(
    "text",
    [
        "Latency is measured.\n",
        "Algorithms\n",
        "It told us.\n",
        "The rest is hallowed.\n",
        "Each of five\n",
        "`test_a_rhythm_ends`\n",
    ],
)
def test_other_words_are_left_alone(text: str) -> None:
    assert violations("a.md", text) == []
