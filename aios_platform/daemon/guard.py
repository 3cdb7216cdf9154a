"""The guard beside the daemon: without its lock, or after a step of its clock, it starts anew.

To start anew is to replace the process by a fresh one at once. Nothing winds down: whatever a
daemon was doing can be cut off at any point, and one without its lock must do nothing more.
"""

import logging
import threading
import time
from collections.abc import Callable

from aios_platform.daemon.clock import Clock

logger = logging.getLogger(__name__)

PULSE_SECONDS = 1.0
# A server that does not answer for so long may have given the lock to another daemon.
SILENCE_SECONDS = 15.0


class Guard:
    """Watches the daemon's lock and clock from two threads of its own.

    Args:
        still_held: Asks the server whether the lock's connection lives; may block.
        clock: The clock to watch.
        stepped: Called with the seconds of a step back, before starting anew.
        start_anew: Called with the reason; does not return.
    """

    def __init__(
        self,
        still_held: Callable[[], bool],
        clock: Clock,
        stepped: Callable[[float], None],
        start_anew: Callable[[str], None],
    ) -> None:
        self._still_held = still_held
        self._clock = clock
        self._stepped = stepped
        self._start_anew = start_anew
        self._beat = time.monotonic()
        self._lost = threading.Event()
        self._over = threading.Event()

    def start(self) -> None:
        """Begin to watch."""
        for target in (self._ask, self._look):
            threading.Thread(target=target, name="daemon guard", daemon=True).start()

    def stop(self) -> None:
        """End watching: the daemon ends in order."""
        self._over.set()

    def lost(self) -> bool:
        """Whether the lock is gone; waits for the answer of a server that has just gone away."""
        return self._lost.wait(2 * PULSE_SECONDS)

    def _ask(self) -> None:
        while not self._over.wait(PULSE_SECONDS):
            if not self._still_held():
                self._lost.set()
                return
            self._beat = time.monotonic()

    def _look(self) -> None:
        # Two threads, because the question may hang with a network that swallows everything.
        while not self._over.wait(PULSE_SECONDS):
            reason = self._reason()
            if reason is not None and not self._over.is_set():
                self._start_anew(reason)
                return

    def _reason(self) -> str | None:
        step = self._clock.stepped_back()
        if step:
            self._stepped(step)
            return f"the clock was set back by {step:.0f} s"
        if self._lost.is_set():
            return "its lock was lost with its connection to Postgres"
        if time.monotonic() - self._beat > SILENCE_SECONDS:
            return f"Postgres has not answered for {SILENCE_SECONDS:.0f} s"
        return None
