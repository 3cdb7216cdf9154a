-- The aircraft register; a snapshot per window, known when the window begins.
SELECT
    tail_number,
    snapshot_at AS event_timestamp,
    snapshot_at AS created_timestamp,
    year_built::FLOAT AS year_built,
    seats::FLOAT AS seats
FROM planes
