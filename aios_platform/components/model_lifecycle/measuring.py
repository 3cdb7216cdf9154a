"""Performance of one window: estimated from the scores first, measured by its labels later."""

from datetime import datetime
from typing import TYPE_CHECKING

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.documents import (
    as_json,
    document_keys,
    find_document,
    write_document,
)
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.references import Reference
from aios_platform.contracts.datasets import DatasetVersion
from aios_platform.contracts.policy import Slice
from aios_platform.contracts.windows import Window
from aios_platform.errors import MetricError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from aios_platform.monitoring.estimation import Estimate
    from aios_platform.monitoring.performance import Performance

PERFORMANCE = "performance"


def measure_window(
    names: Names,
    store: ArtifactStore,
    window: Window,
    as_of: datetime,
    reference: Reference | None = None,
) -> "Performance":
    """Performance of the window's current predictions, as the newest revision of what is said.

    A revision is written when anything changed: labels matured, came late, were corrected, or
    another version scored the window. Earlier revisions stay as they were.

    Args:
        names: The model.
        store: The artifact root.
        window: The window.
        as_of: Labels that became known later are not looked at.
        reference: The live version's; without it nothing is estimated.
    """
    from aios_platform.monitoring.performance import measure, restate

    declaration = names.declaration
    source, label, gate = declaration.source, declaration.label, declaration.gate
    answers = declaration.answers
    scored = store.require(names.predictions, window.key)
    raw = store.require(names.raw_rows, window.key)
    before = _newest_revision(names, store, window.key)
    trained_on = reference is not None and window.key in reference.training_set.windows
    truth = store.read(raw, [source.row_id, label.column, label.known_at])
    if (
        before is not None
        and (before.predictions_digest, before.truth_digest, before.trained_on)
        == (scored.digest, raw.digest, trained_on)
        and _told_all(before, truth[label.known_at])
    ):
        write_document(names, store, PERFORMANCE, window.key, before)
        return before
    predictions = store.read(
        scored, [source.row_id, *answers.columns, "model_version", "prediction_time"]
    )
    result = measure(
        model=names.model,
        window=window,
        predictions=predictions,
        truth=truth,
        row_id=source.row_id,
        label=label,
        metric=gate.metric,
        as_of=as_of,
        confidence=gate.confidence,
        slices=_slices(names, store, window.key, scored.rows),
        min_slice_rows=gate.min_slice_rows,
        estimate=estimate_of(
            names,
            window.key,
            predictions[answers.columns[0]].to_numpy(),
            scored.digest,
            reference if _scored_by(scored, reference) else None,
            before,
        ),
        predictions_digest=scored.digest,
        truth_digest=raw.digest,
        answers=answers,
        also=gate.named,
    )
    if trained_on:
        result = result.model_copy(update={"trained_on": True})
    if before is not None:
        result = restate(before, result)
    # First the revision, which counts, then what points to it: after a kill in between, the next
    # call finds the one and mends the other.
    store.write_once(_revision(names, window.key, result.revision), as_json(result))
    write_document(names, store, PERFORMANCE, window.key, result)
    return result


def revisions(names: Names, store: ArtifactStore, key: str) -> "list[Performance]":
    """Everything that was ever said about a window's performance, oldest first."""
    from aios_platform.monitoring.performance import Performance

    contents = (store.read_named(name) for name in _revisions(names, store, key))
    return [Performance.model_validate_json(content) for content in contents if content]


def estimate_record(names: Names, store: ArtifactStore) -> str:
    """How good the estimates have been so far, in a sentence."""
    from aios_platform.monitoring.performance import Performance

    metric = names.declaration.gate.metric
    measured = (
        find_document(names, store, PERFORMANCE, key, Performance)
        for key in document_keys(names, store, PERFORMANCE)
    )
    scores = [
        found.estimate_scores[metric] for found in measured
        if found is not None and metric in found.estimate_scores
    ]  # fmt: skip
    if not scores:
        return "No estimate could be held against labels yet."
    off = sum(abs(score.error) for score in scores) / len(scores)
    inside = sum(score.inside for score in scores)
    return (
        f"{metric} was estimated {off:.4f} off on average over {len(scores)} windows; in {inside} "
        "of them the measured value lay in the estimated interval."
    )


