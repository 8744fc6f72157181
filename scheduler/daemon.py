"""The daemon: runs the design's loop on the real system. Reads the clock and decides nothing.

One thread, one loop: a tick every `daemon.interval`; in between it looks at the pools, restores demotions that do harm, and
answers the control socket. A tick has stages; if one is slow, relief, socket and watchdog are served before the next one begins.
Signals only set flags. Each step is run by `Steps`: an exception is reported and counted, and the loop goes on; after
`daemon.max_failures` turns in a row in which something failed, everything is restored and the daemon gives up.
"""

from __future__ import annotations

import logging
import math
import os
import resource
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from .. import __version__
from ..models.anomaly.model import AnomalyModel
from ..models.artifact import Artifact, ArtifactError, load_live, shipped
from ..models.behaviour import BehaviourModel
from ..models.forecast.demand import Network
from ..models.records import Deadlock, Latency, PoolSample, ProcId, Snapshot
from .act.knobs.control import LinuxKernel
from .act.knobs.slices import LONGEST, SHORTEST, ask_for
from .act.scoped import Scoped, as_record, unable, words
from .act.undo import undo_from_ledger
from .config.paths import Loaded, PathError, Paths, read_config
from .config.sections import Config, ConfigError, PoolConfig, to_builtins
from .decide.engine import Engine, first_memory
from .decide.policies.contention import LATENCY_DEMAND
from .decision import Decision, Flag, Group, Lesson, Note, Outcome, Recalled, Recycle, Scope, Session, Set, Tick
from .explain.in_force import each, sum_up
from .explain.logstream import ERROR, NOTICE, WARNING, Forward, open_log
from .observe.deadlocks import Deadlocks
from .observe.measure import group_names
from .observe.observer import Observer
from .observe.unmatched import Watch
from .places import ProcessPlace
from .pools.build import build
from .ports import Clock, PoolAdapter
from .read import evidence
from .read.facts import probe
from .read.locks import LinuxLocks
from .read.proc import ProcSource
from .read.waits import LinuxWaits
from .scope import OBSERVE, ScopeError, act_on, acts, left, observe, resolve
from .service.budget import LEVELS, WINDOW_NS, Budget
from .service.clock import SystemClock
from .service.control_socket import ControlError, ControlSocket
from .service.ladder import Rest
from .service.notify import Notifier
from .service.own_cpu import stand_aside
from .service.own_priority import OwnPriority
from .service.recall import Past, recall
from .service.retraining import Retraining
from .service.steps import Fault, Steps
from .store.decisions import DecisionLog
from .store.files import StoreError, private_directory
from .store.ledger import LedgerError, StateLock
from .store.lessons import Lessons
from .store.pauses import Pauses
from .store.traces import TraceWriter
from .words import span

log = logging.getLogger("nicety")

ALOOF = ("gunicorn", "uwsgi", "celery")
"""Kinds of pools whose masters map semaphores only because these were made before the fork, and never post them."""

RECALL_SECONDS = 1.5
"""Longest time that a start reads past pool activity: 4.5 hours of 300 processes and 16 workers take 0.7 to 1.1 s."""

SLOW, SLOW_STANDING_BACK = 0.1, 0.25
"""Share of the interval for which the daemon may wait for a CPU, usually and while it stands back: its decisions and answers come
this much later."""

ATTEND_NS = 20_000_000
"""Time within a tick after which relief, socket and watchdog are served. Chosen: most ticks are over before that, and a client
does not notice such a wait."""

AGAIN_NS = 100_000_000
"""How long to wait before retrying a step that failed between two ticks. Chosen: a fault must not become a busy loop."""

NOT_IN_THIS_TURN = math.inf
"""Due time of something that need not be looked at before the next tick."""

READS_ONLY = frozenset({"status"})
"""What the socket answers during a tick. All else waits until it is over, because it changes what the tick uses."""

FIXED = ("state_dir", "socket", "control_group")
"""Keys of `[daemon]` that cannot change until the next start."""

MOST_LOOKS = 8
"""Maximum number of processes of which a snapshot is taken in a tick, at some milliseconds each."""


def run(
    loaded: Loaded,
    paths: Paths,
    *,
    act: bool | None,
    duration: float | None,
    things: Sequence[str] = (),
    act_seconds: float | None = None,
) -> int:
    """Run until SIGTERM, SIGINT or `duration` seconds are over. Returns the exit code: 1 if the daemon gave up, or if something
    failed while it ended.

    `act` overrides `daemon.act`, `things` override `daemon.act_on`; after `act_seconds` it observes. Raises StateBusyError if
    another nicety uses the state directory, and ConfigError, PathError, ScopeError, ControlError for what is wrong at the start;
    nothing has been changed then.
    """
    private_directory(paths.root)
    with StateLock(paths.root) as lock:
        daemon = Daemon(loaded, paths, lock, SystemClock(), act, things, act_seconds)
        try:
            code = daemon.run(duration)
        finally:
            sound = daemon.close()
        return code if sound else 1


