WITH events AS (
    SELECT carrier, scheduled_at AS event_timestamp, 1 AS due, 0 AS departed, 0 AS delay, 0 AS late,
        CASE WHEN departed_at <= scheduled_at THEN 0 ELSE 1 END AS overdue
    FROM flights
    UNION ALL
    SELECT carrier, departed_at, 0, 1, greatest(least(departure_delay, 180), -30), (departure_delay > 15)::INT,
        CASE WHEN departed_at > scheduled_at AND departed_at < scheduled_at + INTERVAL 4 HOURS THEN -1 ELSE 0 END
    FROM flights WHERE departed_at IS NOT NULL
    UNION ALL
    SELECT carrier, scheduled_at + INTERVAL 4 HOURS, 0, 0, 0, 0,
        CASE WHEN departed_at < scheduled_at + INTERVAL 4 HOURS THEN 0 ELSE -1 END
    FROM flights
), moments AS (
    SELECT carrier, event_timestamp, sum(due) AS due, sum(departed) AS departed, sum(delay) AS delay, sum(late) AS late, sum(overdue) AS overdue
    FROM events GROUP BY ALL
)
SELECT
    carrier,
    event_timestamp,
    event_timestamp AS created_timestamp,
    (sum(overdue) OVER so_far)::FLOAT AS carrier_overdue,
    (sum(due) OVER hours_1)::FLOAT AS carrier_due_1h,
    (sum(departed) OVER hours_1)::FLOAT AS carrier_departed_1h,
    (sum(delay) OVER hours_1 / nullif(sum(departed) OVER hours_1, 0))::FLOAT AS carrier_departure_delay_1h,
    (sum(delay) OVER hours_2 / nullif(sum(departed) OVER hours_2, 0))::FLOAT AS carrier_departure_delay_2h,
    (sum(late) OVER hours_2 / nullif(sum(departed) OVER hours_2, 0))::FLOAT AS carrier_departure_late_2h,
    (sum(delay) OVER hours_4 / nullif(sum(departed) OVER hours_4, 0))::FLOAT AS carrier_departure_delay_4h,
    (sum(late) OVER hours_4 / nullif(sum(departed) OVER hours_4, 0))::FLOAT AS carrier_departure_late_4h,
FROM moments
WINDOW
    so_far AS (PARTITION BY carrier ORDER BY event_timestamp ROWS UNBOUNDED PRECEDING),
    hours_1 AS (PARTITION BY carrier ORDER BY event_timestamp RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW),
    hours_2 AS (PARTITION BY carrier ORDER BY event_timestamp RANGE BETWEEN INTERVAL 2 HOURS PRECEDING AND CURRENT ROW),
    hours_4 AS (PARTITION BY carrier ORDER BY event_timestamp RANGE BETWEEN INTERVAL 4 HOURS PRECEDING AND CURRENT ROW)
