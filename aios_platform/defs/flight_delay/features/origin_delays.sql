-- Late arrivals among the flights from an airport that have landed.
-- A frame ends with all landings of its moment, so their rows are equal: DISTINCT leaves one.
SELECT DISTINCT
    origin,
    landed_at AS event_timestamp,
    landed_at AS created_timestamp,
    (avg(is_late::INT::DOUBLE) OVER days_1)::FLOAT AS origin_late_rate_1d,
    (avg(is_late::INT::DOUBLE) OVER days_7)::FLOAT AS origin_late_rate_7d,
    (avg(greatest(least(arrival_delay, 180), -60)::DOUBLE) OVER hours_6)::FLOAT AS origin_delay_6h
FROM flights
WHERE landed_at >= window_start() - INTERVAL 7 DAYS
WINDOW
    hours_6 AS (
        PARTITION BY origin ORDER BY landed_at
        RANGE BETWEEN INTERVAL 6 HOURS PRECEDING AND CURRENT ROW
    ),
    days_1 AS (
        PARTITION BY origin ORDER BY landed_at
        RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW
    ),
    days_7 AS (
        PARTITION BY origin ORDER BY landed_at
        RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW
    )
