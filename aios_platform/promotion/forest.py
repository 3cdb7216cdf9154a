"""The verdict's plot: every paired difference with its interval against its bound."""

import io
from collections.abc import Sequence
from typing import Any

from aios_platform.contracts.decisions import (
    COMPARISONS,
    Decision,
    Outcome,
    RuleResult,
    Verdict,
)
from aios_platform.promotion.rules import decimals

MOST_ROWS = 30
COLOURS = {
    Outcome.PASS: "#2e7d32",
    Outcome.FAIL: "#c62828",
    Outcome.UNKNOWN: "#e08e0b",
    Outcome.WAIVED: "#6a1b9a",
    Outcome.NOTED: "#8a8f98",
}
DECISION_COLOURS = {
    Decision.PROMOTE: COLOURS[Outcome.PASS],
    Decision.REJECT: COLOURS[Outcome.FAIL],
    Decision.INCONCLUSIVE: COLOURS[Outcome.UNKNOWN],
}
INK, FAINT = "#24292f", "#9aa0a6"
ROW_INCHES = 0.27
FIRST_UNSURE = 0x0530
"""Matplotlib's own font has every letter below: Latin, Greek and Cyrillic."""


def comparisons(verdict: Verdict) -> list[RuleResult]:
    """The rules that compare the candidate with its reference and have an interval.

    The primary metric first, then the slices, worst first, then the guards.
    """
    names = COMPARISONS
    found = [
        rule
        for rule in verdict.rules
        if rule.low is not None
        and rule.high is not None
        and (rule.rule in names or rule.rule.startswith(("slice_", "guard_")))
    ]
    return sorted(
        found,
        key=lambda rule: (rule.rule not in names, not rule.slice, rule.observed or 0.0, rule.rule),
    )


def verdict_plot(verdict: Verdict) -> bytes | None:
    """A forest plot as PNG: one panel per metric, one row per slice; equal verdicts, equal bytes.

    Returns:
        The bytes; None when the gate came to no comparison.
    """
    rules = comparisons(verdict)
    if not rules:
        return None
    slices = [rule for rule in rules if rule.slice]
    # Worst first: those beyond the limit are the best ones.
    hidden = {id(rule) for rule in slices[MOST_ROWS:]}
    panels: dict[str, list[RuleResult]] = {}
    for rule in rules:
        if id(rule) not in hidden:
            panels.setdefault(rule.metric, []).append(rule)
    return _png(_figure(verdict, panels, len(hidden)))


