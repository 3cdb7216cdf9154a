"""A verdict as a person reads it: tables, a plot; and as a machine reads it: JSON."""

import html
import json
from collections.abc import Iterator, Sequence

from aios_platform.contracts.decisions import Outcome, RuleResult, Verdict
from aios_platform.promotion.forest import comparisons, verdict_plot
from aios_platform.promotion.rules import decimals

__all__ = [
    "comparison",
    "inert",
    "row_of",
    "span_of",
    "verdict_json",
    "verdict_markdown",
    "verdict_plot",
]

_MARKS = {
    Outcome.PASS: "✓ pass",
    Outcome.FAIL: "✗ fail",
    Outcome.UNKNOWN: "? unknown",
    Outcome.WAIVED: "~ waived",
    Outcome.NOTED: "· noted",
}


def verdict_markdown(verdict: Verdict) -> str:
    """The verdict as Markdown: the decision, the metrics, the comparisons, every other rule.

    Text from outside is escaped: reasons can quote data.
    """
    against = f"champion {verdict.champion_version}" if verdict.champion_version else "no champion"
    lines = [
        f"**{verdict.decision.upper()}**: candidate {inert(verdict.candidate_version)} "
        f"against {inert(against)}, exam {inert(span_of(verdict.exam_windows))}",
        "",
        *(f"- {inert(reason)}" for reason in verdict.reasons),
        "",
        *_metrics(verdict),
        *_comparisons(verdict),
        *_rules(verdict),
    ]
    return "\n".join(lines) + "\n"


def verdict_json(verdict: Verdict) -> bytes:
    """The verdict as a JSON document, UTF-8."""
    return json.dumps(verdict.model_dump(mode="json"), indent=1, sort_keys=True).encode()


def comparison(verdict: Verdict) -> RuleResult | None:
    """The rule that compares the candidate with its reference; None if it came to none."""
    found = [
        rule for rule in comparisons(verdict) if not rule.rule.startswith(("slice_", "guard_"))
    ]
    return found[0] if found else None


def row_of(rule: RuleResult) -> str:
    """A rule as a row of a table: rule, outcome, observed, interval, bound, rows."""
    return (
        f"| {inert(rule.rule)} | {_MARKS[rule.outcome]} | {_number(rule.observed)} "
        f"| {_interval(rule)} | {_number(rule.bound)} | {_count(rule.rows)} |"
    )


def span_of(windows: Sequence[str]) -> str:
    """The first and the last of some windows in words."""
    return f"{windows[0]} to {windows[-1]}" if len(windows) > 1 else "".join(windows) or "no window"


def inert(text: str) -> str:
    """Text from outside as one line of Markdown that is nothing but text."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    for character in "\\`*[]|":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped


def _metrics(verdict: Verdict) -> Iterator[str]:
    if not verdict.candidate_metrics:
        return
    yield "| metric | candidate | interval | champion |"
    yield "|---|---:|---|---:|"
    for metric, value in verdict.candidate_metrics.items():
        champion = verdict.champion_metrics.get(metric)
        ends = verdict.candidate_intervals.get(metric)
        interval = f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else "-"
        shown = "-" if champion is None else f"{champion:.4f}"
        yield f"| {metric} | {value:.4f} | {interval} | {shown} |"
    yield ""


def _comparisons(verdict: Verdict) -> Iterator[str]:
    rules = comparisons(verdict)
    if not rules:
        return
    yield "Gain over the reference on the same rows (more is better)."
    yield ""
    yield "| metric | slice | outcome | gain | interval | least | p (Holm) | detectable | rows |"
    yield "|---|---|---|---:|---|---:|---:|---:|---:|"
    for rule in rules:
        yield (
            f"| {inert(rule.metric)} | {inert(rule.slice) or 'all'} | {_MARKS[rule.outcome]} "
            f"| {_number(rule.observed)} | {_interval(rule)} | {_number(rule.bound)} "
            f"| {_number(rule.adjusted_p)} | {_number(rule.detectable)} | {_count(rule.rows)} |"
        )
    yield ""


def _rules(verdict: Verdict) -> Iterator[str]:
    compared = {rule.rule for rule in comparisons(verdict)}
    yield "| rule | outcome | observed | interval | bound | rows |"
    yield "|---|---|---:|---|---:|---:|"
    yield from (row_of(rule) for rule in verdict.rules if rule.rule not in compared)


def _interval(rule: RuleResult) -> str:
    if rule.low is None or rule.high is None:
        return "-"
    places = decimals(rule.low, rule.high)
    return f"{rule.low:+.{places}f} to {rule.high:+.{places}f}"


def _count(rows: int) -> str:
    return f"{rows:,}" if rows else "-"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value.is_integer() and abs(value) >= 10 else f"{value:.4g}"
