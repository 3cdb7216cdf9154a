"""Packs what a version brings along to be served: its tiers, a simple model, prediction sets.

Everything follows from the pinned training set and the model's bytes, the times measured aside.
Only the full model must be there: what else cannot be made is left out, and the log says why.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.samples import labelled_sample
from aios_platform.contracts.packages import Conformal, ServingPackage, SimpleModel, TierFigures
from aios_platform.contracts.policy import Task
from aios_platform.contracts.serving import TierModel
from aios_platform.errors import AiosError, LifecycleError, PromotionError
from aios_platform.features.pinned_sets import recall
from aios_platform.inference.packages import read_package, write_package
from aios_platform.metrics.truth import judged, truth_of
from aios_platform.monitoring.sampling import sample

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from aios_platform.artifacts import ArtifactStore
    from aios_platform.contracts.datasets import DatasetVersion, TrainingSet
    from aios_platform.inference.session import Session
    from aios_platform.resources.stores import Stores

logger = logging.getLogger(__name__)

RANGE_ROWS = 1024
REQUEST = "request"
SHOWN = ("roc_auc", "log_loss", "accuracy", "r2", "rmse")
T = TypeVar("T")


@dataclass(frozen=True)
class _Rows:
    """Labelled rows of some windows, and what the full model answers.

    Attributes:
        frame: The rows.
        labels: Shape (n,), as metrics take them.
        answers: Shape (n,) or (n, answer columns), float32.
        windows: Keys of the windows, oldest first.
    """

    frame: "pa.Table"
    labels: "NDArray[Any]"
    answers: "NDArray[np.float32]"
    windows: tuple[str, ...]


def ensure_package(
    names: Names, store: "ArtifactStore", model_digest: str, record: "TrainingSet"
) -> ServingPackage:
    """The package of a version, built unless it is there.

    Raises:
        StoreError: The model's bytes or its rows are gone or damaged, or nothing can be written.
        ScoringError: The model cannot score its own rows.
        LifecycleError: Its exam has no labelled row.
    """
    found = read_package(store, names.model, model_digest)
    return found or build_package(names, store, model_digest, record)


def build_package(
    names: Names, store: "ArtifactStore", model_digest: str, record: "TrainingSet"
) -> ServingPackage:
    """Measure a version, make what goes with it, and keep all of it.

    Args:
        names: The model.
        store: The artifact root.
        model_digest: SHA-256 (hex) of the version's ONNX bytes.
        record: What it was trained on, and its exam.

    Raises:
        StoreError: The model's bytes or its rows are gone or damaged, or nothing can be written.
        ScoringError: The model cannot score its own rows.
        LifecycleError: Its exam has no labelled row.
    """
    from aios_platform.inference.quantisation import quantised
    from aios_platform.inference.session import Session

    full = store.get(model_digest, ".onnx")
    session = Session(full, digest=model_digest)
    held_out = names.declaration.training.validation_windows
    calibration = _answered(names, store, record.frames[-held_out:], record, session)
    exam = _answered(names, store, record.exam, record, session)
    if not len(exam.labels):
        raise LifecycleError(
            f"The exam of {names.model}'s version has no labelled row: nothing can be measured.",
            remedy="Train again once the labels of a later window are known.",
        )
    # A probability has sets and a logistic model; several classes and a number have neither.
    task = names.declaration.task
    sets = simple = None
    if task == "binary_classification":
        sets = _tried(names, "prediction sets", lambda: _conformal(names, calibration, exam))
        simple = _tried(names, "simple model", lambda: _simple(names, store, record, exam))
    tiers = [_figures(TierModel.FULL, full, exam, record, sets, task)]
    fast = _tried(
        names, "int8 tier", lambda: quantised(full, sample(calibration.frame, RANGE_ROWS))
    )
    if fast is not None:
        store.put(fast, ".onnx")
        tiers.append(_figures(TierModel.INT8, fast, exam, record, sets, task))
    package = ServingPackage(
        model=names.model,
        model_digest=model_digest,
        service_digest=record.service_digest,
        features=record.features,
        tiers=tuple(tiers),
        simple=simple,
        conformal=sets,
        exam_windows=record.exam_windows,
    )
    write_package(store, package)
    return package


def version_of(names: Names, version: str | None, stores: "Stores") -> "tuple[str, TrainingSet]":
    """Digest and training set of a registered version; of the live one where none is named.

    Raises:
        PromotionError: There is no live version, or the ledger does not know the one named.
        RegistryError: There is no version of this name.
        ArtifactMissing: Its training set's record is gone.
        DatabaseUnavailable: A store does not answer.
    """
    from aios_platform.components.model_lifecycle.candidates import candidate_of
    from aios_platform.ledger.champions import champion_of

    live = champion_of(stores.database, names.model)
    if version is not None and (live is None or live.version != version):
        candidate = candidate_of(names, version, stores)
        return candidate.model_digest, candidate.training_set
    if live is None:
        raise PromotionError(
            f"{names.model} has no live version.", remedy="Promote one, or name --version."
        )
    return live.model_digest, recall(stores.artifacts, names.model, live.training_set_digest)


def tiers_table(package: ServingPackage) -> str:
    """The tiers and the simple model as Markdown."""
    known = package.tiers[0].metrics
    shown = [name for name in SHOWN if name in known][:2] or ["roc_auc", "log_loss"]
    lines = [
        f"| | {' | '.join(shown)} | largest difference | row, ms | in a batch, us | KiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for tier in package.tiers:
        quality = _quality(tier.metrics, shown)
        lines.append(
            f"| {tier.model} | {quality} | {tier.largest_difference:.4f} | {tier.row_ms:.3f} | "
            f"{tier.batch_row_us:.1f} | {tier.bytes / 1024:,.0f} |"
        )
    if package.simple is not None:
        lines.append(f"| simple | {_quality(package.simple.metrics, shown)} | | | | |")
    return "\n".join(lines)


def sets_line(sets: Conformal) -> str:
    """What the prediction sets promise, and what they keep."""
    negatives, positives = sets.by_class
    return (
        f"{sets.measured:.1%} of {sets.rows:,} rows of {', '.join(sets.measured_on)} have their "
        f"label in the set ({negatives:.1%} of negatives, {positives:.1%} of positives); "
        f"{sets.coverage:.0%} was asked for. {sets.ambiguous:.1%} of sets hold both labels, "
        f"{sets.empty:.1%} none."
    )


def _quality(metrics: dict[str, float], shown: Sequence[str]) -> str:
    return " | ".join(f"{metrics[name]:.4f}" if name in metrics else "" for name in shown)


def _tried(names: Names, what: str, make: Callable[[], T]) -> T | None:
    try:
        return make()
    except AiosError as error:
        logger.warning("%s is served without its %s: %s", names.model, what, error)
        return None


def _answered(
    names: Names,
    store: "ArtifactStore",
    frames: "Sequence[DatasetVersion]",
    record: "TrainingSet",
    session: "Session",
) -> _Rows:
    label = names.declaration.label.column
    frame = labelled_sample(store, frames, record.features.names, label)
    return _Rows(
        frame=frame,
        labels=truth_of(frame[label], names.declaration.answers),
        answers=session.predict(frame),
        windows=tuple(version.key for version in frames),
    )


def _conformal(names: Names, calibration: _Rows, exam: _Rows) -> Conformal:
    from aios_platform.inference.conformal import Answered, conformal_sets

    first, second = (
        Answered(rows.labels, rows.answers, rows.windows) for rows in (calibration, exam)
    )
    return conformal_sets(names.declaration.serving.uncertainty.coverage, first, second)


def _figures(
    model: TierModel,
    onnx: bytes,
    exam: _Rows,
    record: "TrainingSet",
    sets: Conformal | None,
    task: Task,
) -> TierFigures:
    from aios_platform.inference.latency import scoring_seconds
    from aios_platform.inference.session import Session

    answers = exam.answers if model is TierModel.FULL else Session(onnx).predict(exam.frame)
    row, batched = scoring_seconds(onnx, record.features, exam.frame)
    return TierFigures(
        model=model,
        digest=hashlib.sha256(onnx).hexdigest(),
        bytes=len(onnx),
        metrics=_metrics(exam, answers, sets, task),
        row_ms=row * 1000,
        batch_row_us=batched * 1_000_000,
        largest_difference=float(np.abs(answers.astype(np.float64) - exam.answers).max()),
    )


def _metrics(
    exam: _Rows, answers: "NDArray[np.float32]", sets: Conformal | None, task: Task
) -> dict[str, float]:
    """Metrics of answers to the exam; with sets, the share of rows whose label these hold."""
    from aios_platform.inference.conformal import covered_by, prediction_sets
    from aios_platform.metrics import computable, evaluate

    if task == "binary_classification" and (exam.labels.all() or not exam.labels.any()):
        return {}
    values = judged(answers, task)
    found = evaluate(exam.labels, values, computable(exam.labels, values, task=task), task=task)
    if sets is not None:
        found["coverage"] = float(covered_by(prediction_sets(answers, sets), exam.labels).mean())
    return found


def _simple(
    names: Names, store: "ArtifactStore", record: "TrainingSet", exam: _Rows
) -> SimpleModel:
    from aios_platform.inference.session import Session
    from aios_platform.inference.simple import KINDS, fit_simple

    label = names.declaration.label.column
    fields = [f for f in record.features.fields if f.origin == REQUEST and f.kind in KINDS]
    inputs = tuple(field.name for field in fields)
    onnx = fit_simple(labelled_sample(store, record.frames, inputs, label), fields, label)
    answers = Session(onnx).predict(exam.frame)
    digest, _ = store.put(onnx, ".onnx")
    metrics = _metrics(exam, answers, None, names.declaration.task)
    return SimpleModel(digest=digest, inputs=inputs, metrics=metrics)
