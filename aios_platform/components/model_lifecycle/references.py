"""What a window is compared with: the champion's training rows, and an earlier window.

Each is reduced to bins and a sample once, and kept under its digest.
"""

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.documents import as_json
from aios_platform.components.model_lifecycle.handoff import TrainingSet, recall
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.contracts.decisions import Champion
from aios_platform.contracts.windows import Every
from aios_platform.errors import MetricError

if TYPE_CHECKING:
    import pyarrow as pa

    from aios_platform.monitoring.importance import Importance
    from aios_platform.monitoring.psi import ReferenceBins

logger = logging.getLogger(__name__)

# Rows of the champion's training data that its own probabilities are binned on, and that the
# drift page samples from: enough for stable deciles, cheap to score.
REFERENCE_ROWS = 30_000
# Of days and hours: whole weeks, so that a Monday meets a Monday.
WINDOWS_OF_A_YEAR = {Every.HOUR: 52 * 168, Every.DAY: 364, Every.WEEK: 52, Every.MONTH: 12}


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


class Reference:
    """The champion's training data, binned once and kept under its digest."""

    def __init__(self, names: Names, store: ArtifactStore, champion: Champion) -> None:
        self._names = names
        self._store = store
        self.champion = champion
        self._folder = reference_folder(names.model, champion.training_set_digest)
        self.training_set: TrainingSet = recall(store, names.model, champion.training_set_digest)

    @cached_property
    def bins(self) -> Any:
        """Bins of every feature over all training rows."""
        return training_bins(self._store, self.champion.model, self.training_set)

    @cached_property
    def prediction_bins(self) -> Any:
        """Bins of the champion's own probabilities on the sample."""
        import pyarrow as pa

        from aios_platform.inference.session import Session
        from aios_platform.monitoring.drift import prediction_bins
        from aios_platform.monitoring.psi import ReferenceBins

        name = f"{self._folder}/predictions-{self.champion.model_digest}.json"
        content = self._store.read_named(name)
        if content is None:
            session = Session(
                self._store.get(self.champion.model_digest, ".onnx"),
                digest=self.champion.model_digest,
            )
            scores = session.predict(self.sample)
            bins = prediction_bins(pa.chunked_array([pa.array(scores)]))
            self._store.write_named(name, as_json(bins))
            return bins
        return ReferenceBins.model_validate_json(content)

    @cached_property
    def sample(self) -> "pa.Table":
        """The same rows of the training data every time, at most `REFERENCE_ROWS`."""
        from aios_platform.monitoring.sampling import sample

        dataset = f"{self._folder}/sample"
        kept = self._store.current(dataset, "rows")
        if kept is not None:
            return self._store.read(kept)
        names = list(self.training_set.features.names)
        table = self._store.scan(self.training_set.frames).to_table(columns=names)
        rows = sample(table, REFERENCE_ROWS).combine_chunks()
        self._store.write(dataset, "rows", rows)
        return rows

    @cached_property
    def importance(self) -> "Importance | None":
        """What the champion uses, measured on its exam; None where there was none."""
        from aios_platform.inference.session import Session
        from aios_platform.monitoring.importance import Importance, permutation_importance
        from aios_platform.promotion.exam import labelled

        exam = self.training_set.exam
        if not exam:
            return None
        name = f"{self._folder}/importance-{self.champion.model_digest}.json"
        content = self._store.read_named(name)
        if content is not None:
            return Importance.model_validate_json(content)
        features, label = self.training_set.features.names, self._names.declaration.label.column
        rows = labelled(self._store.scan(exam).to_table(columns=[*features, label]), label)
        session = Session(
            self._store.get(self.champion.model_digest, ".onnx"),
            digest=self.champion.model_digest,
        )
        try:
            found = permutation_importance(session.predict, rows, label, features)
        except MetricError as error:
            logger.warning(
                "The features' importance to %s is unknown: %s", self._names.model, error
            )
            return None
        self._store.write_named(name, as_json(found))
        return found


@dataclass(frozen=True)
class EarlierWindow:
    """Another window to compare with.

    Attributes:
        label: What it is, for people.
        bins: Its features, binned.
        sample: Rows of it.
    """

    label: str
    bins: "ReferenceBins"
    sample: "pa.Table"


def earlier_window(
    names: Names, store: ArtifactStore, key: str, features: FeatureSchema
) -> EarlierWindow | None:
    """The declared second reference of a window, if there is data of it."""
    from aios_platform.monitoring.psi import ReferenceBins, reference_bins
    from aios_platform.monitoring.sampling import sample

    declaration = names.declaration
    wanted = declaration.monitoring.reference
    if wanted == "training":
        return None
    schedule = declaration.windows
    back = 1 if wanted == "previous" else WINDOWS_OF_A_YEAR[schedule.every]
    earlier = schedule.shift(key, -back)
    version = store.current(names.frames, earlier) if earlier else None
    if version is None:
        return None
    frame = store.read(version, list(features.names))
    name = f"references/{names.model}/windows/{version.digest}-{features.fingerprint[:16]}.json"
    content = store.read_named(name)
    if content is None:
        bins = reference_bins(frame, features.fields)
        store.write_named(name, as_json(bins))
    else:
        bins = ReferenceBins.model_validate_json(content)
    rows = declaration.monitoring.test_rows
    return EarlierWindow(f"{wanted} ({version.key})", bins, sample(frame, rows))
