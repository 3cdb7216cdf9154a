"""What one answer costs: models timed on the same rows, in one process, in turn."""

import gc
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.errors import ScoringError
from aios_platform.inference.packed import NUMERICAL, packed
from aios_platform.inference.session import Session, open_session

WARM_UP_ROWS = 20
TIMED_BATCH = 64
WARM_UP_TURNS, TIMED_TURNS = 5, 50


def alternating_p95(
    sessions: Sequence[Session], rows: pa.Table, *, repeats: int = 300
) -> list[float]:
    """95th percentile of the time that one row takes, for each of several models.

    The models take turns on each row, and who begins changes with the row, so that whatever else
    the machine does, and whatever the last answer left in its caches, meets all of them alike.
    Time is that of the processor for this thread, which does all the work (a session has one
    thread unless told otherwise): on a busy machine the wall clock mostly tells who else waits for
    a core, and would reject a model for it. Garbage is not collected meanwhile. Each row is
    converted from Arrow inside the time taken, as in production.

    Args:
        sessions: The models.
        rows: Rows to take singly; they are repeated where there are fewer than `repeats`.
        repeats: Rows timed per model, after a warm-up of 20.

    Returns:
        Milliseconds, in order of the sessions.

    Raises:
        ScoringError: There is no row, or a model cannot score one.
    """
    if not sessions or not rows.num_rows or repeats < 1:
        raise ScoringError(
            f"Latency of {len(sessions)} models cannot be measured on {rows.num_rows:,} rows.",
            remedy="Give at least one model and one row of the exam.",
        )
    singles = [rows.slice(place, 1) for place in range(min(repeats, rows.num_rows))]
    for place in range(WARM_UP_ROWS):
        for session in sessions:
            session.predict(singles[place % len(singles)])
    collecting = gc.isenabled()
    gc.disable()
    try:
        seconds = _timed(sessions, singles, repeats)
    finally:
        if collecting:
            gc.enable()
    return [float(p95) for p95 in np.quantile(seconds, 0.95, axis=1) * 1000]


def scoring_seconds(onnx: bytes, features: FeatureSchema, rows: pa.Table) -> tuple[float, float]:
    """Median time per row, of one row by itself and in a batch of 64.

    Seconds of this thread's processor time, of which a busy machine takes nothing away. The
    inputs lie ready, as a matrix and columns of strings: reading a request or a store is not in it.
    Garbage is not collected meanwhile.

    Args:
        onnx: The model.
        features: Its inputs.
        rows: Rows to take; the first 64, repeated where there are fewer.

    Raises:
        ScoringError: There is no row, or the model cannot be run.
    """
    if not rows.num_rows:
        raise ScoringError("No row to time a model on.", remedy="Give rows of the exam.")
    session = open_session(packed(onnx, features), 1)
    whole = _packed_feeds(onnx, features, rows.slice(0, TIMED_BATCH))
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _median(session, whole, 1), _median(session, whole, TIMED_BATCH) / TIMED_BATCH
    finally:
        if collecting:
            gc.enable()


def _timed(
    sessions: Sequence[Session], singles: Sequence[pa.Table], repeats: int
) -> NDArray[np.float64]:
    """Seconds, shape (sessions, repeats)."""
    count = len(sessions)
    seconds = np.empty((count, repeats))
    for place in range(repeats):
        row = singles[place % len(singles)]
        for turn in range(count):
            which = (turn + place) % count
            start = time.thread_time()
            sessions[which].predict(row)
            seconds[which, place] = time.thread_time() - start
    return seconds


def _packed_feeds(onnx: bytes, features: FeatureSchema, rows: pa.Table) -> dict[str, NDArray[Any]]:
    columns = Session(onnx).feeds(rows)
    feeds: dict[str, NDArray[Any]] = {
        name: values for name, values in columns.items() if name not in features.numerical
    }
    if features.numerical:
        feeds[NUMERICAL] = np.hstack([columns[name] for name in features.numerical])
    return feeds


def _median(session: Any, whole: dict[str, NDArray[Any]], rows: int) -> float:
    seconds = []
    for turn in range(WARM_UP_TURNS + TIMED_TURNS):
        # Repeated where there are fewer rows than a batch has.
        places = (np.arange(rows) + turn) % len(next(iter(whole.values())))
        feeds = {name: values[places] for name, values in whole.items()}
        start = time.thread_time()
        session.run(None, feeds)
        seconds.append(time.thread_time() - start)
    return float(np.median(seconds[WARM_UP_TURNS:]))
