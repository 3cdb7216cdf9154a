"""Feature frames: the predicted rows with the features as of their prediction times.

A frame is made window by window and pinned by what it was made from: the raw rows, the feature
rows that can reach them, the feature service and the labels' cut. A frame that is there already
is taken as it is.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.datasets import (
    DatasetVersion,
    FeatureField,
    FeatureSchema,
    FieldKind,
)
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.record import digest_of
from aios_platform.contracts.windows import Window
from aios_platform.errors import FeatureError
from aios_platform.features.entities import TIME
from aios_platform.features.service import ServiceContract, joined, service_contract
from aios_platform.features.sources import pinned
from aios_platform.known import INSTANT
from aios_platform.metrics.truth import label_type

if TYPE_CHECKING:
    from feast import FeatureStore

WINDOW = "window"
# Reading, joining and compressing release the interpreter's lock. Two bound the memory.
WINDOWS_AT_ONCE = 2


@dataclass(frozen=True)
class FeatureFrames:
    """Frames of several windows, pinned.

    Args:
        versions: One frame per window, in the order asked for.
        contract: The feature service they were made with.
        as_of: Labels known later are null; None: the frames carry no labels.
    """

    versions: tuple[DatasetVersion, ...]
    contract: ServiceContract
    as_of: datetime | None

    @property
    def schema(self) -> FeatureSchema:
        """The model's inputs."""
        return self.contract.schema

    @property
    def service_digest(self) -> str:
        """Digest of the feature service's definition."""
        return self.contract.digest

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the frames' bytes: row ids, features, labels."""
        return digest_of([[version.key, version.digest] for version in self.versions])

    @property
    def rows(self) -> int:
        """Rows of all frames."""
        return sum(version.rows for version in self.versions)


def assemble(
    declaration: ModelDeclaration,
    windows: Sequence[Window],
    as_of: datetime,
    store: ArtifactStore,
    feature_store: "FeatureStore",
    *,
    dataset: str | None = None,
) -> FeatureFrames:
    """The labelled frames of these windows, with what was known at `as_of`.

    Columns: row id, prediction time (timestamp[us, UTC]), the inputs (numericals float32,
    categoricals and texts string, vectors lists of float32; NaN is null), the label (bool, string
    or float64 by the task), when it became known, `window`. Labels not known by `as_of` are null.
    As many rows as the raw window has, in its order.

    Args:
        declaration: The model.
        windows: Windows to take, e.g. those of training and exam.
        as_of: An aware moment.
        store: Where raw and feature tables are, and the frames go.
        feature_store: The platform's Feast store.
        dataset: Name of the frames; default `<model>/training_set`.

    Raises:
        ArtifactMissing: A window was not ingested, or has no feature tables.
        FeatureError: The feature service or a feature is wrong.
    """
    if as_of.tzinfo is None:
        raise ValueError(f"as_of {as_of} has no time zone")
    dataset = dataset or f"{declaration.name}/training_set"
    return _frames(declaration, windows, as_of, store, feature_store, dataset)


def scoring_frame(
    declaration: ModelDeclaration,
    window: Window,
    store: ArtifactStore,
    feature_store: "FeatureStore",
    *,
    dataset: str | None = None,
) -> FeatureFrames:
    """The frame for scoring one window: as `assemble` gives it, without labels.

    Raises:
        ArtifactMissing: The window was not ingested, or has no feature tables.
        FeatureError: The feature service or a feature is wrong.
    """
    dataset = dataset or f"{declaration.name}/scoring_frame"
    return _frames(declaration, [window], None, store, feature_store, dataset)


def _frames(
    declaration: ModelDeclaration,
    windows: Sequence[Window],
    as_of: datetime | None,
    store: ArtifactStore,
    feature_store: "FeatureStore",
    dataset: str,
) -> FeatureFrames:
    contract = service_contract(declaration, feature_store)

    def frame(window: Window) -> DatasetVersion:
        maker = _Maker(declaration, contract, window, as_of, store)
        inputs = maker.inputs()
        version = store.fresh(dataset, window.key, inputs)
        if version is None:
            version = store.write(
                dataset, window.key, maker.batches(), schema=maker.schema(), inputs=inputs
            )
        if version.rows != maker.raw.rows:
            raise FeatureError(
                f"The frame of window {window} has {version.rows} rows; the raw rows are "
                f"{maker.raw.rows}.",
                remedy="This is a fault of the platform; report it with the feature views.",
            )
        return version

    with ThreadPoolExecutor(WINDOWS_AT_ONCE) as pool:
        return FeatureFrames(tuple(pool.map(frame, windows)), contract, as_of)


