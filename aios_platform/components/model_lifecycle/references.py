"""The training rows as a reference for drift: binned once, kept under the set's digest."""

from typing import TYPE_CHECKING

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.handoff import TrainingSet

if TYPE_CHECKING:
    from aios_platform.monitoring.psi import ReferenceBins


def reference_folder(model: str, training_set_digest: str) -> str:
    """Where what is known of a training set is kept."""
    return f"references/{model}/{training_set_digest}"


def training_bins(store: ArtifactStore, model: str, record: TrainingSet) -> "ReferenceBins":
    """Bins of every feature over all training rows.

    Raises:
        ArtifactMissing: A training frame is gone.
        ArtifactCorrupt: A training frame is damaged.
    """
    from aios_platform.monitoring.psi import ReferenceBins, reference_bins

    name = f"{reference_folder(model, record.digest)}/features.json"
    content = store.read_named(name)
    if content is None:
        bins = reference_bins(store.scan(record.frames), record.features.fields)
        store.write_named(name, bins.model_dump_json(indent=1).encode())
        return bins
    return ReferenceBins.model_validate_json(content)
