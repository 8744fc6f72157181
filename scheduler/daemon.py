"""The daemon: runs the loop on the real system. Reads the clock and decides nothing.

One thread, one loop: a tick every `daemon.interval`. Between ticks it looks at the pools, restores demotions that do harm, and
answers the control socket. A tick has stages. If one is slow, relief, socket and watchdog are served before the next one begins.
Signals only set flags. `Steps` runs each step: it reports and counts an exception, and the loop goes on. After
`daemon.max_failures` ticks in a row with a failure, everything is restored and the daemon gives up.

What the steps do is in `service/`. This module defines their order.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import msgspec

from .. import __version__
from .act.hands_apart import HandsApart, reach_hands, start_hands
from .act.scoped import Scoped
from .act.sentries import sentries_of_this_process
from .act.undo import SENTRY_SECONDS, recover
from .config.paths import Loaded, PathError, Paths
from .config.runtime import frame_to_write
from .config.sections import Config
from .decide.engine import first_memory
from .explain.logstream import ERROR, NOTICE, WARNING
from .hands.clock import SystemClock
from .hands.guarding import Watchers
from .hands.kernel import Clock
from .hands.knobs.control import LinuxKernel
from .hands.ledger import StateLock
from .hands.limits import Bounds
from .hands.own import OwnHands
from .hands.safe_files import private_directory
from .pools.build import build
from .pools.sensing.acts import Ask
from .ports import Hands, PoolAdapter
from .read import door
from .read.facts import probe
from .read.locks import LinuxLocks
from .read.reader import on_linux, open_source
from .read.waits import LinuxWaits
from .service.answers.acting_on import ActingOn, Names
from .service.answers.control_socket import ControlSocket, group_id
from .service.answers.pause import Pause
from .service.answers.reloading import Reloading
from .service.answers.requests import READS_ONLY, Requests
from .service.answers.status import StatusAnswer
from .service.elsewhere import this_kernel
from .service.frame_file import FrameFile
from .service.framing import Framing
from .service.harm import AGAIN_NS, NOT_BEFORE_THE_NEXT_TICK, HarmWatch
from .service.incident_evidence import looks
from .service.last_known import KnownDeadlocks, KnownFeedback
from .service.latest import Latest
from .service.notify import Notifier
from .service.own.budget import Budget
from .service.own.cost import Helpers, keep_to_budget
from .service.own.place import OwnPlace, ask_for_the_shortest, services_at_work
from .service.own.rights import give_up
from .service.readings import Readings
from .service.replays import Replays
from .service.reports import Reports
from .service.retraining import Retraining
from .service.sessions import Sessions
from .service.settings import Settings
from .service.signals import Signals
from .service.steps import Fault, Steps
from .store.forecasts import ForecastStore
from .store.pauses import Pauses

ATTEND_NS = 20_000_000
"""ns within a tick after which relief, socket and watchdog are served. Chosen: most ticks are shorter, and a client does not notice
such a wait."""


def run(
    loaded: Loaded,
    paths: Paths,
    *,
    act: bool | None,
    duration: float | None,
    things: Sequence[str] = (),
    act_seconds: float | None = None,
) -> int:
    """Run until SIGTERM, SIGINT or the end of `duration` (seconds; None: no end). Returns the exit code: 1 if the daemon gave up,
    or if something failed while it ended.

    `act` overrides `daemon.act`, `things` override `daemon.act_on`; after `act_seconds` the daemon only observes. Raises
    StateBusyError if another nicety uses the state directory, and ConfigError, PathError, ScopeError or ControlError if the daemon
    cannot start; nothing has been changed then.
    """
    private_directory(paths.stores)
    where = os.environ.get("NICETY_HANDS", "")
    if not where and (os.geteuid() != 0 or not on_linux()):  # an ordinary user has no rights that another process could hold
        with StateLock(paths.hands, SENTRY_SECONDS):
            hands = own_hands(loaded.config, paths)
            return _run(
                Daemon(loaded, paths, hands, sentries_of_this_process(paths.hands), SystemClock(), act, things, act_seconds),
                duration,
            )
    with StateLock(paths.stores) if where else nullcontext():  # hands that we start have the lock
        apart = reach_hands(where) if where else start_hands(paths.hands, loaded.path)
        try:
            door.through(apart.eyes())
            give_up()
            return _run(Daemon(loaded, paths, apart, apart.sentries, SystemClock(), act, things, act_seconds, apart), duration)
        finally:
            door.through(None)
            apart.close()


def _run(daemon: Daemon, duration: float | None) -> int:
    try:
        code = daemon.run(duration)
    finally:
        sound = daemon.close()
    return code if sound else 1


def own_hands(config: Config, paths: Paths) -> OwnHands:
    """Hands in this process, which must hold the lock of the state directory."""
    guard = config.guard
    bounds = Bounds(tuple(guard.protect), tuple(guard.users), guard.values_per_minute)
    return OwnHands(paths.hands, this_kernel(), SystemClock(), bounds)


class Daemon:
    """The running program. Nobody else may use the state directory. First restores what a dead daemon left changed. `hands` change
    what it decides, and `sentries` watch them. `apart`: the hands, if they do what this process has no rights for."""

    def __init__(
        self,
        loaded: Loaded,
        paths: Paths,
        hands: Hands,
        sentries: Watchers,
        clock: Clock,
        act: bool | None,
        things: Sequence[str] = (),
        act_seconds: float | None = None,
        apart: HandsApart | None = None,
    ) -> None:
        started = clock.monotonic()
        self._said, self._clock = paths.said, clock
        self._closed = False
        self._signals = Signals()
        self._settings = settings = Settings(loaded, told_to_act=act is not None)
        self._reports = reports = Reports(os.environ, sys.stderr.fileno(), clock)
        self._steps = Steps(self._report_fault)
        self._notifier = Notifier(os.environ, os.getpid())
        self._own_place = OwnPlace(settings, apart)
        self._budget = Budget(settings.config.daemon.budget)
        helpers = () if apart is None else tuple(apart.processes)
        self._helpers = Helpers(helpers)
        self._latest = Latest()
        self._pause = Pause(clock, reports)
        facts, kernel = probe(), this_kernel()
        if (lent := door.lent()) is not None:
            facts = facts.with_hands(lent)
        self._hands = hands
        self._ask = None if apart is None else apart.ask
        _recover(settings.config, paths, clock, hands, kernel, reports, self._ask)
        self._pools = Readings(build(settings.config, clock, state_dir=paths.stores, ask=self._ask))
        self._names = Names(settings, self._pools, self._latest, clock)
        self._actuator = Scoped(
            hands, kernel, LinuxLocks(), self._pools.adapters, self._pools.samples, clock, self._latest.program_of
        )
        self._sentries = sentries
        self._actuator.act_on(self._names.first_scope(act, things, act_seconds))
        self._source = open_source(settings.config.daemon.reader, slow_every=settings.config.daemon.slow_every)
        self._deadlocks = KnownDeadlocks(LinuxWaits(own=(os.getpid(), *helpers)), settings)
        self._feedback = KnownFeedback(paths.stores)
        where = _files(settings, paths)
        self._retraining = Retraining(paths.models, where, hands=apart)
        self._retraining.configure(settings.config.models, started)
        self._replays = Replays(paths.stores, where, hands=apart)
        self._replays.begin(settings.config, started, clock.wall())
        self._pauses = Pauses(paths.stores)
        memory = first_memory(self._pauses.read(started, clock.wall()))
        self._forecasts = ForecastStore(paths.stores)
        kept = self._forecasts.read(settings.config.daemon.interval)
        self._sessions = Sessions(settings, paths, facts, kernel, self._actuator, self._latest, clock, reports, memory, kept)
        self._acting_on = ActingOn(self._actuator, self._sessions, hands, self._notifier, clock, reports)
        self._begin_to_answer(paths, started)

    def _begin_to_answer(self, paths: Paths, started: int) -> None:
        """Open the socket, and create what answers there and acts between ticks."""
        settings, sessions, acting_on, actuator = self._settings, self._sessions, self._acting_on, self._actuator
        clock, reports, notifier, steps = self._clock, self._reports, self._notifier, self._steps
        budget, retraining, latest, pools = self._budget, self._retraining, self._latest, self._pools
        reloading = Reloading(
            paths.stores,
            settings,
            pools,
            actuator,
            sessions,
            acting_on,
            budget,
            retraining,
            self._replays,
            notifier,
            clock,
            reports,
            self._ask,
        )
        status = StatusAnswer(
            sessions,
            acting_on,
            actuator,
            self._sentries,
            latest,
            self._pause,
            budget,
            self._helpers,
            self._own_place,
            retraining,
            self._replays,
            steps,
            clock,
            started,
        )
        self._framing = Framing(
            _frame_file(settings.config, paths),
            sessions,
            acting_on,
            actuator,
            latest,
            self._pause,
            budget,
            self._helpers,
            reports,
            clock,
            started,
        )
        requests = Requests(self._pause, reloading, actuator, sessions, acting_on, self._names, clock, reports)
        handlers = {"status": status.answer, **requests.handlers()}
        self._socket = ControlSocket(paths.socket, handlers, settings.config.daemon.control_group, clock=clock)
        harm = HarmWatch(actuator, latest, clock)
        self._between = Between(
            steps,
            self._signals,
            settings,
            reloading,
            pools,
            harm,
            self._own_place,
            latest,
            budget,
            self._socket,
            notifier,
            clock,
        )

    def _begin(self) -> None:
        """Handle signals, and report what is about to run."""
        self._signals.listen()
        self._steps.run("own slice", ask_for_the_shortest)
        if self._said:
            self._reports.event(WARNING, self._said)
        self._steps.run("scope", partial(self._acting_on.announce, f"nicety {__version__} started, "))
        self._steps.run("own priority", self._own_place.priority.begin)

    def run(self, duration: float | None = None) -> int:
        """The loop. Returns 0, or 1 if something failed in too many ticks in a row."""
        self._begin()
        steps = self._steps
        due = self._clock.monotonic()
        end = math.inf if duration is None else due + duration * 1e9
        while True:
            self._between.wait(due)
            at = self._clock.monotonic()
            if self._signals.stop or at >= end:
                return 0
            steps.run("own place", lambda: self._own_place.make_way(self._latest.services))
            steps.run("scope", partial(self._acting_on.end_grants, at))
            steps.run("sentries", partial(self._keep_sentries, at))
            if steps.stages(self._tick(at), self._between.attend):
                steps.run("troubles", self._report_troubles)
            steps.run("budget", lambda: keep_to_budget(self._budget, self._helpers, self._clock, self._reports))
            steps.run("retraining", partial(self._retrain, at))
            steps.run("replays", partial(self._replay, at))
            steps.run("forecasts", partial(self._keep_forecasts, at))
            steps.run("notifier", self._notifier.watchdog)
            steps.run("own slice", ask_for_the_shortest)
            due = self._next(due)
            if self._hands.gone:
                text = f"the hands have ended ({self._hands.gone}); their sentries put everything back; giving up"
                self._reports.event(ERROR, text)
                return 1
            if steps.end_tick() >= self._settings.config.daemon.max_failures:
                text = "something failed in too many ticks in a row; putting everything back and giving up"
                self._reports.event(ERROR, text)
                return 1

    def _keep_forecasts(self, at: int, last: bool = False) -> None:
        """Write what forecasts have learned, every few minutes and at the end."""
        sessions, store = self._sessions, self._forecasts
        if last or store.due(at):
            store.write(sessions.observer.kept(), sessions.current.config["daemon"]["interval"], at)

    # --- a tick ------------------------------------------------------------------------------------------------------------------

    def _tick(self, at: int) -> Iterator[str]:
        """One tick. Yields the name of each stage before it begins."""
        latest, sessions, pace = self._latest, self._sessions, self._budget.pace
        self._between.begin_tick(at)
        yield "read"
        self._source.slow_every = self._settings.config.daemon.slow_every * pace.details
        samples = self._pools.read()
        snapshot = self._source.read(at, self._clock.wall(), samples, self._between.attend)
        latest.identities = snapshot.identities
        yield "record"
        if sessions.traces is not None:
            sessions.traces.append(snapshot)
        yield "observe"
        deadlocks, feedback = self._deadlocks.look(snapshot, latest.ticks, pace.deadlocks), self._feedback.read()
        chosen = self._replays.chosen
        tick = sessions.observer.tick(snapshot, latest.outcomes, self._pause.holds(at), deadlocks, feedback, chosen)
        yield "decide"
        memory = sessions.engine.memory() if sessions.log.keyframe_due else None
        verdict = sessions.engine.step(tick)
        latest.outcomes = ()  # this tick has reported them
        self._pauses.write(sessions.engine.pauses, at, self._clock.wall())
        yield "act"
        evidence = looks(verdict.decisions)
        latest.outcomes = self._actuator.settle()
        latest.outcomes += self._actuator.apply(verdict.decisions)
        yield "log"
        sessions.log.append(tick, verdict, latest.outcomes, memory, evidence)
        if sessions.traces is not None and not sessions.log.waiting:
            sessions.traces.flush()  # what each logged tick was made of can be looked at, also after a crash
        notes = (*verdict.notes, *sessions.unmatched.notes(at, snapshot.identities), *sessions.pools_found.notes(snapshot))
        reported = msgspec.structs.replace(verdict, notes=notes)
        self._reports.stream.tick(sessions.current.id, self._actuator.mode, tick, reported, latest.outcomes)
        if not tick.gap:
            latest.notes = notes
        latest.tick, latest.services = tick, services_at_work(tick.groups)
        latest.ticks += 1
        yield "frame"
        self._framing.write(tick, verdict, latest.outcomes)

    def _keep_sentries(self, at: int) -> None:
        """Have sentries before anything is changed, unless changes are meant to stay when the daemon ends."""
        if not self._settings.config.daemon.undo_on_exit:
            self._sentries.dismiss()
        elif self._actuator.has_acted:
            self._sentries.keep(at)

    def _next(self, due: int) -> int:
        """When the tick after that of `due` is due, monotonic ns. Ticks that cannot be on time are skipped, not made up for."""
        step = round(self._settings.config.daemon.interval * 1e9)
        now = self._clock.monotonic()
        took = max(0, now - due)
        ahead = max(took // step + 1, self._budget.pace.ticks)
        self._latest.missed += ahead - self._budget.pace.ticks
        self._steps.run("own priority", lambda: self._own_place.ticked(now, took))
        return due + step * ahead

    def _retrain(self, at: int) -> None:
        """Supervise the training in the background. If it promoted models, use them as after a reload: what does not depend on the
        old ones stays."""
        news = self._retraining.tick(at)
        for priority, text in news.said:
            self._reports.event(priority, text)
        if news.promoted:
            self._sessions.go_on(self._sessions.engine.memory())
            self._reports.event(NOTICE, "the promoted models are in use")

    def _replay(self, at: int) -> None:
        """Supervise the replays of the pools' loads in the background."""
        tick = self._latest.tick
        for priority, text in self._replays.tick(() if tick is None else tick.pools, at, self._clock.wall()):
            self._reports.event(priority, text)

    # --- reports -----------------------------------------------------------------------------------------------------------------

    def _report_fault(self, fault: Fault, traceback: str) -> None:
        self._reports.fault(fault, traceback, self._steps.failures + 1, self._settings.config.daemon.max_failures)

    def _report_troubles(self) -> None:
        """Report once when a store starts to lose ticks or the demand model fails, and once when it recovers. Also report the
        groups and pools for which the demand model is no longer used, or is used again."""
        sessions = self._sessions
        sessions.report_set_aside()
        self._reports.troubles(
            {
                "traces": sessions.traces.last_error if sessions.traces is not None else "",
                "decision log": sessions.log.last_error,
                "demand model": sessions.observer.trouble,
                "ledger": self._actuator.trouble,
                "sentries": self._sentries.trouble,
                "deadlocks": self._deadlocks.watch.trouble,
                "feedback": self._feedback.trouble,
                "replays": self._replays.trouble,
                "pauses": self._pauses.trouble,
                "kept forecasts": self._forecasts.trouble,
                "own priority": self._own_place.priority.trouble,
                "budget": self._budget.trouble,
                "frame": self._framing.trouble,
            }
        )
        for sentence in sessions.observer.changes:
            self._reports.event(WARNING, sentence)

    # --- stop ------------------------------------------------------------------------------------------------------------------

    def close(self) -> bool:
        """Restore everything (unless `daemon.undo_on_exit` is off), release the pools, close all files. Idempotent. A failure is
        reported, and the rest is closed all the same. False: something failed."""
        if self._closed:
            return True
        self._closed = True
        self._steps.end_tick()
        undo, run, sessions = self._settings.config.daemon.undo_on_exit, self._steps.run, self._sessions
        run("notifier", lambda: self._notifier.stopping("putting everything back" if undo else "stopping"))
        if undo:
            run("undo", lambda: sessions.finish(self._actuator.undo()))
        run("own priority", self._own_place.priority.give_back)
        for name, pool in self._pools.adapters.items():
            run(f"closing pool {name}", pool.close)
        run("closing retraining", self._retraining.close)
        run("closing replays", self._replays.close)
        run("pauses", lambda: self._pauses.write(sessions.engine.pauses, self._clock.monotonic(), self._clock.wall(), last=True))
        run("forecasts", lambda: self._keep_forecasts(self._clock.monotonic(), last=True))
        run("frame", self._framing.close)
        self._reports.event(NOTICE, "nicety stopped", ticks=self._latest.ticks, missed=self._latest.missed)
        for what, files in (("socket", self._socket), ("decision log", sessions.log), ("traces", sessions.traces)):
            if files is not None:
                run(f"closing {what}", files.close)
        for what, rest in (("ledger", self._actuator), ("source", self._source), ("deadlocks", self._deadlocks.watch)):
            run(f"closing {what}", rest.close)
        run("dismissing the sentries", self._sentries.dismiss)
        self._reports.close()
        return self._steps.end_tick() == 0


