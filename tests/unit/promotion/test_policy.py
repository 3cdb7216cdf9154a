"""Each rule of the policy: what it lets pass, what it does not, and what a waiver may lift."""

import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from aios_platform.contracts.decisions import Decision, Outcome, Waiver
from aios_platform.contracts.evidence import Evidence, OnlineParity, Operation
from aios_platform.contracts.policy import METRICS_BY_TASK, Bootstrap, Gate, Protected, Slice
from aios_platform.errors import DeclarationError, PromotionError
from aios_platform.metrics import METRICS_OF
from aios_platform.promotion.exam import Contender, Exam
from aios_platform.promotion.rules import UNWAIVABLE, check_waivable, waivable_rules
from tests.unit.promotion.test_gate import (
    ALIKE,
    EXAM,
    GATE,
    GOOD,
    IDS,
    LABELS,
    NOW,
    POOR,
    ROWS,
    SOUND,
    contender,
    judge,
    outcome,
)

GENERATOR = np.random.default_rng(5)
CARRIER = GENERATOR.choice(["EV", "UA"], ROWS)
BETTER, CHAMPION = contender("2", GOOD), contender("1", POOR)


def verdict(*, gate=GATE, evidence=SOUND, **more):
    return judge(BETTER, CHAMPION, gate=gate, evidence=evidence, **more)


def with_columns(**columns):
    return replace(EXAM, columns=columns)


def found(judged, rule):
    return next(r for r in judged.rules if r.rule == rule)


# --- Evidence ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "rule", "expected"),
    [
        ({"candidate": Operation(latency_p95_ms=51, size_bytes=9)}, "max_latency_ms", "fail"),
        ({"candidate": Operation(latency_p95_ms=0.31, size_bytes=9)}, "max_latency_ratio", "fail"),
        ({"candidate": Operation(latency_p95_ms=0.29, size_bytes=9)}, "max_latency_ratio", "pass"),
        ({"candidate": Operation(latency_p95_ms=1, size_bytes=2**30)}, "max_size_mib", "fail"),
        ({"candidate": Operation(latency_p95_ms=1, size_bytes=400_001)}, "max_size_ratio", "fail"),
        ({"candidate": None}, "max_size_mib", "unknown"),
        ({"champion": None}, "max_latency_ratio", "unknown"),
        ({"onnx_parity": 1.1e-5}, "servable", "fail"),
        ({"onnx_parity": None}, "servable", "unknown"),
        ({"online_parity": OnlineParity(cells=9, different=1)}, "online_parity", "fail"),
        ({"online_parity": OnlineParity(cells=0, different=0)}, "online_parity", "unknown"),
        ({"provenance_missing": ("seed",)}, "provenance", "fail"),
        ({"provenance_missing": None}, "provenance", "unknown"),
        ({"exam_drift": {"a": 0.3, "b": 0.1}}, "max_exam_drift", "pass"),
        ({"exam_drift": {"a": 0.3, "b": 0.21}}, "max_exam_drift", "unknown"),
        ({"exam_drift": {}}, "max_exam_drift", "unknown"),
        ({"leakage_cells": 0}, "leakage", "unknown"),
        ({"leakage_cells": 0, "nothing_joined": True}, "leakage", "pass"),
        (
            {"online_parity": OnlineParity(cells=0, different=0, nothing_online=True)},
            "online_parity",
            "pass",
        ),
        ({"shared_rows": ("row-7",)}, "shared_rows", "fail"),
        ({"sampled": True}, "sampled", "fail"),
    ],
)
def test_evidence_decides(changes, rule, expected):
    judged = verdict(evidence=SOUND.model_copy(update=changes))
    assert outcome(judged, rule) == expected
    assert (judged.decision is Decision.PROMOTE) == (expected == "pass")


def test_exam_rows_in_training_are_named():
    judged = verdict(evidence=SOUND.model_copy(update={"shared_rows": ("row-7", "row-9")}))
    assert judged.decision is Decision.REJECT
    assert "row-7, row-9" in judged.reasons[0]


