"""`nicety doctor`: everything that decides how much nicety can do here, with what is lost and what to type. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .config import Config, ConfigError
from .control_socket import ControlError, NoDaemonError, ask
from .explain import span
from .linux.facts import Finding, findings, probe
from .linux.text import printable
from .paths import Loaded, PathError, Paths, load_config, state_paths
from .store.files import StoreError, private_directory
from .store.ledger import Entry, Ledger, LedgerError, StateLock

RIVALS = {
    "tuned": "changes affinities and sysctls (systemctl disable --now tuned)",
    "ananicy": "renices by rules (systemctl disable --now ananicy)",
    "ananicy-cpp": "renices by rules (systemctl disable --now ananicy-cpp)",
    "gamemoded": "renices games and changes governors (systemctl --user disable --now gamemoded)",
    "system76-scheduler": "renices by rules (systemctl disable --now com.system76.Scheduler)",
    "uresourced": "changes cgroup weights (systemctl disable --now uresourced)",
    "irqbalance": "",
}
"""Programs that tune the same knobs, by process name (at most 15 letters of it are compared), with what they do. irqbalance moves
only interrupts: it is named, and no trouble."""


def examine(
    config: str | None, state_dir: str | None, environment: Mapping[str, str], uid: int, proc: Path = Path("/proc")
) -> list[Finding]:
    """All findings: the machine's, then those of this installation."""
    result = list(findings(probe(proc)))
    try:
        loaded = load_config(config, environment, uid)
        result.append(_configuration(loaded))
    except (ConfigError, PathError) as error:
        lines = error.problems if isinstance(error, ConfigError) else [str(error)]
        result += [
            Finding("configuration", False, line, "correct the file; until then the daemon does not start") for line in lines
        ]
        loaded = Loaded(Config(), None)
    try:
        paths = state_paths(loaded.config, state_dir, environment, uid)
    except PathError as error:
        return [*result, Finding("state directory", False, str(error), "")]
    result.append(_state(paths))
    result.append(_daemon(paths))
    result += _control_group(loaded.config, paths)
    result += _models(loaded.config, paths)
    result += rivals(proc)
    return result


def as_record(finding: Finding) -> dict[str, Any]:
    """For --json."""
    return asdict(finding)


def rivals(proc: Path) -> Iterator[Finding]:
    """Other programs that tune processes."""
    names = {name[:15]: name for name in RIVALS}
    found: dict[str, int] = {}
    for directory in sorted((entry for entry in proc.iterdir() if entry.name.isdigit()), key=lambda entry: int(entry.name)):
        try:
            comm = (directory / "comm").read_bytes().strip().decode("utf-8", "replace")
        except OSError:
            continue  # ended meanwhile
        if comm in names:
            found.setdefault(names[comm], int(directory.name))
    troublesome = {name: pid for name, pid in found.items() if RIVALS[name]}
    if not troublesome:
        told = f"none runs ({', '.join(sorted(found))} does, and moves only interrupts)" if found else "none runs"
        yield Finding("rival tuners", True, told, "")
    for name, pid in sorted(troublesome.items()):
        what, _, stop = RIVALS[name].partition(" (")
        lost = f"{name} (pid {pid}) {what}: what it changes is left alone by nicety from then on"
        yield Finding("rival tuners", False, lost, f"let one of the two do it: {stop.rstrip(')')}, or leave nicety observing")


def _configuration(loaded: Loaded) -> Finding:
    if loaded.path is None:
        return Finding("configuration", True, "no file, the defaults hold (no group has a class, no pool is known)", "")
    config = loaded.config
    told = f"{loaded.path}: {len(config.groups)} groups, {len(config.pools)} pools, {'acts' if config.daemon.act else 'observes'}"
    return Finding("configuration", True, printable(told), "")


def _state(paths: Paths) -> Finding:
    if not paths.root.exists():
        return Finding("state directory", True, f"{paths.root}: not there yet, made when first needed", "")
    try:
        private_directory(paths.root)
    except StoreError as error:
        return Finding("state directory", False, str(error), "or name another with --state-dir")
    return Finding("state directory", True, str(paths.root), "")


def _daemon(paths: Paths) -> Finding:
    try:
        answer = ask(paths.socket, "status", 2.0)
    except NoDaemonError:
        return _ledger(paths)
    except ControlError as error:
        return Finding("daemon", False, str(error), "")
    mode = printable(str(answer.get("mode", "?")))
    return Finding("daemon", True, f"running, {mode} mode, for {span(float(answer.get('seconds', 0)))}; see `nicety status`", "")


def outstanding(paths: Paths) -> tuple[Entry, ...]:
    """Changes that a dead daemon left in force, from its ledger. Raises StateBusyError while a daemon lives, LedgerError."""
    if not paths.ledger.exists():
        return ()
    with StateLock(paths.root):
        ledger = Ledger(paths.ledger, probe().boot_id)
        try:
            return ledger.outstanding()
        finally:
            ledger.close()


def _ledger(paths: Paths) -> Finding:
    """Without a daemon nothing must be left changed."""
    try:
        left = len(outstanding(paths))
    except LedgerError as error:
        return Finding("daemon", False, f"not running, and its ledger cannot be read: {error}", "nicety undo")
    if left:
        return Finding("daemon", False, f"not running, but {left} of its changes are still in force", "nicety undo")
    return Finding("daemon", True, "not running, nothing left changed", "")


def _control_group(config: Config, paths: Paths) -> Iterator[Finding]:
    if config.daemon.control_group and paths.socket.parent == paths.root:
        lost = f"members of {config.daemon.control_group} cannot reach {paths.socket}: the state directory is private"
        yield Finding("control group", False, lost, 'daemon.socket = "/run/nicety/control.sock"')


def _models(config: Config, paths: Paths) -> Iterator[Finding]:
    """No model is no trouble: the baselines speak. One that is there and cannot be used is."""
    from ..models.artifact import ArtifactError, load_live  # brings numpy, which `status` without a daemon does without

    for kind, wanted in (("demand", config.models.demand), ("anomaly", config.models.anomaly)):
        name = f"{kind} model"
        if not wanted:
            yield Finding(name, True, f"switched off (models.{kind}), the baseline speaks", "")
            continue
        try:
            artefact = load_live(paths.models, kind)
        except ArtifactError as error:
            yield Finding(name, False, f"cannot be used, so the baseline speaks: {error}", "nicety train")
            continue
        if artefact is None:
            yield Finding(name, True, "none yet, the baseline speaks; `nicety record` and `nicety train` make one", "")
        elif artefact.card.interval != config.daemon.interval:
            theirs, ours = f"{artefact.card.interval:g} s", f"{config.daemon.interval:g} s"
            lost = f"trained for {theirs} a tick, daemon.interval is {ours}: the baseline speaks"
            yield Finding(name, False, lost, f"record and train at {ours}, or set daemon.interval to {theirs}")
        else:
            yield Finding(name, True, artefact.digest[:12], "")
