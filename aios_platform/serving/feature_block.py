"""From the values of entities to the features of rows: ages, on-demand features, one matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aios_platform.errors import FeatureError
from aios_platform.features.online_plan import OnDemandView, OnlinePlan
from aios_platform.serving.feature_cache import Entry
from aios_platform.serving.feature_keys import Key
from aios_platform.serving.feature_values import EntityLayout
from aios_platform.serving.problems import traced

Row = tuple[Any, ...]
MICROSECONDS = 1e6


@dataclass(frozen=True)
class FeatureBlock:
    """The features of some rows.

    Args:
        matrix: float32 (rows, numerical features of the plan); NaN: missing.
        texts: Per categorical feature of the plan: one text per row; empty: missing.
        event: float64 (rows, views of the plan): Unix seconds of the value's event; NaN: none.
        missing: bool (rows,): the store lacks a value of some feature's entity (a null is a
            value), or a value is infinite, which no model was trained on.
        stale: bool (rows,): some value was older than its view's TTL, and so is missing.
        unreachable: bool (rows,): some value could not be read, and none was remembered.
    """

    matrix: NDArray[np.float32]
    texts: tuple[list[str], ...]
    event: NDArray[np.float64]
    missing: NDArray[np.bool_]
    stale: NDArray[np.bool_]
    unreachable: NDArray[np.bool_]


class BlockBuilder:
    """Makes feature blocks of what was read.

    Args:
        plan: The plan.
        layouts: Per entity kind: where its values lie.
        places: Place of each input in a row; the prediction time is not needed.
    """

    def __init__(
        self, plan: OnlinePlan, layouts: Sequence[EntityLayout], places: Mapping[str, int]
    ) -> None:
        self._plan = plan
        self._places = places
        self._unknown = [(*layout.without_values(0.0), 0.0) for layout in layouts]
        self._unread = [(*layout.without_values(layout.cells), 0.0) for layout in layouts]
        # A row's values are those of its entities, one after the other.
        starts = np.cumsum([0, *(layout.width for layout in layouts)])
        self._width = int(starts[-1])
        self._found = starts[:-1]
        self._cells = np.array([layout.cells for layout in layouts])
        event = {
            view: int(start) + 1 + place
            for start, layout in zip(starts[:-1], layouts, strict=True)
            for place, view in enumerate(layout.views)
        }
        self._events = [event[view] for view in range(len(plan.views))]
        self._numbers = [
            int(start) + layout.first + slot
            for start, layout in zip(starts[:-1], layouts, strict=True)
            for slot in range(len(layout.numbers))
        ]
        numbers = [source for layout in layouts for source in layout.numbers]
        objects = [source for layout in layouts for source in layout.objects]
        self._number_views = [view for view, _ in numbers]
        self._object_views = [view for view, _ in objects]
        # What is read as both is an object to an on-demand view.
        self._stored = {source: (True, slot) for slot, source in enumerate(numbers)}
        self._stored |= {source: (False, slot) for slot, source in enumerate(objects)}
        self._take, self._to = _served(plan, numbers, plan.numerical)
        self._texts = list(zip(*_served(plan, objects, plan.categorical), strict=True))
        ttls = [np.inf if view.ttl is None else view.ttl for view in plan.views]
        self._ttl = np.array(ttls) * MICROSECONDS

    def build(
        self,
        rows: Sequence[Row],
        moments: NDArray[np.float64],
        keys: Sequence[Sequence[Key]],
        found: Sequence[Sequence[Entry | None]],
    ) -> FeatureBlock:
        """Make the block of some rows.

        Args:
            rows: The rows.
            moments: float64 (rows,): Unix seconds at which ages are judged.
            keys: Per entity kind and row: the key; None: null.
            found: Per entity kind and row: the values; None: not read.

        Raises:
            FeatureError: An on-demand view fails.
        """
        plan, count = self._plan, len(rows)
        entries, unreachable = self._without_gaps(keys, found, count)
        by_row = list(zip(*entries, strict=True))
        joined = b"".join([entry[0] for row in by_row for entry in row])
        values = np.frombuffer(joined, np.float64).reshape(count, self._width)
        event = values[:, self._events]
        missing: NDArray[np.bool_] = ~np.all(values[:, self._found] >= self._cells, axis=1)
        age = np.rint(moments * MICROSECONDS)[:, None] - event
        # An age that is not a number is no age within the TTL.
        expired = ~((age <= self._ttl) | np.isnan(event))
        stale: NDArray[np.bool_] = np.any(expired, axis=1)
        numbers = values[:, self._numbers]
        objects: list[list[Any]] = []
        if self._object_views:
            objects = [[value for entry in row for value in entry[1]] for row in by_row]
        if stale.any():
            numbers[expired[:, self._number_views]] = np.nan
            for values_, gone in zip(objects, expired[:, self._object_views], strict=False):
                for slot in np.flatnonzero(gone).tolist():
                    values_[slot] = None
        matrix = np.full((count, len(plan.numerical)), np.nan, np.float32)
        texts: list[list[str]] = [[] for _ in plan.categorical]
        with np.errstate(over="ignore", invalid="ignore"):
            matrix[:, self._to] = numbers[:, self._take]
            for slot, to in self._texts:
                texts[to] = _texts([each[slot] for each in objects])
            for view in plan.on_demand:
                columns = self._columns(view, rows, moments, numbers, objects)
                self._compute(view, columns, matrix, texts)
        infinite = np.isinf(matrix)
        if infinite.any():
            matrix[infinite] = np.nan
            missing |= infinite.any(axis=1)
        return FeatureBlock(
            matrix=matrix,
            texts=tuple(texts),
            event=event / MICROSECONDS,
            missing=missing,
            stale=stale,
            unreachable=unreachable,
        )

    def _without_gaps(
        self,
        keys: Sequence[Sequence[Key]],
        found: Sequence[Sequence[Entry | None]],
        count: int,
    ) -> tuple[list[list[Entry]], NDArray[np.bool_]]:
        """Entries for all, and the rows for which something was not read."""
        unreachable = np.zeros(count, bool)
        entries = []
        for of_kind, asked, unknown, unread in zip(
            found, keys, self._unknown, self._unread, strict=True
        ):
            if None in of_kind:
                unreachable |= [
                    entry is None and key is not None
                    for entry, key in zip(of_kind, asked, strict=True)
                ]
            entries.append(
                [
                    entry or (unknown if key is None else unread)
                    for entry, key in zip(of_kind, asked, strict=True)
                ]
            )
        return entries, unreachable

    def _columns(
        self,
        view: OnDemandView,
        rows: Sequence[Row],
        moments: NDArray[np.float64],
        numbers: NDArray[np.float64],
        objects: list[list[Any]],
    ) -> dict[str, list[Any]]:
        """What an on-demand view is given: keys, what it takes of the request and of the store."""
        columns: dict[str, list[Any]] = {}
        for name, kind in self._plan.kinds.items():
            if name == self._plan.moment:
                columns[name] = [_whole_second(moment) for moment in moments.tolist()]
                continue
            place = self._places[name]
            column = [row[place] for row in rows]
            if kind == "timestamp":
                column = [None if t is None else _whole_second(t.timestamp()) for t in column]
            columns[name] = column
        for source in view.stored:
            is_number, slot = self._stored[source]
            if is_number:
                column = numbers[:, slot].tolist()
                columns[source[1]] = [None if value != value else value for value in column]
            else:
                columns[source[1]] = [each[slot] for each in objects]
        return columns

    def _compute(
        self,
        view: OnDemandView,
        columns: dict[str, list[Any]],
        matrix: NDArray[np.float32],
        texts: list[list[str]],
    ) -> None:
        """Compute an on-demand view into the matrix and the texts."""
        try:
            computed = view.compute(columns)
            for name in view.features:
                result = list(computed[name])
                if len(result) != len(matrix):
                    raise ValueError(f"'{name}' has {len(result)} of {len(matrix)} rows")
                if name in self._plan.categorical:
                    texts[self._plan.categorical.index(name)] = _texts(result)
                    continue
                column = np.array(result, np.float64)
                column = np.trunc(column) if name in view.whole else column
                matrix[:, self._plan.numerical.index(name)] = column
        except Exception as error:
            raise FeatureError(
                f"The on-demand feature view '{view.name}' fails: {traced(error)}.",
                remedy="Correct its function and apply the Feast repository.",
            ) from error


def _served(
    plan: OnlinePlan, sources: list[tuple[int, str]], names: tuple[str, ...]
) -> tuple[list[int], list[int]]:
    """Where the model's features lie among what is read, and their places in its schema."""
    places = {name: place for place, name in enumerate(names)}
    pairs = [
        (slot, places[name])
        for slot, (view, name) in enumerate(sources)
        if name in places and name in plan.views[view].served
    ]
    return [slot for slot, _ in pairs], [place for _, place in pairs]


def _texts(column: list[Any]) -> list[str]:
    return [value if type(value) is str else "" for value in column]


def _whole_second(seconds: float) -> datetime | None:
    """A moment as Feast hands it to a function: in whole seconds."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None
