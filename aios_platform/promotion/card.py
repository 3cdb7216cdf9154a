"""The model card of a version (Mitchell et al. 2019): what a person asks before relying on it."""

from collections.abc import Iterator, Sequence

from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.contracts.decisions import ApprovalRequest, Outcome, RuleResult, Verdict
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.evidence import Evidence
from aios_platform.contracts.models import Provenance
from aios_platform.metrics import less_is_better
from aios_platform.metrics.quantiles import COVERAGE, INTERVAL_COVERAGE, PINBALL
from aios_platform.promotion.report import inert, row_of, span_of

WORST_SLICES = 8


def model_card(
    *,
    declaration: ModelDeclaration,
    verdict: Verdict,
    author: str,
    training_windows: Sequence[str],
    training_rows: int,
    training_set_digest: str,
    features: FeatureSchema,
    evidence: Evidence | None = None,
    provenance: Provenance | None = None,
    approval: ApprovalRequest | None = None,
) -> str:
    """The card as Markdown: what, who, when, on which data, how good, where weak, limits.

    Text from outside is escaped.

    Args:
        declaration: The model's declaration.
        verdict: The gate's verdict on this version.
        author: Principal that trained it.
        training_windows: Keys of the windows it was trained on, oldest first.
        training_rows: Rows of those windows.
        training_set_digest: Digest of the training set.
        features: Its inputs.
        evidence: What was measured besides the exam, where it is at hand.
        provenance: What the registered version was made from, where it is at hand.
        approval: The request for approval that belongs to this verdict, if there is one.
    """
    sections = [
        _head(declaration, verdict),
        _what(declaration, features),
        _who(declaration, verdict, author, approval),
        _data(verdict, training_windows, training_rows, training_set_digest),
        _quality(declaration, verdict),
        _calibration(verdict),
        _weak(declaration, verdict),
        _fairness(declaration, verdict),
        _cost(evidence),
        _limits(declaration, verdict, training_windows),
        _provenance(verdict, training_set_digest, provenance),
    ]
    return "\n".join(line for section in sections for line in section) + "\n"


def _head(declaration: ModelDeclaration, verdict: Verdict) -> Iterator[str]:
    yield f"# {declaration.name}, version {inert(verdict.candidate_version)}"
    yield ""
    yield f"**The gate's decision: {verdict.decision.upper()}.**"
    yield ""
    yield from (f"- {inert(reason)}" for reason in verdict.reasons[:5])
    if len(verdict.reasons) > 5:
        yield f"- and {len(verdict.reasons) - 5} more, in the verdict"
    yield ""


def _what(declaration: ModelDeclaration, features: FeatureSchema) -> Iterator[str]:
    label = declaration.label
    yield "## What it does"
    yield ""
    yield inert(declaration.description) or "The declaration does not say what it is for."
    yield ""
    yield f"- Task: {declaration.task.replace('_', ' ')} of `{label.column}`, asked at"
    yield f"  `{declaration.source.prediction_time}`; the truth is known at `{label.known_at}`."
    yield f"- Feature service `{inert(declaration.features.service or 'none')}`, with"
    yield f"  {len(features.names)} inputs: {inert(', '.join(features.names))}."
    training = declaration.training
    yield f"- Network `{training.network}`, widths {list(training.hidden)},"
    yield f"  {training.members} of them averaged, seed {training.seed}; probabilities calibrated."
    yield ""


def _who(
    declaration: ModelDeclaration,
    verdict: Verdict,
    author: str,
    approval: ApprovalRequest | None,
) -> Iterator[str]:
    yield "## Who and when"
    yield ""
    yield f"- Owner: {inert(declaration.owner)}"
    yield f"- Trained by: {inert(author)}"
    yield f"- Judged: {verdict.decided_at:%Y-%m-%d %H:%M %Z}"
    if approval is not None:
        who = f" by {inert(approval.decided_by)}" if approval.decided_by else ""
        why = f": {inert(approval.reason)}" if approval.reason else ""
        yield f"- Approval: {inert(approval.state)}{who} (ledger row {approval.ledger_row}){why}"
    else:
        gate = declaration.gate
        policy = gate.approval if verdict.champion_version else gate.bootstrap.approval
        yield f"- Approval: {policy} by policy"
    waived = [rule for rule in verdict.rules if rule.outcome is Outcome.WAIVED]
    for rule in waived:
        yield f"- Waiver (ledger row {rule.waiver}) of `{inert(rule.rule)}`: {inert(rule.reason)}"
    if not waived:
        yield "- Waivers: none"
    yield ""


