"""What the offline store gives for some rows at other moments than those they were delivered with.

The join is that of the training frames; only the moments differ.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.datasets import DatasetVersion
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.windows import Window
from aios_platform.features.entities import TIME
from aios_platform.features.service import ServiceContract, joined, service_contract
from aios_platform.features.sources import pinned
from aios_platform.features.training_set import as_input, input_type
from aios_platform.known import INSTANT

if TYPE_CHECKING:
    from feast import FeatureStore


def features_at(
    declaration: ModelDeclaration,
    window: Window,
    asked: pa.Table,
    store: ArtifactStore,
    feature_store: "FeatureStore",
) -> pa.Table:
    """The inputs of some of a window's rows, as they were known at given moments.

    Args:
        declaration: The model.
        window: The window whose delivered rows are meant.
        asked: Row ids (string) and prediction times (UTC) under the names that the declaration
            gives them; each row once.
        store: Where raw and feature tables are.
        feature_store: The platform's Feast store.

    Returns:
        The row id (string) and the model's inputs (numericals float32, categoricals string,
        missing values null) of each asked row that was delivered.

    Raises:
        FeatureError: The feature service is wrong, or the delivered rows lack a column it needs.
        ArtifactMissing: The window was not ingested.
    """
    source = declaration.source
    contract = service_contract(declaration, feature_store)
    delivered = store.read(
        store.require(f"{declaration.name}/raw/{source.rows}", window.key),
        [name for name in contract.columns if name not in (source.prediction_time, TIME)],
    )
    ids = delivered[source.row_id].cast(pa.string())
    places = pc.index_in(asked[source.row_id].cast(pa.string()), value_set=ids.combine_chunks())
    there = places.is_valid()
    moments = asked[source.prediction_time].cast(INSTANT).filter(there)
    entities = delivered.take(places.filter(there).combine_chunks())
    for name in dict.fromkeys((source.prediction_time, TIME)):
        entities = entities.append_column(name, moments)
    found = {source.row_id: asked[source.row_id].cast(pa.string()).filter(there)}
    if entities.num_rows:
        with pinned(_reachable(declaration, contract, store, moments)):
            rows = pa.concat_tables(joined(contract, entities))
    for field in contract.schema.fields:
        kind = input_type(field)
        values = rows[field.name] if entities.num_rows else pa.chunked_array([], kind)
        found[field.name] = as_input(values, field, window.key)
    return pa.table(found)


def _reachable(
    declaration: ModelDeclaration,
    contract: ServiceContract,
    store: ArtifactStore,
    moments: pa.ChunkedArray,
) -> tuple[DatasetVersion, ...]:
    """Current versions of the windows of feature rows that can be seen at these moments."""
    ends = pc.min_max(moments).as_py()
    found = []
    for view in contract.views:
        if view.dataset is None:
            continue
        oldest = ends["min"] - view.ttl if view.ttl else datetime.min.replace(tzinfo=UTC)
        for key in store.keys(view.dataset):
            window = declaration.windows.window(key)
            if window.start <= ends["max"] and window.end >= oldest:
                found.append(store.require(view.dataset, key))
    return tuple(found)
