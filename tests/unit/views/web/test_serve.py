"""Where the page listens, and where it keeps what can be made again."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from nicety.scheduler.views.web.cache import cache_file
from nicety.scheduler.views.web.serve import ListenError, address_of, listen, listen_on


def test_it_listens_on_this_machine_alone() -> None:
    with listen("localhost", 0) as listening:
        host, port = listening.getsockname()
        assert host == "127.0.0.1"
        assert address_of(listening, "T") == f"http://127.0.0.1:{port}/?token=T"
        with pytest.raises(ListenError, match="choose another with --port"):
            listen("127.0.0.1", port)


def test_a_unix_socket_is_for_its_owner_and_replaces_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with listen_on(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(ListenError, match="already"):
            listen_on(path)
    with listen_on(path) as again, socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(path))
        assert again.fileno() > 0


def test_a_file_in_the_place_of_a_socket_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(ListenError, match="--socket"):
        listen_on(tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "kept"


def test_the_cache_is_private_or_there_is_none(tmp_path: Path) -> None:
    found = cache_file(Path("/var/lib/nicety"), {"XDG_CACHE_HOME": str(tmp_path)})
    assert found is not None
    assert found.parent == tmp_path / "nicety"
    assert stat.S_IMODE(found.parent.stat().st_mode) == 0o700
    assert cache_file(Path("/elsewhere"), {"XDG_CACHE_HOME": str(tmp_path)}) != found
    assert cache_file(Path("/x"), {"CACHE_DIRECTORY": str(tmp_path / "unit")}) is not None
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert cache_file(Path("/x"), {"CACHE_DIRECTORY": str(tmp_path / "open")}) is None
    assert cache_file(Path("/x"), {}) is None
