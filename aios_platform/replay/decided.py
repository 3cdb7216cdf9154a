"""What the ledger says was decided in a replay, by the window it was about."""

from collections.abc import Iterable

from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.state import VERDICT
from aios_platform.contracts.decisions import RetrainDecision, Verdict
from aios_platform.contracts.replays import DecisionSummary, TrainingSummary
from aios_platform.ledger.entries import LedgerEntry
from aios_platform.ledger.health import RETRAIN_DECISION
from aios_platform.metrics import gain
from aios_platform.replay.progress import Progress

MOST_ROWS = 100_000


def decisions_by_window(rows: Iterable[LedgerEntry]) -> dict[str, DecisionSummary]:
    """The decision on each window that counted: the first, or the last one that asks to train.

    Args:
        rows: Of the ledger, newest first.
    """
    found: dict[str, DecisionSummary] = {}
    for row in rows:
        if row.kind != RETRAIN_DECISION:
            continue
        decision = RetrainDecision.model_validate(row.payload["decision"])
        kept = found.get(decision.window)
        if kept is None or kept.action != "retrain":
            found[decision.window] = DecisionSummary(
                action=str(decision.action),
                cause=decision.cause,
                reason=decision.reason,
                ledger_row=row.seq,
            )
    return found


def trainings_by_window(
    names: Names, rows: list[LedgerEntry], progress: Progress
) -> dict[str, tuple[TrainingSummary, ...]]:
    """Every training with its verdict, by the window whose labels led to it, oldest first.

    Args:
        names: The model.
        rows: Of the ledger, newest first.
        progress: The replay, which knows its runs.
    """
    promoted = {str(row.payload["champion"]["version"]) for row in rows if row.kind == "promotion"}
    through = {
        str(row.payload["version"]): str(row.payload["windows"][-1])
        for row in rows
        if row.kind == "candidate"
    }
    runs = {run.cause: run for run in progress.runs}
    metric = names.declaration.gate.metric
    found: dict[str, tuple[TrainingSummary, ...]] = {}
    for row in reversed(rows):
        if row.kind != VERDICT:
            continue
        verdict = Verdict.model_validate(row.payload["verdict"])
        run = runs.get(str(row.payload["cause"]))
        if run is None:
            continue
        version = verdict.candidate_version
        summary = TrainingSummary(
            cause=run.cause,
            version=version,
            trained_through=through.get(version, ""),
            exam=verdict.exam_windows,
            verdict=str(verdict.decision),
            reasons=verdict.reasons,
            promoted=version in promoted,
            helped=_helped(verdict, metric, promoted=version in promoted),
            seconds=run.training_seconds,
            ledger_row=row.seq,
        )
        found[run.window] = (*found.get(run.window, ()), summary)
    return found


def _helped(verdict: Verdict, metric: str, *, promoted: bool) -> bool | None:
    if verdict.champion_version is None:
        return None
    own, other = verdict.candidate_metrics.get(metric), verdict.champion_metrics.get(metric)
    return promoted and own is not None and other is not None and gain(metric, own, other) > 0
