"""The runs of which golden logs are kept: every policy by itself, the demo, and a long mixed one.

    python tests/golden/golden_runs.py [NAME ...]
    python tests/golden/golden_runs.py --demo STATE_DIR

writes logs anew, when decisions are meant to change; say why in the commit. All but the demo run on the fake machine with fixed
seeds. The demo ran on a real machine: its ticks are kept too (`demo.ticks`), and `--demo` takes them from its state directory.
"""

from __future__ import annotations

import argparse
import lzma
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from nicety.scheduler.config.sections import Config, from_builtins, parse
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decision import (
    Decision,
    Digest,
    Flag,
    Recycle,
    ResizePool,
    Restore,
    Session,
    Set,
    Tick,
    Topology,
    Verdict,
    encode,
)
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import cgroup_of, process_of
from nicety.scheduler.store.decisions import DecisionReader
from nicety.scheduler.testing.machine import FakeHogs, FakeMachine, FakeService, FakeWorkers

HERE = Path(__file__).parent
TICKS = HERE / "demo.ticks"
SESSION = "901de400"


@dataclass
class Run:
    """A machine, what happens on it, and an engine that controls it."""

    machine: FakeMachine
    config: Config
    ticks: int
    events: dict[int, Callable[[FakeMachine], object]] = field(default_factory=dict)  # before these ticks
    topology: Topology = field(default_factory=Topology)
    resumed_every: int = 97  # ticks after which the engine is made anew from its memory, as after a reload

    def __iter__(self) -> Iterator[tuple[Tick, Verdict]]:
        """Tick by tick."""
        engine = Engine(self.config, SESSION, topology=self.topology)
        for seq in range(self.ticks):
            if seq in self.events:
                self.events[seq](self.machine)
            if seq and not seq % self.resumed_every:
                engine = Engine.resume(self.config, SESSION, engine.memory(), self.topology)
            tick = self.machine.tick()
            verdict = engine.step(tick)
            engine.validate()
            self.machine.apply(verdict.decisions)
            yield tick, verdict


def wave(low: float, high: float, period: float) -> Callable[[float], float]:
    """A load that comes and goes."""
    return lambda time: low + (high - low) * (0.5 - 0.5 * math.cos(2 * math.pi * time / period))


def bursts(idle: float, busy: float, period: float, share: float) -> Callable[[float], float]:
    """A load that is there for a share of each period."""
    return lambda time: busy if time % period < share * period else idle


EIGHT = Topology(
    tuple(range(8)), tuple(range(8)), (), ((0, 1), (2, 3), (4, 5), (6, 7)), ((0, 1, 2, 3), (4, 5, 6, 7)), (tuple(range(8)),)
)


def refuse(control: Control) -> Callable[[FakeMachine], object]:
    """From now on the kernel refuses this."""
    return lambda machine: machine.refusing.add(control)


def priority() -> Run:
    """A service beside hogs in another session: they come and go, somebody changes what was set, the kernel refuses."""
    hogs = FakeHogs(count=lambda time: 0 if 90 < time < 140 or time > 460 else 4)
    machine = FakeMachine(seed=1, service=FakeService(demand=wave(0.1, 0.7, 120)), hogs=hogs)
    events = {
        200: lambda machine: machine.change_by_hand("group hogs session 200"),
        300: refuse(Control.AUTOGROUP),
        380: refuse(Control.NICE),
    }
    return Run(machine, parse(""), 560, events)


def priority_cgroups() -> Run:
    """The same where cgroups separate them, and hogs are demoted one by one in one session."""
    hogs = FakeHogs(count=lambda time: int(wave(1, 6, 80)(time)), cgroup="/batch")
    machine = FakeMachine(seed=2, service=FakeService(cgroup="/web", demand=wave(0.2, 0.6, 70)), hogs=hogs)
    return Run(
        machine, parse("[priority]\nease_after = 20\n"), 300, {150: refuse(Control.CPU_SHARES), 220: refuse(Control.CPU_IDLE)}
    )


