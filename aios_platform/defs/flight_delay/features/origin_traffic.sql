-- How departures at an airport are going, at each moment something there happens.
-- A flight is overdue from its scheduled departure until it departs, four hours at most: most of
-- those that are later still were cancelled, and nothing says when that became known.
WITH recent AS (
    -- Flights that were over and done with four hours before the window change nothing in it.
    SELECT *, scheduled_at + INTERVAL 4 HOURS AS given_up_at
    FROM flights
    WHERE greatest(scheduled_at, departed_at) >= window_start() - INTERVAL 4 HOURS
),
events AS (
    SELECT
        origin,
        scheduled_at AS event_timestamp,
        NULL::DOUBLE AS delay,
        NULL::DOUBLE AS late,
        CASE WHEN departed_at <= scheduled_at THEN 0 ELSE 1 END::DOUBLE AS overdue
    FROM recent
    UNION ALL
    SELECT
        origin, departed_at, greatest(least(departure_delay, 180), -30), (departure_delay > 15)::INT,
        CASE WHEN departed_at > scheduled_at AND departed_at < given_up_at THEN -1 ELSE 0 END
    FROM recent
    WHERE departed_at IS NOT NULL
    UNION ALL
    SELECT
        origin, given_up_at, NULL, NULL,
        CASE WHEN departed_at < given_up_at THEN 0 ELSE -1 END
    FROM recent
),
-- Things often happen at the same minute at an airport: one row per moment makes frames cheaper.
moments AS (
    SELECT
        origin,
        event_timestamp,
        count(late)::DOUBLE AS departed,
        sum(delay) AS delay,
        sum(late) AS late,
        sum(overdue) AS overdue
    FROM events
    GROUP BY ALL
)
SELECT
    origin,
    event_timestamp,
    event_timestamp AS created_timestamp,
    (sum(overdue) OVER so_far)::FLOAT AS origin_overdue,
    (sum(departed) OVER hours_1)::FLOAT AS origin_departures_1h,
    (sum(delay) OVER hours_1 / nullif(sum(departed) OVER hours_1, 0))::FLOAT
        AS origin_departure_delay_1h,
    (sum(late) OVER hours_2 / nullif(sum(departed) OVER hours_2, 0))::FLOAT
        AS origin_departure_late_rate_2h
FROM moments
WINDOW
    so_far AS (PARTITION BY origin ORDER BY event_timestamp ROWS UNBOUNDED PRECEDING),
    hours_1 AS (
        PARTITION BY origin ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW
    ),
    hours_2 AS (
        PARTITION BY origin ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 2 HOURS PRECEDING AND CURRENT ROW
    )
