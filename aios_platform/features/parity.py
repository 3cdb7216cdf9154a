"""Online/offline parity: does production read what the models were trained and judged on?"""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.datasets import DatasetVersion
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.evidence import OnlineParity
from aios_platform.errors import FeatureError
from aios_platform.features.entities import TIME
from aios_platform.features.materialize import read_online
from aios_platform.features.service import ServiceContract, service_contract
from aios_platform.features.sources import pinned
from aios_platform.known import INSTANT

if TYPE_CHECKING:
    from feast import FeatureStore

ROWS = 200
# Feast carries a request's timestamps in whole seconds.
SECOND = timedelta(seconds=1)


def online_parity(
    declaration: ModelDeclaration,
    store: ArtifactStore,
    feature_store: "FeatureStore",
    *,
    rows: int = ROWS,
) -> OnlineParity:
    """Read sampled entities online and offline, as of the last materialised moment.

    Every value of the model's feature service is compared, exactly; a missing value (null, NaN)
    equals a missing one.

    Args:
        declaration: The model.
        store: Where raw and feature tables are.
        feature_store: The platform's Feast store.
        rows: Rows of the newest materialised window to take, evenly spread.

    Raises:
        FeatureError: Nothing was materialised, or the online store is behind the feature tables:
            then a comparison would say nothing about the features.
        ArtifactMissing: The window's raw rows or feature tables are gone.
        DatabaseUnavailable: The online store does not answer.
    """
    contract = service_contract(declaration, feature_store)
    if contract.service is None:
        return OnlineParity(cells=0, different=0, nothing_online=True)
    newest = _newest_materialised(contract, store)
    moment = declaration.windows.window(newest).end - SECOND
    entities = _entities(declaration, contract, store, newest, moment, rows)
    with pinned(_reachable(declaration, contract, store, moment)):
        offline = feature_store.get_historical_features(
            entity_df=entities, features=contract.service
        ).to_arrow()
    asked = entities.drop_columns([TIME]) if TIME not in contract.columns else entities
    online = read_online(feature_store, contract.service, asked.to_pylist(), as_of=moment)
    names = [field.name for field in contract.schema.joined]
    return _compared(names, entities[declaration.source.row_id].to_pylist(), online.values, offline)


def _newest_materialised(contract: ServiceContract, store: ArtifactStore) -> str:
    """The newest window that the online store holds of every view, as the tables are now.

    Raises:
        FeatureError: There is none, or views and tables disagree.
    """
    online = contract.feature_store._get_provider().online_store
    newest: dict[str, str] = {}
    for view in contract.views:
        if view.dataset is None:
            continue
        if not hasattr(online, "materialized"):
            # Redis does not say which windows it holds; what is compared shows it.
            newest[view.name] = max(store.keys(view.dataset), default="")
            continue
        held = online.materialized(contract.feature_store.config, view.name)
        if not held:
            raise FeatureError(
                f"The online store holds no window of the feature view '{view.name}'.",
                remedy="Materialize the asset 'online_features' first.",
            )
        newest[view.name] = max(held)
        current = store.require(view.dataset, newest[view.name]).digest
        if held[newest[view.name]] != current:
            raise FeatureError(
                f"The online store holds an earlier version of window {newest[view.name]} of the "
                f"feature view '{view.name}' than its table.",
                remedy="Materialize the asset 'online_features' of that window again.",
            )
    if len(set(newest.values())) != 1:
        raise FeatureError(
            "The online store holds feature views up to different windows: "
            + ", ".join(f"{view} {key}" for view, key in sorted(newest.items())),
            remedy="Materialize the asset 'online_features' of the newest window.",
        )
    return next(iter(newest.values()))


def _entities(
    declaration: ModelDeclaration,
    contract: ServiceContract,
    store: ArtifactStore,
    window: str,
    moment: datetime,
    count: int,
) -> pa.Table:
    source = declaration.source
    raw = store.require(f"{declaration.name}/raw/{source.rows}", window)
    if raw.rows == 0:
        raise FeatureError(
            f"Window {window} has no rows to compare.", remedy="Ingest a window that has rows."
        )
    columns = [name for name in contract.columns if name not in (source.prediction_time, TIME)]
    table = store.read(raw, columns)
    places = np.unique(np.linspace(0, table.num_rows - 1, min(count, table.num_rows)).astype(int))
    chosen = table.take(pa.array(places))
    moments = pa.array([moment.astimezone(UTC)] * chosen.num_rows, INSTANT)
    for name in dict.fromkeys((source.prediction_time, TIME)):
        chosen = chosen.append_column(name, moments)
    return chosen


def _reachable(
    declaration: ModelDeclaration, contract: ServiceContract, store: ArtifactStore, moment: datetime
) -> tuple[DatasetVersion, ...]:
    """Current versions of the windows of feature rows that can be seen at this moment."""
    found = []
    for view in contract.views:
        if view.dataset is None:
            continue
        oldest = moment - view.ttl if view.ttl else datetime.min.replace(tzinfo=UTC)
        for key in store.keys(view.dataset):
            window = declaration.windows.window(key)
            if window.start <= moment and window.end > oldest:
                found.append(store.require(view.dataset, key))
    return tuple(found)


def _compared(
    names: list[str], ids: list[Any], online: dict[str, list[Any]], offline: pa.Table
) -> OnlineParity:
    cells = different = 0
    example = ""
    for name in names:
        wanted = offline[name].to_pylist()
        found = online.get(name, [])
        if len(found) != len(wanted):
            raise FeatureError(
                f"The online store answered {len(found)} of {len(wanted)} rows for '{name}'.",
                remedy="Apply the Feast repository again and materialize the newest window.",
            )
        for row, left, right in zip(ids, found, wanted, strict=True):
            cells += 1
            if not _same(left, right):
                different += 1
                example = example or f"'{name}' of row {row}: online {left!r}, offline {right!r}"
    return OnlineParity(cells=cells, different=different, example=example)


def _same(left: Any, right: Any) -> bool:
    return left == right or (_missing(left) and _missing(right))


def _missing(value: Any) -> bool:
    return value is None or value != value
