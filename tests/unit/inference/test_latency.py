"""Latency of single rows: models in turn, on equal terms."""

import gc

import pytest

from aios_platform.errors import ScoringError
from aios_platform.inference.latency import alternating_p95, scoring_seconds
from aios_platform.inference.session import Session
from tests.unit.inference.conftest import make_onnx
from tests.unit.inference.networks import build
from tests.unit.training.conftest import make_frame as make_labelled
from tests.unit.training.conftest import schema_of


class Recording:
    """A session that notes who was asked, about how many rows, and whether garbage is collected."""

    def __init__(self, name, session, calls):
        self.name, self.session, self.calls = name, session, calls

    def predict(self, rows):
        self.calls.append((self.name, rows.num_rows, gc.isenabled()))
        return self.session.predict(rows)


def test_models_take_turns_on_single_rows(session, make_frame):
    calls = []
    pair = [Recording(name, session, calls) for name in "ab"]
    found = alternating_p95(pair, make_frame(7), repeats=10)
    assert len(found) == 2
    assert all(milliseconds > 0 for milliseconds in found)
    timed = calls[-20:]
    assert [name for name, *_ in timed] == ["a", "b", "b", "a"] * 5
    assert {(rows, collecting) for _, rows, collecting in timed} == {(1, False)}
    assert gc.isenabled()


def test_garbage_is_collected_again_after_a_failure(session, make_frame):
    with pytest.raises(ScoringError):
        alternating_p95([session], make_frame(5).drop_columns(["delay"]))
    assert gc.isenabled()


@pytest.mark.parametrize(("models", "rows", "repeats"), [(0, 5, 3), (1, 0, 3), (1, 5, 0)])
def test_nothing_to_time_is_an_error(make_frame, models, rows, repeats):
    with pytest.raises(ScoringError, match="cannot be measured"):
        alternating_p95([Session(make_onnx())] * models, make_frame(rows), repeats=repeats)


@pytest.mark.parametrize("features", [(("delay", "distance"), ("carrier",)), ((), ("carrier",))])
@pytest.mark.parametrize("rows", [1, 100])
def test_a_model_is_timed_as_the_gateway_feeds_it(features, rows):
    schema = schema_of(*features)
    frame = make_labelled(rows=50)
    row, batched = scoring_seconds(build(frame, schema), schema, frame.slice(0, rows))
    assert 0 < batched < row
    assert gc.isenabled()


def test_no_row_and_a_model_of_another_form_are_not_timed(make_frame):
    schema = schema_of(("delay",), ("carrier",))
    with pytest.raises(ScoringError, match="No row"):
        scoring_seconds(make_onnx(), schema, make_frame(0))
    with pytest.raises(ScoringError, match="side by side"):
        scoring_seconds(make_onnx(), schema, make_frame(5))
