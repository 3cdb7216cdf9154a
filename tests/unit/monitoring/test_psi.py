"""PSI over stored bins."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios_platform.contracts.datasets import FeatureField, FieldKind
from aios_platform.monitoring.psi import (
    ReferenceBins,
    chance_psi,
    counts_of,
    psi,
    reference_bins,
)

NUMBER = FeatureField(name="x", kind=FieldKind.NUMERICAL, origin="request")
WORD = FeatureField(name="x", kind=FieldKind.CATEGORICAL, origin="request")


def bins_of(values, field=NUMBER, kind=None):
    return reference_bins(pa.table({"x": pa.array(values, kind)}), [field]).columns[0]


def counted(bins, values, kind=None):
    return counts_of(bins, pa.chunked_array([pa.array(values, kind)])).tolist()


def test_psi_by_hand():
    reference, current = np.array([50, 50]), np.array([80, 20])
    r, c = np.array([50.5, 50.5]) / 101, np.array([80.5, 20.5]) / 101
    assert psi(reference, current) == pytest.approx(sum((c - r) * np.log(c / r)))
    assert psi(reference, reference) == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 500), min_size=2, max_size=12),
    st.lists(st.integers(0, 500), min_size=12, max_size=12),
)
def test_psi_is_finite_never_negative_and_symmetric(reference, current):
    r, c = np.array(reference), np.array(current[: len(reference)])
    assert math.isfinite(psi(r, c))
    assert psi(r, c) >= 0
    assert psi(r, c) == pytest.approx(psi(c, r))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32)), max_size=60
    )
)
def test_every_row_falls_into_one_bin(values):
    bins = bins_of(values, kind=pa.float32())
    assert sum(bins.counts) == len(values)
    assert counted(bins, values, pa.float32()) == list(bins.counts)
    assert ReferenceBins.model_validate_json(
        ReferenceBins(rows=len(values), columns=(bins,)).model_dump_json()
    ).columns == (bins,)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=60))
def test_every_category_falls_into_one_bin(values):
    bins = bins_of(values, WORD, pa.string())
    assert sum(bins.counts) == len(values)
    assert counted(bins, values, pa.string()) == list(bins.counts)


def test_deciles_missing_values_and_infinities():
    bins = bins_of([*range(1000), None, math.nan])
    assert list(bins.counts[:-1]) == pytest.approx([100] * 10, abs=1)
    assert bins.counts[-1] == 2
    assert counted(bins, [-math.inf, math.inf, None, math.nan]) == [1, *[0] * 8, 1, 2]


def test_a_new_value_between_few_known_ones_is_noticed():
    bins = bins_of([0, 1] * 500, kind=pa.int64())
    assert bins.points
    before = counted(bins, [0, 1] * 500)
    assert psi(np.array(bins.counts), np.array(before)) == pytest.approx(0, abs=1e-9)
    between = counted(bins, [0.5] * 1000)
    assert psi(np.array(bins.counts), np.array(between)) > 1


def test_unseen_and_rare_categories_share_a_bin():
    bins = bins_of([f"c{n:02}" for n in range(40) for _ in range(100 - n)], WORD)
    assert bins.categories[0] == "c00"
    assert len(bins.categories) == 30
    assert counted(bins, ["c00", "c39", "never seen", None]) == [1, *[0] * 29, 2, 1]


@pytest.mark.parametrize("type_", [pa.int64(), pa.float64(), pa.bool_(), pa.int8()])
def test_types_of_numbers(type_):
    values = pa.array([0, 1, None, 1], pa.int8()).cast(type_)
    # Below 0, 0, between, 1, above, missing.
    assert bins_of(values).counts == (0, 1, 0, 2, 0, 1)


@pytest.mark.parametrize(
    "type_", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_types_of_strings(type_):
    column = pa.array(["a", None, "b"]).cast(type_)
    assert bins_of(column, WORD).counts == (1, 1, 0, 1)


def test_bins_of_files_are_those_of_the_rows(store):
    rows = pa.table({"x": np.random.default_rng(0).normal(size=3000), "y": np.arange(3000)})
    parts = [store.write("frames", key, rows.slice(n, 1500)) for key, n in [("a", 0), ("b", 1500)]]
    assert reference_bins(store.scan(parts), [NUMBER]) == reference_bins(rows, [NUMBER])


def test_chance_rarely_reaches_what_it_is_said_to_reach():
    generator = np.random.default_rng(0)
    reference = generator.normal(size=20_000)
    bins = bins_of(reference)
    bound = chance_psi(10, 20_000, 300)
    found = [
        psi(np.array(bins.counts), np.array(counted(bins, generator.normal(size=300))))
        for _ in range(2000)
    ]
    # One in a thousand is expected; the approximation is allowed three times that.
    assert sum(value > bound for value in found) <= 6
    # And the bound is no larger than it has to be.
    assert max(found) > 0.6 * bound


def test_without_rows_chance_can_reach_anything():
    assert chance_psi(10, 0, 100) == chance_psi(10, 100, 0) == math.inf
