"""Model files come back as they were saved, go live at once, and are refused when made for something else."""

from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nicety.models.anomaly.detectors import KINDS
from nicety.models.artifact import (
    FEATURES,
    ArtifactError,
    Card,
    DataRange,
    live_digest,
    load,
    load_live,
    promote,
    rollback,
    save,
    saved,
)
from nicety.models.behaviour import BEHAVIOUR_FEATURES
from nicety.models.forecast.demand import DEMAND_FEATURES
from nicety.models.forecast.network import Network
from nicety.models.records import QUANTILES

Arrays = dict[str, NDArray[Any]]


def demand_arrays(answer: float = 1.0) -> Arrays:
    arrays: Arrays = {name: np.zeros(shape, dtype=np.float32) for name, shape in Network.SHAPES.items()}
    return {**arrays, "bias3": np.full(len(QUANTILES), answer, dtype=np.float32), "speaks": np.ones(3, dtype=np.bool_)}


def anomaly_arrays() -> Arrays:
    tails = {f"{kind}_tail": np.array([0.0, 0.2, 0.1, 1.0]) for kind in KINDS}
    return {**tails, **{f"{kind}_seen": np.arange(3.0) for kind in KINDS}}


def behaviour_arrays() -> Arrays:
    features = len(BEHAVIOUR_FEATURES) - 1
    return {
        "knots": np.tile(np.arange(5.0), (features, 1)),
        "pushes": np.zeros((features, 15)),
        "start": np.zeros(3),
        "halfway": np.full(1, 0.2),
        "program_rows": np.full((2, len(BEHAVIOUR_FEATURES)), np.nan, np.float32),
    }


def card(kind: str = "demand", **changes: Any) -> Card:
    data = DataRange(1, 2, 3600, 200, 40, "00" * 32)
    features = FEATURES[kind]
    made = Card(
        kind=kind,
        interval=1.0,
        data=data,
        metrics=({"forecaster": "new model", "wql": 0.25},),
        version="1",
        created=5,
        cpus=2,
        features=features,
    )
    return replace(made, **changes)


def test_a_model_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    for kind, arrays in (("demand", demand_arrays()), ("anomaly", anomaly_arrays()), ("behaviour", behaviour_arrays())):
        digest = save(tmp_path, kind, card(kind), arrays)
        artefact = load(tmp_path, kind, digest)
        assert artefact.digest == digest
        assert artefact.arrays.keys() == arrays.keys()
        for name, array in arrays.items():
            assert artefact.arrays[name].dtype == array.dtype
            assert np.array_equal(artefact.arrays[name], array, equal_nan=array.dtype.kind == "f")
        assert artefact.card == replace(
            card(kind), features_digest=artefact.card.features_digest, arrays_digest=artefact.card.arrays_digest
        )


def test_the_same_model_has_the_same_digest_and_another_another(tmp_path: Path) -> None:
    one = save(tmp_path, "demand", card(), demand_arrays())
    assert save(tmp_path, "demand", card(), demand_arrays()) == one
    assert save(tmp_path, "demand", card(), demand_arrays(2.0)) != one
    assert save(tmp_path, "demand", card(created=6), demand_arrays()) != one


def test_saving_makes_nothing_live(tmp_path: Path) -> None:
    digest = save(tmp_path, "demand", card(), demand_arrays())
    assert live_digest(tmp_path, "demand") is None
    assert load_live(tmp_path, "demand") is None
    with pytest.raises(ArtifactError, match=r"no demand model is live.*nicety train"):
        load(tmp_path, "demand")
    promote(tmp_path, "demand", digest)
    live = load_live(tmp_path, "demand")
    assert live is not None
    assert live.digest == digest == live_digest(tmp_path, "demand")
    assert load_live(tmp_path, "anomaly") is None


def test_nothing_is_live_where_there_is_no_directory(tmp_path: Path) -> None:
    assert load_live(tmp_path / "absent", "demand") is None


def test_a_model_that_is_not_there_does_not_replace_the_live_one(tmp_path: Path) -> None:
    digest = save(tmp_path, "demand", card(), demand_arrays())
    promote(tmp_path, "demand", digest)
    with pytest.raises(ArtifactError, match="not there"):
        promote(tmp_path, "demand", "ab" * 32)
    assert live_digest(tmp_path, "demand") == digest


def test_who_cannot_go_back_keeps_the_live_one_and_is_told_why(tmp_path: Path) -> None:
    first, second = (save(tmp_path, "demand", card(created=created), demand_arrays()) for created in (5, 6))
    with pytest.raises(ArtifactError, match="no demand model of your own was ever live"):
        rollback(tmp_path, "demand")
    for digest in (first, second):
        promote(tmp_path, "demand", digest)
    (tmp_path / "demand" / first / "model.npz").write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match=rf"cannot go back to the demand model {first[:8]}.*promote demand DIGEST"):
        rollback(tmp_path, "demand")
    assert live_digest(tmp_path, "demand") == second