class Daemon:
    """The running program. Made with the state directory locked; first restores what a dead daemon left changed."""

    def __init__(
        self,
        loaded: Loaded,
        paths: Paths,
        lock: StateLock,
        clock: Clock,
        act: bool | None,
        things: Sequence[str] = (),
        act_seconds: float | None = None,
    ) -> None:
        config = loaded.config
        self._loaded, self._config, self._paths, self._clock = loaded, config, paths, clock
        self._told_to_act = act is not None  # by the caller: then `daemon.act` does not count
        self._stream = open_log(os.environ, sys.stderr.fileno())
        self._forward = Forward(self._stream)
        log.addHandler(self._forward)
        self._notifier = Notifier(os.environ, os.getpid())
        self._facts = probe()
        self._kernel = LinuxKernel()
        self._own_priority = OwnPriority()
        self._samples: dict[str, PoolSample] = {}
        self._started = clock.monotonic()
        self._stopping = self._reload_wanted = False
        self._paused_until: float | None = None  # monotonic ns; infinity: until resumed
        self._outcomes: tuple[Outcome, ...] = ()
        self._ticks = self._missed = 0
        self._steps = Steps(self._tell_fault)
        self._budget = Budget(config.daemon.budget)
        self._seen_deadlocks: tuple[Deadlock, ...] = ()
        self._probe_at: float = self._started  # monotonic ns
        self._relief_at: float = self._started
        self._attended = self._started
        self._last: Tick | None = None
        self._notes: tuple[Note, ...] = ()  # those that hold now
        self._demoted = False  # whether something is
        self._served: tuple[ProcId, ...] = ()  # processes of services that had work in the last tick
        self._troubles: dict[str, str] = {}
        self._closed = False
        self._recover(lock)
        self._pools = build(config, clock, state_dir=paths.root)
        self._actuator = Scoped(paths.ledger, self._kernel, LinuxLocks(), self._pools, self._samples, clock)
        scope = _configured(config) if act is None else OBSERVE
        if act:
            named = resolve(things or config.daemon.act_on, config.pools, config.groups, self._groups_now() if things else ())
            scope = act_on(OBSERVE, named, self._after(act_seconds))
        self._actuator.act_on(scope)
        self._source = ProcSource(slow_every=config.daemon.slow_every)
        self._deadlocks = Deadlocks(LinuxWaits())
        self._log = DecisionLog(paths.root, config.store.decision_bytes)
        self._lessons = Lessons(paths.root)
        self._taught: tuple[Lesson, ...] = ()
        self._unread = ""  # why the lessons cannot be read
        self._traces: TraceWriter | None = None
        where = () if loaded.path is None else ("--config", str(loaded.path.absolute()))
        self._retraining = Retraining(paths.models, (*where, "--state-dir", str(paths.root)))
        self._retraining.configure(config.models, self._started)
        self._pauses = Pauses(paths.root)
        self._begin(first_memory(self._pauses.read(self._started, clock.wall())), *self._recall())
        handlers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "status": self._status,
            "pause": self._pause,
            "resume": self._resume,
            "reload": self._reload_on_request,
            "undo": self._undo_on_request,
            "act": self._act_on_request,
            "observe": self._observe_on_request,
        }
        self._socket = ControlSocket(paths.socket, handlers, config.daemon.control_group, clock=clock)

    def run(self, duration: float | None = None) -> int:
        """The loop. Returns 0, or 1 if something failed in too many turns in a row."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._want_reload)
        steps = self._steps
        steps.run("own slice", _ask_for_the_shortest)  # a task that wakes beside it waits 0.1 ms instead of several
        if self._paths.said:
            self._event(WARNING, self._paths.said)
        steps.run("scope", partial(self._tell_scope, f"nicety {__version__} started, "))
        steps.run("own priority", self._own_priority.begin)
        due = self._clock.monotonic()
        end = math.inf if duration is None else due + duration * 1e9
        while True:
            self._wait(due)
            at = self._clock.monotonic()
            if self._stopping or at >= end:
                return 0
            steps.run("own place", self._make_way)
            steps.run("scope", partial(self._end_grants, at))
            if steps.stages(self._turn(at), self._attend):
                steps.run("troubles", self._report_troubles)
            steps.run("budget", self._keep_to_budget)
            steps.run("retraining", partial(self._retrain, at))
            steps.run("notifier", self._notifier.watchdog)
            steps.run("own slice", _ask_for_the_shortest)
            due = self._next(due)
            if steps.end_turn() >= self._config.daemon.max_failures:
                self._event(ERROR, "something failed in too many turns in a row; putting everything back and giving up")
                return 1

    def close(self) -> bool:
        """Restore everything (unless `daemon.undo_on_exit` is off), release the pools, close all files. Idempotent. A failure is
        reported and does not keep the rest from being closed; False: something failed."""
        if self._closed:
            return True
        self._closed = True
        self._steps.end_turn()
        undo, run = self._config.daemon.undo_on_exit, self._steps.run
        run("notifier", lambda: self._notifier.stopping("putting everything back" if undo else "stopping"))
        if undo:
            run("undo", lambda: self._finish(self._actuator.undo()))
        run("own priority", self._own_priority.give_back)
        for name, pool in self._pools.items():
            run(f"closing pool {name}", pool.close)
        run("closing retraining", self._retraining.close)
        run("pauses", lambda: self._pauses.write(self._engine.pauses, self._clock.monotonic(), self._clock.wall(), last=True))
        self._event(NOTICE, "nicety stopped", ticks=self._ticks, missed=self._missed)
        for what, files in (("socket", self._socket), ("decision log", self._log), ("traces", self._traces)):
            if files is not None:
                run(f"closing {what}", files.close)
        for what, rest in (("ledger", self._actuator), ("source", self._source), ("deadlocks", self._deadlocks)):
            run(f"closing {what}", rest.close)
        log.removeHandler(self._forward)
        return self._steps.end_turn() == 0

    # --- between two ticks -------------------------------------------------------------------------------------------------------

    def _wait(self, due: int) -> None:
        """Until `due`: reload, look at the pools, restore demotions that do harm, answer the socket."""
        self._probe_at = self._relief_at = self._clock.monotonic()
        while not self._stopping:
            self._reload_if_wanted()
            self._probe()
            self._relieve()
            self._serve(min(due, self._probe_at, self._relief_at))
            if self._clock.monotonic() >= due:
                return

    def _attend(self) -> None:
        """In a slow tick: do what must not wait until it is over."""
        if self._clock.monotonic() < self._attended + ATTEND_NS:
            return
        self._keep_up()
        self._relieve()
        self._steps.run("control socket", lambda: self._socket.serve(0, READS_ONLY))
        self._steps.run("notifier", self._notifier.watchdog)
        self._attended = self._clock.monotonic()

    def _probe(self) -> None:
        """Look at the pools, if it is time."""
        now = self._clock.monotonic()
        if now < self._probe_at:
            return
        for name, pool in self._pools.items():
            self._steps.run(f"probe of pool {name}", pool.probe)
        pause = round(self._config.daemon.probe_interval * 1e9) * self._budget.pace.probes
        self._probe_at = now + pause if self._pools else NOT_IN_THIS_TURN

    def _relieve(self) -> None:
        """Restore demotions that do harm, if it is time to look for them."""
        now = self._clock.monotonic()
        if now < self._relief_at:
            return
        self._relief_at = now + AGAIN_NS  # if it fails
        self._steps.run("relief", self._look_for_harm)
        self._keep_up()

    def _look_for_harm(self) -> None:
        pause = self._actuator.relieve(self._last.groups if self._last is not None else ())
        self._demoted = pause is not None
        self._relief_at = NOT_IN_THIS_TURN if pause is None else self._clock.monotonic() + round(pause * 1e9)

    def _keep_up(self) -> None:
        """Keep the share of a CPU that the ticks need, and no more than that beside a service."""
        now = self._clock.monotonic()
        self._steps.run("own priority", lambda: self._own_priority.follow(now, self._rest(), self._most_wait()))

    def _rest(self) -> Rest:
        """How far it stands back while its ticks are on time."""
        if self._demoted:
            return Rest.BACK
        return Rest.ASIDE if self._served else Rest.USUAL

    def _most_wait(self) -> int:
        """The longest that it may wait for a CPU in a tick, ns."""
        return round((SLOW_STANDING_BACK if self._own_priority.nice > 0 else SLOW) * self._config.daemon.interval * 1e9)

    def _serve(self, until: float) -> None:
        """Answer the socket until then, or until a request was answered."""
        seconds = max(0.0, until - self._clock.monotonic()) / 1e9
        if not self._steps.run("control socket", lambda: self._socket.serve(seconds)):
            again = self._clock.monotonic() + AGAIN_NS
            self._clock.sleep_until(again if again < until else int(until))

    def _reload_if_wanted(self) -> None:
        if self._reload_wanted:
            self._reload_wanted = False
            self._steps.run("reload", self._reload)

    def _make_way(self) -> None:
        """Before a tick that could delay a service: leave its CPU, and let it run first."""
        stand_aside(self._served)
        if self._own_priority.nice > 0:
            ask_for(LONGEST)  # its turn is far off, whatever it is owed: see `service/own_priority.py`

    # --- a tick ----------------------------------------------------------------------------------------------------------------

    def _next(self, due: int) -> int:
        """Monotonic ns of the tick after the one of `due`. Ticks that cannot be on time are skipped, not made up for."""
        step = round(self._config.daemon.interval * 1e9)
        now = self._clock.monotonic()
        took = max(0, now - due)
        ahead = max(took // step + 1, self._budget.pace.ticks)
        self._missed += ahead - self._budget.pace.ticks
        self._steps.run("own priority", lambda: self._own_priority.ticked(now, took, self._most_wait()))
        return due + step * ahead

    def _turn(self, at: int) -> Iterator[str]:
        """One turn of the loop. Yields the name of each stage before it begins."""
        self._attended = at
        yield "read"
        self._samples.update((name, pool.read()) for name, pool in sorted(self._pools.items()))
        snapshot = self._source.read(at, self._clock.wall(), tuple(self._samples.values()), self._attend)
        yield "record"
        if self._traces is not None:
            self._traces.append(snapshot)
        yield "observe"
        deadlocks, lessons = self._deadlocked(snapshot), self._learned()
        tick = self._observer.tick(snapshot, self._outcomes, self._is_paused(at), deadlocks, lessons)
        yield "decide"
        memory = self._engine.memory() if self._log.keyframe_due else None
        verdict = self._engine.step(tick)
        self._outcomes = ()  # they are reported
        self._pauses.write(self._engine.pauses, at, self._clock.wall())
        yield "act"
        looks = _looks(verdict.decisions)
        self._outcomes = self._actuator.settle()
        self._outcomes += self._actuator.apply(verdict.decisions)
        yield "log"
        self._log.append(tick, verdict, self._outcomes, memory, looks)
        notes = (*verdict.notes, *self._unmatched.notes(at, snapshot.identities))
        self._stream.tick(
            self._session.id, self._actuator.mode, tick, msgspec.structs.replace(verdict, notes=notes), self._outcomes
        )
        if not tick.gap:
            self._notes = notes
        self._last, self._served = tick, _services(tick.groups)
        self._ticks += 1

    def _deadlocked(self, snapshot: Snapshot) -> tuple[Deadlock, ...]:
        """Deadlocks, looked for if a policy would act on them; as last seen if the budget allows no look."""
        if not self._config.quarantine.enabled:
            return ()
        if self._ticks % self._budget.pace.deadlocks:
            return self._seen_deadlocks
        aloof = {name for name, pool in self._config.pools.items() if pool.kind in ALOOF}
        self._seen_deadlocks = self._deadlocks.turn(snapshot, aloof)
        return self._seen_deadlocks

    def _keep_to_budget(self) -> None:
        """Do deferrable work less often if this daemon costs more than it may, and as usual again once it costs little."""
        change = self._budget.used(self._clock.monotonic(), _own_cpu_ns())
        if change is None:
            return
        self._set_pace()
        used = f"used {change.share:.1%} of a CPU in {WINDOW_NS / 1e9:g} s"
        limit = f"daemon.budget ({self._budget.limit:.1%})"
        if change.up:
            self._event(WARNING, f"{used}, more than {limit}: from now on {LEVELS[change.level][1]}")
        else:
            self._event(NOTICE, f"{used}, well within {limit}: no longer {LEVELS[change.level + 1][1]}")

    def _set_pace(self) -> None:
        self._source.slow_every = self._config.daemon.slow_every * self._budget.pace.details

    def _learned(self) -> tuple[Lesson, ...]:
        """What people said was no incident; as last read if the file cannot be read."""
        try:
            self._taught, self._unread = self._lessons.read(), ""
        except StoreError as error:
            self._unread = str(error)
        return self._taught

    def _retrain(self, at: int) -> None:
        """Supervise the training in the background. Models that it promoted are put to use as in a reload: what does not depend on
        the old ones stays."""
        news = self._retraining.turn(at)
        for priority, text in news.said:
            self._event(priority, text)
        if news.promoted:
            self._go_on(self._engine.memory())
            self._event(NOTICE, "the promoted models are in use")

    def _finish(self, outcomes: tuple[Outcome, ...]) -> None:
        """Log what an undo outside a turn did, as a last tick of the session in which nothing is decided."""
        self._stream.undone(self._clock.wall(), self._session.id, outcomes)
        tick = self._observer.closing(self._clock.monotonic(), self._clock.wall(), self._outcomes)
        if tick is not None:
            self._log.append(tick, self._engine.step(tick), outcomes, None)
        self._outcomes = ()

    def _is_paused(self, at: int) -> bool:
        if self._paused_until is not None and at >= self._paused_until:
            self._paused_until = None
            self._event(NOTICE, "the pause is over")
        return self._paused_until is not None

    # --- sessions ----------------------------------------------------------------------------------------------------------------

    def _go_on(self, memory: dict[str, Any]) -> None:
        """Begin a new session after a reload, an undo, a training or a change of scope; what was learned is kept. After a change of
        the interval it cannot be, and only the rhythms of loads are read again."""
        before = self._session
        if before.config["daemon"]["interval"] != self._config.daemon.interval:
            self._begin(memory, *self._recall())
            return
        learned = self._observer
        self._begin(memory, [], None, before.id)
        self._observer.follow(learned)

    def _begin(self, memory: dict[str, Any], past: Past, recalled: Recalled | None, follows: str = "") -> None:
        """Begin a new session. `memory`: what the engine goes on from. The others: see `Session`, `past` being what is recalled."""
        config = self._config
        self._actuator.limit(config.priority.starve_seconds, config.priority.floor)
        demand, anomaly, behaviour = (self._model(kind) for kind in ("demand", "anomaly", "behaviour"))
        self._session = Session(
            id=secrets.token_hex(4),
            boot_id=self._facts.boot_id,
            wall=self._clock.wall(),
            version=__version__,
            mode=self._actuator.mode,
            scope=self._actuator.scope,
            own=self._kernel.itself(),
            abilities=self._facts.abilities,
            config=to_builtins(config),
            artefacts={
                "demand": demand.digest if demand else "",
                "anomaly": anomaly.digest if anomaly else "",
                "behaviour": behaviour.digest if behaviour else "",
            },
            engine=memory,
            recalled=recalled,
            follows=follows,
        )
        self._observer = Observer(
            config,
            self._session.abilities,
            self._session.own,
            Network(demand.arrays, demand.digest) if demand else None,
            AnomalyModel.from_arrays(anomaly.arrays, anomaly.digest, anomaly.card.interval) if anomaly else None,
            BehaviourModel.from_arrays(behaviour.arrays, behaviour.digest) if behaviour else None,
        )
        self._observer.recall(past)
        self._unmatched = Watch(config)
        self._engine = Engine.resume(config, self._session.id, memory, self._session.abilities.topology)
        self._log.begin(self._session)
        if self._traces is not None:
            self._traces.close()
        self._traces = None
        if config.store.traces:
            self._traces = TraceWriter(
                self._paths.root,
                boot_id=self._facts.boot_id,
                session=self._session.id,
                budget_bytes=config.store.trace_bytes,
                interval=config.daemon.interval,
            )

    def _recall(self) -> tuple[Past, Recalled | None]:
        """What the pools did in the newest hours, from the traces; nothing if there are no traces, or they cannot be read."""
        pools = len(self._config.pools)
        if not pools or not self._config.store.traces or not any(self._paths.traces.glob("*.db")):
            return [], None
        began = self._clock.monotonic()

        def in_time() -> bool:
            return self._clock.monotonic() - began < RECALL_SECONDS * 1e9

        try:
            past, recalled = recall(self._paths.traces, self._facts.boot_id, began, self._clock.wall(), pools, in_time)
        except StoreError as error:
            self._event(WARNING, f"rhythms of loads have to be learned again: {error}")
            return [], None
        if past:
            seconds, back = (self._clock.monotonic() - began) / 1e9, span((began - past[0][0]) / 1e9)
            text = f"loads of the last {back} are known from the traces, read in {seconds:.2g} s"
            self._event(NOTICE, text, ticks=recalled.ticks)
        return past, recalled

    def _model(self, kind: str) -> Artifact | None:
        """The promoted artefact if the configuration wants it and it fits, else the shipped one; None: neither can be used, and the
        baseline takes over."""
        if not getattr(self._config.models, kind):
            return None
        try:
            artefact = load_live(self._paths.models, kind)
        except ArtifactError as error:
            self._event(WARNING, f"promoted {kind} model not used: {error}")
            artefact = None
        if artefact is not None and kind != "behaviour" and artefact.card.interval != self._config.daemon.interval:
            self._event(
                WARNING,
                f"promoted {kind} model not used: it was trained at {artefact.card.interval:g} s a tick, the daemon runs at "
                f"{self._config.daemon.interval:g} s; record and train at this interval",
            )
            artefact = None
        try:
            artefact = artefact or shipped(kind)  # trained at many intervals, or on rates per second: it fits any
        except ArtifactError as error:
            self._event(WARNING, f"the {kind} model that nicety comes with cannot be used: {error}")
        if artefact is None:
            self._event(NOTICE, f"no {kind} model yet, the baseline speaks; `nicety train` makes one")
        return artefact

    def _recover(self, lock: StateLock) -> None:
        """Restore what a killed daemon left changed."""

        def adapters(names: tuple[str, ...]) -> dict[str, PoolAdapter]:
            pools = {name: pool for name, pool in self._config.pools.items() if name in names and pool.kind != "command"}
            return build(msgspec.structs.replace(self._config, pools=pools), self._clock, state_dir=self._paths.root)

        outcomes = undo_from_ledger(self._paths.root, self._clock, pools=adapters, lock=lock)
        if outcomes:
            self._event(WARNING, f"an earlier nicety did not put its changes back; {len(outcomes)} were looked at now")
            self._stream.undone(self._clock.wall(), "", outcomes)

    # --- requests ----------------------------------------------------------------------------------------------------------------

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _want_reload(self, _number: int, _frame: FrameType | None) -> None:
        self._reload_wanted = True

    def _reload(self) -> str:
        """Read configuration and models again. Returns why the old ones stay, "" if the new ones are in force.

        What was learned stays, except what is defined differently now, and so does what the engine remembers, with every change in
        force. Pools whose section did not change keep their adapter and their workers; those that are no longer configured get back
        the size that they had.
        """
        path = self._loaded.path
        self._notifier.reloading(self._clock.monotonic())
        try:
            config = read_config(path, os.geteuid()) if path is not None else Config()
            changed = [key for key in FIXED if _differ(config, self._config, key)]
            if changed:
                raise ConfigError([f"daemon.{key}: cannot change while running; restart nicety" for key in changed])
            rescoped = not self._told_to_act and _configured(config) != _configured(self._config)
            trouble = self._prepare(_configured(config)) if rescoped else ""
            if trouble:
                raise ConfigError([f"daemon.act: {trouble}"])
            made = build(config, self._clock, state_dir=self._paths.root)
        except (ConfigError, PathError) as error:
            self._event(ERROR, f"reload: the old configuration stays in force: {error}")
            self._notifier.ready(self._words())
            return str(error)
        kept = {name for name in config.pools if config.pools[name] == self._config.pools.get(name)}
        leaving = sorted(self._pools.keys() - kept)
        let_go = [name for name in leaving if _is_let_go(self._config.pools[name], config.pools.get(name))]
        outcomes = self._actuator.release(let_go)
        if outcomes:
            self._finish(outcomes)
        for name in leaving:
            self._pools.pop(name).close()
            self._samples.pop(name, None)
        self._pools.update((name, pool) for name, pool in made.items() if name not in kept)
        if config.store.decision_bytes != self._config.store.decision_bytes:
            self._log.limit(config.store.decision_bytes)
        self._config = config
        self._budget.limit = config.daemon.budget
        self._set_pace()
        self._retraining.configure(config.models, self._clock.monotonic())
        if rescoped:
            self._rescope(_configured(config))
        else:
            self._go_on(self._engine.memory())
        self._event(NOTICE, "reloaded")
        self._notifier.ready(self._words())
        return ""

    def _reload_on_request(self, _request: dict[str, Any]) -> dict[str, Any]:
        trouble = self._reload()
        if trouble:
            raise ControlError(f"the old configuration stays in force: {trouble}")
        return {}

    def _pause(self, request: dict[str, Any]) -> dict[str, Any]:
        seconds = _seconds_of(request)
        self._paused_until = float("inf") if seconds is None else self._clock.monotonic() + seconds * 1e9
        self._event(NOTICE, "paused" if seconds is None else f"paused for {seconds:g} s")
        return {}

    def _resume(self, _request: dict[str, Any]) -> dict[str, Any]:
        self._paused_until = None
        self._event(NOTICE, "resumed")
        return {}

    def _undo_on_request(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Restore everything and pause. The engine starts afresh: of what it remembers only the pauses of pairs still hold."""
        self._paused_until = float("inf")
        outcomes = self._actuator.undo()
        self._finish(outcomes)
        self._go_on(first_memory(self._engine.pauses.values()))
        return {"outcomes": msgspec.to_builtins(outcomes)}

    # --- what is acted on --------------------------------------------------------------------------------------------------------

    def _act_on_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Act on what is named in addition to what is acted on already; on everything if nothing is named."""
        seconds, named = _seconds_of(request), self._named(request)
        scope = act_on(self._actuator.scope, named, self._after(seconds))
        trouble = self._prepare(scope)
        if trouble:
            raise ControlError(trouble)
        self._rescope(scope)
        return self._scope_record()

    def _observe_on_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Observe what is named, everything if nothing is named. Changes in force there are restored."""
        outcomes = self._rescope(observe(self._actuator.scope, self._named(request)))
        return self._scope_record() | {"outcomes": msgspec.to_builtins(outcomes)}

    def _prepare(self, scope: Scope) -> str:
        """Why this scope cannot be acted on, "" if it can."""
        try:
            trouble = self._actuator.prepare(scope)
        except LedgerError as error:
            trouble = str(error)
        return f"cannot act: {trouble}" if trouble else ""

    def _named(self, request: dict[str, Any]) -> tuple[str, ...]:
        """The things that a request names."""
        given = request.get("things", [])
        if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
            raise ControlError("things are a list of names of policies, pools and groups")
        if not given:
            return ()
        try:
            return resolve(given, self._config.pools, self._config.groups, self._groups_now())
        except ScopeError as error:
            raise ControlError(str(error)) from None

    def _groups_now(self) -> set[str]:
        """Groups that have processes now, and those of the last tick."""
        source = ProcSource(slow_every=1)
        try:
            snapshot = source.read(self._clock.monotonic(), self._clock.wall(), tuple(self._samples.values()))
        finally:
            source.close()
        return group_names(self._config, snapshot) | {group.name for group in (self._last.groups if self._last else ())}

    def _after(self, seconds: float | None) -> int | None:
        return None if seconds is None else self._clock.monotonic() + round(seconds * 1e9)

    def _end_grants(self, now: int) -> None:
        """Observe what was granted only until now."""
        scope = left(self._actuator.scope, now)
        if scope != self._actuator.scope:
            self._event(NOTICE, "the time to act is over")
            self._rescope(scope)

    def _rescope(self, scope: Scope) -> tuple[Outcome, ...]:
        """Switch to another scope, in a session of its own: what leaves it is restored, what enters it is proposed again, and what
        stays in it stays in force."""
        before = self._actuator.scope
        self._actuator.act_on(scope)
        stays = [each.undone_by for each in self._engine.standing() if acts(before, each.about) and acts(scope, each.about)]
        outcomes = self._actuator.keep(held for held in stays if held is not None)
        self._finish(outcomes)
        self._engine.forget(lambda each: acts(scope, each.about) and not acts(before, each.about))
        self._go_on(self._engine.memory())
        self._tell_scope("now ")
        return outcomes

    def _words(self) -> str:
        return words(self._actuator.scope, self._clock.monotonic())

    def _scope_record(self) -> dict[str, Any]:
        now, wall = self._clock.monotonic(), self._clock.wall()
        scope = self._actuator.scope
        return {"mode": self._actuator.mode, "scope": words(scope, now), **as_record(scope, now, wall)}

    def _tell_scope(self, start: str) -> None:
        """Report what is acted on from now on, and before that what of it cannot be done."""
        cannot = unable(self._kernel) if self._actuator.scope.grants else ""
        if cannot:
            self._event(WARNING, cannot)
        scope = self._actuator.scope
        named = {"things": [grant.thing for grant in scope.grants], "spared": list(scope.spared)} if scope.grants else {}
        self._event(NOTICE, start + self._words(), mode=self._actuator.mode, **named)
        self._notifier.ready(self._words())

    def _status(self, request: dict[str, Any]) -> dict[str, Any]:
        """What the daemon does. With `full` also each change of each thread: those may be thousands."""
        now, wall, tick = self._clock.monotonic(), self._clock.wall(), self._last
        entries = self._actuator.outstanding()
        return {
            "version": __version__,
            **self._scope_record(),
            "cannot": unable(self._kernel) if self._actuator.scope.grants else "",
            "paused": self._is_paused(now),
            "running_seconds": (now - self._started) / 1e9,
            "session": self._session.id,
            "ticks": self._ticks,
            "missed_ticks": self._missed,
            "budget": {"share": self._budget.share, "limit": self._budget.limit, "reduced": self._budget.reduced},
            "own_nice": self._own_priority.nice,
            "faults": [msgspec.to_builtins(fault) for fault in self._steps.faults],
            "trace_ticks_dropped": self._traces.dropped if self._traces is not None else 0,
            "decision_ticks_dropped": self._log.dropped,
            "demand_model": self._session.artefacts["demand"][:12] or "baseline",
            "behaviour_model": self._session.artefacts["behaviour"][:12] or "none",
            "anomaly_model": self._session.artefacts["anomaly"][:12] or "baseline",
            "retraining": self._retraining.state(now),
            "own_cpu_seconds": _own_cpu_ns() / 1e9,
            "own_memory_bytes": _resident_bytes(),
            "notes": msgspec.to_builtins(self._notes),
            "pools": [
                {
                    "pool": pool.name,
                    "size": pool.size,
                    "requested": pool.requested,
                    "busy": pool.busy if pool.busy is not None else "unknown",
                    "queued": pool.queued if pool.queued is not None else "unknown",
                    "trouble": pool.trouble,
                }
                for pool in (tick.pools if tick else ())
            ],
            "groups": [
                {
                    "group": group.name,
                    "class": str(group.latency),
                    "processes": group.processes,
                    "cpu": group.cpu,
                    "wait": group.wait,
                    "memory_bytes": group.rss,
                    "p_latency": group.behaviour.p_latency if group.behaviour else None,
                    "p_batch": group.behaviour.p_batch if group.behaviour else None,
                }
                for group in (tick.groups if tick else ())
            ],
            "changes": [
                {**change, "since_seconds": max(0.0, (wall - change["since_wall"]) / 1e9)}
                for change in sum_up(entries, self._engine.made_for())
            ],
            **({"changes_in_force": each(entries)} if request.get("full") else {}),
        }

    # --- reports -----------------------------------------------------------------------------------------------------------------

    def _event(self, priority: int, text: str, **fields: Any) -> None:
        self._stream.event(self._clock.wall(), priority, text, **fields)

    def _tell_fault(self, fault: Fault, traceback: str) -> None:
        often = "" if fault.times == 1 else f", {fault.times} times by now"
        row = f"turn {self._steps.failures + 1} of at most {self._config.daemon.max_failures} in a row"
        self._event(ERROR, f"{fault.step} failed ({row}){often}: {fault.error}", place=fault.place, traceback=traceback)

    def _report_troubles(self) -> None:
        """Report once when a store starts to lose ticks or the demand model fails, and when it recovers; and for what the demand
        model is no longer used, or used again."""
        troubles = {
            "traces": self._traces.last_error if self._traces is not None else "",
            "decision log": self._log.last_error,
            "demand model": self._observer.trouble,
            "ledger": self._actuator.trouble,
            "deadlocks": self._deadlocks.trouble,
            "lessons": self._unread,
            "pauses": self._pauses.trouble,
            "own priority": self._own_priority.trouble,
            "budget": self._budget.trouble,
        }
        if self._log.set_aside is not None:
            aside, self._log.set_aside = self._log.set_aside, None
            self._event(
                WARNING, f"decision log: the one that was there cannot be used, and is kept as {aside}; a new one was begun"
            )
        for name, error in troubles.items():
            if error and not self._troubles.get(name):
                self._event(WARNING, f"{name}: {error}")
            elif not error and self._troubles.get(name):
                self._event(NOTICE, f"{name}: well again")
        self._troubles = troubles
        for sentence in self._observer.changes:
            self._event(WARNING, sentence)


