"""Recorded traffic becomes the tables that batch predictions are."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.errors import ArtifactCorrupt
from aios_platform.monitoring.served import predictions_of, read_served
from aios_platform.monitoring.served_content import ServedRows, decode, encode
from aios_platform.serving.recording import Recorder
from tests.unit.contracts.test_declaration import MINIMAL
from tests.unit.serving.traffic import SCHEMA, batch

DECLARATION = ModelDeclaration.model_validate(MINIMAL)
WINDOW = DECLARATION.windows.window("2013-10")
LABEL = DECLARATION.label
KNOWN = pa.timestamp("us", tz="UTC")
HOUR = timedelta(hours=1)


def delivered(ids, at=WINDOW.start + HOUR):
    return pa.table({"id": ids, "at": pa.array([at] * len(ids), KNOWN)})


def truth(**known_at):
    return pa.table(
        {"id": list(known_at), "broke": [True] * len(known_at),
         "broke_at": pa.array(list(known_at.values()), KNOWN)}
    )  # fmt: skip


def asked(row_ids, moments, *, served=WINDOW.end, version="1", source="full", first=0.0):
    """Answers about these rows, asked for at these moments; probabilities count up from `first`."""
    made = batch([f"r{n}" for n in range(len(row_ids))], version=version, source=source)
    return made._replace(
        row_ids=list(row_ids),
        moments=np.array([moment.timestamp() for moment in moments]),
        served_at=served.timestamp(),
        probabilities=(first + 0.01 * np.arange(len(row_ids))).astype(np.float32),
    )


@pytest.fixture
def record(own_database):
    def write(*batches, share=1.0):
        recorder = Recorder(own_database, share=lambda _: share)
        for one in batches:
            recorder.offer(one)
        recorder.close(5)
        assert not recorder.lost

    return write


@pytest.fixture
def read(own_database):
    def run(rows, model="toy"):
        return read_served(own_database, model, WINDOW, rows, "id", "at")

    return run


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
floats = st.floats(width=32, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.tuples(texts, texts | st.none(), floats, texts), max_size=4), min_size=1)
)
def test_what_was_served_comes_back_row_by_row(batches):
    fields = (
        FeatureField(name="row_id", kind=FieldKind.CATEGORICAL, origin="a view"),
        FeatureField(name="x", kind=FieldKind.NUMERICAL, origin="request"),
    )
    made = [
        ServedRows(
            "toy", "1", "d", FeatureSchema(fields=fields), [row[0] for row in rows],
            list(range(len(rows))), [row[1] for row in rows], 1e9, np.full(len(rows), np.nan),
            np.array([[row[2]] for row in rows], np.float32).reshape(-1, 1),
            ([row[3] for row in rows],), np.zeros(len(rows), np.float32), ["full"] * len(rows),
        )
        for rows in batches
    ]  # fmt: skip
    found = decode(encode(made))
    rows = [row for rows in batches for row in rows]
    assert found.answers["request_id"].to_pylist() == [row[0] for row in rows]
    assert found.answers["row_id"].to_pylist() == [row[1] for row in rows]
    assert found.answers["place"].to_pylist() == [p for rows in batches for p in range(len(rows))]
    served = datetime.fromtimestamp(1e9, UTC)
    assert found.answers["moment"].to_pylist() == [served] * len(rows), "no time of its own"
    numbers = [None if np.isnan(row[2]) else float(row[2]) for row in rows]
    assert found.inputs["x"].to_pylist() == numbers
    assert found.inputs["row_id"].to_pylist() == [row[3] or None for row in rows]
    assert found.features.fields == fields


def test_bytes_that_are_no_record_are_named():
    content = encode([batch(["a"])])
    for wrong in (b"", b"nonsense", content[: len(content) // 2]):
        with pytest.raises(ArtifactCorrupt, match="cannot be read"):
            decode(wrong)


@pytest.mark.postgres
def test_a_row_belongs_to_the_window_that_names_it_else_to_that_of_its_time(record, read):
    early, inside, late = WINDOW.start - HOUR, WINDOW.start + HOUR, WINDOW.end
    record(
        asked(["named", "other", None], [early, early, early]),
        asked([None, "unheard", "named"], [inside, inside, late]),
        asked([None, "named"], [late, late + HOUR]),
        asked(["named"], [inside], version="2")._replace(model="another"),
    )
    [found] = read(delivered(["named", "silent"], early))
    ids = found.answers["row_id"].to_pylist()
    assert sorted(ids, key=str) == [None, "named", "named", "unheard"]
    assert found.unnamed == 1
    assert read(delivered(["named"]), model="unserved") == []


@pytest.mark.postgres
def test_versions_are_apart_and_answers_that_are_not_theirs_are_counted_only(record, read):
    at = WINDOW.start + HOUR
    record(
        asked(["a"], [at], version="1", source="fast"),
        asked(["b"], [at], version="1", source="cache"),
        asked(["c"], [at], version="1", source="previous"),
        asked(["d"], [at], version="1", source="default"),
        asked(["e"], [at], version="1", source="simple"),
        asked(["f"], [at], version="1", source=""),
        asked(["g"], [at], version="2"),
    )
    one, two = read(delivered(list("abcdefg")))
    assert sorted(one.answers["row_id"].to_pylist()) == ["a", "b", "c"]
    assert one.inputs.num_rows == 3
    assert one.by_source == {
        "": 1, "cache": 1, "default": 1, "fast": 1, "previous": 1, "simple": 1,
    }  # fmt: skip
    assert (two.version, two.answers["model_version"].to_pylist()) == ("2", ["2"])
    assert two.features == SCHEMA


@pytest.mark.postgres
def test_of_more_than_can_be_held_every_nth_stream_is_read_and_the_share_says_so(
    record, read, monkeypatch
):
    for number in range(6):
        record(asked([f"{number}-{n}" for n in range(10)], [WINDOW.start + HOUR] * 10))
    [whole] = read(delivered(["x"]))
    assert (whole.answers.num_rows, whole.read) == (60, 1.0)
    monkeypatch.setattr("aios_platform.monitoring.served.MOST_ROWS", 25)
    [part] = read(delivered(["x"]))
    assert (part.answers.num_rows, part.read) == (20, pytest.approx(1 / 3))


@pytest.mark.postgres
def test_the_declared_share_is_told(record, read):
    many = [f"t{n}" for n in range(64)]
    record(asked(many, [WINDOW.start + HOUR] * 64), share=0.5)
    [found] = read(delivered(many))
    assert 10 < found.answers.num_rows < 54
    assert found.read == 0.5


@pytest.mark.postgres
def test_a_damaged_record_is_an_error_and_no_empty_window(record, read, own_database):
    record(asked(["a"], [WINDOW.start + HOUR]))
    with own_database.begin() as connection:
        connection.execute(text("UPDATE served_batch SET content = '\\x00'"))
    with pytest.raises(ArtifactCorrupt):
        read(delivered(["a"]))


@pytest.mark.postgres
def test_a_row_counts_once_by_the_last_answer_before_its_label_was_known(record, read):
    start = WINDOW.start
    times = {
        # Of three answers the one before the label counts, however late it was served.
        "thrice": [start + 2 * HOUR, start + 3 * HOUR, start + 9 * HOUR],
        # Every answer came after the label: the last one stands, and counts as premature.
        "told": [start + 6 * HOUR, start + 7 * HOUR],
        # Without a label so far, the last.
        "untold": [start + HOUR, start + 8 * HOUR],
    }
    ids = [name for name, moments in times.items() for _ in moments]
    record(asked([*ids, None], [*(m for ms in times.values() for m in ms), start + HOUR]))
    [served] = read(delivered(list(times)))
    known = truth(thrice=start + 5 * HOUR, told=start + 5 * HOUR, unasked=start)
    predictions, inputs = predictions_of(served, known, "id", LABEL)
    assert predictions["id"].to_pylist() == ["thrice", "told", "untold"]
    assert predictions["prediction_time"].to_pylist() == [
        start + 3 * HOUR, start + 7 * HOUR, start + 8 * HOUR,
    ]  # fmt: skip
    assert predictions["probability"].to_pylist() == pytest.approx([0.01, 0.04, 0.06])
    assert inputs["size"].to_pylist() == [2.0, 8.0, 12.0], "the inputs are those of the answer"


@pytest.mark.postgres
def test_of_two_answers_for_the_same_moment_the_later_one_counts(record, read):
    at = WINDOW.start + HOUR
    record(
        asked(["a"], [at], served=WINDOW.end, first=0.9),
        asked(["a"], [at], served=WINDOW.end - HOUR, first=0.1),
    )
    [served] = read(delivered(["a"]))
    predictions, _ = predictions_of(served, truth(a=WINDOW.end), "id", LABEL)
    assert predictions["probability"].to_pylist() == pytest.approx([0.9])
