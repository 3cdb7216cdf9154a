"""One transaction of the recorder: what is in it, and how it is written once."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, text

from aios_platform.contracts.alerts import plain
from aios_platform.database import Database
from aios_platform.monitoring.served_content import ServedRows, encode, predicted_at

# ValueError: those of Arrow and of Unicode, too. OSError, OverflowError: dates that none is.
_ODD = (ValueError, TypeError, IndexError, OSError, OverflowError)
BLOB_ROWS = 50_000
"""Rows of one stream: what a reader holds at once."""


class Minute(NamedTuple):
    """What a version did since the last one of these; the columns of `serving_minute`.

    Attributes:
        errors: Server errors.
        failures: Those, and requests that another hop answered because it could not.
        slow: Requests answered later than the objective.
        seconds: Sum of latencies.
        prediction: Sum of probabilities.
    """

    model: str
    version: str
    role: Literal["live", "canary", "shadow"]
    requests: int
    errors: int
    slow: int
    rows: int
    seconds: float
    seconds_squared: float
    prediction: float
    prediction_squared: float
    failures: int = 0

    def plus(self, other: "Minute") -> "Minute":
        """Both together; they are of one version in one role."""
        sums = (mine + more for mine, more in zip(self[3:], other[3:], strict=True))
        return Minute(self.model, self.version, self.role, *sums)  # type: ignore[arg-type]


class ShadowPair(NamedTuple):
    """One row as live version and candidate answered it; the columns of `shadow_pair`.

    Attributes:
        candidate: None where it failed.
        failure: Why it failed.
        live_seconds: Time that the live version took.
        seconds: Time that the candidate took.
        served_at: Unix seconds.
    """

    model: str
    rollout: int
    request_id: str
    place: int
    live_version: str
    version: str
    live: float
    candidate: float | None
    failure: str | None
    live_seconds: float
    seconds: float
    served_at: float


class ReviewItem(NamedTuple):
    """A row that a person should look at; the columns of `review_item`.

    Attributes:
        inputs: What the caller sent and what was read for it, by name.
        reason: Why it is here.
    """

    model: str
    version: str
    request_id: str
    place: int
    row_id: str | None
    inputs: Mapping[str, Any]
    probability: float
    reason: str


@dataclass
class Flush:
    """What is written together.

    Attributes:
        recorder: Id of the process that gathered it.
        number: Counts the recorder's transactions.
        minutes: Figures by model, version, role and minute since the epoch.
        pairs: Shadow pairs.
        items: Rows for the review queue.
        batches: Parameters of each row of `served_batch`.
        served: Rows of served traffic by model.
    """

    recorder: str
    number: int
    minutes: Mapping[tuple[str, str, str, int], Minute]
    pairs: Sequence[ShadowPair]
    items: Sequence[ReviewItem]
    batches: list[dict[str, Any]] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)

    @property
    def by_model(self) -> Counter[str]:
        """Rows of any kind, by model."""
        return (
            self.served
            + Counter(pair.model for pair in self.pairs)
            + Counter(item.model for item in self.items)
        )

    @property
    def rows(self) -> int:
        """Rows of any kind."""
        return self.by_model.total()

    def encode(
        self, served: Sequence[ServedRows], shares: Mapping[str, float]
    ) -> list[tuple[str, int, Exception]]:
        """Take served traffic in, a stream per version.

        Args:
            served: Micro-batches of any versions.
            shares: Share of the requests that is recorded, by model.

        Returns:
            What could not be encoded: model, rows, and why.
        """
        failed: list[tuple[str, int, Exception]] = []
        for group in _groups(served):
            share = shares[group[0].model]
            try:
                self._take(group, share)
            except _ODD:
                # What is odd must not cost the others of its second their record.
                for batch in group:
                    try:
                        self._take([batch], share)
                    except _ODD as error:
                        failed.append((batch.model, batch.rows, error))
        return failed

    def _take(self, group: Sequence[ServedRows], share: float) -> None:
        rows = sum(batch.rows for batch in group)
        self.batches.append(_batch(group, rows, share))
        self.served[group[0].model] += rows


def write(database: Database, flush: Flush) -> None:
    """Write one transaction, unless it is there already.

    Raises:
        DatabaseUnavailable: The database does not answer. Whether the transaction is there is not
            known: write it again.
        sqlalchemy.exc.DBAPIError: The database refuses it.
    """
    with database.begin() as connection:
        if connection.execute(
            text(_ENTER), {"id": flush.recorder, "number": flush.number}
        ).one_or_none() is None:  # fmt: skip
            return
        if flush.batches:
            connection.execute(text(_BATCH), flush.batches)
        if flush.minutes:
            connection.execute(text(_MINUTE), _minutes(flush.minutes))
        _write_columns(connection, _PAIR, _pair_columns(flush.pairs))
        _write_columns(connection, _ITEM, _item_columns(flush.items))


def record_one(connection: Connection, served: ServedRows) -> None:
    """Write one request's rows inside the caller's transaction."""
    connection.execute(text(_BATCH), [_batch([served], served.rows, 1.0)])


# A number that is there, or a later one, updates nothing and returns no row.
_ENTER = """
INSERT INTO recorder AS r (id, written) VALUES (:id, :number)
ON CONFLICT (id) DO UPDATE SET written = excluded.written, written_at = clock_timestamp()
WHERE r.written < excluded.written RETURNING id
"""
_BATCH = """
INSERT INTO served_batch (model, version, model_digest, first_served, last_served,
    first_predicted, last_predicted, rows, share, content)
