"""Reads what the gateways answered, for whoever decides on a rollout."""

from datetime import datetime

from sqlalchemy import text

from aios_platform.contracts.rollouts import Pairs, Sample, Traffic
from aios_platform.database import Database

_MINUTES = """
SELECT coalesce(sum(requests), 0) AS requests,
    coalesce(sum(greatest(errors, failures)), 0) AS errors,
    coalesce(sum(rows), 0) AS rows, coalesce(sum(seconds), 0) AS seconds,
    coalesce(sum(seconds_squared), 0) AS seconds_squared,
    coalesce(sum(prediction), 0) AS prediction,
    coalesce(sum(prediction_squared), 0) AS prediction_squared
FROM serving_minute
WHERE model = :model AND version = :version AND role = :role
    AND minute >= date_trunc('minute', CAST(:since AS timestamptz))
    AND minute < coalesce(CAST(:until AS timestamptz), 'infinity')
"""
_PAIRS = """
SELECT count(*) AS rows, count(*) FILTER (WHERE candidate IS NULL) AS failures,
    count(candidate) AS answered,
    coalesce(sum(excess) FILTER (WHERE candidate IS NOT NULL), 0) AS excess,
    coalesce(sum(excess * excess) FILTER (WHERE candidate IS NOT NULL), 0) AS excess_squared,
    coalesce(sum(difference), 0) AS difference,
    coalesce(sum(difference * difference), 0) AS difference_squared
FROM (
    SELECT candidate,
        CAST(seconds AS double precision) - :ratio * CAST(live_seconds AS double precision)
            AS excess,
        CAST(candidate AS double precision) - CAST(live AS double precision) AS difference
    FROM shadow_pair WHERE model = :model AND rollout = :number AND version = :version
) AS pair
"""


def traffic_of(
    database: Database,
    model: str,
    version: str,
    role: str,
    since: datetime,
    until: datetime | None = None,
) -> Traffic:
    """What one version answered in one role, in the minutes from one moment to another.

    Args:
        database: Where the gateways write it.
        model: Name of the model.
        version: Registered version.
        role: 'live', 'canary' or 'shadow'.
        since: Aware; the minute it lies in counts whole.
        until: Aware; minutes that begin before it count. None: to now.

    Raises:
        DatabaseUnavailable: It cannot be read.
    """
    values = {
        "model": model,
        "version": version,
        "role": role,
        "since": since,
        "until": until,
    }
    with database.begin() as connection:
        row = connection.execute(text(_MINUTES), values).one()
    requests, rows = int(row.requests), int(row.rows)
    return Traffic(
        requests=requests,
        errors=int(row.errors),
        latency=Sample(count=requests, total=row.seconds, squares=row.seconds_squared),
        prediction=Sample(count=rows, total=row.prediction, squares=row.prediction_squared),
    )


def pairs_of(database: Database, model: str, number: int, version: str, ratio: float) -> Pairs:
    """What a shadow answered beside the live version.

    Args:
        database: Where the gateways write it.
        model: Name of the model.
        number: The rollout's.
        version: The candidate's.
        ratio: Multiple of the live version's time that the candidate may take.

    Raises:
        DatabaseUnavailable: It cannot be read.
    """
    values = {"model": model, "number": number, "version": version, "ratio": ratio}
    with database.begin() as connection:
        row = connection.execute(text(_PAIRS), values).one()
    answered = int(row.answered)
    return Pairs(
        rows=int(row.rows),
        failures=int(row.failures),
        excess=Sample(count=answered, total=row.excess, squares=row.excess_squared),
        difference=Sample(count=answered, total=row.difference, squares=row.difference_squared),
    )
