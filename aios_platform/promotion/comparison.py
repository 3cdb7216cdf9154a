"""The candidate against the champion: primary metric, guards, slices.

Two claims are tested in each cell (a metric on the whole exam, or the primary metric on a slice).
That the candidate is *worse* than the margin allows rejects it: over all cells, Holm keeps the
probability of any false rejection at alpha. That it is *not worse* than the margin allows must be
shown in every judged cell before it is promoted: an intersection-union test (Berger 1982,
Technometrics 24:295-300), which holds its level without an adjustment. Alpha is half of
1 - `gate.confidence`, on the side of the claim.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from aios_platform.contracts.decisions import Outcome, RuleResult
from aios_platform.contracts.policy import Gate, Metric, Slice, Task
from aios_platform.errors import MetricError, PromotionError
from aios_platform.metrics import BINARY, judgeable
from aios_platform.metrics.registry import NEED_EVERY_CLASS
from aios_platform.promotion.exam import Exam, Rows
from aios_platform.promotion.rules import described, finite, sized
from aios_platform.promotion.slices import Group, slices_of
from aios_platform.promotion.statistics import (
    delong,
    detectable,
    holm,
    non_inferiority,
    p_inferior,
)
from aios_platform.resampling import (
    Estimate,
    Interval,
    gain_interval,
    gain_intervals,
    seed_of,
)

MIN_CLASS_ROWS = 20
"""With fewer rows of a class the interval of an AUC is too short (docs/statistics.md)."""
POWER = 0.8
"""A slice is judged when a candidate as good as the champion would pass all with this power."""


@dataclass(frozen=True)
class Answers:
    """Both sides of a comparison on the same rows.

    Attributes:
        gate: The policy.
        task: Kind of answer.
        rows: The exam's rows.
        candidate: Scores of the candidate, in the order of the rows.
        reference: Scores of the champion, in the same order.
    """

    gate: Gate
    task: Task
    rows: Rows
    candidate: Any
    reference: Any

    def gain(self, metric: str, inside: Any = slice(None)) -> Estimate:
        """How much better the candidate is on some rows, by DeLong where it applies.

        Raises:
            MetricError: The rows allow no such comparison.
        """
        truth = self.rows.truth[inside]
        own, other = self.candidate[inside], self.reference[inside]
        if metric == "roc_auc" and self.task == BINARY:
            return delong(truth, own, other, confidence=self.gate.confidence)
        return gain_interval(
            metric,
            truth,
            own,
            other,
            seed=seed_of(self.rows.digest),
            confidence=self.gate.confidence,
            resamples=self.gate.resamples,
            task=self.task,
        )


@dataclass(frozen=True)
class Cell:
    """A metric on some rows, compared.

    Attributes:
        rule: Name of the rule.
        metric: Name of the metric.
        margin: How much worse is tolerated.
        gain: The paired difference.
        slice: Name of the slice; empty for the whole exam.
        meaning: What a quantile bin covers.
        second: The same difference by DeLong, where `gain` is resampled.
        adjusted: p-value of "worse than the margin allows" after Holm.
    """

    rule: str
    metric: str
    margin: float
    gain: Estimate
    slice: str = ""
    meaning: str = ""
    second: Estimate | None = None
    adjusted: float = 1.0

    @property
    def p_worse(self) -> float:
        """p-value of the claim that the candidate is worse than the margin allows."""
        found = [_p_worse(each, self.margin) for each in (self.gain, self.second) if each]
        return max(found)

    def outcome(self, alpha: float) -> Outcome:
        """PASS when shown not to be worse, FAIL when shown to be, else UNKNOWN."""
        if self.adjusted <= alpha:
            return Outcome.FAIL
        shown = [non_inferiority(each, self.margin) for each in (self.gain, self.second) if each]
        return Outcome.PASS if set(shown) == {Outcome.PASS} else Outcome.UNKNOWN


def compare(exam: Exam, answers: Answers) -> Iterator[RuleResult]:
    """The rules `non_inferior`, `guard_<metric>` and `slice_<column>=<value>`.

    Args:
        exam: Carries the columns that slices look at.
        answers: Scores of both sides.
    """
    gate = answers.gate
    cells: list[Cell] = []
    noted: list[RuleResult] = []
    try:
        cells += _whole(answers)
    except MetricError as error:
        yield RuleResult(
            rule="non_inferior",
            outcome=Outcome.UNKNOWN,
            metric=gate.metric,
            reason=f"The contenders cannot be compared: {error.what}",
        )
        return
    for declared in gate.slices:
        for found in _sliced(exam, answers, declared, whole=cells[0].gain):
            (cells if isinstance(found, Cell) else noted).append(found)  # type: ignore[arg-type]
    adjusted = holm([cell.p_worse for cell in cells])
    cells = [replace(cell, adjusted=float(p)) for cell, p in zip(cells, adjusted, strict=True)]
    judged = sum(1 for cell in cells if cell.slice)
    for cell in cells:
        yield _slice_rule(gate, cell, judged) if cell.slice else _whole_rule(gate, cell)
    yield from noted


def _whole(answers: Answers) -> Iterator[Cell]:
    gate, rows = answers.gate, answers.rows
    margins: dict[Metric, float] = {gate.metric: gate.margin, **gate.guards}
    gains = gain_intervals(
        list(margins),
        rows.truth,
        answers.candidate,
        answers.reference,
        seed=seed_of(rows.digest),
        confidence=gate.confidence,
        resamples=gate.resamples,
        task=answers.task,
    )
    for metric, margin in margins.items():
        closed_form = metric == "roc_auc" and answers.task == BINARY
        yield Cell(
            rule="non_inferior" if metric == gate.metric else f"guard_{metric}",
            metric=metric,
            margin=margin,
            gain=gains[metric],
            second=answers.gain(metric) if closed_form else None,
        )


def _sliced(
    exam: Exam, answers: Answers, declared: Slice, *, whole: Estimate
) -> Iterator[Cell | RuleResult]:
    rows = answers.rows
    try:
        values = rows.column_of(exam, declared.column)
        found = slices_of(declared, values)
    except PromotionError as error:
        yield RuleResult(
            rule=f"slice_{declared.column}", outcome=Outcome.UNKNOWN, reason=error.what
        )
        return
    for group in found.groups:
        yield _group(answers, group, whole)
    if found.left_out:
        yield RuleResult(
            rule=f"slice_{declared.column}",
            outcome=Outcome.NOTED,
            rows=found.rows_left_out,
            reason=f"{found.left_out:,} further values of '{declared.column}' with "
            f"{sized(found.rows_left_out, 'row')} are not shown; declare quantiles or another "
            f"column to judge them. Largest are shown: {len(found.groups)}.",
        )


def _group(answers: Answers, group: Group, whole: Estimate) -> Cell | RuleResult:
    gate, count = answers.gate, group.rows
    truth = answers.rows.truth[group.inside]
    if count < gate.min_slice_rows:
        why = f"{sized(count, 'row')}, fewer than {gate.min_slice_rows:,}"
    elif not judgeable(truth, answers.candidate, task=answers.task, metric=gate.metric):
        why = f"{sized(count, 'row')}, and all of one class or value"
    elif (fewest := _fewest(answers.task, gate.metric, truth)) < MIN_CLASS_ROWS:
        why = f"{sized(fewest, 'row')} of one class, fewer than {MIN_CLASS_ROWS}"
    else:
        try:
            return Cell(
                rule=f"slice_{group.name}",
                metric=gate.metric,
                margin=gate.slice_margin,
                gain=answers.gain(gate.metric, group.inside),
                slice=group.name,
                meaning=group.meaning,
            )
        except MetricError as error:
            why = error.what
    # Rows of this slice taken to be as telling as the exam's on average.
    scaled = detectable(whole, power=POWER) * np.sqrt(whole.rows / count)
    return RuleResult(
        rule=f"slice_{group.name}",
        outcome=Outcome.NOTED,
        metric=gate.metric,
        slice=group.name,
        detectable=finite(scaled),
        rows=count,
        reason=f"{_named(group.name, group.meaning)} is not judged: {why}. So many rows would show "
        f"a difference of about {scaled:.3f}.",
    )


def _fewest(task: Task, metric: Metric, truth: Any) -> int:
    if task == "regression" or (task != BINARY and metric not in NEED_EVERY_CLASS):
        return MIN_CLASS_ROWS
    return int(np.bincount(truth).min())


def _whole_rule(gate: Gate, cell: Cell) -> RuleResult:
    outcome = cell.outcome(_alpha(gate))
    says = {
        Outcome.PASS: "not worse than the champion beyond the margin",
        Outcome.FAIL: "worse than the champion beyond the margin",
        Outcome.UNKNOWN: "not shown to be as good as the champion within the margin",
    }
    second = f" DeLong: {cell.second.low:+.4f} to {cell.second.high:+.4f}." if cell.second else ""
    return _rule_of(
        cell,
        outcome,
        f"{says[outcome].capitalize()}: {described(cell.metric, cell.gain)}; "
        f"{cell.margin:g} worse is tolerated.{second}",
    )


def _slice_rule(gate: Gate, cell: Cell, judged: int) -> RuleResult:
    alpha = _alpha(gate)
    outcome = cell.outcome(alpha)
    what = f"{_named(cell.slice, cell.meaning)}: {described(cell.metric, cell.gain)}"
    # With this power in each, a candidate as good as the champion passes all of them with POWER.
    able = detectable(cell.gain, power=1 - (1 - POWER) / judged) <= cell.margin
    if outcome is Outcome.PASS:
        reason = f"Not worse beyond the margin of {cell.margin:g} on {what}."
    elif outcome is Outcome.FAIL:
        reason = f"Worse beyond the margin of {cell.margin:g} on {what}."
    elif able:
        reason = f"Not shown to be as good within {cell.margin:g} on {what}."
    elif not cell.p_worse > alpha:
        reason = f"Seems worse beyond the margin of {cell.margin:g} on {what}."
    else:
        outcome = Outcome.NOTED
        reason = (
            f"Too few rows to judge against the margin of {cell.margin:g} on {what}; they would "
            f"show a difference of {detectable(cell.gain, power=POWER):.3f}."
        )
    return _rule_of(cell, outcome, reason)


def _rule_of(cell: Cell, outcome: Outcome, reason: str) -> RuleResult:
    return RuleResult(
        rule=cell.rule,
        outcome=outcome,
        metric=cell.metric,
        slice=cell.slice,
        observed=finite(cell.gain.estimate),
        bound=-cell.margin,
        low=finite(cell.gain.low),
        high=finite(cell.gain.high),
        p_value=finite(cell.p_worse),
        adjusted_p=finite(cell.adjusted),
        detectable=finite(detectable(cell.gain, power=POWER)),
        rows=cell.gain.rows,
        reason=reason,
    )


def _p_worse(gain: Estimate, margin: float) -> float:
    p_value = p_inferior(gain, margin)
    if isinstance(gain, Interval) and p_value <= 1 / (gain.resamples + 1):
        # No resample lies on the margin's good side: how far the estimate is beyond it is told by
        # its standard error, since the share of resamples cannot become smaller and would not
        # outlast Holm's factor.
        if not gain.standard_error > 0:
            return 0.0 if gain.estimate < -margin else p_value
        return min(p_value, NormalDist().cdf((gain.estimate + margin) / gain.standard_error))
    return p_value if p_value == p_value else 1.0


def _named(name: str, meaning: str) -> str:
    return f"{name} ({meaning})" if meaning else name


def _alpha(gate: Gate) -> float:
    return (1 - gate.confidence) / 2