def _looks(decisions: Sequence[Decision]) -> dict[str, tuple[evidence.Evidence, ...]]:
    """Snapshots, by decision, of the processes that an incident is about, taken before they are changed. One per process."""
    taken: dict[ProcId, evidence.Evidence | None] = {}
    found: dict[str, tuple[evidence.Evidence, ...]] = {}
    for decision in decisions:
        action = decision.action
        if isinstance(action, Flag):
            about: tuple[ProcId, ...] = () if action.over else (action.worker, *action.others)
        elif decision.policy == "quarantine" and isinstance(action, Recycle):
            about = (action.worker,)
        elif decision.policy == "quarantine" and isinstance(action, Set) and isinstance(action.on, ProcessPlace):
            about = (action.on.id,)
        else:
            continue
        for process in about:
            if process not in taken and len(taken) < MOST_LOOKS:
                taken[process] = evidence.look(process)
        looks = tuple(look for process in about if (look := taken.get(process)) is not None)
        if looks:
            found[decision.id] = looks
    return found


def _services(groups: Sequence[Group]) -> tuple[ProcId, ...]:
    """Processes of latency groups that have work, those of the group with most demand first: the daemon makes way for them."""
    working = [group for group in groups if group.latency is Latency.LATENCY and group.demand >= LATENCY_DEMAND]
    return tuple(member.id for group in sorted(working, key=lambda group: -group.demand) for member in group.members)


def _is_let_go(before: PoolConfig, now: PoolConfig | None) -> bool:
    """Whether to release a pool: not if both sections are about one that runs on. A command's workers end with its adapter."""
    if now is None or before.kind == "command":
        return True
    return msgspec.structs.replace(now, minimum=before.minimum, maximum=before.maximum, latency=before.latency) != before


def _configured(config: Config) -> Scope:
    """The scope that the configuration gives."""
    if not config.daemon.act:
        return OBSERVE
    return act_on(OBSERVE, resolve(config.daemon.act_on, config.pools, config.groups, ()), None)


def _seconds_of(request: dict[str, Any]) -> float | None:
    """The duration that a request gives, None if it gives none."""
    seconds = request.get("seconds")
    if seconds is None or (isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < 1e9):
        return seconds
    raise ControlError(f"{seconds!r} is not a length of time in seconds")


def _ask_for_the_shortest() -> None:
    ask_for(SHORTEST)


def _differ(a: Config, b: Config, key: str) -> bool:
    return bool(getattr(a.daemon, key) != getattr(b.daemon, key))


def _own_cpu_ns() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return round((usage.ru_utime + usage.ru_stime) * 1e9)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
