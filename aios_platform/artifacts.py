"""The artifact root: versioned Parquet datasets and write-once blobs behind one fsspec URL.

Layout::

    <root>/datasets/<dataset>/<key>/<digest>.parquet   immutable, page checksums on
    <root>/datasets/<dataset>/<key>/versions.json      history, the last entry is current
    <root>/blobs/<digest[:2]>/<digest><suffix>         content-addressed, written once

A version becomes visible by one atomic replacement of `versions.json`; a process killed before
that leaves at most a file nobody refers to, and the same call made again finishes the work.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from aios_platform.contracts.datasets import DatasetVersion
from aios_platform.errors import ArtifactCorrupt, ArtifactMissing, StoreError

if TYPE_CHECKING:
    import pyarrow.dataset as pad

ROW_GROUP_ROWS = 65_536


class _Hashing:
    """A binary file that hashes what is written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.closed = False

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        self.sha256.update(view)
        self._file.write(view)
        return view.nbytes

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


class ArtifactStore:
    """Reads and writes artifacts under one root.

    Args:
        root: A folder or an fsspec URL.
    """

    def __init__(self, root: str) -> None:
        self._fs, path = fsspec.core.url_to_fs(root)
        self.root = str(path).rstrip("/")
        self._local = "file" in (
            self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,)
        )

    # datasets

    def write(
        self,
        dataset: str,
        key: str,
        batches: pa.Table | Iterable[pa.RecordBatch | pa.Table],
        *,
        schema: pa.Schema | None = None,
        inputs: Mapping[str, str] | None = None,
    ) -> DatasetVersion:
        """Write one version of one key of a dataset and make it current.

        Identical bytes give no new version: the existing one is returned, its inputs updated.

        Args:
            dataset: Path-like name of the dataset.
            key: Window key or another name of the slice.
            batches: A table, or batches to stream; then `schema` is required.
            schema: Schema of the batches.
            inputs: Digests of what this version was made from.

        Raises:
            StoreError: The bytes could not be written (a full disk, say); nothing is visible.
        """
        table_schema = batches.schema if isinstance(batches, pa.Table) else schema
        if table_schema is None:
            raise ValueError("a stream of batches needs its schema")
        folder = f"{self.root}/datasets/{dataset}/{key}"
        with self._temporary(folder) as (temporary, file):
            hashing, rows = _Hashing(file), 0
            with pq.ParquetWriter(
                pa.PythonFile(hashing, mode="w"),
                table_schema,
                compression="zstd",
                compression_level=1,
                write_page_checksum=True,
            ) as writer:
                for batch in [batches] if isinstance(batches, pa.Table) else batches:
                    part = pa.table(batch) if isinstance(batch, pa.RecordBatch) else batch
                    writer.write_table(part, row_group_size=ROW_GROUP_ROWS)
                    rows += part.num_rows
            size = file.tell()
            digest = hashing.sha256.hexdigest()
            file.flush()
            self._publish(temporary, f"{folder}/{digest}.parquet")
        return self._record(dataset, key, digest=digest, rows=rows, size=size, inputs=inputs)

    def current(self, dataset: str, key: str) -> DatasetVersion | None:
        """The current version, or None when nothing was ever written under this key."""
        history = self.history(dataset, key)
        return history[-1] if history else None

    def require(self, dataset: str, key: str) -> DatasetVersion:
        """The current version.

        Raises:
            ArtifactMissing: Nothing was ever written under this key.
        """
        version = self.current(dataset, key)
        if version is None:
            raise ArtifactMissing(
                f"The dataset '{dataset}' has no version for '{key}'.",
                remedy="Materialize the stage that makes it first.",
            )
        return version

    def fresh(self, dataset: str, key: str, inputs: Mapping[str, str]) -> DatasetVersion | None:
        """The current version if it was made from exactly these inputs and its file is there."""
        version = self.current(dataset, key)
        if (
            version is None
            or version.inputs != dict(inputs)
            or not self._fs.exists(self._file_of(version))
        ):
            return None
        return version

    def history(self, dataset: str, key: str) -> list[DatasetVersion]:
        """All versions, oldest first.

        Raises:
            ArtifactCorrupt: The list of versions cannot be read.
        """
        path = f"{self.root}/datasets/{dataset}/{key}/versions.json"
        try:
            raw = self._fs.cat_file(path)
        except FileNotFoundError:
            return []
        try:
            return [DatasetVersion.model_validate(entry) for entry in json.loads(raw)]
        except ValueError as error:
            raise ArtifactCorrupt(
                f"The list of versions {path} cannot be read: {error}",
                remedy="Restore the file from a backup, or delete it and materialize again.",
            ) from error

    def keys(self, dataset: str) -> list[str]:
        """The keys that have a version, sorted."""
        folder = f"{self.root}/datasets/{dataset}"
        with suppress(FileNotFoundError):
            paths = self._fs.glob(f"{folder}/*/versions.json")
            return sorted(str(path).rsplit("/", 2)[-2] for path in paths)
        return []

    def scan(self, versions: Iterable[DatasetVersion]) -> "pad.Dataset":
        """An Arrow dataset over versions of one schema, with page checksums verified on reading.

        Raises:
            ArtifactMissing: A file is gone.
            ArtifactCorrupt: A file is cut short or is not Parquet.
        """
        # Imports pandas, which nobody should pay for who only asks what there is.
        import pyarrow.dataset as pad

        uris = []
        for version in versions:
            uri = self._file_of(version)
            try:
                size = self._fs.size(uri)
            except FileNotFoundError:
                raise ArtifactMissing(
                    f"The file {uri} of '{version.dataset}' ({version.key}) is gone.",
                    remedy="Restore it, or materialize the window again.",
                ) from None
            if size != version.bytes:
                raise ArtifactCorrupt(
                    f"The file {uri} has {size} bytes; {version.bytes} were written.",
                    remedy="Restore it, or delete it and materialize the window again.",
                )
            uris.append(uri)
        options = pad.ParquetFragmentScanOptions(page_checksum_verification=True)
        try:
            return pad.dataset(
                uris,
                format=pad.ParquetFileFormat(default_fragment_scan_options=options),
                filesystem=None if self._local else self._fs,
            )
        except (pa.ArrowInvalid, OSError) as error:
            raise ArtifactCorrupt(
                f"A file of {uris} is not readable Parquet: {error}",
                remedy="Restore it, or delete it and materialize the window again.",
            ) from error

    def read(self, version: DatasetVersion, columns: list[str] | None = None) -> pa.Table:
        """Read one version whole.

        Raises:
            ArtifactMissing: The file is gone.
            ArtifactCorrupt: The bytes are not those that were written.
        """
        dataset = self.scan([version])
        try:
            return dataset.to_table(columns=columns)
        except OSError as error:
            raise ArtifactCorrupt(
                f"The file {self._file_of(version)} is damaged: {error}",
                remedy="Restore it, or delete it and materialize the window again.",
            ) from error

    # blobs

    def put(self, content: bytes, suffix: str = "") -> tuple[str, str]:
        """Store bytes under their own SHA-256; storing them twice is the same as once.

        Returns:
            The digest (hex) and the URI.
        """
        digest = hashlib.sha256(content).hexdigest()
        uri = self.blob_uri(digest, suffix)
        if not (self._fs.exists(uri) and self._fs.size(uri) == len(content)):
            with self._temporary(uri.rsplit("/", 1)[0]) as (temporary, file):
                file.write(content)
                file.flush()
                self._publish(temporary, uri)
        return digest, uri

    def blob_uri(self, digest: str, suffix: str = "") -> str:
        """Where the bytes of this digest lie."""
        return f"{self.root}/blobs/{digest[:2]}/{digest}{suffix}"

    def get(self, digest: str, suffix: str = "") -> bytes:
        """Bytes by digest, verified.

        Raises:
            ArtifactMissing: There is no such blob.
            ArtifactCorrupt: The bytes do not have this digest.
        """
        uri = self.blob_uri(digest, suffix)
        try:
            content: bytes = self._fs.cat_file(uri)
        except FileNotFoundError:
            raise ArtifactMissing(
                f"The artifact {uri} is gone.", remedy="Restore it from a backup of the root."
            ) from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise ArtifactCorrupt(
                f"The bytes of {uri} do not have the digest in its name.",
                remedy="Restore the file from a backup; do not use it.",
            )
        return content

    # named documents

    def write_named(self, name: str, content: bytes) -> None:
        """Write a small document under a path of its own, replacing it atomically."""
        path = f"{self.root}/{name}"
        with self._temporary(path.rsplit("/", 1)[0]) as (temporary, file):
            file.write(content)
            file.flush()
            self._publish(temporary, path)

    def read_named(self, name: str) -> bytes | None:
        """A document written by `write_named`; None when there is none."""
        with suppress(FileNotFoundError):
            content: bytes = self._fs.cat_file(f"{self.root}/{name}")
            return content
        return None

    def write_once(self, name: str, content: bytes) -> bool:
        """Write a small document unless one is there; whether it was written.

        Atomic on a local disk; an object store is only asked first, so give it a retention lock.
        """
        path = f"{self.root}/{name}"
        with self._temporary(path.rsplit("/", 1)[0]) as (temporary, file):
            file.write(content)
            file.flush()
            if self._fs.exists(path):
                return False
            if not self._local:
                self._fs.put_file(temporary, path)
                return True
            os.fsync(file.fileno())
            Path(temporary).chmod(0o444)
            with suppress(FileExistsError):
                Path(path).hardlink_to(temporary)
                return True
            return False

    def names(self, folder: str, suffix: str) -> list[str]:
        """The documents directly in a folder whose names end so, sorted."""
        self._fs.invalidate_cache()
        paths = self._fs.glob(f"{self.root}/{folder}/*{suffix}")
        return sorted(f"{folder}/{str(path).rsplit('/', 1)[-1]}" for path in paths)

    def uri_of(self, name: str) -> str:
        """Where the document of this name lies."""
        return f"{self.root}/{name}"

    # internals

    def _file_of(self, version: DatasetVersion) -> str:  # its URI, in a root that was not moved
        return f"{self.root}/datasets/{version.dataset}/{version.key}/{version.digest}.parquet"

    @contextmanager
    def _temporary(self, folder: str) -> Iterator[tuple[str, IO[bytes]]]:
        """A temporary local file; in the target's own folder when that is local."""
        try:
            self._fs.makedirs(folder, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".writing-", dir=folder if self._local else None)
        except OSError as error:
            raise _cannot_write(folder, error) from error
        try:
            with os.fdopen(handle, "wb") as file:
                yield name, file
        except OSError as error:
            raise _cannot_write(folder, error) from error
        finally:
            Path(name).unlink(missing_ok=True)

    def _publish(self, temporary: str, uri: str) -> None:
        if self._local:
            with Path(temporary).open("rb+") as file:
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(uri)
        else:
            self._fs.put_file(temporary, uri)

    def _record(
        self,
        dataset: str,
        key: str,
        *,
        digest: str,
        rows: int,
        size: int,
        inputs: Mapping[str, str] | None,
    ) -> DatasetVersion:
        history, folder = self.history(dataset, key), f"{self.root}/datasets/{dataset}/{key}"
        same = bool(history) and history[-1].digest == digest
        version = DatasetVersion(
            dataset=dataset,
            key=key,
            version=history[-1].version + (0 if same else 1) if history else 1,
            digest=digest,
            uri=f"{folder}/{digest}.parquet",
            rows=rows,
            bytes=size,
            inputs=dict(inputs or {}),
            created_at=history[-1].created_at if same else datetime.now(UTC),
        )
        entries = [*(history[:-1] if same else history), version]
        content = json.dumps([e.model_dump(mode="json") for e in entries], indent=1).encode()
        with self._temporary(folder) as (temporary, file):
            file.write(content)
            file.flush()
            self._publish(temporary, f"{folder}/versions.json")
        return version


def _cannot_write(folder: str, error: OSError) -> StoreError:
    return StoreError(
        f"Cannot write under {folder}: {error.strerror or error}.",
        remedy="Free space or fix the permissions, then run the same command again; "
        "nothing was left half-written.",
    )
