"""Features of the flights that leave New York City.

A feature view's rows appear at the moment something becomes known (a departure, a landing, the
end of an hour of weather), so a value as of a prediction time rests on the past alone. The SQL
that makes the rows is `aios_platform/defs/flight_delay/features/<view>.sql`;
`docs/flight_delay.md` explains the features.
"""

from datetime import timedelta
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, Float64, UnixTimestamp
from feast.value_type import ValueType


def entity(name: str, description: str) -> Entity:
    """An entity whose join key has its own name."""
    return Entity(name=name, value_type=ValueType.STRING, description=description)


carrier = entity("carrier", "Two-letter code of the airline.")
origin = entity("origin", "Airport of departure: EWR, JFK or LGA.")
destination = entity("destination", "Airport of arrival.")
route = entity("route", "Airports of departure and arrival, e.g. JFK-LAX.")
flight_number = entity("flight_number", "Airline and number of the flight, e.g. UA1545.")
tail_number = entity("tail_number", "Registration of the aircraft.")


def view(
    name: str,
    entities: list[Entity],
    ttl: timedelta,
    features: list[str],
    instants: tuple[str, ...] = (),
) -> FeatureView:
    """A view over the feature table of the same name; instants are Unix times in seconds."""
    return FeatureView(
        name=name,
        entities=entities,
        ttl=ttl,
        schema=[
            *(Field(name=feature, dtype=Float32) for feature in features),
            *(Field(name=instant, dtype=Float64) for instant in instants),
        ],
        source=FileSource(
            name=name,
            path=f"aios://flight_delay/features/{name}",
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
        tags={"model": "flight_delay"},
    )


origin_weather = view(
    "origin_weather",
    [origin],
    timedelta(hours=6),
    [
        "temperature",
        "dew_point",
        "humidity",
        "wind_direction",
        "wind_speed",
        "wind_gust",
        "precipitation",
        "pressure",
        "visibility",
        "precipitation_6h",
        "pressure_change_3h",
    ],
)
origin_traffic = view(
    "origin_traffic",
    [origin],
    timedelta(hours=12),
    [
        "origin_overdue",
        "origin_departures_1h",
        "origin_departure_delay_1h",
        "origin_departure_late_rate_2h",
    ],
)
carrier_traffic = view(
    "carrier_traffic",
    [carrier],
    timedelta(hours=12),
    ["carrier_overdue", "carrier_departure_late_rate_2h"],
)
destination_traffic = view(
    "destination_traffic",
    [destination],
    timedelta(hours=12),
    ["destination_overdue", "destination_departure_late_rate_4h"],
)
origin_carrier_traffic = view(
    "origin_carrier_traffic",
    [origin, carrier],
    timedelta(hours=12),
    ["origin_carrier_overdue", "origin_carrier_departure_late_rate_2h"],
)
origin_delays = view(
    "origin_delays",
    [origin],
    timedelta(days=7),
    ["origin_late_rate_1d", "origin_late_rate_7d", "origin_delay_6h"],
)
carrier_delays = view(
    "carrier_delays",
    [carrier],
    timedelta(days=28),
    ["carrier_late_rate_1d", "carrier_late_rate_7d", "carrier_late_rate_28d"],
)
destination_delays = view(
    "destination_delays",
    [destination],
    timedelta(days=28),
    ["destination_delay_1d", "destination_delay_28d", "destination_en_route_6h"],
)
route_delays = view(
    "route_delays",
    [route],
    timedelta(days=28),
    ["route_late_rate_7d", "route_late_rate_28d", "route_delay_1d", "route_flights_28d"],
)
flight_number_delays = view(
    "flight_number_delays",
    [flight_number],
    timedelta(days=28),
    ["flight_number_late_rate_28d", "flight_number_delay_7d", "flight_number_delay_28d"],
)
tail_delays = view(
    "tail_delays",
    [tail_number],
    timedelta(days=28),
    ["tail_late_rate_7d", "tail_late_rate_28d", "tail_flights_28d"],
)
tail_movements = view(
    "tail_movements",
    [tail_number],
    timedelta(days=28),
    ["tail_arrival_delay", "tail_flight_minutes", "tail_airborne"],
    instants=("tail_scheduled_at", "tail_landing_at"),
)
plane = view("plane", [tail_number], timedelta(days=62), ["year_built", "seats"])

request = RequestSource(
    name="flight_request",
    schema=[Field(name="prediction_time", dtype=UnixTimestamp)],
)


# Feast stores the function by itself and runs it far from this file, so it brings what it uses.
@on_demand_feature_view(
    sources=[
        request,
        tail_movements[["tail_flight_minutes", "tail_scheduled_at", "tail_landing_at"]],
    ],
    schema=[
        Field(name="tail_minutes_since_scheduled", dtype=Float64),
        Field(name="tail_minutes_since_landing", dtype=Float64),
        Field(name="tail_slack", dtype=Float64),
    ],
    mode="python",
)
def tail_clock(inputs: dict[str, Any]) -> dict[str, Any]:
    """Minutes from the aircraft's last events to the prediction time, two days at most.

    `tail_slack` also takes off the way back: below zero, the aircraft cannot have returned yet.
    """
    import numpy as np

    def listed(minutes: np.ndarray) -> list[float | None]:
        return [None if m != m else m for m in np.clip(minutes, -2880.0, 2880.0).tolist()]

    def numbers(name: str) -> np.ndarray:
        return np.array(inputs[name], dtype=np.float64)

    times = inputs["prediction_time"]
    now = np.array([np.nan if t is None else t.timestamp() for t in times], dtype=np.float64)
    landed = (now - numbers("tail_landing_at")) / 60.0
    return {
        "tail_minutes_since_scheduled": listed((now - numbers("tail_scheduled_at")) / 60.0),
        "tail_minutes_since_landing": listed(landed),
        "tail_slack": listed(landed - numbers("tail_flight_minutes")),
    }


flight_delay_v1 = FeatureService(
    name="flight_delay_v1",
    description="Will a flight from New York arrive more than 15 minutes late?",
    features=[
        origin_weather,
        origin_traffic,
        carrier_traffic,
        destination_traffic,
        origin_carrier_traffic,
        origin_delays,
        carrier_delays,
        destination_delays,
        route_delays,
        flight_number_delays,
        tail_delays,
        tail_movements[["tail_arrival_delay", "tail_flight_minutes", "tail_airborne"]],
        tail_clock,
        plane,
    ],
)
