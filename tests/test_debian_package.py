"""debian/ is in step with the rest: the version, the units, what a purge removes, and what the package says that it needs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import nicety

ROOT = Path(__file__).parents[1]
DEBIAN = ROOT / "debian"
UNITS = sorted(path for kind in ("service", "socket") for path in (ROOT / "configs").glob(f"*.{kind}"))
RULES = (DEBIAN / "rules").read_text()
WHERE = {"StateDirectory": "/var/lib", "CacheDirectory": "/var/cache", "RuntimeDirectory": "/run", "ConfigurationDirectory": "/etc"}
"""Directories that systemd makes for a unit, by the setting: systemd.exec(5)."""


def settings(unit: Path, name: str) -> list[str]:
    """Every value of a setting in a unit."""
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


def script(name: str) -> str:
    return (DEBIAN / f"nicety.{name}").read_text()


def test_the_version_is_that_of_the_program() -> None:
    latest = re.match(r"nicety \((\S+)\) ", (DEBIAN / "changelog").read_text())
    assert latest
    assert latest[1] == nicety.__version__


def test_it_needs_the_python_that_the_units_and_the_pins_are_for() -> None:
    lowest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    control = (DEBIAN / "control").read_text()
    assert control.count(f"python3 (>= {lowest})") == 2
    assert f"PYTHON := /usr/bin/python{lowest}\n" in RULES


def test_every_unit_is_installed_with_the_path_of_the_package() -> None:
    assert "for unit in configs/*.service configs/*.socket; do" in RULES
    (replaced,) = re.findall(r"sed 's\|(\S+)\|(\S+)\|' \$\$unit", RULES)
    assert replaced == ("/usr/local/bin/nicety", "/usr/bin/nicety")
    for unit in UNITS:
        for command in settings(unit, "ExecStart") + settings(unit, "ExecStopPost"):
            assert command.lstrip("-").startswith(f"{replaced[0]} "), unit.name


def test_each_service_is_stopped_when_the_package_is_removed_and_started_by_it_or_by_its_administrator() -> None:
    scripts, started = script("prerm") + script("postinst"), re.findall(r"dh_installsystemd .*", RULES)
    assert len(started) == 2
    for unit in UNITS:
        assert unit.name in scripts, unit.name
        if settings(unit, "WantedBy"):
            assert sum(unit.name in line.split() for line in started) == 1, unit.name


def test_a_purge_removes_what_the_units_write_and_nothing_else() -> None:
    written = {
        f"{where}/{value.partition('/')[0]}" for unit in UNITS for name, where in WHERE.items() for value in settings(unit, name)
    }
    (removed,) = re.findall(r"rm -rf (.*)", script("postrm"))
    assert set(removed.split()) == written


def test_a_purge_removes_the_users_that_were_made_for_it() -> None:
    made = re.findall(r"^u (\S+)", (ROOT / "configs" / "nicety.sysusers").read_text(), re.MULTILINE)
    assert made
    (removed,) = re.findall(r"for user in (.*); do", script("postrm"))
    assert removed.split() == made


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_that_is_not_started_by_another_can_be_enabled(unit: Path) -> None:
    by_others = {"nicety-hands.service", "nicety-hands.socket"}
    assert bool(settings(unit, "WantedBy")) == (unit.name not in by_others)
