"""Bodies that come as columns: Arrow IPC streams, and what V2 tensors are turned into.

A body with every input of the model is scored as it is, without the feature store: so are the
frames that batch inference scores. Any other body holds what the contract asks for.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.contracts.declaration import Column
from aios_platform.contracts.record import nearest
from aios_platform.errors import RequestRefused
from aios_platform.serving.arrow_streams import ArrowColumns, plain_type, wrong_type
from aios_platform.serving.contract import InputContract, Row
from aios_platform.serving.engine import vector_places
from aios_platform.serving.inputs import FLOAT32_MAX
from aios_platform.serving.work import check_moments, moments_of

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

Frame = tuple[NDArray[np.float32], list[list[str]]]


class Columnar:
    """Reads columns for one contract and one model.

    Args:
        contract: What callers send.
        features: The model's inputs.
    """

    def __init__(self, contract: InputContract, features: FeatureSchema) -> None:
        self.contract = contract
        self.features = features
        self._numerical = features.numerical
        self._vectors = vector_places(features)
        self._taken = frozenset(features.names)
        columns = {entry.name: entry.column for entry in contract.inputs}
        self._columns: Mapping[str, Column | None] = columns
        self._optional = {entry.name for entry in contract.inputs if entry.optional}
        self._extra = (contract.names[contract.row_id], *_moment(contract))
        self._known = (*features.names, *self._extra)
        numbers = [columns.get(name) for name in self._numerical]
        self._low = np.array([-np.inf if c is None or c.min is None else c.min for c in numbers])
        self._high = np.array([np.inf if c is None or c.max is None else c.max for c in numbers])
        self._needed = np.array(
            [
                declared is not None and not declared.nullable and name not in self._optional
                for name, declared in zip(self._numerical, numbers, strict=True)
            ],
            dtype=bool,
        )

    def is_frame(self, names: set[str]) -> bool:
        """Whether these columns are everything that the model takes."""
        return names.issuperset(self._taken)

    def frame(self, columns: Mapping[str, pa.Array]) -> Frame:
        """The model's inputs from columns.

        Args:
            columns: Every feature by its name; null and NaN are missing values.

        Returns:
            Matrix of numericals and vectors, shape (rows, columns), float32; texts per
            categorical, then per text.

        Raises:
            RequestRefused: A value is not what the declaration allows, or a column not of its
                type.
        """
        self._refuse_strange(columns, self._known)
        texts = [
            self._words(name, columns[name])
            for name in (*self.features.categorical, *self.features.texts)
        ]
        matrix = self._numbers(columns)
        if self._vectors:
            wide = [
                self._vector(name, columns[name], end - start) for name, start, end in self._vectors
            ]
            matrix = np.concatenate([matrix, *wide], axis=1)
        return matrix, texts

    def rows(self, columns: Mapping[str, pa.Array]) -> list[Row]:
        """Rows of the contract from columns.

        Raises:
            RequestRefused: They do not fit the contract.
        """
        self._refuse_strange(columns, [entry.name for entry in self.contract.sent])
        names = list(columns)
        lists = [_values(columns[name]) for name in names]
        records = [dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)]
        return self.contract.convert(records)

    def ids(self, columns: Mapping[str, pa.Array]) -> list[str | None] | None:
        """Names of the rows, where they came."""
        found = columns.get(self._extra[0])
        if found is None:
            return None
        try:
            texts = found.cast(pa.string())
        except pa.ArrowException:
            raise wrong_type(self._extra[0], found.type, "a text or a number") from None
        names: list[str | None] = texts.to_pylist()
        return names

    def moments(self, columns: Mapping[str, pa.Array], now: float) -> NDArray[np.float64]:
        """Prediction times, Unix seconds; now where none came.

        Raises:
            RequestRefused: They are not timestamps with an offset, or have no date in UTC.
        """
        rows = len(next(iter(columns.values())))
        found = columns.get(self._extra[1]) if len(self._extra) > 1 else None
        if found is None:
            return np.full(rows, now)
        if plain_type(found.type) == pa.string():
            # V2 has no type for timestamps.
            kind = self.contract.inputs[self.contract.moment or 0].type
            return moments_of([(value,) for value in self._read(found, kind)], 0, now)
        if not pa.types.is_timestamp(found.type) or found.type.tz is None:
            raise wrong_type(self._extra[1], found.type, "a timestamp with an offset")
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

    def _numbers(self, columns: Mapping[str, pa.Array]) -> NDArray[np.float32]:
        names = self._numerical
        together = columns.numbers(names) if isinstance(columns, ArrowColumns) else None
        if together is not None and names:
            wide = together.T
        else:
            rows = len(next(iter(columns.values())))
            wide = np.empty((len(names), rows), dtype=np.float64)
            for place, name in enumerate(names):
                wide[place] = _wide(name, columns[name])
        with np.errstate(over="ignore"):
            values: NDArray[np.float32] = wide.T.astype(np.float32, order="C")
        if np.isinf(values).any():
            self._refuse(np.isinf(values).any(axis=0), "infinite in float32")
        if np.isnan(wide).any():
            self._refuse(np.isnan(wide).any(axis=1) & self._needed, "missing")
        self._refuse(np.fmin.reduce(wide, axis=1) < self._low, "below {:g}", self._low)
        self._refuse(np.fmax.reduce(wide, axis=1) > self._high, "above {:g}", self._high)
        return values

    def _refuse(self, wrong: Any, what: str, bounds: NDArray[np.float64] | None = None) -> None:
        if wrong.any():
            place = int(wrong.argmax())
            bound = 0.0 if bounds is None else bounds[place]
            raise _wrong_value(self._numerical[place], what.format(bound))

    def _words(self, name: str, column: pa.Array) -> list[str]:
        if plain_type(column.type) not in (pa.string(), pa.null()):
            raise wrong_type(name, column.type, "a string")
        words = column.cast(pa.string())
        declared = self._columns.get(name)
        if declared is not None:
            if words.null_count and not declared.nullable and name not in self._optional:
                raise _wrong_value(name, "missing")
            if declared.values is not None:
                known = pa.array(declared.values, pa.string())
                if not pc.all(pc.is_in(words.drop_null(), known), min_count=0).as_py():
                    raise _wrong_value(name, "not one of the declared values")
        found: list[str] = words.fill_null("").to_pylist()
        return found

    def _vector(self, name: str, column: pa.Array, length: int) -> NDArray[np.float32]:
        """Vectors side by side, shape (rows, length), NaN where there is none."""
        declared = self._columns.get(name)
        needed = declared is not None and not declared.nullable and name not in self._optional
        if needed and column.null_count:
            raise _wrong_value(name, "missing")
        found = np.full((len(column), length), np.nan, dtype=np.float32)
        present = column.drop_null()
        if not len(present):
            return found
        values = present.flatten().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        least, most = -FLOAT32_MAX, FLOAT32_MAX
        if declared is not None:
            least = least if declared.min is None else max(least, declared.min)
            most = most if declared.max is None else min(most, declared.max)
        if values.min() < least or values.max() > most:
            raise _wrong_value(name, f"not within {least:g} and {most:g}")
        found[column.is_valid().to_numpy(zero_copy_only=False)] = values.reshape(-1, length)
        return found

    def _read(self, column: pa.Array, kind: Any) -> list[Any]:
        try:
            found: list[Any] = msgspec.convert(column.to_pylist(), list[kind])
        except msgspec.ValidationError as error:
            raise RequestRefused(
                f"The columns do not fit contract {self.contract.version}: {error}.",
                code="invalid_input",
            ) from None
        return found


def _wide(name: str, column: pa.Array) -> NDArray[np.float64]:
    """Numbers of a column, shape (rows,); null is NaN."""
    kind = column.type
    if pa.types.is_floating(kind) and not column.null_count:
        return np.asarray(column.to_numpy())
    number = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)
    if not (number or pa.types.is_boolean(kind)):
        raise wrong_type(name, kind, "a number")
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))


def _values(column: pa.Array) -> list[Any]:
    """Values as Python has them; NaN is a missing one, as in whole frames."""
    kind = column.type
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), None, column)
    try:
        if pa.types.is_timestamp(kind):
            # Python's dates end at microseconds; an offset's name need not be known here.
            offset = None if kind.tz is None else "UTC"
            column = column.cast(pa.timestamp("us", offset), safe=kind.unit != "ns")
        found: list[Any] = column.to_pylist()
    except (pa.ArrowInvalid, ValueError, OverflowError):
        raise RequestRefused("A timestamp has no date.", code="invalid_input") from None
    return found


def _moment(contract: InputContract) -> tuple[str, ...]:
    return () if contract.moment is None else (contract.names[contract.moment],)


def _wrong_value(name: str, what: str) -> RequestRefused:
    return RequestRefused(f"A value of '{name}' is {what}.", code="invalid_input")