VALUES (:model, :version, :model_digest, :first_served, :last_served,
    :first_predicted, :last_predicted, :rows, :share, :content)
"""
_MINUTE = """
INSERT INTO serving_minute AS m (model, version, role, minute, requests, errors, failures, slow,
    rows, seconds, seconds_squared, prediction, prediction_squared)
VALUES (:model, :version, :role, :minute, :requests, :errors, :failures, :slow, :rows, :seconds,
    :seconds_squared, :prediction, :prediction_squared)
ON CONFLICT (model, minute, version, role) DO UPDATE SET
    requests = m.requests + excluded.requests,
    errors = m.errors + excluded.errors,
    failures = m.failures + excluded.failures,
    slow = m.slow + excluded.slow,
    rows = m.rows + excluded.rows,
    seconds = m.seconds + excluded.seconds,
    seconds_squared = m.seconds_squared + excluded.seconds_squared,
    prediction = m.prediction + excluded.prediction,
    prediction_squared = m.prediction_squared + excluded.prediction_squared
"""
_PAIR = """
INSERT INTO shadow_pair (model, rollout, request_id, place, live_version, version, live, candidate,
    failure, live_seconds, seconds, served_at)
SELECT * FROM unnest(CAST(:model AS text[]), CAST(:rollout AS integer[]),
    CAST(:request_id AS text[]), CAST(:place AS integer[]), CAST(:live_version AS text[]),
    CAST(:version AS text[]), CAST(:live AS real[]), CAST(:candidate AS real[]),
    CAST(:failure AS text[]), CAST(:live_seconds AS real[]), CAST(:seconds AS real[]),
    CAST(:served_at AS timestamptz[]))
"""
_ITEM = """
INSERT INTO review_item (model, version, request_id, place, row_id, inputs, probability, reason)
SELECT * FROM unnest(CAST(:model AS text[]), CAST(:version AS text[]), CAST(:request_id AS text[]),
    CAST(:place AS integer[]), CAST(:row_id AS text[]), CAST(:inputs AS jsonb[]),
    CAST(:probability AS real[]), CAST(:reason AS text[]))
"""


def _groups(served: Iterable[ServedRows]) -> Iterator[list[ServedRows]]:
    """Micro-batches of one version each, of at most `BLOB_ROWS` rows unless one alone has more."""
    by_version: dict[tuple[str, str, str], list[ServedRows]] = {}
    for batch in served:
        key = (batch.model, batch.version, batch.model_digest)
        by_version.setdefault(key, []).append(batch)
    for batches in by_version.values():
        group: list[ServedRows] = []
        rows = 0
        for batch in batches:
            if group and rows + batch.rows > BLOB_ROWS:
                yield group
                group, rows = [], 0
            group.append(batch)
            rows += batch.rows
        yield group


def _batch(group: Sequence[ServedRows], rows: int, share: float) -> dict[str, Any]:
    first = group[0]
    served = [batch.served_at for batch in group]
    predicted = predicted_at(group)
    return {
        "model": first.model,
        "version": first.version,
        "model_digest": first.model_digest,
        "first_served": _instant(min(served)),
        "last_served": _instant(max(served)),
        "first_predicted": _instant(float(predicted.min())),
        "last_predicted": _instant(float(predicted.max())),
        "rows": rows,
        "share": share,
        "content": encode(group),
    }


def _minutes(minutes: Mapping[tuple[str, str, str, int], Minute]) -> list[dict[str, Any]]:
    # Sorted, so that two processes cannot wait for each other's rows.
    return [
        {**minutes[key]._asdict(), "minute": _instant(60.0 * key[-1])} for key in sorted(minutes)
    ]


def _write_columns(
    connection: Connection, statement: str, columns: Mapping[str, list[Any]]
) -> None:
    if columns["model"]:
        connection.execute(text(statement), columns)


def _pair_columns(pairs: Sequence[ShadowPair]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        name: [plain(getattr(pair, name)) for pair in pairs]
        for name in ("model", "request_id", "live_version", "version", "failure")
    }
    for name in ("rollout", "place", "live", "candidate", "live_seconds", "seconds"):
        columns[name] = [getattr(pair, name) for pair in pairs]
    columns["served_at"] = [_instant(pair.served_at) for pair in pairs]
    return columns


def _item_columns(items: Sequence[ReviewItem]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        name: [plain(getattr(item, name)) for item in items]
        for name in ("model", "version", "request_id", "row_id", "reason")
    }
    columns["place"] = [item.place for item in items]
    columns["probability"] = [item.probability for item in items]
    columns["inputs"] = [json.dumps(plain(dict(item.inputs))) for item in items]
    return columns


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
