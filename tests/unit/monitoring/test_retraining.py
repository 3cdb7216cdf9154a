"""The retrain decision, as a table of evidence and what follows from it."""

import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios_platform.contracts.decisions import RetrainAction
from aios_platform.contracts.declaration import Retrain
from aios_platform.monitoring.retraining import RetrainEvidence, decide

NOW = datetime(2014, 1, 1, tzinfo=UTC)
POLICY = Retrain(degradation=0.02, max_age_windows=6, cool_down_windows=2)
HEALTHY = {
    "baseline": 0.77,
    "observed": 0.76,
    "low": 0.75,
    "high": 0.77,
    "age_windows": 2,
    "windows_since_training": 5,
    "drift_share": 0.1,
    "drifted": False,
}
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
        (DRIFTED, "drift_only"),
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
        ({**DEGRADED, "windows_since_training": 1}, "cool_down"),
        ({**DEGRADED, "windows_since_training": 2}, "degradation"),
        ({"age_windows": 6, "windows_since_training": 0}, "cool_down"),
        ({**DEGRADED, "windows_since_training": None}, "no_evidence"),
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
def test_drift_never_changes_what_is_done(baseline, observed, low, high, share, drifted):
    measures = {"baseline": baseline, "observed": observed, "low": low, "high": high}
    without = decided({**measures, "drift_share": None, "drifted": None})
    with_drift = decided({**measures, "drift_share": share, "drifted": drifted})
    assert with_drift.action is without.action
    sound = all(value is not None and math.isfinite(value) for value in measures.values())
    worse = sound and baseline - max(low, high) > POLICY.degradation
    assert (without.action is RetrainAction.RETRAIN) == worse
