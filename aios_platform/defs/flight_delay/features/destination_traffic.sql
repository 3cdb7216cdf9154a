-- How departures to a destination are going: a ground stop there shows here.
-- A flight is overdue from its scheduled departure until it departs, four hours at most: most of
-- those that are later still were cancelled, and nothing says when that became known.
WITH events AS (
    SELECT
        destination,
        scheduled_at AS event_timestamp,
        0 AS departed,
        0 AS late,
        CASE WHEN departed_at <= scheduled_at THEN 0 ELSE 1 END AS overdue
    FROM flights
    UNION ALL
    SELECT
        destination, departed_at, 1, (departure_delay > 15)::INT,
        CASE
            WHEN departed_at > scheduled_at AND departed_at < scheduled_at + INTERVAL 4 HOURS
            THEN -1 ELSE 0
        END
    FROM flights
    WHERE departed_at IS NOT NULL
    UNION ALL
    SELECT
        destination, scheduled_at + INTERVAL 4 HOURS, 0, 0,
        CASE WHEN departed_at < scheduled_at + INTERVAL 4 HOURS THEN 0 ELSE -1 END
    FROM flights
),
moments AS (
    SELECT
        destination,
        event_timestamp,
        sum(departed) AS departed,
        sum(late) AS late,
        sum(overdue) AS overdue
    FROM events
    GROUP BY ALL
)
SELECT
    destination,
    event_timestamp,
    event_timestamp AS created_timestamp,
    (sum(overdue) OVER so_far)::FLOAT AS destination_overdue,
    (sum(late) OVER hours_4 / nullif(sum(departed) OVER hours_4, 0))::FLOAT
        AS destination_departure_late_rate_4h
FROM moments
WINDOW
    so_far AS (PARTITION BY destination ORDER BY event_timestamp ROWS UNBOUNDED PRECEDING),
    hours_4 AS (
        PARTITION BY destination ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 4 HOURS PRECEDING AND CURRENT ROW
    )
