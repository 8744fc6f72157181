"""The configuration: every key with its default, unit and a sentence. Pure: text in, `Config` out, all errors in one report.

`configs/default.toml` and `docs/configuration.md` are generated from these classes (`python -m nicety.scheduler.config.reference`),
and a test compares them.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, field

from ...models.records import QUANTILES, Class
from ..hands.limits import PROTECT
from ..hands.pool_units import UNITS
from ..redaction import redacted_command, redacted_url
from ..scope import ScopeError, resolve
from .positions import dotted, fault, lines, nearest


class ConfigError(ValueError):
    """The configuration cannot be used; `problems` has one line for each cause: what the file has of line ends and control
    characters is escaped."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = ["".join(char if char.isprintable() else repr(char)[1:-1] for char in problem) for problem in problems]
        super().__init__("\n".join(self.problems))


def _key(field: str) -> str:
    """The key of a field: `class` is a word of Python, so its field is `class_`."""
    return field.rstrip("_")


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename=_key):
    """Base of the sections: flat, every key has a default."""


Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Ticks = Annotated[int, Meta(ge=1, le=100_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Pid = Annotated[int, Meta(ge=2)]
Count = Annotated[int, Meta(ge=0, le=10_000)]
Uid = Annotated[int, Meta(ge=0, le=0xFFFF_FFFE)]
Nice = Annotated[int, Meta(ge=-20, le=19)]
Level = Annotated[float, Meta(ge=min(QUANTILES), le=max(QUANTILES))]


class Daemon(Section, frozen=True):
    """The control loop."""

    interval: Annotated[float, Meta(ge=0.05, le=60, description="Seconds between ticks.")] = 1.0
    act: Annotated[bool, Meta(description="Carry out decisions. If false, observe: decide the same, change nothing.")] = False
    act_on: Annotated[
        list[str],
        Meta(
            description="With `act`: carry out only decisions of these policies or about these pools and groups. []: all decisions."
        ),
    ] = field(default_factory=list)
    undo_on_exit: Annotated[
        bool, Meta(description="Put every changed value back when the daemon stops, and have sentries do it if it dies.")
    ] = True
    state_dir: Annotated[
        str, Meta(description='Traces, decision log, ledger, models. "" is /var/lib/nicety for root, else ~/.local/state/nicety.')
    ] = ""
    socket: Annotated[str, Meta(description='Control socket. "" is control.sock in the state directory.')] = ""
    frame: Annotated[
        str,
        Meta(
            description="File in which views find what there is to see, written each tick: put it on a tmpfs. "
            '"" is /run/nicety/frame for the state directory of root, for others a place on the machine\'s tmpfs.'
        ),
    ] = ""
    control_group: Annotated[
        str,
        Meta(
            description="Unix group whose members may pause and reload, and see the frame, as root and the daemon's own user may. "
            '"": no group.'
        ),
    ] = ""
    reader: Annotated[
        Literal["auto", "proc", "psutil"],
        Meta(
            description='What reads the processes: "proc" is Linux\'s /proc, "psutil" works elsewhere too and sees less '
            '(docs/readers.md); "auto": /proc on Linux.'
        ),
    ] = "auto"
    slow_every: Annotated[
        Ticks, Meta(description="Ticks between two readings of the io counters and descriptor counts of ordinary processes.")
    ] = 10
    probe_interval: Annotated[
        float,
        Meta(ge=0.01, le=10, description="Seconds between two readings of the pools' busy workers and queues, between ticks."),
    ] = 0.1
    budget: Annotated[
        float,
        Meta(
            ge=0.001,
            le=1,
            description="Share of one CPU that the daemon itself may use. If it uses more, it does deferrable work less often "
            "(docs/cli.md lists it).",
        ),
    ] = 0.03
    max_failures: Annotated[
        int,
        Meta(
            ge=1,
            le=1000,
            description="Ticks in a row with a failure after which the daemon undoes its changes and gives up.",
        ),
    ] = 5


class Store(Section, frozen=True):
    """What is kept on disk."""

    traces: Annotated[bool, Meta(description="Record a trace while running, for training and replay.")] = True
    trace_bytes: Annotated[
        int, Meta(ge=1 << 20, le=1 << 50, description="Bytes that all traces may take; the oldest day is deleted first.")
    ] = 1 << 30
    decision_bytes: Annotated[
        int,
        Meta(ge=1 << 20, le=1 << 50, description="Bytes that the decision log may take; the oldest sessions are deleted first."),
    ] = 256 << 20


class Models(Section, frozen=True):
    """Which models are used, and when they are trained again."""

    demand: Annotated[bool, Meta(description="Use the promoted demand model. If false, use the baseline.")] = True
    anomaly: Annotated[bool, Meta(description="Use the promoted anomaly model. If false, use the robust z baseline.")] = True
    behaviour: Annotated[
        bool, Meta(description="Learn the class of groups from their behaviour. If false, use only the classes in this file.")
    ] = True
    certainty: Annotated[
        float,
        Meta(
            gt=0.5, lt=1, description="Least probability at which a group's class counts as known. A group below it is left alone."
        ),
    ] = 0.9
    retrain_hours: Annotated[
        float,
        Meta(
            ge=0,
            le=8760,
            description="Hours of running after which a training begins in the background. 0: never.",
        ),
    ] = 0.0
    retrain_seconds: Annotated[
        float, Meta(ge=10, le=86_400, description="Seconds after which a training in the background is stopped.")
    ] = 1800.0
    retrain_bytes: Annotated[
        int, Meta(ge=256 << 20, le=1 << 50, description="Bytes of memory above which a training in the background is stopped.")
    ] = 1 << 30


class Training(Section, frozen=True):
    """What `nicety train` tries beside its own candidates. The daemon imports nothing of it."""

    regressors: Annotated[
        list[Annotated[str, Meta(pattern=r"^[\w./@+-]{1,512}:[A-Za-z_]\w{0,63}$")]],
        Meta(
            max_length=8,
            description='Regressors of your own for the demand model, "package.module:factory" or "/folder/file.py:factory" '
            "(docs/training.md).",
        ),
    ] = field(default_factory=list)


class GroupRule(Section, frozen=True):
    """`[groups.NAME]`: processes that belong together, with those of their children whose names say nothing (`python -c`, `sh -c`).
    A process must match all keys that are set. Patterns are shell globs."""

    program: Annotated[str, Meta(description='Program, e.g. "postgres" or "python3 train.py".')] = ""
    unit: Annotated[str, Meta(description='systemd unit or container, e.g. "backup.service".')] = ""
    cgroup: Annotated[str, Meta(description='Path in the cpu hierarchy, e.g. "/batch/*".')] = ""
    uid: Annotated[Uid | None, Meta(description="Numeric user id.")] = None
    class_: Annotated[
        Class | None,
        Meta(description='"interactive": is protected; "batch": may be demoted; "exempt": is left alone; not set: is learned.'),
    ] = None


class Queue(Section, frozen=True):
    """`[pools.NAME.queue]`: where the waiting work of a pool is counted. Set exactly one of the keys that say what is counted.

    A URL may be "$NAME" instead, an environment variable of nicety. Several queues of one URL are parted by commas.
    """

    files: Annotated[str, Meta(description='Glob of the waiting files, e.g. "/var/spool/app/new/*".')] = ""
    command: Annotated[list[str], Meta(description="Command (argument list, no shell) that prints the count.")] = field(
        default_factory=list
    )
    redis_list: Annotated[
        str, Meta(description='Redis list, "redis://127.0.0.1:6379/0/queue" or "unix:///run/redis.sock/0/queue".')
    ] = ""
    redis_sorted_set: Annotated[
        str,
        Meta(
            description='Redis sorted set, "redis://127.0.0.1:6379/0/queue"; with "?due=s" or "?due=ms" only the members whose '
            "score is a time that has come."
        ),
    ] = ""
    redis_stream: Annotated[
        str, Meta(description='Redis stream, "redis://127.0.0.1:6379/0/stream?group=workers"; without a group, all its entries.')
    ] = ""
    rq: Annotated[str, Meta(description='Queues of RQ, "redis://127.0.0.1:6379/0/high,default".')] = ""
    dramatiq: Annotated[
        str, Meta(description='Queues of dramatiq in Redis, "redis://127.0.0.1:6379/0/default"; "?namespace=dramatiq".')
    ] = ""
    arq: Annotated[str, Meta(description='Queues of arq, "redis://127.0.0.1:6379/0/arq:queue".')] = ""
    huey: Annotated[str, Meta(description='Queues of huey in Redis, by its name: "redis://127.0.0.1:6379/0/app".')] = ""
    rabbitmq: Annotated[
        str, Meta(description='Queues of RabbitMQ, "amqp://USER:PASSWORD@127.0.0.1:5672/%2F/default": vhost, then queues.')
    ] = ""
    sql: Annotated[
        str, Meta(description='Database, "sqlite:////srv/app/jobs.db", "postgresql://USER:PASSWORD@HOST/DB" or "mysql://...".')
    ] = ""
    sql_query: Annotated[
        str, Meta(description="sql: query that finds one whole number, e.g. \"select count(*) from jobs where state = 'new'\".")
    ] = ""
    sql_python: Annotated[
        str, Meta(description='sql: Python with the driver of the database; "" is the Python that runs nicety.')
    ] = ""
    every: Annotated[Seconds, Meta(description="Seconds between counts.")] = 1.0

    def urls(self) -> list[str]:
        """The keys with a URL that are set."""
        return [key for key in QUEUE_URLS if getattr(self, key)]


QUEUE_URLS = ("redis_list", "redis_sorted_set", "redis_stream", "rq", "dramatiq", "arq", "huey", "rabbitmq", "sql")
"""Keys of a queue that have a URL."""

Ends = Literal["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2"]


class Objective(Section, frozen=True):
    """`[pools.NAME.objective]`: what the pool is to keep with the fewest workers. Set exactly one key."""

    p95: Annotated[str, Meta(description='95 % of the requests are answered within this time, waiting included; e.g. "300ms".')] = (
        ""
    )
    wait: Annotated[str, Meta(description='95 % of the requests wait at most this long for a worker; e.g. "50ms" or "2s".')] = ""
    utilization: Annotated[
        Share, Meta(description="Busy share of a worker, predicted or not: instead of both targets of `[pool_size]`. 0: not set.")
    ] = 0.0


def seconds_of(duration: str) -> float:
    """A duration in seconds. Raises ValueError for a text that is none.

    >>> seconds_of("300ms"), seconds_of("1.5 s")
    (0.3, 1.5)
    """
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?(ms|s)", duration)
    seconds = 0.0 if match is None else float(match[1]) / (1000 if match[2] == "ms" else 1)
    if seconds <= 0:
        raise ValueError(f'"{duration}" is no time above 0; write e.g. "300ms" or "2s"')
    return seconds


class PoolConfig(Section, frozen=True):
    """`[pools.NAME]`: a pool that nicety may size."""

    kind: Annotated[
        Literal["gunicorn", "uvicorn", "uwsgi", "celery", "executor", "command", "supervisord", "systemd"],
        Meta(description="What runs the workers."),
    ]
    minimum: Annotated[int, Meta(ge=0, le=10_000, description="Least number of workers.")] = 1
    maximum: Annotated[int, Meta(ge=1, le=10_000, description="Greatest number of workers.")] = 8
    initial: Annotated[
        Count | None, Meta(description="command: workers to start with, and to keep in observe mode; not set: the minimum.")
    ] = None
    class_: Annotated[Class | None, Meta(description="Class of the workers as a group; not set: is learned.")] = None
    pidfile: Annotated[str, Meta(description="gunicorn, uvicorn, uwsgi, celery: pid file of the main process.")] = ""
    pid: Annotated[
        Pid | None, Meta(description="gunicorn, uvicorn, uwsgi, celery: pid of the main process, instead of a pid file.")
    ] = None
    stats: Annotated[str, Meta(description='uwsgi: stats socket, "HOST:PORT" or the path of a unix socket.')] = ""
    fifo: Annotated[str, Meta(description="uwsgi: path of the master FIFO.")] = ""
    broker: Annotated[
        str,
        Meta(description='celery: URL of the broker, or "$NAME": read it from that environment variable of nicety or the worker.'),
    ] = "$CELERY_BROKER_URL"
    node: Annotated[str, Meta(description='celery: name of the node; "%h" stands for the host name; "" is "celery@%h".')] = ""
    queues: Annotated[list[str], Meta(min_length=1, description="celery: names of the queues that the node works on.")] = field(
        default_factory=lambda: ["celery"]
    )
    python: Annotated[
        str, Meta(description='celery: Python with Celery installed, to ask the node; "" is the Python that runs the node.')
    ] = ""
    command: Annotated[
        list[str],
        Meta(
            description="command: the worker's argument list; no shell. supervisord, systemd: what asks the supervisor, with its "
            'options; not set: "supervisorctl", "systemctl".'
        ),
    ] = field(default_factory=list)
    unit: Annotated[
        str,
        Meta(
            description='systemd: name of the instances of a template, "worker@%d"; supervisord: "GROUP:NAME_%02d". The number '
            "counts up."
        ),
    ] = ""
    first: Annotated[
        Count | None, Meta(description="supervisord, systemd: number of the first; not set: 0 for supervisord, 1 for systemd.")
    ] = None
    directory: Annotated[str, Meta(description='command: working directory of the workers; "" is the daemon\'s.')] = ""
    executor: Annotated[
        str, Meta(description='executor: name of the executor, as in Executor(name=...); "" is the name of the pool.')
    ] = ""
    user: Annotated[
        str, Meta(description='command: user to run the workers as (needs root); executor: its user; "" is the daemon\'s user.')
    ] = ""
    drain_timeout: Annotated[
        Seconds, Meta(description="command: seconds a worker may take to finish after `drain_signal` before SIGKILL.")
    ] = 30.0
    drain_signal: Annotated[Ends, Meta(description="command: signal on which a worker finishes its work and ends.")] = "SIGTERM"
    queue: Annotated[Queue | None, Meta(description="command, supervisord, systemd: where waiting work is counted.")] = None
    objective: Annotated[Objective | None, Meta(description="What to keep with the fewest workers; not set: `[pool_size]`.")] = None


KINDS_OF: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(("pidfile", "pid"), ("gunicorn", "uvicorn", "uwsgi", "celery")),
        **dict.fromkeys(("stats", "fifo"), ("uwsgi",)),
        **dict.fromkeys(("broker", "node", "queues", "python"), ("celery",)),
        **dict.fromkeys(("initial", "directory", "drain_timeout", "drain_signal"), ("command",)),
        **dict.fromkeys(("command", "queue"), ("command", "supervisord", "systemd")),
        **dict.fromkeys(("unit", "first"), ("supervisord", "systemd")),
        "executor": ("executor",),
        "user": ("command", "executor"),
    }
)
"""Keys that only some kinds of pools have, and those kinds."""


