-- Late arrivals among a carrier's flights that have landed.
WITH landings AS (
    SELECT
        carrier,
        landed_at AS event_timestamp,
        count(*) AS flights,
        count(*) FILTER (WHERE is_late) AS late
    FROM flights
    WHERE landed_at IS NOT NULL
    GROUP BY ALL
)
SELECT
    carrier,
    event_timestamp,
    event_timestamp AS created_timestamp,
    (sum(late) OVER days_1 / sum(flights) OVER days_1)::FLOAT AS carrier_late_rate_1d,
    (sum(late) OVER days_7 / sum(flights) OVER days_7)::FLOAT AS carrier_late_rate_7d,
    (sum(late) OVER days_28 / sum(flights) OVER days_28)::FLOAT AS carrier_late_rate_28d
FROM landings
WINDOW
    days_1 AS (
        PARTITION BY carrier ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW
    ),
    days_7 AS (
        PARTITION BY carrier ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW
    ),
    days_28 AS (
        PARTITION BY carrier ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 28 DAYS PRECEDING AND CURRENT ROW
    )
