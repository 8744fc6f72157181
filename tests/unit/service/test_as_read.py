"""What of the configuration is not in force where psutil reads, and where the machine is not Linux."""

from __future__ import annotations

from pathlib import Path

import pytest

from nicety.scheduler.config.paths import Loaded
from nicety.scheduler.config.sections import ConfigError, parse
from nicety.scheduler.read import reader
from nicety.scheduler.service.settings import Settings, as_read

ALL = """
[daemon]
act = true
{reader}
[placement]
enabled = true
[quarantine]
action = "{action}"
[models]
retrain_hours = 12
[pools.jobs]
kind = "command"
command = ["true"]
"""


def test_where_proc_is_read_everything_is_in_force() -> None:
    config = parse(ALL.format(reader="", action="fence"))
    assert as_read(config) is config


@pytest.mark.parametrize(("action", "left"), [("flag", "flag"), ("demote", "flag"), ("fence", "flag"), ("recycle", "recycle")])
def test_where_psutil_reads_nothing_rests_on_waits_sockets_or_cgroups(action: str, left: str) -> None:
    config = as_read(parse(ALL.format(reader='reader = "psutil"', action=action)))
    assert [config.priority.enabled, config.placement.enabled, config.models.behaviour] == [False] * 3
    assert config.quarantine.action == left
    assert (config.daemon.act, list(config.pools), config.models.retrain_hours) == (True, ["jobs"], 12)


def test_a_machine_that_is_not_linux_is_only_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "LINUX", "another")
    config = as_read(parse(ALL.format(reader="", action="recycle")))
    assert (config.priority.enabled, config.daemon.act, config.pools, config.models.retrain_hours) == (False, False, {}, 0.0)


def test_the_reader_stays_until_the_next_start(tmp_path: Path) -> None:
    file = tmp_path / "nicety.toml"
    file.write_text('[daemon]\nreader = "psutil"\n')
    file.chmod(0o600)
    settings = Settings(Loaded(parse(file.read_text()), file), told_to_act=False)
    assert not settings.read_again().priority.enabled
    file.write_text("[priority]\nnice = 7\n")
    with pytest.raises(ConfigError, match=r"daemon\.reader: cannot change while running"):
        settings.read_again()