def _figure(verdict: Verdict, panels: dict[str, list[RuleResult]], hidden: int) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [len(rules) * ROW_INCHES + 0.5 for rules in panels.values()]
    head, foot = 0.75, 0.3 + 0.17 * bool(hidden)
    total = sum(heights) + head + foot
    figure = Figure(figsize=(8.2, total), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    top = total - head
    for (metric, rules), height in zip(panels.items(), heights, strict=True):
        bottom = top - height + 0.42
        axes = figure.add_axes((0.24, bottom / total, 0.47, (height - 0.5) / total))
        _panel(axes, metric, rules)
        top -= height
    reference = f"champion {verdict.champion_version}" if verdict.champion_version else "a constant"
    x = 0.02
    title = f"{verdict.model}: candidate {verdict.candidate_version} against {reference}"
    figure.text(x, 1 - 0.3 / total, _plain(title), fontsize=11, color=INK, weight="bold")
    figure.text(
        0.98,
        1 - 0.3 / total,
        verdict.decision.upper(),
        fontsize=11,
        weight="bold",
        color=DECISION_COLOURS[verdict.decision],
        ha="right",
    )
    figure.text(
        x,
        1 - 0.53 / total,
        "Gain over the reference on the same rows, with its interval; right is better. "
        "Dashed: the least that is accepted.",
        fontsize=8,
        color="#57606a",
    )
    figure.text(
        0.98,
        1 - 0.53 / total,
        "gain [interval]    rows",
        fontsize=8,
        color="#57606a",
        ha="right",
    )
    _legend(figure, total, {rule.outcome for rules in panels.values() for rule in rules})
    if hidden:
        figure.text(
            x, 0.3 / total, f"{hidden} slices with larger gains are not drawn.", fontsize=7.5
        )
    return figure


def _panel(axes: Any, metric: str, rules: Sequence[RuleResult]) -> None:
    from matplotlib.ticker import MaxNLocator

    ends = [value for rule in rules for value in (rule.low, rule.high, rule.bound or 0.0)]
    known = [0.0, *(value for value in ends if value is not None)]
    room = 0.08 * (max(known) - min(known)) or 1e-6
    left, right = min(known) - room, max(known) + room
    axes.set_xlim(left, right)
    axes.set_ylim(len(rules) - 0.5, -0.5)
    axes.axvline(0, color=FAINT, lw=0.8, zorder=1)
    for place, rule in enumerate(rules):
        _row(axes, place, rule, left)
    axes.set_yticks(range(len(rules)), [_label(rule) for rule in rules], fontsize=8, color=INK)
    for label, rule in zip(axes.get_yticklabels(), rules, strict=True):
        label.set_weight("normal" if rule.slice else "bold")
    axes.tick_params(axis="y", length=0, pad=6)
    axes.tick_params(axis="x", labelsize=7, colors="#57606a", length=2)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.set_xlabel(_plain(metric), fontsize=7.5, color="#57606a", labelpad=1, loc="right")


def _row(axes: Any, place: int, rule: RuleResult, left: float) -> None:
    low, high, bound = rule.low or 0.0, rule.high or 0.0, rule.bound or 0.0
    observed = (low + high) / 2 if rule.observed is None else rule.observed
    colour = COLOURS[rule.outcome]
    if place % 2 == 0:
        axes.axhspan(place - 0.5, place + 0.5, color="#f4f5f7", lw=0, zorder=0)
    axes.fill_betweenx(
        [place - 0.5, place + 0.5], left, bound, color="#c62828", alpha=0.07, lw=0, zorder=0.5
    )
    axes.plot([bound, bound], [place - 0.5, place + 0.5], color="#57606a", ls=(0, (3, 2)), lw=0.9)
    axes.plot([low, high], [place, place], color=colour, lw=2.2, solid_capstyle="butt", zorder=3)
    size = 6.5 if not rule.slice else 4.5
    shape = "D" if not rule.slice else "o"
    axes.plot(observed, place, shape, color=colour, ms=size, zorder=4)
    places = min(decimals(low, high), 6)
    axes.annotate(
        f"{observed:+.{places}f} [{low:+.{places}f}, {high:+.{places}f}] {rule.rows:>9,}",
        (1, place),
        xycoords=("axes fraction", "data"),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        fontsize=6.8,
        family="monospace",
        color=INK,
    )


def _legend(figure: Any, total: float, outcomes: set[Outcome]) -> None:
    x = 0.02
    for outcome in Outcome:
        if outcome in outcomes:
            figure.text(x, 0.1 / total, "■", fontsize=9, color=COLOURS[outcome])
            figure.text(x + 0.018, 0.1 / total, str(outcome), fontsize=7.5, color="#57606a")
            x += 0.03 + 0.011 * len(outcome)


def _label(rule: RuleResult) -> str:
    text = rule.slice or f"{rule.metric}, all rows"
    return _plain(text if len(text) <= 26 else f"{text[:25]}…")


def _plain(text: str) -> str:
    """Text in which a dollar sign starts no formula, and what the font lacks is a question mark."""
    drawn = (c if c.isprintable() and (ord(c) < FIRST_UNSURE or c == "…") else "?" for c in text)
    return "".join(drawn).replace("$", r"\$")


def _png(figure: Any) -> bytes:
    content = io.BytesIO()
    # Without the software's name and version, equal verdicts give equal bytes.
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
