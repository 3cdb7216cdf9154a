-- Late arrivals among the flights from an airport that have landed.
WITH landings AS (
    SELECT
        origin,
        landed_at AS event_timestamp,
        count(*) AS flights,
        count(*) FILTER (WHERE is_late) AS late,
        sum(greatest(least(arrival_delay, 180), -60)) AS delay
    FROM flights
    WHERE landed_at IS NOT NULL
    GROUP BY ALL
)
SELECT
    origin,
    event_timestamp,
    event_timestamp AS created_timestamp,
    (sum(late) OVER days_1 / sum(flights) OVER days_1)::FLOAT AS origin_late_rate_1d,
    (sum(late) OVER days_7 / sum(flights) OVER days_7)::FLOAT AS origin_late_rate_7d,
    (sum(delay) OVER hours_6 / sum(flights) OVER hours_6)::FLOAT AS origin_delay_6h
FROM landings
WINDOW
    hours_6 AS (
        PARTITION BY origin ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 6 HOURS PRECEDING AND CURRENT ROW
    ),
    days_1 AS (
        PARTITION BY origin ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW
    ),
    days_7 AS (
        PARTITION BY origin ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW
    )
