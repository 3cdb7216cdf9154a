-- Late arrivals among the flights of a route that have landed.
-- A frame ends with all landings of its moment, so their rows are equal: DISTINCT leaves one.
SELECT DISTINCT
    route,
    landed_at AS event_timestamp,
    landed_at AS created_timestamp,
    (avg(is_late::INT::DOUBLE) OVER days_7)::FLOAT AS route_late_rate_7d,
    (avg(is_late::INT::DOUBLE) OVER days_28)::FLOAT AS route_late_rate_28d,
    (avg(greatest(least(arrival_delay, 180), -60)::DOUBLE) OVER days_1)::FLOAT AS route_delay_1d,
    (count(*) OVER days_28)::FLOAT AS route_flights_28d
FROM flights
WHERE landed_at >= window_start() - INTERVAL 28 DAYS
WINDOW
    days_1 AS (
        PARTITION BY route ORDER BY landed_at
        RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW
    ),
    days_7 AS (
        PARTITION BY route ORDER BY landed_at
        RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW
    ),
    days_28 AS (
        PARTITION BY route ORDER BY landed_at
        RANGE BETWEEN INTERVAL 28 DAYS PRECEDING AND CURRENT ROW
    )