class PoolSize(Section, frozen=True):
    """The pool size policy."""

    enabled: Annotated[bool, Meta(description="Propose pool sizes.")] = True
    quantile: Annotated[
        Level,
        Meta(description="Quantile of the load forecast to size for while no seasonal pattern is trusted: 0.5, 0.9, 0.95 or 0.99."),
    ] = 0.5
    predicted_target: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="Busy share of a worker to aim at while the load is predicted, by its seasonal pattern or a forecast.",
        ),
    ] = 0.9
    target: Annotated[
        float,
        Meta(gt=0, le=1, description="Busy share of a worker to aim at while the load is not predicted. 0.7 is Knative's default."),
    ] = 0.7
    cpu_headroom: Annotated[
        Share, Meta(description="Do not grow a pool if predicted CPU demand would exceed this share of the machine.")
    ] = 0.95
    memory_headroom: Annotated[
        Share, Meta(description="Do not grow a pool if memory use would exceed this share of the machine.")
    ] = 0.9
    down_after: Annotated[
        Seconds, Meta(description="Seconds for which fewer workers must have sufficed before a pool shrinks.")
    ] = 10.0
    cooldown_up: Annotated[Seconds, Meta(description="Seconds between two growths of a pool.")] = 1.0
    cooldown_down: Annotated[Seconds, Meta(description="Seconds between any change of a pool and the next shrink.")] = 5.0
    replay_hours: Annotated[
        float,
        Meta(
            ge=0,
            le=8760,
            description="Hours after which a pool's recorded load is replayed in the background, to choose the cheapest rules "
            "for it. 0: never; all rules count.",
        ),
    ] = 24.0


