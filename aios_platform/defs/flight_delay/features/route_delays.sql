-- Late arrivals among the flights of a route that have landed.
WITH landings AS (
    SELECT
        route,
        landed_at AS event_timestamp,
        count(*) AS flights,
        count(*) FILTER (WHERE is_late) AS late,
        sum(greatest(least(arrival_delay, 180), -60)) AS delay
    FROM flights
    WHERE landed_at IS NOT NULL
    GROUP BY ALL
)
SELECT
    route,
    event_timestamp,
    event_timestamp AS created_timestamp,
    (sum(late) OVER days_7 / sum(flights) OVER days_7)::FLOAT AS route_late_rate_7d,
    (sum(late) OVER days_28 / sum(flights) OVER days_28)::FLOAT AS route_late_rate_28d,
    (sum(delay) OVER days_1 / sum(flights) OVER days_1)::FLOAT AS route_delay_1d,
    (sum(flights) OVER days_28)::FLOAT AS route_flights_28d
FROM landings
WINDOW
    days_1 AS (
        PARTITION BY route ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW
    ),
    days_7 AS (
        PARTITION BY route ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW
    ),
    days_28 AS (
        PARTITION BY route ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 28 DAYS PRECEDING AND CURRENT ROW
    )
