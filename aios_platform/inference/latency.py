"""What one answer costs: models timed on the same rows, in one process, in turn."""

import gc
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aios_platform.errors import ScoringError
from aios_platform.inference.session import Session

WARM_UP_ROWS = 20


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
