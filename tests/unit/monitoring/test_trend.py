"""The picture of drift over windows."""

import struct

from aios_platform.monitoring.trend import MOST_WINDOWS, trend_plot
from tests.unit.monitoring.test_drift import FIELDS, found, frame
from tests.unit.monitoring.test_performance import measured


def reports(count, **more):
    return [
        found(frame(3000, n, shift=n / 4), **more).model_copy(
            update={"window": f"2013-{n % 12 + 1:02}"}
        )
        for n in range(count)
    ]


def size(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def test_equal_windows_give_equal_bytes_and_more_windows_a_wider_picture():
    few, many = reports(2), reports(12, importance={FIELDS[0].name: 0.9, FIELDS[1].name: 0.1})
    assert trend_plot(few, [measured()]) == trend_plot(few, [measured()])
    assert size(trend_plot(many))[0] > size(trend_plot(few))[0]
    # What does not fit is left out, the oldest first.
    assert trend_plot(many * 5) == trend_plot((many * 5)[-MOST_WINDOWS:])


def test_a_window_without_any_judged_feature_has_no_picture():
    assert trend_plot([]) is None
    assert trend_plot([found(frame(3, 0))]) is None
