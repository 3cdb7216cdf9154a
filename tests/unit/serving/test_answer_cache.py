"""Answers kept for equal values."""

import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aios_platform.serving.answer_cache import AnswerCache


def key(value, tiers=(0,)):
    [found] = AnswerCache.keys(np.array([[value]], np.float32), [["red"]], tiers)
    return found


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 6), st.floats(0, 1), st.floats(0, 3)), max_size=60
    )
)
def test_it_gives_the_newest_answer_while_it_is_young_and_never_holds_more_than_it_may(events):
    cache, now = AnswerCache(3, 5.0), 0.0
    model: dict[int, tuple[float, float]] = {}
    for put, value, probability, seconds in events:
        now += seconds
        if put:
            cache.put(key(value), probability, 0, now)
            model[value] = (probability, now + 5.0)
        else:
            found = cache.get(key(value), now)
            known = model.get(value)
            if found is not None:
                assert known is not None
                assert found == (known[0], 0)
                assert now < known[1]
        assert len(cache) <= 3


def test_the_least_recently_used_goes_first():
    cache = AnswerCache(2, 60.0)
    cache.put(key(1), 0.1, 0, 0.0)
    cache.put(key(2), 0.2, 1, 0.0)
    assert cache.get(key(1), 1.0) == (0.1, 0)
    cache.put(key(3), 0.3, 0, 1.0)
    assert cache.get(key(2), 1.0) is None
    assert cache.get(key(1), 1.0) == (0.1, 0)
    assert cache.get(key(1), 60.0) is None
    assert len(cache) == 1


def test_values_are_told_apart_bit_for_bit_and_by_the_tiers_that_may_answer():
    near = float(np.nextafter(np.float32(1), np.float32(2)))
    assert len({key(0.0), key(-0.0), key(1.0), key(near), key(1.0, (0, 1))}) == 5
    assert key(np.nan) == key(np.nan)
    [red, blue] = AnswerCache.keys(np.zeros((2, 0), np.float32), [["red", "blue"]], (0,))
    assert red != blue


def test_two_threads_may_use_it():
    cache, errors = AnswerCache(8, 0.5), []

    def use(seed):
        random = np.random.default_rng(seed)
        try:
            for now in np.arange(0, 20, 0.01):
                value = int(random.integers(16))
                if cache.get(key(value), now) is None:
                    cache.put(key(value), 0.5, 0, now)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(cache) <= 8
