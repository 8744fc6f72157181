"""What listens, asked of sock_diag and read from the tables, beside real sockets of this process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nicety.scheduler.hands.reads import socket_inode
from nicety.scheduler.read.sockets import Listeners, SockDiag

SELF = f"/proc/{os.getpid()}"


def inode(held: socket.socket) -> int:
    return os.fstat(held.fileno()).st_ino


@pytest.mark.parametrize("ours", [True, False], ids=["sock_diag", "tables"])
def test_sock_diag_and_the_tables_name_the_same_sockets(ours: bool, tmp_path: Path) -> None:
    listeners = Listeners("/proc", ours=ours)
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as tcp6,
        socket.create_connection(tcp.getsockname()) as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp6,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as unix_client,
    ):
        udp.bind(("127.0.0.1", 0))
        udp6.bind(("::1", 0))
        peer.connect(udp.getsockname())
        unix.bind(str(tmp_path / "a name with blanks"))
        unix.listen()
        unix_client.connect(unix.getsockname())
        got = listeners.around(SELF)
        assert got is not None
        all_here = {inode(one) for one in (tcp, tcp6, client, udp, udp6, peer, unix, unix_client)}
        assert got.inet & all_here == {inode(one) for one in (tcp, tcp6, udp, udp6)}
        assert got.unix & all_here == {inode(unix)}
        assert {here: got.ports.get(here) for here in all_here & got.ports.keys()} == {
            inode(one): one.getsockname()[1] for one in (tcp, tcp6)
        }
    listeners.close()


@pytest.mark.parametrize(
    ("name", "has_window"),
    [
        (f"\0/tmp/.X11-unix/X{os.getpid()}", True),
        ("run/wayland-0", True),
        ("run/pulse/native", True),
        ("run/pipewire-0", True),
        ("run/wayland-0.lock", False),
        ("run/native", False),
        (f"\0/tmp/.X11-unix/X{os.getpid()}/x", False),
        (f"\0{os.getpid()}/wayland-0", False),
    ],
)
def test_clients_of_display_and_sound_servers_are_known(name: str, has_window: bool, tmp_path: Path) -> None:
    """The server shows nothing itself, and without sock_diag nobody knows."""
    listeners, tables = Listeners("/proc", ours=True), Listeners("/proc", ours=False)
    address = name if name.startswith("\0") else str(tmp_path / name)
    if address is not name:
        Path(address).parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client, socket.socket(socket.AF_UNIX) as other:
        server.bind(address)
        server.listen()
        client.connect(address)
        end, _ = server.accept()
        got, unknown = listeners.around(SELF), tables.around(SELF)
        assert got is not None
        assert unknown is not None
        assert got.has_window & {inode(one) for one in (server, client, other, end)} == ({inode(client)} if has_window else set())
        assert inode(server) in got.unix & unknown.unix
        assert not unknown.has_window
        end.close()
    listeners.close()
    tables.close()


def test_the_kernel_is_asked_once_until_it_is_forgotten() -> None:
    listeners = Listeners("/proc", ours=True)
    first = listeners.around(SELF)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert listeners.around(SELF) is first
        listeners.forget()
        got = listeners.around(SELF)
        assert got is not None
        assert inode(listener) in got.inet
    listeners.close()


def test_a_protocol_that_sock_diag_does_not_know_is_unknown_and_not_empty() -> None:
    diag = SockDiag()
    assert diag._inet_raw(socket.AF_INET, 200, 7) is None
    assert diag.accept_queues(socket.AF_INET) is not None, "the answer before it spoils no later one"
    diag.close()


def test_without_sock_diag_the_tables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        real = socket.socket

        def refused(family: int, *rest: int) -> socket.socket:
            if family == socket.AF_NETLINK:
                raise PermissionError
            return real(family, *rest)

        monkeypatch.setattr(socket, "socket", refused)
        listeners = Listeners("/proc", ours=True)
        got = listeners.around(SELF)
        monkeypatch.undo()
        assert got is not None
        assert inode(listener) in got.inet
        listeners.close()


def test_a_process_that_is_gone_is_unknown() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    for ours in (True, False):
        listeners = Listeners("/proc", ours=ours)
        assert listeners.around(f"/proc/{process.pid}") is None
        listeners.close()


@pytest.mark.parametrize(
    ("link", "number"), [("socket:[123]", 123), ("pipe:[123]", None), ("/tmp/socket:[1]", None), ("socket:[1] (deleted)", None)]
)
def test_only_the_link_of_a_socket_names_one(link: str, number: int | None) -> None:
    assert socket_inode(link) == number
