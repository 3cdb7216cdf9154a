"""Pinned training sets, kept under their digests."""

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.datasets import TrainingSet
from aios_platform.errors import ArtifactMissing


def remember(store: ArtifactStore, model: str, record: TrainingSet) -> None:
    """Keep a pinned training set under its digest, for whoever holds a version trained on it."""
    store.write_named(
        _training_set(model, record.digest), record.model_dump_json(indent=1).encode()
    )


def recall(store: ArtifactStore, model: str, digest: str) -> TrainingSet:
    """The pinned training set of this digest.

    Raises:
        ArtifactMissing: It was never kept, or is gone.
    """
    content = store.read_named(_training_set(model, digest))
    if content is None:
        raise ArtifactMissing(
            f"The training set {digest[:12]} of {model} is not in the artifact root.",
            remedy="Restore the artifact root from a backup.",
        )
    return TrainingSet.model_validate_json(content)


def _training_set(model: str, digest: str) -> str:
    return f"training_sets/{model}/{digest}.json"
