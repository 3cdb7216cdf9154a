"""A verdict as a person reads it: a table, a plot; and as a machine reads it: JSON."""

import html
import io
import json

from aios_platform.contracts.decisions import Outcome, RuleResult, Verdict

_MARKS = {
    Outcome.PASS: "✓ pass",
    Outcome.FAIL: "✗ fail",
    Outcome.UNKNOWN: "? unknown",
    Outcome.WAIVED: "~ waived",
    Outcome.NOTED: "· noted",
}
_COLOURS = {
    Outcome.PASS: "#2e7d32",
    Outcome.FAIL: "#c62828",
    Outcome.UNKNOWN: "#f9a825",
    Outcome.WAIVED: "#6a1b9a",
    Outcome.NOTED: "#757575",
}


def verdict_markdown(verdict: Verdict) -> str:
    """The verdict as Markdown: the decision, the contenders' metrics, every rule.

    Text from outside is escaped: reasons can quote data.
    """
    against = f"champion {verdict.champion_version}" if verdict.champion_version else "no champion"
    windows = verdict.exam_windows
    span = f"{windows[0]} to {windows[-1]}" if len(windows) > 1 else "".join(windows) or "no window"
    lines = [
        f"**{verdict.decision.upper()}**: candidate {_cell(verdict.candidate_version)} "
        f"against {_cell(against)}, exam {_cell(span)}",
        "",
        *(f"- {_cell(reason)}" for reason in verdict.reasons),
        "",
    ]
    if verdict.candidate_metrics:
        lines += ["| metric | candidate | champion |", "|---|---:|---:|"]
        for metric, value in verdict.candidate_metrics.items():
            champion = verdict.champion_metrics.get(metric)
            shown = "-" if champion is None else f"{champion:.4f}"
            lines.append(f"| {metric} | {value:.4f} | {shown} |")
        lines.append("")
    lines += [
        "| rule | outcome | observed | interval | bound | rows |",
        "|---|---|---:|---|---:|---:|",
    ]
    lines += [_row(rule) for rule in verdict.rules]
    return "\n".join(lines) + "\n"


def verdict_json(verdict: Verdict) -> bytes:
    """The verdict as a JSON document, UTF-8."""
    return json.dumps(verdict.model_dump(mode="json"), indent=1, sort_keys=True).encode()


def comparison(verdict: Verdict) -> RuleResult | None:
    """The rule that compares the candidate with its reference; None if it came to none."""
    for rule in verdict.rules:
        if rule.rule in ("non_inferior", "beats_constant") and rule.low is not None:
            return rule
    return None


def verdict_plot(verdict: Verdict) -> bytes | None:
    """The paired difference with its interval against the bound, as PNG.

    Returns:
        The bytes; None when the gate came to no comparison.
    """
    rule = comparison(verdict)
    if rule is None or rule.low is None or rule.high is None:
        return None
    bound = rule.bound or 0.0
    observed = (rule.low + rule.high) / 2 if rule.observed is None else rule.observed
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 1.9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colour = _COLOURS[rule.outcome]
    first, last = min(rule.low, bound, 0.0), max(rule.high, bound, 0.0)
    room = 0.15 * (last - first) or 1e-6
    axes.axvspan(bound, last + room, color="#2e7d32", alpha=0.08, lw=0)
    axes.axvline(bound, color="#555555", ls="--", lw=1)
    axes.axvline(0, color="#bbbbbb", lw=1)
    axes.plot([rule.low, rule.high], [0, 0], color=colour, lw=5, alpha=0.5)
    axes.plot(observed, 0, "o", color=colour, ms=8)
    axes.set_xlim(first - room, last + room)
    axes.set_ylim(-1, 1)
    axes.set_yticks([])
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    reference = "champion" if verdict.champion_version else "base rate"
    axes.set_xlabel(
        f"gain in {rule.metric} over the {reference} (dashed: least that is accepted)", fontsize=8
    )
    axes.tick_params(labelsize=8)
    axes.set_title(
        f"{verdict.model}: candidate {verdict.candidate_version}, {verdict.decision}".replace(
            "$", r"\$"
        ),
        fontsize=9,
        loc="left",
    )
    content = io.BytesIO()
    # Without the software's name and version, equal verdicts give equal bytes.
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _row(rule: RuleResult) -> str:
    observed, bound = _number(rule.observed), _number(rule.bound)
    known = rule.low is not None and rule.high is not None
    interval = f"{rule.low:+.4f} to {rule.high:+.4f}" if known else "-"
    return (
        f"| {_cell(rule.rule)} | {_MARKS[rule.outcome]} | {observed} | {interval} | {bound} "
        f"| {rule.rows or '-'} |"
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value.is_integer() and abs(value) >= 10 else f"{value:.4g}"


def _cell(text: str) -> str:
    escaped = html.escape(" ".join(text.split()), quote=False)
    for character in "\\`*[]|":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped
