"""What a window is compared with: the champion's training rows, and an earlier window.

Each is reduced to bins and a sample once, and kept under its digest.
"""

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.documents import as_json
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.scorers import scorer_of
from aios_platform.contracts.datasets import FeatureSchema, TrainingSet
from aios_platform.contracts.decisions import Champion
from aios_platform.contracts.windows import Every
from aios_platform.errors import MetricError
from aios_platform.features.pinned_sets import recall

if TYPE_CHECKING:
    import pyarrow as pa

    from aios_platform.database import Database
    from aios_platform.inference.session import Session
    from aios_platform.monitoring.estimation import Calibration
    from aios_platform.monitoring.importance import Importance
    from aios_platform.monitoring.psi import ReferenceBins

logger = logging.getLogger(__name__)

# Rows of the champion's training data that its own probabilities are binned on, and that the
# drift page samples from: enough for stable deciles, cheap to score.
REFERENCE_ROWS = 30_000
EXAM_ROWS = 20_000
WINDOW = "window"
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
        """Bins of the champion's own answers on the sample."""
        from aios_platform.monitoring.drift import prediction_bins
        from aios_platform.monitoring.psi import ReferenceBins

        name = f"{self._folder}/predictions-{self.champion.model_digest}.json"
        content = self._store.read_named(name)
        if content is None:
            scores = self._session.predict(self.sample)
            bins = prediction_bins(scores, self._session.answers)
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
        from aios_platform.monitoring.importance import Importance, permutation_importance

        name = f"{self._folder}/importance-{self.champion.model_digest}.json"
        content = self._store.read_named(name)
        if content is not None:
            return Importance.model_validate_json(content)
        rows = self._exam_rows
        if rows is None:
            return None
        try:
            found = permutation_importance(
                self._session.predict,
                rows,
                self._names.declaration.label.column,
                self.training_set.features.names,
                answers=self._session.answers,
            )
        except MetricError as error:
            logger.warning("Features' importance to %s is unknown: %s", self._names.model, error)
            return None
        self._store.write_named(name, as_json(found))
        return found

    def calibration_without(self, key: str) -> "Calibration | None":
        """Outcomes given the champion's scores, from its exam but for one window of it.

        A window is never estimated from its own labels. None where the rest allows no fit, and
        for other tasks than binary classification, whose outcomes no such curve gives.
        """
        import pyarrow.compute as pc

        from aios_platform.monitoring.estimation import calibrate

        if self._names.declaration.task != "binary_classification":
            return None
        answers = self._answers
        if answers is None:
            return None
        others = answers.filter(pc.not_equal(answers[WINDOW], key))
        if others.num_rows == 0:
            # The exam was this very window.
            return None
        windows = tuple(sorted(pc.unique(others[WINDOW]).to_pylist()))
        try:
            return calibrate(
                others["label"].to_numpy(), others["score"].to_numpy(), windows=windows
            )
        except MetricError as error:
            logger.warning("Nothing can be estimated for %s: %s", self._names.model, error)
            return None

    @cached_property
    def _answers(self) -> "pa.Table | None":
        """Window, label and the champion's score of rows of its exam; kept under its digest."""
        import pyarrow as pa

        dataset = f"{self._folder}/answers"
        kept = self._store.current(dataset, self.champion.model_digest)
        if kept is not None:
            return self._store.read(kept)
        rows = self._exam_rows
        if rows is None:
            return None
        answers = pa.table(
            {
                WINDOW: rows[WINDOW],
                "label": rows[self._names.declaration.label.column],
                "score": self._session.predict(rows),
            }
        )
        self._store.write(dataset, self.champion.model_digest, answers)
        return answers

    @cached_property
    def _exam_rows(self) -> "pa.Table | None":
        """A sample of the exam's labelled rows, each with its window; None without an exam."""
        import pyarrow as pa

        from aios_platform.monitoring.sampling import sample
        from aios_platform.promotion.exam import labelled

        exam = self.training_set.exam
        if not exam:
            return None
        label = self._names.declaration.label.column
        columns = [*self.training_set.features.names, label]
        parts = []
        for frame in exam:
            part = sample(labelled(self._store.read(frame, columns), label), EXAM_ROWS // len(exam))
            parts.append(part.append_column(WINDOW, pa.array([frame.key] * part.num_rows)))
        return pa.concat_tables(parts)

    @cached_property
    def _session(self) -> "Session":
        from aios_platform.inference.session import Session

        digest = self.champion.model_digest
        return Session(self._store.get(digest, ".onnx"), digest=digest)


class References:
    """The references of the versions that scored a run's windows, each opened once."""

    def __init__(self, names: Names, store: ArtifactStore, database: "Database") -> None:
        self._names, self._store, self._database = names, store, database
        self._found: dict[str, Reference] = {}

    def of(self, key: str) -> Reference:
        """What the window with this key is compared with: that of the version that scored it.

        Raises:
            ArtifactMissing: The window has no predictions.
            LifecycleError: The ledger does not know the version.
            DatabaseUnavailable: The ledger cannot be read.
        """
        return self.of_version(
            self._store.require(self._names.predictions, key).inputs["model_version"]
        )

    def of_version(self, version: str) -> Reference:
        """What anything of this version is compared with.

        Raises:
            LifecycleError: The ledger does not know the version.
            DatabaseUnavailable: The ledger cannot be read.
        """
        if version not in self._found:
            scorer = scorer_of(self._names, self._database, version)
            self._found[version] = Reference(self._names, self._store, scorer)
        return self._found[version]


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
