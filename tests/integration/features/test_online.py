"""The online store on Postgres: order, ages, faults; materialization; parity with offline."""

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from aios_platform.errors import DatabaseUnavailable, SettingsError
from aios_platform.features.materialize import materialize, read_online
from aios_platform.features.repository import apply_repository
from aios_platform.features.service import service_contract
from aios_platform.features.store import open_feature_store
from tests.integration.features.conftest import make_repo

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore:.*experimental:RuntimeWarning"),
]
START = datetime(2024, 1, 1, tzinfo=UTC)
KEYS = ("carrier", "origin", "destination", "route", "tail_number", "flight_number")


fresh_drivers = itertools.count(10_000)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


@pytest.fixture(scope="module")
def driver_view(database: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A feature store with one view of drivers, TTL ten hours."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Int64, String

    folder = tmp_path_factory.mktemp("drivers")
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    source = FileSource(
        name="drivers",
        path=str(folder / "none.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )
    fields = [Field(name="trips", dtype=Int64), Field(name="city", dtype=String)]
    stats = FeatureView(
        name="stats", entities=[driver], ttl=timedelta(hours=10), schema=fields, source=source
    )
    store = FeatureStore(
        config=RepoConfig(
            project="drivers_test",
            provider="local",
            registry=str(folder / "registry.db"),
            repo_path=folder,
            offline_store={"type": "aios_platform.features.offline_store.AsOfJoinOfflineStore"},
            online_store={
                "type": "aios_platform.features.online_store.NewestWinsOnlineStore",
                "url": database.url("feast"),
            },
            entity_key_serialization_version=3,
        )
    )
    store.apply([driver, stats])
    return store


def write(store: Any, *rows: tuple[int, float, float | None, int]) -> None:
    """Write (driver, event hour, created hour, trips)."""
    import pandas as pd

    frame = pd.DataFrame(
        {
            "driver_id": [r[0] for r in rows],
            "event_timestamp": [at(r[1]) for r in rows],
            "created": [at(r[2]) if r[2] is not None else pd.NaT for r in rows],
            "trips": [r[3] for r in rows],
            "city": [f"city {r[3]}" for r in rows],
        }
    )
    store.write_to_online_store("stats", frame)


def read(store: Any, driver: int, hours: float) -> tuple[Any, str]:
    found = read_online(
        store, ["stats:trips", "stats:city"], [{"driver_id": driver}], as_of=at(hours)
    )
    trips, city = found.values["trips"][0], found.values["city"][0]
    assert city == (None if trips is None else f"city {trips}")
    return trips, found.statuses["trips"][0]


def test_an_older_event_never_overwrites_a_newer_one(driver_view: Any) -> None:
    write(driver_view, (1, 5, 5, 50))
    write(driver_view, (1, 3, 9, 30))
    assert read(driver_view, 1, 6) == (50, "PRESENT")
    write(driver_view, (1, 5, 7, 57))
    assert read(driver_view, 1, 8) == (57, "PRESENT")
    write(driver_view, (1, 5, 6, 56))
    assert read(driver_view, 1, 8) == (57, "PRESENT")


def test_within_one_batch_the_newest_wins_too(driver_view: Any) -> None:
    write(driver_view, (2, 4, 4, 40), (2, 6, 6, 60), (2, 5, 8, 50), (2, 6, 6, 61))
    assert read(driver_view, 2, 9) == (61, "PRESENT")


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    events=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_the_order_of_writes_does_not_matter(
    driver_view: Any, events: list[tuple[int, int]], order: Any
) -> None:
    driver = next(fresh_drivers)
    rows = [(driver, event, event + late, event * 100 + late) for event, late in events]
    shuffled = list(rows) * 2
    order.shuffle(shuffled)
    for row in shuffled:
        write(driver_view, row)
    newest = max(rows, key=lambda row: (row[1], row[2]))
    assert read(driver_view, driver, 9) == (newest[3], "PRESENT")


AWKWARD = "\\ \t \n \r \\N \\. \\x41 ' \" é 🛫 \x01"


def test_text_of_any_kind_comes_back_as_it_was_written(driver_view: Any, database: Any) -> None:
    import pandas as pd

    cities = [AWKWARD, "\\N", "", None]
    drivers = [next(fresh_drivers) for _ in cities]
    frame = pd.DataFrame({"driver_id": drivers, "city": cities, "trips": 1})
    driver_view.write_to_online_store(
        "stats", frame.assign(event_timestamp=at(1), created=at(1.25))
    )
    asked = [{"driver_id": driver} for driver in drivers]
    found = read_online(driver_view, ["stats:city"], asked, as_of=at(2))
    assert found.values["city"] == cities
    engine = create_engine(database.url("feast"))
    with engine.connect() as connection:
        shown = connection.execute(
            text(
                "SELECT event_ts, created_ts FROM drivers_test_stats "
                "WHERE feature_name = 'city' AND value_text = :city"
            ),
            {"city": AWKWARD},
        ).all()
    engine.dispose()
    assert shown == [(at(1), at(1.25))]


def test_what_is_older_than_the_ttl_is_null_and_says_so(driver_view: Any) -> None:
    write(driver_view, (3, 5, 5, 50))
    assert read(driver_view, 3, 15) == (50, "PRESENT")
    assert read(driver_view, 3, 15.001) == (None, "OUTSIDE_MAX_AGE")
    assert read(driver_view, 999, 5) == (None, "NOT_FOUND")
    late = read_online(driver_view, ["stats:trips"], [{"driver_id": 3}])
    assert late.statuses["trips"] == ["OUTSIDE_MAX_AGE"]
    with pytest.raises(ValueError, match="no time zone"):
        read_online(driver_view, ["stats:trips"], [], as_of=datetime(2024, 1, 1))


def test_a_null_key_finds_nothing(driver_view: Any) -> None:
    write(driver_view, (5, 5, 5, 50))
    asked = [{"driver_id": 5}, {"driver_id": None}]
    found = read_online(driver_view, ["stats:trips"], asked, as_of=at(6))
    assert found.values["trips"] == [50, None]
    assert found.values["driver_id"] == [5, None]
    assert found.statuses["trips"] == ["PRESENT", "NOT_FOUND"]
    alone = read_online(driver_view, ["stats:trips"], [{"driver_id": None}], as_of=at(6))
    assert alone.statuses["trips"] == ["NOT_FOUND"]


def test_writers_at_once_leave_the_newest(driver_view: Any) -> None:
    failures: list[BaseException] = []

    def writer(first: int) -> None:
        try:
            for hour in range(first, 9, 3):
                write(driver_view, *((driver, hour, hour, hour) for driver in range(20, 40)))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=writer, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert {read(driver_view, driver, 9)[0] for driver in range(20, 40)} == {8}


def test_a_lost_connection_is_replaced(driver_view: Any, database: Any) -> None:
    write(driver_view, (4, 1, 1, 10))
    engine = create_engine(database.url("feast"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = 'feast' AND pid <> pg_backend_pid()"
            )
        ).all()
    engine.dispose()
    assert read(driver_view, 4, 2) == (10, "PRESENT")


def test_a_server_that_does_not_answer_is_a_clear_error(
    driver_view: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aios_platform.features.online_store import (
        NewestWinsOnlineStore,
        NewestWinsOnlineStoreConfig,
    )

    monkeypatch.setattr("aios_platform.features.online_store.WAIT_SECONDS", 0.5)
    config = driver_view.config.model_copy(deep=True)
    url = "postgresql+psycopg2://someone:s%40cret@127.0.0.1:1/feast"
    config._online_config = None
    dead = NewestWinsOnlineStoreConfig(url=url)
    config._online_store = dead
    assert dead.password == "s@cret"
    store = NewestWinsOnlineStore()
    try:
        with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:1 does not answer") as caught:
            store.materialized(config, "stats")
    finally:
        store.disconnect()
    assert "s@cret" not in str(caught.value)
    with pytest.raises(SettingsError, match="not a Postgres URL"):
        NewestWinsOnlineStoreConfig(url="${AIOS_FEAST_URL}")


def test_materialization_repeats_without_work_and_repairs_a_new_delivery(flights: Any) -> None:
    arguments = (flights.declaration, flights.windows[:1], flights.store, flights.feast)
    # Tests of other files, which share the store, may have been here.
    online, config = flights.feast._get_provider().online_store, flights.feast.config
    views = [view.name for view in service_contract(flights.declaration, flights.feast).views]
    online._forget(config, views)
    first = materialize(*arguments)
    assert all(count > 0 for count in first.values())
    assert set(materialize(*arguments).values()) == {0}
    dataset, window = "flight_delay/features/carrier_delays", flights.windows[0]
    version = flights.store.require(dataset, window.key)
    rows = flights.store.read(version)
    last = pc.max(rows["event_timestamp"]).as_py()
    # The new delivery takes the month's last event back.
    kept = rows.filter(pc.less(rows["event_timestamp"], pa.scalar(last)))
    gone = rows.filter(pc.equal(rows["event_timestamp"], pa.scalar(last))).to_pylist()[0]
    ask = (flights.feast, ["carrier_delays:carrier_late_rate_1d"], [{"carrier": gone["carrier"]}])
    try:
        flights.store.write(dataset, window.key, kept, inputs=version.inputs)
        again = materialize(*arguments)
        assert {name for name, count in again.items() if count} == {"carrier_delays"}
        mine = kept.filter(pc.equal(kept["carrier"], gone["carrier"])).to_pylist()[-1]
        found = read_online(*ask, as_of=window.end).values["carrier_late_rate_1d"]
        assert found == [mine["carrier_late_rate_1d"]]
    finally:
        flights.store.write(dataset, window.key, rows, inputs=version.inputs)
        materialize(*arguments)
    found = read_online(*ask, as_of=window.end).values["carrier_late_rate_1d"]
    assert found == [gone["carrier_late_rate_1d"]]


def parity(flights: Any, feast: Any) -> tuple[int, int]:
    """Compare online with offline for every feature; (cells, cells with a value)."""
    moment = flights.windows[0].end - timedelta(seconds=1)
    service = feast.get_feature_service(flights.declaration.features.service)
    raw = flights.store.require("flight_delay/raw/flights", "2013-02")
    table = flights.store.read(raw, list(KEYS))
    rows = table.take(pa.array(np.arange(0, table.num_rows, table.num_rows // 200)))
    moments = pa.array([moment] * rows.num_rows, pa.timestamp("us", tz="UTC"))
    entities = rows.append_column("event_timestamp", moments)
    entities = entities.append_column("prediction_time", moments)
    offline = feast.get_historical_features(entity_df=entities, features=service).to_arrow()
    asked = [row | {"prediction_time": moment} for row in rows.to_pylist()]
    online = read_online(feast, service, asked, as_of=moment)
    names = [n for n in online.values if n in offline.column_names and n not in KEYS]
    assert len(names) > 40
    present = 0
    for name in names:
        wanted = offline[name].to_pylist()
        assert online.values[name] == wanted, name
        present += sum(value is not None for value in wanted)
    return len(names) * rows.num_rows, present


def test_online_reads_are_exactly_the_offline_values(flights: Any) -> None:
    materialize(flights.declaration, flights.windows[:1], flights.store, flights.feast)
    cells, present = parity(flights, flights.feast)
    assert present > cells / 2


KILLED = """
import os, signal, sys
from pathlib import Path
from aios_platform.features import online_store
from aios_platform.features.store import open_feature_store
from aios_platform.features.materialize import materialize
from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.declaration import ModelDeclaration

repo, url, root, document, after = sys.argv[1:]
original, calls = online_store.NewestWinsOnlineStore._write, [0]

def die(*args, **kwargs):
    calls[0] += 1
    if calls[0] > int(after):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)

online_store.NewestWinsOnlineStore._write = die
declaration = ModelDeclaration.model_validate_json(Path(document).read_text())
window = declaration.windows.window("2013-01")
materialize(declaration, [window], ArtifactStore(root), open_feature_store(Path(repo), url))
"""


def test_a_killed_materialization_is_finished_by_the_same_call(
    flights: Any, database: Any, tmp_path: Path
) -> None:
    after = 6
    url = database.url("feast")
    repo = make_repo(tmp_path / "repo", "killed_test", flights.store.root)
    feast = open_feature_store(repo, url)
    apply_repository(feast, repo)
    (tmp_path / "model.json").write_text(flights.declaration.model_dump_json())
    arguments = (repo, url, flights.store.root, tmp_path / "model.json", after)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, arguments)],
        env=dict(os.environ),
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()[-2000:]
    feast = open_feature_store(repo, url)
    written = materialize(flights.declaration, flights.windows[:1], flights.store, feast)
    done = [name for name, count in written.items() if not count]
    # Two views at once: of one that was written it may not have been noted yet.
    assert after - 1 <= len(done) <= after
    cells, present = parity(flights, feast)
    assert present > cells / 2


def test_applying_the_repository_again_changes_nothing_and_follows_its_files(
    flights: Any, database: Any, tmp_path: Path
) -> None:
    repo = make_repo(tmp_path / "repo", "applied_test", flights.store.root)
    feast = open_feature_store(repo, database.url("feast"))
    assert apply_repository(feast, repo)
    assert not apply_repository(feast, repo)
    names = {view.name for view in feast.list_batch_feature_views()}
    assert "plane" in names
    text = (repo / "flights.py").read_text()
    service = text.index("flight_delay_v1 = FeatureService(")
    (repo / "flights.py").write_text(
        text[:service].replace("plane = view(", "aircraft = view(").replace('"plane"', '"aircraft"')
    )
    assert apply_repository(feast, repo)
    feast.refresh_registry()
    assert {v.name for v in feast.list_batch_feature_views()} == names - {"plane"} | {"aircraft"}
    left = {service.name for service in feast.list_feature_services()}
    assert left == {"household_spend_v1"}, "that of another file stays"


def test_a_file_that_does_not_load_is_named(flights: Any, database: Any, tmp_path: Path) -> None:
    from aios_platform.errors import FeatureError

    repo = make_repo(tmp_path / "repo", "broken_test", flights.store.root)
    (repo / "more.py").write_text("from flights import nothing_of_this_name\n")
    feast = open_feature_store(repo, database.url("feast"))
    with pytest.raises(FeatureError, match=r"more\.py does not load: ImportError"):
        apply_repository(feast, repo)


def test_the_feast_command_works_on_the_repository(
    flights: Any, database: Any, tmp_path: Path, make_environment: Callable[[str], dict[str, str]]
) -> None:
    repo = make_repo(tmp_path / "repo", "command_test", flights.store.root)
    feast = Path(sys.executable).with_name("feast")
    ran = subprocess.run(
        [str(feast), "apply", "--skip-source-validation"],
        cwd=repo,
        env=make_environment(database.url("feast")),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    store = open_feature_store(repo, database.url("feast"))
    assert flights.declaration.features.service in {s.name for s in store.list_feature_services()}


@pytest.fixture
def make_environment() -> Callable[[str], dict[str, str]]:
    from aios_platform.features.store import feast_environment

    return lambda url: {**os.environ, **feast_environment(url)}
