"""Rules of the gate that installed packages add: they can stop a candidate, and let none pass.

A rule is a callable. It is given an `Examined` and the declared options by name, and returns a
`Finding`. It fails closed: what it raises, or returns besides, is unknown, and so never promotes.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aios_platform.contracts.decisions import Outcome, RuleResult
from aios_platform.contracts.policy import AddedRule, Gate, Task
from aios_platform.errors import AiosError
from aios_platform.extensions import Kind, load, origin
from aios_platform.promotion.exam import Exam, Rows

LONGEST_REASON = 500


@dataclass(frozen=True)
class Examined:
    """What a rule may look at. Every array is a copy of the gate's, so that no rule changes it.

    Attributes:
        task: Kind of answer.
        truth: Labels, shape (n,): bool, class codes, or numbers.
        candidate: The candidate's answers: probabilities (n,) of a binary model, (n, classes) of
            several classes, values (n,) of a regression.
        champion: The champion's answers to the same rows; None where there is no champion.
        windows: Key of each row's window, shape (n,).
        columns: The features that the declaration names for this rule, shape (n,) each.
    """

    task: Task
    truth: NDArray[Any]
    candidate: NDArray[Any]
    champion: NDArray[Any] | None
    windows: NDArray[np.str_]
    columns: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Finding:
    """What a rule says.

    Attributes:
        passed: Whether the candidate keeps it.
        reason: Why, in a sentence, for whoever reads the ledger later.
        observed: The figure that decided, if there is one.
        bound: What it was held against.
    """

    passed: bool
    reason: str
    observed: float | None = None
    bound: float | None = None


def added(
    gate: Gate, exam: Exam, rows: Rows, own: NDArray[Any], other: NDArray[Any] | None
) -> Iterator[RuleResult]:
    """What the added rules of a policy say, in its order.

    Args:
        gate: The declared policy.
        exam: The exam, with the columns that the rules name.
        rows: Its rows in canonical order.
        own: The candidate's answers to them.
        other: The champion's; None where there is none.
    """
    for rule in gate.rules:
        try:
            found = _finding(rule, exam, rows, own, other)
        except AiosError as error:
            yield _unknown(rule, rows, f"{error.what}")
        except Exception as error:
            yield _unknown(rule, rows, f"{_named(rule)} raised {type(error).__name__}: {error}")
        else:
            yield _result(rule, rows, found)


def _finding(
    rule: AddedRule, exam: Exam, rows: Rows, own: NDArray[Any], other: NDArray[Any] | None
) -> Any:
    examined = Examined(
        task=rows.task,
        truth=rows.truth.copy(),
        candidate=own.copy(),
        champion=None if other is None else other.copy(),
        windows=rows.windows.copy(),
        columns={name: rows.column_of(exam, name).copy() for name in rule.columns},
    )
    return load(Kind.GATE_RULE, rule.rule)(examined, **rule.options)


def _result(rule: AddedRule, rows: Rows, found: Any) -> RuleResult:
    if not isinstance(found, Finding) or not isinstance(found.passed, bool | np.bool_):
        return _unknown(rule, rows, f"{_named(rule)} returned {type(found).__name__}, no Finding.")
    figures = [found.observed, found.bound]
    if not all(figure is None or math.isfinite(figure) for figure in figures):
        return _unknown(rule, rows, f"{_named(rule)} has no finite figure. {found.reason}")
    return RuleResult(
        rule=rule.name,
        outcome=Outcome.PASS if found.passed else Outcome.FAIL,
        observed=None if found.observed is None else float(found.observed),
        bound=None if found.bound is None else float(found.bound),
        rows=rows.truth.size,
        reason=f"{found.reason[:LONGEST_REASON]} ({_named(rule)})",
    )


def _unknown(rule: AddedRule, rows: Rows, reason: str) -> RuleResult:
    return RuleResult(
        rule=rule.name,
        outcome=Outcome.UNKNOWN,
        rows=rows.truth.size,
        reason=reason[:LONGEST_REASON],
    )


def _named(rule: AddedRule) -> str:
    return origin(Kind.GATE_RULE, rule.rule)
