"""Verifies the ledger: names the first link that does not hold, and what is wrong with it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from pydantic import Field
from sqlalchemy import Connection, text

from aios_platform.contracts.record import Record
from aios_platform.database import Database
from aios_platform.errors import LedgerBroken, LedgerError
from aios_platform.ledger.anchors import Anchor
from aios_platform.ledger.chain import GENESIS, Link, links, links_of, snapshot
from aios_platform.ledger.guards import findings


class Fault(StrEnum):
    """What can be wrong with a link."""

    ALTERED = "altered"
    """The row does not have the hash it states."""
    REPLACED = "replaced"
    """The row before was altered together with its hash."""
    MISSING = "missing"
    ORDER = "order"
    """The row that belongs here lies elsewhere."""
    TRUNCATED = "truncated"
    """The ledger's end is not there."""
    HEAD = "head"
    """The recorded head is not the last row."""
    REWRITTEN = "rewritten"
    """The chain holds, and is another than the one that was anchored."""


class Break(Record):
    """The first link that does not hold."""

    seq: int = Field(description="Row at which it does not hold.")
    fault: Fault
    what: str


class Verification(Record):
    """What a verification found."""

    rows: int = Field(description="Rows whose links hold.")
    first: int = Field(description="Number of the first row looked at; 0: there is none.")
    last: int
    hash: str = Field(description="Hash of the last row that holds.")
    anchors: int = Field(description="Anchors that were met.")
    clock_set_back: int = Field(description="Rows written while the clock was behind.")
    begins_after: str = Field(
        default="", description="Hash of an earlier row, which is not here to be looked at."
    )
    broken: Break | None = None
    findings: tuple[str, ...] = Field(
        default=(),
        description="What else is wrong: guards off, or what no row of the ledger explains.",
    )

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return self.broken is None and not self.findings

    def require(self) -> None:
        """Raise unless nothing is wrong.

        Raises:
            LedgerBroken: With the first broken link, or the first other finding.
        """
        if self.broken is not None:
            raise LedgerBroken(
                f"The ledger is broken at row {self.broken.seq} ({self.broken.fault}): "
                f"{self.broken.what}",
                remedy="Stop promoting. Compare with an export or a backup from before; "
                "docs/ledger.md says how.",
            )
        if self.findings:
            raise LedgerBroken(
                f"The chain of {self.rows} rows holds, but: {' '.join(self.findings)}",
                remedy="Find out who changed the schema or the table, and put it back.",
            )


def verify(
    database: Database, anchors: Sequence[Anchor] = (), *, since: Anchor | None = None
) -> Verification:
    """Verify the ledger in the database, row by row, in constant memory.

    Args:
        database: Where the ledger lives.
        anchors: Heads that were put aside earlier; the chain must go through each.
        since: Take the chain up to this anchor for granted.

    Raises:
        DatabaseUnavailable: The ledger cannot be read.
    """
    with snapshot(database) as connection:
        walk = _Walk(anchors, since, lambda digest: _successor(connection, digest))
        walk.over(links(connection, walk.last))
        head = connection.execute(text("SELECT seq, hash FROM ledger_head")).one_or_none()
        walk.end(None if head is None else (int(head.seq), str(head.hash)))
        return walk.result(() if walk.broken else tuple(findings(connection)))


def verify_file(path: Path, anchors: Sequence[Anchor] = ()) -> Verification:
    """Verify an export, without any database.

    Raises:
        LedgerError: The file cannot be read.
        LedgerBroken: It is not an export.
    """
    try:
        with path.open("rb") as file:
            walk = _Walk(anchors, None, lambda _: None, partial=True)
            walk.over(links_of(iter(file)))
    except OSError as error:
        raise LedgerError(
            f"The file {path} cannot be read: {error.strerror}.", remedy="Give another file."
        ) from error
    walk.end(None)
    return walk.result(())


