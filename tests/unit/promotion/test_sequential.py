"""Sequential tests: rarely wrong however often one looks, and right in the end."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios_platform.contracts.rollouts import Sample
from aios_platform.promotion.sequential import (
    LEAST,
    mean_exceeds,
    means_differ,
    rate_bounds,
    rate_exceeds,
)

ALPHA = 0.05
RUNS = 300
LOOKS = np.unique(np.geomspace(20, 20_000, 60).astype(int))
# More false alarms among the runs have a probability below 0.1 % at exactly alpha.
MOST_FALSE = RUNS * ALPHA + 3.1 * math.sqrt(RUNS * ALPHA * (1 - ALPHA))


def sample(values) -> Sample:
    return Sample(count=len(values), total=float(values.sum()), squares=float((values**2).sum()))


def samples_at_looks(values) -> list[Sample]:
    sums, squares = np.cumsum(values), np.cumsum(values**2)
    return [
        Sample(count=int(n), total=float(sums[n - 1]), squares=float(squares[n - 1])) for n in LOOKS
    ]


def alarms(run) -> int:
    """In how many runs a test spoke at any look."""
    return sum(any(run(np.random.default_rng(seed))) for seed in range(RUNS))


def rates(generator, rate, other, margin):
    one = np.cumsum(generator.random(LOOKS[-1]) < rate)
    two = np.cumsum(generator.random(3 * LOOKS[-1]) < other)
    for n in LOOKS:
        yield rate_exceeds(
            (int(one[n - 1]), int(n)), (int(two[3 * n - 1]), int(3 * n)), margin, ALPHA
        )


def latencies(generator, ratio):
    one = generator.lognormal(0, 0.8, LOOKS[-1]) * ratio
    two = generator.lognormal(0, 0.8, LOOKS[-1])
    for a, b in zip(samples_at_looks(one), samples_at_looks(two), strict=True):
        yield means_differ(a, b, ALPHA, planned=200, ratio=1.5)


def latencies_of_a_large_canary(generator):
    one = generator.lognormal(0, 0.8, 5 * LOOKS[-1]) * 1.5
    two = generator.lognormal(0, 0.8, LOOKS[-1])
    sums, squares = np.cumsum(one), np.cumsum(one**2)
    for n, other in zip(LOOKS, samples_at_looks(two), strict=True):
        most = 5 * n
        large = Sample(count=int(most), total=sums[most - 1], squares=squares[most - 1])
        yield means_differ(large, other, ALPHA, planned=200, ratio=1.5)


def predictions(generator, shift):
    one = np.clip(generator.beta(2, 6, LOOKS[-1]) + shift, 0, 1)
    two = generator.beta(2, 6, LOOKS[-1])
    for a, b in zip(samples_at_looks(one), samples_at_looks(two), strict=True):
        yield means_differ(a, b, ALPHA, planned=200, margin=0.05)


def pairs(generator, shift):
    for found in samples_at_looks(generator.normal(shift, 0.1, LOOKS[-1])):
        yield mean_exceeds(found, 0.05, ALPHA, planned=500)


@pytest.mark.parametrize(
    "run",
    [
        lambda g: rates(g, 0.02, 0.01, 0.01),
        lambda g: rates(g, 0.3, 0.3, 0.0),
        lambda g: latencies(g, 1.5),
        latencies_of_a_large_canary,
        lambda g: predictions(g, 0.05),
        lambda g: pairs(g, 0.05),
    ],
    ids=["rare errors", "frequent errors", "latency", "large canary", "prediction", "pairs"],
)
def test_at_the_bound_itself_it_ever_speaks_as_rarely_as_declared(run):
    assert alarms(run) <= MOST_FALSE


def test_a_repeated_fixed_sample_test_would_speak_far_too_often():
    def run(generator):
        for found in samples_at_looks(generator.normal(0, 1, LOOKS[-1])):
            yield found.mean / math.sqrt(found.variance / found.count) > 1.645

    assert alarms(run) > 2 * MOST_FALSE


@pytest.mark.parametrize(
    ("run", "by"),
    [
        (lambda g: rates(g, 0.10, 0.01, 0.01), 1000),
        (lambda g: latencies(g, 3.0), 1000),
        (lambda g: predictions(g, 0.15), 1000),
        (lambda g: pairs(g, 0.10), 1000),
    ],
    ids=["errors", "latency", "prediction", "pairs"],
)
def test_a_real_difference_is_found_soon(run, by):
    for seed in range(20):
        found = [
            n for n, spoke in zip(LOOKS, run(np.random.default_rng(seed)), strict=True) if spoke
        ]
        assert found
        assert found[0] <= by


counts = st.integers(0, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.floats(1e-6, 0.5))
def test_bounds_hold_the_observed_rate_and_widen_with_confidence(found, alpha):
    low, high = rate_bounds(*found, alpha)
    assert 0 <= low <= high <= 1
    if found[1]:
        assert low <= found[0] / found[1] <= high
    wider = rate_bounds(*found, alpha / 2)
    assert wider[0] <= low + 1e-9
    assert wider[1] >= high - 1e-9


@given(counts, counts, st.floats(0, 0.5))
def test_a_rate_no_higher_than_tolerated_never_speaks(one, other, margin):
    observed = one[0] / one[1] if one[1] else 0.0
    bound = other[0] / other[1] if other[1] else 0.0
    if observed <= bound + margin:
        assert not rate_exceeds(one, other, margin, ALPHA)


@settings(max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), max_size=LEAST - 1))
def test_few_observations_say_nothing_about_a_mean(values):
    few = sample(np.array(values))
    assert not means_differ(few, few, ALPHA, planned=200)
    assert not mean_exceeds(few, -1e9, ALPHA, planned=200)


def test_constants_that_differ_differ():
    one, other = sample(np.full(LEAST, 0.9)), sample(np.full(LEAST, 0.5))
    assert means_differ(one, other, ALPHA, planned=200, margin=0.05)
    assert not means_differ(other, one, ALPHA, planned=200, margin=0.05)
