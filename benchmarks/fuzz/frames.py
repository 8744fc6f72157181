"""Targets: both ends of the control socket. Frames come in pieces from a real client, answers from a real listener."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nicety.scheduler.decision import Scope
from nicety.scheduler.scope import OBSERVE, resolve
from nicety.scheduler.service.answers.control_socket import CLIENT_SECONDS, ControlError, ControlSocket, ask
from nicety.scheduler.service.answers.requests import Requests
from nicety.scheduler.testing.clock import FakeClock

from .target import BrokenError, Case, Target

SECOND = 10**9


class _Behind:
    """What requests change: the scope, and nothing else."""

    def __init__(self) -> None:
        self.scope = OBSERVE
        self.engine = SimpleNamespace(pauses={})

    def nothing(self, *_arguments: object, **_more: object) -> None:
        """Pauses, reports and sessions."""

    begin = end = event = finish = go_on = nothing

    def reload(self) -> str:
        """The new configuration is in force."""
        return ""

    def undo(self) -> tuple[()]:
        """There was nothing to restore."""
        return ()

    def things(self, named: Sequence[str]) -> tuple[str, ...]:
        """The things that are named on a machine with one pool and two groups."""
        return resolve(named, {"web"}, {"batch"}, {"seen"}) if named else ()

    def prepare(self, scope: Scope) -> str:
        """Everything can be acted on."""
        assert isinstance(scope, Scope)
        return ""

    def switch(self, scope: Scope) -> tuple[()]:
        """Take the scope over; nothing is in force that could be restored."""
        self.scope = scope
        return ()

    def record(self) -> dict[str, Any]:
        """The scope for programs."""
        return {"things": [grant.thing for grant in self.scope.grants], "spared": list(self.scope.spared)}


class _Daemon:
    """The socket of a daemon, with the real code of its requests and nothing behind it."""

    def __init__(self, path: Path) -> None:
        self.clock: Any = FakeClock()
        behind: Any = _Behind()
        requests = Requests(behind, behind, behind, behind, behind, behind, self.clock, behind)
        handlers = {"status": lambda request: {"asked": bool(request)}, **requests.handlers()}
        self.socket = ControlSocket(path, handlers, "", clock=self.clock)

    def close(self) -> None:
        """Stop listening."""
        self.socket.close()

    def exchange(self, pieces: Sequence[bytes]) -> bytes:
        """What a client receives that sends these pieces and no more."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.socket.path))
            for piece in pieces:
                try:
                    client.sendall(piece)
                except (BrokenPipeError, ConnectionResetError):
                    break  # answered, or refused, before the client had said all
                self.socket.serve(0)
            self.socket.serve(0)
            self.clock.advance(int(CLIENT_SECONDS * SECOND) + 1)
            self.socket.serve(0)  # drops a client that has not said enough
            client.settimeout(1.0)
            received = bytearray()
            try:
                while chunk := client.recv(1 << 16):
                    received += chunk
            except ConnectionResetError:
                pass  # the daemon closed without reading all
        return bytes(received)


def _frame_seeds() -> Sequence[bytes]:
    requests: tuple[Any, ...] = (
        {"verb": "status", "full": True},
        {"verb": "pause", "seconds": 1.5},
        {"verb": "act", "things": ["priority", "pool web", "group seen"], "seconds": 60},
        {"verb": "observe", "things": ["batch"]},
        {"verb": "resume"},
        {"verb": "reload"},
        {"verb": "undo"},
        {"verb": "halt"},
        ["status"],
        None,
    )
    frames = [json.dumps(request).encode() + b"\n" for request in requests]
    long = b'{"verb": "pause", "seconds": ' + b"9" * 4000 + b"}\n"
    crafted = [b"", b"\n", b"{", b"[" * 4000 + b"\n", long, b'{"verb": "\xff"}\n']
    return [bytes([size]) + frame for frame in frames + crafted for size in (0, 7)]


def _prepare_frames(place: Path) -> Case:
    def run(case: bytes) -> None:
        with closing(_Daemon(place / "control.sock")) as daemon:
            talk(daemon, case)

    def talk(daemon: _Daemon, case: bytes) -> None:
        size, frame = (case[0], case[1:]) if case else (0, b"")
        step = size * 16 or len(frame) or 1
        said = daemon.exchange([frame[at : at + step] for at in range(0, len(frame), step)])
        if said:
            answer = json.loads(said)
            if not said.endswith(b"\n") or said.count(b"\n") != 1 or not isinstance(answer.get("ok"), bool):
                raise BrokenError(f"not an answer: {said!r}")
        elif b"\n" in frame or len(frame) > 4096:
            raise BrokenError(f"no answer to {frame[:60]!r}")
        if json.loads(daemon.exchange([b'{"verb": "status"}\n'])) != {"ok": True, "asked": False}:
            raise BrokenError("the next client got no answer")

    return run


# --- answers ------------------------------------------------------------------------------------------------------------------


def _answer_seeds() -> Sequence[bytes]:
    return (
        *(b'{"ok": true, "ticks": 3}\n', b'{"ok": false, "error": "no; wait"}\n', b'{"ok": true}', b"", b"\n", b"{}\n", b"[]\n"),
        *(b"null\n", b'{"ok": false}\n', b"[" * 4000 + b"\n", b'{"ok": 1e999}\n', b"\xff\xfe\n", b'{"ok": true}\n{"ok": true}\n'),
    )


def _prepare_answers(place: Path) -> Case:
    path = place / "control.sock"

    def serve(listener: socket.socket, case: bytes) -> None:
        channel, _ = listener.accept()
        with channel:
            channel.recv(4096)
            channel.sendall(case)

    def run(case: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.settimeout(10.0)
            listener.bind(str(path))
            listener.listen(1)
            server = threading.Thread(target=serve, args=(listener, case))
            server.start()
            try:
                answer = ask(path, "status", 10.0)
            except ControlError as error:
                if not str(error):
                    raise BrokenError("an error without a text") from None
                return
            finally:
                server.join()
                path.unlink()
        if not isinstance(answer, dict) or "ok" in answer:
            raise BrokenError(f"not an answer: {answer!r}")

    return run


_WORDS = (b'"verb":', b'"act"', b'"pause"', b'"seconds":', b'"things":[', b"NaN", b"Infinity", b"1e999", b"null", b"\\ud800", b"\n")

FRAMES = Target("control frames", _frame_seeds, _prepare_frames, _WORDS, longest=6000)
ANSWERS = Target("control answers", _answer_seeds, _prepare_answers, (b'"ok":', b"true", b"false", b'"error":', b"NaN", b"\n"))
