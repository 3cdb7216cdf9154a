"""What monitoring wrote about a window, found again: small JSON documents in the artifact root."""

from typing import TypeVar

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.record import Record
from aios_platform.errors import LifecycleError

R = TypeVar("R", bound=Record)


def write_document(names: Names, store: ArtifactStore, kind: str, key: str, record: Record) -> None:
    """Keep a record about a window, in place of the one before."""
    store.write_named(_name(names, kind, key), as_json(record))


def find_document(
    names: Names, store: ArtifactStore, kind: str, key: str, record: type[R]
) -> R | None:
    """The record of this kind about a window, if there is one."""
    content = store.read_named(_name(names, kind, key))
    return None if content is None else record.model_validate_json(content)


def read_document(names: Names, store: ArtifactStore, kind: str, key: str, record: type[R]) -> R:
    """The record of this kind about a window.

    Raises:
        LifecycleError: There is none.
    """
    found = find_document(names, store, kind, key, record)
    if found is None:
        raise LifecycleError(
            f"There is no {kind} of {names.model} for {key}.",
            remedy=f"Materialize the asset '{kind}' of that window first.",
        )
    return found


def document_keys(names: Names, store: ArtifactStore, kind: str) -> list[str]:
    """The windows that have a record of this kind, oldest first."""
    found = store.names(f"observations/{names.model}/{kind}", ".json")
    return [name.rsplit("/", 1)[-1].removesuffix(".json") for name in found]


def as_json(record: Record) -> bytes:
    """A record as the bytes of a document."""
    return record.model_dump_json(indent=1).encode()


def _name(names: Names, kind: str, key: str) -> str:
    return f"observations/{names.model}/{kind}/{key}.json"
