"""The behaviour model is fitted to programs and judged on others; it keeps what it was fitted to, and goes live unless worse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nicety.models import artifact
from nicety.models.artifact import FEATURES, Card, DataRange, load, load_live, promote, save, shipped
from nicety.models.behaviour import BEHAVIOUR_CHANNELS, BEHAVIOUR_FEATURES, CLASSES, SEEN, BehaviourModel
from nicety.models.checks import check_behaviour
from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Class, HostSample, Identity, Known, Snapshot, Trait
from nicety.scheduler.store.traces import TraceWriter
from nicety.training.behaviour_fit import (
    MOMENTS,
    MOST_ROWS,
    BehaviourTable,
    Fitted,
    ProgramRow,
    Programs,
    Sightings,
    fit_behaviour,
    folds,
    log_loss,
    packed,
    unpacked,
    verdicts,
)
from nicety.training.cli import app
from nicety.training.promote import judge_behaviour

L, B, N = Class.INTERACTIVE, Class.BATCH, Class.EXEMPT


def programs(count: int = 24, noise: float = 0.3, rows: int = 4, seed: int = 1) -> Programs:
    """Services that listen and sleep, batch work that does neither, others that sleep; two programs a family."""
    rng = np.random.default_rng(seed)
    found = np.full((count * rows, SEEN + 1), np.nan)
    classes = tuple((L, B, N)[at % 3] for at in range(count))
    owners = np.repeat(np.arange(count), rows)
    centres = {L: (1.0, 0.2, 3.0), B: (0.0, 0.95, 2.0), N: (0.0, 0.02, 1.0)}
    for column, name in enumerate(("listens", "busy_per_thread", "runs_per_second")):
        centre = np.array([centres[classes[owner]][column] for owner in owners])
        spread = noise * (1.0 if name == "runs_per_second" else 0.3)
        found[:, BEHAVIOUR_FEATURES.index(name)] = centre + rng.normal(0, spread, len(owners))
    found[:, SEEN] = np.tile([0.8, 2.0, 5.0, 12.0], count)[: len(owners)]
    names = tuple(f"p{at}" for at in range(count))
    return Programs(names, tuple(f"family {at // 6}-{at % 3}" for at in range(count)), classes, found, owners)


@pytest.fixture(scope="module")
def known() -> Programs:
    return programs()


@pytest.fixture(scope="module")
def fitted(known: Programs) -> Fitted:
    return fit_behaviour(known)


def test_a_model_tells_programs_it_has_not_seen_apart(known: Programs, fitted: Fitted) -> None:
    check_behaviour(BehaviourModel.from_arrays(fitted.arrays, "ab" * 32))
    said = verdicts("new", fitted.chances, known)
    assert [row.program for row in said] == list(known.names)
    two = [row for row in said if row.class_ is not N]
    assert sum(row.said is row.class_ for row in two) >= 0.9 * len(two)
    assert all(row.said in (row.class_, N) for row in said)
    assert fitted.loss(known) < 0.35
    other = programs(count=18, seed=9)
    model = BehaviourModel.from_arrays(fitted.arrays, "")
    assert log_loss(model.probabilities(other.rows), other) < 0.35


def test_what_cannot_be_told_apart_is_not_decided() -> None:
    mixed = programs(noise=0.3)
    rng = np.random.default_rng(2)
    blind = Programs(mixed.names, mixed.families, tuple((L, B, N)[at] for at in rng.integers(0, 3, 24)), mixed.rows, mixed.owners)
    fitted = fit_behaviour(blind)
    assert [row.program for row in verdicts("new", fitted.chances, blind) if row.said is not N] == []


def test_the_same_programs_give_the_same_model(known: Programs, fitted: Fitted) -> None:
    one, two = fitted.arrays, fit_behaviour(known).arrays
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name], equal_nan=name == "program_rows") for name in one)


def test_every_family_is_judged_once_by_a_model_without_it(known: Programs) -> None:
    judged = []
    for fitted, other in folds(known):
        assert not {known.families[i] for i in fitted} & {known.families[i] for i in other}
        judged += other
    assert sorted(judged) == list(range(len(known.names)))


def test_programs_count_the_same_however_many_rows_they_have(known: Programs) -> None:
    more = Programs(
        known.names,
        known.families,
        known.classes,
        np.concatenate([known.rows, known.rows[known.owners == 0]]),
        np.concatenate([known.owners, np.zeros(4, dtype=np.int64)]),
    )
    weights = more.weights()
    assert weights[more.owners == 0].sum() == pytest.approx(weights[more.owners == 1].sum())
    assert weights.sum() == pytest.approx(len(known.names))


def test_too_few_programs_say_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"too few.*\[groups.NAME\]"):
        fit_behaviour(programs(count=6).only([0, 1]))
    with pytest.raises(ValueError, match="all of one class"):
        fit_behaviour(programs(count=24).only([0, 3, 6, 9, 12, 15, 18, 21]))


def test_two_classes_are_enough(known: Programs) -> None:
    two = known.only([at for at, class_ in enumerate(known.classes) if class_ is not N])
    fitted = fit_behaviour(two)
    chances = BehaviourModel.from_arrays(fitted.arrays, "").probabilities(two.rows)
    assert log_loss(chances, two) < 0.3
    assert chances[:, CLASSES.index(N)].max() < 0.05


def test_the_programs_are_in_the_artefact(known: Programs) -> None:
    back = unpacked(packed(known))
    assert (back.names, back.families, back.classes) == (known.names, known.families, known.classes)
    assert np.array_equal(back.owners, known.owners)
    np.testing.assert_allclose(back.rows, known.rows, atol=6e-4)
    both = back + known
    assert len(both.names) == 48
    assert both.only(list(range(24, 48))).names == known.names


@pytest.mark.parametrize("name", ["program_names", "program_classes", "program_rows", "program_owners"])
def test_damaged_programs_are_refused(known: Programs, name: str) -> None:
    arrays = packed(known)
    with pytest.raises(ValueError, match="does not hold the programs"):
        unpacked({key: array for key, array in arrays.items() if key != name})
    with pytest.raises(ValueError, match="damaged"):
        unpacked({**arrays, name: arrays[name][:-1] if name != "program_rows" else arrays[name][:, :-1]})


def test_rows_are_taken_early_and_then_seldom() -> None:
    sightings = Sightings(1.0)
    doing = dict.fromkeys(BEHAVIOUR_CHANNELS, 0.0) | {"processes": 1.0, "threads": 1.0, "cpu": 0.5, "timeslices": 50.0}
    values = np.array([list(doing.values())] * 2)
    for tick in range(45):
        sightings.add(tick, ["one", "two"], values, {"one": B})
    found = sightings.finish()
    assert set(found.groups) == {"one"}
    assert found.ticks.tolist() == [moment - 1 for moment in (1, 2, 3, 5, 10, 20, 30, 40)]
    assert set(MOMENTS) <= {*(found.ticks + 1).tolist()}
    assert found.within(5, 39).ticks.tolist() == [9, 19, 29]
    assert found.programs().classes == (B,)
    for tick in range(45, 45 + 10 * MOST_ROWS):
        sightings.add(tick, ["one", "two"], values, {"one": B})
    assert len(sightings.finish().rows) <= MOST_ROWS


def a_table(new: float, old: float, said: Class = L, unseen: tuple[float, float] = (0.3, 0.3)) -> BehaviourTable:
    rows = (ProgramRow("new model", "web", L, said, 0.9, 0.05, new), ProgramRow("running ab", "web", L, L, 0.9, 0.05, old))
    return BehaviourTable(rows, unseen)


@pytest.mark.parametrize(
    ("table", "beats", "says"),
    [
        (a_table(0.2, 0.3), True, "0.200"),
        (a_table(0.3, 0.3), True, "0.300"),
        (a_table(0.02, 0.01), True, "0.020"),
        (a_table(0.4, 0.3), False, "worse than running ab 0.300"),
        (a_table(0.1, 0.3, B), False, "for batch work"),
        (a_table(0.1, 0.3, unseen=(0.5, 0.3)), False, "worse for others"),
    ],
)
def test_a_model_goes_live_unless_it_is_worse(table: BehaviourTable, beats: bool, says: str) -> None:
    judgement = judge_behaviour(table)
    assert (judgement.beats, says in judgement.reason) == (beats, True), judgement


# --- nicety train -----------------------------------------------------------------------------------------------------------------

PINNED = '[groups.web]\nprogram = "web"\nclass = "interactive"\n[groups.night]\nprogram = "night"\nclass = "batch"\n'


def write(state: Path, ticks: int = 120) -> None:
    """A trace of a service, of batch work and of something else."""
    ids = [ProcId(100 + at, 7) for at in range(3)]
    identities = {id_: Identity("x", name, "/", "", 0) for id_, name in zip(ids, ("web", "night", "other"), strict=True)}
    table = np.zeros(3, SAMPLE)
    table["pid"], table["start_ticks"], table["threads"] = [id_.pid for id_ in ids], 7, 1
    table["known"], table["traits"] = int(Known.WAIT | Known.IO | Known.SOCKETS), [int(Trait.SERVES), 0, 0]
    writer = TraceWriter(state, boot_id="boot", session="5e551017", budget_bytes=1 << 28, interval=1.0)
    for tick in range(ticks):
        table["cpu_ns"] += np.array([2 * 10**8, 99 * 10**7, 10**7], dtype=np.uint64)
        table["timeslices"] += np.array([1500, 40, 3], dtype=np.uint64)
        at = (1000 + tick) * 10**9
        writer.append(Snapshot(at, 10**18 + at, at // 10**7, table, identities, HostSample((at // 2,), 1 << 34, 1 << 33, None), ()))
    writer.close()


def train(state: Path, config: str, *options: str) -> tuple[int, str, str]:
    (state / "nicety.toml").write_text(config)
    command = ["train", "--no-idle", "--only", "behaviour", "--state-dir", str(state), "--config", str(state / "nicety.toml")]
    result = CliRunner().invoke(app, [*command, *options])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def brought(tmp_path: Path, fitted: Fitted, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small model in the place of the one that nicety comes with; its digest."""
    place = tmp_path / "package"
    monkeypatch.setattr(artifact, "SHIPPED", place)
    data = DataRange(1, 2, 100, 24, 24, "00" * 32)
    card = Card("behaviour", 1.0, data, ({"loss": 0.2},), "1", 5, 2, FEATURES["behaviour"])
    digest = save(place, "behaviour", card, fitted.arrays)
    promote(place, "behaviour", digest)
    return digest


