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
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

Integers = npt.NDArray[np.int64]

Column: TypeAlias = "pa.ChunkedArray | pa.Array"

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

    keys: Sequence[Column]
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

    keys: Sequence[Column]
    moments: pa.ChunkedArray | pa.Array
    ttl: int | None = None
    honour_created: bool = True
    winners: Integers = field(init=False)

    def __post_init__(self) -> None:
        rows = len(self.moments)
        self._sets = [pc.unique(key).drop_null() for key in self.keys]
        code = self._code(self.keys)
        kept = _without_nulls([code, self.moments])
        frame = pl.DataFrame(
            {
                "code": _integers(code, kept),
                "t": _integers(self.moments, kept),
                "entity": np.arange(rows) if kept is None else kept,
            }
        )
        if not frame["t"].is_sorted():
            frame = frame.sort("t", maintain_order=True)
        self._entities = frame.with_columns(pl.col("t").set_sorted())
        self._times: Integers = frame["t"].to_numpy()
        self.winners = np.full(rows, NONE, dtype=np.int64)
        self._found: _Found | None = None
        self._best: tuple[Integers, Integers] | None = None

    def feed(self, batch: FeatureRows) -> None:
        """Take one more batch of the source into account."""
        seen = self._visible(batch)
        if seen is None:
            return
        visible, rows, event, created = seen
        start = int(np.searchsorted(self._times, visible["visible"][0], side="left"))
        stop = len(self._times)
        if self.ttl is not None:
            newest = int(event.max())
            stop = int(np.searchsorted(self._times, newest + self.ttl, side="right"))
        if stop <= start:
            return
        # Of equal moments of visibility polars takes the last, which here is the best.
        found = self._entities.slice(start, stop - start).join_asof(
            visible,
            left_on="t",
            right_on="visible",
            by="code",
            strategy="backward",
            check_sortedness=False,
        )
        position, entity = found["position"], found["entity"].to_numpy()
        if position.null_count():
            hit = position.is_not_null().to_numpy()
            taken, entity = position.drop_nulls().to_numpy(), entity[hit]
            times = self._times[start:stop][hit]
        else:
            taken, times = position.to_numpy(), self._times[start:stop]
        if self.ttl is not None:
            young = event[taken] >= times - self.ttl
            if not young.all():
                taken, entity = taken[young], entity[young]
        place = taken if rows is None else rows[taken]
        self._keep_better(_Found(entity, place + batch.first, taken, event, created))

    def _visible(
        self, batch: FeatureRows
    ) -> tuple[pl.DataFrame, Integers | None, Integers, Integers | None] | None:
        """Moments at which the winner may change, with the position of the row that wins.

        Returns:
            Codes of keys, `visible` and `position`, in order of `visible`; and by position the
            row in the batch (None: the same), its event and its created time (None: the same as
            its event, or none is known). Or None when no row can be seen.
        """
        honoured = batch.created is not None and self.honour_created
        clocks = [batch.event, batch.created] if honoured else [batch.event]
        code_of_rows = self._code(batch.keys, len(batch.event))
        rows = _without_nulls([code_of_rows, *clocks])
        code = _integers(code_of_rows, rows)
        event = _integers(batch.event, rows)
        if not len(event):
            return None
        created = None
        if batch.created is not None:
            filled = batch.created
            if filled.null_count:
                filled = pc.fill_null(filled, LOWEST)
            created = _integers(filled, rows)
            created = None if np.array_equal(created, event) else created
        in_order = bool(pl.Series(event).is_sorted())
        if created is not None or not in_order:
            times = pl.DataFrame({"e": event} if created is None else {"e": event, "c": created})
            by = pl.arg_sort_by(times.columns, maintain_order=True).cast(pl.Int64)
            order = times.select(by).to_series().to_numpy()
            code, event = code[order], event[order]
            created = None if created is None else created[order]
            rows = order if rows is None else rows[order]
        position = np.arange(len(event))
        frame = pl.DataFrame({"code": code, "position": position, "visible": event})
        if created is not None and self.honour_created and bool((created > event).any()):
            frame = frame.with_columns(pl.Series("visible", np.maximum(event, created)))
            frame = frame.sort(["visible", "position"])
            frame = frame.with_columns(pl.col("position").cum_max().over("code"))
        return frame.with_columns(pl.col("visible").set_sorted()), rows, event, created

    def _code(self, keys: Sequence[Column], rows: int | None = None) -> Column:
        """One integer per key of the entity rows; null for other keys and for nulls.

        Feature rows of keys that nobody asks for fall out by it before they are joined.
        """
        code: Column | None = None
        for values, known in zip(keys, self._sets, strict=True):
            part = pc.cast(_places(values, known), pa.int64())
            code = part if code is None else pc.add(pc.multiply(code, len(known)), part)
        return pa.array(np.zeros(rows or len(self.moments), np.int64)) if code is None else code

    def _keep_better(self, found: "_Found") -> None:
        if self._found is None:
            self.winners[found.entity] = found.row
            self._found = found
            return
        if self._best is None:
            lowest = np.full(len(self.winners), LOWEST, dtype=np.int64)
            self._best = (lowest, lowest.copy())
            self._remember(self._found, np.ones(len(self._found.entity), dtype=bool))
        old_event, old_created = self._best[0][found.entity], self._best[1][found.entity]
        event, created = found.times()
        better = (event > old_event) | (
            (event == old_event)
            & (
                (created > old_created)
                | ((created == old_created) & (found.row > self.winners[found.entity]))
            )
        )
        self._remember(found, better)
        self.winners[found.entity[better]] = found.row[better]

    def _remember(self, found: "_Found", which: npt.NDArray[np.bool_]) -> None:
        assert self._best is not None
        event, created = found.times()
        self._best[0][found.entity[which]] = event[which]
        self._best[1][found.entity[which]] = created[which]


@dataclass(frozen=True)
class _Found:
    """Winners of one batch: entity rows, source rows, and where their times are."""

    entity: Integers
    row: Integers
    taken: Integers
    event: Integers
    created: Integers | None

    def times(self) -> tuple[Integers, Integers]:
        """Event and created times of the winners; without a clock of its own, the event's."""
        event = self.event[self.taken]
        return event, event if self.created is None else self.created[self.taken]


def newest_rows(
    keys: Sequence[Column],
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


def _without_nulls(columns: Sequence[Column]) -> Integers | None:
    """Positions without a null in any of the columns; None: all of them."""
    valid = None
    for column in columns:
        if column.null_count:
            there = pc.is_valid(column)
            valid = there if valid is None else pc.and_(valid, there)
    return None if valid is None else np.flatnonzero(valid.to_numpy(zero_copy_only=False))


def _places(values: Column, known: pa.Array) -> Column:
    """Places of values in a set of known ones; null for others."""
    if not pa.types.is_dictionary(values.type):
        return pc.index_in(values, value_set=known)
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    found = [
        pc.index_in(chunk.dictionary.cast(known.type), value_set=known).take(chunk.indices)
        for chunk in chunks
    ]
    return pa.chunked_array(found, pa.int32())


def _series(values: Column) -> pl.Series:
    return pl.Series(pl.from_arrow(values))


def _integers(values: pa.ChunkedArray | pa.Array, rows: Integers | None) -> Integers:
    if rows is not None:
        values = values.take(pa.array(rows))
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.int64)
