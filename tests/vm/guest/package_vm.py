"""The Debian package on a machine that runs: its services come up, an upgrade puts back what was changed and goes on, a purge
leaves nothing. The machine is a clean Debian with a systemd of its own; this and pytest are read from the machine that emulates it.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from bench import HOG, SERVICE, UNIFIED, Group, group, offline, until, work
from units_vm import CONFIG, demoted, main_pid, systemctl

sys.path.append(str(Path(__file__).resolve().parents[1]))

from package import differences, files, version

OLDER, NEWER = map(Path, os.environ["NICETY_VM_PACKAGES"].split(":"))
ROOT = Path("/")
READERS = ("nicety-exporter", "nicety-notify", "nicety-web")
ALL = ("nicety", "nicety-hands", *READERS)


def typed(*command: str, status: int = 0) -> str:
    """What a command writes that root types. Any other exit status than the expected is an error."""
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": "/root",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd="/")
    said = done.stdout + done.stderr
    print("$", *command, said, sep="\n")
    assert done.returncode == status, said
    return said


def page(address: str) -> str:
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with browser.open(address, timeout=60) as answer:
        return str(answer.read().decode())


def cgroups() -> set[str]:
    """Those that a unit or somebody has made, and that do not come and go by themselves."""
    return {str(path) for path in UNIFIED.rglob("*") if path.is_dir() and "nicety" in path.name}


def of_nicety() -> list[str]:
    """Processes that run the program or belong to a user of it."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            line = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "/nicety" in line.partition("--host")[0] and "pytest" not in line:
            found.append(f"{place.name} {line}")
    return found


@contextmanager
def weights_of(batch: Group) -> Iterator[list[int]]:
    """Every weight that the cgroup has while the block runs, in order."""
    seen: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            weight = int(batch.read("cpu.weight"))
            if not seen or seen[-1] != weight:
                seen.append(weight)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        over.set()
        looking.join()


@pytest.fixture
def machine() -> Iterator[None]:
    """What the units said, where a test fails."""
    try:
        yield
    finally:
        for unit in ALL:
            print(systemctl("status", "--no-pager", unit))
        print(
            subprocess.run(
                ["journalctl", "--no-pager", "--lines=200", "--unit=nicety*"], capture_output=True, text=True, check=False
            ).stdout
        )


def test_it_is_installed_runs_is_upgraded_while_it_acts_and_leaves_nothing(machine: None) -> None:
    before, groups_before = files(ROOT), cgroups()
    assert groups_before == set()

    print("installed: it observes")
    typed("dpkg", "--install", str(OLDER))
    assert typed("nicety", "--version").split()[-1] == version(OLDER)
    assert systemctl("is-enabled", "nicety") == "enabled"
    until(lambda: systemctl("is-active", "nicety-hands") == "active")
    assert json.loads(typed("nicety", "status", "--json"))["mode"] == "observe"
    assert [systemctl("is-active", unit) for unit in READERS] == ["inactive"] * 3

    print("configured: it acts, and everything that reads runs too")
    config = Path("/etc/nicety/nicety.toml")
    config.write_text(CONFIG)
    page_me = Path("/etc/systemd/system/nicety-notify.service.d")
    page_me.mkdir()
    (page_me / "command.conf").write_text("[Service]\nExecStart=\nExecStart=/usr/bin/nicety notify -- /bin/true\n")
    systemctl("daemon-reload")
    assert systemctl("restart", "nicety") == ""
    assert systemctl("start", *READERS) == ""
    with offline(2, 3, 4, 5, 6, 7), group("service") as service, group("batch") as batch, ExitStack() as load:
        load.enter_context(work(SERVICE, service))
        load.enter_context(work(HOG, batch, count=3))
        until(lambda: demoted(batch))
        reads()
        assert {unit: systemctl("is-active", unit) for unit in ALL} == dict.fromkeys(ALL, "active")
        pids = {unit: main_pid(unit) for unit in ALL}
        assert pwd.getpwuid(Path(f"/proc/{pids['nicety']}").stat().st_uid).pw_name == "nicety"

        print("upgraded while it acts")
        with weights_of(batch) as weights:
            typed("dpkg", "--install", str(NEWER))
            assert 100 in weights, weights
            until(lambda: demoted(batch))
        assert weights[0] < 50
        assert typed("nicety", "--version").split()[-1] == version(NEWER)
        assert config.read_text() == CONFIG
        until(lambda: [systemctl("is-active", unit) for unit in ALL] == ["active"] * len(ALL))
        after = {unit: main_pid(unit) for unit in ALL}
        assert not {*pids.values()} & {*after.values()}
        assert "# The next release." in systemctl("cat", "nicety")
        reads()
        assert "Failed with result" not in "".join(map(journal, READERS))

        print("removed: the configuration and what it learnt stay")
        typed("dpkg", "--remove", "nicety")
        assert batch.read("cpu.weight") == "100"
        assert of_nicety() == []
        assert config.read_text() == CONFIG
        assert Path("/var/lib/nicety/brain").is_dir()
        assert not Path("/run/nicety-hands.sock").exists()

        print("installed again, and purged while it acts")
        typed("dpkg", "--install", str(NEWER))
        until(lambda: demoted(batch))
        typed("dpkg", "--purge", "nicety")
        assert batch.read("cpu.weight") == "100"
    for part in page_me.iterdir():
        part.unlink()
    page_me.rmdir()
    systemctl("daemon-reload")
    assert of_nicety() == []
    assert not Path("/run/nicety").exists()
    assert cgroups() == set()
    left = [line for line in differences(before, files(ROOT)) if "machine-id" not in line]
    assert left == [], "\n".join(left)
    assert [user.pw_name for user in pwd.getpwall() if "nicety" in user.pw_name] == []


def reads() -> None:
    """The exporter tells metrics of the scene, and the page is served to who has its address."""
    until(lambda: re.search(r'^nicety_\w+\{[^}]*group="batch"', fetched("http://127.0.0.1:29753/metrics"), re.MULTILINE))
    until(lambda: any("<title>" in fetched(address) for address in re.findall(r"http://\S+token=\S+", journal("nicety-web"))[-1:]))


def fetched(address: str) -> str:
    """A page, or nothing as long as nobody listens."""
    try:
        return page(address)
    except OSError:
        return ""


def journal(unit: str) -> str:
    return subprocess.run(
        ["journalctl", "--no-pager", "--output=cat", f"--unit={unit}"], capture_output=True, text=True, check=False
    ).stdout
