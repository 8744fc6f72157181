"""The hands as a process of their own: they serve one brain over one socket, and put everything back when it is gone.

The brain is at the other end: nothing that it says is believed. It can ask for what `operations` names, within the
limits of `limits.py`, and in no other way reach the ledger or a knob. When the connection ends without "farewell", the brain has
died. The hands have sentries of their own: `sentry.py`.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence

from .clock import SystemClock
from .eyes import open_eyes
from .guarding import Guarding, Watchers, by_fork
from .knobs.control import LinuxKernel
from .ledger import LedgerError, StateBusyError, StateLock
from .lines import text_of, whole_of
from .memory import text
from .messages import list_of, name_of, order_of, size_of, status_of, subject_of, subject_record, words_of
from .own import OwnHands
from .places import Control, PoolPlace
from .pool_blocks import blocks_of
from .pools import Pools
from .reads import SMALL
from .saying import say
from .sentry import stay
from .settings import HandsSettings, SettingsError, read
from .undoing import AGAIN, TRIES, in_words, needs_no_more, pools_of
from .urgent import be_called, calm_down, hurry
from .wire import LONGEST_REQUEST, VERSION, Channel, GoneError, Operation, RefusedError, Result, answer

ORDERS = 4096
"""Most orders, subjects or entries in one request (chosen)."""

PATIENCE = 5.0
"""Seconds to wait while a sentry has the state directory (chosen: it takes less than one)."""

NAME = "nicety-hands"
"""What ps(1) and top(1) show."""

ENVIRONMENT = "NICETY_ENVIRONMENT"
"""Variable with the environment that workers of pools inherit, as JSON."""


class Server:
    """Serves one brain, of which nothing is touched but its own nice, and what it runs in the background. The caller must hold the
    lock of the state directory.

    `brain`: its pid, 0: not known; `pools`: what is done to pools; `proc_root`: what its eyes look at; `diagnosis`: see
    `reads.operations`.
    """

    def __init__(
        self,
        channel: Channel,
        hands: OwnHands,
        guarding: Watchers,
        settings: HandsSettings,
        brain: int = 0,
        pools: Pools | None = None,
        proc_root: str = "/proc",
        diagnosis: int = -1,
    ) -> None:
        self._channel = channel
        self._hands = hands
        self._guarding = guarding
        self._undo_on_exit = settings.undo_on_exit
        self._brain = self._watched(brain)
        hands.spare([brain])
        hands.before_each = channel.check
        self._pools = pools
        self._proc_root = proc_root
        self._diagnosis = diagnosis
        self._eyes: list[int] = []  # pids
        self._operations = {**self.operations(), **({} if pools is None else pools.operations())}
        self._greeted = self._parted = False

    def operations(self) -> dict[str, Operation]:
        """What a brain may ask for."""
        return {
            "hello": self._hello,
            "recover": self._recover,
            "open": self._open,
            "forbidden": self._forbidden,
            "change": self._change,
            "put back": self._put_back,
            "sweep": self._sweep,
            "undo": self._undo,
            "resize": self._resize,
            "settle": self._settle,
            "own nice": self._own_nice,
            "idle": self._idle,
            "eyes": self._give_eyes,
            "farewell": self._farewell,
        }

    def run(self) -> None:
        """Serve until the brain has ended. Then nothing of ours is in force, unless it ended well and changes are to stay."""
        try:
            while not self._parted:
                self.step()
        except GoneError:
            pass
        if not self._parted or self._undo_on_exit:
            hurry()
            self._put_all_back("ended" if self._parted else "died")
            calm_down()
        if self._pools is not None:
            self._pools.end()
        self._guarding.dismiss()
        self._hands.close()
        for pid in self._eyes:
            os.kill(pid, signal.SIGKILL)  # they may stand still
            os.waitpid(pid, 0)
        self._channel.close()  # last: descriptors of the brain may keep us

    def step(self) -> None:
        """Serve one request. Raises GoneError."""
        answer(self._channel, self._operations if self._greeted else {"hello": self._hello})

    # --- operations ------------------------------------------------------------------------------------------------------------

    def _hello(self, arguments: Sequence[object]) -> Result:
        if list(arguments) != [VERSION]:
            raise RefusedError(f"these hands speak version {VERSION} of the protocol")
        self._greeted = True
        return [os.getpid()], ()

    def _recover(self, arguments: Sequence[object]) -> Result:
        _none(arguments)
        try:
            notes, done = self._hands.recover()
        except LedgerError as error:
            return self._said({"trouble": str(error)})
        return self._said({"notes": notes, "done": done})

    def _open(self, arguments: Sequence[object]) -> Result:
        _none(arguments)
        try:
            notes = self._hands.open()
        except LedgerError as error:
            return self._said({"trouble": str(error)})
        if self._undo_on_exit:
            self._guarding.keep(SystemClock().monotonic())
        return self._said({"notes": notes})

    def _forbidden(self, arguments: Sequence[object]) -> Result:
        (control,) = arguments
        return self._hands.forbidden(Control(text_of(control))), ()

    def _change(self, arguments: Sequence[object]) -> Result:
        (orders,) = arguments
        asked = [order_of(record) for record in list_of(orders, ORDERS)]
        self._opened()
        return self._said({"done": self._hands.change(asked)})

    def _put_back(self, arguments: Sequence[object]) -> Result:
        (subjects,) = arguments
        asked = dict.fromkeys(map(subject_of, list_of(subjects, ORDERS)))
        self._opened()
        done = self._hands.put_back([subject for subject in asked if not isinstance(subject.on, PoolPlace)])
        return self._said({"done": [[subject_record(subject), each] for subject, each in done.items()]})

    def _sweep(self, arguments: Sequence[object]) -> Result:
        _none(arguments)
        self._opened()
        if self._undo_on_exit:
            self._guarding.keep(SystemClock().monotonic())
        return self._said({"done": self._hands.sweep()})

    def _undo(self, arguments: Sequence[object]) -> Result:
        (kept,) = arguments
        asked = frozenset(map(subject_of, list_of(kept, ORDERS)))
        self._opened()
        hurry()
        try:
            return self._said({"done": self._hands.undo(asked)})
        finally:
            calm_down()

    def _resize(self, arguments: Sequence[object]) -> Result:
        decision, target, place, first, old, new = arguments
        pool = subject_of(place).on
        if not isinstance(pool, PoolPlace):
            raise RefusedError("no size of a pool")
        pool = pool._replace(name=name_of(pool.name))
        names, sizes = (name_of(decision), words_of(target)), (size_of(first), size_of(old), size_of(new))
        self._opened()
        try:
            number = self._hands.resize(*names, pool, *sizes)
        except LedgerError as error:
            return self._said({"trouble": str(error)})
        return self._said({"number": number})

    def _settle(self, arguments: Sequence[object]) -> Result:
        (pairs,) = arguments
        statuses = dict(status_of(*list_of(pair, 2)) for pair in list_of(pairs, ORDERS))
        self._opened()
        self._hands.settle(statuses)
        return self._said({})

    def _own_nice(self, arguments: Sequence[object]) -> Result:
        """The one value that may be raised: the brain's own. Its workers and trainings do not inherit it."""
        asked, session = arguments
        nice = whole_of(asked)
        if not isinstance(session, bool) or not -20 <= nice <= 19 or not self._brain:
            raise RefusedError("no nice of a brain")
        self._channel.check()  # its number is not another's yet
        if not session:
            policy = os.sched_getscheduler(self._brain)
            if not policy & os.SCHED_RESET_ON_FORK:
                raise RefusedError("what the brain starts would inherit its nice")
            os.setpriority(os.PRIO_PROCESS, self._brain, nice)
        elif os.getsid(self._brain) == self._brain:
            with open(f"/proc/{self._brain}/autogroup", "wb", buffering=0) as file:
                file.write(b"%d" % nice)
        else:
            raise RefusedError("the brain does not lead its session: others are in it")
        return None, ()

    def _idle(self, arguments: Sequence[object]) -> Result:
        """[pid, start] of a child of the brain, of its user and in a session of its own: it runs only where nothing else wants a
        CPU. That is not undone."""
        pid, start = map(whole_of, arguments)
        self._channel.check()
        if not self._is_child(pid, start):
            raise RefusedError("no child of the brain, of its user and in a session of its own")
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, pid, 19)
        if not self._is_child(pid, start):  # it has ended, and somebody else may have its pid
            os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, pid, 0)
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        return None, ()

    def _is_child(self, pid: int, start: int) -> bool:
        fields = text(f"/proc/{pid}/stat", SMALL).rpartition(b")")[2].split()
        parent, session, started = (int(fields[at]) for at in (1, 3, 19))
        if not self._brain or (parent, session, started) != (self._brain, pid, start):
            return False
        return os.stat(f"/proc/{pid}").st_uid == os.stat(f"/proc/{self._brain}").st_uid

    def _give_eyes(self, arguments: Sequence[object]) -> Result:
        _none(arguments)
        if self._eyes:
            raise RefusedError("a brain has one pair of eyes")
        pid, descriptor = open_eyes(self._proc_root, self._diagnosis)
        self._eyes.append(pid)
        return pid, (descriptor,)

    def _farewell(self, arguments: Sequence[object]) -> Result:
        _none(arguments)
        self._parted = True
        return None, ()

    # --- below -----------------------------------------------------------------------------------------------------------------

    def _watched(self, brain: int) -> int:
        """Watch the brain, beside its socket: a child of it may have that too. Its pid; 0: there is no such process."""
        try:
            self._channel.watch(os.pidfd_open(brain))
        except (OSError, ValueError):
            return 0
        return brain

    def _opened(self) -> None:
        if not self._hands.is_open:
            raise RefusedError("the ledger is not open")

    def _said(self, result: dict[str, object]) -> Result:
        """A result, with what the brain needs to follow the ledger."""
        guards = [self._guarding.pid, self._guarding.trouble]
        return {**result, "news": self._hands.news(), "ledger": self._hands.trouble, "sentries": guards}, ()

    def _put_all_back(self, how: str) -> None:
        """Put everything back, and say so in the brain's log. `how`: what became of the brain."""
        if not self._hands.is_open:
            return
        for number in range(TRIES):
            done = self._hands.undo(())
            if done:
                say(4, f"the daemon {how}; {in_words('its hands', done)}")
            pools = pools_of(self._hands.book)
            if pools and not self._parted:
                say(4, f"the daemon died; pools keep their size ({', '.join(pools)}): `nicety undo` puts it back")
            if needs_no_more(done):
                return
            if number < TRIES - 1:
                time.sleep(AGAIN)


