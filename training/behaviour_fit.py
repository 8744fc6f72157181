"""Fits the behaviour model to programs whose class is known, and measures it on programs it has not seen.

Knows rows of `BEHAVIOUR_FEATURES`, not traces. All rows of a program, and of all programs of its family (two compressors, two
releases of one server), are on the same side of every split: the question is how the model does on something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..models.behaviour import CLASSES, KNOTS, SEEN, Arrays, BehaviourModel, Floats, Ints, Summaries, decide, softmax
from ..models.records import Class

CERTAINTY = 0.9
"""Probability from which the tables here count a program as decided: the default of `models.certainty`."""

HALFWAY = 0.15
"""Seconds of evidence at which pushes count half: one tick of a hog counts 87 %, a tick of a service at 20 % of a CPU 86 %
(chosen)."""

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Inverse penalties tried; the one with the least calibrated loss on programs left out of the fit is taken (chosen)."""

BENT = 0.5
"""Scale of the bends against the straight part of a push: with few programs a bend must gain twice as much (chosen)."""

FOLDS = 20
"""Parts of the families, each predicted by a model of the others: with 80 programs the others are 95 % (chosen)."""

MOMENTS = (1, 2, 3, 5, 10, 20, 40)
"""Active ticks of a program at which its rows are taken: early ones too, because decisions are made early (chosen)."""

LATER = 10
"""Active ticks between later rows (chosen)."""

MOST_ROWS = 200
"""Rows kept of a group: more of the same teach nothing (chosen)."""

NAME_BYTES = 48
"""Of a program's name in the model: longer ones are cut (chosen)."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Programs whose class is known, with what was seen of them at some moments."""

    names: tuple[str, ...]
    families: tuple[str, ...]  # of each program
    classes: tuple[Class, ...]  # of each program
    rows: Floats  # [n, len(BEHAVIOUR_FEATURES)]
    owners: Ints  # [n], place in `names`

    def __add__(self, other: Programs) -> Programs:
        return Programs(
            self.names + other.names,
            self.families + other.families,
            self.classes + other.classes,
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.owners, other.owners + len(self.names)]),
        )

    def only(self, programs: Sequence[int]) -> Programs:
        """Some of the programs, in that order."""
        new = {old: place for place, old in enumerate(programs)}
        kept = np.isin(self.owners, list(programs))
        return Programs(
            tuple(self.names[i] for i in programs),
            tuple(self.families[i] for i in programs),
            tuple(self.classes[i] for i in programs),
            self.rows[kept],
            np.array([new[owner] for owner in self.owners[kept].tolist()], dtype=np.int64),
        )

    def answers(self) -> Ints:
        """The class of each row as a place in `CLASSES`."""
        places = np.array([CLASSES.index(class_) for class_ in self.classes], dtype=np.int64)
        return np.asarray(places[self.owners])

    def weights(self) -> Floats:
        """Of each row: every program of a family counts the same, and a family counts as the square root of its programs."""
        sizes = {family: self.families.count(family) for family in self.families}
        each = np.array([sizes[family] ** -0.5 for family in self.families])
        rows = np.bincount(self.owners, minlength=len(self.names))
        weights = each[self.owners] / rows[self.owners]
        return np.asarray(weights / weights.sum() * len(self.names))


@dataclass(frozen=True, slots=True)
class ProgramRow:
    """How a model judged one program without having seen it or its family."""

    model: str
    program: str
    class_: Class  # its true class
    said: Class  # what it is taken for in the end
    p_interactive: float
    p_batch: float
    loss: float  # mean over its rows; 1.1 for a model without any knowledge


@dataclass(frozen=True, slots=True)
class BehaviourTable:
    """How the new and the running model do on the user's groups in held-out time, and on programs they never saw."""

    rows: tuple[ProgramRow, ...]  # a group and model each, on held-out time
    unseen: tuple[float, float]  # mean loss on programs without their family in the fit: with the user's groups, and without

    def models(self) -> tuple[str, ...]:
        """Names of the models, the new one first."""
        return tuple(dict.fromkeys(row.model for row in self.rows))

    def loss(self, model: str) -> float:
        """Mean over groups."""
        return float(np.mean([row.loss for row in self.rows if row.model == model]))

    def harm(self, model: str) -> int:
        """Interactive groups taken for batch: the most costly error."""
        wrong = (row for row in self.rows if row.class_ is Class.INTERACTIVE and row.said is Class.BATCH)
        return sum(row.model == model for row in wrong)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model's arrays, and how the same recipe did on programs it had not seen."""

    arrays: Arrays
    chances: Floats  # [n, 3] of each row, by a model without its family
    strength: float
    temperature: float

    def loss(self, programs: Programs) -> float:
        """Mean loss on unseen programs."""
        return log_loss(self.chances, programs)