class Priority(Section, frozen=True):
    """The priority policy: protect interactive groups from batch groups."""

    enabled: Annotated[bool, Meta(description="Propose demotions.")] = True
    quantile: Annotated[
        Level, Meta(description="Quantile of the demand forecast to compare with capacity: 0.5, 0.9, 0.95 or 0.99.")
    ] = 0.9
    wait: Annotated[
        float,
        Meta(
            gt=0,
            le=10,
            description="Wait of an interactive group from which contention begins, as a share of the time that it wants a CPU.",
        ),
    ] = 0.05
    release_after: Annotated[Seconds, Meta(description="Seconds after the end of contention until demotions are restored.")] = 15.0
    nice: Annotated[int, Meta(ge=1, le=19, description="Nice for demoted processes and autogroups.")] = 19
    pool_nice: Annotated[
        int, Meta(ge=1, le=5, description="Nice for demoted workers of a pool. At most 5, because they share locks.")
    ] = 5
    weight: Annotated[
        int, Meta(ge=1, le=10_000, description="cgroup v2 weight of a demoted cgroup; on cgroup v1 its shares are twice this.")
    ] = 1
    slice_ms: Annotated[
        float,
        Meta(
            ge=0, le=100, description="Time slice of protected processes in ms while others are demoted. 0: slices are not changed."
        ),
    ] = 0.1
    ease_after: Annotated[
        Seconds, Meta(description="Ease a demotion by one step after so many seconds in which waits stayed below half of `wait`.")
    ] = 60.0
    starve_seconds: Annotated[
        float,
        Meta(
            ge=1,
            le=600,
            description="Seconds for which a demoted process may want a CPU and get less than `floor`; then it is restored at "
            "once. A tenth of this if other demoted processes wait for its lock.",
        ),
    ] = 10.0
    floor: Annotated[
        float,
        Meta(
            ge=0,
            le=0.5,
            description="Least share of one CPU for each demoted session or cgroup, and for all processes that are demoted one by "
            "one together. More than twenty sessions or cgroups share 0.2 of a CPU.",
        ),
    ] = 0.01
    effect_after: Annotated[Seconds, Meta(description="Seconds from a change to the measurement of its effect.")] = 3.0


