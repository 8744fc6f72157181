"""The control socket: who may request what from a running daemon, and how. Does not know what a verb does: handlers are arguments.

Protocol: the client sends one line of JSON, `{"verb": "status", ...}`, and receives one line, `{"ok": true, ...}` or
`{"ok": false, "error": "cause; next step"}`. Then the connection ends. The kernel says who the client is (SO_PEERCRED). Root and
the daemon's own user may do everything; members of the control group may see the status, pause, resume and reload; others are
refused at once. Nothing here blocks: `serve` handles what is ready, and drops a slow client after `CLIENT_SECONDS`. Beyond
`CLIENT_LIMIT` the oldest client is dropped first, so many slow clients cannot keep an honest one out (F42).
"""

from __future__ import annotations

import errno
import grp
import json
import os
import selectors
import socket
import stat
import struct
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...config.paths import SOCKET_PATH_LIMIT
from ...hands.kernel import Clock

REQUEST_LIMIT = 4096
"""Maximum bytes of a request. Chosen: a verb and a few arguments take under 200."""

REPLY_LIMIT = 16 << 20
"""Maximum bytes of an answer that a client reads. Chosen: a status with a thousand groups takes under 1 MiB."""

CLIENT_LIMIT = 32
"""Maximum open connections; one more drops the oldest. Chosen: more than there are users, fewer than descriptors (usually 1024)."""

ACCEPT_LIMIT = 64
"""Maximum connections accepted in one call of `serve`. Chosen: 64 take under 2 ms, so a flood cannot hold up the loop."""

CLIENT_SECONDS = 5.0
"""Seconds from the connection until the client must have read the answer. Chosen: many ticks, and less than a person waits."""

GROUP_VERBS = frozenset({"status", "pause", "resume", "reload"})
"""What members of the control group may request."""

SO_PEERGROUPS = 59
"""Socket option for the supplementary groups of the peer: include/uapi/asm-generic/socket.h (Linux 4.13). Python 3.11 lacks it."""

