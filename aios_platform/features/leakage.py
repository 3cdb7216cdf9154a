"""The leakage check: does any feature know what was not yet known at prediction time?

It runs on every training set and looks in three ways:

*Replay.* At sampled moments the raw tables are cut back to what was known then, the feature
tables are made again from that, and joined for the rows predicted at that moment, and for many
other rows as if predicted then. An honest feature comes out the same; one that looks ahead does
not, whatever its timestamps claim.

*Request.* A column that the caller is to send must be known at prediction time.

*Canary.* A single feature that separates the label too well is suspected, even if the first two
found nothing (the clocks in the declaration might be wrong).
"""

import hashlib
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
from aios_platform.contracts.datasets import DatasetVersion, FieldKind
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.record import Record
from aios_platform.contracts.windows import Window
from aios_platform.errors import LeakageError
from aios_platform.features.canary import single_feature_auc
from aios_platform.features.entities import TIME
from aios_platform.features.known import INSTANT, anything_known_after, as_known
from aios_platform.features.service import SourceView
from aios_platform.features.sources import pinned, replaced
from aios_platform.features.tables import FeatureEngine, feature_queries, raw_versions
from aios_platform.features.training_set import FeatureFrames, as_input

CUTOFFS = 2
ROWS = 2_000
CANARY_ROWS = 60_000
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