GARBAGE = st.sampled_from(
    [None, math.nan, math.inf, -1, "much", object(), {"a": math.nan}, [], {"cells": -1}]
)
DAMAGED_OPERATION = st.builds(
    lambda latency, size: Operation.model_construct(latency_p95_ms=latency, size_bytes=size),
    st.sampled_from([None, math.nan, -1.0, 0.0, "fast"]),
    st.sampled_from([None, math.nan, -1, 0, "big"]),
)
DAMAGED_PARITY = st.builds(
    lambda cells, different: OnlineParity.model_construct(
        cells=cells, different=different, example=""
    ),
    st.sampled_from([None, math.nan, -1, 0, "all"]),
    st.sampled_from([None, math.nan, -1, "none"]),
)
# An empty list is what nothing missing and nothing shared look like.
SOUND_WHEN_EMPTY = {"provenance_missing", "shared_rows"}
PIECES = sorted(Evidence.model_fields)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(PIECES),
    st.one_of(GARBAGE, DAMAGED_OPERATION, DAMAGED_PARITY),
    st.booleans(),
)
def test_no_damaged_evidence_is_ever_promoted(piece, damage, has_champion):
    if piece in SOUND_WHEN_EMPTY and damage == []:
        return
    if piece == "champion" and not has_champion:
        return
    pieces = {name: getattr(SOUND, name) for name in PIECES}
    evidence = Evidence.model_construct(**{**pieces, piece: damage})
    judged = judge(BETTER, CHAMPION if has_champion else None, evidence=evidence, gate=FEW)
    assert judged.decision is not Decision.PROMOTE
    assert judged.reasons[0].strip()


FEW = GATE.model_copy(update={"guards": {}, "slices": (), "margin": 0.05})


def test_sound_evidence_of_the_property_above_is_promoted():
    assert judge(BETTER, CHAMPION, gate=FEW).decision is Decision.PROMOTE
    assert judge(BETTER, None, gate=FEW).decision is Decision.PROMOTE
    assert judge(BETTER, CHAMPION, gate=FEW, evidence=Evidence()).decision is Decision.INCONCLUSIVE


# --- Comparison ----------------------------------------------------------------------------------


def test_guard_metric_rejects_what_the_primary_metric_likes():
    # The same order of rows, with probabilities pushed to the ends.
    sure = 1 / (1 + np.exp(-6 * np.log(GOOD / (1 - GOOD))))
    judged = judge(contender("2", sure), contender("1", ALIKE))
    assert outcome(judged, "non_inferior") is Outcome.PASS
    assert outcome(judged, "guard_log_loss") is Outcome.FAIL
    assert judged.decision is Decision.REJECT


def test_better_overall_and_much_worse_on_a_slice_is_rejected():
    few = np.arange(ROWS) % 6 == 0
    carrier = np.where(few, "EV", "UA")
    scores = np.where(few, 1 - GOOD, GOOD)
    gate = GATE.model_copy(
        update={"slices": (Slice(column="carrier"),), "guards": {}, "min_slice_rows": 100}
    )
    judged = judge(contender("2", scores), CHAMPION, gate=gate, exam=with_columns(carrier=carrier))
    assert judged.decision is Decision.REJECT
    assert outcome(judged, "non_inferior") is Outcome.PASS
    slice_rule = found(judged, "slice_carrier=EV")
    assert slice_rule.outcome is Outcome.FAIL
    assert slice_rule.adjusted_p >= slice_rule.p_value
    assert slice_rule.detectable > 0
    assert "carrier=EV" in judged.reasons[0]
    assert judged.by_slice["carrier=EV"]["candidate"] < judged.by_slice["carrier=EV"]["champion"]


