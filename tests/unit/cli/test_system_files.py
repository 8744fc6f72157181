"""Man pages and completion have every command and key, and nothing that a formatter stumbles over."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from nicety.scheduler.cli import app
from nicety.scheduler.cli.system_files import SHELLS, commands, completion, escaped, main, page_of_commands, page_of_keys
from nicety.scheduler.config import reference

DATE = "2026-12-02"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {"nicety.1": page_of_commands(DATE), "nicety.toml.5": page_of_keys(DATE)}


def test_every_command_and_option_is_in_the_page(pages: dict[str, str]) -> None:
    group: Any = typer.main.get_command(app)
    page = pages["nicety.1"]
    known = dict(commands(group))
    assert {"doctor", "why", "models list", "pools", "pools adopt", "anomalies wrong", "schema"} <= known.keys()
    assert "models" not in known, "it does nothing without a command"
    for name, command in known.items():
        section = page.partition(f'.SS "nicety {escaped(name)}"\n')[2].partition("\n.S")[0]
        assert section, name
        for each in command.params:
            for option in each.opts if each.param_type_name == "option" else ():
                assert option in ("--help", "--config", "--state-dir") or escaped(option) in section, (name, option)


def test_every_key_is_in_the_page_with_its_default(pages: dict[str, str]) -> None:
    page = pages["nicety.toml.5"]
    for name, section in reference.all_sections():
        part = page.partition(f'.SH "[{escaped(name)}]"\n')[2].partition("\n.SH")[0]
        for key in reference.keys(section):
            assert f"\\fB{escaped(key.name)}\\fR (" in part, (name, key.name)
    assert "\\fBbudget\\fR (number, 0.001 to 1; default 0.03)" in page
    assert "(one of" not in page or "must be given" in page


@pytest.mark.parametrize("name", ["nicety.1", "nicety.toml.5"])
def test_a_page_is_plain_ascii_and_no_line_is_a_request_by_chance(pages: dict[str, str], name: str) -> None:
    assert pages[name].isascii()
    requests = {line.split()[0] for line in pages[name].splitlines() if line.startswith((".", "'"))}
    assert requests <= {".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".BR", ".I", ".br", ".nh", ".ad"}
    assert not re.search(r"(?<!\\\\)--", pages[name].partition(".SH")[2]), "a hyphen that cannot be copied"


@pytest.mark.parametrize("name", ["nicety.1", "nicety.toml.5"])
@pytest.mark.skipif(shutil.which("mandoc") is None, reason="needs mandoc")
def test_mandoc_finds_nothing(pages: dict[str, str], name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(pages[name])
    done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", str(tmp_path / name)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_asks_the_program(shell: str) -> None:
    assert f"_NICETY_COMPLETE=complete_{shell}" in completion(shell)


def test_all_files_are_written_with_the_date_that_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    monkeypatch.setattr(sys, "argv", ["system_files", str(tmp_path)])
    assert main() == 0
    assert '"1" "1970-01-02"' in (tmp_path / "man/man1/nicety.1").read_text()
    assert {file.name for file in (tmp_path / "completion").iterdir()} == set(SHELLS.values())
