"""The gate: may this candidate become champion?

Candidate and champion are compared on the same rows, scored now. The gate fails closed: only a
full set of rules that all pass promotes; whatever cannot be judged is `unknown`, and one unknown
makes the verdict inconclusive. Bounds are tested as `if not (good)`, so that NaN never passes.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType

import numpy as np

from aios_platform.contracts.decisions import Decision, Outcome, RuleResult, Verdict, Waiver
from aios_platform.contracts.evidence import Evidence
from aios_platform.contracts.policy import Gate, Task
from aios_platform.errors import MetricError, PromotionError
from aios_platform.metrics import LESS_IS_BETTER, Scores, evaluate, evaluate_by
from aios_platform.promotion.eligibility import origin, unseen
from aios_platform.promotion.exam import Contender, Exam, Rows
from aios_platform.promotion.operation import cost, fidelity, sound_pieces
from aios_platform.promotion.rules import waived
from aios_platform.promotion.statistics import non_inferiority, superiority
from aios_platform.resampling import Interval, gain_interval, seed_of


def examine(
    *,
    model: str,
    gate: Gate,
    exam: Exam,
    candidate: Contender,
    champion: Contender | None,
    evidence: Evidence,
    waivers: Mapping[str, Waiver] = MappingProxyType({}),
    task: Task = "binary_classification",
    drift_psi: float = 0.2,
    decided_at: datetime | None = None,
) -> Verdict:
    """Decide on a candidate.

    The same exam and the same scores give the same verdict, whatever the order of the rows.

    Args:
        model: Name of the model.
        gate: The declared policy.
        exam: Labelled rows that no contender was trained on.
        candidate: The candidate's answers.
        champion: The champion's answers to the same rows; None only when the ledger was read and
            holds no champion: then the candidate must beat the best constant answer. A champion
            that could not be scored is `Contender.unscorable`, never None.
        evidence: What was measured besides; a missing piece is unknown, and so never promotes.
        waivers: Active waivers of this model by the rule they lift.
        task: What kind of answer the model gives.
        drift_psi: PSI above which a feature counts as drifted (`monitoring.drift_psi`).
        decided_at: Time of the decision; unset, now.
    """
    decided_at = decided_at or datetime.now(UTC)
    sound = sound_pieces(evidence)
    rules: list[RuleResult] = [
        *unseen(exam, candidate, champion),
        *origin(evidence, sound),
        *cost(gate, evidence, sound, with_champion=champion is not None),
        *fidelity(gate, evidence, sound, drift_psi=drift_psi),
    ]
    rows: Rows | None = None
    candidate_scores: Scores | None = None
    champion_scores: Scores | None = None
    try:
        rows = Rows.of(exam)
        rules.append(_enough(rows, gate))
    except (MetricError, PromotionError) as error:
        rules.append(_rule("exam", Outcome.UNKNOWN, f"The exam cannot be used: {error.what}"))
    if rows is not None:
        candidate_scores, found = _answers("candidate", rows, candidate)
        rules.append(found)
        if champion is not None:
            champion_scores, found = _answers("champion", rows, champion)
            rules.append(found)
    candidate_metrics: dict[str, float] = {}
    champion_metrics: dict[str, float] = {}
    by_window: dict[str, dict[str, float]] = {}
    if rows is not None and candidate_scores is not None:
        candidate_metrics = evaluate(rows.truth, candidate_scores)
        by_window = evaluate_by(rows.truth, candidate_scores, rows.windows)
        rules.extend(_floors(gate, candidate_metrics, rows.truth.size))
        if champion is None:
            rules.append(_beats_constant(gate, rows, candidate_scores))
        elif champion_scores is not None:
            champion_metrics = evaluate(rows.truth, champion_scores)
            rules.append(_differs(candidate, champion, candidate_scores, champion_scores))
            rules.append(_not_inferior(gate, rows, candidate_scores, champion_scores))
    judged = waived(rules, waivers, model, decided_at)
    return Verdict(
        model=model,
        decision=_decide(judged),
        candidate_version=candidate.version,
        champion_version=champion.version if champion else None,
        exam_digest=rows.digest if rows else "",
        exam_windows=exam.windows,
        rules=judged,
        candidate_metrics=candidate_metrics,
        champion_metrics=champion_metrics,
        candidate_by_window=by_window,
        policy_digest=gate.fingerprint,
        candidate_digest=candidate.digest,
        champion_digest=champion.digest if champion else "",
        decided_at=decided_at,
    )


def _decide(rules: Sequence[RuleResult]) -> Decision:
    outcomes = {rule.outcome for rule in rules}
    if Outcome.FAIL in outcomes:
        return Decision.REJECT
    compared = any(
        rule.rule in ("non_inferior", "beats_constant") and rule.outcome is Outcome.PASS
        for rule in rules
    )
    if compared and outcomes <= {Outcome.PASS, Outcome.WAIVED, Outcome.NOTED}:
        return Decision.PROMOTE
    return Decision.INCONCLUSIVE


def _differs(
    candidate: Contender, champion: Contender, answers: Scores, reference: Scores
) -> RuleResult:
    """A candidate that is the champion in all but name changes nothing."""
    if candidate.version == champion.version:
        same = f"The candidate is the champion (version {champion.version})"
    elif candidate.digest and candidate.digest == champion.digest:
        same = f"The candidate's bytes are those of the champion (version {champion.version})"
    elif np.array_equal(answers, reference):
        same = "The candidate answers every row of the exam exactly as the champion does"
    else:
        return _rule("differs", Outcome.PASS, "The candidate is another model than the champion.")
    return _rule("differs", Outcome.UNKNOWN, f"{same}: there is nothing to decide.")


def _rule(name: str, outcome: Outcome, reason: str, rows: int = 0) -> RuleResult:
    return RuleResult(rule=name, outcome=outcome, reason=reason, rows=rows)


def _enough(rows: Rows, gate: Gate) -> RuleResult:
    count = rows.truth.size
    enough = count >= gate.min_rows
    return RuleResult(
        rule="exam",
        outcome=Outcome.PASS if enough else Outcome.UNKNOWN,
        observed=count,
        bound=gate.min_rows,
        rows=count,
        reason=f"The exam has {count:,} labelled rows; {gate.min_rows:,} are "
        f"{'enough' if enough else 'needed'}.",
    )


def _answers(role: str, rows: Rows, contender: Contender) -> tuple[Scores | None, RuleResult]:
    name = f"{role}_scored"
    try:
        scores = rows.scores_of(contender)
    except PromotionError as error:
        return None, _rule(name, Outcome.UNKNOWN, error.what)
    except MetricError as error:
        # A candidate with impossible answers is at fault; a champion with such leaves us without
        # a comparison.
        outcome = Outcome.FAIL if role == "candidate" else Outcome.UNKNOWN
        return None, _rule(name, outcome, f"Version {contender.version}: {error.what}")
    count = rows.truth.size
    return scores, _rule(
        name, Outcome.PASS, f"Version {contender.version} was scored on {count:,} rows.", count
    )


def _floors(gate: Gate, metrics: dict[str, float], count: int) -> Iterable[RuleResult]:
    for metric, floor in gate.floors.items():
        value = metrics[metric]
        less = metric in LESS_IS_BETTER
        good = value <= floor if less else value >= floor
        yield RuleResult(
            rule=f"floor_{metric}",
            outcome=Outcome.PASS if good else Outcome.FAIL,
            metric=metric,
            observed=value,
            bound=floor,
            rows=count,
            reason=f"{metric} is {value:.4f}; at {'most' if less else 'least'} {floor:g} "
            "is required.",
        )


def _not_inferior(gate: Gate, rows: Rows, candidate: Scores, champion: Scores) -> RuleResult:
    gain = _gain(gate, gate.metric, rows, candidate, champion)
    outcome = non_inferiority(gain, gate.margin)
    says = {
        Outcome.PASS: "not worse than the champion beyond the margin",
        Outcome.FAIL: "worse than the champion beyond the margin",
        Outcome.UNKNOWN: "not shown to be as good as the champion within the margin",
    }
    return RuleResult(
        rule="non_inferior",
        outcome=outcome,
        metric=gate.metric,
        observed=gain.estimate,
        bound=-gate.margin,
        low=gain.low,
        high=gain.high,
        rows=gain.rows,
        reason=f"{says[outcome].capitalize()}: {_described(gate.metric, gain)}; "
        f"{gate.margin:g} worse is tolerated.",
    )


def _beats_constant(gate: Gate, rows: Rows, candidate: Scores) -> RuleResult:
    """Without a champion the candidate must beat the best constant: the exam's own base rate."""
    # The base rate is perfectly calibrated on average; a proper score compares the rest as well.
    metric = "brier" if gate.metric == "ece" else gate.metric
    constant = np.full(rows.truth.size, rows.truth.mean())
    gain = _gain(gate, metric, rows, candidate, constant)
    outcome = superiority(gain)
    says = {
        Outcome.PASS: "better than the base rate",
        Outcome.FAIL: "no better than the base rate",
        Outcome.UNKNOWN: "not shown to be better than the base rate",
    }
    return RuleResult(
        rule="beats_constant",
        outcome=outcome,
        metric=metric,
        observed=gain.estimate,
        bound=0.0,
        low=gain.low,
        high=gain.high,
        rows=gain.rows,
        reason=f"{says[outcome].capitalize()} (there is no champion yet): "
        f"{_described(metric, gain)}.",
    )


def _gain(gate: Gate, metric: str, rows: Rows, candidate: Scores, reference: Scores) -> Interval:
    return gain_interval(
        metric,
        rows.truth,
        candidate,
        reference,
        seed=seed_of(rows.digest),
        confidence=gate.confidence,
        resamples=gate.resamples,
    )


def _described(metric: str, gain: Interval) -> str:
    direction = "better" if gain.estimate >= 0 else "worse"
    return (
        f"{metric} is {abs(gain.estimate):.4f} {direction} "
        f"({gain.confidence:.0%} interval {gain.low:+.4f} to {gain.high:+.4f}, "
        f"{gain.rows:,} rows)"
    )