@pytest.fixture
def state(tmp_path: Path) -> Path:
    write(tmp_path / "state")
    return tmp_path / "state"


def test_the_users_groups_are_added_to_the_programs_that_nicety_comes_with(state: Path, brought: str) -> None:
    code, out, err = train(state, PINNED, "--json")
    assert code == 0, (out, err)
    found = json.loads(out)["models"]["behaviour"]
    assert found["outcome"] == "promoted"
    assert set(found["scores"]) == {"new model", f"running {brought[:8]}"}
    assert {(row["model"], row["program"]) for row in found["rows"]} == {
        (model, group) for model in found["scores"] for group in ("web", "night")
    }
    live = load_live(state / "models", "behaviour")
    assert live is not None
    assert live.digest == found["digest"]
    both = unpacked(live.arrays)
    assert both.names[:24] == unpacked(load(artifact.SHIPPED, "behaviour").arrays).names
    assert dict(zip(both.names[24:], both.classes[24:], strict=True)) == {"web": L, "night": B}


def test_without_pinned_classes_it_says_what_to_do(state: Path, brought: str) -> None:
    code, out, _ = train(state, "")
    assert code == 1
    assert "no active group has a class" in out
    assert "[groups.NAME]" in out
    assert load_live(state / "models", "behaviour") is None


