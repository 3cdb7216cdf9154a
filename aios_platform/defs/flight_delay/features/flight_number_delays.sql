-- Delays of the same flight on the days before.
-- A frame ends with all landings of its moment, so their rows are equal: DISTINCT leaves one.
SELECT DISTINCT
    flight_number,
    landed_at AS event_timestamp,
    landed_at AS created_timestamp,
    (avg(is_late::INT::DOUBLE) OVER days_28)::FLOAT AS flight_number_late_rate_28d,
    (avg(greatest(least(arrival_delay, 180), -60)::DOUBLE) OVER days_7)::FLOAT
        AS flight_number_delay_7d,
    (avg(greatest(least(arrival_delay, 180), -60)::DOUBLE) OVER days_28)::FLOAT
        AS flight_number_delay_28d
FROM flights
WHERE landed_at >= window_start() - INTERVAL 28 DAYS
WINDOW
    days_7 AS (
        PARTITION BY flight_number ORDER BY landed_at
        RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW
    ),
    days_28 AS (
        PARTITION BY flight_number ORDER BY landed_at
        RANGE BETWEEN INTERVAL 28 DAYS PRECEDING AND CURRENT ROW
    )
