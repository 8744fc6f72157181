"""Cards of models: whatever a file says, there is an ArtifactError or a card each of whose figures is within its limits."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicety.models.artifact import ArtifactError, Card, DataRange, load, promote, save
from nicety.models.forecast.demand import DEMAND_FEATURES
from nicety.models.forecast.network import Network
from nicety.models.records import QUANTILES
from nicety.scheduler.config.paths import Paths
from nicety.scheduler.config.sections import Config
from nicety.scheduler.explain import model_page
from nicety.scheduler.explain.logstream import ascii_json
from nicety.scheduler.printed import plain
from nicety.scheduler.service.doctor import _models

FIELDS = [
    *("kind", "interval", "metrics", "version", "created", "cpus", "features", "schema", "horizons", "quantiles", "window"),
    *("features_digest", "arrays_digest", "data", "data.first_wall", "data.last_wall", "data.ticks", "data.processes"),
    *("data.groups", "data.digest"),
]

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 2**63, -(2**63) - 1, 0, 1, 5e-324, 1e308, -1.0, math.inf, -math.inf, math.nan]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["\ud800", "\x1b[2J", "\0", "a" * 5000]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], bytes]:
    """A directory, a card that is right, and the arrays that belong to it."""
    place = tmp_path_factory.mktemp("cards") / "models"
    arrays = {name: np.zeros(shape, dtype=np.float32) for name, shape in Network.SHAPES.items()}
    arrays |= {"bias3": np.ones(len(QUANTILES), dtype=np.float32), "speaks": np.ones(3, dtype=np.bool_)}
    card = Card("demand", 1.0, DataRange(1, 2, 3, 4, 5, ""), ({"forecaster": "x", "wql": 0.5},), "1", 1, 2, DEMAND_FEATURES)
    digest = save(place, "demand", card, arrays)
    folder = place / "demand" / digest
    return place, json.loads((folder / "card.json").read_text()), (folder / "model.npz").read_bytes()


def leave(place: Path, raw: Any, packed: bytes) -> str:
    """Write a card whose checksum holds, as the only model and the live one; its digest."""
    text = json.dumps(raw).encode()
    digest = hashlib.sha256(text).hexdigest()
    folder = place / "demand" / digest
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, data in (("card.json", text), ("model.npz", packed)):
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)
    (place / "demand" / "live").write_text(f"{digest}\n")
    (place / "demand" / "live").chmod(0o600)
    return digest


def drop(place: Path, digest: str) -> None:
    for name in ("card.json", "model.npz"):
        (place / "demand" / digest / name).unlink()
    (place / "demand" / digest).rmdir()


def changed(raw: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(raw))
    section, _, name = field.rpartition(".")
    (made[section] if section else made)[name] = value
    return made


def assert_sound(card: Card) -> None:
    assert 0.001 <= card.interval <= 86_400
    whole = (
        card.created,
        card.cpus,
        card.data.first_wall,
        card.data.last_wall,
        card.data.ticks,
        card.data.processes,
        card.data.groups,
    )
    assert all(type(each) is int and 0 <= each < 2**63 for each in whole)
    assert all(text.isprintable() for text in (card.version, card.data.digest))
    json.dumps(card.metrics, allow_nan=False)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(FIELDS), value=VALUES)
def test_any_value_of_any_field_gives_an_artifact_error_or_a_sound_card(
    models: tuple[Path, dict[str, Any], bytes], field: str, value: Any
) -> None:
    place, raw, packed = models
    digest = leave(place, changed(raw, field, value), packed)
    try:
        card = load(place, "demand", digest).card
    except ArtifactError:
        return
    finally:
        drop(place, digest)
    assert_sound(card)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=VALUES)
def test_any_json_in_place_of_a_card_is_an_artifact_error(models: tuple[Path, dict[str, Any], bytes], raw: Any) -> None:
    place, _, packed = models
    digest = leave(place, raw, packed)
    with pytest.raises(ArtifactError):
        load(place, "demand", digest)
    drop(place, digest)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("interval", 10**400),
        ("interval", 1e-300),
        ("interval", 1e300),
        ("created", 10**30),
        ("created", -1),
        ("data.last_wall", 2**64),
        ("metrics", [{"forecaster": [[1]]}]),
        ("metrics", [[["forecaster", 1]]]),
        ("metrics", [{"wql": math.inf}]),
        ("version", "\x1b[2J"),
        ("version", "\ud800"),
        ("quantiles", [10**400]),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_a_hostile_card_stops_neither_the_list_of_models_nor_doctor(
    models: tuple[Path, dict[str, Any], bytes], field: str, value: Any
) -> None:
    place, raw, packed = models
    digest = leave(place, changed(raw, field, value), packed)
    with pytest.raises(ArtifactError):
        promote(place, "demand", digest)
    found, troubles = model_page.look(place)
    assert any(digest[:12] in trouble or digest in trouble for trouble in troubles)
    for each in found:
        model_page.row(each)
        ascii_json(plain(model_page.as_record(each)))
    findings = {finding.name: finding for finding in _models(Config(), Paths(place.parent, place.parent / "socket"))}
    assert not findings["demand model"].ok
    drop(place, digest)
