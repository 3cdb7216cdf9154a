"""One request on its way through the gateway."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aios_platform.errors import RequestRefused
from aios_platform.serving.contract import InputContract, Row
from aios_platform.serving.problems import traced

logger = logging.getLogger(__name__)

FIRST_MOMENT = datetime(1, 1, 1, tzinfo=UTC).timestamp()
LAST_MOMENT = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


class Work:
    """Rows of one request, and what became of them.

    Args:
        request_id: Names the request in replies, logs and records.
        contract: The contract that its rows are in; rows themselves are those of the newest.
        rows: The rows; None where `frame` has everything that the model takes.
        frame: The model's whole input: matrix (rows, numericals) float32, texts per categorical.
        moments: Prediction times, shape (rows,), Unix seconds.
        ids: Names of the rows, where the caller sent them.
        arrived: When the request came, monotonic seconds.
        deadline: When its answer is of no use any more, monotonic seconds.
        done: Called once, on the event loop, when there are answers or an error.
    """

    __slots__ = (
        "ages", "arrived", "contract", "count", "deadline", "done", "ended", "error", "failed",
        "frame", "ids", "leave", "moments", "parts", "places", "probabilities", "recorded", "reply",
        "request_id", "role", "rows", "served", "served_by", "sets", "single", "sources", "stages",
        "taken", "tiers", "unsure", "version", "versions",
    )  # fmt: skip

    def __init__(
        self,
        request_id: str,
        contract: InputContract,
        rows: list[Row] | None,
        frame: tuple[NDArray[np.float32], list[list[str]]] | None,
        moments: NDArray[np.float64],
        ids: Sequence[str | None],
        arrived: float,
        deadline: float,
        done: Callable[["Work"], None],
        *,
        single: bool = False,
        tiers: tuple[int, ...] | None = None,
    ) -> None:
        self.request_id = request_id
        self.contract = contract
        self.rows = rows
        self.frame = frame
        self.moments = moments
        self.ids = ids
        self.count = len(moments)
        self.arrived = arrived
        self.deadline = deadline
        self.done = done
        self.single = single
        self.places: Sequence[int] = range(self.count)
        """Places of its rows in the caller's request."""
        self.parts: Sequence[Work] = ()
        """What several versions answer of it; empty: one answers all."""
        self.tiers = tiers
        """Places of the tiers that may answer; None: all."""
        self.ended = False
        """Whether whoever waits was told."""
        self.taken = arrived
        """When its batch began, monotonic seconds."""
        self.stages: Sequence[tuple[str, float, float]] = ()
        """What was done when: name, begin, end, monotonic seconds."""
        self.error: BaseException | None = None
        self.version: Any = None
        """The version that was asked (`ServedVersion`)."""
        self.role = "live"
        self.served_by: Any = None
        """The version that answered: the one that was asked, or an earlier one."""
        self.failed = False
        """Whether the version that was asked could not answer, and another hop did, or none."""
        self.probabilities: NDArray[np.float32] = _NONE
        self.sources: Sequence[str] = ()
        self.ages: NDArray[np.float64] | None = None
        """Age of the oldest feature of each row, seconds; NaN: no stored feature. None: the model
        has none."""
        self.sets: NDArray[np.uint8] | None = None
        """Prediction sets: bit 0 negative, bit 1 positive. None: not known for the version."""
        self.unsure: NDArray[np.bool_] | None = None
        """Rows on which the model abstains."""
        self.versions: Sequence[str] | None = None
        """Version of each row, where they are not all of one."""
        self.recorded = True
        """Whether it goes into the record of served traffic with others."""
        self.served: Sequence[Any] = ()
        """Its own record (`ServedRows` of each version), where it does not."""
        self.leave: Callable[[Work], None] | None = None
        """Called when it ends, before anybody is told: it does not wait in a queue any more."""
        self.reply: Any = None
        """Where the answer goes; the gateway's own."""

    def end(self, error: BaseException | None = None) -> None:
        """Tell whoever waits that it is over, once; never raises.

        Args:
            error: Why there is no answer; None: there is one, or the reason is set already.
        """
        if self.ended:
            return
        self.ended = True
        # Before the caller hears of it: what it asks next is not to find its own rows here.
        if self.leave is not None:
            self.leave(self)
        self.error = error or self.error
        try:
            self.done(self)
        except Exception as failure:
            logger.error("Request %s was not told its end: %s", self.request_id, traced(failure))


_NONE = np.empty(0, dtype=np.float32)


def moments_of(rows: Sequence[Row], place: int | None, now: float) -> NDArray[np.float64]:
    """Prediction times of rows, Unix seconds; `now` where none was sent.

    Raises:
        RequestRefused: One has no date in UTC.
    """
    if place is None:
        return np.full(len(rows), now)
    if len(rows) == 1 and rows[0][place] is None:
        return np.array((now,))
    moments = [now if row[place] is None else _seconds(row[place]) for row in rows]
    check_moments(min(moments), max(moments))
    return np.array(moments, dtype=np.float64)


def check_moments(first: float, last: float) -> None:
    """Refuse prediction times, Unix seconds, that no table of ours can hold.

    Raises:
        RequestRefused: One is.
    """
    if not (first >= FIRST_MOMENT and last <= LAST_MOMENT):
        raise RequestRefused(
            "A prediction time lies beyond the years 1 to 9999 (UTC).", code="invalid_input"
        )


def _seconds(moment: datetime) -> float:
    return moment.timestamp()
