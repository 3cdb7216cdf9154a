-- How a carrier's departures from one airport are going.
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
        carrier,
        scheduled_at AS event_timestamp,
        NULL::DOUBLE AS late,
        CASE WHEN departed_at <= scheduled_at THEN 0 ELSE 1 END::DOUBLE AS overdue
    FROM recent
    UNION ALL
    SELECT
        origin, carrier, departed_at, (departure_delay > 15)::INT,
        CASE WHEN departed_at > scheduled_at AND departed_at < given_up_at THEN -1 ELSE 0 END
    FROM recent
    WHERE departed_at IS NOT NULL
    UNION ALL
    SELECT
        origin, carrier, given_up_at, NULL,
        CASE WHEN departed_at < given_up_at THEN 0 ELSE -1 END
    FROM recent
)
-- A frame ends with all events of its moment, so their rows are equal: DISTINCT leaves one.
SELECT DISTINCT
    origin,
    carrier,
    event_timestamp,
    event_timestamp AS created_timestamp,
    (sum(overdue) OVER so_far)::FLOAT AS origin_carrier_overdue,
    (avg(late) OVER hours_2)::FLOAT AS origin_carrier_departure_late_rate_2h
FROM events
WINDOW
    so_far AS (PARTITION BY origin, carrier ORDER BY event_timestamp),
    hours_2 AS (
        PARTITION BY origin, carrier ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 2 HOURS PRECEDING AND CURRENT ROW
    )
