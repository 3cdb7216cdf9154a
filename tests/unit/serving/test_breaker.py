"""The circuit breaker: closed, open, half-open."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from aios_platform.serving.breaker import CircuitBreaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_so_many_failures_in_a_row_open_it_and_one_success_closes_it():
    clock = Clock()
    breaker = CircuitBreaker(3, 10, clock)
    for _ in range(2):
        breaker.failed()
    breaker.succeeded()
    for _ in range(3):
        assert breaker.allows()
        breaker.failed()
    assert breaker.is_open
    assert not breaker.allows()
    clock.now += 10
    assert breaker.allows()
    breaker.succeeded()
    assert not breaker.is_open
    assert breaker.allows()


def test_half_open_it_lets_one_attempt_through_until_that_has_ended():
    clock = Clock()
    breaker = CircuitBreaker(1, 10, clock)
    breaker.failed()
    clock.now += 10
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    breaker.failed()
    clock.now += 9.9
    assert not breaker.allows()
    clock.now += 0.1
    assert breaker.allows()
    # An attempt that never ends is followed by another one.
    clock.now += 10
    assert breaker.allows()


@given(st.lists(st.tuples(st.sampled_from(["fail", "succeed", "ask"]), st.floats(0, 5))))
def test_while_open_it_is_tried_at_most_once_in_its_time(events):
    clock = Clock()
    breaker = CircuitBreaker(2, 10, clock)
    let_through = []
    for event, seconds in events:
        clock.now += seconds
        was_open = breaker.is_open
        if event == "fail":
            breaker.failed()
        elif event == "succeed":
            breaker.succeeded()
            let_through.clear()
        elif breaker.allows() and was_open:
            let_through.append(clock.now)
    assert all(b - a >= 10 for a, b in pairwise(let_through))