def test_better_by_luck_on_a_small_exam_is_inconclusive():
    # Among many useless candidates on 60 rows one looks better than the champion.
    rows = 60
    exam = Exam(IDS[:rows], LABELS[:rows], ("2013-10",))
    draws = [np.random.default_rng(seed).random(rows) for seed in range(40)]

    def area(scores):
        positive, negative = scores[LABELS[:rows]], scores[~LABELS[:rows]]
        return (positive[:, None] > negative).mean()

    lucky, plain = max(draws, key=area), draws[1]
    for needed in (rows, 1000):
        gate = GATE.model_copy(update={"min_rows": needed, "guards": {}, "slices": ()})
        judged = judge(
            Contender("2", IDS[:rows], lucky, "2013-09", digest="2"),
            Contender("1", IDS[:rows], plain, "2013-09", digest="1"),
            exam=exam,
            gate=gate.model_copy(update={"margin": 0.0}),
        )
        assert area(lucky) > area(plain)
        assert judged.decision is Decision.INCONCLUSIVE


@pytest.mark.parametrize(
    ("rows", "labels"),
    [(3, [True, False, True]), (800, [True] * 800), (3, [True, None, math.nan])],
    ids=["three rows", "one class", "no labels"],
)
def test_exam_that_cannot_decide(rows, labels):
    exam = Exam(IDS[:rows], labels, ("2013-10",))
    judged = judge(
        Contender("2", IDS[:rows], GOOD[:rows], "2013-09", digest="2"),
        Contender("1", IDS[:rows], POOR[:rows], "2013-09", digest="1"),
        exam=exam,
    )
    assert judged.decision is Decision.INCONCLUSIVE
    assert outcome(judged, "exam") is Outcome.UNKNOWN


@pytest.mark.parametrize(
    "champion",
    [
        contender("2", POOR),
        replace(contender("1", POOR), digest="2" * 64),
        contender("1", GOOD),
    ],
    ids=["same version", "same bytes", "same answers"],
)
def test_candidate_that_is_the_champion_changes_nothing(champion):
    judged = judge(BETTER, champion)
    assert judged.decision is Decision.INCONCLUSIVE
    assert outcome(judged, "differs") is Outcome.UNKNOWN


def test_scores_of_unknown_bytes_promote_nobody():
    assert judge(replace(BETTER, digest=""), CHAMPION).decision is Decision.INCONCLUSIVE
    assert judge(BETTER, replace(CHAMPION, digest="")).decision is Decision.INCONCLUSIVE


def test_both_methods_must_show_the_primary_metric():
    rule = found(verdict(), "non_inferior")
    assert "DeLong" in rule.reason
    assert rule.p_value == pytest.approx(1, abs=0.01)
    assert rule.detectable > 0


# --- Slices --------------------------------------------------------------------------------------


def sliced(declared, values, **changes):
    gate = GATE.model_copy(update={"slices": (declared,), "guards": {}, **changes})
    return judge(BETTER, CHAMPION, gate=gate, exam=with_columns(**{declared.column: values}))


def test_slice_column_that_is_missing_is_unknown():
    judged = sliced(Slice(column="carrier"), CARRIER)
    assert judged.decision is Decision.PROMOTE
    gate = GATE.model_copy(update={"slices": (Slice(column="carier"),)})
    judged = judge(BETTER, CHAMPION, gate=gate, exam=with_columns(carrier=CARRIER))
    assert judged.decision is Decision.INCONCLUSIVE
    assert "no column 'carier'" in found(judged, "slice_carier").reason


@pytest.mark.parametrize("values", [CARRIER[:-1], CARRIER.reshape(2, -1), [[1], [2, 3]], None])
def test_slice_column_of_another_shape_is_unknown(values):
    assert sliced(Slice(column="carrier"), values).decision is Decision.INCONCLUSIVE


def test_small_slices_are_noted_with_what_they_could_show():
    values = np.where(np.arange(ROWS) < 60, "OO", "UA")
    rule = found(sliced(Slice(column="carrier"), values), "slice_carrier=OO")
    assert rule.outcome is Outcome.NOTED
    assert rule.rows == 60
    assert 0.05 < rule.detectable < 1


