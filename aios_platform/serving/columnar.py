"""Bodies that come as columns: Arrow IPC streams, and what V2 tensors are turned into.

A body with every input of the model is scored as it is, without the feature store: so are the
frames that batch inference scores. Any other body holds what the contract asks for.
"""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.contracts.declaration import Column
from aios_platform.contracts.record import nearest
from aios_platform.errors import RequestRefused
from aios_platform.serving.contract import InputContract, Row
from aios_platform.serving.work import check_moments

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

Frame = tuple[NDArray[np.float32], list[list[str]]]
BATCH, DICTIONARY = "record batch", "dictionary"


class Columnar:
    """Reads columns for one contract and one model.

    Args:
        contract: What callers send.
        features: The model's inputs.
    """

    def __init__(self, contract: InputContract, features: FeatureSchema) -> None:
        self.contract = contract
        self.features = features
        columns = {entry.name: entry.column for entry in contract.inputs}
        self._columns: Mapping[str, Column | None] = columns
        self._extra = (contract.names[contract.row_id], *_moment(contract))

    def is_frame(self, names: set[str]) -> bool:
        """Whether these columns are everything that the model takes."""
        return names.issuperset(self.features.names)

    def frame(self, columns: Mapping[str, pa.Array]) -> Frame:
        """The model's inputs from columns.

        Args:
            columns: Every feature by its name; null and NaN are missing values.

        Returns:
            Matrix of numericals, shape (rows, numericals), float32; texts per categorical.

        Raises:
            RequestRefused: A value is not what the declaration allows, or a column not of its
                type.
        """
        self._refuse_strange(columns, (*self.features.names, *self._extra))
        rows = len(next(iter(columns.values())))
        matrix = np.empty((rows, len(self.features.numerical)), dtype=np.float32)
        texts, place = [], 0
        for field in self.features.fields:
            if field.kind is FieldKind.NUMERICAL:
                matrix[:, place] = self._numbers(field, columns[field.name])
                place += 1
            else:
                texts.append(self._words(field, columns[field.name]))
        return matrix, texts

    def rows(self, columns: Mapping[str, pa.Array]) -> list[Row]:
        """Rows of the contract from columns.

        Raises:
            RequestRefused: They do not fit the contract.
        """
        self._refuse_strange(columns, [entry.name for entry in self.contract.sent])
        names = list(columns)
        lists = [columns[name].to_pylist() for name in names]
        records = [dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)]
        return self.contract.convert(records)

    def ids(self, columns: Mapping[str, pa.Array]) -> list[str | None] | None:
        """Names of the rows, where they came."""
        found = columns.get(self._extra[0])
        if found is None:
            return None
        names: list[str | None] = found.cast(pa.string()).to_pylist()
        return names

    def moments(self, columns: Mapping[str, pa.Array], now: float) -> NDArray[np.float64]:
        """Prediction times, Unix seconds; now where none came.

        Raises:
            RequestRefused: They are not timestamps, or have no date in UTC.
        """
        rows = len(next(iter(columns.values())))
        found = columns.get(self._extra[1]) if len(self._extra) > 1 else None
        if found is None:
            return np.full(rows, now)
        if not pa.types.is_timestamp(found.type):
            raise RequestRefused(
                f"The column '{self._extra[1]}' is of type {found.type}; expected timestamp.",
                code="invalid_input",
            )
        per_second = _PER_SECOND[found.type.unit]
        counted = found.cast(pa.int64()).fill_null(int(now * per_second))
        moments: NDArray[np.float64] = counted.to_numpy(zero_copy_only=False) / per_second
        check_moments(moments.min(), moments.max())
        return moments

    def _refuse_strange(self, columns: Mapping[str, pa.Array], known: Any) -> None:
        strange = [name for name in columns if name not in known]
        if strange:
            raise RequestRefused(
                f"There is no input '{strange[0][:100]}'. {nearest(strange[0], known)}",
                code="invalid_input",
            )

    def _numbers(self, field: FeatureField, column: pa.Array) -> NDArray[np.float32]:
        kind = column.type
        number = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)
        if not (number or pa.types.is_boolean(kind)):
            raise _wrong_type(field.name, kind, "a number")
        wide = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        with np.errstate(over="ignore"):
            values: NDArray[np.float32] = wide.astype(np.float32)
        if np.isinf(values).any():
            raise _wrong_value(field.name, "infinite in float32")
        declared = self._columns.get(field.name)
        if declared is not None:
            missing = np.isnan(values)
            if missing.any() and not declared.nullable and field.name not in self._optional:
                raise _wrong_value(field.name, "missing")
            low, high = declared.min, declared.max
            if low is not None and (wide < low).any():
                raise _wrong_value(field.name, f"below {low:g}")
            if high is not None and (wide > high).any():
                raise _wrong_value(field.name, f"above {high:g}")
        return values

    def _words(self, field: FeatureField, column: pa.Array) -> list[str]:
        kind = column.type
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        text = pa.types.is_string(plain) or pa.types.is_large_string(plain)
        if not (text or pa.types.is_null(plain)):
            raise _wrong_type(field.name, kind, "a string")
        words = column.cast(pa.string())
        declared = self._columns.get(field.name)
        if declared is not None:
            if words.null_count and not declared.nullable and field.name not in self._optional:
                raise _wrong_value(field.name, "missing")
            if declared.values is not None:
                known = pa.array(declared.values, pa.string())
                if not pc.all(pc.is_in(words.drop_null(), known), min_count=0).as_py():
                    raise _wrong_value(field.name, "not one of the declared values")
        found: list[str] = words.fill_null("").to_pylist()
        return found

    @property
    def _optional(self) -> set[str]:
        return {entry.name for entry in self.contract.inputs if entry.optional}


def arrow_columns(body: bytes, most_rows: int) -> dict[str, pa.Array]:
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
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            table = reader.read_all()
        # Bytes from outside may point anywhere until they are checked.
        table.validate(full=True)
    except (pa.ArrowException, OSError, struct.error, IndexError, ValueError) as error:
        raise RequestRefused(
            f"The body is not an Arrow IPC stream: {str(error)[:200]}", code="malformed_body"
        ) from None
    if len(set(table.column_names)) != table.num_columns:
        raise RequestRefused("Two columns have one name.", code="malformed_body")
    if not table.num_rows or not table.num_columns:
        raise RequestRefused("The request holds no rows.", code="invalid_input")
    whole = table.combine_chunks()
    return {
        name: column.chunk(0) if column.num_chunks else pa.array([], column.type)
        for name, column in zip(whole.column_names, whole.columns, strict=True)
    }


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


def _moment(contract: InputContract) -> tuple[str, ...]:
    return () if contract.moment is None else (contract.names[contract.moment],)


def _wrong_type(name: str, kind: pa.DataType, expected: str) -> RequestRefused:
    return RequestRefused(
        f"The column '{name}' is of type {kind}; expected {expected}.", code="invalid_input"
    )


def _wrong_value(name: str, what: str) -> RequestRefused:
    return RequestRefused(f"A value of '{name}' is {what}.", code="invalid_input")