class Placement(Section, frozen=True):
    """The placement policy: keep batch groups off some CPUs. It pays only with many CPUs: with two it halves the batch."""

    enabled: Annotated[bool, Meta(description="Propose CPU affinities.")] = False
    minimum_cpus: Annotated[int, Meta(ge=2, description="Do nothing on machines with fewer CPUs.")] = 4
    slack: Annotated[
        Share, Meta(description="CPUs kept free for interactive groups beyond their forecast, as a share of the forecast.")
    ] = 0.25


class Quarantine(Section, frozen=True):
    """The quarantine policy: report workers that misbehave, and act on them if `action` says so."""

    enabled: Annotated[bool, Meta(description="Flag workers.")] = True
    false_alarms_per_day: Annotated[
        float,
        Meta(
            gt=0,
            le=1000,
            description="False alarms per day and 100 workers that you accept. Up to 1, only what matters is reported. Above 1, "
            "smaller things are reported too, up to this rate.",
        ),
    ] = 1.0
    patience: Annotated[Seconds, Meta(description="Seconds for which a score must stay significant before it is reported.")] = 5.0
    action: Annotated[
        Literal["flag", "demote", "fence", "recycle"],
        Meta(
            description="What to do besides reporting: nothing; demote the worker; fence it (put it in a separate cgroup that "
            "limits CPU, memory or processes to what its siblings use); or recycle it (drain and replace it)."
        ),
    ] = "flag"
    recycles_per_hour: Annotated[int, Meta(ge=0, le=3600, description="Workers of a pool that may be recycled in an hour.")] = 6
    busy_deadline: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="Seconds to wait for a busy worker to become idle before it is recycled anyway.",
        ),
    ] = 60.0
    alarms_per_day: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="Incidents reported and acted on in 24 hours. Further ones are only summed up, in one line an hour.",
        ),
    ] = 50


