"""`nicety doctor`: what decides how much nicety can do here, what is missing, and what to type. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..config.paths import Loaded, PathError, Paths, load_config, state_paths
from ..config.sections import Config, ConfigError
from ..hands.clock import SystemClock
from ..hands.kernel import Clock
from ..hands.knobs.cgroup import find
from ..hands.knobs.fence import Offer, Version, offers
from ..hands.ledger import LedgerError
from ..hands.owner import as_owner
from ..hands.places import Control
from ..hands.safe_files import StoreError, private_directory
from ..observe.rivals import RIVALS, reaches_others, rival
from ..observe.unmatched import unmatched
from ..pools.finding.search import everything, machine
from ..pools.sensing.pidfile import STARTED, named
from ..pools.sensing.signals import ProcessHandle
from ..printed import Printed
from ..read.facts import Finding, findings, probe
from ..read.host import MachineError
from ..read.process import see_all
from ..read.text import printable
from ..words import span
from .answers.control_socket import ControlError, NoDaemonError, ask
from .outstanding import outstanding

KERNEL_CONTROLS = tuple(control for control in Control if control is not Control.POOL_SIZE)
"""Controls that a rival may touch too. The size of a pool is not one: it belongs to the pool's master."""

LOOK_SECONDS = 0.5
"""Seconds for which the machine is observed. Chosen: fifty of the 10 ms steps in which the kernel counts busy time, and a short
wait."""

FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""Inode of the pid namespace that the kernel makes at boot: PROC_PID_INIT_INO, include/linux/proc_ns.h."""

LIMITED = {"cpu": "CPU", "pids": "processes", "memory": "memory"}
LOST = {
    "cpu": "spins and switch storms are not limited",
    "pids": "fork storms are limited only in CPU",
    "memory": "leaks are not limited",
}
"""What a fence limits with each controller, and the consequence if it cannot."""


class Examination(Printed, frozen=True, kw_only=True):
    """What `nicety doctor` found. Exit 3 if anything is not ok."""

    findings: list[Finding]


def examine(
    config: str | None, state_dir: str | None, environment: Mapping[str, str], uid: int, proc: Path = Path("/proc")
) -> list[Finding]:
    """All findings: the machine's, then those of this installation."""
    result = [*findings(probe(proc)), visibility(proc, SystemClock())]
    try:
        loaded = load_config(config, environment, uid)
        result.append(_configuration(loaded))
    except (ConfigError, PathError) as error:
        lines = error.problems if isinstance(error, ConfigError) else [str(error)]
        result += [
            Finding("configuration", False, line, "correct the file; the daemon does not start before that") for line in lines
        ]
        loaded = Loaded(Config(), None)
    try:
        paths = state_paths(loaded.config, state_dir, environment, uid)
    except PathError as error:
        return [*result, Finding("state directory", False, str(error), "")]
    result.append(_state(paths))
    result.append(_daemon(paths))
    result += _control_group(loaded.config, paths)
    result += _entries(loaded.config, proc)
    result += _found(loaded.config, environment, proc)
    result.append(_fences(loaded.config, proc))
    result.append(_tenants(loaded.config, uid))
    result += _models(loaded.config, paths)
    result += rivals(proc, uid)
    return result


