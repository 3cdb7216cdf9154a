"""A live version and a candidate beside it: who is asked, and what waits when one leaves."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios_platform.contracts.serving import RolloutStep
from aios_platform.errors import Overloaded
from aios_platform.serving.traffic_split import CanarySplit
from tests.served_models import ROW, declaration, network
from tests.unit.serving.deployments import (
    answered,
    deployment_of,
    ended,
    trial_of,
    version_of,
    work_for,
)

NAMED = SimpleNamespace(model="toy", version="2", digest="d" * 64)
ROWS = [{**ROW, "size": float(size)} for size in range(40)]


def candidate_of(store, **serving):
    return version_of(store, network(seed=2), declaration(**serving), "2")


@pytest.mark.parametrize("inline", [True, False])
def test_what_waits_for_a_candidate_is_answered_when_its_rollout_ends(store, inline):
    async def run():
        deployment = deployment_of(store, network(), batching={"max_rows": 1})
        candidate = candidate_of(store)
        candidate.inline = inline
        deployment.set_trial(trial_of(candidate))
        works = [work_for(deployment, [row], lambda _: None) for row in ROWS]
        for work in works:
            deployment.submit(work)
        deployment.set_trial(None)
        late = work_for(deployment, [ROW], lambda _: None)
        await answered(deployment, [late])
        await ended(works)
        await deployment.retire()
        return candidate, works, late

    candidate, works, late = asyncio.run(run())
    assert [work.error for work in works] == [None] * len(works)
    assert {work.served_by for work in works} == {candidate}
    assert late.served_by is not candidate


def test_of_a_shared_request_nothing_begins_unless_both_versions_have_room(store):
    async def run():
        deployment = deployment_of(store, network(), batching={"queue_rows": 30, "max_rows": 1})
        candidate = candidate_of(store)
        hold = threading.Event()
        candidate.inline = False
        candidate.executor.submit(hold.wait)
        # The candidate gets most of it, and so is the one that has no room.
        deployment.set_trial(trial_of(candidate, steps=(RolloutStep(share=0.8),)))
        told = []
        shared = work_for(deployment, ROWS[:29], told.append)
        deployment.submit(shared)
        waiting = deployment.batcher.rows
        with pytest.raises(Overloaded):
            deployment.submit(work_for(deployment, ROWS[:29], told.append))
        assert deployment.batcher.rows == waiting
        hold.set()
        await ended([shared])
        await deployment.retire()
        return told, shared

    told, shared = asyncio.run(run())
    assert told == [shared]


@given(
    st.lists(
        st.tuples(st.floats(0, 1000), st.none() | st.floats(0, 1), st.sampled_from(["red", "blue"]))
    ),
    st.lists(st.floats(0.001, 1), min_size=2, max_size=5),
)
def test_an_entity_stays_with_the_candidate_while_the_share_rises(rows, shares):
    splits = [
        CanarySplit(trial_of(NAMED, steps=(RolloutStep(share=share),)).rollout, [0, 1, 2])
        for share in sorted(shares)
    ]
    for row in rows:
        taken = [split.takes(row) for split in splits]
        assert taken == sorted(taken)


def test_about_the_declared_share_of_entities_is_taken():
    for share in (0.01, 0.3, 1.0):
        split = CanarySplit(trial_of(NAMED, steps=(RolloutStep(share=share),)).rollout, [0])
        taken = sum(split.takes((str(entity),)) for entity in range(20_000))
        # Seven standard deviations.
        assert abs(taken - 20_000 * share) <= 7 * (20_000 * share * (1 - share)) ** 0.5
