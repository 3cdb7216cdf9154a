"""Fairness: how differently the groups of a protected attribute are treated.

Two differences are bounded: of the true-positive rate (equality of opportunity, Hardt, Price and
Srebro 2016) and of the selection rate (demographic parity). Intervals are Newcombe's (1998,
Statistics in Medicine 17:873-890, method 10), from two Wilson intervals.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aios_platform.contracts.decisions import Outcome, RuleResult
from aios_platform.contracts.policy import Gate, Protected, Slice
from aios_platform.errors import PromotionError
from aios_platform.promotion.rules import sized
from aios_platform.promotion.slices import slices_of

MIN_POSITIVES = 50
"""Fewer say too little about a true-positive rate: with 50 its standard error is up to 0.07."""


@dataclass(frozen=True)
class Rate:
    """A share of rows in one group.

    Attributes:
        group: Name of the group.
        hits: Rows that count.
        rows: Rows looked at.
    """

    group: str
    hits: int
    rows: int

    @property
    def share(self) -> float:
        """The observed share."""
        return self.hits / self.rows

    def wilson(self, confidence: float) -> tuple[float, float]:
        """Wilson's score interval (1927), two-sided."""
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        scale = 1 + z * z / self.rows
        middle = (self.share + z * z / (2 * self.rows)) / scale
        half = (
            z
            / scale
            * math.sqrt(self.share * (1 - self.share) / self.rows + (z / (2 * self.rows)) ** 2)
        )
        return max(middle - half, 0.0), min(middle + half, 1.0)


def difference(more: Rate, less: Rate, confidence: float) -> tuple[float, float, float]:
    """`more` minus `less` with Newcombe's interval.

    Returns:
        Estimate, lower end, upper end.
    """
    estimate = more.share - less.share
    low_more, high_more = more.wilson(confidence)
    low_less, high_less = less.wilson(confidence)
    below = math.hypot(more.share - low_more, high_less - less.share)
    above = math.hypot(high_more - more.share, less.share - low_less)
    return estimate, estimate - below, estimate + above


def fairness(
    gate: Gate,
    protected: Protected,
    values: ArrayLike | None,
    truth: NDArray[np.bool_],
    scores: NDArray[np.float64],
    *,
    missing: str = "",
) -> Iterator[RuleResult]:
    """Both differences of one protected attribute, each between its two most different groups.

    A difference within its bound passes. One above it fails when its whole interval is above, and
    is unknown when the interval reaches the bound: neither promotes. Groups of too few rows are
    noted, and a difference takes at least two groups that are large enough.

    Args:
        gate: The policy.
        protected: The attribute and its bounds.
        values: The attribute of each row, shape (n,); None where the exam has no such column.
        truth: Labels, shape (n,).
        scores: The candidate's probabilities, shape (n,).
        missing: Why there are no values.
    """
    column = protected.column
    names = (f"tpr_difference_{column}", f"selection_difference_{column}")
    try:
        if values is None:
            raise PromotionError(missing or f"The exam has no column '{column}'.")
        groups = slices_of(Slice(column=column), values).groups
    except PromotionError as error:
        for name in names:
            yield RuleResult(rule=name, outcome=Outcome.UNKNOWN, reason=error.what)
        return
    selected = scores >= gate.decision_threshold
    rates: list[Rate] = []
    positives: list[Rate] = []
    for group in groups:
        inside = group.inside
        rows, hits = group.rows, int((inside & truth).sum())
        small = rows < gate.min_slice_rows
        if not small:
            rates.append(Rate(group.name, int((inside & selected).sum()), rows))
        if not small and hits >= MIN_POSITIVES:
            positives.append(Rate(group.name, int((inside & truth & selected).sum()), hits))
        if small or hits < MIN_POSITIVES:
            yield RuleResult(
                rule=f"fairness_{group.name}",
                outcome=Outcome.NOTED,
                slice=group.name,
                rows=rows,
                reason=f"The group {group.name} has {sized(rows, 'row')} and "
                f"{sized(hits, 'positive')}: too few to judge (at least {gate.min_slice_rows:,} "
                f"and {MIN_POSITIVES}).",
            )
    yield _judged(names[0], "true-positive rate", positives, protected.max_tpr_difference, gate)
    yield _judged(names[1], "selection rate", rates, protected.max_selection_difference, gate)


def _judged(name: str, what: str, rates: list[Rate], bound: float, gate: Gate) -> RuleResult:
    if len(rates) < 2:
        return RuleResult(
            rule=name,
            outcome=Outcome.UNKNOWN,
            bound=bound,
            reason=f"{sized(len(rates), 'group')} large enough to give a {what}: "
            "no two can be compared.",
        )
    most = max(rates, key=lambda rate: rate.share)
    least = min(rates, key=lambda rate: rate.share)
    # The widest of all pairs was picked, so each pair's interval is made wide enough for all.
    pairs = math.comb(len(rates), 2)
    confidence = 1 - (1 - gate.confidence) / pairs
    estimate, low, high = difference(most, least, confidence)
    if estimate <= bound:
        outcome = Outcome.PASS
    elif low > bound or _any_above(rates, bound, confidence):
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.UNKNOWN
    says = {
        Outcome.PASS: "within the bound",
        Outcome.FAIL: "above the bound",
        Outcome.UNKNOWN: "observed above the bound, and not shown to be",
    }
    return RuleResult(
        rule=name,
        outcome=outcome,
        metric=what.replace(" ", "_").replace("-", "_"),
        slice=f"{most.group} - {least.group}",
        observed=estimate,
        bound=bound,
        low=low,
        high=high,
        rows=most.rows + least.rows,
        reason=f"Difference in {what} between {most.group} ({most.share:.3f}) and {least.group} "
        f"({least.share:.3f}) is {says[outcome]}: {estimate:.3f} ({confidence:.1%} interval "
        f"{low:+.3f} to {high:+.3f}); at most {bound:g} is allowed.",
    )


def _any_above(rates: list[Rate], bound: float, confidence: float) -> bool:
    """Whether the interval of any pair lies above the bound, if not that of the extreme pair."""
    pairs = (sorted(pair, key=lambda rate: rate.share) for pair in combinations(rates, 2))
    return any(difference(more, less, confidence)[1] > bound for less, more in pairs)
