"""The generated files are up to date, and what they show is true."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from nicety.scheduler.config import reference
from nicety.scheduler.config.sections import KINDS_OF, Config, GroupRule, PoolConfig, Queue, parse

ROOT = Path(__file__).parents[3]
AGAIN = "out of date; run `python -m nicety.scheduler.config.reference`"


def test_the_default_file_is_what_the_classes_make() -> None:
    assert (ROOT / "configs/default.toml").read_text() == reference.default_toml(), AGAIN


def test_the_configuration_page_is_what_the_classes_make() -> None:
    assert (ROOT / "docs/configuration.md").read_text() == reference.markdown(), AGAIN


def test_the_default_file_says_what_holds_without_it() -> None:
    assert parse(reference.default_toml()) == Config()


def test_every_key_is_described_in_both_files() -> None:
    classes: list[type[msgspec.Struct]] = [*(section for _, section in reference.sections()), GroupRule, PoolConfig, Queue]
    keys = [key for section in classes for key in reference.keys(section)]
    assert len(keys) > 50
    for key in keys:
        assert key.description.endswith("."), f"{key.name} has no sentence"
        assert f"{key.name} = " in reference.default_toml()
        assert f"| `{key.name}` |" in reference.markdown()


def test_no_section_of_the_configuration_is_left_out() -> None:
    shown = {name for name, _ in reference.sections()} | {"groups", "pools"}
    assert shown == {field.name for field in msgspec.structs.fields(Config)}


def test_the_commented_examples_of_the_default_file_work_when_uncommented() -> None:
    text = reference.default_toml()
    commented = text[text.index("# `[groups.NAME]`") :].splitlines()
    live = [line[2:] for line in commented if line.startswith("# [") or (" = " in line and not line.startswith("#   "))]
    others = {key for key, kinds in KINDS_OF.items() if "command" not in kinds}
    config = parse("\n".join(line for line in live if line.partition(" = ")[0] not in others))
    assert set(config.groups) == {"reports"}
    assert config.pools["resize"].queue is not None


@pytest.mark.parametrize("path", sorted((ROOT / "configs/examples").glob("*.toml")), ids=lambda path: path.name)
def test_each_example_is_a_valid_configuration(path: Path) -> None:
    assert parse(path.read_text(), path.name) != Config()


def test_there_are_examples() -> None:
    assert len(list((ROOT / "configs/examples").glob("*.toml"))) >= 3


def test_limits_are_shown_in_words() -> None:
    keys = {key.name: key for key in reference.keys(PoolConfig)}
    assert keys["minimum"].limits == "0 to 10000"
    assert keys["pid"].limits == "at least 2"
    assert keys["kind"].type == 'one of "gunicorn", "uwsgi", "celery", "executor", "command", "supervisord", "systemd"'
    assert keys["kind"].default is msgspec.NODEFAULT
