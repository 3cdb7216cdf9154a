"""Metrics that add up in memory show what the library's own show."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from aios_platform.serving.summed_metrics import MANY, SummedCounter, SummedHistogram, settle

BOUNDS = (0.25, 0.5, 1.0)
VALUES = st.floats(0, 2, width=32) | st.sampled_from([0.25, 0.5, 1.0, np.nan])
BATCHES = st.lists(
    st.integers(0, 2 * MANY).flatmap(lambda rows: arrays(np.float32, rows, elements=VALUES)),
    max_size=4,
)


@given(BATCHES, st.lists(st.floats(0, 2), max_size=5))
def test_a_histogram_counts_as_the_librarys_own(batches, singles):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    summed = SummedHistogram("h", "h", ["m"], registry=ours, buckets=BOUNDS).labels("a")
    plain = Histogram("h", "h", ["m"], registry=theirs, buckets=BOUNDS).labels("a")
    for batch in batches:
        summed.observe_many(batch)
        for value in batch[~np.isnan(batch)].tolist():
            plain.observe(value)
    for value in singles:
        summed.observe(value)
        plain.observe(value)
    labels = {"m": "a"}
    for bound in ("0.25", "0.5", "1.0", "+Inf"):
        named = {**labels, "le": bound}
        assert ours.get_sample_value("h_bucket", named) == theirs.get_sample_value(
            "h_bucket", named
        )
    found, wanted = (r.get_sample_value("h_sum", labels) for r in (ours, theirs))
    assert np.isclose(found, wanted, rtol=1e-9)


def test_a_page_shows_what_was_added_up_since_the_last():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    summed = SummedCounter("c", "c", ["m"], registry=ours)
    plain = Counter("c", "c", ["m"], registry=theirs)
    for amount in (1, 2.5, 0):
        for counter in (summed, plain):
            counter.labels("a").inc(amount)
        settle()
        for counter in (summed, plain):
            counter.labels("b").inc()
        assert generate_latest(ours) == generate_latest(theirs)
