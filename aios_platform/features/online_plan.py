"""What the gateway reads from the online store for a model: entities, tables, on-demand features.

Feast's registry is asked once, here; reading itself (`serving/features.py`) needs no Feast.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aios_platform.contracts.datasets import FieldKind
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.errors import FeatureError
from aios_platform.features.service import NUMERICAL, ServiceContract, service_contract

if TYPE_CHECKING:
    from feast import FeatureStore

KEY_LAYOUT = 3
KINDS = {
    "STRING": "string",
    "INT32": "int",
    "INT64": "int",
    "FLOAT": "float",
    "DOUBLE": "float",
    "BOOL": "bool",
    "UNIX_TIMESTAMP": "timestamp",
}
KEY_TYPES = ("STRING", "INT32", "INT64")
FLOATS = ("FLOAT", "DOUBLE")
Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class OnlineView:
    """One feature view as the online store holds it.

    Args:
        name: The view's name.
        table: Its table.
        ttl: Greatest age of a value, seconds; None: no limit.
        numbers: Features that are read as float64.
        objects: Features that are read as the Python values that Feast would deliver: texts, and
            what on-demand views take that is not a floating-point number.
        served: Those of them that the model takes.
        stored_as: The name under which Redis has it.
    """

    name: str
    table: str
    ttl: float | None
    numbers: tuple[str, ...]
    objects: tuple[str, ...]
    served: frozenset[str]
    stored_as: str = ""


@dataclass(frozen=True)
class OnlineEntity:
    """A key, and the views that are looked up by it.

    Args:
        inputs: The inputs that make up the key, in the order of `join_keys`; none: the views have
            one row for all.
        join_keys: The names under which Feast stores the key, in its order.
        types: Feast's type of each input: STRING, INT32 or INT64.
        views: Places of the views in the plan.
    """

    inputs: tuple[str, ...]
    join_keys: tuple[str, ...]
    types: tuple[str, ...]
    views: tuple[int, ...]


@dataclass(frozen=True)
class OnDemandView:
    """Features that are computed from stored ones and from the request.

    Args:
        name: The view's name.
        stored: What it takes from the store: place of the view in the plan, feature.
        requested: The inputs that it takes.
        features: What the service takes of it; each a number or a text.
        whole: Those of them that are whole numbers or truth values.
        compute: The view's own function: columns in, columns out, row by row.
    """

    name: str
    stored: tuple[tuple[int, str], ...]
    requested: tuple[str, ...]
    features: tuple[str, ...]
    whole: frozenset[str]
    compute: Callable[[Columns], Mapping[str, list[Any]]]


@dataclass(frozen=True)
class OnlinePlan:
    """What to read for a row.

    Args:
        inputs: What the caller sends for the features: join keys, then what on-demand views take
            from the request.
        kinds: Per input: string, int, float, bool or timestamp.
        moment: The input that is the prediction time, if it is one of them.
        numerical: The service's numerical features, in the order of the model's schema.
        categorical: Its categorical ones.
        views: The feature views.
        entities: The keys they are looked up by.
        on_demand: The on-demand views.
        schema: Postgres schema of the tables, before `public`.
        service_digest: SHA-256 (hex) over everything that shapes the features' values.
        redis: Feast's project, where the online store is Redis; None: Postgres.
    """

    inputs: tuple[str, ...]
    kinds: Mapping[str, str]
    moment: str | None
    numerical: tuple[str, ...]
    categorical: tuple[str, ...]
    views: tuple[OnlineView, ...]
    entities: tuple[OnlineEntity, ...]
    on_demand: tuple[OnDemandView, ...]
    schema: str
    service_digest: str
    redis: str | None = None


def online_plan(declaration: ModelDeclaration, feature_store: "FeatureStore") -> OnlinePlan:
    """Plan the online reads of a model.

    Args:
        declaration: The model.
        feature_store: The platform's Feast store.

    Raises:
        FeatureError: The service, its online store or one of its views is not of a kind that the
            gateway can read.
        DeclarationError: A request column is a timestamp.
    """
    contract = service_contract(declaration, feature_store)
    config = feature_store.config
    # Without a service nothing is read online, and any store will do.
    redis = contract.service is not None and _is_redis(config)
    stored, on_demand = _projections(contract)
    asked = _asked(stored, on_demand)
    views = tuple(_view(config, *item, asked[item[0].name]) for item in stored)
    places = {view.name: place for place, view in enumerate(views)}
    entities = _entities([view for view, _ in stored])
    kinds = {
        name: KINDS[type_]
        for entity in entities
        for name, type_ in zip(entity.inputs, entity.types, strict=True)
    }
    for view in on_demand:
        _add_requested(kinds, view)
    fields = contract.schema.joined
    moment = declaration.source.prediction_time
    return OnlinePlan(
        inputs=tuple(kinds),
        kinds=kinds,
        moment=moment if moment in kinds else None,
        numerical=tuple(f.name for f in fields if f.kind is FieldKind.NUMERICAL),
        categorical=tuple(f.name for f in fields if f.kind is FieldKind.CATEGORICAL),
        views=views,
        entities=entities,
        on_demand=tuple(_on_demand(view, places) for view in on_demand),
        schema=""
        if redis or not views
        else config.online_store.db_schema or config.online_store.user,
        service_digest=contract.digest,
        redis=config.project if redis else None,
    )


def _is_redis(config: Any) -> bool:
    from feast.infra.online_stores.postgres_online_store.postgres import PostgreSQLOnlineStoreConfig

    redis = str(config.online_store.type).endswith("NewestWinsRedisOnlineStore")
    if not redis and not isinstance(config.online_store, PostgreSQLOnlineStoreConfig):
        raise FeatureError(
            f"The gateway cannot read the online store '{config.online_store.type}'.",
            remedy="Use one of the platform's online stores (docs/features.md).",
        )
    if config.entity_key_serialization_version != KEY_LAYOUT:
        raise FeatureError(
            "The gateway reads entity keys of serialization version "
            f"{KEY_LAYOUT}; feature_store.yaml says {config.entity_key_serialization_version}.",
            remedy=f"Set entity_key_serialization_version: {KEY_LAYOUT} and materialize again.",
        )
    return redis


def _projections(contract: ServiceContract) -> tuple[list[tuple[Any, list[Any]]], list[Any]]:
    """Stored views with the features the service takes of them, and on-demand views."""
    from feast.on_demand_feature_view import OnDemandFeatureView

    store = contract.feature_store
    stored: dict[str, tuple[Any, list[Any]]] = {}
    on_demand = []

    def found(projection: Any) -> Any:
        view = store.registry.get_any_feature_view(projection.name, store.project, allow_cache=True)
        return view.with_projection(projection)

    for projection in contract.service.feature_view_projections if contract.service else ():
        view = found(projection)
        if isinstance(view, OnDemandFeatureView):
            on_demand.append(view)
        else:
            stored[projection.name] = (view, list(projection.features))
    for view in on_demand:
        _check_on_demand(view)
        for projection in view.source_feature_view_projections.values():
            stored.setdefault(projection.name, (found(projection), []))
    return list(stored.values()), on_demand


def _check_on_demand(view: Any) -> None:
    if view.mode not in ("python", "pandas") or view.singleton or view.aggregations:
        raise FeatureError(
            f"The gateway cannot compute the on-demand feature view '{view.name}'.",
            remedy="Write it in mode python or pandas, on lists and without aggregations.",
        )
    if view.write_to_online_store:
        raise FeatureError(
            f"The on-demand feature view '{view.name}' is written to the online store.",
            remedy="Let it be computed when it is read: write_to_online_store=False.",
        )


def _asked(stored: list[tuple[Any, list[Any]]], on_demand: list[Any]) -> dict[str, list[Any]]:
    """Per stored view: what on-demand views take of it."""
    asked: dict[str, list[Any]] = {view.name: [] for view, _ in stored}
    for view in on_demand:
        for projection in view.source_feature_view_projections.values():
            asked[projection.name] += projection.features
    return asked


def _view(config: Any, view: Any, served: list[Any], asked: list[Any]) -> OnlineView:
    from feast.infra.online_stores.helpers import compute_table_id, compute_versioned_name

    versions = config.registry.enable_online_feature_view_versioning
    numbers: dict[str, None] = {}
    objects: dict[str, None] = {}
    for feature in served:
        (numbers if _type(feature) in NUMERICAL else objects)[feature.name] = None
    for feature in asked:
        if _type(feature) not in KINDS:
            raise FeatureError(
                f"The gateway cannot read the feature '{view.name}:{feature.name}' of type "
                f"{_type(feature)}, which an on-demand feature view takes.",
                remedy=f"Use one of the types {', '.join(KINDS)}.",
            )
        (numbers if _type(feature) in FLOATS else objects)[feature.name] = None
    return OnlineView(
        name=view.name,
        table=compute_table_id(config.project, view, versions),
        ttl=view.ttl.total_seconds() if view.ttl else None,
        numbers=tuple(numbers),
        objects=tuple(objects),
        served=frozenset(feature.name for feature in served),
        stored_as=compute_versioned_name(view, versions),
    )


def _entities(views: list[Any]) -> tuple[OnlineEntity, ...]:
    from feast.feature_view import DUMMY_ENTITY_ID

    found: dict[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], list[int]] = {}
    for place, view in enumerate(views):
        columns = sorted(view.entity_columns, key=lambda column: str(column.name))
        for column in columns:
            if _type(column) not in KEY_TYPES:
                raise FeatureError(
                    f"The gateway cannot read the feature view '{view.name}' by its key "
                    f"'{column.name}' of type {_type(column)}.",
                    remedy=f"Give the entity one of the types {', '.join(KEY_TYPES)}.",
                )
        names = tuple(column.name for column in columns)
        rename = view.projection.join_key_map
        columns = [column for column in columns if column.name != DUMMY_ENTITY_ID]
        inputs = tuple(rename.get(column.name, column.name) for column in columns)
        types = tuple(_type(column) for column in columns)
        found.setdefault((inputs, names, types), []).append(place)
    return tuple(OnlineEntity(*key, tuple(places)) for key, places in found.items())


def _add_requested(kinds: dict[str, str], view: Any) -> None:
    for source in view.source_request_sources.values():
        for field in source.schema:
            kind = KINDS.get(_type(field))
            if kind is None or kinds.setdefault(field.name, kind) != kind:
                raise FeatureError(
                    f"The on-demand feature view '{view.name}' takes '{field.name}' of type "
                    f"{_type(field)} from the request, which the gateway cannot send it.",
                    remedy=f"Use one of the types {', '.join(KINDS)}, the same everywhere.",
                )


def _on_demand(view: Any, places: dict[str, int]) -> OnDemandView:
    import pyarrow as pa

    # Under both of its names, as Feast hands it over.
    long = {
        f"{projection.name}__{feature.name}": feature.name
        for projection in view.source_feature_view_projections.values()
        for feature in projection.features
    }

    def by_column(columns: Columns) -> Mapping[str, list[Any]]:
        both = columns | {name: columns[short] for name, short in long.items()}
        found: dict[str, list[Any]] = view.feature_transformation.udf(both)
        return found

    def by_frame(columns: Columns) -> Mapping[str, list[Any]]:
        found: dict[str, list[Any]] = view.transform_arrow(pa.table(columns)).to_pydict()
        return found

    served = view.projection.features
    return OnDemandView(
        name=view.name,
        stored=tuple(
            (places[projection.name], feature.name)
            for projection in view.source_feature_view_projections.values()
            for feature in projection.features
        ),
        requested=tuple(
            field.name for source in view.source_request_sources.values() for field in source.schema
        ),
        features=tuple(feature.name for feature in served),
        whole=frozenset(f.name for f in served if _type(f) in ("BOOL", "INT32", "INT64")),
        compute=by_column if view.mode == "python" else by_frame,
    )


def _type(field: Any) -> str:
    return str(field.dtype.to_value_type().name)