def priority_together() -> Run:
    """The same in one session."""
    hogs = FakeHogs(count=lambda time: int(bursts(0, 5, 60, 0.6)(time)), session=100)
    machine = FakeMachine(seed=3, service=FakeService(demand=wave(0.2, 0.6, 70)), hogs=hogs, autogroup=False, cpu_cgroup="")
    return Run(machine, parse(""), 300)


def pool_size() -> Run:
    """Pools whose load comes in waves, in bursts, and not at all; one with an oracle's forecasts would be the same."""
    pools = [
        FakeWorkers("waves", wave(1, 30, 200), maximum=12),
        FakeWorkers("bursts", bursts(0.5, 25, 90, 0.3), start_seconds=5, maximum=10),
        FakeWorkers("idle", lambda _: 0.05, minimum=0, maximum=4),
    ]
    return Run(FakeMachine(seed=4, pools=pools, cpus=8), parse(""), 500)


def pool_size_foreseen() -> Run:
    """Waves that are foreseen."""
    pools = [FakeWorkers("waves", wave(1, 30, 150), maximum=12, start_seconds=4)]
    return Run(FakeMachine(seed=5, pools=pools, cpus=8, foresee=True), parse("[pool_size]\ncooldown_down = 5\n"), 400)


def placement() -> Run:
    """Batch work that is kept off some of eight CPUs."""
    hogs = FakeHogs(count=lambda time: int(wave(2, 12, 100)(time)))
    machine = FakeMachine(seed=6, service=FakeService(demand=wave(0.5, 2.0, 60)), hogs=hogs, cpus=8)
    return Run(machine, parse("[placement]\nenabled = true\n"), 300, topology=EIGHT)


def quarantine(action: str) -> Run:
    """Workers that leak."""
    pools = [
        FakeWorkers("leaky", wave(5, 15, 100), sick_from=60, minimum=2, maximum=8),
        FakeWorkers("later", wave(5, 15, 130), sick_from=120, minimum=2, maximum=8),
    ]
    return Run(FakeMachine(seed=7, pools=pools, cpus=4), parse(f'[quarantine]\naction = "{action}"\n'), 400)


def quarantine_flag() -> Run:
    """They are reported."""
    return quarantine("flag")


def quarantine_demote() -> Run:
    """They are demoted."""
    return quarantine("demote")


def quarantine_recycle() -> Run:
    """They are replaced."""
    return quarantine("recycle")


def mixed() -> Run:
    """All of it, for an hour."""
    pools = [
        FakeWorkers("web", wave(2, 25, 600), maximum=10, sick_from=900, minimum=2),
        FakeWorkers("jobs", bursts(0, 12, 300, 0.4), maximum=8, start_seconds=6),
    ]
    hogs = FakeHogs(count=lambda time: int(wave(0, 8, 450)(time)) if time % 1000 > 200 else 0)
    machine = FakeMachine(seed=8, pools=pools, service=FakeService(demand=wave(0.05, 0.9, 240)), hogs=hogs, cpus=4)
    events = {1200: lambda machine: machine.change_by_hand("group hogs session 200"), 2000: refuse(Control.AUTOGROUP)}
    return Run(machine, parse("[placement]\nenabled = true\n"), 3600, events)


def demo() -> Iterator[tuple[Tick, Verdict]]:
    """The demo on a real machine, from the ticks that were kept of it."""
    session, *ticks = lzma.decompress(TICKS.read_bytes()).splitlines()
    kept = msgspec.json.decode(session, type=Session)
    engine = Engine(from_builtins(kept.config), SESSION, topology=kept.abilities.topology)
    for line in ticks:
        tick = msgspec.json.decode(line, type=Tick)
        verdict = engine.step(tick)
        engine.validate()
        yield tick, verdict