def test_a_worse_model_is_refused_with_the_table(state: Path, brought: str) -> None:
    swapped = PINNED.replace('"interactive"', '"x"').replace('"batch"', '"interactive"').replace('"x"', '"batch"')
    code, out, _ = train(state, swapped)
    assert code == 3, out
    assert "behaviour model: refused" in out
    assert "your groups make it worse for others" in out
    for word in ("new model", f"running {brought[:8]}", "web", "night", "predicted"):
        assert word in out
    assert load_live(state / "models", "behaviour") is None


def test_a_dry_run_saves_nothing(state: Path, brought: str) -> None:
    code, out, _ = train(state, PINNED, "--dry-run")
    assert code == 0
    assert "would be promoted" in out
    assert not (state / "models").exists()


def test_what_nicety_comes_with_is_trusted_as_its_code_is(tmp_path: Path, brought: str) -> None:
    place = artifact.SHIPPED
    for path in (place, *place.rglob("*")):
        path.chmod(0o775 if path.is_dir() else 0o664)  # a checkout with umask 002
    found = shipped("behaviour")
    assert found is not None
    assert found.digest == brought
    assert shipped("demand") is None
    path = place / "behaviour" / brought / "model.npz"
    path.chmod(0o666)
    with pytest.raises(artifact.ArtifactError, match="others may write"):
        shipped("behaviour")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(artifact.ArtifactError, match="damaged"):
        shipped("behaviour")
