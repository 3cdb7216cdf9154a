"""Bringing windows of feature rows to the online store, and reading them there."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.windows import Window, WindowSchedule
from aios_platform.errors import DatabaseUnavailable
from aios_platform.features.reading_time import reading_as_of
from aios_platform.features.service import SourceView, service_contract
from aios_platform.features.store import quiet

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore, FeatureView

MICROSECOND = timedelta(microseconds=1)
# One waits for the server while the other prepares its rows.
VIEWS_AT_ONCE = 2


@dataclass(frozen=True)
class OnlineFeatures:
    """What an online read found, column by column, in the order of the rows asked for.

    Args:
        values: Values per column: join keys, then features; null where there is none.
        statuses: Per feature: PRESENT, NULL_VALUE, NOT_FOUND or OUTSIDE_MAX_AGE.
    """

    values: dict[str, list[Any]]
    statuses: dict[str, list[str]]


def materialize(
    declaration: ModelDeclaration,
    windows: Iterable[Window],
    store: ArtifactStore,
    feature_store: "FeatureStore",
) -> dict[str, int]:
    """Write the newest feature values that these windows made known to the online store.

    A window whose feature rows are there already is passed over. Consecutive windows go together,
    so that each entity is written once. A window that was delivered again with other content is
    first taken out, and what it hid is written again. Killed anywhere, the same call finishes.
    `FeatureStore.materialize` does the same for one view at greater cost: it writes the view to
    the registry twice, and looks through all services after each.

    Args:
        declaration: The model.
        windows: Windows with feature tables.
        store: Where the feature tables are.
        feature_store: The platform's Feast store.

    Returns:
        Entities written per feature view; 0: nothing was to be done.

    Raises:
        ArtifactMissing: A window has no feature table.
        DatabaseUnavailable: Postgres does not answer; make the same call again.
    """
    from sqlalchemy.exc import OperationalError

    ordered = sorted(windows, key=lambda window: window.start)

    def write(view: SourceView) -> int | None:
        return _one_view(view, ordered, declaration.windows, store, feature_store)

    try:
        contract = service_contract(declaration, feature_store)
        views = [view for view in contract.views if view.dataset is not None]
        with quiet():
            with _refreshed_once(feature_store.registry), ThreadPoolExecutor(VIEWS_AT_ONCE) as pool:
                counts = {
                    v.name: count for v, count in zip(views, pool.map(write, views), strict=True)
                }
            changed = [name for name, count in counts.items() if count is not None]
            if changed:
                feature_store._precompute_affected_services(changed)
    except OperationalError as error:
        raise DatabaseUnavailable(
            f"The feature registry does not answer: {str(error.orig).strip()}",
            remedy="Start Postgres, then run the same command again.",
        ) from error
    return {name: count or 0 for name, count in counts.items()}


def read_online(
    feature_store: "FeatureStore",
    features: "FeatureService | list[str]",
    rows: Sequence[Mapping[str, Any]],
    *,
    as_of: datetime | None = None,
) -> OnlineFeatures:
    """Read the newest values of these entities.

    Args:
        feature_store: The platform's Feast store.
        features: A feature service, or references `view:feature`.
        rows: One mapping per row: join keys, and what on-demand views take from the request.
        as_of: Judge ages as of this aware moment instead of now.

    Raises:
        DatabaseUnavailable: Postgres does not answer.
    """
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    with reading_as_of(as_of):
        found = feature_store.get_online_features(
            features=features, entity_rows=[dict(row) for row in rows]
        )
    statuses = {
        name: [FieldStatus.Name(status) for status in vector.statuses]
        for name, vector in zip(
            found.proto.metadata.feature_names.val, found.proto.results, strict=True
        )
    }
    return OnlineFeatures(values=found.to_dict(), statuses=statuses)


def _one_view(
    view: SourceView,
    windows: list[Window],
    schedule: WindowSchedule,
    store: ArtifactStore,
    feature_store: "FeatureStore",
) -> int | None:
    """Entities written; None: everything was there."""
    assert view.dataset is not None
    config, registry = feature_store.config, feature_store.registry
    provider = feature_store._get_provider()
    online = provider.online_store
    digests = {w.key: store.require(view.dataset, w.key).digest for w in windows}
    remembers = hasattr(online, "materialized")
    done = online.materialized(config, view.name) if remembers else {}
    stale = [window for window in windows if done.get(window.key) != digests[window.key]]
    if not stale:
        return None
    table = registry.get_any_feature_view(view.name, config.project)
    before = online.written[view.name] if remembers else 0
    for run in _consecutive(stale):
        start, end = run[0].start, run[-1].end - MICROSECOND
        replaced = [window for window in run if window.key in done]
        for window in replaced:
            online.retract(config, table, window.start, window.end)
        if replaced:
            # What the window's former rows had overwritten lies at most one TTL back.
            first = schedule.window(min(store.keys(view.dataset)))
            start = start - view.ttl if view.ttl else first.start
        if not (remembers and _write_newest(feature_store, table, start, end)):
            provider.materialize_single_feature_view(
                config, table, start, end, registry, config.project, tqdm_builder=None
            )
        registry.apply_materialization(table, config.project, start, end)
        if remembers:
            online.mark_materialized(config, view.name, {w.key: digests[w.key] for w in run})
    return online.written[view.name] - before if remembers else 0


def _write_newest(
    feature_store: "FeatureStore", view: "FeatureView", start: datetime, end: datetime
) -> bool:
    """Do what Feast's engine does for a plain view, in a fraction of the time.

    Returns:
        Whether it was done; a view with transformations or renamed columns is Feast's to do.
    """
    from feast import FeatureView
    from feast.feature_view import DUMMY_ENTITY_NAME

    source, keys = view.batch_source, [entity.name for entity in view.entity_columns]
    plain = type(view) is FeatureView and view.online and not view.offline and source is not None
    if not plain or source.field_mapping or view.entities in ([], [DUMMY_ENTITY_NAME]):
        return False
    config, provider = feature_store.config, feature_store._get_provider()
    rows = provider.offline_store.pull_latest_from_table_or_query(
        config, source, keys, [feature.name for feature in view.features],
        source.timestamp_field, source.created_timestamp_column or None, start, end,
    ).to_arrow()  # fmt: skip
    if any(rows[key].null_count for key in keys):
        return False
    if rows.num_rows:
        provider.online_store.write_table(config, view, rows)
    return True


@contextmanager
def _refreshed_once(registry: Any) -> Iterator[None]:
    """Let the registry read itself again at the end, and not after each of many changes."""
    mode = getattr(registry, "cache_mode", None)
    if mode != "sync":
        yield
        return
    registry.cache_mode = "deferred"
    try:
        yield
    finally:
        registry.cache_mode = mode
        registry.refresh()


def _consecutive(windows: list[Window]) -> list[list[Window]]:
    runs: list[list[Window]] = []
    for window in windows:
        if runs and runs[-1][-1].end == window.start:
            runs[-1].append(window)
        else:
            runs.append([window])
    return runs
