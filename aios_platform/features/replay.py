"""Making features again from what was known at a moment, to compare with what a model was given."""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.datasets import DatasetVersion
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.record import Record
from aios_platform.contracts.windows import Window
from aios_platform.errors import FeatureError
from aios_platform.features.entities import TIME
from aios_platform.features.service import SourceView, joined
from aios_platform.features.sources import pinned, replaced
from aios_platform.features.tables import FeatureEngine, feature_queries, raw_versions
from aios_platform.features.training_set import FeatureFrames, as_input
from aios_platform.known import INSTANT, anything_known_after, as_known

ROWS = 2_000
TOLERANCE = 1e-5


class Leak(Record):
    """One feature that knows too much, with an example."""

    feature: str
    check: Literal["replay", "request", "canary"]
    reason: str
    row: str | None = Field(default=None, description="Id of the example row.")
    moment: datetime | None = Field(default=None, description="Its prediction time.")
    used: str | None = Field(default=None, description="The value in the training set.")
    known: str | None = Field(default=None, description="The value that was known by then.")
    rows: int = Field(default=0, ge=0, description="Rows that differ.")


class Replay:
    """Makes features again from what was known at a moment, and compares."""

    def __init__(
        self,
        declaration: ModelDeclaration,
        sql_folder: Path,
        frames: FeatureFrames,
        store: ArtifactStore,
    ) -> None:
        self.declaration, self.frames, self.store = declaration, frames, store
        self.contract = frames.contract
        queries = {query.name: query for query in feature_queries(sql_folder)}
        prefix = f"{declaration.name}/features/"
        self.queries = {
            view.dataset: queries[view.dataset.removeprefix(prefix)]
            for view in self.contract.views
            if view.dataset and view.dataset.removeprefix(prefix) in queries
        }

    def at(
        self, version: DatasetVersion, moment: pa.Scalar
    ) -> Iterator[tuple[Leak | None, int, int]]:
        """Compare the features of one frame at one prediction time.

        Yields:
            Per comparison: a leak or None, the rows, the cells.

        Raises:
            FeatureError: A feature table was made by other SQL than there is now.
        """
        source = self.declaration.source
        frame = self.store.read(version)
        frame = frame.filter(pc.equal(frame[source.prediction_time], moment))
        entities, ids = self._as_if_predicted(self._raw_rows(version), moment)
        with tempfile.TemporaryDirectory(prefix="aios-replay-") as folder:
            files = self._known_tables(Path(folder), version.key, moment)
            with replaced(files):
                known = self._join(entities)
        used = self._join(entities)
        for field in self.contract.schema.joined:
            name = field.name
            then = as_input(known[name], field, version.key)
            yield self._compare(name, ids, moment, as_input(used[name], field, "now"), then)
            # The rows truly predicted at that moment: the training set's own values.
            place = pc.index_in(frame[source.row_id], ids)
            if place.null_count < len(place):
                yield self._compare(
                    name,
                    frame[source.row_id].filter(pc.is_valid(place)),
                    moment,
                    frame[name].filter(pc.is_valid(place)),
                    then.take(place.drop_null()),
                )

    def _raw_rows(self, version: DatasetVersion) -> pa.Table:
        dataset = f"{self.declaration.name}/raw/{self.declaration.source.rows}"
        raw = self.store.require(dataset, version.key)
        return self.store.read(raw, list(self.contract.columns))

    def _as_if_predicted(
        self, raw: pa.Table, moment: pa.Scalar
    ) -> tuple[pa.Table, pa.ChunkedArray]:
        """Rows truly predicted at the moment, and others of the window as if they were."""
        source = self.declaration.source
        times = raw[source.prediction_time].cast(INSTANT)
        truly = np.flatnonzero(pc.equal(times, moment).to_numpy(zero_copy_only=False))
        step = max(raw.num_rows // ROWS, 1)
        chosen = np.union1d(truly, np.arange(0, raw.num_rows, step))
        rows = raw.take(pa.array(chosen))
        moments = pa.chunked_array([pa.array([moment.as_py()] * rows.num_rows, INSTANT)])
        place = rows.column_names.index(source.prediction_time)
        rows = rows.set_column(place, source.prediction_time, moments)
        if source.prediction_time != TIME:
            if TIME in rows.column_names:
                rows = rows.drop_columns([TIME])
            rows = rows.append_column(TIME, moments)
        return rows, rows[source.row_id].cast(pa.string())

    def _join(self, entities: pa.Table) -> pa.Table:
        pins = [v for view in self.contract.views for v in self._versions(view, entities)]
        with pinned(pins):
            return pa.concat_tables(joined(self.contract, entities))

    def _versions(self, view: SourceView, entities: pa.Table) -> list[DatasetVersion]:
        if view.dataset is None:
            return []
        moment = entities[TIME][0].as_py()
        return [self.store.require(view.dataset, w.key) for w in self._windows(view, moment)]

    def _windows(self, view: SourceView, moment: datetime) -> list[Window]:
        """Windows whose feature rows a join at the moment may use."""
        assert view.dataset is not None
        found = []
        for key in self.store.keys(view.dataset):
            window = self.declaration.windows.window(key)
            if window.start <= moment and (view.ttl is None or window.end >= moment - view.ttl):
                found.append(window)
        return found

    def _known_tables(self, folder: Path, key: str, moment: pa.Scalar) -> dict[str, list[str]]:
        """Feature tables made from what was known, as files per dataset."""
        files: dict[str, list[str]] = {}
        windows: dict[str, Window] = {}
        for view in self.contract.views:
            if view.dataset in self.queries:
                assert view.dataset is not None
                found = self._windows(view, moment.as_py())
                found = found or [self.declaration.windows.window(key)]
                windows.update({window.key: window for window in found})
                files[view.dataset] = [
                    str(folder / f"{place}-{window.key}.parquet")
                    for place, window in ((len(files), w) for w in found)
                ]
        for window in windows.values():
            self._require_same_sql(window)
            wanted = {
                dataset: path
                for dataset, paths in files.items()
                for path in paths
                if path.endswith(f"-{window.key}.parquet")
            }
            self._write_window(window, wanted, moment)
        return files

    def _require_same_sql(self, window: Window) -> None:
        for dataset, query in self.queries.items():
            made = self.store.current(dataset, window.key)
            if made is not None and made.inputs.get("sql") != query.digest:
                raise FeatureError(
                    f"The feature table '{dataset}' of window {window} was not made by the SQL "
                    f"that is in {query.path} now.",
                    remedy="Materialize the model's features again, then the training set.",
                )

    def _write_window(self, window: Window, wanted: dict[str, str], moment: pa.Scalar) -> None:
        known = self._known(window, moment)
        if known is None:
            for dataset, path in wanted.items():
                pq.write_table(self.store.read(self.store.require(dataset, window.key)), path)
            return
        with closing(FeatureEngine(known, window)) as engine:
            # The engine has rows of its own.
            known.clear()
            for dataset, path in wanted.items():
                pq.write_table(engine.table(self.queries[dataset]), path)

    def _known(self, window: Window, moment: pa.Scalar) -> dict[str, pa.Table] | None:
        """The raw tables as they were known at the moment; None when that is as they are."""
        source = self.declaration.source
        raw = {
            name: self.store.scan(versions).to_table()
            for name, versions in raw_versions(self.declaration, window, self.store).items()
        }
        if not any(
            anything_known_after(table, source.tables[name], moment) for name, table in raw.items()
        ):
            return None
        return {
            name: as_known(
                raw.pop(name),
                source.tables[name],
                moment,
                self.declaration.label if name == source.rows else None,
            )
            for name in list(raw)
        }

    def _compare(
        self,
        name: str,
        ids: pa.ChunkedArray,
        moment: pa.Scalar,
        used: pa.ChunkedArray,
        known: pa.ChunkedArray,
    ) -> tuple[Leak | None, int, int]:
        differ = np.flatnonzero(_differences(used, known))
        count = len(ids)
        if not len(differ):
            return None, count, count
        example = int(differ[0])
        at, row = moment.as_py(), str(ids[example].as_py())
        was, is_now = known[example].as_py(), used[example].as_py()
        return (
            Leak(
                feature=name,
                check="replay",
                reason=(
                    f"{len(differ)} of {count} rows at {at:%Y-%m-%d %H:%M} UTC have a value that "
                    f"was not known then, e.g. row {row}: {is_now} instead of {was}"
                ),
                row=row,
                moment=at,
                used=str(is_now),
                known=str(was),
                rows=len(differ),
            ),
            count,
            count,
        )


def _differences(used: pa.ChunkedArray, known: pa.ChunkedArray) -> Any:
    missing = pc.is_null(used).to_numpy(zero_copy_only=False)
    gone = pc.is_null(known).to_numpy(zero_copy_only=False)
    both = ~missing & ~gone
    if pa.types.is_floating(used.type):
        a = used.to_numpy(zero_copy_only=False).astype(np.float64)
        b = known.to_numpy(zero_copy_only=False).astype(np.float64)
        close = np.abs(a - b) <= TOLERANCE * np.maximum(1.0, np.maximum(np.abs(a), np.abs(b)))
        return (missing != gone) | (both & ~close)
    same = pc.fill_null(pc.equal(used, known), False).to_numpy(zero_copy_only=False)
    return (missing != gone) | (both & ~same)
