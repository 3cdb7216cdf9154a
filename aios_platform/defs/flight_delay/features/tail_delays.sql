-- Late arrivals among the flights of an aircraft that have landed.
-- A frame ends with all landings of its moment, so their rows are equal: DISTINCT leaves one.
SELECT DISTINCT
    tail_number,
    landed_at AS event_timestamp,
    landed_at AS created_timestamp,
    (avg(is_late::INT::DOUBLE) OVER days_7)::FLOAT AS tail_late_rate_7d,
    (avg(is_late::INT::DOUBLE) OVER days_28)::FLOAT AS tail_late_rate_28d,
    (count(*) OVER days_28)::FLOAT AS tail_flights_28d
FROM flights
WHERE landed_at >= window_start() - INTERVAL 28 DAYS AND tail_number IS NOT NULL
WINDOW
    days_7 AS (
        PARTITION BY tail_number ORDER BY landed_at
        RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW
    ),
    days_28 AS (
        PARTITION BY tail_number ORDER BY landed_at
        RANGE BETWEEN INTERVAL 28 DAYS PRECEDING AND CURRENT ROW
    )
