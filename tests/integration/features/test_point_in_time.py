"""Offline features of real flights at moments that callers chose."""

from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from aios_platform.features.point_in_time import features_at
from aios_platform.features.training_set import scoring_frame

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore:.*experimental:RuntimeWarning"),
]
ID, AT = "flight_id", "prediction_time"


@pytest.fixture(scope="module")
def frame(flights):
    """The frame of batch scoring, a few hundred rows of it."""
    made = scoring_frame(flights.declaration, flights.windows[1], flights.store, flights.feast)
    whole = flights.store.read(made.versions[0])
    return whole.take(list(range(0, whole.num_rows, 80)))


@pytest.fixture
def ask(flights):
    def ask(asked):
        return features_at(
            flights.declaration, flights.windows[1], asked, flights.store, flights.feast
        )

    return ask


def test_at_the_delivered_moments_they_are_those_of_batch_scoring(frame, ask):
    reverse = frame.take(list(reversed(range(frame.num_rows))))
    found = ask(reverse.select([ID, AT]))
    names = [name for name in found.column_names if name != ID]
    assert len(names) > 40
    assert found[ID].equals(reverse[ID])
    for name in names:
        assert found[name].combine_chunks().equals(reverse[name].combine_chunks()), name


def test_at_other_moments_they_are_as_known_then(frame, ask):
    earlier = pa.chunked_array([pc.subtract(frame[AT], timedelta(hours=12)).combine_chunks()])
    then = ask(pa.table({ID: frame[ID], AT: earlier}))
    now = ask(frame.select([ID, AT]))
    assert then["distance"].equals(now["distance"]), "the caller's columns do not move"
    moved = [
        name for name in now.column_names
        if not then[name].combine_chunks().equals(now[name].combine_chunks())
    ]  # fmt: skip
    assert len(moved) > 10


def test_a_row_that_was_never_delivered_is_left_out(frame, ask):
    few = frame.slice(0, 3)
    asked = pa.table(
        {ID: ["nobody", *few[ID].to_pylist(), "no one"],
         AT: pa.array([few[AT][0].as_py()] * 5, few.schema.field(AT).type)}
    )  # fmt: skip
    found = ask(asked)
    assert found[ID].to_pylist() == few[ID].to_pylist()
    none = ask(asked.slice(0, 1))
    assert none.num_rows == 0
    assert none.schema == found.schema