def test_slice_of_one_class_is_noted():
    judged = sliced(Slice(column="outcome"), np.where(LABELS, "late", "not"), min_slice_rows=50)
    assert outcome(judged, "slice_outcome=late") is Outcome.NOTED
    nearly = np.where(~LABELS | (np.cumsum(LABELS) <= 19), "mostly not", "late")
    rule = found(sliced(Slice(column="outcome"), nearly), "slice_outcome=mostly not")
    assert rule.outcome is Outcome.NOTED
    assert "19 rows of one class, fewer than 20" in rule.reason


def test_rows_without_a_value_are_a_slice_of_their_own():
    values = np.where(np.arange(ROWS) % 2 == 0, None, CARRIER)
    names = {rule.slice for rule in sliced(Slice(column="carrier"), values).rules}
    assert {"carrier=missing", "carrier=EV", "carrier=UA"} <= names
    spelt = np.where(CARRIER == "EV", "missing", CARRIER)
    assert "carrier='missing'" in {r.slice for r in sliced(Slice(column="carrier"), spelt).rules}


def test_no_two_values_share_a_rule():
    values = np.resize(["a b", "a  b", "a\nb", "x" * 80, "x" * 90, True, 1.0, 1.5], ROWS)
    judged = sliced(Slice(column="carrier"), values.astype(object), min_slice_rows=10)
    names = [rule.rule for rule in judged.rules]
    assert len(set(names)) == len(names)
    assert sum(rule.slice.startswith("carrier=") for rule in judged.rules) == 8
    assert all(len(name) < 80 and "\n" not in name for name in names)


def test_quantile_bins_hold_every_row_once():
    values = np.arange(ROWS, dtype=float)
    values[:300] = np.nan
    judged = sliced(Slice(column="distance", quantiles=4), values, min_slice_rows=50)
    rows = {rule.slice: rule.rows for rule in judged.rules if rule.slice}
    assert rows == {
        "distance=missing": 300,
        **{f"distance=q{n}": 425 for n in (1, 2, 3, 4)},
    }
    text = sliced(Slice(column="carrier", quantiles=4), CARRIER)
    assert "not numbers" in found(text, "slice_carrier").reason


def test_only_the_largest_slices_are_shown():
    tails = np.arange(ROWS) % 80
    judged = sliced(Slice(column="tail"), tails, min_slice_rows=10)
    assert sum(rule.slice.startswith("tail=") for rule in judged.rules) == 50
    rest = found(judged, "slice_tail")
    assert (rest.outcome, rest.rows) == (Outcome.NOTED, 30 * 25)


# --- Fairness ------------------------------------------------------------------------------------

FAIR = GATE.model_copy(
    update={"protected": (Protected(column="origin"),), "slices": (), "guards": {}, "margin": 0.5}
)
ORIGIN = np.where(np.arange(ROWS) % 2 == 0, "JFK", "LGA")


def treated(scores, origin=ORIGIN, gate=FAIR):
    return judge(contender("2", scores), CHAMPION, gate=gate, exam=with_columns(origin=origin))


def test_groups_treated_alike_pass():
    judged = treated(GOOD)
    assert judged.decision is Decision.PROMOTE
    rule = found(judged, "tpr_difference_origin")
    assert rule.low < rule.observed < rule.high
    assert rule.observed <= rule.bound


def test_groups_treated_differently_fail():
    scores = np.where(ORIGIN == "JFK", GOOD**0.3, GOOD)
    judged = treated(scores)
    assert judged.decision is Decision.REJECT
    assert outcome(judged, "tpr_difference_origin") is Outcome.FAIL
    assert outcome(judged, "selection_difference_origin") is Outcome.FAIL


def test_difference_beyond_the_bound_that_may_be_chance_is_unknown():
    bound = found(treated(GOOD), "selection_difference_origin").observed * 0.9
    tight = Protected(column="origin", max_tpr_difference=1, max_selection_difference=bound)
    judged = treated(GOOD, gate=FAIR.model_copy(update={"protected": (tight,)}))
    assert outcome(judged, "selection_difference_origin") is Outcome.UNKNOWN
    assert judged.decision is Decision.INCONCLUSIVE