class _Walk:
    """Goes along the chain until the first link that does not hold."""

    def __init__(
        self,
        anchors: Iterable[Anchor],
        since: Anchor | None,
        successor: Callable[[str], int | None],
        *,
        partial: bool = False,
    ) -> None:
        self.last, self.hash = (since.seq, since.hash) if since else (0, GENESIS)
        self.broken: Break | None = None
        self._pending = sorted((a for a in anchors if a.seq > self.last), key=lambda a: a.seq)
        self._successor, self._partial = successor, partial
        self._rows = self._first = self._met = self._clock = 0
        self._begins_after = ""

    def over(self, chain: Iterator[Link]) -> None:
        for link in chain:
            if self._partial and not self._rows and link.seq > 1 and link.previous != GENESIS:
                self._begins_after, self.hash, self.last = (
                    link.previous,
                    link.previous,
                    link.seq - 1,
                )
                self._meet(self.last)
            self.broken = self.broken or self._fault(link)
            if self.broken is not None:
                return
            self.last, self.hash = link.seq, link.hash
            self._first = self._first or link.seq
            self._rows += 1
            self._clock += link.clock_set_back
            self._meet(link.seq)
            if self.broken is not None:
                return

    def end(self, head: tuple[int, str] | None) -> None:
        if self.broken is not None:
            return
        if self._pending:
            first = self._pending[0]
            self.broken = Break(
                seq=self.last + 1,
                fault=Fault.TRUNCATED,
                what=f"the rows end at {self.last}; the anchor of {first.made_at:%Y-%m-%d %H:%M} "
                f"was made at row {self._pending[-1].seq}.",
            )
        elif not self._partial and head is None:
            self.broken = Break(seq=self.last, fault=Fault.HEAD, what="the head's row is gone.")
        elif head is not None and head[0] > self.last:
            self.broken = Break(
                seq=self.last + 1,
                fault=Fault.TRUNCATED,
                what=f"the rows end at {self.last}; the head is row {head[0]}.",
            )
        elif head is not None and self.last and head != (self.last, self.hash):
            self.broken = Break(
                seq=self.last,
                fault=Fault.HEAD,
                what=f"the last row is {self.last} ({self.hash[:12]}); the head says row "
                f"{head[0]} ({head[1][:12]}): the last row was replaced, added past the head, or "
                "the head was altered.",
            )

    def result(self, findings: tuple[str, ...]) -> Verification:
        return Verification(
            rows=self._rows,
            first=self._first,
            last=self.last,
            hash=self.hash,
            anchors=self._met,
            clock_set_back=self._clock,
            begins_after=self._begins_after,
            broken=self.broken,
            findings=findings,
        )

    def _fault(self, link: Link) -> Break | None:
        follows = link.previous == self.hash
        if link.whole and follows and link.seq > self.last:
            return None
        belongs = self._successor(self.hash)
        if belongs not in (None, link.seq) or link.seq <= self.last:
            where = f", which now lies at {belongs}" if belongs else ""
            return Break(
                seq=link.seq,
                fault=Fault.ORDER,
                what=f"row {link.seq} is not the one written after row {self.last}{where}.",
            )
        if link.reads_differently:
            what = "what queries read of its payload is not the text that was hashed."
            return Break(seq=link.seq, fault=Fault.ALTERED, what=what)
        if not link.whole:
            what = "its content does not have the hash it states."
            return Break(seq=link.seq, fault=Fault.ALTERED, what=what)
        if link.seq > self.last + 1:
            gone = _numbers(self.last + 1, link.seq - 1)
            return Break(
                seq=self.last + 1,
                fault=Fault.MISSING,
                what=f"{gone} missing between row {self.last} and row {link.seq}.",
            )
        return Break(
            seq=link.seq,
            fault=Fault.REPLACED,
            what=f"it was written after another row than row {self.last} as that is now: row "
            f"{self.last} was replaced, hash and all, or row {link.seq} was put in.",
        )

    def _meet(self, seq: int) -> None:
        while self._pending and self._pending[0].seq <= seq:
            anchor = self._pending.pop(0)
            if (anchor.seq, anchor.hash) != (seq, self.hash) and not self.broken:
                self.broken = Break(
                    seq=anchor.seq,
                    fault=Fault.REWRITTEN,
                    what=f"the anchor of {anchor.made_at:%Y-%m-%d %H:%M} has the hash "
                    f"{anchor.hash[:12]} for row {anchor.seq}; the chain here has another: it was "
                    "rewritten at or before this row, and after the anchor before.",
                )
                return
            self._met += 1


def _numbers(first: int, last: int) -> str:
    return f"row {first} is" if first == last else f"rows {first} to {last} are"


def _successor(connection: Connection, digest: str) -> int | None:
    found = connection.execute(
        text("SELECT min(seq) FROM ledger WHERE previous = :digest"), {"digest": digest}
    ).scalar()
    return None if found is None else int(found)
