"""From the values of entities to the features of rows: ages, on-demand features, one matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aios_platform.errors import FeatureError
from aios_platform.features.online_plan import OnDemandView, OnlinePlan
from aios_platform.serving.feature_keys import Key
from aios_platform.serving.feature_values import EntityLayout, Values

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
        self._kinds = [_Kind(plan, layout) for layout in layouts]
        self._places = places
        self._ttl = np.array(
            [np.inf if v.ttl is None else v.ttl * MICROSECONDS for v in plan.views]
        )
        self._stored = {
            source: (kind, slot, is_number)
            for kind, layout in enumerate(layouts)
            for is_number, cells in ((False, layout.objects), (True, layout.numbers))
            for slot, source in enumerate(cells)
            if is_number or source not in layout.numbers
        }

    def build(
        self,
        rows: Sequence[Row],
        moments: NDArray[np.float64],
        keys: Sequence[Sequence[Key]],
        found: Sequence[Sequence[Values | None]],
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
        event = np.full((count, len(plan.views)), np.nan)
        missing, unreachable = np.zeros(count, bool), np.zeros(count, bool)
        numbers: list[NDArray[np.float64]] = []
        objects: list[list[tuple[Any, ...]]] = []
        for kind, values, asked in zip(self._kinds, found, keys, strict=True):
            if None in values:
                unread = [v is None and k is not None for v, k in zip(values, asked, strict=True)]
                unreachable |= np.array(unread)
                values = [v or kind.gap(k) for v, k in zip(values, asked, strict=True)]
            block = np.frombuffer(b"".join([v[0] for v in values if v]), np.float64)
            block = block.reshape(count, kind.layout.width)
            event[:, kind.layout.views] = block[:, 1 : kind.layout.first]
            missing |= block[:, 0] < kind.layout.cells
            numbers.append(block)
            objects.append([v[1] for v in values if v] if kind.layout.objects else [])
        age = np.rint(moments * MICROSECONDS)[:, None] - event
        # An age that is not a number is no age within the TTL.
        expired = ~((age <= self._ttl) | np.isnan(event))
        if expired.any():
            for place, kind in enumerate(self._kinds):
                numbers[place] = kind.numbers_without(expired, numbers[place])
                objects[place] = kind.objects_without(expired, objects[place])
        matrix = np.full((count, len(plan.numerical)), np.nan, np.float32)
        texts: list[list[str]] = [[] for _ in plan.categorical]
        with np.errstate(over="ignore", invalid="ignore"):
            for kind, block, of_kind in zip(self._kinds, numbers, objects, strict=True):
                matrix[:, kind.to] = block[:, kind.take]
                for slot, to in kind.texts:
                    texts[to] = _texts([each[slot] for each in of_kind])
            for view in plan.on_demand:
                self._compute(view, rows, moments, numbers, objects, matrix, texts)
        infinite = np.isinf(matrix)
        if infinite.any():
            matrix[infinite] = np.nan
            missing |= infinite.any(axis=1)
        return FeatureBlock(
            matrix=matrix,
            texts=tuple(texts),
            event=event / MICROSECONDS,
            missing=missing,
            stale=expired.any(axis=1),
            unreachable=unreachable,
        )

    def _compute(
        self,
        view: OnDemandView,
        rows: Sequence[Row],
        moments: NDArray[np.float64],
        numbers: list[NDArray[np.float64]],
        objects: list[list[tuple[Any, ...]]],
        matrix: NDArray[np.float32],
        texts: list[list[str]],
    ) -> None:
        """Compute one on-demand view into the matrix and the texts."""
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
            of_kind, slot, is_number = self._stored[source]
            if is_number:
                column = numbers[of_kind][:, self._kinds[of_kind].layout.first + slot].tolist()
                columns[source[1]] = [None if value != value else value for value in column]
            else:
                columns[source[1]] = [each[slot] for each in objects[of_kind]]
        try:
            computed = view.compute(columns)
            results = [list(computed[name]) for name in view.features]
            if any(len(result) != len(rows) for result in results):
                raise ValueError("it returned another number of rows than it was given")
            for name, result in zip(view.features, results, strict=True):
                if name in self._plan.numerical:
                    column_ = np.array(result, np.float64)
                    if name in view.whole:
                        column_ = np.trunc(column_)
                    matrix[:, self._plan.numerical.index(name)] = column_
                elif name in self._plan.categorical:
                    texts[self._plan.categorical.index(name)] = _texts(result)
        except Exception as error:
            raise FeatureError(
                f"The on-demand feature view '{view.name}' fails: {type(error).__name__}: {error}",
                remedy="Correct its function and apply the Feast repository.",
            ) from error


class _Kind:
    """Where the values of one entity kind go."""

    def __init__(self, plan: OnlinePlan, layout: EntityLayout) -> None:
        self.layout = layout
        served = {name: place for place, name in enumerate(plan.numerical)}
        texts = {name: place for place, name in enumerate(plan.categorical)}
        pairs = [
            (layout.first + slot, served[name])
            for slot, (view, name) in enumerate(layout.numbers)
            if name in plan.views[view].served
        ]
        self.take = [slot for slot, _ in pairs]
        self.to = [place for _, place in pairs]
        self.texts = [
            (slot, texts[name])
            for slot, (view, name) in enumerate(layout.objects)
            if name in texts and name in plan.views[view].served
        ]
        self._unknown = layout.filled(0.0)
        self._unread = layout.filled(float(layout.cells))

    def gap(self, key: Key) -> Values:
        """Values in place of those that there are not."""
        return self._unknown if key is None else self._unread

    def numbers_without(
        self, expired: NDArray[np.bool_], block: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        views = np.array([view for view, _ in self.layout.numbers], np.intp)
        if not len(views):
            return block
        kept = block.copy()
        kept[:, self.layout.first :][expired[:, views]] = np.nan
        return kept

    def objects_without(
        self, expired: NDArray[np.bool_], objects: list[tuple[Any, ...]]
    ) -> list[tuple[Any, ...]]:
        if not objects:
            return objects
        gone = expired[:, [view for view, _ in self.layout.objects]]
        return [
            tuple(None if out else value for value, out in zip(values, row, strict=True))
            for values, row in zip(objects, gone.tolist(), strict=True)
        ]


def _texts(column: list[Any]) -> list[str]:
    return [value if type(value) is str else "" for value in column]


def _whole_second(seconds: float) -> datetime | None:
    """A moment as Feast hands it to a function: in whole seconds."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None
