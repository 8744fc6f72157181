"""`nicety hands`: the hands as a service of their own, which wait for brains at a socket that the service manager has opened.

One brain at a time is served. Who may connect is a matter of the socket (configs/nicety-hands.socket). What a dead pair left
changed is put back before the first one is served. SIGTERM ends the hands, and puts back what is in force.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping, Sequence

from .clock import SystemClock
from .knobs.control import LinuxKernel
from .ledger import LedgerError, StateLock
from .own import OwnHands
from .owner import HANDS, part_of
from .pools import Pools
from .saying import say
from .serve import NAME, PATIENCE, Server, configured_pools, sentries_of_hands
from .settings import HandsSettings, SettingsError, read
from .urgent import be_called
from .wire import LONGEST_REQUEST, Channel

FIRST_DESCRIPTOR = 3
"""Where a service manager passes the first socket: sd_listen_fds(3). A second one is of sock_diag in the network of the machine;
the hands of the unit are in another."""

STATE_DIR, CONFIG = "/var/lib/nicety", "/etc/nicety/nicety.toml"
"""Where the ledger and the configuration are, if nothing else is said."""

USAGE = "usage: nicety hands [--state-dir DIR] [--config FILE]; started by a service manager that passes a listening unix socket"

_UCRED = struct.Struct("3i")  # pid, uid and gid of a peer: unix(7), SO_PEERCRED


class _StoppedError(Exception):
    """SIGTERM came."""


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Serve until SIGTERM. Returns the exit code: 2 for a wrong call, 1 if the state directory or the configuration cannot be
    used."""
    options = {"--state-dir": environment.get("NICETY_STATE_DIR", STATE_DIR), "--config": environment.get("NICETY_CONFIG", "")}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name not in options or not (equals or rest):
            print(USAGE, file=sys.stderr)
            return 2
        options[name] = value if equals else rest.pop(0)
    passed = {"1": 1, "2": 2}.get(environment.get("LISTEN_FDS", ""), 0)
    if environment.get("LISTEN_PID") != str(os.getpid()) or not passed:
        print(f"nicety: no socket was passed\n{USAGE}", file=sys.stderr)
        return 2
    config = options["--config"] or (CONFIG if os.path.exists(CONFIG) else "")
    be_called(NAME)
    try:
        settings = read(config)
        state_dir = part_of(options["--state-dir"], HANDS)
        with StateLock(state_dir, PATIENCE):
            _listen(FIRST_DESCRIPTOR + passed - 1 if passed > 1 else -1, state_dir, config, settings, environment)
    except (LedgerError, SettingsError) as error:
        print(f"nicety: {error}", file=sys.stderr)
        return 1
    return 0


def _listen(diagnosis: int, state_dir: str, config: str, settings: HandsSettings, environment: Mapping[str, str]) -> None:
    """Serve one brain after the other. `diagnosis`: the second socket that was passed, -1: none."""
    listener = socket.socket(fileno=FIRST_DESCRIPTOR)
    for descriptor in (FIRST_DESCRIPTOR, diagnosis):
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)
    hands = OwnHands(state_dir, LinuxKernel(), SystemClock(), settings.bounds)
    guarding = sentries_of_hands(state_dir)
    notes, done = hands.recover()
    if done or notes:
        say(4, f"an earlier nicety ended without undoing its changes; they are undone now: {len(done)}")
    hands.close()
    signal.signal(signal.SIGTERM, _stop)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _ready(environment)
    pools: Pools | None = None
    try:
        while True:
            sock, _ = listener.accept()
            pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
            say(6, f"a brain is served: pid {pid} of user {uid}")
            pools = configured_pools(config, state_dir, environment)
            Server(Channel(sock, LONGEST_REQUEST, 0), hands, guarding, settings, pid, pools, diagnosis=diagnosis).run()
    except _StoppedError:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if settings.undo_on_exit and hands.is_open:
            hands.undo(())
        if pools is not None:
            pools.end()
        guarding.dismiss()
        hands.close()


def _stop(number: int, frame: object) -> None:  # noqa: ARG001 - the signature of a handler
    raise _StoppedError


def _ready(environment: Mapping[str, str]) -> None:
    """Say that we serve: sd_notify(3)."""
    where = environment.get("NOTIFY_SOCKET", "")
    if not where:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        try:
            notifier.sendto(b"READY=1", f"\0{where[1:]}" if where.startswith("@") else where)
        except OSError:
            pass  # nobody waits
