"""The gateway's reader against Feast's SDK on one store, value for value."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aios_platform.contracts.serving import OnlinePolicy
from aios_platform.errors import FeatureError, ServingError
from aios_platform.features.online_plan import OnlinePlan, online_plan
from aios_platform.serving.features import OnlineReader
from tests.redis_servers import redis_server
from tests.unit.serving.drivers import (
    SERVICE,
    TTL,
    Reading,
    apply_drivers,
    at,
    declaration,
    feature_store,
    same_as_sdk,
    view,
    write,
)

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore:.*experimental:RuntimeWarning"),
]
DRIVERS, CITIES, ZONES = (1, 2, -3, 2**62), ("Rome", "Zürich"), (7, -8)
WHOLE = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(width=32, allow_infinity=False)
LETTERS = st.characters(codec="utf-8", exclude_characters="\0")


@pytest.fixture(scope="module", params=["postgres", "redis"])
def address(request: pytest.FixtureRequest, database: Any, tmp_path_factory: Any) -> Iterator[str]:
    """Where the online store is: every test below holds for both."""
    if request.param == "postgres":
        yield database.url("feast")
        return
    with redis_server(tmp_path_factory.mktemp("redis")) as connection:
        yield connection


@pytest.fixture(scope="module")
def drivers(address: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("drivers")
    if address.startswith("postgres"):
        store = feature_store(folder, address, "gateway_drivers")
    else:
        kind = "aios_platform.features.redis_store.NewestWinsRedisOnlineStore"
        online = {"type": kind, "connection_string": address}
        store = feature_store(folder, "", "gateway_drivers", online_store=online)
    apply_drivers(store)
    write(store, "everybody", {"__dummy_id": "", "price": 9.75}, hour=12)
    return store


@pytest.fixture(scope="module")
def reading(drivers: Any, address: str) -> Any:
    reading = Reading(online_plan(declaration(), drivers), address)
    yield reading
    reading.close()


@st.composite
def contents(draw: Any) -> dict[str, list[dict[str, Any]]]:
    """Rows to write, per view."""

    def maybe(strategy: Any) -> Any:
        return draw(st.none() | strategy)

    def some(*entities: Any) -> list[Any]:
        return draw(st.lists(st.sampled_from(entities), max_size=3, unique=True))

    event = {"event_timestamp": at(draw(st.sampled_from([0, 1.5, 3])))}
    pairs = [(driver, city) for driver in DRIVERS for city in CITIES]
    return {
        "stats": [
            event
            | {
                "driver_id": driver,
                "trips": maybe(WHOLE),
                "rating": maybe(FLOATS),
                "balance": maybe(st.floats()),
                "active": maybe(st.booleans()),
                "name": maybe(st.text(LETTERS, max_size=150)),
                "hired": at(draw(st.integers(-90_000, 0))),
            }
            for driver in some(*DRIVERS)
        ],
        "more": [
            event | {"driver_id": d, "level": maybe(st.integers(-(2**31), 2**31 - 1))}
            for d in some(*DRIVERS)
        ],
        "pair": [
            event
            | {
                "driver_id": driver,
                "city": city,
                "rides": draw(st.integers(-9, 9)),
                "note": maybe(st.text(LETTERS, max_size=9)),
            }
            for driver, city in some(*pairs)
        ],
        "zones": [event | {"zone": z, "busy": maybe(FLOATS)} for z in some(*ZONES)],
    }


asked = st.lists(
    st.fixed_dictionaries(
        {
            "driver_id": st.sampled_from([*DRIVERS, 999, None]),
            "city": st.sampled_from([*CITIES, "", "nowhere", None]),
            "zone": st.sampled_from([*ZONES, None]),
            "factor": st.none() | st.floats(-1e6, 1e6),
        }
    ),
    min_size=1,
    max_size=7,
)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(contents=contents(), rows=asked, hours=st.sampled_from([2, 3.5, 10, 11.5, 13, 13.01]))
def test_every_value_is_the_sdk_s(
    drivers: Any, reading: Reading, contents: dict[str, Any], rows: list[Any], hours: float
) -> None:
    for name, written in contents.items():
        if written:
            write(drivers, name, *written)
    block = reading.read(rows, at(hours))
    same_as_sdk(drivers, reading.plan, SERVICE, rows, at(hours), block)


def test_what_is_there_is_read_and_what_is_not_is_marked(drivers: Any, reading: Reading) -> None:
    known = {"driver_id": 50, "city": "Rome", "zone": 51, "factor": 2.0}
    write(
        drivers,
        "stats",
        {
            "driver_id": 50, "trips": 4, "rating": 4.5, "balance": 0.5, "active": True,
            "name": "Ann", "hired": at(-48),
        },
        hour=1,
    )  # fmt: skip
    write(drivers, "more", {"driver_id": 50, "level": None}, hour=2)
    write(drivers, "pair", {"driver_id": 50, "city": "Rome", "rides": 3, "note": "ok"}, hour=1)
    write(drivers, "zones", {"zone": 51, "busy": 0.25}, hour=1)
    rows = [known, known | {"zone": None}, known | {"driver_id": 51}, known | {"zone": 2**40}]
    block = reading.read(rows, at(3))
    assert block.missing.tolist() == [False, True, True, True]
    assert not block.stale.any()
    assert not block.unreachable.any()
    names = reading.plan.numerical
    first = dict(zip(names, block.matrix[0].tolist(), strict=True))
    assert np.isnan(first.pop("level"))
    assert first == {
        "trips": 4, "rating": 4.5, "active": 1, "rides": 3, "busy": 0.25, "price": 9.75,
        "scaled": 8, "days": 2, "twice": 9,
    }  # fmt: skip
    assert [texts[0] for texts in block.texts] == ["Ann", "ok", "Ann/True/50/0.5"]
    seen = dict(zip((v.name for v in reading.plan.views), block.event[0].tolist(), strict=True))
    assert seen["stats"] == at(1).timestamp()
    assert seen["more"] == at(2).timestamp()
    assert np.isnan(block.event[2, 0])
    assert same_as_sdk(
        drivers, reading.plan, SERVICE, rows[:3], at(3), reading.read(rows[:3], at(3))
    )


def test_a_value_exactly_as_old_as_its_ttl_is_young_enough(drivers: Any, reading: Reading) -> None:
    event = at(1) + timedelta(microseconds=123_457)
    write(drivers, "zones", {"zone": 60, "busy": 0.5, "event_timestamp": event})
    row, place = {"zone": 60}, reading.plan.numerical.index("busy")
    for moment in (event - TTL, event, event + TTL):
        block = reading.read([row], moment)
        assert block.matrix[0, place] == 0.5
        assert block.stale.tolist() == [False]
    block = reading.read([row], event + TTL + timedelta(microseconds=1))
    assert np.isnan(block.matrix[0, place])
    assert block.stale.tolist() == [True]
    assert block.event[0, 3] == pytest.approx(event.timestamp())


def test_a_moment_that_is_no_number_makes_everything_stale(reading: Reading) -> None:
    row = tuple({"zone": 60}.get(name) for name in reading.plan.inputs)
    block = reading.runner.run(reading.reader.read([row], np.array([np.nan])))
    assert block.stale.tolist() == [True]
    assert np.isnan(block.matrix[0, reading.plan.numerical.index("price")])


def test_an_infinite_value_counts_as_missing(drivers: Any, reading: Reading) -> None:
    write(drivers, "zones", {"zone": 70, "busy": float("inf")})
    block = reading.read([{"zone": 70}], at(1))
    assert np.isnan(block.matrix[0, reading.plan.numerical.index("busy")])
    assert block.missing.tolist() == [True]


def test_no_rows_are_no_features(reading: Reading) -> None:
    block = reading.read([], at(1))
    assert block.matrix.shape == (0, len(reading.plan.numerical))
    assert [len(texts) for texts in block.texts] == [0, 0, 0]


def test_what_the_plan_asks_of_the_caller(reading: Reading, address: str) -> None:
    plan = reading.plan
    assert dict(plan.kinds) == {
        "driver_id": "int", "city": "string", "zone": "int",
        "prediction_time": "timestamp", "factor": "float",
    }  # fmt: skip
    assert plan.moment == "prediction_time"
    with pytest.raises(ServingError, match="do not carry what the features need: city, factor"):
        OnlineReader(
            plan,
            address,
            places={"driver_id": 0, "zone": 1},
            policy=OnlinePolicy(),
        )


def test_a_view_without_a_table_is_an_error_until_it_is_back(
    drivers: Any, database: Any, reading: Reading, address: str
) -> None:
    import sqlalchemy as sa

    if not address.startswith("postgres"):
        pytest.skip("Redis has no tables")
    engine = sa.create_engine(database.url("feast"), isolation_level="AUTOCOMMIT")
    rename = "ALTER TABLE {} RENAME TO {}"
    there, away = "gateway_drivers_zones", "gateway_drivers_away"
    with engine.connect() as connection:
        connection.execute(sa.text(rename.format(there, away)))
        try:
            with pytest.raises(
                FeatureError, match=r"refuses .* \"gateway_drivers_zones\" does not"
            ):
                reading.read([{"zone": 7}], at(1))
        finally:
            connection.execute(sa.text(rename.format(away, there)))
    engine.dispose()
    assert reading.read([{"zone": 7}], at(1)).matrix.shape[0] == 1


def test_an_on_demand_view_that_fails_is_named(drivers: Any, address: str) -> None:
    from feast import FeatureService, Field
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Float64

    @on_demand_feature_view(
        sources=[drivers.get_feature_view("zones")],
        schema=[Field(name="inverse", dtype=Float64)],
        mode="python",
    )
    def inverse(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"inverse": [1.0 / busy for busy in inputs["busy"]]}

    drivers.apply([inverse, FeatureService(name="inverse_v1", features=[inverse])])
    write(drivers, "zones", {"zone": 80, "busy": 0.0}, {"zone": 81, "busy": 4.0})
    reading = Reading(online_plan(declaration("inverse_v1"), drivers), address)
    try:
        assert reading.read([{"zone": 81}], at(1)).matrix.tolist() == [[0.25]]
        with pytest.raises(FeatureError, match=r"'inverse' fails: ZeroDivisionError"):
            reading.read([{"zone": 80}], at(1))
    finally:
        reading.close()


@pytest.fixture
def plan_of(tmp_path: Path) -> Callable[..., OnlinePlan]:
    """Plans a service in a store whose server is not there."""

    def plan(entity: Any, *views: Any, features: list[Any], **config: Any) -> OnlinePlan:
        from feast import FeatureService

        url = "postgresql+psycopg2://somebody@127.0.0.1:1/feast"
        store = feature_store(tmp_path, url, "refused", **config)
        store.registry.apply_entity(entity, store.project)
        for each in views:
            store.registry.apply_feature_view(each, store.project)
        service = FeatureService(name="some_v1", features=features)
        store.registry.apply_feature_service(service, store.project)
        return online_plan(declaration("some_v1"), store)

    return plan


def test_what_the_gateway_cannot_read_is_refused_when_planned(
    plan_of: Callable[..., OnlinePlan],
) -> None:
    from feast import Entity, Field, RequestSource, ValueType
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Array, Bytes, Float64, String

    key = Entity(name="key", join_keys=["key"], value_type=ValueType.STRING)
    stored = view("stored", [key], TTL, value=Float64, vector=Array(Float64))
    stored.entity_columns = [Field(name="key", dtype=String)]
    served = stored[["value"]]
    assert plan_of(key, stored, features=[served]).numerical == ("value",)

    with pytest.raises(FeatureError, match="cannot read the online store 'sqlite'"):
        plan_of(key, stored, features=[served], online_store={"type": "sqlite", "path": "x.db"})

    def derived(sources: list[Any], **options: Any) -> Any:
        @on_demand_feature_view(
            sources=sources,
            schema=[Field(name="derived", dtype=Float64)],
            **{"mode": "python"} | options,
        )
        def computed(inputs: dict[str, Any]) -> dict[str, Any]:
            return {"derived": inputs["value"]}

        return computed

    for sources, options, message in (
        ([stored[["vector"]]], {}, "'stored:vector' of type DOUBLE_LIST"),
        ([served], {"singleton": True}, "cannot compute the on-demand feature view 'computed'"),
        ([served], {"write_to_online_store": True}, "'computed' is written to the online store"),
        (
            [served, RequestSource(name="r", schema=[Field(name="blob", dtype=Bytes)])],
            {},
            "takes 'blob' of type BYTES from the request",
        ),
    ):
        refused = derived(sources, **options)
        with pytest.raises(FeatureError, match=message):
            plan_of(key, stored, refused, features=[served, refused])

    stored.entity_columns = [Field(name="key", dtype=Bytes)]
    with pytest.raises(FeatureError, match="by its key 'key' of type BYTES"):
        plan_of(key, stored, features=[served])
