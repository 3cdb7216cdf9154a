"""The page that Evidently renders: complete, quiet, and harmless."""

from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.contracts.datasets import FeatureField, FieldKind
from aios_platform.contracts.surveillance import Monitoring
from aios_platform.monitoring.drift import detect
from aios_platform.monitoring.psi import reference_bins
from aios_platform.monitoring.report import drift_page
from aios_platform.monitoring.sampling import sample

HOSTILE_NAME = "<img src=x onerror=alert('name')>"
HOSTILE_VALUE = "</script><script>alert('value')</script>"
MONITORING = Monitoring(report_rows=500)
ROWS = 2000


def table(seed, shift):
    generator = np.random.default_rng(seed)
    return pa.table(
        {
            "speed": generator.normal(shift, 1, ROWS).astype(np.float32),
            "steady": generator.normal(0, 1, ROWS),
            "constant": np.ones(ROWS),
            "holes": pa.array(
                np.where(generator.random(ROWS) < 0.5, np.inf, generator.normal(size=ROWS))
            ),
            "nothing": pa.nulls(ROWS, pa.float32()),
            HOSTILE_NAME: pa.array(generator.choice(["a", HOSTILE_VALUE], ROWS)),
            "some_null": pa.array(generator.choice(["a", "b", None], ROWS), pa.string()),
        }
    )


FIELDS = [
    FeatureField(
        name=name,
        kind=FieldKind.CATEGORICAL if name in (HOSTILE_NAME, "some_null") else FieldKind.NUMERICAL,
        origin="request",
    )
    for name in table(0, 0).column_names
]


@pytest.fixture(scope="module")
def page():
    report = detect(
        model="flight_delay",
        window="2013-10",
        frame=table(1, 2),
        reference=reference_bins(table(0, 0), FIELDS),
        monitoring=MONITORING,
    )
    return drift_page(
        frame=table(1, 2),
        reference=table(0, 0),
        fields=FIELDS,
        monitoring=MONITORING,
        report=report,
    )


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.scripts = 0
        self.handlers = []

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        assert tag != "img"


def test_figures_tell_drift_from_none(page):
    assert page.figures["speed"] > 0.5
    assert page.figures["steady"] < 0.2
    assert page.rows == page.reference_rows == 500


def test_columns_without_values_are_left_out_and_named(page):
    assert page.left_out == ("nothing",)
    assert set(page.figures) == {f.name for f in FIELDS} - {"nothing"}


def test_names_and_values_cannot_act(page):
    text = page.html.decode()
    for hostile in (HOSTILE_NAME, HOSTILE_VALUE, "onerror=alert('", "<script>alert"):
        assert hostile not in text
    harmless = drift_page(
        frame=table(1, 2).select(["speed"]),
        reference=table(0, 0).select(["speed"]),
        fields=FIELDS[:1],
        monitoring=MONITORING,
    )
    assert harmless is not None
    expected, found = Elements(), Elements()
    expected.feed(harmless.html.decode())
    found.feed(text)
    assert found.scripts == expected.scripts
    assert found.handlers == []


def test_page_begins_with_the_figures_that_decide(page):
    text = page.html.decode()
    head = text[text.index("<body>") : text.index('id="root_')]
    assert "Drift of flight_delay, window 2013-10: stable" in head
    assert "features drifted" in head
    assert "All 2,000 rows against 2,000" in head
    for field in FIELDS:
        assert field.name in head or field.name == HOSTILE_NAME


def test_only_so_many_columns_are_shown():
    found = drift_page(
        frame=table(1, 2),
        reference=table(0, 0),
        fields=FIELDS,
        monitoring=MONITORING,
        max_columns=1,
    )
    assert found is not None
    assert list(found.figures) == ["speed"]
    assert len(found.left_out) == len(FIELDS) - 1


def test_as_many_columns_are_shown_as_drifted_and_some_for_comparison():
    fields = [
        FeatureField(name=f"n{place:02}", kind=FieldKind.NUMERICAL, origin="request")
        for place in range(30)
    ]
    past = many(fields, moved=0)
    for moved, shown in ((0, 8), (3, 8), (12, 12), (30, 24)):
        report = detect(
            model="flight_delay", window="2013-10", frame=many(fields, moved=moved),
            reference=reference_bins(past, fields), monitoring=MONITORING,
        )  # fmt: skip
        assert len(report.drifted) == moved
        found = drift_page(
            frame=many(fields, moved=moved), reference=past, fields=fields,
            monitoring=MONITORING, report=report,
        )  # fmt: skip
        assert len(found.figures) == shown
        assert f"Evidently's view of {shown} columns" in found.html.decode()


def many(fields, *, moved):
    random = np.random.default_rng(0)
    return pa.table(
        {
            field.name: random.normal(3.0 * (place < moved), 1, 800)
            for place, field in enumerate(fields)
        }
    )


@pytest.mark.parametrize("rows", [0, 1, 9])
def test_too_few_rows_give_no_page(rows):
    for frame, reference in [
        (table(1, 0).slice(0, rows), table(0, 0)),
        (table(1, 0), table(0, 0).slice(0, rows)),
    ]:
        assert (
            drift_page(frame=frame, reference=reference, fields=FIELDS, monitoring=MONITORING)
            is None
        )


def test_sample_is_the_same_every_time_and_keeps_the_order():
    rows = pa.table({"n": np.arange(5000)})
    chosen = sample(rows, 700)
    assert chosen == sample(rows, 700)
    assert chosen.num_rows == 700
    assert np.all(np.diff(chosen["n"].to_numpy()) > 0)
    assert sample(rows, 5000) is rows
