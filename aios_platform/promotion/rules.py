"""What the gate's rules share: their names, which of them a waiver may lift, how one is written."""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from aios_platform.contracts.decisions import Outcome, RuleResult, Waiver
from aios_platform.contracts.policy import Gate
from aios_platform.contracts.record import digest_of, nearest
from aios_platform.errors import PromotionError
from aios_platform.metrics import shown
from aios_platform.resampling import Estimate

UNWAIVABLE: frozenset[str] = frozenset(
    {
        "exam",
        "candidate_scored",
        "champion_scored",
        "candidate_unseen",
        "champion_unseen",
        "shared_rows",
        "leakage",
        "provenance",
        "sampled",
        "differs",
        "non_inferior",
        "beats_constant",
    }
)
"""Rules without which the verdict would say nothing about the candidate."""

WAIVABLE: tuple[str, ...] = (
    "floor_<metric>",
    "guard_<metric>",
    "slice_<column>=<value>",
    "slice_<column>",
    "tpr_difference_<column>",
    "selection_difference_<column>",
    "added_<rule>",
    "beats_linear",
    "max_latency_ratio",
    "max_latency_ms",
    "max_size_ratio",
    "max_size_mib",
    "max_exam_drift",
    "servable",
    "online_parity",
)
"""Rules that a waiver may lift, as patterns."""

LONGEST_NAME = 60


def check_waivable(rule: str, gate: Gate) -> None:
    """Refuse a waiver that could never do anything, or that must not.

    Args:
        rule: Name of the rule, as a verdict shows it.
        gate: The policy of the model.

    Raises:
        PromotionError: The rule cannot be waived, or the policy has no such rule.
    """
    if rule in UNWAIVABLE:
        raise PromotionError(
            f"The rule '{rule}' cannot be waived: without it the verdict says nothing about the "
            "candidate.",
            remedy=f"Waive one of {', '.join(WAIVABLE)}, or mend the cause.",
        )
    names = waivable_rules(gate)
    if rule not in names and not any(
        rule.startswith(f"slice_{each.column}=") for each in gate.slices
    ):
        raise PromotionError(
            f"The policy has no rule '{rule}'. {nearest(rule, names)}",
            remedy="Take the name from the verdict; a slice's rule is slice_<column>=<value>.",
        )


def waivable_rules(gate: Gate) -> tuple[str, ...]:
    """The rules of a policy that a waiver may lift; single slices have one each besides."""
    fixed = tuple(name for name in WAIVABLE if "<" not in name)
    return (
        *(f"floor_{metric}" for metric in gate.floors),
        *(f"guard_{metric}" for metric in gate.guards),
        *(f"slice_{each.column}" for each in gate.slices),
        *(f"tpr_difference_{each.column}" for each in gate.protected),
        *(f"selection_difference_{each.column}" for each in gate.protected),
        *(each.name for each in gate.rules),
        *fixed,
    )


def waived(
    rules: Iterable[RuleResult], waivers: Mapping[str, Waiver], model: str, at: datetime
) -> tuple[RuleResult, ...]:
    """The rules with active waivers applied: what failed or is unknown is shown as waived.

    A waiver counts for its own model and rule, until it expires, and never for a rule of
    `UNWAIVABLE`.
    """
    return tuple(_lifted(rule, waivers.get(rule.rule), model, at) for rule in rules)


def _lifted(rule: RuleResult, waiver: Waiver | None, model: str, at: datetime) -> RuleResult:
    if waiver is None or rule.rule in UNWAIVABLE:
        return rule
    if rule.outcome not in (Outcome.FAIL, Outcome.UNKNOWN):
        return rule
    if not (waiver.model == model and waiver.rule == rule.rule and at < waiver.expires_at):
        return rule
    return rule.model_copy(
        update={
            "outcome": Outcome.WAIVED,
            "waiver": waiver.ledger_row,
            "reason": f"Waived by {waiver.principal} until {waiver.expires_at:%Y-%m-%d %H:%M %Z} "
            f"({waiver.reason}). Found: {rule.reason}",
        }
    )


def sized(count: int, noun: str) -> str:
    """A count with its noun: '1 row', '2 rows'."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def described(metric: str, gain: Estimate) -> str:
    """A paired difference in words."""
    direction = "better" if gain.estimate >= 0 else "worse"
    places = decimals(gain.low, gain.high)
    return (
        f"{shown(metric)} is {abs(gain.estimate):.{places}f} {direction} "
        f"({gain.confidence:.0%} interval {gain.low:+.{places}f} to {gain.high:+.{places}f}, "
        f"{sized(gain.rows, 'row')})"
    )


def decimals(low: float, high: float) -> int:
    """Decimal places that tell the ends of an interval apart: 4, more where it is narrow."""
    width = high - low
    return min(max(4, 1 - math.floor(math.log10(width))), 8) if width > 0 else 4


def finite(value: float) -> float | None:
    """A figure for a record, which holds none that is not finite."""
    return float(value) if math.isfinite(value) else None


def plain_name(value: str) -> str:
    """A value from the data as part of a rule's name: one line, at most 60 characters.

    A value that had to be changed carries part of its digest, so that no two share a name.
    """
    line = re.sub(r"\s+", " ", value).strip()
    if line == value and len(value) <= LONGEST_NAME:
        return value
    return f"{line[: LONGEST_NAME - 9]}#{digest_of(value)[:8]}"
