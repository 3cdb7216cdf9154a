"""What is in a backup: every file with its size and digest, and the ledger's head."""

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from aios_platform.contracts.record import Record
from aios_platform.errors import ArtifactCorrupt, ArtifactMissing, StoreError

NAME = "manifest.json"
CHUNK = 1 << 20


class StoredFile(Record):
    """One file of a backup."""

    name: str = Field(description="Path inside the backup.")
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @field_validator("name")
    @classmethod
    def _inside(cls, name: str) -> str:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError(f"'{name}' lies outside the backup")
        return name


class Head(Record):
    """The ledger's last row."""

    seq: int = Field(ge=0)
    hash: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Record):
    """What a backup holds, and what it was made from."""

    format: Literal[1] = 1
    made_at: datetime
    platform: str = Field(description="Version of the platform that made it.")
    postgres: str = Field(description="Version of the server it was made from.")
    revision: str = Field(description="Revision of our schema.")
    head: Head
    artifact_root: str = Field(description="Where the artifacts lay; MLflow's records name it.")
    database_bytes: int = Field(ge=0, description="Size of the databases on the server.")
    databases: dict[str, StoredFile]
    artifacts: tuple[StoredFile, ...]

    @property
    def files(self) -> Iterator[StoredFile]:
        """Every file: the dumps, then the artifacts."""
        yield from self.databases.values()
        yield from self.artifacts

    @property
    def bytes(self) -> int:
        """Size of the backup."""
        return sum(file.bytes for file in self.files)

    @property
    def artifact_bytes(self) -> int:
        """Size of the artifacts."""
        return sum(file.bytes for file in self.artifacts)


def write(manifest: Manifest, folder: Path) -> None:
    """Write the manifest, sealed by its own digest, as the last file of a backup."""
    content = {"sha256": manifest.fingerprint, "manifest": manifest.model_dump(mode="json")}
    (folder / NAME).write_text(json.dumps(content, indent=1))


def read(folder: Path) -> Manifest:
    """Read the manifest of a backup.

    Raises:
        ArtifactMissing: There is none: this is no backup, or not a whole one.
        ArtifactCorrupt: It is not what was written.
    """
    path = folder / NAME
    try:
        content = json.loads(path.read_bytes())
        manifest = Manifest.model_validate(content["manifest"])
        if content["sha256"] != manifest.fingerprint:
            raise ValueError("it does not have the digest it states")
    except FileNotFoundError:
        raise ArtifactMissing(
            f"There is no {NAME} in {folder}: it is not a backup.",
            remedy="Give the folder that `aios backup` wrote.",
        ) from None
    except ValidationError as error:
        raise _altered(path, error.errors()[0]["msg"]) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _altered(path, str(error)) from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    return manifest


def verify(folder: Path, manifest: Manifest) -> None:
    """Read every file of a backup and compare it with the manifest.

    Raises:
        ArtifactMissing: A file is not there.
        ArtifactCorrupt: A file is not what was written.
    """
    for file in manifest.files:
        path = folder / file.name
        try:
            size, digest = path.stat().st_size, ""
            if size == file.bytes:
                with path.open("rb") as content:
                    digest = hashlib.file_digest(content, "sha256").hexdigest()
        except FileNotFoundError:
            raise ArtifactMissing(
                f"The backup's file {path} is gone.",
                remedy="Use another backup; nothing was restored.",
            ) from None
        except OSError as error:
            raise StoreError(
                f"The backup's file {path} cannot be read: {error.strerror or error}.",
                remedy="Use another backup; nothing was restored.",
            ) from error
        if size != file.bytes:
            raise _altered(path, f"it has {size} bytes, and {file.bytes} were written")
        if digest != file.sha256:
            raise _altered(path, "it does not have the digest in the manifest")


def _altered(path: Path, why: str) -> ArtifactCorrupt:
    return ArtifactCorrupt(
        f"The backup's file {path} is not what was written: {why}.",
        remedy="Use another backup; nothing was restored.",
    )