Handler = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes the request without its verb and returns the answer. Raises ControlError to refuse."""


class ControlError(Exception):
    """The daemon refused or cannot be reached. The text says why and what to do."""


class NoDaemonError(ControlError):
    """No daemon listens at the path."""


@dataclass(slots=True)
class _Client:
    channel: socket.socket
    deadline: int  # monotonic ns
    admin: bool
    received: bytearray = field(default_factory=bytearray)
    answer: bytes = b""  # what is still to be sent, once the request has arrived
    waits: bool = False  # its request has arrived, and must not be answered yet


class ControlSocket:
    """The daemon's end. `fileno()` is readable when `serve` has something to do."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler], group: str, *, clock: Clock) -> None:
        """Listen at `path`. `group`: name of the control group, "" for none.

        Raises ControlError if the path is not safe or usable, if another daemon answers there, or if there is no such group.
        """
        self.path = path
        self._handlers = dict(handlers)
        self._clock = clock
        self._group = group_id(group)
        self._listener = _listen(path, self._group)
        status = path.lstat()
        self._file = (status.st_dev, status.st_ino)
        self._selector = selectors.DefaultSelector()  # epoll, or kqueue: both have a descriptor of their own
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._clients: dict[int, _Client] = {}  # by descriptor, oldest first

    def fileno(self) -> int:
        """A descriptor to wait for in another selector."""
        return self._selector.fileno()

    def serve(self, timeout_seconds: float, only: Container[str] | None = None) -> None:
        """Handle what is ready. Wait for at most `timeout_seconds`. Exceptions of a handler other than ControlError propagate.

        `only`: verbs that may be answered now; None: all. Other requests are kept, and answered first in a call that allows them.
        """
        waiting = [client for client in self._clients.values() if client.waits]
        if only is None and waiting:
            for client in waiting:
                self._advance(client, only)
            timeout_seconds = 0.0
        for key, _ in self._selector.select(timeout_seconds):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fd in self._clients:
                self._advance(self._clients[key.fd], only)
        now = self._clock.monotonic()
        for client in [client for client in self._clients.values() if client.deadline <= now and not client.waits]:
            self._drop(client)

    def close(self) -> None:
        """Stop listening and remove the socket, unless another has taken its place."""
        for client in list(self._clients.values()):
            self._drop(client)
        self._selector.close()
        self._listener.close()
        try:
            status = self.path.lstat()
            if (status.st_dev, status.st_ino) == self._file:
                self.path.unlink()
        except OSError:
            pass  # removed already, or the directory went with it

    def _accept(self) -> None:
        for _ in range(ACCEPT_LIMIT):
            try:
                channel, _address = self._listener.accept()
            except OSError:  # no client waits any more, or one left before it was accepted, or no descriptor is free
                return
            channel.setblocking(False)
            uid, gid = _peer(channel)
            admin = uid in (0, os.geteuid())
            if not admin and not self._in_group(channel, gid):
                with channel:
                    refusal = _line({"ok": False, "error": f"uid {uid} may not control this daemon; {self._who()}"})
                    try:
                        _send_some(channel, refusal)
                    except ConnectionError:
                        pass  # the client left without waiting for it
                continue
            if len(self._clients) >= CLIENT_LIMIT:
                self._drop(next(iter(self._clients.values())))
            deadline = self._clock.monotonic() + int(CLIENT_SECONDS * 1e9)
            self._clients[channel.fileno()] = _Client(channel, deadline, admin)
            self._selector.register(channel, selectors.EVENT_READ)

    def _advance(self, client: _Client, only: Container[str] | None) -> None:
        """One step of a client: read, answer or send."""
        try:
            if not client.answer:
                if not client.waits:
                    chunk = client.channel.recv(REQUEST_LIMIT + 1)
                    if not chunk:
                        self._drop(client)
                        return
                    client.received += chunk
                    if b"\n" not in client.received and len(client.received) <= REQUEST_LIMIT:
                        return
                try:
                    answer = self._answer(client, only)
                except BaseException:
                    self._drop(client)
                    raise
                client.waits = answer is None
                if answer is None:
                    return
                client.answer = _line(answer)
            client.answer = client.answer[_send_some(client.channel, client.answer) :]
        except BlockingIOError:
            return
        except ConnectionError:
            self._drop(client)
            return
        if client.answer:
            self._selector.modify(client.channel, selectors.EVENT_WRITE)
        else:
            self._drop(client)

    def _answer(self, client: _Client, only: Container[str] | None) -> dict[str, Any] | None:
        """The answer to the client's request; None: it must not be answered yet."""
        line, end, _rest = bytes(client.received).partition(b"\n")
        if not end or len(line) > REQUEST_LIMIT:
            return {"ok": False, "error": f"a request has one line of at most {REQUEST_LIMIT} bytes"}
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return {"ok": False, "error": "a request is one line of JSON"}
        verb = request.pop("verb", None) if isinstance(request, dict) else None
        if not isinstance(verb, str) or verb not in self._handlers:
            return {"ok": False, "error": f"unknown verb; known: {', '.join(sorted(self._handlers))}"}
        if not client.admin and verb not in GROUP_VERBS:
            return {"ok": False, "error": f'"{verb}" is only for root and the daemon\'s own user'}
        if only is not None and verb not in only:
            return None
        try:
            return {"ok": True, **self._handlers[verb](request)}
        except ControlError as error:
            return {"ok": False, "error": str(error)}

    def _drop(self, client: _Client) -> None:
        del self._clients[client.channel.fileno()]
        self._selector.unregister(client.channel)
        client.channel.close()

    def _in_group(self, channel: socket.socket, gid: int) -> bool:
        if self._group is None:
            return False
        if gid == self._group:
            return True
        try:
            raw = channel.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024)
        except OSError:  # an old kernel, or a peer with more than 256 groups: cannot be shown to be a member
            return False
        return self._group in struct.unpack(f"{len(raw) // 4}I", raw)

    def _who(self) -> str:
        if self._group is None:
            return "root and its own user may; daemon.control_group lets a group in"
        return f"root, its own user and members of group {grp.getgrgid(self._group).gr_name} may"