class Between:
    """What the daemon does between two ticks, and what a slow tick must not delay."""

    def __init__(
        self,
        steps: Steps,
        signals: Signals,
        settings: Settings,
        reloading: Reloading,
        pools: Readings,
        harm: HarmWatch,
        own_place: OwnPlace,
        latest: Latest,
        budget: Budget,
        socket: ControlSocket,
        notifier: Notifier,
        clock: Clock,
    ) -> None:
        self._steps, self._signals, self._settings, self._reloading = steps, signals, settings, reloading
        self._pools, self._harm, self._own_place, self._latest = pools, harm, own_place, latest
        self._budget, self._socket, self._notifier, self._clock = budget, socket, notifier, clock
        self._probe_at: float = clock.monotonic()  # when the pools are due, monotonic ns
        self._attended = clock.monotonic()  # when the things of `attend` were last served, monotonic ns

    def wait(self, due: int) -> None:
        """Until `due`, reload, look at the pools, restore demotions that do harm, and answer the socket."""
        self._probe_at = self._harm.due = self._clock.monotonic()
        while not self._signals.stop:
            self._reload_if_wanted()
            self._probe()
            self._relieve()
            self._serve(min(due, self._probe_at, self._harm.due))
            if self._clock.monotonic() >= due:
                return

    def begin_tick(self, at: int) -> None:
        """A tick begins at `at`, monotonic ns."""
        self._attended = at

    def attend(self) -> None:
        """Call often in a tick. If the tick is slow, serve what must not wait for its end."""
        if self._clock.monotonic() < self._attended + ATTEND_NS:
            return
        self._keep_up()
        self._relieve()
        self._steps.run("control socket", lambda: self._socket.serve(0, READS_ONLY))
        self._steps.run("notifier", self._notifier.watchdog)
        self._attended = self._clock.monotonic()

    def _reload_if_wanted(self) -> None:
        if self._signals.takes_reload():
            self._steps.run("reload", self._reloading.reload)

    def _probe(self) -> None:
        """Look at the pools, if this is due."""
        now = self._clock.monotonic()
        if now < self._probe_at:
            return
        pools = self._pools.adapters
        for name, pool in pools.items():
            self._steps.run(f"probe of pool {name}", pool.probe)
        pause = round(self._settings.config.daemon.probe_interval * 1e9) * self._budget.pace.probes
        self._probe_at = now + pause if pools else NOT_BEFORE_THE_NEXT_TICK

    def _relieve(self) -> None:
        """Restore demotions that do harm, if a check for them is due."""
        now = self._clock.monotonic()
        if now < self._harm.due:
            return
        self._steps.run("relief", partial(self._harm.look, now))
        self._keep_up()

    def _keep_up(self) -> None:
        """Keep the share of a CPU that the ticks need, and beside a service no more than that."""
        now, place, services = self._clock.monotonic(), self._own_place, self._latest.services
        self._steps.run("own priority", lambda: place.keep_up(now, demoted=self._harm.demoted, services=services))

    def _serve(self, until: float) -> None:
        """Answer the socket until `until` (monotonic ns), or until a request was answered."""
        seconds = max(0.0, until - self._clock.monotonic()) / 1e9
        if not self._steps.run("control socket", lambda: self._socket.serve(seconds)):
            again = self._clock.monotonic() + AGAIN_NS
            self._clock.sleep_until(again if again < until else int(until))


