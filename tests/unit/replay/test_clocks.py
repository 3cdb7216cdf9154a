"""The moments of a replay."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.replays import Gain
from aios_platform.replay.clocks import ticks
from aios_platform.replay.results import mean_gain
from tests.unit.contracts.test_declaration import MINIMAL


def declared(maturity_days, every="month"):
    return ModelDeclaration.model_validate(
        MINIMAL
        | {
            "windows": {"start": "2013-01-07" if every == "week" else "2013-01", "every": every},
            "label": MINIMAL["label"] | {"maturity_days": maturity_days},
        }
    )


def test_each_window_closes_and_matures_in_turn():
    found = ticks(declared(2), "2013-02", "2013-03")
    assert [(tick.closed, tick.matured) for tick in found] == [
        (("2013-02",), ()),
        ((), ("2013-02",)),
        (("2013-03",), ()),
        ((), ("2013-03",)),
    ]
    assert found[1].clock - found[0].clock == timedelta(days=2)


def test_what_happens_at_one_moment_is_one_moment():
    found = ticks(declared(28, "week"), "2013-01-07", "2013-02-18")
    together = [tick for tick in found if tick.closed and tick.matured]
    assert [(t.closed, t.matured) for t in together] == [
        (("2013-02-04",), ("2013-01-07",)),
        (("2013-02-11",), ("2013-01-14",)),
        (("2013-02-18",), ("2013-01-21",)),
    ]


@settings(max_examples=50, deadline=None)
@given(days=st.floats(0, 400), first=st.integers(1, 12), more=st.integers(0, 12))
def test_moments_are_in_order_and_every_window_has_both(days, first, more):
    declaration = declared(days)
    begin = f"2013-{first:02}"
    end = declaration.windows.shift(begin, more)
    found = ticks(declaration, begin, end)
    clocks = [tick.clock for tick in found]
    assert clocks == sorted(set(clocks))
    closed = [key for tick in found for key in tick.closed]
    assert closed == [key for tick in found for key in tick.matured]
    assert len(closed) == more + 1
    assert (closed[0], closed[-1]) == (begin, end)


@pytest.mark.parametrize(("first", "last"), [("2013-05", "2013-04"), ("2012-12", "2013-02")])
def test_windows_that_are_none_are_refused(first, last):
    with pytest.raises(ValueError, match=r"2013-04|2012-12"):
        ticks(declared(1), first, last)


def test_the_mean_of_gains_is_surer_than_each():
    one = Gain(value=0.01, low=-0.0096, high=0.0296, standard_error=0.01)
    mean = mean_gain([one, None, one, one, one], 0.95)
    assert mean.value == pytest.approx(0.01)
    assert mean.standard_error == pytest.approx(0.005)
    assert (mean.low, mean.high) == pytest.approx((0.0002, 0.0198), abs=1e-5)
    assert mean.windows == 4
    assert mean.significant
    assert not one.significant
    assert mean_gain([None], 0.95) is None
