"""When an error budget is spent too fast."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios_platform.contracts.alerts import Severity
from aios_platform.contracts.serving import ServiceLevel
from aios_platform.monitoring.error_budget import (
    LEAST_BAD,
    PERIOD,
    RULES,
    WINDOWS,
    Counts,
    Objective,
    find_burns,
)

PROMISED = ServiceLevel(availability=0.999, latency_share=0.99)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def steady(errors: float = 0.0, slow: float = 0.0, per_minute: int = 10_000) -> dict:
    """The same traffic over all windows."""
    return {
        window: Counts(
            requests=(total := per_minute * int(window / MINUTE)),
            errors=round(total * errors),
            slow=round(total * slow),
        )
        for window in WINDOWS
    }


def told(counts: dict) -> list:
    return [(burn.objective, burn.rule.severity) for burn in find_burns(counts, PROMISED)]


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        (0.0, []),
        (0.0009, []),
        (0.0011, [Severity.WARNING]),
        (0.0059, [Severity.WARNING]),
        (0.0061, [Severity.CRITICAL, Severity.WARNING]),
        (1.0, [Severity.CRITICAL, Severity.WARNING]),
    ],
)
def test_a_steady_rate_of_errors_is_judged_by_how_soon_the_budget_is_gone(errors, expected):
    assert told(steady(errors)) == [(Objective.AVAILABILITY, each) for each in expected]
    # The same in multiples of the budget for latency, which is ten times as large.
    slow = min(errors * 10, 1.0)
    assert told(steady(slow=slow)) == [(Objective.LATENCY, each) for each in expected]


def test_the_fastest_rule_is_named_with_its_figures():
    [page, _] = find_burns(steady(0.02), PROMISED)
    assert page.rule.long == HOUR
    assert page.long_rate == pytest.approx(20)
    assert (page.bad, page.requests) == (12_000, 600_000)
    assert "12,000 of 600,000 requests failed" in page.reason
    assert "20.0 times as fast" in page.reason


def test_it_is_over_when_the_short_window_is_good_again():
    mended = steady(0.02) | {window: Counts(requests=1000) for window in WINDOWS if window < HOUR}
    assert told(mended) == [(Objective.AVAILABILITY, Severity.WARNING)]


@pytest.mark.parametrize(("bad", "count"), [(LEAST_BAD - 1, 0), (LEAST_BAD, 2)])
def test_a_few_bad_requests_are_chance(bad, count):
    counts = {window: Counts(requests=bad, errors=bad) for window in WINDOWS}
    assert len(told(counts)) == count


def test_without_traffic_nothing_burns():
    assert told({}) == []
    assert told({window: Counts() for window in WINDOWS}) == []


@given(
    errors=st.floats(0, 1), slow=st.floats(0, 1), availability=st.floats(0.5, 0.99999),
    per_minute=st.integers(0, 1000),
)  # fmt: skip
def test_what_burns_spends_the_budget_faster_than_is_allowed(
    errors, slow, availability, per_minute
):
    promised = ServiceLevel(availability=availability)
    burns = find_burns(steady(errors, slow, per_minute), promised)
    assert len({(burn.objective, burn.rule.severity) for burn in burns}) == len(burns)
    for burn in burns:
        assert min(burn.long_rate, burn.short_rate) >= burn.rule.rate >= 1
        assert burn.bad >= LEAST_BAD


def test_the_rules_are_those_of_the_workbook():
    shares = [round(rule.rate * (rule.long / PERIOD), 3) for rule in RULES]
    assert shares == [0.02, 0.05, 0.1]
    assert all(rule.long / rule.short == 12 for rule in RULES)