def visibility(proc: Path, clock: Clock) -> Finding:
    """Whether all processes of this machine can be seen: from the pid namespace, and from its CPU use in `LOOK_SECONDS`."""
    from ...models.features import rates  # brings numpy
    from ..observe.machine import UNSEEN_LEAST, machine_use
    from ..read.proc import ProcSource

    name, source = "visibility", None
    try:
        source = ProcSource(proc)
        before = source.read(clock.monotonic(), clock.wall(), ())
        clock.sleep_until(before.at + round(LOOK_SECONDS * 1e9))
        now = source.read(clock.monotonic(), clock.wall(), ())
    except MachineError as error:
        return Finding(name, False, printable(str(error)), "")
    finally:
        if source is not None:
            source.close()
    cpus = len(now.host.cpu_busy_ns)
    rate = rates(before.table, now.table, before.at, now.at, before.uptime_ticks, cpus=cpus)
    use = machine_use(before, now, rate)
    unseen = max(use.busy - use.seen, 0.0)
    account = f"of {use.busy:.2f} cores in use now, {use.busy - unseen:.2f} are accounted for"
    if use.steal >= UNSEEN_LEAST * cpus:
        account += f"; {use.steal:.2f} more went to other guests of the host, and nothing here is demoted for that"
    if own_namespace(proc):
        lost = f"only processes of this pid namespace are seen: {account}. Nothing is demoted for what processes outside do"
        return Finding(name, False, lost, "run nicety outside of the container, or in the pid namespace of its host (--pid=host)")
    if unseen >= UNSEEN_LEAST * cpus:
        lost = f"{account}: the rest belongs to processes that {proc} hides, or to ended processes that no parent waited for"
        return Finding(name, False, lost, f"run as root, or mount {proc} without hidepid")
    return Finding(name, True, f"all processes of this machine are seen: {account}", "")


def own_namespace(proc: Path) -> bool:
    """Whether `proc` shows a pid namespace other than the machine's first; False if that cannot be known."""
    try:
        return (proc / "self/ns/pid").stat().st_ino != FIRST_PID_NAMESPACE
    except OSError:
        return False


def rivals(proc: Path, own_uid: int) -> Iterator[Finding]:
    """Other programs that tune processes: what they do, what nicety leaves to them, and how to stop one of the two.

    What a service manager sets (CPUWeight=, Nice=) is not a finding: its user chose that, and nicety respects it.
    """
    found: dict[str, tuple[int, int]] = {}  # name -> lowest pid, uid; one that reaches other users' processes comes first
    for seen in see_all(proc):
        name, uid = rival(seen.identity.program), seen.identity.uid
        if name is not None and (name not in found or (reaches_others(uid, own_uid) > reaches_others(found[name][1], own_uid))):
            found[name] = (seen.id.pid, uid)
    meet = {name: where for name, where in sorted(found.items()) if RIVALS[name].touches}
    harmless = [f"{name} {RIVALS[name].what}" for name in sorted(found) if name not in meet]
    for name, (pid, uid) in meet.items():
        one = RIVALS[name]
        theirs = _listed(one.touches)
        if not reaches_others(uid, own_uid):
            reach = f"{name} (pid {pid}, of uid {uid}) reaches only processes of its user: what it sets there is left alone"
            yield Finding("rival tuners", True, reach, "")
            continue
        left = _listed(control for control in KERNEL_CONTROLS if control not in one.touches)
        lost = f"{name} (pid {pid}) {one.what}: while it runs, nicety leaves {theirs} to it and uses only {left}"
        yield Finding("rival tuners", False, lost, f"use only one of the two: {one.stop}; or leave nicety observing")
    if not meet:
        none = f"none that changes what nicety changes ({'; '.join(harmless)})" if harmless else "none is running"
        yield Finding("rival tuners", True, none, "")


def _listed(controls: Iterable[Control]) -> str:
    names = sorted(controls)
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _configuration(loaded: Loaded) -> Finding:
    if loaded.path is None:
        return Finding("configuration", True, "no file, so the defaults are used (no class is pinned, no pool is sized)", "")
    config = loaded.config
    acts = f"acts on {', '.join(config.daemon.act_on) or 'everything'}" if config.daemon.act else "observes"
    summary = f"{loaded.path}: {len(config.groups)} groups, {len(config.pools)} pools, {acts}"
    return Finding("configuration", True, printable(summary), "")