class Guard(Section, frozen=True):
    """Hard limits on everything that any policy proposes."""

    changes_per_tick: Annotated[int, Meta(ge=0, le=10_000, description="Decisions that may be admitted in a tick.")] = 32
    cooldown: Annotated[
        float, Meta(ge=0, le=86_400, description="Seconds until the same control of the same target may change again.")
    ] = 2.0
    protect: Annotated[
        list[str],
        Meta(description="Programs never to touch, besides pid 1, kernel threads, nicety and its ancestors, and pool masters."),
    ] = field(default_factory=lambda: list(PROTECT))
    nice_floor: Annotated[Nice, Meta(description="Never set a nice below this.")] = 0
    users: Annotated[list[Uid], Meta(description="Change only processes of these users (uids). []: of all.")] = field(
        default_factory=list
    )
    values_per_minute: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="Values in the kernel that may be changed in a minute; a process has one a thread."),
    ] = 20_000


DYNAMIC_UIDS = range(61184, 65520)
"""Users that systemd makes for services with DynamicUser= (systemd's docs/UIDS-GIDS.md)."""


class Tenants(Section, frozen=True):
    """Whose processes may be demoted for whose. Entries of the lists are "user NAME", "user UID", "unit GLOB" and "slice GLOB"."""

    apart: Annotated[
        bool,
        Meta(
            description="Demote no process for another unprivileged user's. If false, all users are one team: owners do not matter."
        ),
    ] = True
    system_uid_max: Annotated[
        Uid,
        Meta(
            description="Users up to this one are the system's, as are those of DynamicUser=: their processes are helped at "
            "anybody's expense. SYS_UID_MAX of /etc/login.defs."
        ),
    ] = 999
    may_be_demoted: Annotated[list[str], Meta(description="Whose processes may be demoted for anybody.")] = field(
        default_factory=list
    )
    may_be_helped: Annotated[
        list[str], Meta(description="Whose processes are helped at anybody's expense, as the system's are.")
    ] = field(default_factory=list)

    def is_system(self, owner: int | None) -> bool:
        """Whether a user is the system's. `owner`: None if it is not known."""
        return owner is not None and (owner <= self.system_uid_max or owner in DYNAMIC_UIDS)


class Config(Section, frozen=True):
    """The whole file."""

    daemon: Daemon = field(default_factory=Daemon)
    store: Store = field(default_factory=Store)
    models: Models = field(default_factory=Models)
    training: Training = field(default_factory=Training)
    pool_size: PoolSize = field(default_factory=PoolSize)
    priority: Priority = field(default_factory=Priority)
    placement: Placement = field(default_factory=Placement)
    quarantine: Quarantine = field(default_factory=Quarantine)
    guard: Guard = field(default_factory=Guard)
    tenants: Tenants = field(default_factory=Tenants)
    groups: dict[str, GroupRule] = field(default_factory=dict)
    pools: dict[str, PoolConfig] = field(default_factory=dict)


Report = Callable[[tuple[str, ...], str], None]
"""Called with the path of a key and what is wrong with it."""

UidOf = Callable[[str], int]
"""The uid of a user's name. Raises LookupError, whose text says what to do, for an unknown one."""


