"""What is known of the chosen row, in a few lines below the table. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ...frame import Decided, Delay, Frame, Group, Incident, Pool
from ...words import moment
from . import figures
from .cells import Line, Piece, filled, folded, length, shown, width_of
from .glyphs import Glyphs, graph
from .tables import Context, Note, Process, Row, value_words

AHEAD = 12
"""Cells of a forecast (chosen)."""

LABEL = 11
"""Cells of a label."""


def detail(row: Row | None, context: Context, width: int, height: int) -> list[Line]:
    """Exactly so many lines about a row."""
    if row is None:
        lines: list[Line] = []
    else:
        side = min(max(width // 3, 34), 70) if width >= 100 and isinstance(row, Group | Pool) else 0
        words = _words(row, context, width - side - (3 if side else 0))
        lines = words if not side else _beside(_picture(row, context, side, height), words, side, context.glyphs)
    lines = [filled(line, width) for line in lines[:height]]
    return lines + [filled((), width)] * (height - len(lines))


def _beside(left: Sequence[Line], right: Sequence[Line], side: int, glyphs: Glyphs) -> list[Line]:
    return [
        (
            *filled(left[at] if at < len(left) else (), side),
            (f" {glyphs.beside} ", "faint"),
            *(right[at] if at < len(right) else ()),
        )
        for at in range(max(len(left), len(right)))
    ]


def _picture(row: Row, context: Context, width: int, height: int) -> list[Line]:
    """What a group wanted or a pool's load was, and what is predicted: the median, and above it what is exceeded in one of twenty
    cases."""
    assert isinstance(row, Group | Pool)
    if isinstance(row, Group):
        values, unit, now = context.history.demand(row.name), "cores wanted", row.demand
    else:
        values, unit, now = context.history.load(row.name), "workers' load", row.load or 0.0
    forecast = row.forecast
    ahead = AHEAD if forecast is not None and forecast.median else 0
    most = max([*values, *(forecast.high if forecast else ()), 0.1])
    rows = max(1, height - 1)
    past = graph(values, most, width - ahead - (1 if ahead else 0), rows, context.glyphs)
    lines: list[Line] = []
    if ahead and forecast is not None:
        medians, highs = _spread(forecast.seconds, forecast.median, ahead), _spread(forecast.seconds, forecast.high, ahead)
        sure = graph(medians, most, ahead, rows, context.glyphs, "ahead")
        band = graph(highs, most, ahead, rows, context.glyphs, "band")
        for left, inner, outer in zip(past, sure, band, strict=True):
            lines.append((*left, (context.glyphs.beside, "faint"), *_over(inner, outer)))
    else:
        lines = list(past)
    text = f"{now:.2f} {unit}, at most {max([*values, now]):.2f}"
    if forecast is not None and forecast.median:
        text += f"; in {forecast.seconds[-1]:.0f} s {figures.band(forecast, context.glyphs.dash)}"
    return [((text, "dim"),), *lines]


def _over(inner: Line, outer: Line) -> Line:
    """One line of a picture before another."""
    front, behind = "".join(text for text, _ in inner), "".join(text for text, _ in outer)
    pieces = []
    for near, far in zip(front, behind, strict=True):
        pieces.append((far, "band") if near == " " else (near, "ahead" if far == " " else "over"))
    return tuple(pieces)


def _spread(seconds: Sequence[float], values: Sequence[float], cells: int) -> list[float]:
    """Values at some times as one for each cell from the first time to the last."""
    found = []
    for cell in range(cells):
        at = seconds[-1] * (cell + 1) / cells
        after = next((index for index, second in enumerate(seconds) if second >= at), len(seconds) - 1)
        if after == 0:
            found.append(values[0])
            continue
        begin, end = seconds[after - 1], seconds[after]
        part = min(1.0, max(0.0, (at - begin) / (end - begin))) if end > begin else 1.0
        found.append(values[after - 1] + (values[after] - values[after - 1]) * part)
    return found


def _words(row: Row, context: Context, width: int) -> list[Line]:
    match row:
        case Group():
            return _of_group(row, context, width)
        case Pool():
            return _of_pool(row, context.frame, width)
        case Process():
            return _of_process(row, context, width)
        case Incident():
            facts = f"{row.kind} in pool {row.pool}, since {moment(round(row.wall * 1e9))}; id {row.id}"
            return [*_labelled("incident", facts, width, "bad"), *_labelled("in words", row.text, width)]
        case Decided():
            return _of_decision(row, width)
        case Note():
            return _labelled("note", row.text, width)


def _labelled(label: str, text: str, width: int, style: str = "") -> list[Line]:
    """A text beside its label, folded."""
    lines = folded(text, max(width - LABEL, 8))
    return [((f"{label if not at else '':<{LABEL}}", "label"), (line, style)) for at, line in enumerate(lines)]


def _of_group(row: Group, context: Context, width: int) -> list[Line]:
    lines = _labelled("group", row.name, width, "name")[:2]
    lines += _labelled("class", class_words(row), width, row.class_)
    share = figures.wait_share(row.wait, row.demand)
    uses = f"{row.cpu:.2f} cores of the {row.demand:.2f} that it wants; waits for {row.wait:.2f} ({figures.share(share) or '0%'})"
    if row.brief >= 0.005:
        uses += f"; {row.brief:.2f} by processes shorter than a tick"
    if row.throttled >= 0.005:
        uses += f"; its own quota stops it {row.throttled:.0%} of the time"
    lines += _labelled("uses", uses, width)
    lines += _labelled("has", f"{figures.many(row.processes, 'process')}, {figures.size(row.memory)} of memory", width)
    if row.delay is not None:
        lines += _labelled("waits for", waits_for(row.delay), width, "culprit")
    for change in row.changes:
        for_whom = f" for {figures.name_of(change.protects)}" if change.protects else ""
        since = moment(round(change.wall * 1e9), day=False)
        before, now = value_words(change.control, change.original), value_words(change.control, change.now)
        text = f"{change.control} {before} {context.glyphs.arrow} {now}{for_whom}, since {since} ({change.decision})"
        lines += _labelled("changed", text, width, "change")
    said = next((it for it in context.frame.decisions if it.target == f"group {row.name}"), None)
    if said is not None:
        lines += _labelled("last", _decision_words(said), width, "dim")
    return lines


def class_words(row: Group) -> str:
    """The class of a group, and how sure it is.

    >>> from ...testing.frames import a_shown_group
    >>> class_words(a_shown_group("make", "batch"))
    'batch, 97 % sure by what it does'
    """
    if row.given:
        return f"{row.class_}, as configured"
    if row.certainty is None:
        return f"{row.class_}: nothing is known of it yet" if row.class_ == "exempt" else row.class_
    if row.class_ == "exempt":
        return f"exempt: left alone; rather {row.leans} ({row.certainty:.0%})" if row.leans else "exempt: left alone"
    return f"{row.class_}, {min(row.certainty, 0.99) * 100:.0f} % sure by what it does"


def waits_for(delay: Delay) -> str:
    """For what a group waits, all of it: the largest first, and many small ones together last."""
    parts = [(figures.name_of(name), cores) for name, cores in delay.by]
    parts += [("its own threads", delay.own), ("what cannot be seen", delay.unseen), ("the hypervisor", delay.steal)]
    parts = [*sorted(parts, key=lambda part: -part[1]), ("further groups", delay.others)]
    named = [f"{name} {cores:.2f}" for name, cores in parts if cores >= 0.005]
    return ", ".join(named) + f" (cores, of {delay.wait:.2f})"


def _of_pool(row: Pool, frame: Frame, width: int) -> list[Line]:
    size = f"{row.size} workers" + ("" if row.size == row.wanted else f", {row.wanted} asked for")
    lines = _labelled("pool", f"{row.name} ({row.kind}): {size}, between {row.minimum} and {row.maximum}", width, "name")
    known = [
        ("busy", row.busy, ""),
        ("queued", row.queued, ""),
        ("load", row.load, ""),
        ("arrivals", row.arrivals, " a second"),
    ]
    lines += _labelled("now", ", ".join(f"{name} {value:.3g}{unit}" for name, value, unit in known if value is not None), width)
    if row.service is not None:
        p95 = "" if row.p95 is None else f", one in twenty over {row.p95 * 1000:.0f} ms"
        lines += _labelled("requests", f"{row.service * 1000:.0f} ms on the mean{p95}", width)
    lines += _labelled("keeps", (row.objective or "the usual target") + f"; sized by {row.rules}", width)
    if row.trouble:
        lines += _labelled("trouble", row.trouble, width, "bad")
    said = next((it for it in frame.decisions if it.target == f"pool {row.name}"), None)
    if said is not None:
        lines += _labelled("last", _decision_words(said), width, "dim")
    return lines


def _of_process(row: Process, context: Context, width: int) -> list[Line]:
    group = next((it for it in context.frame.groups if it.name == row.group), None)
    text = f"{row.name} ({row.pid}), child of {row.parent}, nice {row.nice}, {row.threads} threads, {figures.age(row.age)} old"
    lines = _labelled("process", text, width, "name")
    lines += _labelled("uses", f"{row.cpu:.2f} cores, waits for {row.wait:.2f}, {figures.size(row.memory)} of memory", width)
    if group is not None:
        many = "all of" if group.processes == 1 else f"one of {group.processes} of"
        lines += _labelled("is", f"{many} group {group.name}: {class_words(group)}", width, group.class_)
    return lines


def _of_decision(row: Decided, width: int) -> list[Line]:
    times = f" for {row.times} members" if row.times > 1 else ""
    lines = _labelled("decision", f"{row.target}: {row.what}{times}; {row.policy}; id {row.id}", width, "name")
    lines += _labelled("why", row.text, width)
    came = ", ".join(filter(None, (row.status or "nothing is known yet", row.effect)))
    return lines + _labelled("outcome", came, width, figures.status_style(row.effect or row.status))


def _decision_words(said: Decided) -> str:
    came = ", ".join(filter(None, (said.status, said.effect)))
    return f"{moment(round(said.wall * 1e9), day=False)} {said.what} ({came or 'no outcome yet'}): {said.text}"


def as_text(line: Sequence[Piece]) -> str:
    """A line without its styles."""
    return "".join(text for text, _ in line).rstrip()


def titled(text: str, glyphs: Glyphs, width: int) -> Line:
    """A rule with a title."""
    left = filled(
        [(f"{glyphs.rule}{glyphs.rule} ", "faint"), (shown(text), "title"), (" ", "")], min(width, width_of(shown(text)) + 4)
    )
    return (*left, (glyphs.rule * (width - length(left)), "faint"))