def _state(paths: Paths) -> Finding:
    name, fix = "state directory", "or choose another with --state-dir"
    parts = list(dict.fromkeys((paths.hands, paths.stores)))
    if not os.path.lexists(paths.root):
        above = next(path for path in paths.root.parents if os.path.lexists(path))
        lost = _unwritable(above)
        if lost:
            return Finding(name, False, f"{paths.root} cannot be created: {lost}", f"create it, {fix}")
        return Finding(name, True, f"{paths.root}: not there yet, created when first needed", "")
    for part in parts:
        try:
            with as_owner(part):
                private_directory(part)
                lost = _unwritable(part)
        except StoreError as error:
            return Finding(name, False, str(error), fix)
        if lost:
            return Finding(name, False, lost, f"make it writable, {fix}")
    return Finding(name, True, " and ".join(map(str, parts)), "")


def _unwritable(directory: Path) -> str:
    """Why nothing can be written in a directory, "" if it can be."""
    if os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        return ""
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        return f"{directory} is on a read-only file system"
    return f"this user may not write {directory}"


def _daemon(paths: Paths) -> Finding:
    try:
        answer = ask(paths.socket, "status", 2.0)
    except NoDaemonError:
        return _ledger(paths)
    except ControlError as error:
        return Finding("daemon", False, str(error), "")
    mode = printable(str(answer.get("mode", "?")))
    return Finding("daemon", True, f"running, {mode} mode, for {span(answer['running_seconds'])}; see `nicety status`", "")


def _ledger(paths: Paths) -> Finding:
    """Whether nothing is left changed, while no daemon runs."""
    try:
        left = len(outstanding(paths))
    except LedgerError as error:
        return Finding("daemon", False, f"not running, and its ledger cannot be read: {error}", "nicety undo")
    if left:
        return Finding("daemon", False, f"not running, but {left} of its changes are still in force", "nicety undo")
    return Finding("daemon", True, "not running, nothing left changed", "")


def _control_group(config: Config, paths: Paths) -> Iterator[Finding]:
    if config.daemon.control_group and paths.socket.parent == paths.stores:
        lost = f"members of {config.daemon.control_group} cannot reach {paths.socket}: the state directory is private"
        yield Finding("control group", False, lost, 'daemon.socket = "/run/nicety/control.sock"')


def _entries(config: Config, proc: Path) -> Iterator[Finding]:
    """Groups and pools of the configuration that match nothing. A job that is not running is no trouble, a misspelt name is."""
    if not (config.groups or config.pools):
        return
    ends = len(config.groups)
    for group in unmatched(config, (seen.identity for seen in see_all(proc)) if config.groups else ()):
        ends -= 1
        fix = f"write {group.meant} in [groups.{group.group}]" if group.meant else ""
        yield Finding("groups", not fix, printable(group.text), printable(fix))
    if ends:
        yield Finding("groups", True, f"{ends} of {len(config.groups)} have processes", "")
    for name, pool in config.pools.items():
        if pool.kind in STARTED:
            yield _pool(name, named(proc, pool, None))


def _pool(name: str, found: tuple[ProcessHandle, str] | str | None) -> Finding:
    """Whether a pool's main process exists."""
    if isinstance(found, str):
        return Finding(
            "pools",
            False,
            printable(f"[pools.{name}]: {found}"),
            "start it, or correct the entry; the pool is not sized before that",
        )
    assert found is not None, "no earlier process was given to compare with"
    handle, source = found
    handle.close()
    return Finding("pools", True, printable(f"[pools.{name}]: {source}, pid {handle.id.pid}"), "")


def _found(config: Config, environment: Mapping[str, str], proc: Path) -> Iterator[Finding]:
    """Pools that run here and that the configuration does not have. That is no trouble: nobody has to have them sized."""
    for pool in everything(machine(proc), config, environment, proc):
        if pool.worth_a_line and not pool.configured:
            then = "cannot be sized, nicety pools says why" if pool.unsized else f"not sized: nicety pools adopt {pool.name}"
            yield Finding("pools found", True, printable(f"{pool.title}, {then}"), "")


