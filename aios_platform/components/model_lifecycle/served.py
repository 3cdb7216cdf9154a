"""Served traffic of a window: performance, drift and skew, beside those of the batch predictions.

The functions are those of the batch predictions; the documents are others, and nothing is decided
on them. A window without served traffic has none.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Generic, TypeVar

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.documents import as_json, write_document
from aios_platform.components.model_lifecycle.measuring import estimate_of, slices_in
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.observations import against_training
from aios_platform.components.model_lifecycle.references import Reference, References
from aios_platform.components.model_lifecycle.skew import measure_skew, tell_skew
from aios_platform.contracts.windows import Window
from aios_platform.errors import AiosError

if TYPE_CHECKING:
    import pyarrow as pa
    from feast import FeatureStore

    from aios_platform.database import Database
    from aios_platform.monitoring.drift import DriftReport
    from aios_platform.monitoring.performance import Performance
    from aios_platform.monitoring.served import ServedWindow
    from aios_platform.monitoring.skew import SkewReport

logger = logging.getLogger(__name__)

PERFORMANCE, REVISIONS, DRIFT, SKEW = "performance", "performance_revisions", "drift", "skew"


T = TypeVar("T")


@dataclass(frozen=True)
class DriftAndSkew:
    """What one version served of a window, seen from its inputs.

    Attributes:
        drift: Of every answer, against the version's training rows.
        skew: Against the offline features of the same rows and moments.
    """

    drift: "DriftReport"
    skew: "SkewReport"


@dataclass
class Served(Generic[T]):
    """What was found out about the served traffic of a window.

    Attributes:
        found: Of each version what it answered, and what was found.
        failure: Why no more was found; the batch predictions' figures stand without it.
    """

    found: "list[tuple[ServedWindow, T]]" = field(default_factory=list)
    failure: str = ""


def document(kind: str, version: str) -> str:
    """The kind of document in which something about served traffic is kept."""
    return f"served/{version}/{kind}"


def measure_served(
    names: Names,
    store: ArtifactStore,
    database: "Database",
    window: Window,
    as_of: datetime,
    references: References,
) -> "Served[Performance]":
    """Performance of what each version served of a window, as `measure_window` has the batch's.

    Args:
        names: The model.
        store: The artifact root.
        database: Where the record is.
        window: The window.
        as_of: Labels that became known later are not looked at.
        references: Those of the versions.
    """
    from aios_platform.monitoring.served import predictions_of

    source, label = names.declaration.source, names.declaration.label
    raw = store.require(names.raw_rows, window.key)

    def measured(traffic: "ServedWindow") -> "Performance":
        truth = store.read(raw, [source.row_id, label.column, label.known_at])
        predictions, inputs = predictions_of(traffic, truth, source.row_id, label)
        reference = references.of_version(traffic.version)
        return _measured(
            names, store, window, as_of, reference, predictions, inputs, truth, raw.digest
        )

    return _each(names, store, database, window, measured)


def observe_served(
    names: Names,
    store: ArtifactStore,
    database: "Database",
    window: Window,
    references: References,
    feature_store: "Callable[[], FeatureStore]",
    *,
    now: datetime,
    past: bool,
) -> Served[DriftAndSkew]:
    """Drift and skew of what each version served of a window; a skewed feature is an alert.

    Args:
        names: The model.
        store: The artifact root.
        database: Where the record and the alerts are.
        window: The window.
        references: Those of the versions.
        feature_store: Opens the platform's Feast store.
        now: The lifecycle's clock, aware.
        past: Whether that clock looks at the past: nobody is told of an alert then.
    """

    def observed(traffic: "ServedWindow") -> DriftAndSkew:
        reference = references.of_version(traffic.version)
        drift = against_training(names, reference, window, traffic.inputs, traffic.answers)
        skew = measure_skew(names, store, window, traffic, feature_store())
        write_document(names, store, document(DRIFT, traffic.version), window.key, drift)
        write_document(names, store, document(SKEW, traffic.version), window.key, skew)
        tell_skew(names, database, skew, now, past=past)
        return DriftAndSkew(drift, skew)

    return _each(names, store, database, window, observed)


def _each(
    names: Names,
    store: ArtifactStore,
    database: "Database",
    window: Window,
    look: "Callable[[ServedWindow], T]",
) -> Served[T]:
    """What is found of each version's traffic; a fault in it stops nothing else."""
    result: Served[T] = Served()
    try:
        for traffic in _traffic(names, store, database, window):
            result.found.append((traffic, look(traffic)))
    except AiosError as error:
        logger.warning("Served traffic of %s, %s: %s", names.model, window, error)
        result.failure = str(error)
    return result


def _traffic(
    names: Names, store: ArtifactStore, database: "Database", window: Window
) -> "list[ServedWindow]":
    from aios_platform.monitoring.served import read_served

    source = names.declaration.source
    rows = store.read(
        store.require(names.raw_rows, window.key), [source.row_id, source.prediction_time]
    )
    return read_served(database, names.model, window, rows, source.row_id, source.prediction_time)


def _measured(
    names: Names,
    store: ArtifactStore,
    window: Window,
    as_of: datetime,
    reference: Reference,
    predictions: "pa.Table",
    inputs: "pa.Table",
    truth: "pa.Table",
    truth_digest: str,
) -> "Performance":
    from aios_platform.monitoring.performance import Performance, measure, restate

    version = reference.champion.version
    gate, answers = names.declaration.gate, names.declaration.answers
    revisions = f"observations/{names.model}/{document(REVISIONS, version)}/{window.key}"
    kept = store.names(revisions, ".json")
    content = store.read_named(kept[-1]) if kept else None
    before = Performance.model_validate_json(content) if content else None
    digest = _digest(predictions)
    result = measure(
        model=names.model,
        window=window,
        predictions=predictions,
        truth=truth,
        row_id=names.declaration.source.row_id,
        label=names.declaration.label,
        metric=gate.metric,
        as_of=as_of,
        confidence=gate.confidence,
        slices=slices_in(names, inputs),
        min_slice_rows=gate.min_slice_rows,
        estimate=estimate_of(
            names,
            window.key,
            predictions[answers.columns[0]].to_numpy(),
            digest,
            reference,
            before,
        ),
        predictions_digest=digest,
        truth_digest=truth_digest,
        answers=answers,
        also=gate.named,
    )
    if window.key in reference.training_set.windows:
        result = result.model_copy(update={"trained_on": True})
    if before is not None:
        result = restate(before, result)
    store.write_once(f"{revisions}/{result.revision:06d}.json", as_json(result))
    write_document(names, store, document(PERFORMANCE, version), window.key, result)
    return result


def _digest(predictions: "pa.Table") -> str:
    """SHA-256 (hex) of predictions, by which an estimate knows them again."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, predictions.schema) as writer:
        writer.write_table(predictions.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()
