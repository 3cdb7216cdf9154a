"""The as-of join: for each entity row the newest feature row that was known by then.

An entity row with key `k` and time `t` sees the feature rows of `k` with::

    event <= t     and     created <= t (when created times are honoured)

and takes the one with the largest `(event, created, position in the source)`; if that one is
older than the TTL (`event < t - ttl`) it takes none, for every other visible row is older still.

Corrections make this more than one as-of join, because a late row may change the winner after
a younger event. It becomes one again by *visibility*: order each key's rows by the moment they
become visible, `max(event, created)`; the running maximum of `(event, created, position)` in
that order is the winner from that moment on. One as-of join on visibility finds it.

Sources are taken batch by batch: the winner over all batches is the best of the batches'
winners, whatever the order of the rows and however they are cut, so memory is bounded by the
entity rows and one batch.

polars does the join. `benchmarks/point_in_time_join.py` measures it against DuckDB's ASOF JOIN:
it takes a fraction of the time and of the memory, and DuckDB's own spilling is not needed when
the source is cut into batches here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Integers = npt.NDArray[np.int64]

NONE = -1
LOWEST = np.iinfo(np.int64).min


@dataclass
class FeatureRows:
    """Keys and times of one batch of feature rows.

    Args:
        keys: One array per join key, all of the batch's length.
        event: Event times, integers in the join's unit; null: the row is never seen.
        created: When each row became known, likewise; None: at its event time.
        first: Position of the batch's first row in the source.
    """

    keys: Sequence[pa.ChunkedArray | pa.Array]
    event: pa.ChunkedArray | pa.Array
    created: pa.ChunkedArray | pa.Array | None
    first: int = 0


@dataclass
class AsOfJoin:
    """Finds for each entity row the position of its feature row in a source fed in batches.

    Args:
        keys: One array per join key; a row with a null in any of them finds nothing.
        moments: Times of the entity rows as integers in the join's unit; null finds nothing.
        ttl: Greatest age of a feature row, same unit; None: no limit.
        honour_created: A row created after an entity row's time is not seen by it.
    """

    keys: Sequence[pa.ChunkedArray | pa.Array]
    moments: pa.ChunkedArray | pa.Array
    ttl: int | None = None
    honour_created: bool = True
    winners: Integers = field(init=False)

    def __post_init__(self) -> None:
        names = [f"k{i}" for i in range(len(self.keys))]
        columns = {name: _series(key) for name, key in zip(names, self.keys, strict=True)}
        columns["t"] = _series(self.moments)
        rows = len(self.moments)
        frame = pl.DataFrame(columns).with_columns(
            pl.int_range(rows, dtype=pl.Int64).alias("entity")
        )
        frame = frame.drop_nulls([*names, "t"])
        if not frame["t"].is_sorted():
            frame = frame.sort("t", maintain_order=True)
        self._names = names
        self._entities = frame.with_columns(pl.col("t").set_sorted())
        self._times: Integers = frame["t"].to_numpy()
        self.winners = np.full(rows, NONE, dtype=np.int64)
        self._best: tuple[Integers, Integers] | None = None

    def feed(self, batch: FeatureRows) -> None:
        """Take one more batch of the source into account."""
        visible, rows = self._visible(batch)
        if visible.is_empty() or self._entities.is_empty():
            return
        entities = self._reached(visible, rows)
        if entities.is_empty():
            return
        # Of equal moments of visibility polars takes the last, which here is the best.
        found = entities.join_asof(
            visible,
            left_on="t",
            right_on="visible",
            by=self._names or None,
            strategy="backward",
            check_sortedness=False,
        )
        position = found["position"]
        hit = position.is_not_null().to_numpy()
        taken = position.drop_nulls().to_numpy()
        entity = found["entity"].to_numpy()[hit]
        event = rows["event"].to_numpy()[taken]
        if self.ttl is not None:
            young = event >= found["t"].to_numpy()[hit] - self.ttl
            taken, entity, event = taken[young], entity[young], event[young]
        created = rows["created"].to_numpy()[taken]
        self._keep_better(entity, rows["row"].to_numpy()[taken], event, created)

    def _visible(self, batch: FeatureRows) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Moments at which the winner may change, and the rows that win, by position."""
        columns = {n: _series(k) for n, k in zip(self._names, batch.keys, strict=True)}
        columns["event"] = _series(batch.event)
        if batch.created is not None:
            columns["created"] = _series(batch.created)
        frame = pl.DataFrame(columns).with_columns(
            pl.int_range(len(batch.event), dtype=pl.Int64).alias("row") + batch.first
        )
        if batch.created is None:
            frame = frame.with_columns(pl.lit(LOWEST).alias("created"))
        elif not self.honour_created:
            frame = frame.with_columns(pl.col("created").fill_null(LOWEST))
        frame = frame.drop_nulls()
        if not _in_order(frame):
            frame = frame.sort(["event", "created", "row"])
        position = pl.int_range(frame.height, dtype=pl.Int64).alias("position")
        visible = frame.select(*self._names, position, pl.col("event").alias("visible"))
        late = batch.created is not None and self.honour_created
        if late and bool((frame["created"] > frame["event"]).any()):
            visible = frame.select(
                *self._names, position, pl.max_horizontal("event", "created").alias("visible")
            ).sort(["visible", "position"])
            best = pl.col("position").cum_max()
            visible = visible.with_columns(best.over(self._names) if self._names else best)
        return visible.with_columns(pl.col("visible").set_sorted()), frame

    def _reached(self, visible: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
        """The entity rows that any of these feature rows can serve."""
        start = int(np.searchsorted(self._times, visible["visible"][0], side="left"))
        stop = len(self._times)
        if self.ttl is not None:
            newest = rows["event"].max()
            assert isinstance(newest, int)
            stop = int(np.searchsorted(self._times, newest + self.ttl, side="right"))
        return self._entities.slice(start, max(stop - start, 0))

    def _keep_better(
        self, entity: Integers, row: Integers, event: Integers, created: Integers
    ) -> None:
        if self._best is None:
            lowest = np.full(len(self.winners), LOWEST, dtype=np.int64)
            self._best = (lowest, lowest.copy())
            better = np.ones(len(entity), dtype=bool)
        else:
            old_event, old_created = self._best[0][entity], self._best[1][entity]
            better = (event > old_event) | (
                (event == old_event)
                & (
                    (created > old_created)
                    | ((created == old_created) & (row > self.winners[entity]))
                )
            )
        chosen = entity[better]
        self._best[0][chosen], self._best[1][chosen] = event[better], created[better]
        self.winners[chosen] = row[better]


def newest_rows(
    keys: Sequence[pa.ChunkedArray | pa.Array],
    event: pa.ChunkedArray | pa.Array,
    created: pa.ChunkedArray | pa.Array | None,
) -> Integers:
    """Positions of the newest row per key by `(event, created, position)`, ascending.

    Rows without an event time are left out; a null in a key is a key like any other.
    """
    names = [f"k{i}" for i in range(len(keys))]
    columns = {name: _series(key) for name, key in zip(names, keys, strict=True)}
    columns["event"] = _series(event)
    columns["created"] = _series(created) if created is not None else _series(event)
    frame = pl.DataFrame(columns).with_columns(
        pl.int_range(len(event), dtype=pl.Int64).alias("row")
    )
    frame = frame.filter(pl.col("event").is_not_null()).sort(
        ["event", "created", "row"], nulls_last=False
    )
    kept = frame.unique(names, keep="last") if names else frame.tail(1)
    return np.sort(kept["row"].to_numpy())


def _series(values: pa.ChunkedArray | pa.Array) -> pl.Series:
    return pl.Series(pl.from_arrow(values))


def _in_order(frame: pl.DataFrame) -> bool:
    """Whether rows are in order of (event, created, row); cheap, as sources mostly are."""
    event, created = frame["event"].to_numpy(), frame["created"].to_numpy()
    step = np.diff(event)
    return bool(((step > 0) | ((step == 0) & (np.diff(created) >= 0))).all())
