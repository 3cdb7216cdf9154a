"""What a model's Feast feature service delivers: its inputs, its sources, its digest."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.contracts.declaration import ColumnType, ModelDeclaration
from aios_platform.contracts.record import digest_of, nearest
from aios_platform.errors import DeclarationError, FeatureError
from aios_platform.features.sources import SCHEME

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore

BATCH_ROWS = 200_000
NUMERICAL = {"BOOL", "INT32", "INT64", "FLOAT", "DOUBLE"}
CATEGORICAL = {"STRING"}
KINDS = {
    ColumnType.STRING: FieldKind.CATEGORICAL,
    ColumnType.VECTOR: FieldKind.VECTOR,
    ColumnType.TEXT: FieldKind.TEXT,
}


@dataclass(frozen=True)
class SourceView:
    """One feature view that a service reads.

    Args:
        name: The view's name.
        dataset: Dataset of its `aios://` source; None for another source.
        ttl: Greatest age of a row; None: no limit.
        keys: Columns of the entity rows that it is joined on.
    """

    name: str
    dataset: str | None
    ttl: timedelta | None
    keys: tuple[str, ...]


@dataclass(frozen=True)
class ServiceContract:
    """A model's inputs as its declaration and its feature service define them.

    Args:
        feature_store: The store that the service is registered in.
        service: The Feast feature service; None: everything is in the request.
        schema: The model's inputs in order: request columns, then the service's features.
        columns: Columns of the predicted table that joining needs.
        views: The feature views with sources.
        digest: SHA-256 (hex) over everything that shapes the features' values.
    """

    feature_store: "FeatureStore"
    service: "FeatureService | None"
    schema: FeatureSchema
    columns: tuple[str, ...]
    views: tuple[SourceView, ...]
    digest: str


def service_contract(declaration: ModelDeclaration, store: "FeatureStore") -> ServiceContract:
    """Read the declared feature service from the registry.

    Raises:
        FeatureError: There is no such service, or it delivers what no model takes.
        DeclarationError: A request column is a timestamp.
    """
    name = declaration.features.service
    service = _service(store, name) if name else None
    fields = _request_fields(declaration)
    columns = [declaration.source.row_id, declaration.source.prediction_time]
    columns += declaration.features.request
    views: dict[str, Any] = {}
    on_demand: dict[str, Any] = {}
    described: list[Any] = []
    for projection in service.feature_view_projections if service else ():
        view = _view(store, projection.name)
        (on_demand if _is_on_demand(view) else views)[projection.name] = view.with_projection(
            projection
        )
        for feature in projection.features:
            fields.append(_field(feature.name, feature.dtype, projection.name_to_use()))
        described.append([projection.name_to_use(), [str(f) for f in projection.features]])
    for view in on_demand.values():
        columns += [f.name for s in view.source_request_sources.values() for f in s.schema]
        for projection in view.source_feature_view_projections.values():
            if projection.name not in views:
                found = _view(store, projection.name).with_projection(projection)
                views[projection.name] = found
        text = getattr(view.feature_transformation, "udf_string", "")
        described.append([view.name, view.mode, text, [str(f) for f in view.features]])
    sources = [_source_view(view) for view in views.values()]
    described += [_described(view) for view in views.values()]
    for source in sources:
        columns += source.keys
    _refuse_repeats(field.name for field in fields)
    return ServiceContract(
        feature_store=store,
        service=service,
        schema=FeatureSchema(fields=tuple(fields)),
        columns=tuple(dict.fromkeys(columns)),
        views=tuple(sources),
        digest=digest_of([declaration.features.request, described]),
    )


def joined(
    contract: ServiceContract, entities: pa.Table, *, as_known: bool = True
) -> Iterator[pa.Table]:
    """Entity rows with their features, in their order, in tables of bounded size.

    Args:
        contract: The service.
        entities: Rows with `contract.columns` and the time of each.
        as_known: Whether rows count only from when they became known.
    """
    if contract.service is None:
        yield entities
        return
    job = contract.feature_store.get_historical_features(
        entity_df=entities,
        features=contract.service,
        **({"filter_by_created_timestamp": True} if as_known else {}),
    )
    yield from job.to_arrow_batches(BATCH_ROWS)


def _is_on_demand(view: Any) -> bool:
    from feast.on_demand_feature_view import OnDemandFeatureView

    return isinstance(view, OnDemandFeatureView)


def _service(store: "FeatureStore", name: str) -> "FeatureService":
    from feast.errors import FeatureServiceNotFoundException

    try:
        return store.get_feature_service(name)
    except FeatureServiceNotFoundException:
        names = [service.name for service in store.list_feature_services()]
        raise FeatureError(
            f"There is no feature service '{name}' in the registry. {nearest(name, names)}",
            remedy="Declare it in feature_repo, or correct features.service in the declaration.",
        ) from None


def _view(store: "FeatureStore", name: str) -> Any:
    from feast.errors import FeatureViewNotFoundException

    try:
        return store.registry.get_any_feature_view(name, store.project, allow_cache=True)
    except FeatureViewNotFoundException:
        raise FeatureError(
            f"The registry has no feature view '{name}', which a feature service names.",
            remedy="Apply the Feast repository again.",
        ) from None


def _request_fields(declaration: ModelDeclaration) -> list[FeatureField]:
    table = declaration.source.tables[declaration.source.rows]
    fields = []
    for name in declaration.features.request:
        kind = table.columns[name].type
        if kind is ColumnType.TIMESTAMP:
            raise DeclarationError(
                f"features.request names the timestamp '{name}', which no model takes.",
                remedy="Name a column derived from it, e.g. the minute of the day.",
            )
        length = table.columns[name].length
        field = KINDS.get(kind, FieldKind.NUMERICAL)
        fields.append(FeatureField(name=name, kind=field, origin="request", length=length))
    return fields


def _field(name: str, dtype: Any, view: str) -> FeatureField:
    kind = dtype.to_value_type().name
    if kind in CATEGORICAL:
        return FeatureField(name=name, kind=FieldKind.CATEGORICAL, origin=view)
    if kind in NUMERICAL:
        return FeatureField(name=name, kind=FieldKind.NUMERICAL, origin=view)
    raise FeatureError(
        f"The feature '{view}:{name}' is of type {kind}, which no model takes.",
        remedy="Declare it as a number, a Bool or a String, or leave it out of the service.",
    )


def _source_view(view: Any) -> SourceView:
    from feast.feature_view import DUMMY_ENTITY_ID

    path = getattr(view.batch_source, "path", "")
    rename = view.projection.join_key_map
    return SourceView(
        name=view.name,
        dataset=path.removeprefix(SCHEME) if path.startswith(SCHEME) else None,
        ttl=view.ttl or None,
        keys=tuple(
            rename.get(e.name, e.name) for e in view.entity_columns if e.name != DUMMY_ENTITY_ID
        ),
    )


def _described(view: Any) -> list[Any]:
    source = view.batch_source
    return [
        view.name,
        str(view.ttl),
        sorted(view.projection.join_key_map.items()),
        [entity.name for entity in view.entity_columns],
        [getattr(source, "path", source.name), source.timestamp_field],
        [source.created_timestamp_column, sorted(source.field_mapping.items())],
    ]


def _refuse_repeats(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise FeatureError(
                f"Two inputs of the model are called '{name}'.",
                remedy="Rename one of the features, or leave one out.",
            )
        seen.add(name)