def _data(
    verdict: Verdict, windows: Sequence[str], rows: int, training_set_digest: str
) -> Iterator[str]:
    exam = next((rule.rows for rule in verdict.rules if rule.rule == "exam"), 0)
    yield "## On which data"
    yield ""
    yield "| | windows | rows | digest |"
    yield "|---|---|---:|---|"
    yield f"| training | {inert(span_of(windows))} | {rows:,} | `{training_set_digest[:16]}` |"
    yield (
        f"| exam | {inert(span_of(verdict.exam_windows))} | {exam:,} "
        f"| `{verdict.exam_digest[:16] or 'none'}` |"
    )
    yield ""


def _quality(declaration: ModelDeclaration, verdict: Verdict) -> Iterator[str]:
    yield "## How good it is"
    yield ""
    if not verdict.candidate_metrics:
        yield "It could not be scored on the exam."
        yield ""
        return
    champion = verdict.champion_version
    yield f"On the exam; interval at {declaration.gate.confidence:.0%} confidence."
    yield ""
    yield f"| metric | better | this version | interval | champion {inert(champion or '(none)')} |"
    yield "|---|---|---:|---|---:|"
    for metric, value in verdict.candidate_metrics.items():
        ends = verdict.candidate_intervals.get(metric)
        interval = f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else "-"
        theirs = verdict.champion_metrics.get(metric)
        shown = "-" if theirs is None else f"{theirs:.4f}"
        name = f"**{metric}**" if metric == declaration.gate.metric else metric
        if metric.startswith(COVERAGE) or metric == INTERVAL_COVERAGE:
            way = "as declared"
        else:
            way = "less" if metric == PINBALL or less_is_better(metric) else "more"
        yield f"| {name} | {way} | {value:.4f} | {interval} | {shown} |"
    yield ""


def _calibration(verdict: Verdict) -> Iterator[str]:
    if not verdict.calibration:
        return
    yield "### Calibration"
    yield ""
    yield "Rows by predicted probability, in bins of equal size, and what came true."
    yield ""
    yield "| predicted | came true | interval | rows |"
    yield "|---:|---:|---|---:|"
    for each in verdict.calibration:
        off = "" if each.low <= each.score <= each.high else " (off)"
        yield (
            f"| {each.score:.3f} | {each.share:.3f}{off} | {each.low:.3f} to {each.high:.3f} "
            f"| {each.rows:,} |"
        )
    yield ""


def _weak(declaration: ModelDeclaration, verdict: Verdict) -> Iterator[str]:
    metric = declaration.gate.metric
    less = less_is_better(metric)
    smallest = declaration.gate.min_slice_rows
    known = {
        name: entry
        for name, entry in verdict.by_slice.items()
        if "candidate" in entry and entry["rows"] >= smallest
    }
    yield "## Where it is weak"
    yield ""
    if not known:
        yield f"No slice of at least {smallest:,} rows was looked at."
        yield ""
        return
    worst = sorted(known, key=lambda name: known[name]["candidate"], reverse=less)[:WORST_SLICES]
    judged = {rule.slice: rule for rule in verdict.rules if rule.slice}
    yield f"The worst of {len(known)} slices of at least {smallest:,} rows by {metric}:"
    yield ""
    yield "| slice | rows | this version | champion | outcome |"
    yield "|---|---:|---:|---:|---|"
    for name in worst:
        entry = known[name]
        theirs = f"{entry['champion']:.4f}" if "champion" in entry else "-"
        rule = judged.get(name)
        yield (
            f"| {inert(name)} | {entry['rows']:,.0f} | {entry['candidate']:.4f} | {theirs} "
            f"| {rule.outcome if rule else '-'} |"
        )
    yield ""