def fit_behaviour(programs: Programs) -> Fitted:
    """The model of these programs. The same programs give the same arrays. Raises ValueError if there are too few."""
    from threadpoolctl import threadpool_limits

    families = sorted(set(programs.families))
    if len(families) < 3 or len(set(programs.classes)) < 2:
        raise ValueError(
            f"{len(programs.names)} programs of {len(families)} families, or all of one class, are too few for a behaviour model; "
            "say the class of more groups: [groups.NAME] latency = ..."
        )
    programs = replace(programs, rows=rounded(programs.rows))
    with threadpool_limits(1):  # on a busy machine more threads take ten times as long
        tried = []
        for strength, logits in _out_of_fold(programs):
            temperature = _temperature(logits, programs)
            tried.append((log_loss(softmax(logits / temperature), programs), strength, temperature, logits))
        _, strength, temperature, logits = min(tried, key=lambda entry: entry[:2])
        arrays = _arrays(programs, strength, temperature)
    return Fitted({**arrays, **packed(programs)}, softmax(logits / temperature), strength, temperature)


def log_loss(chances: Floats, programs: Programs) -> float:
    """Mean over the programs of the negative logarithm of the probability given to the true class."""
    right = chances[np.arange(len(chances)), programs.answers()]
    return float(np.average(-np.log(np.maximum(right, 1e-9)), weights=programs.weights()))


def verdicts(model: str, chances: Floats, programs: Programs, certainty: float = CERTAINTY) -> tuple[ProgramRow, ...]:
    """What each program is taken for after its rows, in order, as in the runtime."""
    found = []
    right = -np.log(np.maximum(chances[np.arange(len(chances)), programs.answers()], 1e-9))
    for place, name in enumerate(programs.names):
        mine = chances[programs.owners == place]
        if not len(mine):
            continue
        held = np.array([CLASSES.index(Class.EXEMPT)])
        for row in mine:
            held = decide(row[None], held, certainty)
        last = mine[-1].tolist()
        loss = float(right[programs.owners == place].mean())
        found.append(ProgramRow(model, name, programs.classes[place], CLASSES[held[0]], last[0], last[1], loss))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Sighted:
    """Rows at some moments of groups whose class is known."""

    groups: tuple[str, ...] = ()  # of each row
    ticks: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))  # of each row
    rows: Floats = field(default_factory=lambda: np.empty((0, SEEN + 1)))
    classes: Mapping[str, Class] = field(default_factory=dict)  # of groups

    def programs(self) -> Programs:
        """The groups as programs, each a family of its own."""
        names = sorted(set(self.groups))
        owners = np.array([names.index(group) for group in self.groups], dtype=np.int64)
        return Programs(tuple(names), tuple(names), tuple(self.classes[name] for name in names), self.rows, owners)

    def within(self, first: int, last: int) -> Sighted:
        """Those of ticks from `first` up to, not including, `last`."""
        kept = np.flatnonzero((self.ticks >= first) & (self.ticks < last))
        return Sighted(tuple(self.groups[place] for place in kept.tolist()), self.ticks[kept], self.rows[kept], self.classes)


