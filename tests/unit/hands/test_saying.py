"""Lines of hands and sentries in the daemon's log."""

from __future__ import annotations

import fcntl
import json
import os
import threading

import pytest

from nicety.scheduler.hands import saying
from nicety.scheduler.hands.saying import say


def test_a_line_is_in_the_form_of_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    say(4, "put back\n\ud800" + "x" * 5000)
    (line,) = capfd.readouterr().err.splitlines()
    record = json.loads(line)
    assert (record["kind"], record["priority"], record["text"]) == ("event", 4, "put back\n?" + "x" * 990)


def test_who_does_not_read_the_log_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saying, "PATIENCE", 0.01)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, b"x" * 4096)
    kept = os.dup(2)
    os.dup2(writer, 2)
    try:
        speaker = threading.Thread(target=say, args=(4, "nobody reads this"), daemon=True)
        speaker.start()
        speaker.join(5.0)
        waits = speaker.is_alive()
        os.read(reader, 1 << 16)  # makes room for it, if it waits
        speaker.join(5.0)
    finally:
        os.dup2(kept, 2)
        for each in (kept, reader, writer):
            os.close(each)
    assert not waits
