"""The files of an artifact root, copied out of it and into it."""

import hashlib
import os
import re
import shutil
from pathlib import Path

import fsspec

from aios_platform.backup.manifest import CHUNK, StoredFile
from aios_platform.errors import ArtifactCorrupt, StoreError
from aios_platform.ledger.anchors import FOLDER as ANCHORS

# Of these the name states the digest.
_ADDRESSED = re.compile(r"^(?:blobs/../|datasets/.+/)([0-9a-f]{64})(?:\.\w+)?$")
MARK = ".restoring"


class Root:
    """All files under an artifact root, by their path in it.

    Args:
        root: A folder or an fsspec URL.
    """

    def __init__(self, root: str) -> None:
        self.url = root.rstrip("/")
        self._fs, path = fsspec.core.url_to_fs(root)
        self.place = str(path).rstrip("/")
        self.local = not isinstance(self._fs.protocol, str) and "file" in self._fs.protocol

    def names(self) -> list[str]:
        """Paths of all files but those that somebody is writing now, sorted."""
        self._fs.invalidate_cache()
        paths = (str(path)[len(self.place) + 1 :] for path in self._fs.find(self.place))
        return sorted(name for name in paths if not name.rsplit("/", 1)[-1].startswith("."))

    def bytes(self) -> int:
        """Size of all of them."""
        return int(sum(self._fs.du(self.place, total=False).values())) if self.names() else 0

    def copy_out(self, name: str, folder: Path) -> StoredFile:
        """Copy a file into a folder of a backup.

        Raises:
            ArtifactCorrupt: It is not what was written once.
            StoreError: It is gone meanwhile.
            OSError: The copy cannot be written.
        """
        target = folder / "artifacts" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        try:
            source = self._fs.open(f"{self.place}/{name}", "rb")
        except FileNotFoundError:
            raise StoreError(
                f"The artifact {name} went away while it was to be copied.",
                remedy="Run the same command again.",
            ) from None
        with source, target.open("wb") as file:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        addressed = _ADDRESSED.match(name)
        if addressed and addressed.group(1) != digest.hexdigest():
            raise ArtifactCorrupt(
                f"The artifact {self.place}/{name} does not have the digest in its name.",
                remedy="Put it back from an earlier backup, or delete it and make it again; a "
                "backup of damaged files is none.",
            )
        return StoredFile(name=f"artifacts/{name}", bytes=size, sha256=digest.hexdigest())

    def copy_in(self, name: str, source: Path) -> None:
        """Copy a file of a backup to its place; it is there whole or not at all."""
        target = f"{self.place}/{name}"
        if not self.local:
            self._fs.put_file(str(source), target)
            return
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        writing = path.with_name(f".writing-{path.name}")
        with source.open("rb") as content, writing.open("wb") as file:
            shutil.copyfileobj(content, file, CHUNK)
            file.flush()
            os.fsync(file.fileno())
        if name.startswith(f"{ANCHORS}/"):
            writing.chmod(0o444)
        writing.replace(path)

    def mark(self) -> str | None:
        """Which restore was begun here and not ended."""
        try:
            content: bytes = self._fs.cat_file(f"{self.place}/{MARK}")
        except FileNotFoundError:
            return None
        return content.decode()

    def set_mark(self, content: str) -> None:
        """Say that a restore begins here."""
        self._fs.makedirs(self.place, exist_ok=True)
        self._fs.pipe_file(f"{self.place}/{MARK}", content.encode())

    def drop_mark(self) -> None:
        """Say that all is here."""
        if self._fs.exists(f"{self.place}/{MARK}"):
            self._fs.rm_file(f"{self.place}/{MARK}")

    def clear(self) -> None:
        """Remove everything, the root itself too."""
        if self._fs.exists(self.place):
            self._fs.rm(self.place, recursive=True)


def free_bytes(path: Path) -> int:
    """Free space where a path lies, or will lie."""
    there = path.resolve()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def require_space(path: Path, needed: int, what: str) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        StoreError: There is less free space than is needed.
    """
    free = free_bytes(path)
    if free < needed:
        raise StoreError(
            f"{what} needs {needed:,} bytes under {path}; {free:,} are free.",
            remedy="Free space or choose another place; nothing was written.",
        )
