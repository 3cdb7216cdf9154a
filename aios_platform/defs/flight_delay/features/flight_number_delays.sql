-- Delays of the same flight on the days before.
WITH landings AS (
    SELECT
        flight_number,
        landed_at AS event_timestamp,
        count(*) AS flights,
        count(*) FILTER (WHERE is_late) AS late,
        sum(greatest(least(arrival_delay, 180), -60)) AS delay
    FROM flights
    WHERE landed_at IS NOT NULL
    GROUP BY ALL
)
SELECT
    flight_number,
    event_timestamp,
    event_timestamp AS created_timestamp,
    (sum(late) OVER days_28 / sum(flights) OVER days_28)::FLOAT AS flight_number_late_rate_28d,
    (sum(delay) OVER days_7 / sum(flights) OVER days_7)::FLOAT AS flight_number_delay_7d,
    (sum(delay) OVER days_28 / sum(flights) OVER days_28)::FLOAT AS flight_number_delay_28d
FROM landings
WINDOW
    days_7 AS (
        PARTITION BY flight_number ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW
    ),
    days_28 AS (
        PARTITION BY flight_number ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 28 DAYS PRECEDING AND CURRENT ROW
    )