def no_names(name: str) -> int:
    """A `UidOf` without a database of users."""
    raise LookupError(f'the name "{name}" cannot be looked up here: give the uid')


def parse(text: str, where: str = "configuration", uid_of: UidOf = no_names) -> Config:
    """The configuration in `text` (TOML). In `[tenants]` users have their uids instead of names.

    Raises ConfigError with a line for every problem, in the order of the file: "FILE:LINE: section.key: cause; what to do". For a
    text that is not TOML it is "FILE:LINE:COLUMN: cause; what to do".
    """
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError; so are integers of 5,000 digits
        place, cause = fault(error)
        at = place or len(text.rstrip().split("\n"))  # an error without a place is about the end of the text
        raise ConfigError([f"{where}:{at}: not valid TOML: {cause}; correct it here or above"]) from None
    problems: list[tuple[tuple[str, ...], str]] = []
    faulty = set[tuple[str, ...]]()

    def report(path: tuple[str, ...], cause: str) -> None:
        faulty.add(path)
        problems.append((path, cause))

    config = msgspec.convert(_check(raw, Config, (), report, faulty), Config)
    config = msgspec.structs.replace(config, tenants=_resolved(config.tenants, uid_of, report))
    for path, cause, keys in _senseless(config):
        section = path[:-1] if path[-1] in keys else path
        if not any((*section, key) in faulty for key in keys):  # a reported key has its default here
            report(path, cause)
    if problems:
        known = lines(text)
        placed = sorted(((nearest(known, path), path, cause) for path, cause in problems), key=lambda it: it[0])
        raise ConfigError([f"{where}:{line}: {dotted(path)}: {cause}" for line, path, cause in placed])
    return config


def _resolved(tenants: Tenants, uid_of: UidOf, report: Report) -> Tenants:
    """The section with uids instead of names. An entry that names nobody is reported and left out."""

    def entries(key: str) -> list[str]:
        kept, wrong = list[str](), list[str]()
        for entry in getattr(tenants, key):
            kind, _, name = entry.partition(" ")
            try:
                kept.append(f"user {name if name.isdecimal() else uid_of(name)}" if kind == "user" and name else entry)
            except LookupError as error:
                wrong.append(str(error.args[0]))
                continue
            if kind not in ("user", "unit", "slice") or not name or name != name.strip():
                wrong.append(f'"{entry}" is no "user NAME", "user UID", "unit GLOB" or "slice GLOB"{_meant(entry)}')
            elif kind == "slice" and not name.endswith((".slice", "*")):
                wrong.append(f'"{entry}" names no slice; did you mean "{entry}.slice"?')
        if wrong:
            report(("tenants", key), "; ".join(wrong))
        return kept

    return msgspec.structs.replace(tenants, may_be_demoted=entries("may_be_demoted"), may_be_helped=entries("may_be_helped"))


def _meant(entry: str) -> str:
    """What an entry of `[tenants]` without a valid kind probably stands for, as a question."""
    kind, _, name = entry.strip().partition(" ")
    close = difflib.get_close_matches(kind, ("user", "unit", "slice"), n=1, cutoff=0.5)
    if name and close:
        return f'; did you mean "{close[0]} {name.strip()}"?'
    word = "slice" if kind.endswith(".slice") else "unit" if kind.endswith((".service", ".scope")) else "user"
    return f'; did you mean "{word} {kind}"?' if kind and not name else ""


def to_builtins(config: Config) -> dict[str, Any]:
    """Plain dicts, for the session header of the decision log: without passwords, and of commands only the program. No decision
    depends on either."""
    result: dict[str, Any] = msgspec.to_builtins(config)
    for pool in result["pools"].values():
        pool["broker"], pool["command"] = redacted_url(pool["broker"]), redacted_command(pool["command"])
        if pool["queue"] is not None:
            queue = pool["queue"]
            queue |= {key: redacted_url(queue[key]) for key in QUEUE_URLS} | {"command": redacted_command(queue["command"])}
    return result


def from_builtins(data: dict[str, Any]) -> Config:
    """The configuration of a session header."""
    return msgspec.convert(data, Config)


