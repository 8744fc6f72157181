"""The line of every key, however TOML lets it be written; and of what is no TOML at all."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicety.scheduler.config.positions import dotted, fault, lines, nearest
from nicety.scheduler.config.sections import ConfigError, parse

LINES: dict[str, tuple[str, dict[str, int]]] = {
    "tables and keys": ("a = 1\n\n[b]\n  c = 2\n", {"a": 1, "b": 3, "b.c": 4}),
    "dotted keys, with blanks": ("a . b.c = 1\na.d = 2\n", {"a": 1, "a.b": 1, "a.b.c": 1, "a.d": 2}),
    "quoted keys": ('["x.y".\'z w\']\n"k\\u0041" = 1\n', {'"x.y"': 1, '"x.y"."z w"': 1, '"x.y"."z w".kA': 2}),
    "an inline table": ("q = { f = 1, g.h = { i = 2 } }\n", {"q": 1, "q.f": 1, "q.g": 1, "q.g.h": 1, "q.g.h.i": 1}),
    "an array of many lines": ("a = [\n  1, # ]\n  2,\n]\nb = 1\n", {"a": 1, "b": 5}),
    "a text of many lines that looks like a table": ('a = """\n[b]\nc = 1\n"""\nc = 2\n', {"a": 1, "c": 5}),
    "a literal text of many lines": ("a = '''\n\"\"\"\n'''\nb = 1\n", {"a": 1, "b": 4}),
    "an array of tables": ("[[a]]\nb = 1\n[[a]]\nb = 2\nc = 3\n", {"a": 1, "a.b": 2, "a.c": 5}),
    "an inline array of tables": ("a = [\n  { b = 1 },\n]\n", {"a": 1, "a.b": 1}),
    "a table after one inside it": ("[a.b]\nc = 1\n[a]\nd = 2\n", {"a.b": 1, "a.b.c": 2, "a": 3, "a.d": 4}),
    "comments and blank lines": ("# a = 0\n\n[b] # [c]\n# d = 0\nd = 1 # e = 2\n", {"b": 3, "b.d": 5}),
    "lines of Windows": ("a = 1\r\n[b]\r\nc = 2", {"a": 1, "b": 2, "b.c": 3}),
    "a letter that only Python takes for a line end": ('a = "\u2028\x85"\nb = 1\n', {"a": 1, "b": 2}),
    "an empty table": ("a = {}\n[b]\n", {"a": 1, "b": 2}),
}


@pytest.mark.parametrize("case", LINES)
def test_the_line_of_each_key_in(case: str) -> None:
    text, expected = LINES[case]
    assert {dotted(path): line for path, line in lines(text).items()} == expected


def test_a_key_that_is_not_there_has_the_line_of_its_nearest_table() -> None:
    known = lines("\n[a]\nb = 1\n")
    assert [nearest(known, path) for path in (("a", "b"), ("a", "c"), ("a", "c", "d"), ("x",))] == [3, 2, 2, 1]


ERRORS: dict[str, tuple[str, list[str]]] = {
    "a dotted key": ("daemon.interval = 0\n", ["n.toml:1: daemon.interval: must be a number >= 0.05; the default is 1.0"]),
    "a key of an inline table": (
        '[pools.w]\nkind = "command"\ncommand = ["x"]\nqueue = { files = 3 }\n',
        ['n.toml:4: pools.w.queue.files: must be text, not a whole number; the default is ""'],
    ),
    "a quoted key": (
        '[models]\n"retrain_hour" = 3\n',
        ['n.toml:2: models.retrain_hour: unknown key; did you mean "retrain_hours"?'],
    ),
    "a key below a text of many lines": (
        '[groups."a.b"]\nprogram = """\nuid = 1\n"""\nuid = "x"\n',
        ['n.toml:5: groups."a.b".uid: must be a whole number, not text; or leave the key out'],
    ),
    "an array of tables where a table belongs": ("\n[[pools.w]]\nkind = 1\n", ["n.toml:2: pools.w: must be a table, [pools.w]"]),
    "a value of many lines": (
        "[guard]\nnice_floor = 0\nprotect = [\n  'a',\n  2,\n]\n",
        [
            (
                "n.toml:3: guard.protect: must be text, not a whole number (number 2 of the list); the default is "
                '["systemd*", "sshd*", "dbus-*", "login", "agetty", "Xorg", "gnome-shell"]'
            )
        ],
    ),
    "what is no TOML, with its column": (
        "[daemon]\ninterval == 2\n",
        ["n.toml:2:11: not valid TOML: Invalid value; correct it here or above"],
    ),
    "a text without an end": (
        '[daemon]\nsocket = """\nx\n\n',
        ["n.toml:3: not valid TOML: Unterminated string (at end of document); correct it here or above"],
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_names_the_line_of(case: str) -> None:
    text, expected = ERRORS[case]
    with pytest.raises(ConfigError) as caught:
        parse(text, "n.toml")
    assert caught.value.problems == expected


def test_a_fault_without_a_place_is_its_text() -> None:
    assert fault(ValueError("Exceeds the limit")) == ("", "Exceeds the limit")


# --- any text -----------------------------------------------------------------------------------------------------------------

keys = st.text(max_size=4).map(lambda name: json.dumps(name).replace("\x7f", "\\u007f")) | st.sampled_from(["a", "b-1", "'q.r'"])
values = st.sampled_from(["1", '"""\nx = 2\n[y]\n"""', "[\n1,\n2]", "{ i = 1, j.k = [ { l = 2 } ] }", "'''\n\n'''", '"]"'])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.lists(keys, min_size=1, max_size=3), values, st.booleans()), max_size=8))
def test_every_key_of_any_text_has_a_line_that_writes_it(parts: list[tuple[list[str], str, bool]]) -> None:
    written: dict[int, str] = {}
    text, line = "", 1
    for names, value, header in parts:
        statement = f"[{'.'.join(names)}]" if header else f"{'.'.join(names)} = {value}"
        try:
            tomllib.loads(text + statement)
        except ValueError:
            continue  # a key that is there already
        text += statement + "\n"
        written[line] = statement
        line += statement.count("\n") + 1
    known = lines(text)
    assert set(known.values()) <= set(written)

    def walk(data: dict[str, Any], above: tuple[str, ...] = ()) -> None:
        for key, value in data.items():
            assert (*above, key) in known
            first = value[0] if isinstance(value, list) else value
            if isinstance(first, dict):
                walk(first, (*above, key))

    walk(tomllib.loads(text))
