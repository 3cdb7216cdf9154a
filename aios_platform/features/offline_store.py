"""A Feast offline store over Parquet with a true as-of join.

Use it in any Feast repository::

    offline_store:
      type: aios_platform.features.offline_store.AsOfJoinOfflineStore

What it promises, beyond what Feast's interface asks: as many rows come out as went in, in their
order; a feature row is never seen before it was created; the same input gives the same output,
ties included; types stay what they are in the files; memory is bounded by `memory_budget_mb`
and the entity rows, however large the sources. `asof` has the semantics in full.

Sources are Feast `FileSource`s: a Parquet file, a folder, a glob, an s3 URL, or
`aios://<dataset>` for the current versions of a dataset in the platform's artifact root.
"""

# ruff: noqa: ARG004  (the signatures are Feast's)

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from feast.data_source import DataSource  # noqa: TID253
from feast.feature_logging import LoggingConfig, LoggingSource  # noqa: TID253
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL, FeatureView  # noqa: TID253
from feast.infra.offline_stores.file_source import FileSource  # noqa: TID253
from feast.infra.offline_stores.offline_store import (  # noqa: TID253
    OfflineStore,
    RetrievalJob,
    RetrievalMetadata,
)
from feast.infra.registry.base_registry import BaseRegistry  # noqa: TID253
from feast.on_demand_feature_view import OnDemandFeatureView  # noqa: TID253
from feast.repo_config import FeastConfigBaseModel, RepoConfig  # noqa: TID253
from pydantic import Field

from aios_platform.artifacts import ArtifactStore
from aios_platform.errors import FeatureError
from aios_platform.features import entities as entity_rows
from aios_platform.features.feature_files import append_file
from aios_platform.features.pull import newest, within
from aios_platform.features.retrieval import LEAST_BATCH_ROWS, FeatureJoin, attach
from aios_platform.features.retrieval_job import AsOfRetrievalJob
from aios_platform.features.sources import (
    SCHEME,
    FeatureFiles,
    dataset_files,
    parquet_files,
    row_width,
)
from aios_platform.settings import settings


class AsOfJoinOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """Settings of the store in `feature_store.yaml`."""

    type: str = "aios_platform.features.offline_store.AsOfJoinOfflineStore"

    filter_by_created_timestamp: bool = True
    """Never show a row to an entity row older than its created timestamp. Feast's own default
    is false, which lets backfills and corrections leak into the past; a single call of
    get_historical_features can turn it on but not off."""

    artifact_root: str | None = None
    """Root of `aios://` sources; unset, the platform's setting."""

    memory_budget_mb: int = Field(default=1024, ge=1)
    """Feature rows are read in batches of at most about this many MiB."""


