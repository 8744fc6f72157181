"""`nicety exporter` as a process: over TCP, a unix socket, a file and OTLP, and with readers that behave badly."""

from __future__ import annotations

import gzip
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from nicety.scheduler.frame import Frame, pack
from nicety.scheduler.testing.frames import a_frame, an_own


def steady(**changes: object) -> Frame:
    """A frame that stays fresh for a test."""
    return a_frame(wall=time.time(), own=an_own(interval=60.0), **changes)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "frame").write_bytes(pack(steady()))
    (tmp_path / "nicety.toml").write_text(f'[daemon]\nframe = "{tmp_path}/frame"\n')
    return tmp_path


def command(place: Path, *options: str) -> list[str]:
    here = ["--config", str(place / "nicety.toml"), "--state-dir", str(place / "state")]
    return [sys.executable, "-m", "nicety.scheduler", *here, "exporter", *options]


@contextmanager
def running(place: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command(place, *options), stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        try:
            assert process.stderr is not None
            assert "Ctrl-C ends it" in process.stderr.readline()
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def get(port: int, path: str = "/metrics", **headers: str) -> tuple[int, str]:
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    asking.request("GET", path, headers=headers)
    answer = asking.getresponse()
    return answer.status, answer.read().decode()


def answered(port: int) -> None:
    """Asks until there is an answer: more requests at once than it takes are turned away."""
    end = time.monotonic() + 5
    while True:
        try:
            assert get(port)[0] == 200
            return
        except (ConnectionError, http.client.HTTPException):
            assert time.monotonic() < end
            time.sleep(0.02)


def test_the_metrics_are_at_an_address_of_this_machine_only(place: Path) -> None:
    port = free_port()
    with running(place, "--listen", f"127.0.0.1:{port}") as process:
        status, text = get(port, Accept="application/openmetrics-text")
        assert (status, text.endswith("# EOF\n")) == (200, True)
        assert "nicety_up 1.0" in text
        assert 'nicety_group_cpu_cores{group="ffmpeg"} 1.3' in text
        assert get(port, "/")[0] == 200
        assert get(port, "/secret")[0] == 404
        assert get(port, Host=f"localhost:{port}")[0] == 200
        assert get(port, Host="attacker.example")[0] == 403
        table = Path(f"/proc/{process.pid}/net/tcp").read_text()
        listening = [line.split()[1] for line in table.splitlines() if f":{port:04X} " in line]
        assert f"0100007F:{port:04X}" in listening
        assert f"00000000:{port:04X}" not in listening


def test_readers_that_keep_quiet_or_go_away_hold_up_nobody(place: Path) -> None:
    port = free_port()
    with running(place, "--listen", f"127.0.0.1:{port}") as process:
        with ExitStack() as open_:
            for _ in range(6):
                silent = open_.enter_context(socket.create_connection(("127.0.0.1", port)))
                silent.send(b"GET /metrics HTTP/1.1\r\nX: ")
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", port)) as rude:
                    rude.send(b"GET /metrics HTTP/1.0\r\n\r\n")
            answered(port)
            for data in (b"\x00" * 100, b"GET " + b"x" * 70000 + b" HTTP/1.1\r\n\r\n", b"POST /metrics HTTP/1.1\r\n\r\n"):
                with socket.create_connection(("127.0.0.1", port)) as bad:
                    bad.sendall(data)
            answered(port)
        assert process.poll() is None


def test_a_frame_that_comes_later_is_served(place: Path) -> None:
    port = free_port()
    (place / "frame").unlink()
    with running(place, "--listen", f"127.0.0.1:{port}"):
        assert "nicety_up 0.0" in get(port)[1]
        (place / "new").write_bytes(pack(steady()))
        (place / "new").rename(place / "frame")
        assert "nicety_up 1.0" in get(port)[1]


def test_a_unix_socket_is_for_user_and_group_and_goes_with_the_exporter(place: Path) -> None:
    path = place / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))  # of an exporter that was killed
    with running(place, "--listen", f"unix:{path}"):
        assert path.stat().st_mode & 0o777 == 0o660
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(path))
            asking.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = b"".join(iter(lambda: asking.recv(1 << 16), b""))
        assert b"nicety_up 1.0" in text
        second = subprocess.run(command(place, "--listen", f"unix:{path}"), capture_output=True, text=True, check=False, timeout=30)
        assert second.returncode == 1
        assert "Address already in use; give another one with --listen" in second.stderr
    assert not path.exists()


