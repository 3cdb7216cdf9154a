-- Late arrivals among a carrier's flights that have landed.
-- A frame ends with all landings of its moment, so their rows are equal: DISTINCT leaves one.
SELECT DISTINCT
    carrier,
    landed_at AS event_timestamp,
    landed_at AS created_timestamp,
    (avg(is_late::INT::DOUBLE) OVER days_1)::FLOAT AS carrier_late_rate_1d,
    (avg(is_late::INT::DOUBLE) OVER days_7)::FLOAT AS carrier_late_rate_7d,
    (avg(is_late::INT::DOUBLE) OVER days_28)::FLOAT AS carrier_late_rate_28d
FROM flights
WHERE landed_at >= window_start() - INTERVAL 28 DAYS
WINDOW
    days_1 AS (
        PARTITION BY carrier ORDER BY landed_at
        RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW
    ),
    days_7 AS (
        PARTITION BY carrier ORDER BY landed_at
        RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW
    ),
    days_28 AS (
        PARTITION BY carrier ORDER BY landed_at
        RANGE BETWEEN INTERVAL 28 DAYS PRECEDING AND CURRENT ROW
    )
