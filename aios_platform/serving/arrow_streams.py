"""Arrow IPC streams from outside as columns: checked before anything of them is used."""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aios_platform.columns import is_list
from aios_platform.errors import RequestRefused
from aios_platform.serving.contract import InputContract
from aios_platform.serving.inputs import LONG_TEXT_MAX, TEXT_MAX

BATCH, DICTIONARY = "record batch", "dictionary"
# Threads cost more than they save on what a request holds.
ALONE = pa.ipc.IpcReadOptions(use_threads=False)
FLOATS = frozenset({pa.float32().id, pa.float64().id})


class Shapes(NamedTuple):
    """Columns that may hold more than one short value per row.

    Attributes:
        vectors: Length of each vector by name.
        texts: Names of long texts.
    """

    vectors: Mapping[str, int]
    texts: frozenset[str]

    @classmethod
    def of(cls, contracts: Iterable[InputContract]) -> "Shapes":
        """What callers call them, in any of a model's contracts."""
        inputs = [entry for contract in contracts for entry in (*contract.inputs, *contract.sent)]
        return cls(
            {entry.name: entry.length for entry in inputs if entry.length is not None},
            frozenset(entry.name for entry in inputs if entry.kind == "text"),
        )


NARROW = Shapes({}, frozenset())


class ArrowColumns(Mapping[str, pa.Array]):
    """The columns of a checked batch by name, each made when it is asked for.

    Args:
        batch: The batch.
        names: Names of its columns; no two are alike.
    """

    def __init__(self, batch: pa.RecordBatch, names: list[str]) -> None:
        self._batch = batch
        self._places = {name: place for place, name in enumerate(names)}
        self.rows: int = batch.num_rows
        self._kinds = [kind.id for kind in batch.schema.types]

    def __getitem__(self, name: str) -> pa.Array:
        return self._batch.column(self._places[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def numbers(self, names: Sequence[str]) -> NDArray[np.float64] | None:
        """These columns side by side, if all are floating-point numbers; null is NaN.

        Returns:
            Shape (rows, columns), float32 or float64.
        """
        places = [self._places[name] for name in names]
        if not all(self._kinds[place] in FLOATS for place in places):
            return None
        found: NDArray[np.float64] = (
            self._batch.select(places).to_tensor(null_to_nan=True).to_numpy()
        )
        return found


def arrow_columns(body: bytes, most_rows: int, shapes: Shapes = NARROW) -> ArrowColumns:
    """Columns of an Arrow IPC stream.

    Compressed bodies are refused: a few kilobytes could become gigabytes.

    Raises:
        RequestRefused: It is not such a stream, is compressed, or has too many rows.
    """
    try:
        rows = _rows_of(body)
        if rows > most_rows:
            raise RequestRefused(
                f"The request has {rows:,} rows; at most {most_rows:,} are taken.",
                code="too_many_rows",
                remedy="Send them in several requests.",
            )
        with pa.ipc.open_stream(pa.py_buffer(body), options=ALONE) as reader:
            batches = list(reader)
            # Bytes from outside may point anywhere until they are checked.
            for batch in batches:
                batch.validate(full=True)
            whole = batches[0] if len(batches) == 1 else _together(batches, reader.schema)
            return _checked(whole, shapes)
    except (pa.ArrowException, OSError, struct.error, LookupError, ValueError) as error:
        raise RequestRefused(
            f"The body is not an Arrow IPC stream: {str(error)[:200]}", code="malformed_body"
        ) from None


def _checked(whole: pa.RecordBatch, shapes: Shapes) -> ArrowColumns:
    """The columns by name; what they are called may be no UTF-8, which is a `ValueError`."""
    names = whole.schema.names
    if len(set(names)) != len(names):
        raise RequestRefused("Two columns have one name.", code="malformed_body")
    if not whole.num_rows or not names:
        raise RequestRefused("The request holds no rows.", code="invalid_input")
    for place, kind in enumerate(whole.schema.types):
        if kind.id in FLOATS and names[place] not in shapes.vectors:
            continue
        # So may the name of an offset be, which is read here for the first time.
        if pa.types.is_timestamp(kind) and kind.tz == "":
            raise wrong_type(names[place], kind, "a timestamp with an offset")
        refuse_growth(names[place], whole.column(place), shapes)
    return ArrowColumns(whole, names)


def _together(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    """Several batches as one."""
    table = pa.Table.from_batches(batches, schema).combine_chunks()
    arrays = [c.chunk(0) if c.num_chunks else pa.nulls(0, c.type) for c in table.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def refuse_growth(name: str, column: pa.Array, shapes: Shapes = NARROW) -> None:
    """Refuse what could become far more than the body: nested and shared values, long texts.

    Raises:
        RequestRefused: It could.
    """
    length = shapes.vectors.get(name)
    if length is not None:
        _refuse_other_vectors(name, column, length)
        return
    plain = plain_type(column.type)
    if not (
        plain in (pa.string(), pa.null())
        or pa.types.is_boolean(plain)
        or pa.types.is_integer(plain)
        or pa.types.is_floating(plain)
        or pa.types.is_timestamp(plain)
    ):
        raise wrong_type(name, column.type, "a number, text, truth value or timestamp")
    if plain != pa.string():
        return
    most = TEXT_MAX
    if name in shapes.texts:
        if pa.types.is_dictionary(column.type):
            raise wrong_type(name, column.type, "texts one by one, without a dictionary")
        most = LONG_TEXT_MAX
    texts = column.dictionary if pa.types.is_dictionary(column.type) else column
    if (pc.max(pc.utf8_length(texts)).as_py() or 0) > most:
        raise RequestRefused(
            f"A value of '{name[:100]}' has more than {most:,} characters.",
            code="invalid_input",
        )


def _refuse_other_vectors(name: str, column: pa.Array, length: int) -> None:
    kind = column.type
    if pa.types.is_null(kind):
        return
    if not is_list(kind) or not (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    ):
        raise wrong_type(name, kind, f"lists of {length:,} numbers")
    present = column.drop_null()
    lengths = pc.min_max(pc.list_value_length(present)).as_py() if len(present) else {}
    if any(found != length for found in lengths.values()):
        raise RequestRefused(
            f"A value of '{name[:100]}' has not {length:,} numbers.", code="invalid_input"
        )
    values = present.flatten()
    if values.null_count or not pc.all(pc.is_finite(values), min_count=0).as_py():
        raise RequestRefused(
            f"A value of '{name[:100]}' holds a number that is missing or not finite.",
            code="invalid_input",
        )


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, however they are laid out; of all texts that of `string`."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if pa.types.is_large_string(value) else value


def wrong_type(name: str, kind: pa.DataType, expected: str) -> RequestRefused:
    """The refusal of a column of another type."""
    return RequestRefused(
        f"The column '{name}' is of type {kind}; expected {expected}.", code="invalid_input"
    )


def _rows_of(body: bytes) -> int:
    """Rows that a stream says it has; from its metadata, before anything is decoded."""
    rows = 0
    reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(body))
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return rows
        if message.type not in (BATCH, DICTIONARY):
            continue
        flat = message.metadata.to_pybytes()
        header = _field(flat, struct.unpack_from("<I", flat, 0)[0], 2)
        batch = header and _follow(flat, header)
        if batch and message.type == DICTIONARY:
            data = _field(flat, batch, 1)
            batch = data and _follow(flat, data)
        if not batch:
            raise ValueError("a message has no header")
        if _field(flat, batch, 3):
            raise RequestRefused(
                "The Arrow stream is compressed.",
                code="unsupported_media_type",
                remedy="Write it without compression.",
            )
        length = _field(flat, batch, 0)
        count = struct.unpack_from("<q", flat, length)[0] if length else 0
        if message.type == BATCH:
            rows += count


def _follow(flat: bytes, at: int) -> int:
    """Where an offset of a flatbuffer leads."""
    return at + int(struct.unpack_from("<I", flat, at)[0])


def _field(flat: bytes, table: int, number: int) -> int:
    """Place of a table's field in a flatbuffer; 0: it is not there.

    The format: https://flatbuffers.dev/internals/#tables; the fields: Arrow's Message.fbs.
    """
    vtable = table - int(struct.unpack_from("<i", flat, table)[0])
    size = int(struct.unpack_from("<H", flat, vtable)[0])
    if 4 + 2 * number >= size:
        return 0
    offset = int(struct.unpack_from("<H", flat, vtable + 4 + 2 * number)[0])
    return table + offset if offset else 0