class AsOfJoinOfflineStore(OfflineStore):  # type: ignore[misc]
    """Reads feature rows as of the entity rows' times. See the module's documentation."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        *,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Attach features to entity rows; see Feast for the arguments.

        `entity_df` is a pandas frame, an Arrow table, or None for all entities as of
        `end_date` with events since `start_date`. An Arrow table passes through unconverted.

        Raises:
            FeatureError: The entity rows lack a column, or a source is not as declared.
        """
        joins = _joins(config, feature_views, feature_refs, registry, project, full_feature_names)
        honour = filter_by_created_timestamp or _settings(config).filter_by_created_timestamp
        since = None
        if entity_df is None:
            entities, since = entity_rows.snapshot(joins, feature_views, start_date, end_date)
        else:
            entities = entity_rows.as_table(entity_df)
        time = entity_rows.time_column(entities)
        entity_rows.check(entities, time, joins)
        budget = _settings(config).memory_budget_mb * 2**20
        width = row_width(entities.schema, entities.column_names)
        width += sum(row_width(join.files.schema, join.features.values()) for join in joins)
        oldest, youngest = entity_rows.span(entities, time)

        def batches(rows: int | None) -> Iterator[pa.Table]:
            step = rows or max(entities.num_rows, 1)
            for start in range(0, max(entities.num_rows, 1), step):
                part = entities.slice(start, step)
                yield attach(part, time, joins, honour_created=honour, since=since, budget=budget)

        return AsOfRetrievalJob(
            batches,
            repo_path=config.repo_path,
            full_feature_names=full_feature_names,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(
                feature_refs, project, registry
            ),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in entities.column_names if name != time],
                min_event_timestamp=oldest,
                max_event_timestamp=youngest,
            ),
            batch_rows=max(budget // max(width, 1), LEAST_BATCH_ROWS),
            key_columns=frozenset(key for join in joins for key in join.keys.values()),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """The newest row per key among those that became visible in the time range.

        A row becomes visible at its event time or, if that is later and created timestamps are
        honoured, at its created time: so an incremental materialization also finds what became
        known late, and none finds what was not known by its end.
        """
        columns = [*join_key_columns, *feature_name_columns]
        times = (timestamp_field, created_timestamp_column)
        found = _visible(config, data_source, columns, times, (start_date, end_date))

        def batches(_: int | None) -> Iterator[pa.Table]:
            yield _with_dummy_key(
                newest(found(), join_key_columns, timestamp_field, created_timestamp_column),
                join_key_columns,
            )

        return AsOfRetrievalJob(batches, repo_path=config.repo_path)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """All rows that became visible in the time range, in the order of the source."""
        columns = [*join_key_columns, *feature_name_columns]
        times = (timestamp_field, created_timestamp_column)
        found = _visible(config, data_source, columns, times, (start_date, end_date))

        return AsOfRetrievalJob(
            lambda _: (_with_dummy_key(table, join_key_columns) for table in found()),
            repo_path=config.repo_path,
        )

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Append rows to the view's source: a new file in its folder, or its file rewritten."""
        source = feature_view.batch_source
        if not isinstance(source, FileSource) or source.path.startswith(SCHEME):
            raise FeatureError(
                f"The source of '{feature_view.name}' cannot be written to through Feast.",
                remedy="Windows of the platform's datasets are written by its feature stage.",
            )
        path = FileSource.get_uri_for_file_path(config.repo_path, source.path)
        append_file(path, table, _files(config, source))
        if progress:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        """Append a file of logged features to the folder of the logging destination."""
        destination = logging_config.destination.to_data_source()
        folder = FileSource.get_uri_for_file_path(config.repo_path, destination.path)
        table = parquet_files(str(data)) if isinstance(data, Path) else None
        append_file(folder, data if table is None else table.table(table.schema.names), None)

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Accept `aios://` sources before their first window exists; check the others."""
        if not (isinstance(data_source, FileSource) and data_source.path.startswith(SCHEME)):
            data_source.validate(config=config)

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> list[tuple[str, str]]:
        """Names and Arrow types of the source's columns."""
        return [(f.name, str(f.type)) for f in _files(config, data_source).schema]


def _settings(config: RepoConfig) -> AsOfJoinOfflineStoreConfig:
    return config.offline_store  # type: ignore[no-any-return]


def _files(config: RepoConfig, source: DataSource | None) -> FeatureFiles:
    if not isinstance(source, FileSource):
        raise FeatureError(
            f"The source '{getattr(source, 'name', source)}' is no FileSource.",
            remedy="This offline store reads Parquet through Feast's FileSource.",
        )
    if source.path.startswith(SCHEME):
        root = _settings(config).artifact_root or settings().artifact_root
        return dataset_files(ArtifactStore(root), source.path.removeprefix(SCHEME))
    path = FileSource.get_uri_for_file_path(config.repo_path, source.path)
    filesystem, plain = FileSource.create_filesystem_and_path(
        path, source.s3_endpoint_override or "", source.resolve_credentials()
    )
    return parquet_files(plain, filesystem)


def _visible(
    config: RepoConfig,
    source: DataSource,
    columns: list[str],
    times: tuple[str, str | None],
    span: tuple[datetime | None, datetime | None],
) -> Callable[[], Iterator[pa.Table]]:
    return within(
        _files(config, source),
        [*columns, *filter(None, times)],
        *times,
        *span,
        honour_created=_settings(config).filter_by_created_timestamp,
        budget=_settings(config).memory_budget_mb * 2**20,
    )


def _joins(
    config: RepoConfig,
    feature_views: list[FeatureView],
    feature_refs: list[str],
    registry: BaseRegistry,
    project: str,
    full_feature_names: bool,
) -> list[FeatureJoin]:
    from feast.utils import (
        _get_requested_feature_views_to_features_dict,
        _get_requested_on_demand_feature_views,
    )

    requested, _ = _get_requested_feature_views_to_features_dict(
        feature_refs,
        feature_views,
        _get_requested_on_demand_feature_views(feature_refs, project, registry),
    )
    joins = []
    for view, features in requested.items():
        source = view.batch_source
        files = _files(config, source)
        column = {new: old for old, new in source.field_mapping.items()}
        prefix = f"{view.projection.name_alias or view.name}__" if full_feature_names else ""
        created = source.created_timestamp_column or None
        keys = {
            column.get(entity.name, entity.name): view.projection.join_key_map.get(
                entity.name, entity.name
            )
            for entity in view.entity_columns
            if entity.name != DUMMY_ENTITY_ID
        }
        joins.append(
            FeatureJoin(
                view=view.name,
                files=files,
                keys=keys,
                event=column.get(source.timestamp_field, source.timestamp_field),
                created=column.get(created, created) if created else None,
                ttl=view.ttl or None,
                features={prefix + name: column.get(name, name) for name in features},
            )
        )
    return joins


def _with_dummy_key(table: pa.Table, join_keys: list[str]) -> pa.Table:
    dummy = pa.array([DUMMY_ENTITY_VAL] * table.num_rows)
    return table if join_keys else table.append_column(DUMMY_ENTITY_ID, dummy)
