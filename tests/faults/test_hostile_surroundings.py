"""Code that lies about where nicety is started: in the working directory, a home directory, PATH and the environment. None of it
runs in an interpreter that nicety starts, whoever types the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nicety.scheduler.config.sections import Models
from nicety.scheduler.interpreter import PYTHON, SEARCH_PATH, environment, place
from nicety.scheduler.service.retraining import TRAINING, Retraining

SHADOWED = ("json", "numpy", "msgspec", "typer", "sklearn", "jinja2", "usercustomize", "sitecustomize", "matplotlib")
PROGRAMS = ("python3", "python3.11", "sh", "ls", "lscpu", "uname", "ldconfig", "gcc", "nvidia-smi", "latex")
SAYS = "import json, os, sys; print(json.dumps([dict(os.environ), sys.path, sys.flags.no_user_site, sys.flags.safe_path]))"


class Traps:
    """A folder in which all that is run leaves a mark."""

    def __init__(self, folder: Path) -> None:
        self.marks = folder / "marks"
        self.marks.mkdir()
        self.cwd, self.path, self.bin, self.home = (folder / name for name in ("cwd", "path", "bin", "home"))
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.site = self.home / ".local" / "lib" / version / "site-packages"
        for where in (self.cwd, self.path, self.bin, self.site):
            where.mkdir(parents=True)
        for where in (self.cwd, self.path, self.site):
            for name in SHADOWED:
                (where / f"{name}.py").write_text(self._springs(f"{where.name}-{name}"))
        (self.site / "evil.pth").write_text(f"import os; open({str(self.marks / 'pth')!r}, 'w').close()\n")
        (self.cwd / "matplotlibrc").write_text("text.usetex: True\n")
        self.start = folder / "start.py"
        self.start.write_text(self._springs("startup"))
        for name in PROGRAMS:
            (self.bin / name).write_text(f"#!/bin/sh\n: > {self.marks / name}\nexit 1\n")
            (self.bin / name).chmod(0o755)

    def _springs(self, name: str) -> str:
        return f"open({str(self.marks / name)!r}, 'w').close()\nraise SystemExit('trapped')\n"

    def sprung(self) -> list[str]:
        return sorted(path.name for path in self.marks.iterdir())

    def environment(self) -> dict[str, str]:
        """What a careless `sudo -E` leaves, and the folder of this nicety: it may run from its checkout."""
        return {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "PYTHONPATH": f"{self.path}:{place()}",
            "PYTHONUSERBASE": str(self.home / ".local"),
            "PYTHONSTARTUP": str(self.start),
            "PYTHONINSPECT": "1",
            "PYTHONHOME": "",
            "PYTHONBREAKPOINT": "numpy.x",
            "PYTHONWARNINGS": "error",
            "LD_PRELOAD": str(self.path / "none.so"),
            "LD_LIBRARY_PATH": str(self.path),
            "BASH_ENV": str(self.start),
            "MPLCONFIGDIR": str(self.cwd),
            "LANG": "C.UTF-8",
        }


@pytest.fixture
def traps(tmp_path: Path) -> Traps:
    return Traps(tmp_path)


def test_the_traps_spring_in_an_interpreter_that_is_not_isolated(traps: Traps) -> None:
    harmless = {name: value for name, value in traps.environment().items() if not name.startswith("LD_")}
    for code in ("import numpy", "import subprocess; subprocess.call(['lscpu'])"):
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=traps.cwd,
            env=harmless,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert {"path-sitecustomize", "lscpu"} & set(traps.sprung())


def test_nothing_around_it_runs_in_an_interpreter_of_ours(traps: Traps) -> None:
    done = subprocess.run(
        [*PYTHON, "-c", f"import numpy, msgspec, typer; {SAYS}"],
        cwd=traps.cwd,
        env=environment(traps.environment()),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert traps.sprung() == []
    assert done.returncode == 0, done.stderr
    variables, folders, no_user_site, safe_path = json.loads(done.stdout)
    assert (no_user_site, safe_path) == (1, True)
    assert "" not in folders
    assert not [folder for folder in folders if folder.startswith(str(traps.cwd.parent))]
    known = {"PATH": SEARCH_PATH, "HOME": str(traps.home), "LANG": "C.UTF-8", "PYTHONPATH": place()}
    assert {name: value for name, value in variables.items() if name != "LC_CTYPE"} == known


def test_a_training_in_such_surroundings_runs_none_of_it(traps: Traps, tmp_path: Path) -> None:
    command = [*TRAINING, "train", "--state-dir", str(tmp_path / "state"), "--no-idle"]
    done = subprocess.run(
        command, cwd=traps.cwd, env=environment(traps.environment()), capture_output=True, text=True, timeout=120, check=False
    )
    assert traps.sprung() == []
    assert done.returncode == 1
    assert "nicety record" in done.stderr, "there are no traces to train on"


def test_the_daemon_starts_its_training_with_a_cleared_environment(
    traps: Traps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in traps.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(traps.cwd)
    monkeypatch.setenv("TOKEN", "s3cret")
    told = tmp_path / "told"
    (tmp_path / "training.py").write_text(f"import sys\nsys.stdout = open({str(told)!r}, 'w')\n{SAYS}\n")
    retraining = Retraining(tmp_path / "models", (), (*PYTHON, str(tmp_path / "training.py")))
    retraining.configure(Models(retrain_hours=1.0), 0)
    retraining.tick(3_600_000_000_001)
    deadline = time.monotonic() + 120  # it runs on idle CPUs only
    while not retraining.tick(3_600_000_000_002).said:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    retraining.close()
    assert traps.sprung() == []
    variables = json.loads(told.read_text())[0]
    assert variables.keys() - {"LC_CTYPE"} == {
        *("PATH", "HOME", "LANG", "PYTHONPATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
        *(name for name in os.environ if name.startswith(("NICETY_", "XDG_", "LC_")) or name in {"USER", "LOGNAME", "TERM", "TZ"}),
    } - {"LC_CTYPE"}
    assert variables["PATH"] == SEARCH_PATH


@pytest.mark.parametrize("name", ["nowhere", "elsewhere"])
def test_a_folder_of_pythonpath_stays_only_if_this_nicety_is_there(tmp_path: Path, name: str) -> None:
    assert "PYTHONPATH" not in environment({"PYTHONPATH": f"{tmp_path / name}::."})
    (tmp_path / name).symlink_to(place())
    assert environment({"PYTHONPATH": f"/tmp:{tmp_path / name}"})["PYTHONPATH"] == place()


def test_a_plot_does_not_obey_a_matplotlibrc_of_the_working_directory(traps: Traps, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    words = ["simulate", "--seconds", "60", "--warmup", "10", "--rule", "kpa", "--plot", str(tmp_path / "x.png")]
    code = (
        "import matplotlib.figure; assert matplotlib.rcParams['text.usetex'], 'the trap is not set'\n"
        f"from nicety.scheduler.cli import app\napp(args={words!r}, prog_name='nicety')\n"
    )
    surroundings = {**environment(os.environ), "PATH": f"{traps.bin}:{SEARCH_PATH}", "PYTHONPATH": place()}
    done = subprocess.run([*PYTHON, "-c", code], cwd=traps.cwd, env=surroundings, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert traps.sprung() == []
