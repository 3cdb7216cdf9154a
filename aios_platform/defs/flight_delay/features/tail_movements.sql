WITH departures AS (
    SELECT tail_number, departed_at AS event_timestamp, max(departure_delay) AS delay, max(distance) AS distance
    FROM flights WHERE departed_at IS NOT NULL AND tail_number IS NOT NULL GROUP BY ALL
)
SELECT tail_number, event_timestamp, event_timestamp AS created_timestamp,
  delay::FLOAT AS tail_last_departure_delay,
  epoch(event_timestamp)::DOUBLE AS tail_last_departed,
  distance::FLOAT AS tail_last_distance
FROM departures
