"""The retrain decision, as a table of evidence and what follows from it."""

import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios_platform.contracts.decisions import RetrainAction
from aios_platform.contracts.surveillance import Retrain
from aios_platform.monitoring.retraining import Attempt, RetrainEvidence, cool_down, decide

NOW = datetime(2014, 1, 1, tzinfo=UTC)
POLICY = Retrain(degradation=0.02, max_age_windows=6, cool_down_windows=2)
HEALTHY = {
    "baseline": 0.77,
    "observed": 0.76,
    "low": 0.75,
    "high": 0.77,
    "age_windows": 2,
    "attempts": [{"windows_since": 5, "helped": None}],
    "drift_share": 0.1,
    "drifted": False,
}


def since(*windows, helped=None):
    """Trainings so many windows ago, all of which ended alike."""
    return [{"windows_since": each, "helped": helped} for each in windows]


DEGRADED = {"observed": 0.70, "low": 0.69, "high": 0.71}
DRIFTED = {"drift_share": 0.9, "drifted": True}


def decided(changes, *, metric="roc_auc", policy=POLICY):
    return decide(
        model="flight_delay",
        window="2013-11",
        metric=metric,
        policy=policy,
        evidence=RetrainEvidence.model_validate({**HEALTHY, **changes}),
        decided_at=NOW,
    )


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, "healthy"),
        (DEGRADED, "degradation"),
        ({**DEGRADED, **DRIFTED}, "degradation"),
        # Worse by more than is tolerated, but not with confidence.
        ({"observed": 0.74, "low": 0.72, "high": 0.76}, "healthy"),
        # The whole interval must lie beyond the bound.
        ({"observed": 0.74, "low": 0.73, "high": 0.7501}, "healthy"),
        ({"observed": 0.74, "low": 0.73, "high": 0.7499}, "degradation"),
        ({"observed": 0.9, "low": 0.8, "high": 0.95}, "healthy"),
        (DRIFTED, "harmless_shift"),
        ({"drifted": None, "drift_share": None}, "healthy"),
        ({"age_windows": 5}, "healthy"),
        ({"age_windows": 6}, "age"),
        ({"age_windows": 60}, "age"),
        ({"age_windows": None}, "no_evidence"),
        ({**DEGRADED, "age_windows": None}, "degradation"),
        ({"observed": None, "low": None, "high": None}, "no_evidence"),
        ({"observed": None, "low": None, "high": None, **DRIFTED}, "no_evidence"),
        ({"observed": None, "low": None, "high": None, "age_windows": 6}, "age"),
        ({**DEGRADED, "baseline": None}, "no_evidence"),
        ({**DEGRADED, "high": None}, "no_evidence"),
        ({**DEGRADED, "observed": math.nan}, "no_evidence"),
        ({**DEGRADED, "high": math.nan}, "no_evidence"),
        ({**DEGRADED, "low": -math.inf}, "no_evidence"),
        ({**DEGRADED, "baseline": math.inf}, "no_evidence"),
        ({**DEGRADED, "attempts": since(1)}, "cool_down"),
        ({**DEGRADED, "attempts": since(2)}, "degradation"),
        ({"age_windows": 6, "attempts": since(0)}, "cool_down"),
        ({**DEGRADED, "attempts": None}, "no_evidence"),
        # An interval with its ends exchanged must not look certain.
        ({"observed": 0.74, "low": 0.76, "high": 0.72}, "healthy"),
    ],
)
def test_decision(changes, cause):
    decision = decided(changes)
    assert decision.cause == cause
    retrains = cause in ("degradation", "age")
    assert decision.action is (RetrainAction.RETRAIN if retrains else RetrainAction.HOLD)
    assert decision.reason
    json.dumps(decision.model_dump(mode="json"), allow_nan=False)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"baseline": 0.43, "observed": 0.50, "low": 0.49, "high": 0.51}, "degradation"),
        ({"baseline": 0.43, "observed": 0.46, "low": 0.44, "high": 0.48}, "healthy"),
        ({"baseline": 0.43, "observed": 0.30, "low": 0.29, "high": 0.31}, "healthy"),
    ],
)
def test_metrics_where_less_is_better(changes, cause):
    assert decided(changes, metric="log_loss").cause == cause


