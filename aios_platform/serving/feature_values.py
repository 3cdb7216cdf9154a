"""What the online store answers, as numbers and objects per entity.

Numbers are read by numpy where they lie. Values are Feast's protobuf `Value` messages:
`feast/protos/feast/types/Value.proto`.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from aios_platform.features.online_plan import OnlinePlan
from aios_platform.serving.feature_query import VALUE_BYTES, cells_of, statement

# Postgres counts microseconds from 2000.
EPOCH_MICROSECONDS = 946_684_800_000_000
CELL = np.dtype(
    {
        "names": ["column", "place", "event", "tag", "float", "double", "varint"],
        "formats": [">u2", ">i4", ">i8", "u1", "<f4", "<f8", ("u1", 10)],
        "offsets": [0, 2, 6, 14, 15, 15, 15],
        "itemsize": 14 + VALUE_BYTES,
    }
)
HEAD = struct.Struct(">Hiqi")
# Field number and wire type of a `Value`, as its first byte says them.
NULL, STRING, INT32, INT64, DOUBLE, FLOAT, BOOL, INSTANT = 0, 18, 24, 32, 41, 53, 56, 64
INTEGERS = (INT32, INT64, BOOL)

Values = tuple[bytes, tuple[Any, ...]]
"""Values of one entity: float64 numbers (`EntityLayout`), and objects."""


@dataclass(frozen=True)
class EntityLayout:
    """Where the values of an entity lie.

    Its numbers are: how many cells were found (NaN: none), the event of each view (Unix
    microseconds), the numerical features.

    Args:
        views: Places of its views in the plan.
        numbers: Per number, from `first` on: place of the view in the plan, feature.
        objects: Per object: place of the view in the plan, feature.
    """

    views: tuple[int, ...]
    numbers: tuple[tuple[int, str], ...]
    objects: tuple[tuple[int, str], ...]

    @cached_property
    def first(self) -> int:
        """Place of the first numerical feature."""
        return 1 + len(self.views)

    @cached_property
    def width(self) -> int:
        """How many numbers there are."""
        return self.first + len(self.numbers)

    @cached_property
    def cells(self) -> int:
        """How many cells are found when none is missing."""
        return len(self.numbers) + len(self.objects)

    def without_values(self, cells: float) -> Values:
        """Values of an entity of which nothing is known but the number of cells."""
        numbers = np.full(self.width, np.nan)
        numbers[0] = cells
        return numbers.tobytes(), (None,) * len(self.objects)


class ValueReader:
    """The statement of a plan, and how its answer is read.

    Args:
        plan: The plan.
    """

    def __init__(self, plan: OnlinePlan) -> None:
        self.layouts = tuple(
            EntityLayout(
                entity.views,
                tuple((v, name) for v in entity.views for name in plan.views[v].numbers),
                tuple((v, name) for v in entity.views for name in plan.views[v].objects),
            )
            for entity in plan.entities
        )
        owners: list[int] = []
        slots: list[int] = []
        events: list[int] = []
        numbers: list[sql.Composed] = []
        objects: list[sql.Composed] = []
        self._objects: dict[int, int] = {}
        # Per kind of key and view: number, feature, and whether it is a number.
        self.columns: dict[tuple[int, int], list[tuple[int, str, bool]]] = {}
        for owner, layout in enumerate(self.layouts):
            for cells, parts, is_number in (
                (layout.numbers, numbers, True),
                (layout.objects, objects, False),
            ):
                for view in layout.views:
                    columns = {}
                    for slot, (of, name) in enumerate(cells):
                        if of != view:
                            continue
                        columns[name] = len(owners)
                        known = self.columns.setdefault((owner, view), [])
                        known.append((len(owners), name, is_number))
                        if not is_number:
                            self._objects[len(owners)] = slot
                        owners.append(owner)
                        slots.append(layout.first + slot if is_number else 0)
                        events.append(1 + layout.views.index(view))
                    if columns:
                        table = plan.views[view].table
                        parts.append(cells_of(owner + 1, table, columns, is_number=is_number))
        self._owner = np.array(owners, np.intp)
        self._slot = np.array(slots, np.intp)
        self._event = np.array(events, np.intp)
        self._width = np.array([layout.width for layout in self.layouts], np.intp)
        self.statement = statement(numbers, objects)

    def values(
        self, counts: Sequence[int], numbers: bytes | None, objects: bytes | None
    ) -> list[list[Values]]:
        """Read an answer.

        Args:
            counts: Per entity kind: how many keys were asked for.
            numbers: The statement's first column.
            objects: Its second.

        Returns:
            Per entity kind and key asked for: the values.
        """
        sizes = self._width * counts
        starts = np.concatenate(([0], np.cumsum(sizes)))
        flat = np.full(int(starts[-1]), np.nan)
        found: list[dict[int, list[Any]]] = [{} for _ in counts]
        if numbers:
            cells = np.frombuffer(numbers, CELL)
            column = cells["column"].astype(np.intp)
            owner = self._owner[column]
            at = starts[owner] + (cells["place"].astype(np.intp) - 1) * self._width[owner]
            value, known = _numbers(cells)
            flat[at + self._slot[column]] = value
            event = cells["event"].astype(np.float64) + EPOCH_MICROSECONDS
            np.fmin.at(flat, at + self._event[column], event)
            flat[at] = 0.0
            np.add.at(flat, at, known)
        for number, place, moment, message in _variable(objects or b""):
            owner_ = int(self._owner[number])
            layout = self.layouts[owner_]
            row = int(starts[owner_]) + (place - 1) * layout.width
            event_ = row + int(self._event[number])
            flat[event_] = np.fmin(flat[event_], moment + EPOCH_MICROSECONDS)
            flat[row] = np.nan_to_num(flat[row]) + 1.0
            kept = found[owner_].setdefault(place - 1, [None] * len(layout.objects))
            kept[self._objects[number]] = message
        raw = flat.tobytes()
        return [
            _split(layout, raw, int(start) * 8, count, kept_)
            for layout, start, count, kept_ in zip(
                self.layouts, starts[:-1], counts, found, strict=True
            )
        ]


def _split(
    layout: EntityLayout, raw: bytes, start: int, count: int, objects: dict[int, list[Any]]
) -> list[Values]:
    none = (None,) * len(layout.objects)
    size = layout.width * 8
    if not layout.objects:
        return [(raw[at : at + size], none) for at in range(start, start + count * size, size)]
    return [
        (raw[start + place * size : start + (place + 1) * size], tuple(objects.get(place, none)))
        for place in range(count)
    ]


def _numbers(cells: NDArray[np.void]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values, NaN where null, and which cells hold a number or null."""
    tag = cells["tag"]
    with np.errstate(invalid="ignore"):
        value = np.where(tag == FLOAT, cells["float"].astype(np.float64), np.nan)
    double = tag == DOUBLE
    value[double] = cells["double"][double]
    known = (tag == FLOAT) | double | (tag == NULL)
    if not known.all():
        whole = np.isin(tag, INTEGERS)
        value[whole] = _integers(cells["varint"][whole])
        known |= whole
    return value, known


