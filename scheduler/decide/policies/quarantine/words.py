"""Kinds of misbehaviour in words: what it is, how rare, compared with which workers, what to do. Pure: knows figures, no record and
no log.

The only table that maps the evidence of `models.anomaly` to words for a person on call; other evidence is shown by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .....models.records import Anomaly, Blocked

Evidence = Mapping[str, float]

WHAT: Mapping[str, str] = {
    Anomaly.LEAK: "leaks memory",
    Anomaly.FD_LEAK: "leaks descriptors",
    Anomaly.THREAD_LEAK: "leaks threads",
    Anomaly.SPIN: "spins",
    Anomaly.STUCK: "is stuck",
    Anomaly.DEADLOCK: "is deadlocked",
    Anomaly.SLOW: "is slow",
    Anomaly.STARVED: "is starved of CPU",
    Anomaly.FORK_STORM: "starts processes far too often",
    Anomaly.SWITCH_STORM: "is switched far too often",
    Anomaly.CRASH_LOOP: "loses its workers again and again",
    Anomaly.ZOMBIE: "leaves ended processes behind (zombies)",
    Anomaly.OUTLIER: "stands out",
}
"""What a process of this kind does."""

STOP = 'kill -TERM {pid} lets it finish and exit, and {pool} starts another; quarantine.action = "recycle" does this for you'

ADVICE: Mapping[str, tuple[str, ...]] = {
    Anomaly.LEAK: (
        "Only its exit frees this memory",
        STOP,
        "Look at what it served lately, and at what was deployed shortly before it began",
    ),
    Anomaly.FD_LEAK: (
        "It fails when it reaches its limit (ulimit -n): ls -l /proc/{pid}/fd shows what stays open",
        STOP,
    ),
    Anomaly.THREAD_LEAK: (
        "It fails when it reaches its limit (ulimit -u, pids.max): ls /proc/{pid}/task shows the threads",
        STOP,
    ),
    Anomaly.SPIN: (
        "Before you end it, see where it spins: py-spy dump --pid {pid}, or perf top -p {pid}",
        STOP,
        "If it does not exit: kill -KILL {pid}, which loses its current request",
    ),
    Anomaly.STUCK: (
        "See what it waits for: the snapshot (nicety why ID), py-spy dump --pid {pid}",
        "If that is a database or a service, look there first: other workers will get stuck too",
        STOP,
        "If it does not exit: kill -KILL {pid}, which loses its current request",
    ),
    Anomaly.DEADLOCK: (
        "It does not resolve itself: end one of them, best the one that came last; then the others continue",
        "Before you end one, see which locks each took, in which order: py-spy dump --pid PID",
        "Then kill -TERM PID; if it does not exit: kill -KILL PID, which loses its current work",
    ),
    Anomaly.SLOW: (
        "See what it does: py-spy top --pid {pid}; compare with a sibling. If it uses little CPU, what it waits for is slow",
        STOP,
    ),
    Anomaly.STARVED: (
        "It does nothing wrong: its neighbour takes the CPU, so ending it does not help",
        'With class = "interactive" in [pools.{pool}] nicety demotes batch work for it; or renice, move or stop the neighbour',
    ),
    Anomaly.FORK_STORM: (
        "See what it starts: ps --ppid {pid}; a retry loop around a program that fails is the usual cause",
        STOP,
    ),
    Anomaly.SWITCH_STORM: (
        "See what it polls: strace -c -f -p {pid} for a few seconds; a loop with a short or no sleep is the usual cause",
        STOP,
    ),
    Anomaly.CRASH_LOOP: (
        "See in the log of {pool} why its workers end: a deploy, a missing file or service, or too little memory (dmesg)",
        "If it began with a deploy, roll back first and investigate later",
    ),
    Anomaly.ZOMBIE: (
        "ps --ppid {pid} shows them: each keeps a pid, but no memory, until its parent waits for it or ends",
        "If there are so many that pids run out, end the parent",
    ),
    Anomaly.OUTLIER: (
        "It fits no known fault: look at nicety why {pid}, and at what it served lately",
        "If this is normal for it: nicety anomalies wrong ID",
    ),
}
"""What to do, in this order. Names in braces are filled in, as is ID."""

TRAITS: Mapping[str, str] = {
    "rss": "memory",
    "fds": "descriptors",
    "threads": "threads",
    "demand": "CPU that it wants",
    "chars_per_cpu": "bytes read and written per second of CPU",
    "slices_per_cpu": "times put on a CPU per second of CPU",
}
"""Names of `models.anomaly.outliers.TRAITS`, and of `models.anomaly.self_history.HELD`."""

MENTIONED = 1.5
"""Another trait is mentioned if it is this many times the maximum of its own past (chosen: less adds nothing to read)."""


def stories(kind: str, evidence: Evidence) -> tuple[str, str]:
    """(what it does, how it compares), each a part of a sentence; "" if there is nothing to say.

    >>> stories("spin", {"cpu_cores": 0.99, "seconds_without_io_or_pause": 31.0, "usual_seconds": 0.5})
    ('uses 0.99 cores and has neither paused nor read or written anything for 31 s', '0.5 s is usual')
    """
    return _STORIES.get(kind, _named)(evidence)


def rarity(p: float) -> str:
    """A p-value as a share of healthy worker-minutes.

    >>> rarity(2.5e-7), rarity(0.004), rarity(1e-12)
    ('1 in 4 million', '1 in 250', '1 in 1,000 billion or fewer')
    """
    count = 1 / p if p > 0 else 1e12
    if count >= 0.99e12:
        return "1 in 1,000 billion or fewer"
    for unit, name in ((1e9, " billion"), (1e6, " million")):
        if count >= 0.995 * unit:
            return f"1 in {_number(count / unit)}{name}"
    return f"1 in {_number(count)}"


def circle(waits: Sequence[Blocked], at: int) -> tuple[str, ...]:
    """What each process waits for and which process holds it, one line per waiter. `at`: monotonic ns now."""
    lines = []
    for wait in waits:
        holder = "holder unknown" if wait.holder is None else f"held by {wait.holder.pid}"
        lines.append(f"{wait.waiter.pid} has waited {seconds((at - wait.since) / 1e9)} for {wait.what}, {holder}")
    return tuple(lines)


def advice(kind: str, pid: int, pool: str, id_: str) -> tuple[str, ...]:
    """What to do now. `id_`: id of the incident."""
    return tuple(text.format(pid=pid, pool=pool).replace(" ID", f" {id_}") for text in ADVICE.get(kind, ADVICE[Anomaly.OUTLIER]))


def onset(evidence: Evidence) -> float:
    """Seconds for which it had lasted, according to its evidence; 0 if the evidence does not say."""
    return max((value for name, value in evidence.items() if name == "seconds" or name.startswith("seconds_without")), default=0.0)


def seconds(value: float) -> str:
    """A duration.

    >>> seconds(0.5), seconds(31.2), seconds(190)
    ('0.5 s', '31 s', '3 min 10 s')
    """
    if value < 120:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    return f"{int(value / 60)} min {int(value % 60)} s" if value < 7200 else f"{int(value / 3600)} h {int(value % 3600 / 60)} min"


def _number(value: float) -> str:
    """
    >>> _number(4.0), _number(3.21), _number(141234.0)
    ('4', '3.2', '140,000')
    """
    short = float(f"{value:.2g}")
    return f"{short:g}" if short < 10 else f"{short:,.0f}"


def _cores(value: float) -> str:
    return f"{value:.2f} cores"


def _mib(value: float) -> str:
    return f"{value:.0f} MiB" if value >= 10 else f"{value:.1f} MiB"


def _theirs(evidence: Evidence, name: str, say: Callable[[float], str], otherwise: str = "no siblings to compare with") -> str:
    return say(evidence[name]) if name in evidence else otherwise


def _leaking(name: str, what: str, say: Callable[[float], str]) -> Callable[[Evidence], tuple[str, str]]:
    """Growth of memory, descriptors or threads; `name` is what the figures call their unit."""

    def story(evidence: Evidence) -> tuple[str, str]:
        grown = f"its {what} grew by {say(evidence.get(f'growth_{name}', 0.0))} in {seconds(evidence.get('seconds', 0.0))}"
        grown += f" to {say(evidence[f'now_{name}'])}" if f"now_{name}" in evidence else ""
        rate = evidence.get(f"growth_{name}_per_minute")
        grown += f", {say(rate)} a minute now" if rate is not None else ""
        limit = evidence.get("hits_limit_seconds")
        grown += f": the machine's memory is used up in {seconds(limit)} at this pace" if limit is not None and limit > 0 else ""
        theirs = _theirs(evidence, f"siblings_growth_{name}", lambda value: f"siblings' median grew by {say(value)}")
        return grown, theirs + (f" to {say(evidence[f'siblings_{name}'])}" if f"siblings_{name}" in evidence else "")

    return story


def _spin(evidence: Evidence) -> tuple[str, str]:
    what = f"uses {_cores(evidence.get('cpu_cores', 0.0))} and has "
    if "seconds_without_io" in evidence:
        what += f"read and written nothing for {seconds(evidence['seconds_without_io'])} of CPU"
    else:
        for_ = seconds(evidence.get("seconds_without_io_or_pause", 0.0))
        what += f"neither paused nor read or written anything for {for_}"
    usual = f"{seconds(evidence['usual_seconds'])} is usual" if "usual_seconds" in evidence else ""
    theirs = evidence.get("siblings_bytes_per_cpu_second")
    if theirs is not None:
        own = evidence.get("bytes_per_cpu_second", 0.0)
        usual += f"; siblings read and write {theirs:,.0f} bytes per second of CPU, it {own:,.0f}"
    return what, usual


def _stuck(evidence: Evidence) -> tuple[str, str]:
    what = f"has made no progress for {seconds(evidence.get('seconds_without_progress', 0.0))} although there is work"
    usual = f"usual pauses last {seconds(evidence['usual_seconds'])}" if "usual_seconds" in evidence else ""
    going = [
        text.format(evidence[name])
        for name, text in (
            ("siblings_cpu_cores", "{:.2f} cores"),
            ("siblings_slices_per_second", "{:,.0f} times on a CPU a second"),
            ("siblings_bytes_per_second", "{:,.0f} bytes a second"),
        )
        if evidence.get(name, 0.0) >= 0.005
    ]
    return what, "; ".join(filter(None, (usual, f"siblings go on: {', '.join(going)}" if going else "")))


def _starved(evidence: Evidence) -> tuple[str, str]:
    what = f"waits for a CPU {evidence.get('wait_share', 0.0):.0%} of the time that it wants one".replace("%", " %")
    what += f" ({_cores(evidence['wait_cores'])})" if "wait_cores" in evidence else ""
    return what, _theirs(evidence, "siblings_wait_share", lambda value: f"siblings' median waits {value:.0%}".replace("%", " %"))


def _slow(evidence: Evidence) -> tuple[str, str]:
    times = [
        f"{evidence[f'{name}_for_the_same_work_times_siblings']:.2g} times the {what}"
        for name, what in (("cpu", "CPU"), ("busy", "time"))
        if f"{name}_for_the_same_work_times_siblings" in evidence
    ]
    if not times:
        return _named(evidence)
    what = f"takes {' and '.join(times)} of its siblings' median for the same work"
    return what + (f", for {seconds(evidence['seconds'])}" if "seconds" in evidence else ""), ""


def _switch_storm(evidence: Evidence) -> tuple[str, str]:
    what = f"is put on a CPU {evidence.get('switches_per_second', 0.0):,.0f} times a second"
    if "times_for_the_same_work" in evidence:
        what += f", {evidence['times_for_the_same_work']:.2g} times as often as siblings for the same work"
    return what, _theirs(evidence, "siblings_switches_per_second", lambda value: f"siblings' median {value:,.0f} a second")


def _fork_storm(evidence: Evidence) -> tuple[str, str]:
    what = f"starts {evidence.get('processes_started_per_second', 0.0):.3g} processes a second"
    what += f", for {seconds(evidence['seconds'])}" if "seconds" in evidence else ""
    return what, _theirs(evidence, "siblings_processes_started_per_second", lambda value: f"siblings' median {value:.2g}")


def _crash_loop(evidence: Evidence) -> tuple[str, str]:
    if "ended_soon" not in evidence:
        return _named(evidence)
    what = f"{evidence['ended_soon']:.0f} workers ended within {seconds(evidence.get('seconds', 0.0))}"
    what += (
        f", {evidence['one_after_the_other']:.0f} of them each a replacement of the one before"
        if "one_after_the_other" in evidence
        else ""
    )
    what += f", after a median life of {seconds(evidence['median_life_seconds'])}" if "median_life_seconds" in evidence else ""
    usual = evidence.get("usual_life_seconds")
    return what, f"workers of this pool usually live {seconds(usual)}" if usual is not None else ""


def _zombie(evidence: Evidence) -> tuple[str, str]:
    if "zombies" not in evidence:
        return _named(evidence)
    many = f"{evidence['zombies']:.0f} process{'es' if evidence['zombies'] > 1 else ''}"
    return f"{many} ended up to {seconds(evidence.get('seconds', 0.0))} ago, and the exit status was not collected", ""


def _outlier(evidence: Evidence) -> tuple[str, str]:
    times = _traits(evidence, "_times_siblings")
    if not times:
        return _own_past(evidence)
    most = sorted(times, key=lambda name: (-times[name], name))
    rest = ", ".join(f"{TRAITS.get(name, name)} {times[name]:.2g}" for name in most[1:])
    first = f"{TRAITS.get(most[0], most[0])} {times[most[0]]:.2g} times its siblings' median"
    return f"has {first}", f"other traits, times siblings' median: {rest}" if rest else ""


def _own_past(evidence: Evidence) -> tuple[str, str]:
    times, deviations = _traits(evidence, "_times_own_past"), _traits(evidence, "_deviations")
    if not times:
        return _named(evidence)
    first, *others = sorted(times, key=lambda name: (-times[name], name))
    what = f"unlike its own past: {TRAITS.get(first, first)} {times[first]:.2g} times its previous maximum"
    what += f", for {seconds(evidence['seconds'])}" if "seconds" in evidence else ""
    what += f"; it went {deviations[first]:.2g} standard deviations away" if deviations.get(first, 0.0) > 0 else ""
    rest = [f"{TRAITS.get(name, name)} {times[name]:.2g}" for name in others if times[name] >= MENTIONED]
    past = f"its own past is {seconds(evidence['own_past_seconds'])} long" if "own_past_seconds" in evidence else ""
    return what, "; ".join(filter(None, (f"also, times the previous maximum: {', '.join(rest)}" if rest else "", past)))


def _traits(evidence: Evidence, ending: str) -> dict[str, float]:
    return {name.removesuffix(ending): value for name, value in evidence.items() if name.endswith(ending)}


def _named(evidence: Evidence) -> tuple[str, str]:
    """Any other evidence: figures by their names; those of siblings, limits and usual values apart."""
    mine, theirs = list[str](), list[str]()
    for name, value in evidence.items():
        text = f"{name.replace('_', ' ')} {_figure(value)}"
        (theirs if name.startswith(("siblings", "usual", "past")) else mine).append(text)
    return ", ".join(mine), ", ".join(theirs)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


_STORIES: Mapping[str, Callable[[Evidence], tuple[str, str]]] = {
    Anomaly.LEAK: _leaking("mib", "memory", _mib),
    Anomaly.FD_LEAK: _leaking("fds", "open descriptors", lambda value: f"{value:,.0f}"),
    Anomaly.THREAD_LEAK: _leaking("threads", "threads", lambda value: f"{value:,.0f}"),
    Anomaly.SPIN: _spin,
    Anomaly.STUCK: _stuck,
    Anomaly.SLOW: _slow,
    Anomaly.STARVED: _starved,
    Anomaly.FORK_STORM: _fork_storm,
    Anomaly.SWITCH_STORM: _switch_storm,
    Anomaly.CRASH_LOOP: _crash_loop,
    Anomaly.ZOMBIE: _zombie,
    Anomaly.OUTLIER: _outlier,
}
