"""What fits a terminal fits, whole; and what goes into a pipe is not folded at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from nicety.scheduler.explain.layout import labelled, paragraph, part, printed, table

SENTENCE = "one two three four five six seven eight"


def test_a_cell_that_is_too_long_is_folded_below_its_column() -> None:
    assert table(("name", "text"), [("a", SENTENCE)], 30) == [
        "name  text",
        "a     one two three four five",
        "      six seven eight",
    ]


def test_columns_with_most_to_spare_are_folded_first() -> None:
    rows = [("2026-12-01 22:48:33", SENTENCE, "12")]
    assert table(("time", "text", "n"), rows, 45) == [
        "time                 text                  n",
        "2026-12-01 22:48:33  one two three four    12",
        "                     five six seven eight",
    ]


def test_where_columns_do_not_fit_each_row_is_a_block() -> None:
    rows = [("abcdefghijklmnopqrstuvwxyz", SENTENCE, "abcdefghijklmnop"), ("b", "c", "d")]
    assert table(("name", "text", "id"), rows, 40) == [
        "name  abcdefghijklmnopqrstuvwxyz",
        "text  one two three four five six seven",
        "      eight",
        "id    abcdefghijklmnop",
        "",
        "name  b",
        "text  c",
        "id    d",
    ]


def test_a_figure_stays_with_its_percent_sign() -> None:
    assert paragraph("it waits 97 % of it", 11) == ["it waits", "97 % of it"]
    assert table(("of", "share"), [("a", "batch, about 12 or over 99 %")], 30)[1:] == ["a   batch, about 12 or over", "    99 %"]


def test_a_column_that_is_to_stay_whole_is_not_folded() -> None:
    rows = [("a name of a program that is long", "none, batch over 99 %")]
    assert table(("group", "class"), rows, 42, whole=(1,)) == [
        "group                class",
        "a name of a program  none, batch over 99 %",
        "that is long",
    ]


def test_in_a_pipe_every_text_is_on_one_line() -> None:
    long = SENTENCE * 20
    assert table(("name", "text"), [("a", long), ("b" * 30, "c")])[1] == f"{'a':<30}  {long}"
    assert paragraph(long, None) == [long]
    assert part("Title", [long]) == ["", "Title", f"  {long}"]
    assert labelled([("label", long)], None, 10, indent=2) == [f"  label       {long}"]


def test_figures_are_aligned_to_the_right() -> None:
    assert table(("n", "cores"), [("a", "1.25"), ("b", "10.50")], 80, right=(1,)) == ["n  cores", "a   1.25", "b  10.50"]


def test_tables_with_least_widths_look_alike() -> None:
    assert table((), [("a", "b")], 80, least=(4,)) == ["a     b"]
    assert table((), [("abcd", "b")], 80, least=(4,)) == ["abcd  b"]


def test_nothing_makes_no_lines() -> None:
    assert table((), []) == []
    assert labelled([], 80) == []
    assert paragraph("", 80) == [""]


def test_letters_that_take_two_columns_are_counted_as_two() -> None:
    assert table(("name", "n"), [("数据库", "1"), ("web", "2")], 80) == ["name    n", "数据库  1", "web     2"]


def test_markup_and_emoji_codes_are_only_text() -> None:
    text = "[bold]x[/bold] :smile: https://example.org 'a' 12"
    assert table(("t", "u"), [(text, "1")], 80)[1] == f"{text}  1"
    assert paragraph(text, 80) == [text]


@pytest.mark.parametrize("variables", [{"FORCE_COLOR": "1", "TERM": "dumb"}, {"COLUMNS": "20", "TTY_COMPATIBLE": "1"}])
def test_the_environment_changes_nothing(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert table(("name", "text"), [("a", "b" * 90)], 110)[1] == f"a     {'b' * 90}"


texts = st.text(alphabet="abc d\x1b\n数é[]/:-", max_size=60)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(texts, texts, texts), max_size=4), st.integers(min_value=24, max_value=120))
def test_no_line_is_wider_than_the_terminal_and_no_letter_is_lost(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = [*table(("one", "two", "three"), rows, width), *labelled([(row[0][:4], row[1]) for row in rows], width, 8, indent=2)]
    lines += [line for row in rows for line in paragraph(row[2], width)]
    assert max(map(cell_len, lines), default=0) <= width
    assert all(line.isprintable() for line in lines)
    for row in rows:
        folded = "".join(sorted("".join(paragraph(row[2], width)).replace(" ", "")))
        assert folded == "".join(sorted(printed([row[2]]).replace(" ", "")))
