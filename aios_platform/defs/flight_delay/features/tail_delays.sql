-- Late arrivals among the flights of an aircraft that have landed.
WITH landings AS (
    SELECT
        tail_number,
        landed_at AS event_timestamp,
        count(*) AS flights,
        count(*) FILTER (WHERE is_late) AS late
    FROM flights
    WHERE landed_at IS NOT NULL AND tail_number IS NOT NULL
    GROUP BY ALL
)
SELECT
    tail_number,
    event_timestamp,
    event_timestamp AS created_timestamp,
    (sum(late) OVER days_7 / sum(flights) OVER days_7)::FLOAT AS tail_late_rate_7d,
    (sum(late) OVER days_28 / sum(flights) OVER days_28)::FLOAT AS tail_late_rate_28d,
    (sum(flights) OVER days_28)::FLOAT AS tail_flights_28d
FROM landings
WINDOW
    days_7 AS (
        PARTITION BY tail_number ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW
    ),
    days_28 AS (
        PARTITION BY tail_number ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 28 DAYS PRECEDING AND CURRENT ROW
    )
