"""Writing feature rows to plain Parquet paths, whole or not at all."""

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from aios_platform.errors import FeatureError, StoreError
from aios_platform.features.sources import FeatureFiles


def write_file(path: str, tables: Iterable[pa.Table], *, overwrite: bool) -> None:
    """Write tables of one schema to a Parquet file that appears at once.

    Raises:
        FeatureError: Something is at the path already.
        StoreError: It cannot be written; what was there is still there.
    """
    target = Path(path.removeprefix("file://"))
    if target.exists() and not overwrite:
        raise FeatureError(
            f"There is something at {target} already.",
            remedy="Allow overwriting, or choose another path.",
        )
    if target.is_dir():
        target = target / "data.parquet"
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=".writing-", delete=False
        ) as file:
            temporary = Path(file.name)
            writer: pq.ParquetWriter | None = None
            for table in tables:
                writer = writer or pq.ParquetWriter(
                    file, table.schema, compression="zstd", write_page_checksum=True
                )
                writer.write_table(table)
            if writer:
                writer.close()
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        raise StoreError(
            f"Cannot write {target}: {error.strerror or error}.",
            remedy="Free space or fix the permissions, then try again.",
        ) from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def append_file(path: str, table: pa.Table, existing: FeatureFiles | None) -> None:
    """Append rows: a new file in a folder, or the single file rewritten with them at its end.

    A file in a folder is named by its content, so that appending the same rows again changes
    nothing.
    """
    target = Path(path.removeprefix("file://"))
    if existing is not None:
        missing = [n for n in existing.schema.names if n not in table.column_names]
        if missing:
            raise FeatureError(
                f"The rows for {target} lack the columns {', '.join(missing)}.",
                remedy="Give every column that the source has.",
            )
        table = table.select(existing.schema.names).cast(existing.schema)
    if target.is_file() and existing is not None:
        old = existing.batches(existing.schema.names, 1_000_000)
        write_file(path, (part for source in (old, [table]) for part in source), overwrite=True)
        return
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    digest = hashlib.sha256(sink.getvalue()).hexdigest()
    write_file(str(target / f"{digest}.parquet"), [table], overwrite=True)