def _tenants(config: Config, uid: int) -> Finding:
    """Whose processes may be demoted for whose."""
    tenants = config.tenants
    if uid != 0:
        return Finding("users", True, "only processes of this user are changed: nicety does not run as root", "")
    if not tenants.apart:
        return Finding("users", True, "one team: any user's processes may be demoted for any other's (tenants.apart)", "")
    lists = ((tenants.may_be_demoted, "may be demoted for anybody"), (tenants.may_be_helped, "are helped at anybody's expense"))
    said = [f"{', '.join(entries)} {what}" for entries, what in lists if entries]
    rule = "no process is demoted for another unprivileged user's; see docs/tenants.md"
    return Finding("users", True, printable("; ".join([rule, *said])), "")


def _fences(config: Config, proc: Path) -> Finding:
    """What a fence could limit here. It is a trouble if it cannot limit something only if fences of workers are configured: a swarm
    without a fence is reniced."""
    files = (proc / "self/mountinfo", proc / "self/cgroup")
    mounts, own = (file.read_text(errors="backslashreplace") if file.exists() else "" for file in files)
    found = offers(find(mounts), own)
    can = [f"{LIMITED[it.controller]} (cgroup {it.version}{_only(it)})" for it in found if not it.trouble]
    lost = [f"not {LIMITED[it.controller]}: {printable(it.trouble)}, so {LOST[it.controller]}" for it in found if it.trouble]
    weighs = ["a weight for a swarm inside one cgroup"] if any(it.controller == "cpu" and not it.trouble for it in found) else []
    possible = "; ".join(
        [f"limits of {', '.join(can)} for a worker that misbehaves" if can else "none can be made", *weighs, *lost],
    )
    if not (config.quarantine.enabled and config.quarantine.action == "fence"):
        return Finding("fences", True, f'{possible}; not used (quarantine.action = "fence" uses them)', "")
    fix = (
        "run as root, or have a cgroup delegated to this user; "
        "a controller that is nowhere was switched off when the kernel was built or booted"
    )
    return Finding("fences", not lost, possible, fix if lost else "")


def _only(offer: Offer) -> str:
    """Where the controller is available, if that is only one place on v2."""
    return ", right below its root only" if offer.version is Version.V2 and offer.controller == "memory" else ""


def _models(config: Config, paths: Paths) -> Iterator[Finding]:
    """Whether the live models can be used. Having none is no trouble: the shipped model or the baseline is used."""
    from ...models.artifact import ArtifactError, load_live, shipped  # brings numpy, which `status` without a daemon does without

    kinds = (
        ("demand", config.models.demand, "the baseline is used"),
        ("anomaly", config.models.anomaly, "the baseline is used"),
        ("behaviour", config.models.behaviour, "only classes of the configuration are known"),
    )
    for kind, wanted, without in kinds:
        name = f"{kind} model"
        if not wanted:
            yield Finding(name, True, f"switched off (models.{kind}): {without}", "")
            continue
        try:
            coming = shipped(kind)
        except ArtifactError as error:
            yield Finding(name, False, f"the shipped model cannot be used: {error}", "install nicety again")
            coming = None
        instead = without if coming is None else f"the shipped model is used ({coming.digest[:12]})"
        try:
            with as_owner(paths.stores):
                artefact = load_live(paths.models, kind)
        except ArtifactError as error:
            yield Finding(name, False, f"cannot be used, so {instead}: {error}", "nicety train")
            continue
        if artefact is None:
            yield Finding(name, True, f"none of your own yet, {instead}; `nicety record` and `nicety train` make one", "")
        elif kind != "behaviour" and artefact.card.interval != config.daemon.interval:  # behaviour is about rates per second
            theirs, ours = f"{artefact.card.interval:g} s", f"{config.daemon.interval:g} s"
            lost = f"trained with ticks of {theirs}, but daemon.interval is {ours}: {instead}"
            yield Finding(name, False, lost, f"record and train at {ours}, or set daemon.interval to {theirs}")
        else:
            yield Finding(name, True, artefact.digest[:12], "")
