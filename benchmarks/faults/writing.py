"""Programs that write files: what is there afterwards is whole, and what was there before is not lost."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nicety.models.artifact import ArtifactError, live_digest, load
from nicety.scheduler.config.paths import Paths
from nicety.scheduler.config.sections import Config
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.ledger import LedgerError
from nicety.scheduler.hands.safe_files import StoreError
from nicety.scheduler.service.recording import record
from nicety.scheduler.store.traces import read_traces

from ..cost import training
from .program import NICETY, End, Program, lost_ticks

EARLIER_TICKS = 20
"""Ticks that were recorded before `record` and `export` begin. Chosen: some pages of a database."""

TRAINING_TICKS = 240
"""Ticks that a model is learned from. Chosen: little more than the least that `train` takes (training/dataset.py)."""


def recorded_before(folder: Path, ticks: int) -> Path:
    """A state directory with a session of so many ticks. Made once."""
    made = folder / "before"
    if not made.exists():
        made.mkdir(mode=0o700)
        rng = np.random.default_rng(1)
        training.write(made, training.workload(ticks, rng, regular_from=0.0), rng)
    return made


class Record(Program):
    """`nicety record` in a state directory that has traces already."""

    name = "record"

    def prepare(self) -> None:
        """Traces of an earlier session."""
        super().prepare()
        shutil.copytree(recorded_before(self.folder, EARLIER_TICKS), self.state, dirs_exist_ok=True)

    def command(self) -> list[str]:
        """As the user types it, for some ticks."""
        return [*NICETY, "record", "--interval", "0.05", "--duration", "0.5", "--state-dir", str(self.state)]

    def wrong(self, end: End) -> Iterator[str]:
        """What was recorded before, and what it says that it has recorded, must be there; and recording goes on afterwards."""
        earlier, new = self._ticks()
        if earlier != EARLIER_TICKS:
            yield f"{EARLIER_TICKS - earlier} ticks of the earlier session are gone"
        said = re.search(r"recorded .*?(\d+) ticks?(?:.*?(\d+) ticks? lost)?", end.err)
        if said is not None and new < int(said[1]) - int(said[2] or 0):
            yield f"it said {said[0]!r}, and {new} ticks are there"
        if end.code == 0 and said is not None and said[2]:
            yield f"exit code 0 though it said {said[0]!r}"
        yield from lost_ticks(self.state, end)
        try:
            record(Config(), Paths(self.state, self.state / "control.sock"), SystemClock(), 0.05, 0.1, lambda _: None)
        except (StoreError, LedgerError) as error:
            yield f"recording does not go on: {error}"
        else:
            if self._ticks()[1] <= new:
                yield f"recording does not go on: {new} ticks, then {self._ticks()[1]}"

    def _ticks(self) -> tuple[int, int]:
        """(ticks of the earlier session, all others) that can be read."""
        if not any((self.state / "traces").glob("*.db")):
            return 0, 0
        ids = [recording.id for recording, _ in read_traces(self.state)]
        first = sum(it == "5e551017" for it in ids)
        return first, len(ids) - first


class Export(Program):
    """`nicety export traces` over an older file."""

    name = "export"
    leaves = ("out/.samples.csv.????????.part",)
    OLD = b"what was there\n"

    def prepare(self) -> None:
        """Traces, and the older file."""
        super().prepare()
        shutil.copytree(recorded_before(self.folder, EARLIER_TICKS), self.state, dirs_exist_ok=True)
        self._file.write_bytes(self.OLD)

    @property
    def _file(self) -> Path:
        return self.out / "samples.csv"

    @property
    def _whole(self) -> Path:
        """What a run without a fault has written."""
        return self.folder / "whole.csv"

    def command(self) -> list[str]:
        """As the user types it."""
        return [*NICETY, "export", "traces", "--out", str(self._file), "--state-dir", str(self.state)]

    def wrong(self, end: End) -> Iterator[str]:
        """The file is the new one, whole, or as it was. Exit code 3: it lacks what could not be read, and that was said."""
        data = self._file.read_bytes() if self._file.exists() else b""
        if end.fault is None:
            self._whole.write_bytes(data)
        whole = self._whole.read_bytes()
        partly = end.code == 3 and "not exported" in end.err and set(data.splitlines()) <= set(whole.splitlines())
        if data not in (whole, self.OLD) and not partly:
            yield f"the file is neither the new one nor the old one: {len(data)} of {len(whole)} bytes"
        if end.code == 0 and data != whole:
            yield "exit code 0, and the file is not the new one"
        yield from lost_ticks(self.state, end)


class Train(Program):
    """`nicety train` of a demand model, with a report."""

    name = "train"
    leaves = ("out/.report.html.????????.part", "state/**/.*.part")

    def prepare(self) -> None:
        """Traces."""
        super().prepare()
        shutil.copytree(recorded_before(self.folder, TRAINING_TICKS), self.state, dirs_exist_ok=True)

    def command(self) -> list[str]:
        """As the user types it."""
        return [
            *NICETY,
            "train",
            "--only",
            "demand",
            "--no-idle",
            "--report",
            str(self.out / "report.html"),
            "--state-dir",
            str(self.state),
        ]

    def wrong(self, end: End) -> Iterator[str]:
        """A live model can be loaded, and the report is whole or not there."""
        models = self.state / "models"
        try:
            live = live_digest(models, "demand")
            if live is not None:
                load(models, "demand", live)
        except ArtifactError as error:
            yield f"the live model cannot be used: {error}"
        else:
            if end.code == 0 and live is None:
                yield "exit code 0, and no model is live"
        page = self.out / "report.html"
        if page.exists() and not page.read_text().rstrip().endswith("</html>"):
            yield "half a report"
        if end.code == 0 and not page.exists():
            yield "exit code 0, and there is no report"
        if end.code == 0 and (self.state / "training").exists():
            yield "exit code 0, and what it takes to resume is still there"
        yield from lost_ticks(self.state, end)