def ask(path: Path, verb: str, timeout_seconds: float = CLIENT_SECONDS, **arguments: object) -> dict[str, Any]:
    """The daemon's answer to `verb`, without "ok".

    Raises NoDaemonError if no daemon listens at `path`, ControlError if the daemon refuses, is too slow or cannot be reached.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            # A full queue of connections makes connect() wait only on a blocking socket, whose limit is SO_SNDTIMEO.
            limit = struct.pack("ll", int(timeout_seconds), int(timeout_seconds % 1 * 1e6))
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            channel.connect(str(path))
            channel.settimeout(timeout_seconds)
            try:
                channel.sendall(_line({"verb": verb, **arguments}))
            except ConnectionError:
                pass  # refused before it read our request; the reason is waiting to be read
            data = bytearray()
            while b"\n" not in data and len(data) <= REPLY_LIMIT:
                chunk = channel.recv(65536)
                if not chunk:
                    break
                data += chunk
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise NoDaemonError(f"no daemon listens at {path}; start one with `nicety run`, or give its --state-dir") from None
    except PermissionError:
        raise ControlError(f"{path}: permission denied; ask as root or as the daemon's own user") from None
    except (TimeoutError, BlockingIOError):
        raise ControlError(
            f"the daemon at {path} did not answer in {timeout_seconds:g} s; see its log, it may be stopped or stuck"
        ) from None
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror or error}; give the daemon's --state-dir") from None
    if not data.endswith(b"\n"):
        raise ControlError(f"the daemon at {path} ended the connection without an answer; see its log")
    return _understood(bytes(data), path)


def _understood(line: bytes, path: Path) -> dict[str, Any]:
    """The answer in a line, without "ok". Raises ControlError for a refusal, and for a line that no daemon sends."""
    try:
        answer: Any = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict):
        done, error = answer.pop("ok", None), answer.get("error")
        if done is True:
            return answer
        if done is False and isinstance(error, str) and error:
            raise ControlError(error)
    raise ControlError(f"what listens at {path} does not answer as a nicety of this version does; give the daemon's --state-dir")


def _listen(path: Path, group: int | None) -> socket.socket:
    """A listening socket at `path`. At no moment is it open to more users than at the end."""
    if len(os.fsencode(path)) + 8 > SOCKET_PATH_LIMIT:  # 8: the temporary name is longer by that
        raise ControlError(f"{path}: too long for a unix socket (at most {SOCKET_PATH_LIMIT - 8} bytes); set daemon.socket")
    _check_place(path)
    temporary = path.with_name(f"{path.name}.{os.getpid() % 10_000_000}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        temporary.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            listener.bind(str(temporary))
        finally:
            os.umask(before)
        try:
            if group is not None:
                if temporary.lstat().st_gid != group:  # in its unit the daemon may not call chown
                    os.chown(temporary, -1, group)
                temporary.chmod(0o660)
            listener.setblocking(False)
            listener.listen(128)
            temporary.rename(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        listener.close()
        raise ControlError(f"control socket {path}: {error.strerror or error}; choose another place with daemon.socket") from None
    return listener


def _check_place(path: Path) -> None:
    """Refuse a directory that others may write to, a file that is not a socket, and a socket with a listener."""
    try:
        place = path.parent.stat()
    except OSError as error:
        raise ControlError(f"control socket {path}: {path.parent}: {error.strerror}; create it or set daemon.socket") from None
    if place.st_uid not in (0, os.geteuid()) or place.st_mode & stat.S_IWOTH:
        raise ControlError(f"control socket {path}: others may write {path.parent}; choose a private directory with daemon.socket")
    try:
        there = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(there.st_mode):
        raise ControlError(f"control socket {path}: a file that is not a socket is there; remove it or set daemon.socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(str(path)) not in (errno.ECONNREFUSED, errno.ENOENT):
            raise ControlError(f"control socket {path}: another daemon listens there; see `nicety status`")


def group_id(name: str) -> int | None:
    """The group of this name; None for "". Raises ControlError if there is none."""
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ControlError(f'daemon.control_group: there is no group "{name}"; create it (groupadd {name}) or set ""') from None


def _peer(channel: socket.socket) -> tuple[int, int]:
    """(uid, gid) of the process at the other end. Where the kernel is not Linux, our own: the mode of the socket's file has kept
    everybody else out."""
    if not hasattr(socket, "SO_PEERCRED"):
        return os.geteuid(), os.getegid()
    _pid, uid, gid = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid, gid


def _send_some(channel: socket.socket, data: bytes) -> int:
    """Bytes sent; 0 if the other end accepts none now."""
    try:
        return channel.send(data, socket.MSG_NOSIGNAL)
    except BlockingIOError:
        return 0


def _line(message: dict[str, Any]) -> bytes:
    """One line of JSON in ASCII."""
    return json.dumps(message, allow_nan=False).encode() + b"\n"