def _fairness(declaration: ModelDeclaration, verdict: Verdict) -> Iterator[str]:
    yield "## Fairness"
    yield ""
    columns = [each.column for each in declaration.gate.protected]
    if not columns:
        yield "No protected attribute is declared: nothing is known about groups of people."
        yield ""
        return
    wanted = [
        rule
        for rule in verdict.rules
        if rule.rule.startswith(("tpr_difference_", "selection_difference_", "fairness_"))
    ]
    yield from (f"- {rule.outcome}: {inert(rule.reason)}" for rule in wanted)
    if not wanted:
        yield f"Groups of {inert(', '.join(columns))} were not compared."
    yield ""


def _cost(evidence: Evidence | None) -> Iterator[str]:
    if evidence is None or evidence.candidate is None:
        return
    own, other = evidence.candidate, evidence.champion
    yield "## What it costs"
    yield ""
    yield "| | this version | champion |"
    yield "|---|---:|---:|"
    yield (
        f"| p95 latency of one row, ms | {own.latency_p95_ms:.3f} "
        f"| {f'{other.latency_p95_ms:.3f}' if other else '-'} |"
    )
    yield (
        f"| artifact, KiB | {own.size_bytes / 1024:,.0f} "
        f"| {f'{other.size_bytes / 1024:,.0f}' if other else '-'} |"
    )
    yield ""


def _limits(
    declaration: ModelDeclaration, verdict: Verdict, training_windows: Sequence[str]
) -> Iterator[str]:
    gate = declaration.gate
    unjudged = [rule for rule in verdict.rules if rule.outcome is Outcome.NOTED and rule.slice]
    yield "## Limits"
    yield ""
    yield (
        f"- It knows nothing that happened after {inert(training_windows[-1])}."
        if training_windows
        else "- It is not known until when it was trained."
    )
    yield (
        f"- It may be worse than the champion by less than {gate.margin:g} in {gate.metric}, and "
        f"by less than {gate.slice_margin:g} within a slice: that much the gate tolerates."
    )
    yield (
        "- Intervals take rows to be independent. Rows of one day or one place share causes, so "
        "the true uncertainty is larger."
    )
    if unjudged:
        rows = ", ".join(_unjudged(rule) for rule in unjudged[:WORST_SLICES])
        more = f" and {len(unjudged) - WORST_SLICES} more" if len(unjudged) > WORST_SLICES else ""
        yield f"- Slices with too few rows to judge (difference they could show): {rows}{more}."
    yield "- Its probabilities mean something for rows like those of the exam only."
    yield ""


def _unjudged(rule: RuleResult) -> str:
    shown = "unknown" if rule.detectable is None else f"{rule.detectable:.3f}"
    return f"{inert(rule.slice)} ({rule.rows:,} rows, {shown})"


def _provenance(
    verdict: Verdict, training_set_digest: str, provenance: Provenance | None
) -> Iterator[str]:
    yield "## Provenance"
    yield ""
    digests = {
        "ONNX artifact": verdict.candidate_digest,
        "champion's artifact": verdict.champion_digest,
        "training set": training_set_digest,
        "exam": verdict.exam_digest,
        "policy": verdict.policy_digest,
        "verdict (evidence digest)": verdict.evidence_digest,
    }
    if provenance is not None:
        digests["declaration"] = provenance.declaration_fingerprint
        digests["feature service"] = provenance.feature_service_digest
    yield "| what | SHA-256 |"
    yield "|---|---|"
    yield from (f"| {what} | `{inert(digest)}` |" for what, digest in digests.items() if digest)
    yield ""
    if provenance is not None:
        libraries = ", ".join(f"{name} {v}" for name, v in sorted(provenance.libraries.items()))
        commit = inert(provenance.git_commit) or "unknown"
        yield f"Code: commit `{commit}`. With {inert(libraries)}."
        yield ""
    yield "### Every rule"
    yield ""
    yield "| rule | outcome | observed | interval | bound | rows |"
    yield "|---|---|---:|---|---:|---:|"
    yield from (row_of(rule) for rule in verdict.rules)