def keep_ticks(state: Path) -> None:
    """Keep the ticks of the demo whose state directory this is: those of its last session that decided something, without the names
    of the machine and of its directories."""
    with DecisionReader(state) as reader:
        sessions = {row.session for row in reader.find()}
        found = [session for session in reader.sessions() if session.id in sessions and session.session is not None]
        ticks = [encode(logged.tick) for logged in reader.ticks(found[-1].id) if logged.tick is not None]
        session = found[-1].session
        assert session is not None, "only those were taken"
        session = msgspec.structs.replace(session, boot_id="")
    kept = b"\n".join([encode(session), *ticks])
    for path, name in ((HERE.parents[1], b"/opt/nicety"), (state.resolve().parent, b"/tmp/demo")):
        kept = kept.replace(os.fsencode(path), name)
    TICKS.write_bytes(lzma.compress(kept, preset=9))


def log(verdicts: Iterable[tuple[Tick, Verdict]]) -> Iterator[str]:
    """A line for everything that was decided, refused, measured or noted. Its last word stands for all the rest of it."""
    for tick, verdict in verdicts:
        for decision in verdict.decisions:
            yield _line(tick, decision.policy, decision.why.rule, decision.target, decision.why.text, rest=_figures(decision))
        for refusal in verdict.refusals:
            yield _line(tick, "guard", refusal.rule, refusal.decision.target, refusal.text, rest=_figures(refusal.decision))
        for effect in verdict.effects:
            rest = [effect.before, effect.after, effect.ticks, effect.others]
            yield _line(tick, "effect", effect.verdict, effect.decision, effect.metric, rest=rest)
        for note in verdict.notes:
            yield _line(tick, "note", note.topic, note.text, rest=note.figures)


def _figures(decision: Decision) -> list[object]:
    """What is not in the words of a decision's line, in an order of our own: the log outlives another layout of the records."""
    why, action = decision.why, decision.action
    done: list[object] = []
    match action:
        case Set():
            place = [process_of(action.on), cgroup_of(action.on) or ""]
            done = ["set", action.control, *place, action.value, action.expected]
        case Restore():
            done = ["restore", action.control, process_of(action.on), cgroup_of(action.on) or ""]
        case ResizePool():
            done = ["resize", action.pool, action.size]
        case Recycle():
            done = ["recycle", action.pool, action.worker]
        case Flag():
            done = ["flag", action.pool, action.worker, action.kind, action.others, action.incident, action.over]
        case Digest():
            done = ["digest", action.incidents]
    return [decision.id, decision.policy, why.rule, *done, why.figures, why.rejected, why.flips]


def _line(tick: Tick, *words: str, rest: object) -> str:
    return f"{tick.seq} {' | '.join(words)} | {zlib.crc32(encode(_rounded(msgspec.to_builtins(rest)))):08x}"


def _rounded(value: object) -> object:
    """Figures to nine digits: the last bit of a logarithm is the processor's."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value


def golden(name: str) -> Path:
    """Where the log of a run is kept."""
    return HERE / f"{name}.log"


RUNS: dict[str, Callable[[], Iterable[tuple[Tick, Verdict]]]] = {
    run.__name__: run
    for run in (
        *(priority, priority_cgroups, priority_together, pool_size, pool_size_foreseen, placement),
        *(quarantine_flag, quarantine_demote, quarantine_recycle, mixed, demo),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", metavar="NAME", help=f"default: all of {', '.join(sorted(RUNS))}")
    parser.add_argument("--demo", type=Path, metavar="STATE_DIR", help="take the ticks of the demo from here")
    asked = parser.parse_args()
    for name in asked.name:
        if name not in RUNS:
            parser.error(f"there is no run {name}; there are {', '.join(sorted(RUNS))}")
    if asked.demo is not None:
        keep_ticks(asked.demo)
    for name in asked.name or sorted(RUNS):
        lines = [*log(RUNS[name]())]
        golden(name).write_text("".join(f"{line}\n" for line in lines))
        print(f"{name}: {len(lines)} lines")


if __name__ == "__main__":
    main()
