-- The last hour's weather at the airport of departure, known when that hour is over.
SELECT
    origin,
    known_at AS event_timestamp,
    known_at AS created_timestamp,
    temperature::FLOAT AS temperature,
    dew_point::FLOAT AS dew_point,
    humidity::FLOAT AS humidity,
    wind_direction::FLOAT AS wind_direction,
    wind_speed::FLOAT AS wind_speed,
    wind_gust::FLOAT AS wind_gust,
    precipitation::FLOAT AS precipitation,
    pressure::FLOAT AS pressure,
    visibility::FLOAT AS visibility,
    (sum(round(precipitation * 1000)::BIGINT) OVER hours_6 / 1000)::FLOAT AS precipitation_6h,
    (pressure - first_value(pressure) OVER hours_3)::FLOAT AS pressure_change_3h
FROM weather
WINDOW
    hours_3 AS (
        PARTITION BY origin ORDER BY known_at
        RANGE BETWEEN INTERVAL 3 HOURS PRECEDING AND CURRENT ROW
    ),
    hours_6 AS (
        PARTITION BY origin ORDER BY known_at
        RANGE BETWEEN INTERVAL 5 HOURS PRECEDING AND CURRENT ROW
    )
