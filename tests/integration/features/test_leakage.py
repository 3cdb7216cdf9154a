"""The three planted leaks, and honest features, on real flights."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aios_platform.contracts.declaration import Column
from aios_platform.errors import LeakageError
from aios_platform.features.leakage import LeakageReport, audit, refuse_leaks
from aios_platform.features.repository import apply_repository
from aios_platform.features.store import open_feature_store
from aios_platform.features.tables import build_feature_tables
from aios_platform.features.training_set import assemble
from tests.integration.features.conftest import make_repo

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore:.*experimental:RuntimeWarning"),
]
LATER = datetime(2013, 6, 1, tzinfo=UTC)
DAY = "date_trunc('day', scheduled_at - INTERVAL 5 HOURS) + INTERVAL 5 HOURS"

# Both stamp the rate of the whole day with the midnight at which it begins.
SAME_DAY = """
SELECT {keys}, {day} AS event_timestamp, {day} AS created_timestamp,
    avg(is_late::INT)::FLOAT AS {feature}
FROM flights WHERE is_late IS NOT NULL GROUP BY ALL
"""
VIEWS = """
from datetime import timedelta
from feast import FeatureService, FeatureView, Field, FileSource
from feast.types import Float32
from flights import carrier, origin, tail_number, carrier_delays, tail_movements, origin_weather


def leaky(name, entities, feature):
    source = FileSource(
        name=name,
        path=f"aios://flight_delay/features/{name}",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    fields = [Field(name=feature, dtype=Float32)]
    return FeatureView(
        name=name, entities=entities, ttl=timedelta(days=1), schema=fields, source=source
    )


tail_day = leaky("tail_day", [tail_number], "tail_rate_same_day")
origin_carrier_day = leaky("origin_carrier_day", [origin, carrier], "origin_carrier_rate_same_day")
planted = FeatureService(
    name="planted",
    features=[
        carrier_delays,
        tail_movements[["tail_arrival_delay", "tail_airborne"]],
        origin_weather,
        tail_day,
        origin_carrier_day,
    ],
)
"""
Check = Callable[..., LeakageReport]


@pytest.fixture(scope="module")
def planted(flights: Any, database: Any, tmp_path_factory: pytest.TempPathFactory) -> Check:
    folder = tmp_path_factory.mktemp("planted")
    sql = folder / "features"
    sql.mkdir()
    for name in ("carrier_delays", "tail_movements", "origin_weather"):
        shutil.copy(flights.sql / f"{name}.sql", sql)
    for name, keys, feature in [
        ("tail_day", "tail_number", "tail_rate_same_day"),
        ("origin_carrier_day", "origin, carrier", "origin_carrier_rate_same_day"),
    ]:
        text = SAME_DAY.format(keys=keys, day=DAY, feature=feature)
        (sql / f"{name}.sql").write_text(text)
    for window in flights.windows:
        build_feature_tables(flights.declaration, sql, window, flights.store)
    repo = make_repo(folder / "repo", "planted_test", flights.store.root)
    (repo / "planted.py").write_text(VIEWS)
    feast = open_feature_store(repo, database.url("feast"))
    apply_repository(feast, repo)

    def check(*request: str, sql_folder: Path = sql, clock: str | None = "departed_at") -> Any:
        declaration = flights.declaration
        table = declaration.source.tables["flights"]
        delay = Column(type="int", nullable=True, known_at=clock)
        columns = table.columns | {"departure_delay": delay}
        flights_table = table.model_copy(update={"columns": columns})
        tables = declaration.source.tables | {"flights": flights_table}
        features = {"service": "planted", "request": ("carrier", "distance", *request)}
        declaration = declaration.model_copy(
            update={
                "source": declaration.source.model_copy(update={"tables": tables}),
                "features": declaration.features.model_copy(update=features),
            }
        )
        frames = assemble(
            declaration, flights.windows, LATER, flights.store, feast, dataset="planted"
        )
        return audit(declaration, sql_folder, frames, flights.store)

    return check


def test_honest_features_pass(flights: Any) -> None:
    frames = assemble(flights.declaration, flights.windows, LATER, flights.store, flights.feast)
    report = audit(flights.declaration, flights.sql, frames, flights.store)
    assert report.leaks == ()
    assert report.passed
    assert len(report.moments) == 2
    assert report.cells_compared > 50_000
    assert set(report.single_feature_auc) == set(frames.schema.names)
    refuse_leaks(report)


def test_the_planted_leaks_are_caught_each_by_its_nature(planted: Check) -> None:
    report = planted("departure_delay")
    found = {leak.feature: leak for leak in report.leaks}
    assert {name: leak.check for name, leak in found.items()} == {
        "tail_rate_same_day": "replay",
        "origin_carrier_rate_same_day": "replay",
        "departure_delay": "request",
    }
    for leak in found.values():
        assert leak.rows > 0
        assert leak.row
        assert leak.moment
        assert leak.used != leak.known
    with pytest.raises(LeakageError, match=r"'tail_rate_same_day' \(replay\).*instead of"):
        refuse_leaks(report)


def test_a_leak_whose_clock_is_misdeclared_still_trips_the_canary(planted: Check) -> None:
    found = {leak.feature: leak.check for leak in planted("departure_delay", clock=None).leaks}
    assert found["departure_delay"] == "canary"


def test_a_report_that_compared_nothing_does_not_pass(planted: Check) -> None:
    report = planted().model_copy(update={"leaks": (), "cells_compared": 0})
    assert not report.passed
    with pytest.raises(LeakageError, match="nothing to compare"):
        refuse_leaks(report)
