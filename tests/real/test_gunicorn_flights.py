"""gunicorn's workers with threads or an event loop: their requests are seen from outside, and the policy sizes such a pool."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, PoolSample, Snapshot
from nicety.scheduler.config.sections import Config, PoolConfig, PoolSize
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decision import Abilities, Pool, ResizePool
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.observe.observer import Observer
from nicety.scheduler.pools.gunicorn.adapter import GunicornPool
from nicety.scheduler.testing.acts import own_acts
from nicety.scheduler.testing.driver import PoolDriver
from nicety.scheduler.testing.web import APPLICATION, Clients, free_port

ASGI = """
import asyncio

async def application(scope, receive, send):
    if scope["type"] == "http":
        await asyncio.sleep(int(scope["path"].split("/")[2]) / 1000)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
"""
TICK = 0.5


class Server(PoolDriver):
    """A real gunicorn, its adapter, and what the daemon would decide about it."""

    def __init__(self, folder: Path, text: str, *options: str) -> None:
        (folder / "app.py").write_text(text, encoding="ascii")
        self.address = ("127.0.0.1", free_port())
        log, pidfile, clock = folder / "log", folder / "pid", SystemClock()
        command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{self.address[1]}", "--chdir", str(folder)]
        with log.open("wb") as output:
            self.master = subprocess.Popen(
                [*command, "--pid", str(pidfile), *options, "app:application"], stdout=output, stderr=output
            )
        config = PoolConfig(kind="gunicorn", pidfile=str(pidfile), maximum=8)
        super().__init__(
            GunicornPool("web", config, clock, own_acts("web", config, clock)), clock, interval=0.05, told=log.read_text
        )
        whole = Config(pools={"web": config}, pool_size=PoolSize())
        self._observer = Observer(whole, Abilities(False, "", False), ProcId(2, 1), None, None, None)
        self._engine = Engine(whole, "test")

    def decide(self, sample: PoolSample) -> Pool | None:
        """One tick of the daemon on an empty machine with room for all."""
        at = self._clock.monotonic()
        host = HostSample((0,) * 64, 1 << 40, 1 << 40, None)
        tick = self._observer.tick(Snapshot(at, at, 10**6, np.zeros(0, dtype=SAMPLE), {}, host, (sample,)), (), paused=False)
        for decision in self._engine.step(tick).decisions:
            if isinstance(decision.action, ResizePool):
                self.pool.resize(decision.action.size)
        return tick.pools[0] if tick.pools else None


@contextmanager
def served(folder: Path, text: str, *options: str) -> Iterator[Server]:
    server = Server(folder, text, *options)
    try:
        yield server
    finally:
        server.pool.close()
        server.master.terminate()
        server.master.wait(20)


def test_threads_are_counted_and_a_pool_of_them_grows_until_none_waits_for_a_thread(tmp_path: Path) -> None:
    with served(tmp_path, APPLICATION, "-w", "1", "-k", "gthread", "--threads", "4") as server:
        server.up(1)
        with Clients(server.address, 12, "/sleep/100") as asking:
            first = server.over(1.0)
            assert first.flights is not None
            assert first.workers[0].busy is None
            assert first.flights.held == pytest.approx(12, abs=2.0)
            seen, sizes = None, []
            for _ in range(22):
                sample = server.over(TICK)
                seen = server.decide(sample) or seen
                sizes.append(sample.size)
                if sample.size >= 3:
                    break
        assert asking.failures == []
        assert sizes[-1] >= 3, (sizes, seen)


def test_an_event_loop_is_counted_and_requests_that_only_wait_are_the_load_of_one_worker(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn_worker")
    with served(tmp_path, ASGI, "-w", "1", "-k", "uvicorn_worker.UvicornWorker") as server:
        server.up(1)
        with Clients(server.address, 6, "/sleep/200") as asking:
            for _ in range(5):
                server.decide(server.over(TICK))
            sample = server.over(TICK)
            seen = server.decide(sample)
            assert sample.flights is not None
            assert sample.flights.held == pytest.approx(6, abs=1.5)
        assert asking.failures == []
        assert seen is not None
        assert seen.capacity > 3.0
        assert seen.load == pytest.approx(1.0, abs=0.4)
