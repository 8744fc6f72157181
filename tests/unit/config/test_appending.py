"""A block is appended: what stands in the file stays, and nothing is written that the parser does not read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nicety.scheduler.config import appending
from nicety.scheduler.config.appending import append_pool
from nicety.scheduler.config.paths import PathError, place_of_config
from nicety.scheduler.config.sections import Config, ConfigError, parse

BLOCK = '# found\n[pools.web]\nkind = "gunicorn"\npid = 40\n'
UID = os.geteuid()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "nicety.toml"


@pytest.mark.parametrize(
    ("text", "between"),
    [
        ("", ""),
        ("# mine\n[daemon] # kept\ninterval = 2.0\n", "\n"),
        ('[pools.jobs]\nkind = "executor"', "\n\n"),
        ("[daemon]\ninterval =\t2.0\n# the end\n\n", "\n"),
    ],
)
def test_what_stands_there_stays_letter_by_letter(file: Path, text: str, between: str) -> None:
    file.write_text(text)
    append_pool(file, "web", BLOCK, UID)
    assert file.read_text() == text + between + BLOCK
    assert parse(file.read_text()).pools["web"].pid == 40


def test_line_ends_are_those_of_the_file(file: Path) -> None:
    file.write_bytes(b"[daemon]\r\ninterval = 2.0\r\n")
    append_pool(file, "web", BLOCK, UID)
    assert file.read_bytes().count(b"\n") == file.read_bytes().count(b"\r\n") == 7


def test_a_file_is_made_with_its_folder_and_keeps_its_mode_later(tmp_path: Path) -> None:
    file = tmp_path / "new" / "nicety.toml"
    append_pool(file, "web", BLOCK, UID)
    assert (file.read_text(), file.stat().st_mode & 0o777) == (BLOCK, 0o644)
    file.chmod(0o640)
    append_pool(file, "other", BLOCK.replace("web", "other"), UID)
    assert file.stat().st_mode & 0o777 == 0o640
    assert [*parse(file.read_text()).pools] == ["web", "other"]
    assert [path.name for path in file.parent.iterdir()] == ["nicety.toml"]


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    file.symlink_to("real.toml")
    (tmp_path / "real.toml").write_text("# mine\n")
    append_pool(file, "web", BLOCK, UID)
    assert file.is_symlink()
    assert (tmp_path / "real.toml").read_text() == f"# mine\n\n{BLOCK}"


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (BLOCK, PathError, r"has \[pools.web\] already"),
        ('[groups.web]\nprogram = "a"\n', ConfigError, "a pool has this name already"),
        ('pools = { jobs = { kind = "executor" } }\n', ConfigError, "cannot take the block at its end"),
        ("[daemon]\nintervall = 2\n", ConfigError, "unknown key"),
        ("[daemon\n", ConfigError, "not valid TOML"),
        ('x = """\n', ConfigError, "not valid TOML"),
    ],
)
def test_a_file_that_cannot_take_the_block_is_not_written(file: Path, text: str, error: type[Exception], said: str) -> None:
    file.write_text(text)
    with pytest.raises(error, match=said):
        append_pool(file, "web", BLOCK, UID)
    assert file.read_text() == text
    assert [path.name for path in file.parent.iterdir()] == ["nicety.toml"]


def test_a_block_that_is_more_than_its_pool_is_not_written(file: Path) -> None:
    file.write_text("# mine\n")
    with pytest.raises(PathError, match="would mean something else"):
        append_pool(file, "web", f"{BLOCK}[daemon]\nact = true\n", UID)
    assert file.read_text() == "# mine\n"


def test_a_file_that_was_changed_meanwhile_is_not_replaced(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("# mine\n")

    def changed(text: str, *_: object) -> Config:
        file.write_text("# an editor's\n")
        return parse(text)

    monkeypatch.setattr(appending, "parse", changed)
    with pytest.raises(PathError, match="was changed meanwhile"):
        append_pool(file, "web", BLOCK, UID)
    assert file.read_text() == "# an editor's\n"
    assert [path.name for path in file.parent.iterdir()] == ["nicety.toml"]


def test_a_new_file_is_where_it_is_read(tmp_path: Path) -> None:
    assert place_of_config(None, {"XDG_CONFIG_HOME": str(tmp_path)}, 1000) == tmp_path / "nicety" / "nicety.toml"
    assert place_of_config("a.toml", {}, 0) == Path("a.toml")
