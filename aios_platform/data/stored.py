"""Reading a window of a table that lies in files or in a database, as its declaration says."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as pad

from aios_platform.columns import is_text
from aios_platform.contracts.declaration import ColumnType, Source, Table
from aios_platform.contracts.files import VARIABLE, Stored
from aios_platform.contracts.record import nearest
from aios_platform.contracts.windows import Window
from aios_platform.data.canonical import ARROW_TYPES
from aios_platform.data.delta import delta_table
from aios_platform.errors import SourceError, WindowNotDelivered
from aios_platform.settings import secret

INSTANT = pa.timestamp("us", "UTC")
BATCH_ROWS = 65_536
DAY = timedelta(days=1)


def read_stored(source: Source, window: Window) -> dict[str, pa.Table]:
    """One window of every table.

    Args:
        source: A source that declares `stored`.
        window: The window to read.

    Raises:
        WindowNotDelivered: The window's file is not there yet.
        SourceError: A file or database cannot be read, lacks a column, or holds a value that does
            not fit the declared type.
    """
    found = {}
    for name, stored in source.stored.items():
        reader = _Reader(name, stored, source.tables[name], window)
        found[name] = reader.from_files() if stored.path else reader.from_database()
    return found


class _Reader:
    """One window of one table."""

    def __init__(self, name: str, stored: Stored, declared: Table, window: Window) -> None:
        self.name, self.stored, self.declared, self.window = name, stored, declared, window
        added = {stored.row_number, *stored.known_after_days}
        self.columns = [column for column in declared.columns if column not in added]

    def from_files(self) -> pa.Table:
        parts = []
        first = 0
        dataset = self._dataset()
        absent = [column for column in self.columns if column not in dataset.schema.names]
        if absent:
            raise self._error(
                f"has no column '{absent[0]}'. {nearest(absent[0], dataset.schema.names)}"
            )
        numbered = self.stored.row_number is not None
        if numbered and len(dataset.files) > 1:
            raise self._error(
                "is a folder of several files, in which the number of a row may change"
            )
        prefix = f"{self.window.key}:" if "{window}" in (self.stored.path or "") else ""
        try:
            for batch in dataset.to_batches(
                columns=self.columns,
                filter=None if numbered else self._pushed(dataset.schema),
                batch_size=BATCH_ROWS,
                batch_readahead=2,
            ):
                table = pa.table(batch)
                if self.stored.row_number is not None:
                    numbers = pa.array([f"{prefix}{first + n}" for n in range(batch.num_rows)])
                    table = table.append_column(self.stored.row_number, numbers)
                first += batch.num_rows
                parts.append(self._inside(self._typed(table)))
        except (pa.ArrowException, OSError) as error:
            raise self._error(f"cannot be read: {error}") from error
        return self._dated(pa.concat_tables(parts)) if parts else self._empty()

    def from_database(self) -> pa.Table:
        from sqlalchemy import DateTime, bindparam, create_engine, text
        from sqlalchemy.exc import SQLAlchemyError

        secrets = _secrets(self.stored.url or "")
        # A day wider on either side, since a database may compare texts, or know no zones; the
        # window itself is cut from what comes.
        bounds = {
            "start": self.window.start.replace(tzinfo=None) - DAY,
            "end": self.window.end.replace(tzinfo=None) + DAY,
        }
        query = text(self.stored.query or "")
        asked = {name: bounds[name] for name in bounds if name in query._bindparams}
        # Of a type, so that SQLAlchemy writes them, and not what a driver was told elsewhere.
        query = query.bindparams(*(bindparam(name, type_=DateTime()) for name in asked))
        try:
            engine = create_engine(_with(secrets, self.stored.url or ""))
            try:
                with engine.connect() as connection:
                    streamed = connection.execution_options(yield_per=BATCH_ROWS)
                    result = streamed.execute(query, asked)
                    names = list(result.keys())
                    rows = [self._rows(names, part) for part in result.partitions()]
            finally:
                engine.dispose()
        except (SQLAlchemyError, ImportError) as error:
            cause = str(getattr(error, "orig", None) or type(error).__name__).strip()
            for value in secrets.values():
                cause = cause.replace(value, "***")
            raise self._error(f"cannot be read from the database: {cause}") from None
        return self._dated(pa.concat_tables(rows)) if rows else self._empty()

    def _rows(self, names: Sequence[str], part: Sequence[Any]) -> pa.Table:
        absent = [column for column in self.columns if column not in names]
        if absent:
            raise self._error(f"has no column '{absent[0]}'. {nearest(absent[0], names)}")
        columns = dict(zip(names, zip(*part, strict=True), strict=True))
        try:
            table = pa.table({name: pa.array(columns[name]) for name in self.columns})
        except pa.ArrowException as error:
            raise self._error(f"has values of several types: {error}") from error
        return self._inside(self._typed(table))

    def _dataset(self) -> pad.Dataset:
        from fsspec.core import url_to_fs

        stored = self.stored
        path = (stored.path or "").replace("{window}", self.window.key)
        kind = stored.format or stored.suffix
        try:
            if kind == "delta":
                return delta_table(path)
            files, place = url_to_fs(path)
            if not files.exists(place):
                raise FileNotFoundError(f"there is nothing at {path}")
            form: Any = kind
            if kind == "csv":
                # Types are those of the declaration; texts lose nothing on the way to them.
                texts = dict.fromkeys(self.columns, pa.string())
                form = pad.CsvFileFormat(
                    convert_options=pa.csv.ConvertOptions(
                        column_types=texts, strings_can_be_null=True
                    )
                )
            return pad.dataset(place, filesystem=files, format=form)
        except FileNotFoundError as error:
            if "{window}" not in (stored.path or ""):
                raise self._error(f"cannot be read: {error}") from error
            raise WindowNotDelivered(
                f"The table '{self.name}' of window {self.window}: {error}.",
                remedy="It is asked for again later.",
            ) from error
        except (OSError, ValueError, ImportError, pa.ArrowException) as error:
            raise self._error(f"cannot be read: {error}") from error

    def _pushed(self, schema: pa.Schema) -> pc.Expression | None:
        """What leaves out rows of other windows while files are read; None where they say none."""
        name = self.declared.timestamp
        if name is None:
            return None
        kind = schema.field(name).type
        if not pa.types.is_timestamp(kind):
            return None
        # A day wider where no zone is written.
        margin = timedelta(0) if kind.tz else DAY
        start, end = (
            pa.scalar(
                moment if kind.tz else moment.replace(tzinfo=None), pa.timestamp("us", kind.tz)
            )
            for moment in (self.window.start - margin, self.window.end + margin)
        )
        return (pc.field(name) >= start) & (pc.field(name) < end)

    def _typed(self, table: pa.Table) -> pa.Table:
        """Columns in their declared types, which no value may change in."""
        for place, name in enumerate(table.column_names):
            kind = self.declared.columns[name].type
            try:
                column = self._cast(table[name], kind)
            except (pa.ArrowException, ValueError) as error:
                raise self._error(f"has a value in '{name}' that is no {kind}: {error}") from error
            table = table.set_column(place, name, column)
        return table

    def _cast(self, column: pa.ChunkedArray, kind: ColumnType) -> pa.ChunkedArray:
        wanted = ARROW_TYPES[kind]
        found = column.type
        if pa.types.is_null(found):
            return column.cast(wanted)
        if pa.types.is_dictionary(found):
            column = column.cast(found.value_type)
            found = column.type
        if kind is ColumnType.TIMESTAMP:
            return as_instants(column, self.stored.timezone)
        if kind is ColumnType.BOOL and pa.types.is_integer(found):
            strange = pc.invert(pc.is_in(column.drop_null(), pa.array([0, 1], found)))
            if pc.any(strange).as_py():
                raise ValueError("a number other than 0 and 1")
        return column.cast(wanted)

    def _inside(self, table: pa.Table) -> pa.Table:
        if self.declared.timestamp is None:
            return table
        times = table[self.declared.timestamp]
        start, end = (pa.scalar(m, INSTANT) for m in (self.window.start, self.window.end))
        inside = pc.and_(pc.greater_equal(times, start), pc.less(times, end))
        return table.filter(pc.fill_null(inside, False))

    def _dated(self, table: pa.Table) -> pa.Table:
        for name, days in self.stored.known_after_days.items():
            later = pa.scalar(timedelta(days=days), pa.duration("us"))
            table = table.append_column(name, pc.add(table[self.declared.timestamp], later))
        return table

    def _empty(self) -> pa.Table:
        fields = [(n, ARROW_TYPES[c.type]) for n, c in self.declared.columns.items()]
        return pa.schema(fields).empty_table()

    def _error(self, what: str) -> SourceError:
        place = self.stored.path or "its query"
        return SourceError(
            f"The table '{self.name}' of window {self.window} ({place}) {what}.",
            remedy="Correct source.stored or source.tables in the declaration, or mend the data; "
            "what was ingested before is unchanged.",
        )


def as_instants(column: pa.ChunkedArray, timezone: str) -> pa.ChunkedArray:
    """Timestamps, dates, or texts of ISO 8601 as instants in UTC.

    Args:
        column: Times.
        timezone: Zone of those that are written without one.

    Raises:
        pyarrow.ArrowInvalid: The column holds something else.
    """
    if is_text(column.type):
        try:
            return column.cast(INSTANT)
        except pa.ArrowException:
            column = column.cast(pa.timestamp("us"))
    elif pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us"))
    if not pa.types.is_timestamp(column.type):
        raise pa.ArrowInvalid(f"{column.type} is no timestamp")
    if column.type.tz is None:
        column = pc.assume_timezone(column.cast(pa.timestamp("us"), safe=False), timezone)
    return column.cast(INSTANT, safe=False)


def _secrets(url: str) -> dict[str, str]:
    """Values of the variables that a URL names."""
    return {name: secret(name) for name in VARIABLE.findall(url)}


def _with(secrets: Mapping[str, str], url: str) -> str:
    """The URL with its variables replaced, as a URL wants them written."""
    return VARIABLE.sub(lambda match: quote(secrets[match.group(1)], safe=""), url)
