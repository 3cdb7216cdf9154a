-- Delays of flights that have landed at a destination, and how they fared on the way there.
-- A frame ends with all landings of its moment, so their rows are equal: DISTINCT leaves one.
SELECT DISTINCT
    destination,
    landed_at AS event_timestamp,
    landed_at AS created_timestamp,
    (avg(greatest(least(arrival_delay, 180), -60)::DOUBLE) OVER days_1)::FLOAT
        AS destination_delay_1d,
    (avg(greatest(least(arrival_delay, 180), -60)::DOUBLE) OVER days_28)::FLOAT
        AS destination_delay_28d,
    (avg((arrival_delay - departure_delay)::DOUBLE) OVER hours_6)::FLOAT AS destination_en_route_6h
FROM flights
WHERE landed_at >= window_start() - INTERVAL 28 DAYS
WINDOW
    hours_6 AS (
        PARTITION BY destination ORDER BY landed_at
        RANGE BETWEEN INTERVAL 6 HOURS PRECEDING AND CURRENT ROW
    ),
    days_1 AS (
        PARTITION BY destination ORDER BY landed_at
        RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW
    ),
    days_28 AS (
        PARTITION BY destination ORDER BY landed_at
        RANGE BETWEEN INTERVAL 28 DAYS PRECEDING AND CURRENT ROW
    )
