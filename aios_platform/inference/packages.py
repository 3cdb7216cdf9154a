"""Serving packages in the artifact root: one document per model's bytes."""

from pydantic import ValidationError

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.packages import ServingPackage
from aios_platform.errors import ArtifactCorrupt


def read_package(store: ArtifactStore, model: str, model_digest: str) -> ServingPackage | None:
    """What was packed with a version; None where nothing was.

    Args:
        store: The artifact root.
        model: Its name.
        model_digest: SHA-256 (hex) of its ONNX bytes.

    Raises:
        ArtifactCorrupt: The document cannot be read, or is about another model.
    """
    name = _name(model, model_digest)
    content = store.read_named(name)
    if content is None:
        return None
    try:
        package = ServingPackage.model_validate_json(content)
    except ValidationError as error:
        raise _corrupt(store, name, f"cannot be read: {error.errors()[0]['msg']}") from error
    if (package.model, package.model_digest) != (model, model_digest):
        raise _corrupt(store, name, f"is about {package.model} {package.model_digest[:12]}")
    return package


def write_package(store: ArtifactStore, package: ServingPackage) -> None:
    """Keep a package in place of an earlier one of the same bytes.

    Raises:
        StoreError: It could not be written; the earlier one stays.
    """
    content = package.model_dump_json(indent=1).encode()
    store.write_named(_name(package.model, package.model_digest), content)


def _name(model: str, model_digest: str) -> str:
    return f"serving/{model}/{model_digest}.json"


def _corrupt(store: ArtifactStore, name: str, why: str) -> ArtifactCorrupt:
    return ArtifactCorrupt(
        f"The serving package {store.uri_of(name)} {why}.",
        remedy="Build it again: `aios package MODEL --rebuild`.",
    )
