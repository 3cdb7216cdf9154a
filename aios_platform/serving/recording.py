"""Records what was served: rows, figures per minute, shadow pairs, the review queue.

The event loop only appends to lists; a thread writes them, one transaction at a time. While the
database is away everything waits, up to a bound; what does not fit is counted as lost, logged and
told in an alert. A transaction that ended unseen is written again under its number, and once only.
"""

import hashlib
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from aios_platform.contracts.alerts import Alert, AlertKind, Severity
from aios_platform.database import Database
from aios_platform.errors import DatabaseUnavailable
from aios_platform.monitoring.served_content import ServedRows
from aios_platform.serving.flushes import Flush, Minute, ReviewItem, ShadowPair, write

__all__ = ["Minute", "Recorder", "ReviewItem", "ServedRows", "ShadowPair"]

logger = logging.getLogger(__name__)

TELL_SECONDS = 60.0
HANGING_SECONDS = 5.0
"""A transaction that takes longer counts as a database that does not answer."""


class Recorder:
    """Takes records on the event loop and writes them from a thread of its own.

    Args:
        database: Where they go.
        buffer_rows: Rows (of traffic, shadow pairs, review items) that may wait.
        flush_seconds: How often they are written.
        share: Share of a model's requests that is recorded, by the model's name; default all.

    Attributes:
        written: Rows of served traffic written, by model.
        lost: Rows lost, by model: no room, never writable, or unwritten when the process ended.
    """

    def __init__(
        self,
        database: Database,
        *,
        buffer_rows: int = 100_000,
        flush_seconds: float = 1.0,
        share: Callable[[str], float] | None = None,
    ) -> None:
        self.written: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self._database = database
        self._buffer_rows = buffer_rows
        self._flush_seconds = flush_seconds
        self._share = share or (lambda _: 1.0)
        self._lock = threading.Lock()
        self._waiting = 0
        self._served: list[ServedRows] = []
        self._minutes: dict[tuple[str, str, str, int], Minute] = {}
        self._pairs: list[ShadowPair] = []
        self._items: list[ReviewItem] = []
        self._id = uuid.uuid4().hex
        self._flushes = 0
        self._flush: Flush | None = None
        self._answered = True
        self._writing_since: float | None = None
        self._told: Counter[str] = Counter()
        self._log_after = self._alert_after = 0.0
        self._closing = threading.Event()
        self._give_up_at = float("inf")
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    @property
    def reachable(self) -> bool:
        """Whether the database took what it was last given, or is about to."""
        since = self._writing_since
        hangs = since is not None and time.monotonic() - since > HANGING_SECONDS
        return self._answered and not hangs

    def offer(self, served: ServedRows) -> None:
        """Record a micro-batch; never waits, never raises."""
        rows = len(served.request_ids)
        with self._lock:
            if self._has_room(served.model, rows):
                self._served.append(served)

    def count(self, minute: Minute) -> None:
        """Add to the figures of this minute."""
        now = int(time.time() // 60)
        key = (minute.model, minute.version, minute.role, now)
        with self._lock:
            before = self._minutes.get(key)
            self._minutes[key] = minute if before is None else before.plus(minute)

    def pair(self, pair: ShadowPair) -> None:
        """Record what a shadow answered beside the live version."""
        with self._lock:
            if self._has_room(pair.model, 1):
                self._pairs.append(pair)

    def review(self, item: ReviewItem) -> None:
        """Put a row on the review queue."""
        with self._lock:
            if self._has_room(item.model, 1):
                self._items.append(item)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Write what waits, for at most this long (seconds); what is left then is lost."""
        self._give_up_at = time.monotonic() + timeout
        self._closing.set()
        if self._thread.ident is None:
            self._write()
        else:
            self._thread.join(timeout)
        self._lose_the_rest()

    def _has_room(self, model: str, rows: int) -> bool:
        """Whether rows fit, which takes the room; counts them as lost otherwise."""
        if self._waiting + rows > self._buffer_rows:
            self.lost[model] += rows
            return False
        self._waiting += rows
        return True

    def _run(self) -> None:
        while not self._closing.wait(self._flush_seconds):
            self._write()
        while not self._write() and time.monotonic() < self._give_up_at:
            time.sleep(min(self._flush_seconds, 0.2))

    def _write(self) -> bool:
        """Write what waits; whether nothing waits any more."""
        self._writing_since = time.monotonic()
        try:
            flush = self._flush or self._next_flush()
            if flush is not None:
                # Kept as it is until it is written or known to be there: its number counts.
                self._flush = flush
                write(self._database, flush)
                self._settle(flush, written=True)
            if not self._answered:
                logger.info("Records are written again.")
            self._answered = True
        except (DatabaseUnavailable, DBAPIError) as error:
            if self._flush is None or not _never(error):
                if self._answered:
                    logger.warning("Records wait, %d rows so far: %s", self._waiting, error)
                self._answered = False
                self._tell(reachable=False)
                return False
            self._spoilt(self._flush, error)
        except Exception as error:
            if self._flush is not None:
                self._spoilt(self._flush, error)
            else:
                logger.exception("Records cannot be taken from the buffer.")
        finally:
            self._writing_since = None
        self._tell(reachable=True)
        return not (self._waiting or self._minutes)

    def _next_flush(self) -> Flush | None:
        with self._lock:
            served, self._served = self._served, []
            minutes, self._minutes = self._minutes, {}
            pairs, self._pairs = self._pairs, []
            items, self._items = self._items, []
        taken = [kept for batch in served if (kept := self._sampled(batch)) is not None]
        left_out = sum(batch.rows for batch in served) - sum(batch.rows for batch in taken)
        with self._lock:
            self._waiting -= left_out
        if not (taken or minutes or pairs or items):
            return None
        self._flushes += 1
        flush = Flush(self._id, self._flushes, minutes, pairs, items)
        shares = {batch.model: self._share(batch.model) for batch in taken}
        for model, rows, error in flush.encode(taken, shares):
            logger.error("%d rows of %s cannot be recorded: %s", rows, model, error)
            with self._lock:
                self.lost[model] += rows
                self._waiting -= rows
        return flush

    def _sampled(self, served: ServedRows) -> ServedRows | None:
        """The rows whose request is recorded: all of a request or none, in every process."""
        share = self._share(served.model)
        if share >= 1:
            return served
        kept = [place for place, name in enumerate(served.request_ids) if _chance(name) < share]
        if len(kept) in (0, served.rows):
            return served if kept else None
        return served._replace(
            request_ids=[served.request_ids[place] for place in kept],
            places=[served.places[place] for place in kept],
            row_ids=[served.row_ids[place] for place in kept],
            moments=served.moments[kept],
            matrix=served.matrix[kept],
            texts=tuple([values[place] for place in kept] for values in served.texts),
            probabilities=served.probabilities[kept],
            sources=[served.sources[place] for place in kept],
        )

    def _spoilt(self, flush: Flush, error: Exception) -> None:
        logger.error("%d rows cannot be recorded, and are lost: %s", flush.rows, error)
        self._settle(flush, written=False)

    def _settle(self, flush: Flush, *, written: bool) -> None:
        with self._lock:
            self._waiting -= flush.rows
            if written:
                self.written.update(flush.served)
            else:
                self.lost.update(flush.by_model)
        self._flush = None

    def _lose_the_rest(self) -> None:
        with self._lock:
            rest = Counter({batch.model: 0 for batch in self._served})
            for batch in self._served:
                rest[batch.model] += batch.rows
            rest.update(pair.model for pair in self._pairs)
            rest.update(item.model for item in self._items)
            if self._flush is not None:
                rest.update(self._flush.by_model)
            self.lost.update(rest)
            self._served, self._pairs, self._items = [], [], []
        if rest.total():
            logger.error("%d rows were not recorded before the end, and are lost.", rest.total())

    def _tell(self, *, reachable: bool) -> None:
        """Say at most once a minute what was lost; in an alert, too, once the database is there."""
        now = time.monotonic()
        with self._lock:
            news = self.lost - self._told
        if news and now >= self._log_after:
            self._log_after = now + TELL_SECONDS
            for model, rows in news.items():
                logger.error("%d rows served by %s were not recorded.", rows, model)
        if news and reachable and now >= self._alert_after:
            self._alert_after = now + TELL_SECONDS
            for model, rows in news.items():
                self._alarm(model, rows)

    def _alarm(self, model: str, rows: int) -> None:
        from aios_platform.alerts.outbox import raise_alert

        alert = Alert(
            kind=AlertKind.RECORDS_LOST,
            subject=model,
            key=f"{AlertKind.RECORDS_LOST}:{model}",
            severity=Severity.WARNING,
            summary=f"{rows:,} rows served by {model} were not recorded.",
            evidence={"rows": rows, "lost_by_this_process": self._told[model] + rows},
            raised_at=datetime.now(UTC),
        )
        try:
            raise_alert(self._database, alert)
        except (DatabaseUnavailable, DBAPIError) as error:
            logger.warning("Not told in an alert yet: %s", error)
        else:
            self._told[model] += rows


def _chance(request_id: str) -> float:
    """A number in [0, 1) that is the same for the same request, everywhere."""
    digest = hashlib.blake2b(request_id.encode("utf-8", "backslashreplace"), digest_size=8)
    return int.from_bytes(digest.digest()) / 2**64


def _never(error: Exception) -> bool:
    """Whether trying again cannot help: the values themselves do not fit."""
    return isinstance(error, DataError | IntegrityError)