class _Maker:
    """Makes the frame of one window."""

    def __init__(
        self,
        declaration: ModelDeclaration,
        contract: ServiceContract,
        window: Window,
        as_of: datetime | None,
        store: ArtifactStore,
    ) -> None:
        self.declaration, self.contract, self.window = declaration, contract, window
        self.as_of, self.store = as_of, store
        self.raw = store.require(f"{declaration.name}/raw/{declaration.source.rows}", window.key)
        labels = [declaration.label.column, declaration.label.known_at] if as_of else []
        self._columns = list(dict.fromkeys([*contract.columns, *labels]))
        missing = [c for c in self._columns if c not in store.scan([self.raw]).schema.names]
        if missing:
            raise FeatureError(
                f"The table '{declaration.source.rows}' has no column {', '.join(missing)}, which "
                f"the feature service '{declaration.features.service}' needs.",
                remedy="Deliver the column, or correct the join keys and request sources.",
            )
        self.pins = self._pins()

    def inputs(self) -> dict[str, str]:
        """Digests of everything that the frame depends on."""
        found = {f"{v.dataset}/{v.key}": v.digest for v in (self.raw, *self.pins)}
        found["service"] = self.contract.digest
        found["fields"] = self.contract.schema.fingerprint
        found["labels"] = self._labels()
        return found

    def schema(self) -> pa.Schema:
        """The frame's columns."""
        source = self.declaration.source
        fields = [(source.row_id, self._id_type()), (source.prediction_time, INSTANT)]
        fields += [(field.name, input_type(field)) for field in self.contract.schema.fields]
        if self.as_of:
            label = self.declaration.label
            kind = label_type(self.declaration.task)
            fields += [(label.column, kind), (label.known_at, INSTANT)]
        return pa.schema([*fields, (WINDOW, pa.string())])

    def batches(self) -> Iterator[pa.Table]:
        """The frame, in tables of bounded size."""
        source = self.declaration.source
        rows = self.store.read(self.raw, self._columns)
        times = rows[source.prediction_time].cast(INSTANT)
        if source.prediction_time != TIME:
            if TIME in rows.column_names:
                rows = rows.drop_columns([TIME])
            rows = rows.append_column(TIME, times)
        label = self.declaration.label
        labels = rows.select([label.column, label.known_at]) if self.as_of else None
        entities = rows.select(
            [n for n in (*self.contract.columns, TIME) if n in rows.column_names]
        )
        with pinned(self.pins):
            place = 0
            for part in joined(self.contract, entities):
                known = labels.slice(place, part.num_rows) if labels is not None else None
                place += part.num_rows
                yield self._frame(part, known)

    def _frame(self, part: pa.Table, labels: pa.Table | None) -> pa.Table:
        source, schema = self.declaration.source, self.schema()
        columns = [part[source.row_id].cast(self._id_type())]
        columns.append(part[source.prediction_time].cast(INSTANT))
        for field in self.contract.schema.fields:
            columns.append(as_input(part[field.name], field, self.window.key))
        if labels is not None and self.as_of:
            known_at = labels[self.declaration.label.known_at].cast(INSTANT)
            known = pc.less_equal(known_at, pa.scalar(self.as_of.astimezone(UTC), INSTANT))
            known = pc.fill_null(known, False)
            kind = label_type(self.declaration.task)
            truth = labels[self.declaration.label.column].cast(kind)
            columns.append(pc.if_else(known, truth, pa.scalar(None, kind)))
            columns.append(pc.if_else(known, known_at, pa.scalar(None, INSTANT)))
        columns.append(pa.array([self.window.key] * part.num_rows, pa.string()))
        return pa.table(columns, schema=schema)

    def _id_type(self) -> pa.DataType:
        kind = self.store.scan([self.raw]).schema.field(self.declaration.source.row_id).type
        return pa.string() if pa.types.is_large_string(kind) else kind

    def _labels(self) -> str:
        """The labels' cut; the same for every moment at which all labels are known."""
        if self.as_of is None:
            return "none"
        column = self.store.read(self.raw, [self.declaration.label.known_at])[0]
        newest = pc.max(column).as_py()
        complete = newest is None or newest <= self.as_of
        return "complete" if complete else self.as_of.astimezone(UTC).isoformat()

    def _pins(self) -> tuple[DatasetVersion, ...]:
        """Current versions of the windows of feature rows that the frame's rows can see."""
        column = self.store.read(self.raw, [self.declaration.source.prediction_time])[0]
        ends = pc.min_max(column).as_py()
        oldest, youngest = ends["min"] or self.window.start, ends["max"] or self.window.start
        schedule = self.declaration.windows
        found = []
        for view in self.contract.views:
            if view.dataset is None:
                continue
            self.store.require(view.dataset, self.window.key)
            reach = oldest - view.ttl if view.ttl else datetime.min.replace(tzinfo=UTC)
            for key in self.store.keys(view.dataset):
                window = schedule.window(key)
                if window.start <= youngest and window.end > reach - timedelta(microseconds=1):
                    found.append(self.store.require(view.dataset, key))
        return tuple(found)


def input_type(field: FeatureField) -> pa.DataType:
    """The type of a feature in a frame."""
    if field.kind is FieldKind.VECTOR:
        return pa.list_(pa.float32(), field.length)
    return pa.float32() if field.kind is FieldKind.NUMERICAL else pa.string()


def as_input(values: pa.ChunkedArray, field: FeatureField, window: str) -> pa.ChunkedArray:
    """A feature as the model takes it: of its type, one kind of missing, nothing infinite.

    Raises:
        FeatureError: A value is infinite, or a vector has another length.
    """
    name = field.name
    if field.kind is FieldKind.VECTOR:
        try:
            return values.cast(input_type(field))
        except pa.ArrowInvalid as error:
            raise FeatureError(
                f"The vector '{name}' has another length than {field.length} in window {window}: "
                f"{error}.",
                remedy="Correct `length` in the declaration, or the source.",
            ) from None
    if field.kind is not FieldKind.NUMERICAL:
        return values.cast(pa.string())
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    values = values.cast(pa.float32(), safe=False)
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float32()), values)
    infinite = pc.sum(pc.is_inf(values)).as_py()
    if infinite:
        raise FeatureError(
            f"The feature '{name}' is infinite in {infinite} rows of window {window}.",
            remedy="Guard the division in its SQL, e.g. with nullif.",
        )
    return values