class LeakageReport(Record):
    """What the check looked at, and what it found."""

    model: str
    training_set: str = Field(description="Digest of the frames.")
    moments: tuple[datetime, ...] = Field(description="Moments replayed.")
    rows_replayed: int
    cells_compared: int
    single_feature_auc: dict[str, float] = Field(
        description="Per feature, the larger of AUC and 1 - AUC of its values alone."
    )
    leaks: tuple[Leak, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing was found, and something was looked at."""
        return not self.leaks and self.cells_compared > 0


def audit(
    declaration: ModelDeclaration,
    sql_folder: Path,
    frames: FeatureFrames,
    store: ArtifactStore,
    *,
    cutoffs: int = CUTOFFS,
) -> LeakageReport:
    """Check the frames of a training set for leaks.

    Args:
        declaration: The model; its `known_at` clocks say when what became known.
        sql_folder: Folder of its feature SQL.
        frames: Labelled frames as `assemble` gives them.
        store: Where they and the raw tables are.
        cutoffs: Moments to replay, spread over the windows; chosen by the frames' digest.

    Raises:
        ArtifactMissing: A raw or feature table is gone.
    """
    replay = _Replay(declaration, sql_folder, frames, store)
    moments, rows, cells = [], 0, 0
    leaks: dict[str, Leak] = {}
    for version, moment in _moments(declaration, frames, store, cutoffs):
        moments.append(moment.as_py())
        for leak, count, compared in replay.at(version, moment):
            rows, cells = rows + count, cells + compared
            if leak is not None:
                leaks.setdefault(leak.feature, leak)
    for leak in _request_leaks(declaration, frames, store):
        leaks.setdefault(leak.feature, leak)
    separation = _separation(declaration, frames, store)
    limit = declaration.features.max_single_feature_auc
    for name, auc in separation.items():
        if not auc <= limit:
            reason = f"alone it separates the label with AUC {auc:.3f}, above {limit}"
            leaks.setdefault(name, Leak(feature=name, check="canary", reason=reason))
    return LeakageReport(
        model=declaration.name,
        training_set=frames.digest,
        moments=tuple(moments),
        rows_replayed=rows,
        cells_compared=cells,
        single_feature_auc=separation,
        leaks=tuple(leaks.values()),
    )


def refuse_leaks(report: LeakageReport) -> None:
    """Let a clean report pass.

    Raises:
        LeakageError: The report names a leak, or nothing could be compared.
    """
    if report.passed:
        return
    if not report.leaks:
        raise LeakageError(
            f"The leakage check of '{report.model}' had nothing to compare.",
            remedy="Train on windows that have rows and features.",
        )
    found = "; ".join(f"'{leak.feature}' ({leak.check}): {leak.reason}" for leak in report.leaks)
    raise LeakageError(
        f"The training set of '{report.model}' leaks: {found}.",
        remedy="Make each feature from what was known at its created_timestamp, or take it out.",
    )


class _Replay:
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
        """Per comparison: a leak or None, rows, cells."""
        source = self.declaration.source
        frame = self.store.read(version)
        now = pc.equal(frame[source.prediction_time], moment)
        raw = self._raw_rows(version)
        entities, ids = self._as_if_predicted(raw, moment)
        with tempfile.TemporaryDirectory(prefix="aios-replay-") as folder:
            files = self._known_tables(Path(folder), version.key, moment)
            with replaced(files):
                known = self._join(entities)
        used = self._join(entities)
        for name, kind in self._compared():
            then = as_input(known[name], kind, name, version.key)
            yield self._compare(name, ids, moment, as_input(used[name], kind, name, "now"), then)
            # The rows truly predicted at that moment: the training set's own values.
            place = pc.index_in(frame[source.row_id].filter(now), ids)
            if place.null_count < len(place):
                yield self._compare(
                    name,
                    frame[source.row_id].filter(now).filter(pc.is_valid(place)),
                    moment,
                    frame[name].filter(now).filter(pc.is_valid(place)),
                    then.take(place.drop_null()),
                )

    def _compared(self) -> list[tuple[str, FieldKind]]:
        return [(f.name, f.kind) for f in self.contract.schema.fields if f.origin != "request"]

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
            return self.contract.feature_store.get_historical_features(
                entity_df=entities,
                features=self.contract.service,
                filter_by_created_timestamp=True,
            ).to_arrow()

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
            wanted = {
                dataset: path
                for dataset, paths in files.items()
                for path in paths
                if path.endswith(f"-{window.key}.parquet")
            }
            self._write_window(window, wanted, moment)
        return files

    def _write_window(self, window: Window, wanted: dict[str, str], moment: pa.Scalar) -> None:
        source = self.declaration.source
        raw = {
            name: self.store.scan(versions).to_table()
            for name, versions in raw_versions(self.declaration, window, self.store).items()
        }
        changed = any(
            anything_known_after(table, source.tables[name], moment) for name, table in raw.items()
        )
        if not changed:
            for dataset, path in wanted.items():
                pq.write_table(self.store.read(self.store.require(dataset, window.key)), path)
            return
        known = {
            name: as_known(
                table,
                source.tables[name],
                moment,
                self.declaration.label if name == source.rows else None,
            )
            for name, table in raw.items()
        }
        with closing(FeatureEngine(known)) as engine:
            for dataset, path in wanted.items():
                pq.write_table(engine.table(self.queries[dataset], window), path)

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


def _moments(
    declaration: ModelDeclaration, frames: FeatureFrames, store: ArtifactStore, count: int
) -> Iterator[tuple[DatasetVersion, pa.Scalar]]:
    """Prediction times of rows of different windows and different hours, by the digest."""
    versions = [version for version in frames.versions if version.rows]
    column = declaration.source.prediction_time
    hours: list[int] = []
    for place in range(min(count, len(versions)) if len(versions) >= count else count):
        if not versions:
            return
        version = versions[(place + 1) * len(versions) // count - 1]
        times = store.read(version, [column])[column]
        seed = int(hashlib.sha256(f"{frames.digest}:{place}".encode()).hexdigest(), 16)
        for attempt in range(16):
            moment = times[(seed + attempt * 7919) % version.rows]
            if all(abs(moment.as_py().hour - hour) >= 2 for hour in hours):
                break
        hours.append(moment.as_py().hour)
        yield version, moment


def _request_leaks(
    declaration: ModelDeclaration, frames: FeatureFrames, store: ArtifactStore
) -> Iterator[Leak]:
    source = declaration.source
    columns = source.tables[source.rows].columns
    for name in declaration.features.request:
        clock = columns[name].known_at
        if clock is None:
            continue
        for version in frames.versions:
            raw = store.require(f"{declaration.name}/raw/{source.rows}", version.key)
            wanted = list(dict.fromkeys([source.row_id, source.prediction_time, name, clock]))
            rows = store.read(raw, wanted)
            known = pc.less_equal(rows[clock].cast(INSTANT), rows[source.prediction_time])
            early = pc.and_(pc.is_valid(rows[name]), pc.invert(pc.fill_null(known, False)))
            count = pc.sum(early).as_py()
            if count:
                row = rows.filter(early).slice(0, 1).to_pylist()[0]
                yield Leak(
                    feature=name,
                    check="request",
                    reason=(
                        f"{count} of {rows.num_rows} rows of {version.key} have a value that "
                        f"became known (by '{clock}') after the prediction, e.g. row "
                        f"{row[source.row_id]}: {row[name]}, known at {row[clock]}"
                    ),
                    row=str(row[source.row_id]),
                    moment=row[source.prediction_time],
                    used=str(row[name]),
                    known="None",
                    rows=count,
                )
                break


def _separation(
    declaration: ModelDeclaration, frames: FeatureFrames, store: ArtifactStore
) -> dict[str, float]:
    """AUC of each input alone, on at most CANARY_ROWS labelled rows spread over the frames."""
    label = declaration.label.column
    step = max(frames.rows // CANARY_ROWS, 1)
    parts = []
    for version in frames.versions:
        table = store.read(version, [*frames.schema.names, label])
        table = table.filter(pc.is_valid(table[label]))
        parts.append(table.take(pa.array(np.arange(0, table.num_rows, step))))
    rows = pa.concat_tables(parts)
    truth = rows[label].to_numpy(zero_copy_only=False).astype(bool)
    return {
        field.name: single_feature_auc(rows[field.name], truth, field.kind)
        for field in frames.schema.fields
    }


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
