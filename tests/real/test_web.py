"""The page in a real browser, from a real `nicety web`: live, back in time, by mouse and by keys, through restarts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.scheduler.config.runtime import frames_to_read
from nicety.scheduler.frame import Frame, pack
from nicety.scheduler.interpreter import PYTHON
from nicety.scheduler.testing.browser import Browser, program
from nicety.scheduler.testing.frames import a_frame, a_shown_group, a_shown_pool
from nicety.scheduler.testing.past import SECOND, names_of, write_past, write_traces

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium here: apt-get install chromium")

HOSTILE = "<img src=x onerror=\"document.title='owned'\">[red]\u202egnp\u0007" + "x" * 4000
PLOT = "document.querySelector('.plot').getBoundingClientRect()"


class Site:
    """A state directory with a past, the frame of a daemon, and `nicety web`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.state = place / "state"
        self.frame = place / "frame"
        (place / "nicety.toml").write_text(f'[daemon]\nframe = "{self.frame}"\n')
        assert frames_to_read(str(self.frame), self.state, {}) == [self.frame]
        end = time.time_ns() - 2 * SECOND
        names = [*names_of(10), HOSTILE]
        write_past(self.state, end=end, ticks=400, names=names)
        write_traces(self.state, end=end, ticks=30, names=names)
        self.seq = 0
        self.write()
        self.port = 0
        self.address = ""
        self.start()

    def write(self, cpu: float = 1.0) -> None:
        """A new frame."""
        self.seq += 1
        groups = [a_shown_group("program busy", "batch", cpu=cpu), a_shown_group(HOSTILE, cpu=0.5, wait=0.2)]
        frame: Frame = a_frame(seq=self.seq, wall=time.time(), groups=groups, pools=[a_shown_pool("web")])
        new = self.frame.with_name("new")
        new.write_bytes(pack(frame))
        new.replace(self.frame)

    def start(self) -> None:
        options = ["--config", str(self.place / "nicety.toml"), "--state-dir", str(self.state)]
        command = [*PYTHON, "-m", "nicety.scheduler", *options, "web", "--port", str(self.port)]
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.place / "cache"), "OMP_NUM_THREADS": "1"}
        self.log = (self.place / "log").open("ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, env=environment, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=[\w-]{43}", self.address)
        assert found, (self.place / "log").read_text()
        self.port = int(found[1])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()
        return code


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("web"))
    yield site
    if site.process.poll() is None:
        site.stop()


@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[Browser]:
    with Browser() as browser:
        browser.open(site.address)
        browser.wait("document.documentElement.dataset.seq", 20)
        yield browser


@pytest.fixture
def page(site: Site, browser: Browser) -> Browser:
    """The page as it is when it was just opened."""
    browser.resize(1280, 900)
    browser.open(f"http://127.0.0.1:{site.port}/#0")  # so that the next address loads the page again
    browser.open(f"http://127.0.0.1:{site.port}/?{time.monotonic_ns()}")
    browser.wait("document.documentElement.dataset.seq && document.documentElement.dataset.loaded === '300'", 20)
    return browser


def test_it_opens_without_errors_and_asks_nobody_else(site: Site, browser: Browser) -> None:
    assert browser.run("location.href") == f"http://127.0.0.1:{site.port}/"  # the token is not in it
    assert browser.run("document.cookie") == ""  # no script sees it
    assert browser.said == []
    assert browser.refused == []
    assert {address.split("/")[2] for address in browser.asked if address.startswith("http")} == {f"127.0.0.1:{site.port}"}


def test_a_new_frame_is_shown(site: Site, page: Browser) -> None:
    site.write(cpu=1.37)
    page.wait("[...document.querySelectorAll('#group-table td.figure')].some((cell) => cell.textContent === '1.37')")


def test_hostile_names_are_text(page: Browser) -> None:
    page.wait("[...document.querySelectorAll('#group-table bdi')].some((it) => it.textContent.startsWith('<img src=x'))")
    assert page.run("document.querySelectorAll('img').length") == 0
    assert page.run("document.title.startsWith('nicety')")
    assert page.run("/[\\u0007\\u202e]/.test(document.body.textContent)") is False
    assert page.run("document.documentElement.scrollWidth <= innerWidth")


