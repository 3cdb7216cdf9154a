"""A Feast online store on Redis in which the newest event wins and the TTL holds.

Feast's own passes over a value of the very time that is stored, so that a corrected delivery of a
window would change nothing; and serves values of any age. This one, on the same layout, writes a
value unless it is older than the stored one, and reads a value past its view's TTL as null. "Now"
is `reading_time`. What a window's former rows had overwritten does not come back (no `retract`).
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from feast.feature_view import FeatureView  # noqa: TID253
from feast.infra.online_stores.helpers import _mmh3, _redis_key  # noqa: TID253
from feast.infra.online_stores.redis import (  # noqa: TID253
    RedisOnlineStore,
    RedisOnlineStoreConfig,
    _versioned_fv_name,
)
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus  # noqa: TID253
from feast.protos.feast.types.EntityKey_pb2 import EntityKey  # noqa: TID253
from feast.protos.feast.types.Value_pb2 import Value  # noqa: TID253
from feast.repo_config import RepoConfig  # noqa: TID253
from google.protobuf.timestamp_pb2 import Timestamp

from aios_platform.features.online_ages import AgesEnforced

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


class NewestWinsRedisOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc]
    """Settings of the store in `feature_store.redis.yaml`."""

    type: Literal[  # type: ignore[assignment]
        "aios_platform.features.redis_store.NewestWinsRedisOnlineStore",
        "NewestWinsRedisOnlineStore",
    ] = "aios_platform.features.redis_store.NewestWinsRedisOnlineStore"


class NewestWinsRedisOnlineStore(AgesEnforced, RedisOnlineStore):  # type: ignore[misc]
    """Feast's Redis store with corrections written and ages enforced."""

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write values that are not older than the stored ones."""
        client, view = self._get_client(config.online_store), _versioned_fv_name(table, config)
        stamp = f"_ts:{view}"
        rows: dict[bytes, tuple[int, Row]] = {}
        for row in sorted(data, key=lambda row: (_aware(row[2]), _aware(row[3] or row[2]))):
            key = _redis_key(config.project, row[0], config.entity_key_serialization_version)
            rows[key] = (_nanoseconds(row[2]), row)
        with client.pipeline(transaction=False) as pipe:
            for key in rows:
                pipe.hget(key, stamp)
            stored = pipe.execute()
        with client.pipeline(transaction=True) as pipe:
            for (key, (moment, row)), held in zip(rows.items(), stored, strict=True):
                if held is not None and _read(held) > moment:
                    continue
                values = {_mmh3(f"{view}:{n}"): v.SerializeToString() for n, v in row[1].items()}
                pipe.hset(key, mapping={stamp: _stamp(row[2]).SerializeToString(), **values})
            pipe.execute()
        if progress:
            progress(len(data))

    def _mark_absent(self, response: Any, done: int) -> None:
        # Feast calls present, of the year 1970, what is not there.
        for vector in response.results[done:]:
            for place, event in enumerate(vector.event_timestamps):
                if not event.seconds:
                    vector.statuses[place] = FieldStatus.NOT_FOUND


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _stamp(moment: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(_aware(moment))
    return found


def _nanoseconds(moment: datetime) -> int:
    return int(_stamp(moment).ToNanoseconds())


def _read(held: bytes) -> int:
    return int(Timestamp.FromString(held).ToNanoseconds())
