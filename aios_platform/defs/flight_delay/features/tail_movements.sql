-- Where an aircraft is: on its way since its last departure, or landed. The flight back is not in
-- the data, but takes about as long as the flight out.
WITH movements AS (
    SELECT tail_number, departed_at AS event_timestamp, departed_at, NULL AS landed_at,
        NULL AS arrival_delay, scheduled_at, scheduled_minutes
    FROM flights
    WHERE departed_at IS NOT NULL AND tail_number IS NOT NULL
    UNION ALL
    SELECT tail_number, landed_at, departed_at, landed_at,
        arrival_delay, scheduled_at, scheduled_minutes
    FROM flights
    WHERE landed_at IS NOT NULL AND tail_number IS NOT NULL
)
SELECT
    tail_number,
    event_timestamp,
    event_timestamp AS created_timestamp,
    arrival_delay::FLOAT AS tail_arrival_delay,
    scheduled_minutes::FLOAT AS tail_flight_minutes,
    (landed_at IS NULL)::INT::FLOAT AS tail_airborne,
    epoch(scheduled_at)::DOUBLE AS tail_scheduled_at,
    epoch(coalesce(landed_at, departed_at + to_minutes(scheduled_minutes::BIGINT)))::DOUBLE
        AS tail_landing_at
FROM movements
-- Two records of one aircraft at one moment contradict each other: the later departure counts.
QUALIFY row_number() OVER (
    PARTITION BY tail_number, event_timestamp
    ORDER BY departed_at DESC, landed_at DESC NULLS LAST, scheduled_at DESC, scheduled_minutes DESC
) = 1