def _none(arguments: Sequence[object]) -> None:
    if arguments:
        raise RefusedError("no arguments are expected")


def sentries_of_hands(state_dir: str) -> Guarding:
    """The sentries of this process; none until `keep`."""
    return Guarding(by_fork(state_dir), "if the hands are killed, changes stay until `nicety undo`")


def configured_pools(config: str, state_dir: str, environ: Mapping[str, str]) -> Pools:
    """What is done to the pools of a configuration, which is read again on request. Raises SettingsError."""
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, os.pardir, "pools", "celery", "agent.py"), encoding="utf-8") as file:
        agent = file.read()
    logs = os.path.join(state_dir, "pools")
    return Pools(lambda: blocks_of(read(config).table), SystemClock(), environ=environ, logs=logs, agent=agent)


def refuse(sock: socket.socket, kind: str, text: str) -> None:
    """Tell a brain why it is not served."""
    channel = Channel(sock, LONGEST_REQUEST, 0)
    try:
        answer(channel, {"hello": lambda _: ([kind, text], ())})
    except GoneError:
        pass
    channel.close()


def main(arguments: Sequence[str]) -> int:
    """`serve STATE_DIR CONFIG`, started by a daemon that runs as root, with a socket as its stdin. CONFIG "": the defaults."""
    state_dir, config = arguments
    stay()
    sock = socket.socket(fileno=os.dup(0))
    devnull = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(devnull, 0)
    os.close(devnull)
    brain = os.getppid()
    os.setsid()
    be_called(NAME)
    try:
        settings = read(config)
        with StateLock(state_dir, PATIENCE, daemon=brain):
            hands = OwnHands(state_dir, LinuxKernel(), SystemClock(), settings.bounds)
            pools = configured_pools(config, state_dir, json.loads(os.environ.get(ENVIRONMENT, "{}")))
            Server(Channel(sock, LONGEST_REQUEST, 0), hands, sentries_of_hands(state_dir), settings, brain, pools).run()
    except StateBusyError as error:
        refuse(sock, "busy", str(error))
        return 1
    except (LedgerError, SettingsError) as error:
        refuse(sock, "trouble", str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
