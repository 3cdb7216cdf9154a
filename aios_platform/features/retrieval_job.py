"""A retrieval of historical features that runs when its result is asked for."""

# ruff: noqa: ARG002  (the signatures are Feast's)

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from feast.infra.offline_stores.file_source import FileSource  # noqa: TID253
from feast.infra.offline_stores.offline_store import (  # noqa: TID253
    RetrievalJob,
    RetrievalMetadata,
)
from feast.on_demand_feature_view import OnDemandFeatureView  # noqa: TID253
from feast.saved_dataset import SavedDatasetStorage  # noqa: TID253

from aios_platform.features.feature_files import write_file
from aios_platform.features.retrieval import LEAST_BATCH_ROWS


class AsOfRetrievalJob(RetrievalJob):  # type: ignore[misc]
    """A retrieval that runs when its result is asked for, whole or in batches of rows.

    Args:
        batches: Gives the result in order, in tables of at most so many rows (None: at will).
        batch_rows: Rows of a part that fits the memory budget.
        key_columns: Columns of the entity rows that features were joined on.
    """

    def __init__(
        self,
        batches: Callable[[int | None], Iterator[pa.Table]],
        *,
        repo_path: Path | None,
        full_feature_names: bool = False,
        on_demand_feature_views: list[OnDemandFeatureView] | None = None,
        metadata: RetrievalMetadata | None = None,
        batch_rows: int = LEAST_BATCH_ROWS,
        key_columns: frozenset[str] = frozenset(),
    ) -> None:
        self._batches = batches
        self._batch_rows = batch_rows
        self._key_columns = key_columns
        self._repo_path = repo_path
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = on_demand_feature_views or []
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether features are named `view__feature`."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """On-demand views that are computed on the joined rows."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for."""
        return self._metadata

    def to_arrow_batches(self, rows: int | None = None) -> Iterator[pa.Table]:
        """The result in order, in tables of at most `rows` rows, on-demand features included.

        The sources are read again for each part, as far as it needs them; few parts are fast.
        The default is as many rows as fit the memory budget.
        """
        for table in self._batches(rows or self._batch_rows):
            yield self._with_on_demand(table)

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> Any:
        """The result as a pandas frame; integers with gaps are pandas' nullable integers."""
        table = self.to_arrow(validation_reference=validation_reference, timeout=timeout)
        frame = table.to_pandas(integer_object_nulls=True)
        for name in table.column_names:
            kind = table.schema.field(name).type
            if pa.types.is_integer(kind) and table[name].null_count:
                frame[name] = frame[name].astype(str(kind).replace("i", "I").replace("uI", "UI"))
        return frame

    def persist(
        self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: Any = None
    ) -> None:
        """Stream the result into one Parquet file, which appears whole or not at all."""
        source = storage.to_data_source()
        write_file(
            FileSource.get_uri_for_file_path(self._repo_path, source.path),
            self.to_arrow_batches(),
            overwrite=allow_overwrite,
        )

    def _to_df_internal(self, timeout: int | None = None) -> Any:
        return self._to_arrow_internal(timeout).to_pandas()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        # One chunk: Feast's conversion for the online store reads the first chunk only.
        return pa.concat_tables(self._batches(None)).combine_chunks()

    def _with_on_demand(self, table: pa.Table) -> pa.Table:
        """Append the on-demand features; Feast is handed only the columns that they may read.

        Those are what a transformation gets online: keys, request data, features of its sources.
        Feast makes a Python object of every cell that it hands to one written in Python.
        """
        if not self._on_demand_feature_views:
            return self._part(table).to_arrow()
        read = set(self._key_columns)
        for view in self._on_demand_feature_views:
            for source in view.source_request_sources.values():
                read |= {field.name for field in source.schema}
            for projection in view.source_feature_view_projections.values():
                for name in (feature.name for feature in projection.features):
                    prefixes = (projection.name, projection.name_to_use())
                    read |= {name, *(f"{prefix}__{name}" for prefix in prefixes)}
        kept = [name for name in table.column_names if name in read]
        found = self._part(table.select(kept)).to_arrow()
        for name in found.column_names[len(kept) :]:
            table = table.append_column(found.schema.field(name), found[name])
        return table

    def _part(self, table: pa.Table) -> "AsOfRetrievalJob":
        part = copy.copy(self)
        part._batches = lambda _: iter([table])
        return part
