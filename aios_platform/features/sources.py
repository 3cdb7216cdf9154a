"""Where feature rows are read from: Parquet files, folders, globs, and `aios://` datasets.

`aios://<dataset>` names the current versions of all windows of a dataset in the artifact root,
e.g. `aios://flight_delay/features/carrier_delays`. `pinned` fixes the versions for a while, so
that a training set says exactly which rows it was made from.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pad
import pyarrow.fs as pafs

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.datasets import DatasetVersion
from aios_platform.errors import ArtifactCorrupt, ArtifactMissing, FeatureError

SCHEME = "aios://"
VARIABLE_WIDTH = 32
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
INT64 = (-(2**63), 2**63 - 1)

_pins: ContextVar[Mapping[str, tuple[DatasetVersion, ...]] | None] = ContextVar(
    "aios_feature_pins", default=None
)

_replacements: ContextVar[Mapping[str, Sequence[str]] | None] = ContextVar(
    "aios_feature_replacements", default=None
)


@contextmanager
def replaced(files: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """Let `aios://` sources of these datasets mean these local Parquet files, for a replay."""
    token = _replacements.set({**(_replacements.get() or {}), **files})
    try:
        yield
    finally:
        _replacements.reset(token)


@contextmanager
def pinned(versions: Iterable[DatasetVersion]) -> Iterator[None]:
    """Let `aios://` sources of these datasets mean exactly these versions, in this order."""
    chosen: dict[str, tuple[DatasetVersion, ...]] = {}
    for version in versions:
        chosen[version.dataset] = (*chosen.get(version.dataset, ()), version)
    token = _pins.set({**(_pins.get() or {}), **chosen})
    try:
        yield
    finally:
        _pins.reset(token)


def current_versions(store: ArtifactStore, dataset: str) -> tuple[DatasetVersion, ...]:
    """The versions an `aios://` source means now: the pinned ones, else all windows' current.

    Raises:
        ArtifactMissing: No window of the dataset was ever written.
    """
    pins = _pins.get() or {}
    if dataset in pins:
        return pins[dataset]
    found = tuple(v for key in store.keys(dataset) if (v := store.current(dataset, key)))
    if not found:
        raise ArtifactMissing(
            f"The dataset '{dataset}' has no window in {store.root}.",
            remedy="Materialize the model's feature tables first.",
        )
    return found


@dataclass(frozen=True)
class FeatureFiles:
    """Parquet files read as one table, in a fixed order, with page checksums verified."""

    label: str
    dataset: pad.FileSystemDataset

    @property
    def schema(self) -> pa.Schema:
        """Schema of the files."""
        return self.dataset.schema

    def require(self, columns: Iterable[str]) -> None:
        """Make sure that every file has these columns.

        Raises:
            FeatureError: A column is missing; named with the file and what there is.
        """
        wanted = list(dict.fromkeys(columns))
        for fragment in self.dataset.get_fragments():
            there = fragment.physical_schema.names
            missing = [name for name in wanted if name not in there]
            if missing:
                raise FeatureError(
                    f"{fragment.path} of the source '{self.label}' has no column "
                    f"{', '.join(map(repr, missing))}; it has {', '.join(there)}.",
                    remedy="Correct the feature view, or write the source again.",
                )

    def pruned(
        self, condition: pc.Expression | None, encoded: Sequence[str] = ()
    ) -> "FeatureFiles":
        """Without the row groups whose statistics rule the condition out.

        Args:
            condition: What rows are wanted; None: all.
            encoded: Columns to read as dictionaries where they are text, which costs less.
        """
        texts = {name for name in encoded if pa.types.is_string(self.schema.field(name).type)}
        layout = pad.ParquetFileFormat(dictionary_columns=texts) if texts else self.dataset.format
        fragments = []
        with self._readable():
            for fragment in self.dataset.get_fragments():
                kept = fragment if condition is None else fragment.subset(condition)
                groups = [group.id for group in kept.row_groups]
                if groups and texts:
                    kept = layout.make_fragment(
                        kept.path, kept.filesystem, kept.partition_expression, groups
                    )
                fragments += [kept] if groups else []
        schema = self.schema
        for name in texts:
            coded = pa.field(name, pa.dictionary(pa.int32(), pa.string()))
            schema = schema.set(schema.get_field_index(name), coded)
        return FeatureFiles(
            self.label,
            pad.FileSystemDataset(fragments, schema, layout, self.dataset.filesystem),
        )

    def rows(self) -> int:
        """Number of rows, from the footers."""
        with self._readable():
            return sum(
                group.num_rows for f in self.dataset.get_fragments() for group in f.row_groups
            )

    def table(self, columns: Sequence[str]) -> pa.Table:
        """The columns, whole."""
        with self._readable():
            return self._scanner(columns).to_table()

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """The columns in tables of about `rows` rows, in order."""
        waiting: list[pa.RecordBatch] = []
        count = 0
        with self._readable():
            for batch in self._scanner(columns, rows).to_batches():
                waiting.append(batch)
                count += batch.num_rows
                if count >= rows:
                    yield pa.Table.from_batches(waiting)
                    waiting, count = [], 0
        if count:
            yield pa.Table.from_batches(waiting)

    def _scanner(self, columns: Sequence[str], rows: int | None = None) -> pad.Scanner:
        wanted = list(dict.fromkeys(columns))
        # Buffering ahead hides the latency of an object store; on a disk it only costs.
        local = isinstance(self.dataset.filesystem, pafs.LocalFileSystem)
        options = pad.ParquetFragmentScanOptions(
            page_checksum_verification=True, pre_buffer=not local
        )
        if rows is None:
            return self.dataset.scanner(columns=wanted, fragment_scan_options=options)
        return self.dataset.scanner(
            columns=wanted,
            fragment_scan_options=options,
            batch_size=min(rows, 131_072),
            batch_readahead=2,
            fragment_readahead=1,
        )

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowInvalid, OSError) as error:
            raise ArtifactCorrupt(
                f"A file of the source '{self.label}' cannot be read: {error}.",
                remedy="Restore it, or write the source again.",
            ) from error


def dataset_files(store: ArtifactStore, dataset: str) -> FeatureFiles:
    """The files of an `aios://` source."""
    stand_ins = (_replacements.get() or {}).get(dataset)
    if stand_ins is not None:
        return parquet_files(stand_ins)
    versions = [v for v in current_versions(store, dataset) if v.rows]
    versions = versions or list(current_versions(store, dataset))[:1]
    return FeatureFiles(SCHEME + dataset, store.scan(versions))


def parquet_files(path: str | Sequence[str], filesystem: Any = None) -> FeatureFiles:
    """The files of a plain path: a Parquet file, a folder or a glob; or a list of files.

    Raises:
        ArtifactMissing: There is nothing at the path.
        ArtifactCorrupt: A file is not Parquet.
    """
    found: Any = path
    if filesystem is None and isinstance(path, str):
        found = _local_files(path)
        if not found:
            raise ArtifactMissing(
                f"There is no Parquet file at {path}.", remedy="Correct the source's path."
            )
    options = pad.ParquetFragmentScanOptions(page_checksum_verification=True)
    try:
        dataset = pad.dataset(
            found,
            format=pad.ParquetFileFormat(default_fragment_scan_options=options),
            filesystem=filesystem,
        )
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtifactCorrupt(
            f"{path} is not readable Parquet: {error}.", remedy="Write the source again."
        ) from error
    return FeatureFiles(str(path), dataset)


def row_width(schema: pa.Schema, columns: Iterable[str]) -> int:
    """Estimated bytes that a row of these columns takes in memory."""
    return sum(_width(schema.field(name).type) for name in columns)


def instants(values: Any, unit: str, name: str) -> pa.ChunkedArray | pa.Array:
    """Times as int64 counts of `unit` since 1970 UTC; naive times are taken for UTC.

    Times too far for the unit become the farthest that it has, so that a sentinel such as the
    year 9999 stays in the future.

    Raises:
        FeatureError: The values are not times.
    """
    kind = values.type
    if pa.types.is_date(kind):
        values, kind = values.cast(pa.timestamp("ms")), pa.timestamp("ms")
    if not pa.types.is_timestamp(kind):
        raise FeatureError(
            f"The column '{name}' is of type {kind}; a time is needed.",
            remedy="Give it as a timestamp, best in UTC.",
        )
    counts = values.cast(pa.int64())
    have, want = PER_SECOND[kind.unit], PER_SECOND[unit]
    if want > have:
        factor = want // have
        low, high = -(abs(INT64[0]) // factor), INT64[1] // factor
        counts = pc.min_element_wise(
            pc.max_element_wise(counts, low, skip_nulls=False), high, skip_nulls=False
        )
        return pc.multiply(counts, factor)
    return counts


def bound(moment: datetime, kind: pa.DataType) -> pa.Scalar:
    """An aware moment as a scalar comparable with a column of this type."""
    whole = pa.scalar(moment, pa.timestamp("us", tz="UTC"))
    if pa.types.is_date(kind):
        return pa.scalar(moment.date(), kind)
    return whole.cast(pa.timestamp(kind.unit, tz="UTC"), safe=False).cast(pa.int64()).cast(kind)


def _local_files(path: str) -> list[str]:
    plain = Path(path.removeprefix("file://"))
    if plain.is_file():
        return [str(plain)]
    if plain.is_dir():
        found = plain.rglob("*.parquet")
        return sorted(
            str(f) for f in found if not any(p[0] in "._" for p in f.relative_to(plain).parts)
        )
    if any(mark in path for mark in "*?["):
        anchor = Path(plain.anchor) if plain.is_absolute() else Path()
        pattern = str(plain.relative_to(plain.anchor)) if plain.is_absolute() else str(plain)
        return sorted(str(f) for f in anchor.glob(pattern) if f.is_file())
    return []


def _width(kind: pa.DataType) -> int:
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return VARIABLE_WIDTH