def test_groups_that_are_too_small_say_nothing():
    judged = treated(GOOD, np.where(np.arange(ROWS) < 40, "JFK", "LGA"))
    assert outcome(judged, "fairness_origin=JFK") is Outcome.NOTED
    assert outcome(judged, "tpr_difference_origin") is Outcome.UNKNOWN
    assert judged.decision is Decision.INCONCLUSIVE


def test_protected_attribute_that_is_missing_is_unknown():
    judged = judge(BETTER, CHAMPION, gate=FAIR)
    assert outcome(judged, "tpr_difference_origin") is Outcome.UNKNOWN
    assert judged.decision is Decision.INCONCLUSIVE


# --- First champion ------------------------------------------------------------------------------


def test_first_champion_must_clear_its_floors_with_significance():
    area = judge(BETTER, None).candidate_metrics["roc_auc"]
    gate = GATE.model_copy(update={"floors": {"roc_auc": area - 0.001}})
    first = judge(BETTER, None, gate=gate)
    assert outcome(first, "floor_roc_auc") is Outcome.UNKNOWN
    assert first.decision is Decision.INCONCLUSIVE
    assert "with significance" in first.reasons[0]
    assert judge(BETTER, CHAMPION, gate=gate).decision is Decision.PROMOTE
    low = gate.model_copy(update={"floors": {"roc_auc": area - 0.05}})
    assert judge(BETTER, None, gate=low).decision is Decision.PROMOTE


# --- Waivers -------------------------------------------------------------------------------------

BIG = SOUND.model_copy(update={"candidate": Operation(latency_p95_ms=0.2, size_bytes=900_000)})


def waiver(rule="max_size_ratio", **changes):
    fields = {
        "model": "flight_delay",
        "rule": rule,
        "reason": "a larger ensemble was agreed",
        "principal": "bob",
        "expires_at": NOW + timedelta(days=1),
        "ledger_row": 17,
    }
    return {rule: Waiver(**{**fields, **changes})}


def test_waiver_lifts_its_rule_and_shows():
    assert verdict(evidence=BIG).decision is Decision.REJECT
    judged = verdict(evidence=BIG, waivers=waiver())
    assert judged.decision is Decision.PROMOTE
    rule = found(judged, "max_size_ratio")
    assert (rule.outcome, rule.waiver) == (Outcome.WAIVED, 17)
    assert "bob" in rule.reason
    assert "4.5 times" in rule.reason


@pytest.mark.parametrize(
    "wrong",
    [
        waiver(expires_at=NOW),
        waiver(expires_at=NOW - timedelta(days=1)),
        waiver(model="churn"),
        waiver("max_size_mib"),
        {"max_size_ratio": next(iter(waiver("max_size_mib").values()))},
    ],
    ids=["expires now", "expired", "other model", "other rule", "filed under another rule"],
)
def test_waiver_that_does_not_count(wrong):
    judged = verdict(evidence=BIG, waivers=wrong)
    assert judged.decision is Decision.REJECT
    assert outcome(judged, "max_size_ratio") is Outcome.FAIL


def test_some_rules_cannot_be_waived():
    every = {rule: waiver(rule)[rule] for rule in UNWAIVABLE}
    for judged in (
        verdict(evidence=SOUND.model_copy(update={"shared_rows": ("row-1",)}), waivers=every),
        verdict(evidence=SOUND.model_copy(update={"sampled": True}), waivers=every),
        verdict(evidence=Evidence(), waivers=every),
        judge(contender("2", POOR), contender("1", GOOD), waivers=every),
        judge(contender("1", GOOD), contender("1", GOOD), waivers=every),
        judge(contender("2", None), CHAMPION, waivers=every),
    ):
        assert judged.decision is not Decision.PROMOTE
        assert all(rule.outcome is not Outcome.WAIVED for rule in judged.rules)


