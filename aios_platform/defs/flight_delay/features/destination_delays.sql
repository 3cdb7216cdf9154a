-- Delays of flights that have landed at a destination, and how they fared on the way there.
WITH landings AS (
    SELECT
        destination,
        landed_at AS event_timestamp,
        count(*) AS flights,
        sum(greatest(least(arrival_delay, 180), -60)) AS delay,
        sum(arrival_delay - departure_delay) AS en_route
    FROM flights
    WHERE landed_at IS NOT NULL
    GROUP BY ALL
)
SELECT
    destination,
    event_timestamp,
    event_timestamp AS created_timestamp,
    (sum(delay) OVER days_1 / sum(flights) OVER days_1)::FLOAT AS destination_delay_1d,
    (sum(delay) OVER days_28 / sum(flights) OVER days_28)::FLOAT AS destination_delay_28d,
    (sum(en_route) OVER hours_6 / sum(flights) OVER hours_6)::FLOAT AS destination_en_route_6h
FROM landings
WINDOW
    hours_6 AS (
        PARTITION BY destination ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 6 HOURS PRECEDING AND CURRENT ROW
    ),
    days_1 AS (
        PARTITION BY destination ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW
    ),
    days_28 AS (
        PARTITION BY destination ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 28 DAYS PRECEDING AND CURRENT ROW
    )
