"""The gate: may this candidate become champion?

Candidate and champion are compared on the same rows, scored now. The gate fails closed: only a
full set of rules, each of which passes, is waived or is merely noted, promotes, and the comparison
itself must be among them and pass. Whatever cannot be judged is `unknown`, and one unknown makes
the verdict inconclusive. Bounds are tested as `if not (good)`, so that NaN never passes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import numpy as np

from aios_platform.contracts.decisions import (
    COMPARISONS,
    Decision,
    Outcome,
    RuleResult,
    Verdict,
    Waiver,
)
from aios_platform.contracts.evidence import Evidence
from aios_platform.contracts.policy import Gate, Task
from aios_platform.errors import DeclarationError, MetricError, PromotionError
from aios_platform.metrics import BINARY, computable, evaluate, evaluate_by
from aios_platform.metrics.quantiles import quantile_metrics
from aios_platform.metrics.registry import usual
from aios_platform.promotion.absolute import beats_constant, beats_linear, covered, floors
from aios_platform.promotion.added import added
from aios_platform.promotion.comparison import Answers, compare
from aios_platform.promotion.eligibility import origin, unseen
from aios_platform.promotion.exam import Contender, Exam, Rows
from aios_platform.promotion.fairness import fairness
from aios_platform.promotion.operation import cost, fidelity, readable
from aios_platform.promotion.quality import by_slice, calibration_of, intervals_of
from aios_platform.promotion.rules import sized, waived


@dataclass
class _Findings:
    """What the gate has found so far; it becomes the verdict."""

    rules: list[RuleResult]
    candidate_metrics: dict[str, float] = field(default_factory=dict)
    champion_metrics: dict[str, float] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)


def examine(
    *,
    model: str,
    gate: Gate,
    exam: Exam,
    candidate: Contender,
    champion: Contender | None,
    evidence: Evidence,
    linear: Contender | None = None,
    waivers: Mapping[str, Waiver] = MappingProxyType({}),
    task: Task = BINARY,
    quantiles: Sequence[float] = (),
    drift_psi: float = 0.2,
    decided_at: datetime | None = None,
) -> Verdict:
    """Decide on a candidate.

    The same exam, scores and evidence give the same verdict, whatever the order of the rows.

    Args:
        model: Name of the model.
        gate: The declared policy.
        exam: Labelled rows that no contender was trained on, with the columns that slices,
            protected attributes and added rules name.
        candidate: The candidate's answers.
        champion: The champion's answers to the same rows; None only when the ledger was read and
            holds no champion: then the candidate must beat the best constant answer. A champion
            that could not be scored is `Contender.unscorable`, never None.
        evidence: What was measured besides; a missing piece is unknown, and so never promotes.
        linear: A linear model's answers to the same rows; None: it was not fitted.
        waivers: Active waivers of this model by the rule they lift.
        task: What kind of answer the model gives.
        quantiles: Declared levels of a regression; its contenders answer each, after the value.
        drift_psi: PSI above which a feature counts as drifted (`monitoring.drift_psi`).
        decided_at: Time of the decision; unset, now.

    Raises:
        DeclarationError: The policy names a metric that the task does not have.
    """
    try:
        gate.check_task(task)
    except ValueError as error:
        raise DeclarationError(
            f"The gate of '{model}' does not fit its task: {error}.", remedy="Mend the policy."
        ) from None
    decided_at = decided_at or datetime.now(UTC)
    evidence, known = readable(evidence)
    found = _Findings(
        [
            *unseen(exam, candidate, champion),
            *origin(evidence, known),
        ]
    )
    rows: Rows | None = None
    try:
        rows = Rows.of(exam, task=task)
        enough = _enough(rows, gate)
        found.rules.append(enough)
        _judge(
            found, gate, task, exam, rows, candidate, champion, enough.outcome, quantiles, linear
        )
    except (MetricError, PromotionError) as error:
        found.rules.append(_rule("exam", Outcome.UNKNOWN, f"The exam cannot be used: {error.what}"))
    # Last: the reasons of a verdict are read from the top, and these decide least often.
    found.rules.extend(cost(gate, evidence, with_champion=champion is not None))
    found.rules.extend(fidelity(gate, evidence, drift_psi=drift_psi))
    judged = waived(found.rules, waivers, model, decided_at)
    return Verdict(
        model=model,
        decision=_decide(judged),
        candidate_version=candidate.version,
        champion_version=champion.version if champion else None,
        exam_digest=rows.digest if rows else "",
        exam_windows=exam.windows,
        rules=judged,
        candidate_metrics=found.candidate_metrics,
        champion_metrics=found.champion_metrics,
        policy_digest=gate.fingerprint,
        candidate_digest=candidate.digest,
        champion_digest=champion.digest if champion else "",
        decided_at=decided_at,
        **found.more,
    )


def _judge(
    found: _Findings,
    gate: Gate,
    task: Task,
    exam: Exam,
    rows: Rows,
    candidate: Contender,
    champion: Contender | None,
    enough: Outcome,
    quantiles: Sequence[float],
    linear: Contender | None,
) -> None:
    """Everything that looks at answers to the exam."""
    own, rule = _answers("candidate", rows, candidate)
    found.rules.append(rule)
    other = None
    if champion is not None:
        other, rule = _answers("champion", rows, champion)
        found.rules.append(rule)
        if other is not None:
            found.champion_metrics = _metrics(gate, rows, champion, other, quantiles)
    if own is None:
        return
    found.candidate_metrics = _metrics(gate, rows, candidate, own, quantiles)
    found.more = {
        "candidate_by_window": evaluate_by(
            rows.truth, own, rows.windows, usual(task, gate.named), task=task
        ),
        "calibration": calibration_of(task, rows.truth, own),
    }
    # Figures of a few rows would fail or pass by luck.
    if enough is not Outcome.PASS:
        return
    found.more["candidate_intervals"] = intervals_of(gate, task, rows, own)
    found.more["by_slice"] = by_slice(gate, task, exam, rows, own, other)
    found.rules.extend(
        floors(gate, task, rows, own, found.candidate_metrics, significantly=champion is None)
    )
    if champion is None:
        found.rules.append(beats_constant(gate, task, rows, own))
    elif other is not None:
        found.rules.append(_differs(candidate, champion, own, other))
        found.rules.extend(compare(exam, Answers(gate, task, rows, own, other)))
    found.rules.extend(beats_linear(gate, task, rows, own, linear))
    found.rules.extend(covered(gate, found.candidate_metrics, quantiles, rows.truth.size))
    found.rules.extend(_fairness(gate, exam, rows, own))
    found.rules.extend(added(gate, exam, rows, own, other))


def _metrics(
    gate: Gate, rows: Rows, contender: Contender, scores: Any, quantiles: Sequence[float]
) -> dict[str, float]:
    names = computable(rows.truth, scores, task=rows.task, also=gate.named)
    found = evaluate(rows.truth, scores, names, task=rows.task)
    predicted = rows.quantiles_of(contender) if quantiles else np.empty((0, 0))
    if quantiles and predicted.shape[1] == len(quantiles) and np.isfinite(predicted).all():
        found |= quantile_metrics(rows.truth, predicted, quantiles)
    return found


def _decide(rules: Sequence[RuleResult]) -> Decision:
    outcomes = {rule.outcome for rule in rules}
    if Outcome.FAIL in outcomes:
        return Decision.REJECT
    compared = any(rule.rule in COMPARISONS and rule.outcome is Outcome.PASS for rule in rules)
    if compared and outcomes <= {Outcome.PASS, Outcome.WAIVED, Outcome.NOTED}:
        return Decision.PROMOTE
    return Decision.INCONCLUSIVE


def _differs(candidate: Contender, champion: Contender, own: Any, other: Any) -> RuleResult:
    """A candidate that is the champion in all but name changes nothing."""
    if candidate.version == champion.version:
        same = f"The candidate is the champion (version {champion.version})"
    elif candidate.digest and candidate.digest == champion.digest:
        same = f"The candidate's bytes are those of the champion (version {champion.version})"
    elif np.array_equal(own, other):
        same = "The candidate answers every row of the exam exactly as the champion does"
    else:
        return _rule("differs", Outcome.PASS, "The candidate is another model than the champion.")
    return _rule("differs", Outcome.UNKNOWN, f"{same}: there is nothing to decide.")


def _enough(rows: Rows, gate: Gate) -> RuleResult:
    count = rows.truth.size
    enough = count >= gate.min_rows
    return RuleResult(
        rule="exam",
        outcome=Outcome.PASS if enough else Outcome.UNKNOWN,
        observed=count,
        bound=gate.min_rows,
        rows=count,
        reason=f"The exam has {sized(count, 'labelled row')}; {gate.min_rows:,} are "
        f"{'enough' if enough else 'needed'}.",
    )


def _answers(role: str, rows: Rows, contender: Contender) -> tuple[Any, RuleResult]:
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
    if not contender.digest:
        return scores, _rule(
            name,
            Outcome.UNKNOWN,
            f"Version {contender.version} was scored, and nothing says from which bytes.",
        )
    count = rows.truth.size
    return scores, RuleResult(
        rule=name,
        outcome=Outcome.PASS,
        rows=count,
        reason=f"Version {contender.version} was scored on {sized(count, 'row')}.",
    )


def _fairness(gate: Gate, exam: Exam, rows: Rows, own: Any) -> Iterator[RuleResult]:
    for protected in gate.protected:
        try:
            values = rows.column_of(exam, protected.column)
        except PromotionError as error:
            values, missing = None, error.what
        else:
            missing = ""
        yield from fairness(gate, protected, values, rows.truth, own, missing=missing)


def _rule(name: str, outcome: Outcome, reason: str) -> RuleResult:
    return RuleResult(rule=name, outcome=outcome, reason=reason)