def test_without_an_age_policy_age_does_not_matter():
    policy = Retrain(max_age_windows=None)
    assert decided({"age_windows": 99}, policy=policy).cause == "healthy"
    assert decided({"age_windows": None}, policy=policy).cause == "healthy"


def test_values_that_are_no_numbers_are_named_and_kept_out_of_the_record():
    decision = decided({"observed": math.nan})
    assert "observed: not a number" in decision.reason
    assert "observed" not in decision.evidence
    assert decision.evidence["baseline"] == 0.77


NUMBERS = st.one_of(st.none(), st.floats(0, 1), st.sampled_from([math.nan, math.inf, -math.inf]))


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.floats(0, 1), st.booleans())
def test_drift_alone_never_retrains(baseline, observed, low, high, share, drifted):
    measures = {"baseline": baseline, "observed": observed, "low": low, "high": high}
    decision = decided({**measures, "drift_share": share, "drifted": drifted})
    sound = all(value is not None and math.isfinite(value) for value in measures.values())
    least = baseline - max(low, high) if sound else math.nan
    beyond = least > POLICY.degradation
    both = drifted and least > 0 and sound and baseline - observed > POLICY.degradation
    assert (decision.action is RetrainAction.RETRAIN) == (beyond or both)


@pytest.mark.parametrize(
    ("changes", "drifted", "degraded"),
    [
        # 0.025 worse, with confidence 0.015: only together with drift is that enough.
        ({"observed": 0.745, "low": 0.735, "high": 0.755}, False, False),
        ({"observed": 0.745, "low": 0.735, "high": 0.755}, True, True),
        # No certain loss, or most likely a tolerated one.
        ({"observed": 0.745, "low": 0.715, "high": 0.775}, True, False),
        ({"observed": 0.755, "low": 0.75, "high": 0.76}, True, False),
    ],
)
def test_a_loss_and_a_drift_of_what_the_model_uses_confirm_each_other(changes, drifted, degraded):
    decision = decided({**changes, "drifted": drifted})
    assert decision.degraded is degraded
    assert ("has drifted, too" in decision.reason) is degraded


FAULT = {"faults": ["weather.temperature: the values look like degrees Celsius."]}
OLD = {"age_windows": 60}


@pytest.mark.parametrize("changes", [{}, DEGRADED, DRIFTED, OLD, {**DEGRADED, **OLD, **DRIFTED}])
def test_a_data_fault_never_retrains_whatever_else_is_known(changes):
    decision = decided({**changes, **FAULT})
    assert (decision.action, decision.cause) == (RetrainAction.HOLD, "data_fault")
    assert decision.alarm
    assert not decision.degraded, "the figures are those of the fault"
    assert decision.faults == tuple(FAULT["faults"])
    assert "degrees Celsius" in decision.reason


def test_drift_as_in_the_same_season_is_told_from_a_shift():
    assert decided({**DRIFTED, "seasonal": True}).cause == "season"
    assert decided({**DRIFTED, "seasonal": False}).cause == "harmless_shift"
    assert decided({**DRIFTED, **DEGRADED, "seasonal": True}).cause == "degradation"


def test_it_takes_confidence_to_be_degraded_and_a_recovery_to_be_no_longer():
    # 0.015 worse: within what is tolerated, and not recovered to half of it.
    between = {"observed": 0.755, "low": 0.745, "high": 0.765}
    recovered = {"observed": 0.765, "low": 0.755, "high": 0.775}
    assert not decided(between).degraded
    assert decided({**between, "degraded_before": 1}).cause == "degradation"
    assert decided({**recovered, "degraded_before": 1}).cause == "healthy"


