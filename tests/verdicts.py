"""Verdicts for tests that need one and do not care how it was reached."""

from datetime import UTC, datetime

from aios_platform.contracts.decisions import Decision, Verdict


def verdict(model, candidate="1", champion=None, decision=Decision.PROMOTE, **extra) -> Verdict:
    return Verdict(
        model=model,
        decision=decision,
        candidate_version=candidate,
        champion_version=champion,
        exam_digest="e" * 64,
        exam_windows=("2013-12",),
        rules=(),
        candidate_metrics={"roc_auc": 0.77},
        champion_metrics={},
        decided_at=datetime.now(UTC),
        **extra,
    )
