"""The as-of join against brute force."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios_platform.features.asof import NONE, AsOfJoin, FeatureRows, newest_rows

Feature = tuple[str | None, int, int | None, int | None]
Entity = tuple[str | None, int, int | None]


def oracle(
    entities: Sequence[Entity],
    features: Sequence[Feature],
    *,
    ttl: int | None,
    honour: bool,
    has_created: bool,
) -> list[int]:
    """Positions of the winners, by looking at every pair."""
    winners = []
    for name, number, t in entities:
        best: tuple[int, int, int] | None = None
        for position, (key, part, event, created) in enumerate(features):
            if t is None or name is None or (key, part) != (name, number):
                continue
            if event is None or event > t or (ttl is not None and event < t - ttl):
                continue
            if has_created and honour and (created is None or created > t):
                continue
            known = created if has_created and created is not None else -1_000
            best = max(best or (-9_999, 0, 0), (event, known, position))
        winners.append(best[2] if best else NONE)
    return winners


def join(
    entities: Sequence[Entity],
    features: Sequence[Feature],
    *,
    ttl: int | None,
    honour: bool,
    has_created: bool,
    batch: int,
) -> list[int]:
    names, numbers, moments = (
        [list(c) for c in zip(*entities, strict=True)] if entities else ([], [], [])
    )
    lookup = AsOfJoin(
        [pa.array(names, pa.large_string()), pa.array(numbers, pa.int64())],
        pa.array(moments, pa.int64()),
        ttl=ttl,
        honour_created=honour,
    )
    for first in range(0, len(features), batch):
        keys, parts, events, created = zip(*features[first : first + batch], strict=True)
        lookup.feed(
            FeatureRows(
                [pa.array(keys, pa.large_string()), pa.array(parts, pa.int64())],
                pa.array(events, pa.int64()),
                pa.array(created, pa.int64()) if has_created else None,
                first,
            )
        )
    return lookup.winners.tolist()


keys = st.sampled_from(["a", "b", None])
parts = st.integers(0, 1)
times = st.one_of(st.none(), st.integers(0, 12))


@settings(max_examples=250, deadline=None)
@given(
    entities=st.lists(st.tuples(keys, parts, times), max_size=12),
    features=st.lists(st.tuples(keys, parts, times, times), max_size=25),
    ttl=st.one_of(st.none(), st.integers(1, 6)),
    honour=st.booleans(),
    has_created=st.booleans(),
    batch=st.sampled_from([1, 2, 7, 100]),
)
def test_it_equals_brute_force_however_the_source_is_cut(
    entities: list[Entity],
    features: list[Feature],
    ttl: int | None,
    honour: bool,
    has_created: bool,
    batch: int,
) -> None:
    rules = {"ttl": ttl, "honour": honour, "has_created": has_created}
    found = join(entities, features, **rules, batch=batch)
    assert found == oracle(entities, features, **rules)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(keys, times, times), min_size=1, max_size=20))
def test_knowledge_never_changes_the_past(
    rows: list[tuple[str | None, int | None, int | None]],
) -> None:
    """What is created after an entity row's time cannot change what the row sees."""
    entities: list[Entity] = [("a", 0, t) for t in range(13)]
    features: list[Feature] = [(k, 0, e, c) for k, e, c in rows]
    rules = {"ttl": None, "honour": True, "has_created": True, "batch": 100}
    for t in range(13):
        by_then = [(i, f) for i, f in enumerate(features) if f[3] is not None and f[3] <= t]
        whole = join(entities[t : t + 1], features, **rules)[0]
        part = join(entities[t : t + 1], [f for _, f in by_then], **rules)[0]
        assert whole == (by_then[part][0] if part != NONE else NONE)


def test_the_latest_known_version_of_the_latest_event_wins() -> None:
    features: list[Feature] = [
        ("a", 0, 10, 10),
        ("a", 0, 20, 20),
        ("a", 0, 10, 30),  # a correction of the first event, after the second
        ("a", 0, 20, 40),  # a correction of the second
        ("a", 0, 15, 50),  # an event that arrives late
    ]
    entities: list[Entity] = [("a", 0, t) for t in (9, 10, 19, 20, 30, 40, 50)]
    rules = {"ttl": None, "has_created": True, "batch": 2}
    assert join(entities, features, **rules, honour=True) == [NONE, 0, 0, 1, 1, 3, 3]
    assert join(entities, features, **rules, honour=False) == [NONE, 2, 4, 3, 3, 3, 3]


def test_of_equal_rows_the_later_in_the_source_wins() -> None:
    features: list[Feature] = [("a", 0, 5, 5), ("b", 0, 5, 5), ("a", 0, 5, 5)]
    for batch in (1, 2, 3):
        found = join([("a", 0, 5)], features, ttl=None, honour=True, has_created=True, batch=batch)
        assert found == [2]


@pytest.mark.parametrize(
    ("rows", "winners"),
    [(0, [NONE, NONE, NONE, NONE]), (1, [0, 0, NONE, 0]), (5, [3, 1, NONE, 4])],
)
def test_without_keys_all_rows_are_one_entity(rows: int, winners: list[int]) -> None:
    lookup = AsOfJoin([], pa.array([3, 1, None, 4], pa.int64()))
    lookup.feed(FeatureRows([], pa.array(range(rows), pa.int64()), None))
    assert lookup.winners.tolist() == winners


def test_newest_rows_takes_one_per_key_and_drops_what_has_no_time() -> None:
    keys_of_rows = pa.array(["a", "b", "a", None, "c", "a"])
    event = pa.array([1, 5, 3, 2, None, 3], pa.int64())
    created = pa.array([1, 5, 4, 2, 9, 3], pa.int64())
    assert newest_rows([keys_of_rows], event, created).tolist() == [1, 2, 3]
    assert newest_rows([], event, created).tolist() == [1]


def test_many_rows_agree_with_a_search_per_row() -> None:
    random = np.random.default_rng(7)
    keys_of_rows = random.integers(0, 50, 20_000)
    event = np.sort(random.integers(0, 1_000_000, 20_000))
    entity_keys, moments = random.integers(0, 50, 5_000), random.integers(0, 1_000_000, 5_000)
    lookup = AsOfJoin([pa.array(entity_keys)], pa.array(moments), ttl=30_000)
    lookup.feed(FeatureRows([pa.array(keys_of_rows)], pa.array(event), pa.array(event)))
    for row in range(0, 5_000, 50):
        mine = np.flatnonzero((keys_of_rows == entity_keys[row]) & (event <= moments[row]))
        wanted = mine[-1] if len(mine) and event[mine[-1]] >= moments[row] - 30_000 else NONE
        assert lookup.winners[row] == wanted
