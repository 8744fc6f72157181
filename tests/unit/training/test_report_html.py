"""The report of a training: whole, readable without pictures, and harmless whatever things are called."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from nicety.models.artifact import Card, DataRange
from nicety.models.records import HORIZONS, QUANTILES, Anomaly, Class
from nicety.training.anomaly_fit import AnomalyRow, WorkerTraces
from nicety.training.behaviour_fit import BehaviourTable, ProgramRow
from nicety.training.dataset import Dataset
from nicety.training.evaluate import DemandRow, DemandTable, losses
from nicety.training.evidence import FANS, SHOWN_TICKS, Backtest, GroupRow, by_group, chosen, coverage, fan, leans
from nicety.training.html import Story, page
from nicety.training.plots import COLOURS, fan_svg, leans_svg
from nicety.training.report import Course, Result
from nicety.training.stream import SeriesRun

NASTY = "<script>alert('x')</script>&\"$a$"
WALL = 1_700_000_000 * 10**9
H, Q = len(HORIZONS), len(QUANTILES)
DATA = DataRange(WALL, WALL + 600 * 10**9, 600, 20, 3, "d" * 64)


def evidence(names: tuple[str, ...] = ("good", "bad"), ticks: int = 400, every: int = 2) -> Backtest:
    """Waves. The model knows those of the first group, and is off for those of others; without one, last values are taken."""
    rng = np.random.default_rng(0)
    runs, parts = [], []
    for number, name in enumerate(names):
        t = np.arange(ticks)
        values = (5 + 4 * np.sin(t / (5 + number)) + rng.normal(0, 0.2, ticks)).astype(np.float32)
        runs.append(SeriesRun(name, "cpu" if number % 2 == 0 else "rss", 0, values))
        origins = np.arange(200, ticks - 1, every)
        then = origins[:, None] + np.array(HORIZONS)
        targets = np.where(then < ticks, values[np.minimum(then, ticks - 1)].astype(np.float64), np.nan)
        truth = 5 + 4 * np.sin(then / (5 + number))
        width = np.array([0.0, 0.256, 0.329, 0.465])
        said = (truth if number == 0 else 9 - truth)[:, :, None] + width
        last = values[origins][:, None, None].astype(np.float64) + np.array([0.0, 2.0, 3.0, 5.0]) + np.zeros((1, H, 1))
        parts.append((np.full(len(origins), number), origins, targets, said, last))
    run, origin, targets, said, last = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Backtest(
        tuple(runs),
        run,
        origin,
        targets,
        said,
        last,
        {"last value": 0.1, "loss of trend": 0.2, "value 3 ago": 0.3, "age": 0.0, "other thing": 0.05},
    )


def table() -> DemandTable:
    rows = [
        DemandRow(name, metric, horizon, loss * (1 + 0.1 * at), (0.5, 0.9, 0.95, 0.99), 100)
        for name, loss in (("new model", 0.1), ("running 12345678", 0.15), ("experts", 0.2), ("last value", 0.4), ("ewma", 0.5))
        for metric in ("cpu", "rss")
        for at, horizon in enumerate(HORIZONS)
    ]
    return DemandTable(tuple(rows))


def story(found: Backtest | None, *results: Result, skipped: tuple[str, ...] = ()) -> Story:
    runs = () if found is None else found.runs
    dataset = Dataset(1.0, 600, runs, WorkerTraces(()), DATA, skipped)
    course = Course(
        ("alpha", NASTY), ("lost.db: 3 ticks: torn",), ("what was before: too large",), ("fitting ended early",), 61.0, 3 << 28
    )
    card = Card("demand", 1.0, DATA, (), "9.9.9", WALL, 2, ("last value", "age"), features_digest="f" * 64, arrays_digest="a" * 64)
    given = results or (Result("demand", "promoted", "cpu 0.2 beats all", "abcdef0123", demand=table()),)
    return Story(dataset, course, given, [card], found, WALL, "9.9.9")


class Checker(HTMLParser):
    """Collects what a browser would make of a page, and fails where tags do not match."""

    VOID = frozenset({"meta", "br", "use", "path", "rect", "image"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.text = re.sub(r"[ \n]+", " ", self.text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            if name == "id":
                self.ids.append(value or "")
            if name.endswith("href"):
                self.references.append(value or "")
            self.references += re.findall(r"url\((#[^)]*)\)", value or "")
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.text += data


def test_a_page_is_whole_and_has_every_part() -> None:
    found = Checker(page(story(evidence())))
    for part in (
        "What nicety has learned",
        "Demand model: promoted as abcdef01",
        "cpu 0.2 beats all",
        "from 2023-11-14 22:13:20 UTC to 2023-11-14 22:23:20 UTC",
        "600 of 1 s, together 10 min 0 s",
        "Loss by metric and horizon",
        "Are the levels right?",
        "Where the model gains most",
        "Where it gains least, or loses",
        "Groups with the worst forecasts",
        "What the model relies on",
        "Card of the demand model",
        "a" * 64,
        "lost.db: 3 ticks: torn",
        "what was before: too large",
        "fitting ended early",
        "took 1 min 1 s and at most 768.0 MiB",
    ):
        assert part in found.text, part
    assert found.tags.count("svg") == 2 + 2 + 1  # loss, coverage; a fan of each group; what it leans on


def test_the_pictures_of_a_page_do_not_get_in_each_others_way() -> None:
    found = Checker(page(story(evidence())))
    assert len(found.ids) == len(set(found.ids)) > 5 * 2
    inside = {reference[1:] for reference in found.references if reference.startswith("#")}
    assert inside
    assert inside <= set(found.ids)


def test_nothing_comes_from_elsewhere() -> None:
    text = page(story(evidence()))
    found = Checker(text)
    assert all(reference.startswith("#") for reference in found.references)
    assert "default-src 'none'" in text
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)


def test_names_from_traces_are_text_and_nothing_else() -> None:
    rows = (AnomalyRow(Anomaly.LEAK, 10, 12, 11, 16.0, 9, None, 0, 1),)
    programs = BehaviourTable((ProgramRow(NASTY, NASTY, Class.BATCH, Class.INTERACTIVE, 0.8, 0.1, 1.2),), (0.4, 0.5))
    results = (
        Result("demand", "promoted", NASTY, NASTY, demand=table()),
        Result("anomaly", "refused", NASTY, "", anomaly=rows),
        Result("behaviour", "failed", NASTY, "", behaviour=programs),
    )
    text = page(story(evidence((NASTY, "other" + NASTY)), *results, skipped=(NASTY,)))
    found = Checker(text)
    assert "script" not in found.tags
    assert found.text.count(NASTY) >= 8
    assert "<script" not in text


def test_the_same_training_gives_the_same_page() -> None:
    assert page(story(evidence())) == page(story(evidence()))


def test_a_page_has_its_pictures_without_a_library_that_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = Checker(page(story(evidence())))
    assert found.tags.count("svg") == 5
    assert {"polyline", "polygon", "circle", "rect"} <= set(found.tags)


def test_each_picture_says_in_words_what_it_shows() -> None:
    text = page(story(evidence()))
    titles = dict(re.findall(r'<title id="([^"]+)">([^<]+)</title>', text))
    summaries = dict(re.findall(r'<desc id="([^"]+)">([^<]+)</desc>', text))
    named = [ids.split() for ids in re.findall(r'<svg [^>]*role="img" aria-labelledby="([^"]+)"', text)]
    assert len(named) == 5
    assert all(title in titles and summary in summaries for title, summary in named)
    assert "new model 0." in summaries["p1-summary"]
    assert summaries["p1-summary"].endswith("last value 1.00, ewma 1.25.")


def test_every_colour_of_a_picture_is_known_in_light_and_in_dark() -> None:
    text = page(story(evidence()))
    light, _, dark = text.partition("@media (prefers-color-scheme: dark)")
    used = {name for kind in re.findall(r'<(?:polyline|polygon|circle|rect|line) class="([^"]+)"', text) for name in kind.split()}
    for name in (used & set(COLOURS)) | set(re.findall(r"background:var\(--(\w+)\)", text)):
        assert f" --{name}: #" in light, name
        assert f" --{name}: #" in dark[: dark.index("} }")], name
        assert f"svg .{name} {{ --colour: var(--{name}); }}" in text
    assert used - set(COLOURS) <= {"line", "fill", "thick", "dashed", "faint", "grid", "axis"}


def test_the_features_of_a_card_are_folded_away() -> None:
    text = page(story(evidence()))
    features = text[text.index("<summary>Its 2 features</summary>") :]
    assert features.index("<li>last value</li>") < features.index("</details>")


@pytest.mark.parametrize("outcome", ["failed", "not trained"])
def test_without_a_model_the_page_says_why(outcome: str) -> None:
    bare = replace(story(None, Result("demand", outcome, "59 ticks are too few", "")), cards=())
    found = Checker(page(bare))
    assert f"Demand model: {outcome}" in found.text
    assert "59 ticks are too few" in found.text
    assert "svg" not in found.tags
    assert "What it learned from" in found.text


def test_too_few_forecasts_to_rank_groups_leave_the_rest_of_the_page() -> None:
    found = Checker(page(story(evidence(every=30))))
    assert "Loss by metric and horizon" in found.text
    assert "Groups with the worst forecasts" not in found.text


# --- what is shown ------------------------------------------------------------------------------------------------------------


def test_groups_are_ranked_by_loss_against_the_fallback() -> None:
    rows = by_group(evidence())
    assert [(row.target, row.metric) for row in rows] == [("good", "cpu"), ("bad", "rss")]
    assert rows[0].ratio < 0.5 < 1 < rows[1].ratio
    assert 0.9 < rows[0].covered <= 1
    assert rows[0].forecasts == 100


def test_the_loss_of_a_group_is_that_of_the_table() -> None:
    found = evidence(("only",))
    known = np.isfinite(found.targets)
    loss, covered = losses(found.targets[known], found.said[known])
    (row,) = by_group(found)
    assert row.loss == pytest.approx(loss)
    assert row.covered == pytest.approx(covered[QUANTILES.index(0.95)])


def test_runs_of_one_group_count_together() -> None:
    apart = evidence(("a", "b"))
    runs = tuple(replace(run, target="a", metric="cpu") for run in apart.runs)
    (row,) = by_group(replace(apart, runs=runs))
    assert row.forecasts == 200


def test_a_fan_shows_the_end_and_its_forecasts_do_not_overlap() -> None:
    found = evidence()
    shown = fan(found, by_group(found)[0])
    assert len(shown.values) == SHOWN_TICKS + 1 + (400 - 1 - 398)
    at = [forecast.at for forecast in shown.forecasts]
    assert len(at) == FANS
    assert min(np.diff(at)) >= max(HORIZONS)
    for forecast in shown.forecasts:
        origin = forecast.at + 400 - len(shown.values)
        assert shown.values[forecast.at] == found.runs[0].values[origin]
        (which,) = np.flatnonzero((found.run == 0) & (found.origin == origin))
        np.testing.assert_array_equal(forecast.said, found.said[which])


def test_a_short_series_has_fewer_fans() -> None:
    short = evidence(("a",), ticks=230, every=1)
    shown = fan(short, by_group(short)[0])
    assert 1 <= len(shown.forecasts) <= FANS


@pytest.mark.parametrize("scale", [0.0, 1e-9, 1e300])
def test_any_values_can_be_drawn(scale: float) -> None:
    found = evidence(("a",))
    flat = replace(found.runs[0], metric="rss", values=np.full(400, np.float32(min(scale, 1e38))))
    huge = replace(found, runs=(flat,), said=found.said * scale, baseline=found.baseline * scale)
    row = GroupRow("a", "rss", 100, 0.0, 0.0, 1.0)
    drawn = fan_svg(fan(huge, row), 1.0, 1)
    assert drawn.startswith("<svg")
    places = [float(place) for pair in re.findall(r'points="([^"]+)"', drawn) for place in re.split("[ ,]", pair)]
    assert len(places) > 2 * SHOWN_TICKS
    assert all(-2000 < place < 2000 for place in places)


def test_a_bar_is_as_long_as_its_figure() -> None:
    drawn = leans_svg({"ewma": 0.2, "age": 0.1, "value 3 ago": -0.05}, 1)
    bars = [float(width) for width in re.findall(r'<rect class="fill own"[^>]* width="([\d.]+)"', drawn)]
    assert len(bars) == 3
    assert bars[0] / bars[1] == pytest.approx(2, rel=0.01)
    assert bars[0] / bars[2] == pytest.approx(4, rel=0.01)


def test_good_groups_are_shown_of_different_metrics_first() -> None:
    rows = [
        GroupRow(target, metric, 100, 0.1, 0.2, 0.95) for target, metric in (("a", "cpu"), ("a", "rss"), ("b", "cpu"), ("c", "rss"))
    ]
    assert [(row.target, row.metric) for row in chosen(rows, 2, ("target", "metric"))] == [("a", "cpu"), ("c", "rss")]
    assert [(row.target, row.metric) for row in chosen(rows, 2)] == [("a", "cpu"), ("b", "cpu")]
    assert len(chosen(rows, 10)) == 4


def test_coverage_counts_what_is_known() -> None:
    targets = np.full((4, H), np.nan)
    targets[:, 0] = [1, 2, 3, 4]
    said = np.tile(np.array([2.0, 3.0, 3.5, 9.0]), (4, H, 1))
    found = coverage(targets, said)
    np.testing.assert_array_equal(found[0], [0.5, 0.75, 0.75, 1.0])
    assert np.isnan(found[1:]).all()


def test_columns_are_added_up_in_groups_that_people_can_tell_apart() -> None:
    found = leans(
        {
            "last value": 0.1,
            "ewma": 0.5,
            "loss of last value": 0.2,
            "loss at the period": 0.1,
            "a period ago, later": 0.3,
            "age": 0.0,
        }
    )
    assert found == [
        ("other", 0.5),
        ("the period found in the series", 0.4),
        ("which simple forecaster has been right lately", 0.2),
        ("what the simple forecasters predict", 0.1),
    ]


def test_every_column_of_the_model_belongs_to_a_group() -> None:
    from nicety.models.forecast.demand import DEMAND_FEATURES

    assert "other" not in dict(leans(dict.fromkeys(DEMAND_FEATURES, 1.0)))
