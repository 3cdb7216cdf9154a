"""What a rollout does next, from evidence alone."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios_platform.contracts.rollouts import (
    Action,
    Pairs,
    Rollout,
    RolloutMode,
    RolloutState,
    Sample,
    Traffic,
)
from aios_platform.contracts.serving import RolloutPolicy, RolloutStep
from aios_platform.promotion.rollout import LIVE_WATCH, WARM_UP, Seen, next_move, watch

START = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = RolloutPolicy(
    steps=(RolloutStep(share=0.01), RolloutStep(share=0.5)), shadow_rows=500, alpha=0.01
)


def a_rollout(mode=RolloutMode.CANARY, **changes) -> Rollout:
    return Rollout(
        **{
            "model": "m",
            "number": 1,
            "mode": mode,
            "state": RolloutState.RUNNING,
            "version": "2",
            "model_digest": "d" * 64,
            "training_set_digest": "7" * 64,
            "live_version": "1",
            "live_revision": 1,
            "step": 0,
            "steps": POLICY.steps,
            "started_at": START,
            "step_since": START,
            "reason": "try it",
        }
        | changes
    )


def traffic(requests=1000, errors=0, ms=10.0, prediction=0.2) -> Traffic:
    def spread(mean, deviation):
        squares = requests * (mean**2 + deviation**2)
        return Sample(count=requests, total=requests * mean, squares=squares)

    return Traffic(
        requests=requests,
        errors=errors,
        latency=spread(ms / 1000, 0.3 * ms / 1000),
        prediction=spread(prediction, 0.1),
    )


def seen(minutes=60.0, live_version="1", live_revision=1, **changes) -> Seen:
    return Seen(
        at=START + timedelta(minutes=minutes),
        live_version=live_version,
        live_revision=live_revision,
        **({"candidate": traffic(), "live": traffic(requests=50_000)} | changes),
    )


def test_a_sound_canary_takes_its_steps_and_is_promoted_after_the_last():
    assert next_move(a_rollout(), POLICY, seen()).action is Action.ADVANCE
    assert next_move(a_rollout(step=1), POLICY, seen()).action is Action.PROMOTE


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"minutes": 4}, "6 of 10 minutes"),
        ({"candidate": traffic(requests=150)}, "50 of 200 candidate requests"),
        ({"candidate": Traffic(), "live": Traffic()}, "200 of 200 candidate requests"),
    ],
)
def test_it_waits_for_time_and_traffic_and_says_what_is_missing(changes, missing):
    move = next_move(a_rollout(), POLICY, seen(**changes))
    assert move.action is Action.WAIT
    assert missing in move.reason
    impatient = next_move(a_rollout(), POLICY, seen(**changes), impatient=True)
    assert impatient.action is Action.ADVANCE


HARMFUL = [
    ({"candidate": traffic(requests=100, errors=20)}, "20 of its 100 requests failed"),
    ({"candidate": traffic(ms=40)}, "40 ms on average"),
    ({"candidate": traffic(prediction=0.4)}, "mean prediction is 0.400"),
    ({"candidate": traffic(prediction=0.05)}, "mean prediction is 0.050"),
    (
        {"candidate": traffic().model_copy(update={"prediction": Sample(count=9, total=math.nan)})},
        "not numbers",
    ),
]


@pytest.mark.parametrize("state", [RolloutState.RUNNING, RolloutState.PAUSED])
@pytest.mark.parametrize("impatient", [False, True])
@pytest.mark.parametrize(("changes", "why"), HARMFUL)
def test_a_guard_aborts_at_once_also_while_paused_or_hurried(state, impatient, changes, why):
    changes = changes | {"minutes": 0.5}
    move = next_move(a_rollout(state=state), POLICY, seen(**changes), impatient=impatient)
    assert move.action is Action.ABORT
    assert why in move.reason


def test_errors_that_the_live_version_has_too_are_no_fault_of_the_candidate():
    both = {"candidate": traffic(errors=100), "live": traffic(requests=9000, errors=900)}
    assert next_move(a_rollout(), POLICY, seen(**both)).action is Action.ADVANCE


def test_a_candidate_that_answers_everybody_is_held_against_no_errors():
    alone = {"candidate": traffic(errors=100), "live": Traffic()}
    assert next_move(a_rollout(), POLICY, seen(**alone)).action is Action.ABORT


def test_a_paused_rollout_does_not_advance():
    for mode in RolloutMode:
        paused = a_rollout(mode, state=RolloutState.PAUSED)
        move = next_move(paused, POLICY, seen(pairs=mirrored(10_000)))
        assert move.action is Action.WAIT
        assert "paused" in move.reason


@pytest.mark.parametrize("mode", RolloutMode)
@pytest.mark.parametrize("state", [RolloutState.PENDING, RolloutState.RUNNING, RolloutState.PAUSED])
def test_another_champion_ends_it(mode, state):
    rollout = a_rollout(mode, state=state)
    assert next_move(rollout, POLICY, seen(live_version="3")).action is Action.ABORT
    # The same version again, after a rollback from another.
    assert next_move(rollout, POLICY, seen(live_revision=3)).action is Action.ABORT
    assert next_move(rollout, POLICY, seen(live_version=None)).action is Action.ABORT
    own = next_move(rollout, POLICY, seen(live_version="2", live_revision=2))
    assert own.action is Action.CLOSE


def test_a_newer_verdict_against_the_candidate_ends_it():
    assert next_move(a_rollout(), POLICY, seen(refused="judged again")).action is Action.ABORT


@pytest.mark.parametrize(
    ("request_state", "action"),
    [
        ("pending", Action.WAIT),
        ("approved", Action.BEGIN),
        ("rejected", Action.ABORT),
        ("expired", Action.ABORT),
        ("void", Action.ABORT),
        ("", Action.ABORT),
    ],
)
def test_what_waits_for_an_approver_begins_with_the_approval_only(request_state, action):
    waiting = a_rollout(state=RolloutState.PENDING, approval=7)
    for impatient in (False, True):
        move = next_move(waiting, POLICY, seen(request=request_state), impatient=impatient)
        assert move.action is action


def test_blue_green_is_promoted_once_gateways_had_time_to_load_it():
    rollout = a_rollout(RolloutMode.BLUE_GREEN)
    early = seen(minutes=0.9 * WARM_UP / timedelta(minutes=1))
    assert next_move(rollout, POLICY, early).action is Action.WAIT
    assert next_move(rollout, POLICY, early, impatient=True).action is Action.PROMOTE
    assert next_move(rollout, POLICY, seen(minutes=1)).action is Action.PROMOTE


def mirrored(rows, failures=0, excess=-0.005, difference=0.0) -> Pairs:
    answered = rows - failures

    def spread(mean, deviation):
        squares = answered * (mean**2 + deviation**2)
        return Sample(count=answered, total=answered * mean, squares=squares)

    return Pairs(
        rows=rows,
        failures=failures,
        excess=spread(excess, 0.003),
        difference=spread(difference, 0.05),
    )


@pytest.mark.parametrize(
    ("pairs", "action"),
    [
        (mirrored(0), Action.WAIT),
        (mirrored(499), Action.WAIT),
        (mirrored(500), Action.FINISH),
        (mirrored(100, failures=20), Action.ABORT),
        (mirrored(500, excess=0.005), Action.ABORT),
        (mirrored(500, difference=0.1), Action.ABORT),
        (mirrored(500, difference=-0.1), Action.ABORT),
        (mirrored(500, difference=math.nan), Action.ABORT),
    ],
)
def test_a_shadow_is_judged_on_pairs_and_promotes_nothing(pairs, action):
    move = next_move(a_rollout(RolloutMode.SHADOW), POLICY, seen(pairs=pairs))
    assert move.action is action
    assert all(math.isfinite(value) for value in move.evidence.values())


numbers = st.one_of(st.floats(-1e3, 1e3), st.sampled_from([math.nan, math.inf, -math.inf]))
samples = st.builds(Sample, count=st.integers(0, 10_000), total=numbers, squares=numbers)
any_traffic = st.integers(0, 10_000).flatmap(
    lambda n: st.builds(
        Traffic,
        requests=st.just(n),
        errors=st.integers(0, n),
        latency=samples,
        prediction=samples,
    )
)


@given(
    candidate=any_traffic,
    live=any_traffic,
    minutes=st.floats(-100, 100),
    step=st.integers(0, 1),
    live_version=st.sampled_from(["1", "3", None]),
    refused=st.sampled_from(["", "no"]),
    state=st.sampled_from([RolloutState.RUNNING, RolloutState.PAUSED]),
)
def test_nothing_goes_further_than_its_evidence(
    candidate, live, minutes, step, live_version, refused, state
):
    rollout = a_rollout(step=step, state=state)
    found = seen(
        minutes, live_version=live_version, refused=refused, candidate=candidate, live=live
    )
    move = next_move(rollout, POLICY, found)
    if move.action in (Action.ADVANCE, Action.PROMOTE):
        assert state is RolloutState.RUNNING
        assert (live_version, refused) == ("1", "")
        assert minutes >= POLICY.steps[step].minutes
        assert candidate.requests >= POLICY.steps[step].requests
        assert candidate.errors <= candidate.requests * 0.5 or live.errors
        assert math.isfinite(candidate.prediction.total)
        assert (move.action is Action.PROMOTE) == (step == 1)


def test_a_new_version_is_watched_for_a_day_and_no_longer():
    bad = traffic(requests=500, errors=100)

    def look(after, live, blue_green=False, previous=None):
        return watch(
            START, POLICY, live, previous or Traffic(), START + after, blue_green=blue_green
        ).action

    assert look(timedelta(minutes=1), bad) is Action.ABORT
    assert look(timedelta(minutes=1), traffic()) is Action.WAIT
    assert look(LIVE_WATCH * 1.01, bad) is Action.CLOSE
    assert look(timedelta(minutes=1), bad, previous=traffic(20, errors=8)) is Action.ABORT
    # What the version before it did as well is not the new one's fault.
    assert look(timedelta(minutes=1), bad, previous=traffic(9000, errors=1800)) is Action.WAIT


def test_after_blue_green_latency_and_predictions_count_until_the_first_step_is_over():
    slow, before = traffic(requests=150, ms=100), traffic(requests=5000)

    def look(minutes, live, blue_green):
        at = START + timedelta(minutes=minutes)
        return watch(START, POLICY, live, before, at, blue_green=blue_green).action

    assert look(1, slow, True) is Action.ABORT
    assert look(1, slow, False) is Action.WAIT
    assert look(11, traffic(requests=250, ms=100), True) is Action.ABORT
    assert look(13, traffic(requests=250, ms=100), True) is Action.WAIT
    assert look(13, slow, True) is Action.ABORT
    assert look(1, traffic(requests=150, prediction=0.6), True) is Action.ABORT
