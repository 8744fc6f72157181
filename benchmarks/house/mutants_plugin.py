"""The part of `mutants.py` inside pytest: records which test runs which line, or runs chosen tests in a given order.

`NICETY_MUTANTS` names a file with the task, as JSON; the task names the file for the answer. Examples of property tests are the
same in every run and are not shrunk. Tests that read a clock are left out, because other load makes them fail.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import resource
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import coverage
import pytest
from hypothesis import HealthCheck, Phase, settings

TASK = json.loads(Path(os.environ["NICETY_MUTANTS"]).read_text())

MEMORY_BYTES = 6 << 30
"""Most address space of a run. Chosen: a mutant must not use up the machine's memory."""

CLOCK = re.compile(r"\b(perf_counter|process_time|thread_time|monotonic)(_ns)?\(")

settings.register_profile(
    "mutants",
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("mutants")
resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


WAITING = 0.2
"""CPU seconds for which a second of waiting counts, because a test that waits costs time too. Chosen."""


def _cpu_seconds() -> float:
    """CPU seconds of this process and its children."""
    return sum(os.times()[:4])


def _now() -> tuple[float, float]:
    """CPU seconds, and the time."""
    return _cpu_seconds(), time.monotonic()


def _since(began: tuple[float, float]) -> float:
    """What something cost that began then."""
    cpu, clock = began
    return max(_cpu_seconds() - cpu, WAITING * (time.monotonic() - clock))


def _answer(**found: Any) -> None:
    Path(TASK["answer"]).write_text(json.dumps({**found, "cpu_seconds": _cpu_seconds()}))


class _Measures:
    """Runs all tests; answers with their seconds, the seconds of fixtures that they share, and by file and line the tests that run
    it."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._fixtures: dict[str, list[str]] = {}  # by test
        self._shared: list[tuple[str, str, float]] = []  # (module, class or the like that shares it, fixture, seconds)
        self._unfit: set[str] = set()
        self._coverage = coverage.Coverage(data_file=None, config_file=False, include=TASK["include"])
        self._coverage.start()
        self._item = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._item = item.nodeid
        self._fixtures[item.nodeid] = getattr(item, "fixturenames", [])
        self._coverage.switch_context(item.nodeid)
        began = _now()
        try:
            return (yield)
        finally:
            self._seconds[item.nodeid] = _since(began)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Generator[None, object, object]:
        """What a fixture of several tests runs, runs for all of them, and any of them may be the first of a later run."""
        if fixturedef.scope == "function":
            return (yield)
        self._coverage.switch_context(f"{request.node.nodeid}*")
        began = _now()
        try:
            return (yield)
        finally:
            self._shared.append((request.node.nodeid, fixturedef.argname, _since(began)))
            self._coverage.switch_context(self._item)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self._unfit.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()
        data = self._coverage.get_data()
        lines = {file: data.contexts_by_lineno(file) for file in data.measured_files()}
        seconds = {test: took for test, took in self._seconds.items() if test not in self._unfit}
        shared = {test: took for test in seconds if (took := self._of_fixtures(test))}
        _answer(seconds=seconds, shared=shared, unfit=sorted(self._unfit), lines=lines)

    def _of_fixtures(self, test: str) -> float:
        """Seconds that the shared fixtures of a test took."""
        fixtures = self._fixtures[test]
        return sum(took for node, name, took in self._shared if name in fixtures and test.startswith(node))


class _Asks:
    """Runs the chosen tests in order; answers with those that fail. A test that takes too much CPU time ends the run."""

    def __init__(self) -> None:
        self._failed: list[str] = []

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        rank = {test: number for number, test in enumerate(TASK["tests"])}
        chosen = sorted((item for item in items if item.nodeid in rank), key=lambda item: rank[item.nodeid])
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in rank])
        items[:] = chosen

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        def ended(*_: object) -> None:
            _answer(failed=[item.nodeid], timed_out=True)
            os._exit(1)

        signal.signal(signal.SIGPROF, ended)
        signal.setitimer(signal.ITIMER_PROF, TASK["seconds"][item.nodeid])
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0.0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self._failed:
            self._failed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._failed.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        _answer(failed=self._failed, timed_out=False)


def _reads_a_clock(test: Any) -> bool:
    """Whether a test, or a function of its file that it calls, reads a clock."""
    called = (test.__globals__.get(name) for name in test.__code__.co_names)
    ours = (each for each in called if inspect.isfunction(each) and each.__module__ == test.__module__)
    return any(CLOCK.search(inspect.getsource(each)) for each in (test, *ours))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Measures() if TASK["measure"] else _Asks())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests that read a clock."""
    timed = [item for item in items if isinstance(item, pytest.Function) and _reads_a_clock(item.function)]
    config.hook.pytest_deselected(items=timed)
    items[:] = [item for item in items if item not in timed]
