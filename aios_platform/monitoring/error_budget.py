"""How fast a model's error budget is being spent, and whether somebody should look. Pure.

Multiwindow, multi-burn-rate alerts: Beyer et al., The Site Reliability Workbook (2018), chapter 5,
table 5-8. The long window says that much of the budget went, the short one that it still goes.
"""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum

from pydantic import Field

from aios_platform.contracts.alerts import Severity
from aios_platform.contracts.record import Record
from aios_platform.contracts.serving import ServiceLevel

PERIOD = timedelta(days=30)
"""What the budget is for; the burn rates below are of this period."""
LEAST_BAD = 10
"""Bad requests in the long window, below which a rate is chance: one of three is no third."""


class Objective(StrEnum):
    """What a model promises its callers."""

    AVAILABILITY = "availability"
    LATENCY = "latency"


class Counts(Record):
    """Requests of callers within one window until now."""

    requests: int = Field(default=0, ge=0)
    errors: int = Field(default=0, ge=0, description="Answered with a server error.")
    slow: int = Field(default=0, ge=0, description="Answered later than `latency_ms`.")


class BurnRule(Record):
    """When a budget is spent too fast.

    A burn rate of 1 spends the budget exactly within `PERIOD`.
    """

    long: timedelta
    short: timedelta
    rate: float = Field(description="Burn rate that both windows must reach.")
    severity: Severity


RULES = (
    BurnRule(
        long=timedelta(hours=1),
        short=timedelta(minutes=5),
        rate=14.4,
        severity=Severity.CRITICAL,
    ),
    BurnRule(
        long=timedelta(hours=6),
        short=timedelta(minutes=30),
        rate=6.0,
        severity=Severity.CRITICAL,
    ),
    BurnRule(long=timedelta(days=3), short=timedelta(hours=6), rate=1.0, severity=Severity.WARNING),
)
WINDOWS = tuple(sorted({w for rule in RULES for w in (rule.long, rule.short)} | {PERIOD}))
"""Windows that `find_burns` is to be told of."""


class Burn(Record):
    """A budget that is being spent too fast."""

    objective: Objective
    rule: BurnRule
    long_rate: float = Field(description="Burn rate over the long window.")
    short_rate: float
    bad: int = Field(description="Bad requests in the long window.")
    requests: int = Field(description="All requests in it.")
    spent: float = Field(description="Share of the budget of the last 30 days that is gone.")

    @property
    def reason(self) -> str:
        """One sentence."""
        how = "failed" if self.objective is Objective.AVAILABILITY else "were slow"
        return (
            f"In the last {_hours(self.rule.long)} {self.bad:,} of {self.requests:,} requests "
            f"{how}: the error budget of {self.objective} is spent {self.long_rate:.1f} times as "
            f"fast as it may be; {self.spent:.0%} of 30 days' is gone."
        )


def find_burns(counts: Mapping[timedelta, Counts], promised: ServiceLevel) -> list[Burn]:
    """Budgets that are spent too fast: per objective and severity at most one, the fastest rule's.

    Args:
        counts: Per window of `WINDOWS`; one that is missing had no requests.
        promised: The service level objective.
    """
    found: dict[tuple[Objective, Severity], Burn] = {}
    for objective in Objective:
        for rule in RULES:
            burn = _burn(objective, rule, counts, promised)
            if burn is not None:
                found.setdefault((objective, rule.severity), burn)
    return list(found.values())


def _burn(
    objective: Objective,
    rule: BurnRule,
    counts: Mapping[timedelta, Counts],
    promised: ServiceLevel,
) -> Burn | None:
    long, short, period = (
        counts.get(window, Counts()) for window in (rule.long, rule.short, PERIOD)
    )
    bad = _bad(objective, long)
    rates = [_rate(objective, each, promised) for each in (long, short)]
    if bad < LEAST_BAD or min(rates) < rule.rate:
        return None
    return Burn(
        objective=objective,
        rule=rule,
        long_rate=rates[0],
        short_rate=rates[1],
        bad=bad,
        requests=long.requests,
        spent=_rate(objective, period, promised),
    )


def _bad(objective: Objective, counts: Counts) -> int:
    return counts.errors if objective is Objective.AVAILABILITY else counts.slow


def _rate(objective: Objective, counts: Counts, promised: ServiceLevel) -> float:
    """Share of bad requests, in multiples of the share that is allowed."""
    share = promised.availability if objective is Objective.AVAILABILITY else promised.latency_share
    return _bad(objective, counts) / max(counts.requests, 1) / (1 - share)


def _hours(window: timedelta) -> str:
    hours = int(window.total_seconds() // 3600)
    return "hour" if hours == 1 else f"{hours} hours" if hours < 48 else f"{hours // 24} days"
