"""The field scenes: which programs run side by side, where, under which load, and what a person could set by hand."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from . import programs
from .figures import Role
from .load import MARKER
from .programs import SCRIPT, Program


class Layout(StrEnum):
    """How the programs are separated."""

    SESSIONS = "each in a session of its own, in the root cgroup"
    TOGETHER = "all in one session and one cgroup below the root, as in a container"


class Way(StrEnum):
    """How a person demotes programs."""

    NICE = "nice 19"
    AUTOGROUP = "autogroup 19"
    IDLE = "SCHED_IDLE"
    CHILD = "a child cgroup of the least weight"
    AFFINITY = "one CPU only"


@dataclass(frozen=True)
class Hand:
    """A control that a person sets on these programs."""

    way: Way
    programs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.way} for {', '.join(self.programs)}"


def by_hand(*names: str, ways: tuple[Way, ...] = (Way.NICE, Way.AUTOGROUP, Way.AFFINITY)) -> tuple[Hand, ...]:
    """The candidates: each way, on all of these programs together."""
    return tuple(Hand(way, names) for way in ways)


TOGETHER = (Way.NICE, Way.IDLE, Way.CHILD, Way.AFFINITY)
"""Ways that can help in one session and cgroup, where autogroups do not separate the programs."""


@dataclass(frozen=True)
class Requests:
    """`rate` requests a second at random times, to a program that listens."""

    program: str
    rate: float
    request: bytes


@dataclass(frozen=True)
class Transactions:
    """`rate` transactions of pgbench a second at random times."""

    program: str
    rate: float


def asks_redis(rate: float, turns: int = 5000, program: str = "redis") -> Requests:
    """Requests for a script whose loop runs `turns` times: 5,000 take some 0.2 ms."""
    words = ("EVAL", SCRIPT, "0", str(turns))
    parts = (b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)
    return Requests(program, rate, b"".join([b"*%d\r\n" % len(words), *parts]))


def asks_web(program: str, rate: float, path: str = "/") -> Requests:
    """A page."""
    return Requests(program, rate, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


def asks_nginx(rate: float) -> Requests:
    """Requests for a page that nginx compresses each time, which takes some 0.2 ms."""
    return asks_web("nginx", rate, "/page.txt")


@dataclass(frozen=True)
class Scene:
    """The description of one scene; `stage.Stage` runs it."""

    name: str
    title: str
    programs: tuple[Program, ...]
    load: tuple[Requests | Transactions, ...]
    hands: tuple[Hand, ...] = ()  # () if no control by hand can help: `hand` is `nothing` once more
    layout: Layout = Layout.SESSIONS
    inside: frozenset[str] = frozenset()  # programs that run in a pid namespace together with nicety; (): no namespace
    quota: str = ""  # program that its own cgroup's quota throttles
    apart: str = ""  # program that is bound to the last CPU
    deploys: str = ""  # program that is redeployed (SIGHUP) again and again
    demotes: bool = True  # whether a demotion can be right

    @property
    def needs(self) -> set[str]:
        """What must be installed for the scene, in the words of `Program.needs`."""
        own = {need for program in self.programs for need in program.needs}
        tools = {"setsid", "sh"} | ({"unshare"} if self.inside else set()) | ({"taskset"} if self.apart else set())
        return own | tools | ({"chrt"} if any(isinstance(load, Transactions) for load in self.load) else set())


def three_stacks() -> tuple[Program, ...]:
    """Web servers and queue workers of three stacks."""
    web = (programs.uvicorn(), programs.gunicorn("gthread"), programs.gunicorn("gevent"))
    return (*web, programs.redis("broker"), programs.dramatiq(), programs.rq(), programs.producer())


STACKS_LOAD = tuple(asks_web(name, 60) for name in ("uvicorn", "gunicorn-gthread", "gunicorn-gevent"))

SCENES = (
    Scene(
        "unseen-hogs",
        "a service and a small client in a pid namespace; four hogs outside of it, which nicety cannot see",
        (programs.redis(), programs.client("redis"), programs.hogs(4)),
        (asks_redis(400),),
        by_hand("client", ways=(Way.NICE, Way.AUTOGROUP)),
        inside=frozenset({"redis", "client"}),
        demotes=False,
    ),
    Scene(
        "quota",
        "a service that its own cgroup's quota throttles, beside batch work bound to another CPU",
        (programs.redis(), programs.hogs(3)),
        (asks_redis(200, turns=340_000),),
        quota="redis",
        apart="hogs",
        demotes=False,
    ),
    Scene(
        "load-50",
        "an echo service beside fifty hogs",
        (programs.echo(), programs.hogs(50)),
        (Requests("echo", 300, MARKER),),
        by_hand("hogs"),
    ),
    Scene(
        "load-100",
        "an echo service beside a hundred hogs",
        (programs.echo(), programs.hogs(100)),
        (Requests("echo", 300, MARKER),),
        by_hand("hogs"),
    ),
    Scene(
        "stacks",
        "uvicorn with two workers, gunicorn with gthread and with gevent, dramatiq and rq, and no batch work",
        three_stacks(),
        STACKS_LOAD,
        by_hand("dramatiq", "rq", ways=(Way.AUTOGROUP,)),
    ),
    Scene(
        "stacks-batch",
        "the same stacks beside joblib and two hogs",
        (*three_stacks(), programs.joblib(), programs.hogs(2)),
        STACKS_LOAD,
        by_hand("joblib", "hogs"),
    ),
    Scene(
        "deploys",
        "gunicorn, redeployed every four seconds under load, beside four hogs",
        (programs.gunicorn("gthread", workers=2), programs.hogs(4)),
        (asks_web("gunicorn-gthread", 150),),
        by_hand("hogs"),
        deploys="gunicorn-gthread",
    ),
    Scene(
        "build",
        "make -j4 of a C project beside postgres, in sessions of their own",
        (programs.postgres(), programs.build()),
        (Transactions("postgres", 300),),
        by_hand("build"),
    ),
    Scene(
        "build-together",
        "make -j4 of a C project beside postgres, in one session and one cgroup",
        (programs.postgres(), programs.build()),
        (Transactions("postgres", 300),),
        by_hand("build", ways=TOGETHER),
        layout=Layout.TOGETHER,
    ),
    Scene("compress", "xz -T4 beside nginx", (programs.nginx(), programs.xz()), (asks_nginx(400),), by_hand("xz")),
    Scene(
        "training",
        "a training beside a node server",
        (programs.node(), programs.training()),
        (asks_web("node", 300),),
        by_hand("training"),
    ),
    Scene(
        "restore",
        "a database restore beside nginx",
        (programs.nginx(), programs.postgres(Role.BATCH, scale=10), programs.restore()),
        (asks_nginx(400),),
        by_hand("postgres", "restore"),
    ),
    Scene("encode", "ffmpeg beside redis", (programs.redis(), programs.ffmpeg()), (asks_redis(600),), by_hand("ffmpeg")),
    Scene("nothing-to-gain", "redis alone under a light load", (programs.redis(),), (asks_redis(200),), demotes=False),
    Scene(
        "container",
        "redis beside four hogs in one session and one cgroup",
        (programs.redis(), programs.hogs(4)),
        (asks_redis(600),),
        by_hand("hogs", ways=TOGETHER),
        layout=Layout.TOGETHER,
    ),
)