def _told_all(before: "Performance", known_at: "pa.ChunkedArray") -> bool:
    """Whether no label of a measured window has become known since it was measured."""
    import pyarrow.compute as pc

    from aios_platform.known import INSTANT
    from aios_platform.monitoring.performance import PerformanceStatus

    newest = pc.max(known_at.cast(INSTANT)).as_py()
    return before.status is PerformanceStatus.MEASURED and (
        newest is None or newest <= before.as_of
    )


def _newest_revision(names: Names, store: ArtifactStore, key: str) -> "Performance | None":
    from aios_platform.monitoring.performance import Performance

    found = _revisions(names, store, key)
    content = store.read_named(found[-1]) if found else None
    return Performance.model_validate_json(content) if content else None


def _revisions(names: Names, store: ArtifactStore, key: str) -> list[str]:
    return store.names(_revision(names, key, 1).rsplit("/", 1)[0], ".json")


def _revision(names: Names, key: str, revision: int) -> str:
    return f"observations/{names.model}/performance_revisions/{key}/{revision:06d}.json"


def estimate_of(
    names: Names,
    key: str,
    probabilities: "NDArray[np.float32]",
    digest: str,
    reference: Reference | None,
    before: "Performance | None",
) -> "Estimate | None":
    """What was expected of some predictions; made once, before their labels were looked at.

    Of binary classifiers only: a score says how likely one outcome is, and nothing in a mean says
    how far off it will be.

    Args:
        names: The model.
        key: Key of the window.
        probabilities: The predictions, shape (rows,).
        digest: Their digest.
        reference: That of the version that made them; None: unknown.
        before: The newest revision of their performance.
    """
    if names.declaration.task != "binary_classification":
        return None
    from aios_platform.monitoring.estimation import estimate
    from aios_platform.resampling import seed_of

    kept = before.estimate if before is not None else None
    if kept is not None and kept.predictions_digest == digest:
        return kept
    calibration = reference.calibration_without(key) if reference is not None else None
    if reference is None or calibration is None:
        return None
    try:
        return estimate(
            probabilities,
            calibration,
            model_version=reference.champion.version,
            predictions_digest=digest,
            seed=seed_of(digest),
            confidence=names.declaration.gate.confidence,
        )
    except MetricError:
        # Too few predictions: the window then says so itself.
        return None


def slices_in(names: Names, table: "pa.Table") -> "dict[str, NDArray[np.bool_]]":
    """Groups of a table's rows, as the gate slices its exam; the window itself is one anyway."""
    from aios_platform.errors import PromotionError
    from aios_platform.promotion.slices import slices_of

    found: dict[str, NDArray[np.bool_]] = {}
    for each in _sliced(names):
        if each.column not in table.column_names:
            continue
        try:
            groups = slices_of(each, table[each.column].to_numpy()).groups
        except PromotionError:
            continue
        found |= {group.name: group.inside for group in groups}
    return found


def _scored_by(scored: DatasetVersion, reference: Reference | None) -> bool:
    version = scored.inputs.get("model_version")
    return reference is not None and version == reference.champion.version


def _slices(
    names: Names, store: ArtifactStore, key: str, rows: int
) -> "dict[str, NDArray[np.bool_]]":
    frame = store.current(names.frames, key)
    declared = _sliced(names)
    if not declared or frame is None or frame.rows != rows:
        return {}
    columns = list(dict.fromkeys(each.column for each in declared))
    return slices_in(names, store.read(frame, columns))


def _sliced(names: Names) -> list[Slice]:
    return [each for each in names.declaration.gate.slices if each.column != "window"]
