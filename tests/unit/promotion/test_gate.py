"""The gate: what promotes, what does not, and that nothing broken ever does."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios_platform.contracts.decisions import Decision, Outcome
from aios_platform.contracts.evidence import Evidence, OnlineParity, Operation
from aios_platform.contracts.policy import Gate
from aios_platform.promotion.exam import Contender, Exam, labelled
from aios_platform.promotion.gate import examine

NOW = datetime(2014, 1, 1, tzinfo=UTC)
ROWS = 2000
GATE = Gate(margin=0.01, resamples=200, min_rows=500)


def answers(noise, seed, rows=ROWS):
    """Probabilities of a model that sees the signal through noise."""
    generator = np.random.default_rng(0)
    labels = generator.random(rows) < 0.3
    signal = generator.normal(size=rows) + 1.5 * labels - 1
    seen = signal + np.random.default_rng(seed).normal(0, noise, rows)
    return labels, 1 / (1 + np.exp(-seen))


LABELS, GOOD = answers(0.1, seed=1)
_, ALIKE = answers(0.1, seed=2)
_, POOR = answers(2.0, seed=3)
IDS = np.array([f"row-{n}" for n in range(ROWS)])
MONTHS = np.where(np.arange(ROWS) % 3 == 0, "2013-10", "2013-11")
EXAM = Exam(IDS, LABELS, ("2013-10", "2013-11"), MONTHS)


SOUND = Evidence(
    candidate=Operation(latency_p95_ms=0.2, size_bytes=200_000),
    champion=Operation(latency_p95_ms=0.2, size_bytes=200_000),
    onnx_parity=1e-7,
    online_parity=OnlineParity(cells=500, different=0),
    provenance_missing=(),
    exam_drift={"distance": 0.01, "carrier": 0.02},
    leakage_cells=4000,
    shared_rows=(),
)


def contender(version, scores):
    return Contender(version, IDS, scores, trained_through="2013-09", digest=version * 64)


def judge(candidate, champion, exam=EXAM, gate=GATE, evidence=SOUND, **more):
    return examine(
        model="flight_delay",
        gate=gate,
        evidence=evidence,
        exam=exam,
        candidate=candidate,
        champion=champion,
        decided_at=NOW,
        **more,
    )


def outcome(verdict, rule):
    return next(r.outcome for r in verdict.rules if r.rule == rule)


@pytest.mark.parametrize(
    ("candidate", "champion", "decision"),
    [
        (GOOD, POOR, Decision.PROMOTE),
        (GOOD, ALIKE, Decision.PROMOTE),
        (GOOD, GOOD, Decision.INCONCLUSIVE),
        (POOR, GOOD, Decision.REJECT),
    ],
    ids=["better", "as good", "identical", "worse"],
)
@pytest.mark.parametrize("metric", ["roc_auc", "log_loss"])
def test_candidate_against_champion(candidate, champion, decision, metric):
    gate = GATE.model_copy(update={"metric": metric})
    verdict = judge(contender("2", candidate), contender("1", champion), gate=gate)
    assert verdict.decision is decision
    assert verdict.champion_version == "1"
    assert set(verdict.candidate_metrics) == set(verdict.champion_metrics)
    assert verdict.reasons


def test_a_difference_the_rows_cannot_settle_is_inconclusive():
    gate = GATE.model_copy(update={"margin": 0.0})
    verdict = judge(contender("2", ALIKE), contender("1", GOOD), gate=gate)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert outcome(verdict, "non_inferior") is Outcome.UNKNOWN
    assert "Not shown to be as good" in verdict.reasons[0]


def test_floors_reject_whatever_the_comparison_says():
    gate = GATE.model_copy(update={"floors": {"roc_auc": 0.99, "brier": 0.9}})
    verdict = judge(contender("2", GOOD), contender("1", POOR), gate=gate)
    assert verdict.decision is Decision.REJECT
    assert outcome(verdict, "floor_roc_auc") is Outcome.FAIL
    assert outcome(verdict, "floor_brier") is Outcome.PASS
    assert "at least 0.99" in verdict.reasons[0]


@pytest.mark.parametrize("metric", ["roc_auc", "pr_auc", "log_loss", "brier", "ece"])
def test_first_champion_must_beat_the_base_rate(metric):
    # Calibrated answers: the base rate is hard to beat on a proper score otherwise.
    scores = np.where(LABELS, 0.5, 0.25)
    gate = GATE.model_copy(update={"metric": metric})
    assert judge(contender("1", scores), None, gate=gate).decision is Decision.PROMOTE
    chance = np.random.default_rng(9).permutation(scores)
    verdict = judge(contender("1", chance), None, gate=gate)
    assert verdict.decision is not Decision.PROMOTE
    assert verdict.champion_version is None
    constant = np.full(ROWS, 0.3)
    assert judge(contender("1", constant), None, gate=gate).decision is not Decision.PROMOTE


def test_first_champion_must_clear_the_floors_as_well():
    gate = GATE.model_copy(update={"floors": {"roc_auc": 0.99}})
    assert judge(contender("1", GOOD), None, gate=gate).decision is Decision.REJECT


def test_champion_that_cannot_be_scored_is_not_no_champion():
    broken = Contender.unscorable("1", "2013-09", "its ONNX bytes are gone")
    verdict = judge(contender("2", GOOD), broken)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.champion_version == "1"
    assert verdict.champion_metrics == {}
    assert "its ONNX bytes are gone" in verdict.reasons[0]


@pytest.mark.parametrize("through", ["2013-10", "2013-12", ""])
def test_exam_that_was_seen_in_training_promotes_nobody(through):
    good, poor = contender("2", GOOD), contender("1", POOR)
    seen = judge(replace(good, trained_through=through), poor)
    assert seen.decision is (Decision.REJECT if through else Decision.INCONCLUSIVE)
    assert judge(good, replace(poor, trained_through=through)).decision is Decision.INCONCLUSIVE


def test_champion_does_not_sit_its_own_exam():
    assert judge(contender("1", GOOD), contender("1", GOOD)).decision is Decision.INCONCLUSIVE


def test_order_of_rows_has_no_influence():
    order = np.random.default_rng(4).permutation(ROWS)
    there = judge(contender("2", GOOD), contender("1", ALIKE))
    back = judge(
        replace(contender("2", GOOD[order]), row_ids=IDS[order]),
        replace(contender("1", ALIKE[order]), row_ids=IDS[order]),
        exam=Exam(IDS[order], LABELS[order], EXAM.windows, MONTHS[order]),
    )
    assert there == back


def test_exam_of_a_frame_leaves_out_rows_without_a_label():
    frame = pa.table(
        {
            "id": [1, 2, 3],
            "late": pa.array([True, None, False]),
            "window": ["2013-11", "2013-10", "2013-10"],
        }
    )
    exam = Exam.from_frame(labelled(frame, "late"), row_id="id", label="late")
    assert list(exam.row_ids) == [1, 3]
    assert list(exam.labels) == [True, False]
    assert exam.windows == ("2013-10", "2013-11")
    assert list(exam.row_windows) == ["2013-11", "2013-10"]


def test_baseline_is_what_one_window_can_expect():
    # Within each month the scores tell nothing; between the months they tell much.
    generator = np.random.default_rng(0)
    bad = MONTHS == "2013-11"
    labels = generator.random(ROWS) < np.where(bad, 0.5, 0.1)
    scores = np.where(bad, 0.5, 0.1) + generator.uniform(0, 0.01, ROWS)
    verdict = judge(contender("2", scores), None, exam=replace(EXAM, labels=labels))
    assert verdict.candidate_metrics["roc_auc"] > 0.65
    assert verdict.baseline["roc_auc"] == pytest.approx(0.5, abs=0.05)
    assert set(verdict.candidate_by_window) == {"2013-10", "2013-11"}


def test_baseline_of_a_single_window_is_its_metrics():
    exam = Exam(IDS, LABELS, ("2013-10",))
    verdict = judge(contender("2", GOOD), None, exam=exam)
    assert verdict.baseline == pytest.approx(verdict.candidate_metrics)
    nothing = judge(contender("2", GOOD), None, exam=replace(EXAM, labels=[]))
    assert nothing.baseline == {}


def _with(values, place, value):
    changed = list(values)
    changed[place % len(changed)] = value
    return changed


PLACES = st.integers(0, ROWS - 1)
BAD_SCORES = st.sampled_from([math.nan, math.inf, -math.inf, -0.01, 1.01, None, "high"])
SCORE_FAULTS = st.one_of(
    st.tuples(PLACES, BAD_SCORES).map(lambda p: lambda c: replace(c, scores=_with(c.scores, *p))),
    st.sampled_from(
        [
            lambda c: replace(c, scores=c.scores[:-1]),
            lambda c: replace(c, scores=np.append(c.scores, 0.5)),
            lambda c: replace(c, scores=[]),
            lambda c: replace(c, scores=None),
            lambda c: replace(c, scores=c.scores.reshape(2, -1)),
            lambda c: replace(c, scores=[[0.5], *c.scores[1:]]),
            lambda c: replace(c, row_ids=c.row_ids[::-1]),
            lambda c: replace(c, row_ids=c.row_ids[1:]),
            lambda c: replace(c, row_ids=_with(c.row_ids, 0, None)),
            lambda c: replace(c, row_ids=_with(c.row_ids, 0, "of another exam")),
            lambda c: replace(c, trained_through="2013-10"),
            lambda c: replace(c, trained_through=""),
        ]
    ),
)
EXAM_FAULTS = st.one_of(
    st.tuples(PLACES, st.sampled_from([None, math.nan, 2, "late"])).map(
        lambda p: lambda e: replace(e, labels=_with(e.labels.tolist(), *p))
    ),
    PLACES.map(lambda p: lambda e: replace(e, row_ids=_with(e.row_ids, p, IDS[(p + 1) % ROWS]))),
    st.sampled_from(
        [
            lambda e: replace(e, labels=np.ones(ROWS, dtype=bool)),
            lambda e: replace(e, labels=np.zeros(ROWS, dtype=bool)),
            lambda e: replace(e, labels=e.labels[:-1]),
            lambda e: replace(e, labels=[], row_ids=[]),
            lambda e: replace(e, labels=e.labels.reshape(2, -1)),
            lambda e: replace(e, row_ids=None),
            lambda e: replace(e, row_ids=[[1], [1, 2]]),
            lambda e: replace(e, windows=()),
            lambda e: replace(e, windows=("2013-09", "2013-10")),
            lambda e: replace(e, row_ids=e.row_ids[:400], labels=e.labels[:400]),
            lambda e: replace(e, row_windows=e.row_windows[:-1]),
            lambda e: replace(e, row_windows=_with(e.row_windows, 0, None)),
            lambda e: replace(e, row_windows=_with(e.row_windows, 0, "2013-08")),
        ]
    ),
)


PLAIN = GATE.model_copy(update={"guards": {}})


def test_what_is_broken_below_is_promoted_whole():
    sound = judge(contender("2", GOOD), contender("1", POOR), gate=PLAIN)
    assert sound.decision is Decision.PROMOTE


@settings(max_examples=120, deadline=None)
@given(
    st.one_of(
        st.tuples(st.just("candidate"), SCORE_FAULTS),
        st.tuples(st.just("champion"), SCORE_FAULTS),
        st.tuples(st.just("exam"), EXAM_FAULTS),
    ),
    st.booleans(),
)
def test_nothing_broken_is_ever_promoted(fault, has_champion):
    where, damage = fault
    parts = {"candidate": contender("2", GOOD), "champion": contender("1", POOR), "exam": EXAM}
    parts[where] = damage(parts[where])
    champion = parts["champion"] if has_champion or where == "champion" else None
    verdict = judge(parts["candidate"], champion, exam=parts["exam"], gate=PLAIN)
    assert verdict.decision is not Decision.PROMOTE
    assert all(reason.strip() for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda ids: _with(ids, 5, ids[6]), "1 of the exam's row ids are repeated"),
        (lambda ids: _with(ids, 5, None), "A row has no id"),
        (lambda ids: np.append(np.arange(ROWS - 1.0), math.nan), "A row has no id"),
        (lambda ids: ids.reshape(2, -1), "not a flat list"),
    ],
    ids=["repeated", "missing", "not a number", "nested"],
)
def test_rows_without_a_name_of_their_own_are_no_exam(damage, says):
    # Everybody has the same faulty ids, so that nothing but the ids themselves is wrong.
    ids = damage(IDS)
    verdict = judge(
        replace(contender("2", GOOD), row_ids=ids),
        replace(contender("1", POOR), row_ids=ids),
        exam=replace(EXAM, row_ids=ids),
    )
    assert verdict.decision is Decision.INCONCLUSIVE
    assert says in verdict.reasons[0]
    assert verdict.exam_digest == ""


def test_too_few_rows_decide_nothing():
    gate = GATE.model_copy(update={"min_rows": ROWS + 1})
    verdict = judge(contender("2", GOOD), contender("1", POOR), gate=gate)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert "2,001 are needed" in verdict.reasons[0]