def _check(
    raw: dict[str, Any], cls: type[msgspec.Struct], path: tuple[str, ...], report: Report, meant: set[tuple[str, ...]]
) -> dict[str, Any]:
    """`raw` without its faulty keys; each fault is reported.

    `meant` gets the keys that unknown ones probably stand for.
    """
    hints = {_key(name): hint for name, hint in get_type_hints(cls, include_extras=True).items()}
    clean: dict[str, Any] = {}
    for key, value in raw.items():
        here = (*path, key)
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1, cutoff=0.5)
            hint = f'did you mean "{close[0]}"?' if close else f"known keys: {', '.join(sorted(hints))}"
            report(here, f"unknown key; {hint}")
            meant.update((*path, name) for name in close)
            continue
        hint_type = hints[key]
        table, named = _table_of(hint_type)
        if table is not None:
            if not isinstance(value, dict):
                report(here, f"must be a table, e.g. [{'.'.join(here)}]")
            elif named:
                entries = {}
                for name, entry in value.items():
                    if not isinstance(entry, dict):
                        report((*here, name), f"must be a table, [{'.'.join(here)}.{name}]")
                    elif not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
                        report((*here, name), "a name has 1 to 64 letters, digits, '_', '-' or '.'; choose another")
                    else:
                        # A stand-in for a required key that is missing or faulty, and reported: so the others can be compared.
                        entries[name] = _stand_ins(table) | _check(entry, table, (*here, name), report, meant)
                clean[key] = entries
            else:
                clean[key] = _check(value, table, here, report, meant)
            continue
        if isinstance(value, float) and not math.isfinite(value):
            report(here, f"{value} is not a finite number; {_instead(cls, key)}")
            continue
        try:
            msgspec.convert(value, hint_type)
        except msgspec.ValidationError as error:
            report(here, f"{_in_words(str(error))}; {_instead(cls, key)}")
            continue
        if any("\0" in text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)):
            report(here, "holds a NUL character, which no path or argument can; take it out")
            continue
        clean[key] = value
    for name in cls.__struct_encode_fields__:
        if name in hints and name not in raw and _required(cls, name):
            report((*path, name), f"missing, and it has no default; {_instead(cls, name)}")
    return clean


def _instead(cls: type[msgspec.Struct], key: str) -> str:
    """What a person may write for a key, or what holds without it."""
    info = _fields(cls)[key]
    choices = _choices(info.type)
    if choices:
        return "one of " + ", ".join(f'"{choice}"' for choice in choices)
    default = info.default if info.default_factory is msgspec.NODEFAULT else info.default_factory()
    return "or leave the key out" if default is None else f"the default is {json.dumps(default)}"


_WORDS = {
    "bool": "true or false",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "array": "a list",
    "object": "a table",
}


def _in_words(message: str) -> str:
    """A message of msgspec about a value, in the words of docs/configuration.md.

    >>> _in_words("Expected `int | null`, got `str`")
    'must be a whole number, not text'
    """

    def words(match: re.Match[str]) -> str:
        return " or ".join(_WORDS.get(name, name) for name in match[1].split(" | ") if name != "null")

    text = re.sub(r" - at `\$\[(\d+)\]`", lambda match: f" (number {int(match[1]) + 1} of the list)", message)
    text = re.sub(r"^Invalid enum value '(.*)'", r'there is no value "\1"', text)
    return re.sub(r"`([a-z |]+)`", words, text).replace("Expected ", "must be ", 1).replace(", got ", ", not ", 1)


def _stand_ins(cls: type[msgspec.Struct]) -> dict[str, Any]:
    """A value of each required key, all of which have choices."""
    return {name: _choices(field.type)[0] for name, field in _fields(cls).items() if field.required}


def _required(cls: type[msgspec.Struct], name: str) -> bool:
    return _fields(cls)[name].required


@cache
def _fields(cls: type[msgspec.Struct]) -> Mapping[str, msgspec.structs.FieldInfo]:
    """The fields of a section by their keys. Found once: each time takes as long as reading a small file."""
    return {field.encode_name: field for field in msgspec.structs.fields(cls)}


