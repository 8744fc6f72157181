"""joblib on the executor."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import joblib
import pytest

from nicety.scheduler.executor import Executor, WorkerLost
from nicety.scheduler.executor.joblib_backend import register


@pytest.fixture(autouse=True)
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NICETY_RUN_DIR", str(tmp_path / "run"))
    register()


def test_results_come_in_order_and_lambdas_work() -> None:
    with joblib.Parallel(n_jobs=2, backend="nicety") as parallel:
        for _ in range(2):
            assert parallel(joblib.delayed(lambda n: n * n)(n) for n in range(100)) == [n * n for n in range(100)]


def test_work_is_done_in_other_processes() -> None:
    pids = set(joblib.Parallel(n_jobs=2, backend="nicety")(joblib.delayed(os.getpid)() for _ in range(20)))
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2


def test_an_executor_can_be_given_and_stays() -> None:
    with Executor(2, multiprocessing.get_context("fork"), name="given") as executor:
        workers = {executor.submit(os.getpid).result(10)} | set(executor._processes)
        for _ in range(2):
            with joblib.parallel_config(backend="nicety", executor=executor):
                pids = joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(10))
            assert set(pids) <= workers
        assert executor.submit(pow, 2, 3).result(10) == 8


def test_an_error_ends_the_call_and_the_next_one_works() -> None:
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            joblib.Parallel(n_jobs=2, backend="nicety")(joblib.delayed(divmod)(1, n % 10) for n in range(1, 40))
        calls = (joblib.delayed(divmod)(n, 2) for n in range(10))
        assert joblib.Parallel(n_jobs=2, backend="nicety")(calls) == [divmod(n, 2) for n in range(10)]


def test_a_worker_that_dies_is_an_error_of_its_batch() -> None:
    with pytest.raises(WorkerLost, match="exit status 5"):
        joblib.Parallel(n_jobs=2, backend="nicety")(joblib.delayed(os._exit)(5) for _ in range(2))


def test_one_job_needs_no_executor(tmp_path: Path) -> None:
    assert joblib.Parallel(n_jobs=1, backend="nicety")(joblib.delayed(os.getpid)() for _ in range(2)) == [os.getpid()] * 2
    assert not (tmp_path / "run").exists()
