"""Measures what the gate asks about a candidate besides its answers to the exam.

A measurement that cannot be made is left out, and the gate then calls its rule unknown. Only a
database that does not answer is an error: then nothing can be decided at all.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from aios_platform.components.model_lifecycle.handoff import Candidate
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.references import training_bins
from aios_platform.components.model_lifecycle.state import featured_keys
from aios_platform.contracts.datasets import DatasetVersion
from aios_platform.contracts.evidence import Evidence, OnlineParity, Operation
from aios_platform.errors import AiosError, DatabaseUnavailable

if TYPE_CHECKING:
    import pyarrow as pa

    from aios_platform.artifacts import ArtifactStore
    from aios_platform.inference.session import Session
    from aios_platform.resources.stores import Stores

logger = logging.getLogger(__name__)

LATENCY_ROWS = 300
MOST_SHARED = 20
T = TypeVar("T")


def collect(
    names: Names,
    candidate: Candidate,
    stores: "Stores",
    *,
    frame: "pa.Table | None",
    exam: Sequence[DatasetVersion],
    session: "Session | None",
    champion_session: "Session | None",
) -> Evidence:
    """Everything measured about a candidate that the gate has a rule for.

    Args:
        names: The model.
        candidate: The candidate.
        stores: Where everything is.
        frame: The exam's labelled rows; None: there is no exam.
        exam: The stored windows of the exam.
        session: The candidate, loaded; None if it could not be.
        champion_session: The champion, loaded; None if there is none or it could not be.

    Raises:
        DatabaseUnavailable: Postgres does not answer.
    """
    store = stores.artifacts
    sessions = [s for s in (session, champion_session) if s is not None]
    latencies = _tried("latency", lambda: _latencies(sessions, frame)) or []
    measured = {
        id(each): Operation(latency_p95_ms=latency, size_bytes=len(store.get(each.digest, ".onnx")))
        for each, latency in zip(sessions, latencies, strict=False)
    }
    return Evidence(
        candidate=measured.get(id(session)),
        champion=measured.get(id(champion_session)),
        onnx_parity=candidate.onnx_parity,
        online_parity=_tried("online parity", lambda: _parity(names, stores)),
        provenance_missing=_tried(
            "provenance",
            lambda: stores.registry.missing_provenance(names.model, candidate.version),
        ),
        exam_drift=_tried("drift of the exam", lambda: _drift(names, candidate, store, frame)),
        leakage_cells=candidate.training_set.cells_replayed,
        nothing_joined=candidate.training_set.nothing_joined,
        shared_rows=_tried("shared rows", lambda: _shared(names, candidate, store, exam)),
        sampled=candidate.training_set.sample is not None,
    )


def _tried(what: str, measure: Callable[[], T]) -> T | None:
    try:
        return measure()
    except DatabaseUnavailable:
        raise
    except AiosError as error:
        logger.warning("The gate's evidence lacks the %s: %s", what, error)
        return None


def _parity(names: Names, stores: "Stores") -> OnlineParity:
    from aios_platform.features.materialize import materialize
    from aios_platform.features.parity import online_parity

    declaration, store = names.declaration, stores.artifacts
    # What a killed run left out of the online store is made up for: a store that is behind would
    # say nothing about the features. What is there is passed over.
    windows = [declaration.windows.window(key) for key in sorted(featured_keys(names, store))]
    materialize(declaration, windows, store, stores.features)
    return online_parity(declaration, store, stores.features)


def _latencies(sessions: "Sequence[Session]", frame: "pa.Table | None") -> list[float]:
    from aios_platform.inference.latency import alternating_p95

    if frame is None:
        return []
    return alternating_p95(sessions, frame.slice(0, LATENCY_ROWS), repeats=LATENCY_ROWS)


def _drift(
    names: Names, candidate: Candidate, store: "ArtifactStore", frame: "pa.Table | None"
) -> dict[str, float] | None:
    from aios_platform.monitoring.psi import counts_of, psi
    from aios_platform.monitoring.statistics import measured_column

    if frame is None:
        return None
    import numpy as np

    bins = training_bins(store, names.model, candidate.training_set)
    return {
        column.name: psi(
            np.asarray(column.counts), counts_of(column, measured_column(frame, column.name))
        )
        for column in bins.columns
    }


def _shared(
    names: Names, candidate: Candidate, store: "ArtifactStore", exam: Sequence[DatasetVersion]
) -> tuple[str, ...] | None:
    """Ids of exam rows that are among the training rows."""
    import pyarrow.compute as pc

    if not exam:
        return None
    row_id = names.declaration.source.row_id
    trained = store.scan(candidate.training_set.frames).to_table(columns=[row_id])[row_id]
    asked = store.scan(exam).to_table(columns=[row_id])[row_id]
    found = asked.filter(pc.is_in(asked, value_set=trained.combine_chunks()))
    return tuple(str(name) for name in found.slice(0, MOST_SHARED).to_pylist())