def test_a_degradation_is_confirmed_by_as_many_windows_as_declared():
    policy = Retrain(degradation=0.02, confirm_windows=3)
    causes = [
        decided({**DEGRADED, "degraded_before": n}, policy=policy).cause for n in (0, 1, 2, 3)
    ]
    assert causes == ["unconfirmed", "unconfirmed", "degradation", "degradation"]


@pytest.mark.parametrize(
    ("new", "old", "cause"),
    [(49, 100, "healthy"), (50, 100, "new_data"), (None, 100, "no_evidence"), (1, 0, "new_data")],
)
def test_as_many_new_rows_as_declared_retrain(new, old, cause):
    policy = Retrain(new_data=0.5)
    assert decided({"new_rows": new, "training_rows": old}, policy=policy).cause == cause


@pytest.mark.parametrize(
    ("attempts", "cause"),
    [
        (since(2, helped=True), "degradation"),
        # cool-down 2, twice as long after each in vain: 4, 8, 16 but at most 12.
        (since(3, helped=False), "back_off"),
        (since(4, helped=False), "degradation"),
        (since(7, 9, helped=False), "back_off"),
        (since(8, 12, helped=False), "degradation"),
        (since(11, 30, 40, 50, helped=False), "back_off"),
        (since(12, 30, 40, 50, helped=False), "degradation"),
        (since(2, helped=True) + since(3, helped=False), "degradation"),
        (since(1, helped=False), "cool_down"),
        ([], "no_evidence"),
    ],
)
def test_trainings_that_did_not_help_are_repeated_ever_more_seldom(attempts, cause):
    assert decided({**DEGRADED, "attempts": attempts}).cause == cause


def test_without_a_cool_down_a_training_in_vain_still_backs_off():
    policy = Retrain(cool_down_windows=0)
    assert decided({**DEGRADED, "attempts": since(0, helped=True)}, policy=policy).cause == (
        "degradation"
    )
    assert decided({**DEGRADED, "attempts": since(1, helped=False)}, policy=policy).cause == (
        "back_off"
    )


def test_a_spent_budget_holds_and_calls_a_person():
    policy = Retrain(budget=2, budget_windows=10)
    spent = {**DEGRADED, "attempts": since(3, 9, helped=True)}
    decision = decided(spent, policy=policy)
    assert (decision.action, decision.cause) == (RetrainAction.HOLD, "budget")
    assert decision.alarm
    assert decided({**DEGRADED, "attempts": since(3, 10, helped=True)}, policy=policy).cause == (
        "degradation"
    )
    # The first training had nobody's place to take: it is not counted.
    first = since(3, helped=True) + since(9)
    assert decided({**DEGRADED, "attempts": first}, policy=policy).cause == "degradation"
    assert decided(DEGRADED, policy=Retrain(budget=0)).cause == "budget"


def test_the_record_says_whether_the_last_training_helped():
    helped = decided({"attempts": since(3, helped=True)}).evidence
    assert (helped["last_training_helped"], helped["trainings_in_vain"]) == (1.0, 0.0)
    in_vain = decided({"attempts": since(3, 5, helped=False)}).evidence
    assert (in_vain["last_training_helped"], in_vain["trainings_in_vain"]) == (0.0, 2.0)
    assert "last_training_helped" not in decided({}).evidence


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from([True, False, None])), max_size=8),
    st.integers(0, 4),
    st.floats(1, 1e6),
)
def test_a_cool_down_is_never_below_the_declared_nor_above_the_longest(trainings, least, back_off):
    attempts = tuple(Attempt(windows_since=s, helped=h) for s, h in trainings)
    policy = Retrain(cool_down_windows=least, back_off=back_off, max_cool_down_windows=12)
    assert least <= cool_down(policy, attempts) <= 12


def test_a_degradation_says_what_the_scores_had_promised():
    decision = decided({**DEGRADED, "expected": 0.7512})
    assert decision.reason.endswith("The scores of these rows had promised 0.7512.")
    assert decision.evidence["expected"] == 0.7512
    assert "promised" not in decided({**DEGRADED, "expected": math.nan}).reason
