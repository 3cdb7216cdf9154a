"""A Feast store of drivers with every kind of key, value and view, and its gateway's reader."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.serving import OnlinePolicy
from aios_platform.features.online_plan import OnlinePlan
from aios_platform.serving.features import FeatureBlock, OnlineReader
from aios_platform.settings import PROJECT_ROOT

START = datetime(2024, 1, 1, tzinfo=UTC)
TTL = timedelta(hours=10)
SERVICE = "drivers_v1"


def at(hours: float) -> datetime:
    """A moment so many hours after the start of 2024."""
    return START + timedelta(hours=hours)


def declaration(service: str = SERVICE) -> ModelDeclaration:
    """A model that takes nothing but the features of a service."""
    path = PROJECT_ROOT / "aios_platform" / "defs" / "flight_delay" / "defs.yaml"
    declared = yaml.safe_load(path.read_text())["attributes"]
    declared["features"] = {"service": service}
    declared.pop("gate", None)
    declared.pop("serving", None)
    return ModelDeclaration.model_validate(declared)


def feature_store(folder: Path, url: str, project: str, **config: Any) -> Any:
    """A Feast store with a registry of its own on the platform's online store."""
    from feast import FeatureStore, RepoConfig

    settings: dict[str, Any] = {
        "project": project,
        "provider": "local",
        "registry": str(folder / f"{project}.db"),
        "repo_path": folder,
        "offline_store": {"type": "aios_platform.features.offline_store.AsOfJoinOfflineStore"},
        "online_store": {
            "type": "aios_platform.features.online_store.NewestWinsOnlineStore",
            "url": url,
        },
        "entity_key_serialization_version": 3,
    }
    return FeatureStore(config=RepoConfig(**settings | config))


def view(name: str, entities: list[Any], ttl: timedelta, /, **features: Any) -> Any:
    """A feature view that is only ever pushed to."""
    from feast import FeatureView, Field, FileSource

    return FeatureView(
        name=name,
        entities=entities,
        ttl=ttl,
        schema=[Field(name=feature, dtype=dtype) for feature, dtype in features.items()],
        source=FileSource(
            name=name,
            path=f"/nowhere/{name}.parquet",
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
        ),
    )


