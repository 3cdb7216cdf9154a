from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from aios_platform.contracts.windows import Every, WindowSchedule

ZONES = ["UTC", "America/New_York", "Asia/Kolkata", "Pacific/Auckland"]
SCHEDULES = st.builds(
    lambda every, start, zone: WindowSchedule(
        every=every, start=start, timezone="UTC" if every is Every.HOUR else zone
    ),
    st.sampled_from(Every),
    st.dates(date(2012, 1, 1), date(2014, 1, 1)).map(lambda d: d.replace(day=1)),
    st.sampled_from(ZONES),
)


@settings(max_examples=60, deadline=None)
@given(schedule=SCHEDULES)
def test_windows_tile_time_without_gap_or_overlap(schedule):
    start = datetime.combine(schedule.start, datetime.min.time(), UTC)
    step = {Every.HOUR: 3, Every.DAY: 40, Every.WEEK: 200, Every.MONTH: 500}[schedule.every]
    windows = schedule.windows(start + timedelta(days=step))
    assert len(windows) >= 2
    for earlier, later in pairwise(windows):
        assert earlier.end == later.start
        assert earlier.key < later.key
        if schedule.every is not Every.HOUR:
            assert schedule.shift(earlier.key, 1) == later.key
            assert schedule.shift(later.key, -1) == earlier.key
            assert schedule.window(earlier.key) == earlier


def test_a_window_is_closed_only_once_it_is_over():
    schedule = WindowSchedule(every="month", start="2013-01", timezone="America/New_York")
    march_ends = datetime(2013, 4, 1, 4, tzinfo=UTC)
    assert [w.key for w in schedule.windows(march_ends)] == ["2013-01", "2013-02", "2013-03"]
    assert schedule.windows(march_ends - timedelta(seconds=1))[-1].key == "2013-02"


def test_months_in_a_zone_with_daylight_saving_begin_at_local_midnight():
    schedule = WindowSchedule(every="month", start="2013-01", timezone="America/New_York")
    assert schedule.window("2013-02").start == datetime(2013, 2, 1, 5, tzinfo=UTC)
    assert schedule.window("2013-07").start == datetime(2013, 7, 1, 4, tzinfo=UTC)


def test_windows_stop_at_the_declared_end():
    schedule = WindowSchedule(every="month", start="2013-01", end="2014-01-01")
    assert schedule.windows(datetime(2030, 1, 1, tzinfo=UTC))[-1].key == "2013-12"
    assert schedule.shift("2013-12", 1) is None
    assert schedule.shift("2013-01", -1) is None
    with pytest.raises(ValueError, match="outside"):
        schedule.window("2014-01")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start": "2013-01", "timezone": "America/New_Yrok"}, "not an IANA time zone"),
        ({"start": "2013-01", "end": "2012-01-01"}, "must come after"),
        ({"start": "2013-01-15"}, "first of a month"),
        ({"start": "2013-01", "every": "hour", "timezone": "Asia/Kolkata"}, "must be in UTC"),
        ({"start": "2013-01", "every": "fortnight"}, "'hour', 'day', 'week' or 'month'"),
    ],
)
def test_a_wrong_schedule_says_why(wrong, message):
    with pytest.raises(ValidationError, match=message):
        WindowSchedule(**wrong)


def test_a_key_of_another_form_is_refused():
    schedule = WindowSchedule(every="month", start="2013-01")
    with pytest.raises(ValueError, match="does not have the form"):
        schedule.window("2013-01-05")
