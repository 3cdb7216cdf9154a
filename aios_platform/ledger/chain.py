"""The hash chain: which bytes of a row are hashed, and how one row holds on to the one before.

Written a second time here, beside the database's own function that makes the hashes: what is
verified does not depend on what is to be verified. `docs/ledger.md` has it in words.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from aios_platform.database import Database
from aios_platform.errors import LedgerBroken, StoreError

GENESIS = "0" * 64
BATCH = 500
FIELDS = (
    "clock", "evidence", "key", "kind", "payload", "previous", "principal", "recorded_at", "seq",
    "subject",
)  # fmt: skip


@dataclass(frozen=True)
class Link:
    """One row, as it is now.

    Args:
        seq: Its number.
        previous: Hash of the row before, as the row states it.
        hash: Its own hash, as the row states it.
        content: The bytes to hash.
        clock_set_back: Whether the server's clock was behind the row before.
        reads_differently: Whether what queries see of the payload is not what was hashed.
    """

    seq: int
    previous: str
    hash: str
    content: bytes
    clock_set_back: bool = False
    reads_differently: bool = False

    @property
    def whole(self) -> bool:
        """Whether the row has the hash it states, and reads as what was hashed."""
        return not self.reads_differently and hashlib.sha256(self.content).hexdigest() == self.hash

    @property
    def line(self) -> bytes:
        """The row as a line of an export: the bytes that were hashed, with the hash at the end."""
        return self.content[:-1] + _ending(self.hash) + b"\n"


def links(connection: Connection, after: int = 0) -> Iterator[Link]:
    """The rows after a row in the order of their numbers, a few at a time.

    The times are made text by Postgres: no value of a manipulated row is beyond reading.
    """
    rows = connection.execute(
        text(
            "SELECT seq, principal, kind, subject, evidence, payload_text, previous, hash, "
            "idempotency_key, CAST(payload AS text) AS payload, "
            "to_char(recorded_at AT TIME ZONE 'UTC', :shape) AS recorded_at, "
            "to_char(clock AT TIME ZONE 'UTC', :shape) AS clock "
            "FROM ledger WHERE seq > :after ORDER BY seq"
        ),
        {"after": after, "shape": 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'},
        execution_options={"stream_results": True, "yield_per": BATCH},
    ).mappings()
    for row in rows:
        values = {
            **{name: _json(row[name]) for name in FIELDS if name in row and name != "payload"},
            "key": _json(row["idempotency_key"]),
            "payload": str(row["payload_text"]),
        }
        content = "{" + ",".join(f'"{name}":{values[name]}' for name in FIELDS) + "}"
        yield Link(
            seq=row["seq"],
            previous=str(row["previous"]),
            hash=str(row["hash"]),
            content=content.encode(),
            clock_set_back=row["clock"] is not None,
            reads_differently=not _same(row["payload_text"], row["payload"]),
        )


def lines(database: Database, *, after: int = 0) -> Iterator[bytes]:
    """The rows after a row as lines of JSON, from one snapshot.

    Raises:
        DatabaseUnavailable: The ledger cannot be read.
    """
    with snapshot(database) as connection:
        for link in links(connection, after):
            yield link.line


def write_lines(database: Database, path: Path, *, after: int = 0) -> int:
    """Write the rows after a row to a file, which is there whole or not at all; their number.

    Raises:
        StoreError: The file cannot be written.
        DatabaseUnavailable: The ledger cannot be read.
    """
    count, writing = 0, path.with_name(f".{path.name}.writing")
    try:
        with writing.open("wb") as file:
            for count, line in enumerate(lines(database, after=after), start=1):  # noqa: B007
                file.write(line)
        writing.replace(path)
    except OSError as error:
        raise StoreError(
            f"The export {path} cannot be written: {error.strerror or error}.",
            remedy="Free space or choose another file; nothing was left half-written.",
        ) from error
    finally:
        writing.unlink(missing_ok=True)
    return count


@contextmanager
def snapshot(database: Database) -> Iterator[Connection]:
    """One moment of the ledger: rows that are appended meanwhile are not in it, nor their head."""
    with database.begin() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        yield connection


def links_of(lines: Iterator[bytes]) -> Iterator[Link]:
    """The rows of an export, a line at a time.

    Raises:
        LedgerBroken: A line is not a row.
    """
    for number, line in enumerate(lines, start=1):
        bare = line.rstrip(b"\r\n")
        try:
            row = json.loads(bare)
            if set(row) != {*FIELDS, "hash"} or not bare.endswith(_ending(row["hash"])):
                raise ValueError("it has other fields, or the hash is not the last")
            seq, previous, stated = int(row["seq"]), str(row["previous"]), str(row["hash"])
        except (ValueError, TypeError, AttributeError) as error:
            raise LedgerBroken(
                f"Line {number} is not a row of a ledger: {error}.",
                remedy="Give the file as `aios ledger export` wrote it.",
            ) from error
        yield Link(
            seq=seq,
            previous=previous,
            hash=stated,
            content=bare[: -len(_ending(stated))] + b"}",
            clock_set_back=row["clock"] is not None,
        )


def _ending(digest: str) -> bytes:
    return f',"hash":"{digest}"}}'.encode()


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _same(written: str | None, read: str | None) -> bool:
    # Exact numbers: Postgres writes 1e300 as an integer, which no float is equal to.
    numbers: dict[str, Any] = {"parse_float": Decimal, "parse_int": Decimal}
    try:
        return bool(json.loads(written or "", **numbers) == json.loads(read or "", **numbers))
    except (ValueError, ArithmeticError, RecursionError):
        return False