def test_a_waiver_is_refused_where_it_could_do_nothing():
    gate = GATE.model_copy(update={"slices": (Slice(column="carrier"),)})
    for rule in (*waivable_rules(gate), "slice_carrier=EV"):
        check_waivable(rule, gate)
    with pytest.raises(PromotionError, match="cannot be waived"):
        check_waivable("shared_rows", gate)
    with pytest.raises(PromotionError, match="Did you mean 'max_size_mib'"):
        check_waivable("max_size_mb", gate)
    with pytest.raises(PromotionError, match="no rule 'slice_origin=JFK'"):
        check_waivable("slice_origin=JFK", gate)


# --- Tasks ---------------------------------------------------------------------------------------


def multiclass(sharp, seed):
    generator = np.random.default_rng(seed)
    codes = np.random.default_rng(0).integers(0, 3, ROWS)
    logits = generator.normal(size=(ROWS, 3)) + sharp * np.eye(3)[codes]
    scores = np.exp(logits)
    return codes, scores / scores.sum(axis=1, keepdims=True)


def regression(noise, seed):
    target = np.random.default_rng(0).normal(size=ROWS)
    return target, target + np.random.default_rng(seed).normal(0, noise, ROWS)


OTHER_TASKS = [
    ("multiclass_classification", multiclass, (2.0, 0.5), {"metric": "log_loss", "guards": {}}),
    ("multiclass_classification", multiclass, (2.0, 0.5), {"metric": "macro_f1", "guards": {}}),
    ("regression", regression, (0.2, 0.9), {"metric": "mae", "guards": {"r2": 0.01}}),
    ("regression", regression, (0.2, 0.9), {"metric": "rmse", "guards": {}}),
]


@pytest.mark.parametrize(("task", "make", "strengths", "policy"), OTHER_TASKS)
def test_other_tasks_go_through_the_same_gate(task, make, strengths, policy):
    labels, good = make(strengths[0], 1)
    _, poor = make(strengths[1], 2)
    gate = Gate(
        **policy, resamples=200, min_rows=500, slices=({"column": "window"},), slice_margin=0.1
    )
    exam = replace(EXAM, labels=labels)

    def decide(candidate, champion):
        return judge(candidate, champion, exam=exam, gate=gate, task=task).decision

    first, second = contender("1", poor), contender("2", good)
    assert decide(second, first) is Decision.PROMOTE
    assert decide(contender("2", poor), contender("1", good)) is Decision.REJECT
    assert decide(second, None) is Decision.PROMOTE
    damaged = good.copy()
    damaged[3] = math.nan
    assert decide(contender("2", damaged), first) is Decision.REJECT
    assert decide(contender("2", good[:-1]), first) is not Decision.PROMOTE
    assert decide(second, contender("1", good)) is Decision.INCONCLUSIVE


def test_policy_knows_the_metrics_of_each_task():
    assert {task: set(names) for task, names in METRICS_BY_TASK.items()} == {
        task: set(metrics) for task, metrics in METRICS_OF.items()
    }


def test_metric_of_another_task_is_refused_with_the_nearest():
    with pytest.raises(DeclarationError, match=r"gate.metric names 'mae'.*Valid: accuracy"):
        verdict(gate=GATE.model_copy(update={"metric": "mae"}))
    with pytest.raises(DeclarationError, match="guards names 'log_loss', which regression"):
        verdict(gate=GATE.model_copy(update={"metric": "mae"}), task="regression")


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"metric": "roc_auk"}, "roc_auc"),
        ({"slices": ({"column": "a"}, {"column": "a", "quantiles": 3})}, "more than once"),
        ({"guards": {"roc_auc": 0.1}}, "use margin for it"),
        ({"bootstrap": {"aproval": "human"}}, "Did you mean 'approval'"),
    ],
)
def test_wrong_policy_is_refused(attributes, says):
    with pytest.raises(ValidationError, match=says):
        Gate(**attributes)
    assert Gate().bootstrap == Bootstrap()