class Sightings:
    """Collects rows of groups over time: at `MOMENTS` of their activity since the last `cut`, then every `LATER` active ticks.
    A group has at most `MOST_ROWS`; beyond it every other row is dropped.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._summaries = Summaries(interval)
        self._active: dict[str, int] = {}
        self._rows: dict[str, list[tuple[int, Floats]]] = {}
        self._classes: dict[str, Class] = {}

    def cut(self) -> None:
        """What comes next was recorded at another time: start afresh, as a daemon would."""
        self._summaries = Summaries(self._interval)
        self._active = {}

    def add(self, tick: int, groups: Sequence[str], values: Floats, classes: Mapping[str, Class]) -> None:
        """Take what was measured of all groups at a tick; rows are kept of the groups in `classes`."""
        self._classes.update(classes)
        if not self._classes:
            return
        kept = [place for place, group in enumerate(groups) if group in classes]
        slots, told = self._summaries.step([groups[place] for place in kept], values[kept])
        for place in np.flatnonzero(told).tolist():
            group = groups[kept[place]]
            active = self._active[group] = self._active.get(group, 0) + 1
            if active in MOMENTS or active % LATER == 0:
                mine = self._rows.setdefault(group, [])
                mine.append((tick, self._summaries.rows(slots[place : place + 1])[0]))
                if len(mine) > MOST_ROWS:
                    del mine[::2]

    def finish(self) -> Sighted:
        """All kept rows, by group and tick."""
        found = [(group, tick, row) for group, rows in sorted(self._rows.items()) for tick, row in rows]
        return Sighted(
            tuple(group for group, _, _ in found),
            np.array([tick for _, tick, _ in found], dtype=np.int64),
            np.array([row for _, _, row in found]).reshape(len(found), SEEN + 1),
            self._classes,
        )


def packed(programs: Programs) -> dict[str, NDArray[np.generic]]:
    """The programs as arrays for the artefact, so that others can be added to them. Values keep three decimals."""
    owned = {"program_names": programs.names, "program_families": programs.families}
    texts = {
        name: np.array([list(text.encode()[:NAME_BYTES].ljust(NAME_BYTES, b"\0")) for text in values], dtype=np.uint8)
        for name, values in owned.items()
    }
    return {
        **texts,
        "program_classes": np.array([CLASSES.index(class_) for class_ in programs.classes], dtype=np.int32),
        "program_rows": rounded(programs.rows).astype(np.float32),
        "program_owners": programs.owners.astype(np.int32),
    }


def unpacked(arrays: Arrays) -> Programs:
    """The programs that a model was trained on, from its arrays. Raises ValueError if they are not as `packed` writes them."""
    try:
        names, families, classes, rows, owners = (
            arrays[f"program_{name}"] for name in ("names", "families", "classes", "rows", "owners")
        )
    except KeyError as error:
        raise ValueError(f"the model does not hold the programs it was trained on: there is no {error}") from None
    count = len(names)
    if not (
        names.ndim == families.ndim == 2
        and len(families) == count
        and classes.shape == (count,)
        and rows.ndim == 2
        and rows.shape[1] == SEEN + 1
        and owners.shape == (len(rows),)
        and names.dtype == families.dtype == np.uint8
        and rows.dtype == np.float32
        and classes.dtype == owners.dtype == np.int32
        and ((classes >= 0) & (classes < len(CLASSES))).all()
        and ((owners >= 0) & (owners < count)).all()
        and not np.isinf(rows).any()
    ):
        raise ValueError("the programs that the model was trained on are damaged")
    return Programs(
        tuple(bytes(row).rstrip(b"\0").decode(errors="replace") for row in names),
        tuple(bytes(row).rstrip(b"\0").decode(errors="replace") for row in families),
        tuple(CLASSES[place] for place in classes.tolist()),
        rows.astype(np.float64),
        owners.astype(np.int64),
    )


def rounded(rows: Floats) -> Floats:
    """Rows as the artefact holds them, to three decimals: finer digits are noise of the measurement and do not compress."""
    return np.round(rows, 3).astype(np.float32).astype(np.float64)


def folds(programs: Programs) -> Iterator[tuple[list[int], list[int]]]:
    """(programs to fit to, programs to judge) by families, each family judged once. Sorted, so the same at each call."""
    families = sorted(set(programs.families), key=lambda family: (-programs.families.count(family), family))
    parts = min(FOLDS, len(families))
    for part in range(parts):
        judged = set(families[part::parts])
        yield (
            [i for i, family in enumerate(programs.families) if family not in judged],
            [i for i, family in enumerate(programs.families) if family in judged],
        )


def _out_of_fold(programs: Programs) -> Iterator[tuple[float, Floats]]:
    """For each strength the logits of every row, by a model fitted without its family."""
    for strength in STRENGTHS:
        logits = np.zeros((len(programs.rows), len(CLASSES)))
        for fitted, judged in folds(programs):
            arrays = _arrays(programs.only(fitted), strength, 1.0)
            rows = np.isin(programs.owners, judged)
            chances = BehaviourModel.from_arrays(arrays, "").probabilities(programs.rows[rows])
            logits[rows] = np.log(np.maximum(chances, 1e-12))
        yield strength, logits


def _temperature(logits: Floats, programs: Programs) -> float:
    """The divisor of all logits that calibrates probabilities on programs left out of the fit.

    Not below 1: so few programs cannot prove that a model is too cautious.
    """
    tried = np.geomspace(1.0, 4.0, 41).tolist()
    return float(min(tried, key=lambda temperature: log_loss(softmax(logits / temperature), programs)))


def _arrays(programs: Programs, strength: float, temperature: float) -> dict[str, NDArray[np.float64]]:
    """Arrays of a `BehaviourModel`."""
    from sklearn.linear_model import LogisticRegression  # takes a second that most processes of a training can do without

    rows, weights = programs.rows, programs.weights()
    knots = _knots(rows)
    bases = [_basis(knots[column]) for column in range(SEEN)]
    trust = (rows[:, SEEN] / (rows[:, SEEN] + HALFWAY))[:, None]
    design, centres = list[Floats](), list[Floats]()
    for column, basis in enumerate(bases):
        known = ~np.isnan(rows[:, column])
        values = np.where(known, rows[:, column], knots[column, 0])
        parts = np.stack([np.interp(values, knots[column], part) for part in basis.T], axis=1)
        centre = np.average(parts[known], axis=0, weights=weights[known]) if known.any() else np.zeros(parts.shape[1])
        design.append(np.where(known[:, None], parts - centre, 0.0) * trust)
        centres.append(centre)
    classes = sorted(set(programs.answers().tolist()))
    coefficients, start = np.zeros((len(classes), SEEN * bases[0].shape[1])), np.zeros(len(classes))
    if len(classes) > 1:
        model = LogisticRegression(C=strength, max_iter=1000, tol=1e-5)
        model.fit(np.concatenate(design, axis=1), programs.answers(), sample_weight=weights)
        coefficients, start = model.coef_, model.intercept_
    if len(classes) == 2:  # scikit-learn then has one row, for the second class
        coefficients, start = np.concatenate([-coefficients, coefficients]) / 2, np.concatenate([-start, start]) / 2
    pushes = np.zeros((SEEN, KNOTS, len(CLASSES)))
    size = bases[0].shape[1]
    for column, (basis, centre) in enumerate(zip(bases, centres, strict=True)):
        own = coefficients[:, column * size : (column + 1) * size]
        pushes[column][:, classes] = (basis - centre) @ own.T
    begin = np.full(len(CLASSES), start.min() - 5.0)  # a class without programs is made unlikely
    begin[classes] = start
    begin -= begin.mean()
    return {
        "knots": knots,
        "pushes": (pushes / temperature).reshape(SEEN, KNOTS * len(CLASSES)),
        "start": begin / temperature,
        "halfway": np.array([HALFWAY]),
    }


def _knots(rows: Floats) -> Floats:
    """[F, KNOTS], evenly over where the rows are."""
    knots = np.empty((SEEN, KNOTS))
    for column in range(SEEN):
        values = rows[~np.isnan(rows[:, column]), column]
        low, high = np.quantile(values, (0.02, 0.98)).tolist() if len(values) else (0.0, 0.0)
        if high - low < 0.1:
            low, high = low - 0.5, high + 0.5
        knots[column] = np.linspace(low, high, KNOTS)
    return knots


def _basis(knots: Floats) -> Floats:
    """[KNOTS, parts]: the values at the knots of a straight line and of bends at the inner knots, both of about unit size."""
    place = np.linspace(-1.0, 1.0, KNOTS)
    bends = [np.maximum(place - place[knot], 0.0) for knot in range(1, KNOTS - 1)]
    assert len(knots) == KNOTS
    return np.stack([place, *(BENT * 2 * bend for bend in bends)], axis=1)
