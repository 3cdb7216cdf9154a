-- x
WITH landings AS (
    SELECT
        tail_number,
        landed_at AS event_timestamp,
        count(*) AS flights,
        count(*) FILTER (WHERE is_late) AS late,
        sum(greatest(least(arrival_delay, 180), -60)) AS delay,
        sum(arrival_delay - departure_delay) AS en_route
    FROM flights
    WHERE landed_at IS NOT NULL
    GROUP BY ALL
)
SELECT
    tail_number,
    event_timestamp,
    event_timestamp AS created_timestamp,
    (sum(late) OVER days_7 / sum(flights) OVER days_7)::FLOAT AS tail_late_rate_7d,
    (sum(delay) OVER days_7 / sum(flights) OVER days_7)::FLOAT AS tail_delay_7d,
    (sum(late) OVER days_28 / sum(flights) OVER days_28)::FLOAT AS tail_late_rate_28d,
    (sum(delay) OVER days_28 / sum(flights) OVER days_28)::FLOAT AS tail_delay_28d,
    delay::FLOAT AS tail_last_delay,
    epoch(event_timestamp)::DOUBLE AS tail_last_landed
FROM landings
WINDOW
    hours_6 AS (
        PARTITION BY tail_number ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 6 HOURS PRECEDING AND CURRENT ROW
    ),
    days_1 AS (
        PARTITION BY tail_number ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW
    ),
    days_7 AS (
        PARTITION BY tail_number ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW
    ),
    days_28 AS (
        PARTITION BY tail_number ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 28 DAYS PRECEDING AND CURRENT ROW
    )
