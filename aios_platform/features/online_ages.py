"""What our online stores add to a read of Feast's: keys of nobody, and ages that are enforced."""

from typing import Any

from feast.protos.feast.serving.ServingService_pb2 import (  # noqa: TID253
    FieldStatus,
    GetOnlineFeaturesResponse,
)
from feast.protos.feast.types.Value_pb2 import Value  # noqa: TID253
from feast.repo_config import RepoConfig  # noqa: TID253

from aios_platform.features.reading_time import reading_time

NOBODY: dict[str, Any] = {
    "string_val": "\0",
    "bytes_val": b"\0",
    "int64_val": -(2**63),
    "int32_val": -(2**31),
}


class AgesEnforced:
    """A store of Feast whose reads know nobody's keys, and no value past its view's TTL."""

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: list[Any],
        join_key_values: dict[str, Any],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        *rest: Any,
        **named: Any,
    ) -> None:
        done = len(online_features_response.results)
        super()._read_features_per_fv(  # type: ignore[misc]
            config,
            grouped_refs,
            without_gaps(join_key_values),
            entity_name_to_join_key_map,
            online_features_response,
            *rest,
            **named,
        )
        self._mark_absent(online_features_response, done)
        expire(online_features_response, done, grouped_refs)

    def _mark_absent(self, response: GetOnlineFeaturesResponse, done: int) -> None:
        """Call what is not there NOT_FOUND, for a store that does not do so itself.

        Args:
            response: What was read.
            done: Results that were there before.
        """


def without_gaps(join_key_values: dict[str, list[Value]]) -> dict[str, list[Value]]:
    """Keys of nobody in place of nulls, on which Feast fails: a null key finds no features."""
    filled = {}
    for name, values in join_key_values.items():
        kinds = [value.WhichOneof("val") for value in values]
        kind = next((k for k in kinds if k in NOBODY), "string_val")
        filled[name] = [
            value if present else Value(**{kind: NOBODY[kind]})
            for value, present in zip(values, kinds, strict=True)
        ]
    return filled


def expire(response: GetOnlineFeaturesResponse, done: int, grouped_refs: list[Any]) -> None:
    """Make null what is past its view's TTL."""
    moment = reading_time().timestamp()
    ttls: list[float | None] = []
    for view, features in grouped_refs:
        ttl = view.ttl.total_seconds() if view.ttl else None
        ttls += [ttl] * len(features)
    for vector, ttl in zip(response.results[done:], ttls, strict=True):
        if ttl is None:
            continue
        for place, (status, event) in enumerate(
            zip(vector.statuses, vector.event_timestamps, strict=True)
        ):
            age = moment - (event.seconds + event.nanos / 1e9)
            if status == FieldStatus.PRESENT and age > ttl:
                vector.values[place].Clear()
                vector.statuses[place] = FieldStatus.OUTSIDE_MAX_AGE