def _recover(
    config: Config, paths: Paths, clock: Clock, hands: Hands, kernel: LinuxKernel, reports: Reports, ask: Ask | None
) -> None:
    """Restore what a dead daemon left changed."""

    def adapters(names: tuple[str, ...]) -> dict[str, PoolAdapter]:
        pools = {name: pool for name, pool in config.pools.items() if name in names and pool.kind != "command"}
        return build(msgspec.structs.replace(config, pools=pools), clock, state_dir=paths.stores, ask=ask)

    outcomes = recover(hands, kernel, clock, adapters)
    if outcomes:
        reports.event(WARNING, f"an earlier nicety ended without undoing its changes; they are undone now: {len(outcomes)}")
        reports.stream.undone(clock.wall(), "", outcomes)


def _frame_file(config: Config, paths: Paths) -> FrameFile:
    """Where the frames go. Without a place for them there is a reason, and the daemon runs all the same."""
    group = group_id(config.daemon.control_group)
    mountinfo = Path("/proc/self/mountinfo")
    try:
        mounts = mountinfo.read_text(errors="surrogateescape") if on_linux() else ""
        return FrameFile(frame_to_write(config.daemon.frame, paths.root, os.environ, mounts), group)
    except (PathError, OSError) as error:
        return FrameFile(None, group, str(error))


def _files(settings: Settings, paths: Paths) -> tuple[str, ...]:
    """Where the files of this daemon are, for what runs beside it."""
    where = () if settings.path is None else ("--config", str(settings.path.absolute()))
    return (*where, "--state-dir", str(paths.root))