def _integers(digits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Protobuf varints: seven bits a byte, least first; the high bit says that more follow."""
    more = (digits[:, :-1] & 0x80) != 0
    used = np.ones(digits.shape, bool)
    used[:, 1:] = np.logical_and.accumulate(more, axis=1)
    shifted = (digits & 0x7F).astype(np.uint64) << np.arange(0, 70, 7, dtype=np.uint64)
    whole: NDArray[np.uint64] = np.where(used, shifted, np.uint64(0)).sum(axis=1, dtype=np.uint64)
    return whole.view(np.int64)


def _variable(blob: bytes) -> Iterator[tuple[int, int, int, Any]]:
    at = 0
    while at < len(blob):
        column, place, event, length = HEAD.unpack_from(blob, at)
        at += HEAD.size
        message = blob[at : at + length]
        at += length
        if not message:
            yield column, place, event, None
        elif message[0] in DECODERS:
            yield column, place, event, DECODERS[message[0]](message[1:])


def _varint(digits: bytes) -> int:
    value = shift = 0
    for digit in digits:
        value |= (digit & 0x7F) << shift
        shift += 7
        if digit < 0x80:
            break
    return value - (1 << 64) if value >= 1 << 63 else value


def _text(body: bytes) -> str:
    start = next(place for place, digit in enumerate(body) if digit < 0x80) + 1
    return body[start:].decode()


def _instant(body: bytes) -> datetime | None:
    seconds = _varint(body)
    return None if seconds == -(1 << 63) else datetime.fromtimestamp(seconds, UTC)


DECODERS: dict[int, Callable[[bytes], Any]] = {
    STRING: _text,
    INT32: _varint,
    INT64: _varint,
    BOOL: lambda body: body[0] != 0,
    FLOAT: lambda body: struct.unpack("<f", body)[0],
    DOUBLE: lambda body: struct.unpack("<d", body)[0],
    INSTANT: _instant,
}