def test_a_link_in_the_way_of_a_new_file_is_neither_followed_nor_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = save(tmp_path, "demand", card(), demand_arrays())
    other = tmp_path / "other"
    other.write_text("of somebody else")
    monkeypatch.setattr(os, "urandom", bytes)
    for name in ("history", "live"):
        (tmp_path / "demand" / f".{name}.00000000.part").symlink_to(other)
    with pytest.raises(ArtifactError, match="cannot change which demand model is live"):
        promote(tmp_path, "demand", digest)
    assert other.read_text() == "of somebody else"
    assert live_digest(tmp_path, "demand") is None


def test_models_are_listed_by_digest_and_damaged_ones_say_why(tmp_path: Path) -> None:
    assert saved(tmp_path, "demand") == {}
    whole, damaged = sorted(save(tmp_path, "demand", card(created=created), demand_arrays()) for created in (5, 6))
    (tmp_path / "demand" / damaged / "model.npz").write_bytes(b"damaged")
    found = saved(tmp_path, "demand")
    assert list(found) == [whole, damaged]
    assert isinstance(found[whole], Card)
    assert isinstance(found[damaged], ArtifactError)


def test_where_the_models_should_be_and_a_file_is_the_listing_says_so(tmp_path: Path) -> None:
    (tmp_path / "demand").write_text("")
    with pytest.raises(ArtifactError, match=r"cannot look into .*/demand"):
        saved(tmp_path, "demand")


def test_nobody_else_may_read_or_write_what_is_saved(tmp_path: Path) -> None:
    models = tmp_path / "models"
    promote(models, "demand", save(models, "demand", card(), demand_arrays()))
    for path in (models, *models.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert not list(models.rglob(".*"))


def test_the_card_is_json_that_says_what_the_model_was_trained_on(tmp_path: Path) -> None:
    digest = save(tmp_path, "demand", card(), demand_arrays())
    raw = json.loads((tmp_path / "demand" / digest / "card.json").read_text())
    assert raw["data"] == {
        "first_wall": 1,
        "last_wall": 2,
        "ticks": 3600,
        "processes": 200,
        "groups": 40,
        "digest": "00" * 32,
    }
    assert raw["metrics"] == [{"forecaster": "new model", "wql": 0.25}]
    assert raw["features"] == list(DEMAND_FEATURES)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 2}, "schema 2"),
        ({"features": DEMAND_FEATURES[::-1]}, "other features"),
        ({"horizons": (1, 2, 3, 4, 5)}, "other features, horizons"),
        ({"quantiles": (0.1, 0.2, 0.3, 0.4)}, "other features, horizons"),
        ({"window": 64}, "other features"),
        ({"interval": 0.0}, "0.0 is not a number within 0.001 and 86400"),
    ],
)
def test_a_model_for_something_else_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ArtifactError, match=says):
        save(tmp_path, "demand", card(**change), demand_arrays())


def test_a_card_without_its_figures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="a card of kind"):
        save(tmp_path, "anomaly", card("demand"), anomaly_arrays())
    with pytest.raises(ValueError, match="JSON compliant"):
        save(tmp_path, "demand", card(metrics=({"wql": float("nan")},)), demand_arrays())


def test_arrays_that_make_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be used as demand model: it has arrays"):
        save(tmp_path, "demand", card(), {name: array for name, array in demand_arrays().items() if name != "out"})
    with pytest.raises(ArtifactError, match="cannot be used as anomaly model"):
        save(tmp_path, "anomaly", card("anomaly"), demand_arrays())
    with pytest.raises(ArtifactError, match="cannot be used as behaviour model"):
        save(tmp_path, "behaviour", card("behaviour"), anomaly_arrays())


def test_only_known_kinds_and_digests_are_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no kind"):
        load(tmp_path, "../etc")
    with pytest.raises(ArtifactError, match="not the digest"):
        load(tmp_path, "demand", "../../etc")


def test_a_model_that_is_gone_does_not_come_back_and_the_live_one_stays(tmp_path: Path) -> None:
    first, second = (save(tmp_path, "demand", card(), demand_arrays(answer)) for answer in (1.0, 2.0))
    promote(tmp_path, "demand", first)
    promote(tmp_path, "demand", second)
    shutil.rmtree(tmp_path / "demand" / first)
    with pytest.raises(ArtifactError, match=rf"cannot go back to the demand model {first[:8]}.*or choose another"):
        rollback(tmp_path, "demand")
    assert live_digest(tmp_path, "demand") == second


def test_where_no_models_can_be_listed_the_reason_is_given(tmp_path: Path) -> None:
    assert saved(tmp_path, "demand") == {}
    (tmp_path / "demand").write_text("no folder")
    with pytest.raises(ArtifactError, match=f"cannot look into {tmp_path / 'demand'}"):
        saved(tmp_path, "demand")


def test_nothing_is_written_through_what_somebody_put_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = save(tmp_path, "demand", card(), demand_arrays())
    theirs = tmp_path / "theirs"
    theirs.write_text("mine")
    monkeypatch.setattr("nicety.models.artifact.os.urandom", lambda size: bytes(size))  # a name that can be guessed
    (tmp_path / "demand" / ".live.00000000.part").symlink_to(theirs)
    with pytest.raises(ArtifactError, match="cannot change which demand model is live"):
        promote(tmp_path, "demand", digest)
    assert theirs.read_text() == "mine"
    assert live_digest(tmp_path, "demand") is None