def apply_drivers(store: Any) -> None:
    """Register everything, and make the tables."""
    import pandas as pd
    from feast import Entity, FeatureService, Field, RequestSource, ValueType
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp

    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    city = Entity(name="city", join_keys=["city"], value_type=ValueType.STRING)
    zone = Entity(name="zone", join_keys=["zone"], value_type=ValueType.INT32)
    stats = view(
        "stats", [driver], TTL,
        trips=Int64, rating=Float32, balance=Float64, active=Bool, name=String, hired=UnixTimestamp,
    )  # fmt: skip
    more = view("more", [driver], timedelta(hours=2), level=Int32)
    pair = view("pair", [driver, city], timedelta(0), rides=Int32, note=String)
    zones = view("zones", [zone], TTL, busy=Float32)
    everybody = view("everybody", [], TTL, price=Float64)
    request = RequestSource(
        name="asked",
        schema=[
            Field(name="prediction_time", dtype=UnixTimestamp),
            Field(name="factor", dtype=Float64),
        ],
    )

    @on_demand_feature_view(
        sources=[request, stats[["trips", "active", "name", "hired", "balance"]]],
        schema=[
            Field(name="scaled", dtype=Float64),
            Field(name="days", dtype=Int64),
            Field(name="label", dtype=String),
        ],
        mode="python",
    )
    def derived(inputs: dict[str, Any]) -> dict[str, Any]:
        def of(*names: str) -> Any:
            # Feast itself tries the function without the keys when it is registered.
            return zip(*(inputs.get(name, inputs["trips"]) for name in names), strict=True)

        return {
            "scaled": [
                None if t is None or f is None else float(t * f) for t, f in of("trips", "factor")
            ],
            "days": [
                None if h is None else int((now - h).total_seconds() // 86400)
                for now, h in of("prediction_time", "hired")
            ],
            "label": [
                f"{n}/{a}/{i!r}/{b!r}"
                for n, a, i, b in of("name", "active", "driver_id", "stats__balance")
            ],
        }

    @on_demand_feature_view(
        sources=[stats[["rating"]]],
        schema=[Field(name="twice", dtype=Float64)],
        mode="pandas",
    )
    def doubled(inputs: pd.DataFrame) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame({"twice": inputs["rating"].astype("float64") * 2.0})

    service = FeatureService(
        name=SERVICE,
        features=[
            stats[["trips", "rating", "active", "name"]],
            more, pair, zones, everybody, derived, doubled,
        ],
    )  # fmt: skip
    store.apply(
        [
            driver,
            city,
            zone,
            stats,
            more,
            pair,
            zones,
            everybody,
            request,
            derived,
            doubled,
            service,
        ]
    )


def write(store: Any, name: str, *rows: dict[str, Any], hour: float = 0.0) -> None:
    """Write rows of a view whose event and creation lie at an hour, unless they say otherwise."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.type_map import python_values_to_proto_values

    written = store.get_feature_view(name)

    def values(columns: list[Any], row: dict[str, Any]) -> dict[str, Any]:
        return {
            column.name: python_values_to_proto_values(
                [row[column.name]], column.dtype.to_value_type()
            )[0]
            for column in columns
        }

    data = []
    for row in rows:
        key = values(written.entity_columns, row)
        event = row.get("event_timestamp", at(hour))
        data.append(
            (
                EntityKey(join_keys=list(key), entity_values=list(key.values())),
                values(written.features, row),
                event,
                row.get("created", event),
            )
        )
    store._get_provider().online_write_batch(store.config, written, data, None)


class Reading:
    """A reader of a plan, for blocking use; its policy reads everything anew by default."""

    def __init__(self, plan: OnlinePlan, url: str, **policy: Any) -> None:
        chosen = OnlinePolicy(**{"cache_seconds": 0.0} | policy)
        self.plan = plan
        self.runner = asyncio.Runner()
        places = {name: place for place, name in enumerate(plan.inputs)}
        self.reader = OnlineReader(plan, url, places=places, policy=chosen)

    def read(self, rows: Sequence[dict[str, Any]], moment: datetime) -> FeatureBlock:
        """Read rows, all at one moment."""
        given = [
            tuple(moment if n == self.plan.moment else row.get(n) for n in self.plan.inputs)
            for row in rows
        ]
        return self.runner.run(self.reader.read(given, np.full(len(rows), moment.timestamp())))

    def close(self) -> None:
        """Close the reader and its loop."""
        self.runner.run(self.reader.close())
        self.runner.close()


def same_as_sdk(
    store: Any, plan: OnlinePlan, service: str, rows: Sequence[dict[str, Any]], moment: datetime,
    block: FeatureBlock,
) -> int:  # fmt: skip
    """Compare a block with what Feast delivers, cell by cell; returns how many hold a value."""
    from aios_platform.features.materialize import read_online

    asked = [{n: moment if n == plan.moment else row.get(n) for n in plan.inputs} for row in rows]
    wanted = read_online(store, store.get_feature_service(service), asked, as_of=moment)
    present = 0
    for place, name in enumerate(plan.numerical):
        column = np.array(wanted.values[name], np.float64).astype(np.float32)
        np.testing.assert_array_equal(block.matrix[:, place], column, err_msg=name)
        present += int((~np.isnan(column)).sum())
    for place, name in enumerate(plan.categorical):
        assert block.texts[place] == [value or "" for value in wanted.values[name]], name
        present += sum(value != "" for value in block.texts[place])
    statuses = {
        row
        for name, of_rows in wanted.statuses.items()
        for row, status in enumerate(of_rows)
        if status == "OUTSIDE_MAX_AGE"
    }
    stale = set(np.flatnonzero(block.stale).tolist())
    assert statuses <= stale
    return present