@pytest.mark.parametrize("address", ["nowhere", "example.com:29753", "127.0.0.1:x", "127.0.0.1:70000"])
def test_an_address_that_is_none_says_what_to_write(place: Path, address: str) -> None:
    done = subprocess.run(command(place, "--listen", address), capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "write e.g. 127.0.0.1:29753" in done.stderr


def test_a_file_for_node_exporter_is_whole_and_readable_by_all(place: Path) -> None:
    file = place / "nicety.prom"
    done = subprocess.run(command(place, "--once", "--textfile", str(file)), check=True, timeout=30, umask=0o077)
    assert done.returncode == 0
    assert "nicety_up 1.0" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o644
    with running(place, "--textfile", str(file), "--every", "0.1s"):
        first = file.stat().st_ino
        end = time.monotonic() + 10
        while file.stat().st_ino == first:
            assert time.monotonic() < end
            time.sleep(0.02)
    assert sorted(path.name for path in place.iterdir()) == ["frame", "nicety.prom", "nicety.toml"]


def test_once_prints_the_metrics_without_a_daemon_too(place: Path) -> None:
    (place / "frame").unlink()
    done = subprocess.run(command(place, "--once"), capture_output=True, text=True, check=True, timeout=30)
    assert "\nnicety_up 0.0\n" in done.stdout
    assert done.stderr == ""


class Receiver(HTTPServer):
    """Takes OTLP over HTTP, and refuses the first request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receive)
        self.got: list[ExportMetricsServiceRequest] = []
        self.asked = 0


class _Receive(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.asked += 1
        if self.server.asked == 1:
            self.send_error(400)
            return
        self.server.got.append(ExportMetricsServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        pass


def test_otlp_has_the_same_metrics_with_units_and_exemplars(place: Path) -> None:
    receiver = Receiver()
    taking = threading.Thread(target=receiver.serve_forever)
    taking.start()
    try:
        with running(place, "--otlp", f"http://127.0.0.1:{receiver.server_port}/v1/metrics", "--every", "0.2s") as process:
            assert process.stderr is not None
            assert "did not take the metrics; check the address and its log; trying again every 0.2 s" in process.stderr.readline()
            assert process.stderr.readline() == "nicety: well again\n"
    finally:
        receiver.shutdown()
        taking.join()
        receiver.server_close()
    (resource,) = receiver.got[0].resource_metrics
    assert {pair.key: pair.value.string_value for pair in resource.resource.attributes}["service.name"] == "nicety"
    metrics = {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}
    shown = subprocess.run(command(place, "--once"), capture_output=True, text=True, check=True, timeout=30).stdout
    assert metrics.keys() == {line.split()[2] for line in shown.splitlines() if line.startswith("# TYPE")}
    (ffmpeg,) = [p for p in metrics["nicety_group_cpu_cores"].gauge.data_points if p.attributes[0].value.string_value == "ffmpeg"]
    assert ffmpeg.as_double == 1.3
    assert metrics["nicety_group_cpu_cores"].unit == "{core}"
    decisions = metrics["nicety_decisions_total"].sum
    assert decisions.is_monotonic
    assert {point.as_double for point in decisions.data_points} == {7.0, 12.0}
    tied = [pair.value.string_value for point in decisions.data_points for pair in point.exemplars[0].filtered_attributes]
    assert sorted(tied) == ["5e551017-3500.0", "5e551017-3598.0"]