def _table_of(hint: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    """(section class, is it a table of named sections) behind a type hint, (None, False) for a plain value."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) is dict:
        return get_args(hint)[1], True
    for part in (hint, *get_args(hint)):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return part, False
    return None, False


def _choices(hint: Any) -> tuple[Any, ...]:
    """The values of an enumeration or Literal behind a type hint, () for any other."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return tuple(Class) if Class in (hint, *get_args(hint)) else get_args(hint) if get_origin(hint) is Literal else ()


Senseless = tuple[tuple[str, ...], str, tuple[str, ...]]
"""Path of a problem, its cause, and the keys of its section that the problem depends on."""


def _senseless(config: Config) -> Iterator[Senseless]:
    """Problems that show only when keys are compared."""
    meaningless = []
    for word in config.daemon.act_on:
        try:
            resolve((word,), config.pools, config.groups, ())
        except ScopeError as error:
            meaningless.append(str(error))
    if meaningless:
        cause = f"{'; '.join(meaningless)}; a section [groups.NAME] gives a group a name"
        yield ("daemon", "act_on"), cause, ("act_on",)
    for section, level in (("pool_size", config.pool_size.quantile), ("priority", config.priority.quantile)):
        if level not in QUANTILES:
            cause = f"{level} is not a level that models forecast; choose one of {QUANTILES}"
            yield (section, "quantile"), cause, ("quantile",)
    for name, pool in config.pools.items():
        yield from _senseless_pool(("pools", name), pool)
    for name in sorted(config.groups.keys() & config.pools.keys()):
        yield ("groups", name), "a pool has this name already; names are shared, choose another", ()
    for name, rule in config.groups.items():
        if not (rule.program or rule.unit or rule.cgroup or rule.uid is not None):
            yield ("groups", name), "matches nothing: give program, unit, cgroup or uid", ("program", "unit", "cgroup", "uid")


def _senseless_pool(path: tuple[str, ...], pool: PoolConfig) -> Iterator[Senseless]:
    """Problems in the section of one pool that show only when keys are compared."""
    if pool.minimum > pool.maximum:
        yield (
            (*path, "minimum"),
            f"{pool.minimum} is more than maximum = {pool.maximum}; change one of them",
            ("minimum", "maximum"),
        )
    if pool.initial is not None and not pool.minimum <= pool.initial <= pool.maximum:
        cause = f"{pool.initial} is not between minimum = {pool.minimum} and maximum = {pool.maximum}; change one of them"
        yield (*path, "initial"), cause, ("initial", "minimum", "maximum")
    if pool.kind in MASTERS and not pool.pidfile and pool.pid is None:
        yield path, MASTERS[pool.kind], ("kind", "pidfile", "pid")
    if pool.kind == "uwsgi" and not (pool.stats and pool.fifo.startswith("/")):
        cause = 'a uwsgi pool needs stats = "HOST:PORT" or "/PATH", and fifo = "/PATH" (uWSGI\'s stats and master-fifo)'
        yield path, cause, ("kind", "stats", "fifo")
    if pool.kind == "celery" and not re.match(r"\$[A-Za-z_]\w*$|[a-z][a-z0-9+.-]*://", pool.broker):
        cause = 'give a URL, "redis://HOST:PORT/DB", or an environment variable, "$NAME"'
        yield (*path, "broker"), cause, ("kind", "broker")
    if pool.kind != "command" and pool.minimum < 1:
        cause = f"a pool of kind {pool.kind} keeps at least one worker: give 1 or more"
        yield (*path, "minimum"), cause, ("kind", "minimum")
    for key, kinds in KINDS_OF.items():
        if pool.kind not in kinds and getattr(pool, key) != getattr(PoolConfig(kind=pool.kind), key):
            yield (*path, key), f"only pools of kind {' or '.join(kinds)} have this key: leave it out", ("kind", key)
    if pool.kind == "command" and not pool.command:
        yield path, 'a command pool needs what to run: give command = ["program", "argument"]', ("kind", "command")
    if pool.kind in UNITS and not re.fullmatch(UNITS[pool.kind], pool.unit):
        cause = f'a {pool.kind} pool needs the names of its workers: give unit = "{EXAMPLE_UNITS[pool.kind]}"'
        yield (*path, "unit"), cause, ("kind", "unit")
    if pool.queue is not None:
        counted = ("files", "command", *QUEUE_URLS)
        if sum(bool(getattr(pool.queue, key)) for key in counted) != 1:
            yield (*path, "queue"), f"give exactly one of {', '.join(counted)}", counted
        if bool(pool.queue.sql) != bool(pool.queue.sql_query):
            yield (*path, "queue"), "sql and sql_query belong together: give both", ("sql", "sql_query")
    if pool.objective is not None:
        yield from _senseless_objective((*path, "objective"), pool.objective)


def _senseless_objective(path: tuple[str, ...], objective: Objective) -> Iterator[Senseless]:
    """Problems in the objective of a pool."""
    given: dict[str, Any] = {key: value for key in ("p95", "wait", "utilization") if (value := getattr(objective, key))}
    if len(given) != 1:
        yield path, "give exactly one of p95, wait, utilization", ("p95", "wait", "utilization")
    for key in given.keys() - {"utilization"}:
        try:
            seconds_of(given[key])
        except ValueError as error:
            yield (*path, key), str(error), (key,)


EXAMPLE_UNITS: Mapping[str, str] = MappingProxyType({"supervisord": "thumbs:thumbs_%02d", "systemd": "worker@%d"})
"""An example of each."""

MASTERS: Mapping[str, str] = MappingProxyType(
    {
        "gunicorn": 'a gunicorn pool needs its master: give pidfile = "..." (gunicorn --pid FILE) or pid = N',
        "uvicorn": 'a uvicorn pool needs its supervisor: give pidfile = "..." (with the pid of uvicorn --workers) or pid = N',
        "uwsgi": 'a uwsgi pool needs its master: give pidfile = "..." (uWSGI\'s pidfile) or pid = N',
        "celery": 'a celery pool needs its main process: give pidfile = "..." (celery worker --pidfile FILE) or pid = N',
    }
)
"""What to report for a pool without its main process."""
