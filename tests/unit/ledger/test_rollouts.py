"""Rollouts as rows of the ledger: one move at a time, by an operator."""

import threading
import uuid
from datetime import UTC, datetime

import pytest

from aios_platform.access.principals import acting_with, add
from aios_platform.contracts.rollouts import Rollout, RolloutMode, RolloutState
from aios_platform.contracts.serving import RolloutStep
from aios_platform.errors import AccessDenied, RolloutError
from aios_platform.ledger.entries import entries
from aios_platform.ledger.rollouts import (
    active_rollouts,
    begun_with,
    newest,
    record,
    rows_of,
    standing,
)

pytestmark = pytest.mark.postgres
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def model() -> str:
    return f"m_{uuid.uuid4().hex[:8]}"


def a_rollout(model, **changes) -> Rollout:
    return Rollout(
        **{
            "model": model,
            "number": 1,
            "mode": RolloutMode.CANARY,
            "state": RolloutState.RUNNING,
            "version": "2",
            "model_digest": "d" * 64,
            "training_set_digest": "7" * 64,
            "live_version": "1",
            "live_revision": 1,
            "step": 0,
            "steps": (RolloutStep(share=0.1), RolloutStep(share=0.5)),
            "started_at": NOW,
            "step_since": NOW,
            "reason": "try it",
        }
        | changes
    )


def write(database, rollout, after=None, **more):
    with database.begin() as connection:
        return record(connection, rollout, after=after, **more)


def test_the_newest_row_is_the_state_and_only_active_ones_concern_the_gateway(database, model):
    assert newest(database, model) is None
    first = write(database, a_rollout(model))
    assert newest(database, model) == first.rollout == active_rollouts(database)[model]
    paused = a_rollout(model, state=RolloutState.PAUSED, step=1)
    second = write(database, paused, after=first)
    assert active_rollouts(database)[model] == paused
    assert active_rollouts(database)[model].share == 0.5
    ended = a_rollout(model, state=RolloutState.ABORTED)
    third = write(database, ended, after=second)
    assert model not in active_rollouts(database)
    assert standing(database, model) == third
    waiting = a_rollout(model, number=2, state=RolloutState.PENDING)
    write(database, waiting, after=third)
    assert model not in active_rollouts(database)
    assert newest(database, model).open


@pytest.mark.parametrize("mode", [RolloutMode.SHADOW, RolloutMode.BLUE_GREEN])
def test_callers_see_nothing_of_a_shadow_or_of_a_version_that_is_being_warmed(model, mode):
    assert a_rollout(model, mode=mode).share == 0


def test_a_move_upon_a_row_that_is_not_the_newest_is_refused(database, model):
    with pytest.raises(RolloutError, match="moved"):
        write(database, a_rollout(model), after=write(database, a_rollout(model + "x")))
    first = write(database, a_rollout(model))
    with pytest.raises(RolloutError, match="is running at step 1"):
        write(database, a_rollout(model))
    write(database, a_rollout(model, step=1), after=first)
    with pytest.raises(RolloutError, match="is running at step 2"):
        write(database, a_rollout(model, step=1), after=first)
    assert len(entries(database, subject=model, kind="rollout")) == 2


def test_of_several_operators_at_once_one_moves_it(database, model):
    first = write(database, a_rollout(model))
    barrier, ends = threading.Barrier(4), []

    def act():
        barrier.wait()
        try:
            ends.append(write(database, a_rollout(model, step=1), after=first))
        except RolloutError as error:
            ends.append(error)

    threads = [threading.Thread(target=act) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(end, RolloutError) for end in ends) == 3
    assert len(entries(database, subject=model, kind="rollout")) == 2


def test_what_a_promotion_will_need_is_found_in_its_own_first_row(database, model):
    first = write(database, a_rollout(model), beginning={"verdict": 7})
    ended = write(database, a_rollout(model, state=RolloutState.ABORTED), after=first)
    again = write(database, a_rollout(model, number=2), after=ended, beginning={"verdict": 9})
    assert begun_with(database, first.rollout) == {"verdict": 7}
    assert begun_with(database, again.rollout) == {"verdict": 9}
    assert [row.seq for row in rows_of(database, first.rollout)] == [
        ended.ledger_row,
        first.ledger_row,
    ]
    with pytest.raises(RolloutError, match="how rollout 3"):
        begun_with(database, a_rollout(model, number=3))


def test_the_database_lets_only_an_operator_move_traffic(own_database, model):
    boss = add(own_database, "boss", ["admin"])
    with acting_with(boss):
        author, operator = (add(own_database, name, [name]) for name in ("author", "operator"))
    for key in (boss, author):
        with acting_with(key), pytest.raises(AccessDenied, match="operator"):
            write(own_database, a_rollout(model))
    with acting_with(operator):
        assert write(own_database, a_rollout(model)).by == "operator"