def test_a_click_on_a_spike_says_who_why_and_what_came_of_it(page: Browser) -> None:
    place = page.run(f"(() => {{ const box = {PLOT}; return [box.x + 0.8 * box.width, box.y + box.height / 2] }})()")
    page.click(*place)
    page.wait("document.querySelectorAll('#moment h3').length >= 5")
    text = page.run("document.querySelector('#moment').textContent")
    assert "Who used the CPUs" in text
    assert "waits 1.5 cores beside" in text
    assert "helped: program worker-" in text
    page.run("[...document.querySelectorAll('#moment button')].find((it) => it.textContent === 'Why').click()")
    page.wait("document.querySelector('#moment pre')?.textContent.includes('Would have flipped it')")
    page.press("Escape")
    page.wait("document.querySelector('#moment').hidden")


def test_keys_reach_all_of_a_chart(page: Browser) -> None:
    page.run("document.querySelector('.plot').focus()")
    page.press("End")
    page.wait("document.querySelector('#spoken').textContent")
    last = page.run("document.querySelector('#spoken').textContent")
    page.press("ArrowLeft")
    page.wait(f"document.querySelector('#spoken').textContent !== {last!r}")
    page.press("Enter")
    page.wait("document.querySelector('#moment h3')")
    assert page.run("document.activeElement.id") == "moment"
    page.press("Escape")
    assert page.run("document.activeElement.className") == "plot"  # back where it was
    page.press("+")
    page.wait("document.documentElement.dataset.loaded === 'zoom'")
    page.run("document.querySelector('.plot').focus()")
    page.press("Escape")
    page.wait("document.documentElement.dataset.loaded === '300'")


def test_a_drag_zooms_and_other_ranges_show_the_same_past(page: Browser) -> None:
    y, left, right = page.run(f"(() => {{ const box = {PLOT}; return [box.y + 60, box.x + 200, box.x + 400] }})()")
    page.click(left, y, to=(right, y))
    page.wait("document.documentElement.dataset.loaded === 'zoom'")
    since, until = map(int, page.run("location.hash").removeprefix("#").split("-"))
    assert 20 < until - since < 300
    for at, seconds in enumerate((300, 3600, 21600, 86400, 604800)):
        page.run(f"document.querySelectorAll('#ranges button')[{at}].click()")
        page.wait(f"document.documentElement.dataset.loaded === '{seconds}'")
        assert page.run("document.querySelectorAll('#ranges [aria-pressed=true]').length") == 1
    page.wait("document.querySelectorAll('.pool').length === 1")


def test_one_group_can_be_shown_alone(page: Browser) -> None:
    page.run("document.querySelector('#group-table button.name').click()")
    page.wait("!document.querySelector('#focus').hidden")
    assert page.run("document.querySelectorAll('#group-table [aria-pressed=true]').length") == 1
    page.run("document.querySelector('#focus button').click()")
    page.wait("document.querySelector('#focus').hidden")


@pytest.mark.parametrize("width", [360, 1600])
def test_it_fits(page: Browser, width: int) -> None:
    page.resize(width, 800)
    page.wait(f"innerWidth === {width} && document.querySelector('.plot canvas').width > {width // 3}")
    assert page.run("document.documentElement.scrollWidth") <= width


def test_dark_and_light_follow_the_system_and_the_button(page: Browser) -> None:
    def ground() -> str:
        return str(page.run("getComputedStyle(document.documentElement).backgroundColor"))

    page.prefer("light")
    light = ground()
    page.prefer("dark")
    assert ground() != light
    page.run("document.querySelector('#theme').click()")
    assert page.run("document.documentElement.dataset.theme") == "light"
    assert ground() == light
    page.run("document.querySelector('#theme').click(); document.querySelector('#theme').click()")
    page.prefer("light")


def test_everything_has_a_name_for_those_who_hear_it(page: Browser) -> None:
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    named = {"button", "textbox", "searchbox", "application", "navigation", "region", "table"}
    found = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")]
    assert len([role for role, _ in found if role == "application"]) >= 3
    assert [role for role, name in found if role in named - {"table"} and not name.strip()] == []


def test_the_daemon_comes_back(site: Site, page: Browser) -> None:
    site.frame.unlink()
    page.wait("document.querySelector('#state').textContent.includes('not running')")
    site.write(cpu=1.61)
    page.wait("document.querySelector('#state').textContent === 'live'")
    page.wait("[...document.querySelectorAll('#group-table td.figure')].some((cell) => cell.textContent === '1.61')")


def test_the_page_goes_on_after_a_restart_of_the_server(site: Site, page: Browser) -> None:
    assert site.stop() == 0
    page.wait("document.querySelector('#state').textContent === 'connecting again'")
    site.start()
    site.write(cpu=1.83)
    page.wait("[...document.querySelectorAll('#group-table td.figure')].some((cell) => cell.textContent === '1.83')", 20)
    assert "Traceback" not in (site.place / "log").read_text()
