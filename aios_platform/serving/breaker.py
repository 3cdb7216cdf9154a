"""A circuit breaker: a version that keeps failing is left alone for a while.

After Nygard, Release It! (2nd ed. 2018), chapter 5: closed, open, half-open.
"""

import time
from collections.abc import Callable


class CircuitBreaker:
    """Counts failures in a row.

    Args:
        failures: So many in a row open it.
        open_seconds: Until one attempt is let through again.
        clock: Monotonic seconds.
    """

    def __init__(
        self, failures: int, open_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._failed = 0
        self._retry_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it lets nothing through."""
        return self._failed >= self._most

    def allows(self) -> bool:
        """Whether an attempt may be made now; when half-open, only one until it has ended."""
        if self._failed < self._most:
            return True
        now = self._clock()
        if now < self._retry_at:
            return False
        self._retry_at = now + self._open_seconds
        return True

    def succeeded(self) -> None:
        """An attempt succeeded: closed."""
        self._failed = 0

    def failed(self) -> None:
        """An attempt failed."""
        self._failed += 1
        if self._failed >= self._most:
            self._retry_at = self._clock() + self._open_seconds
