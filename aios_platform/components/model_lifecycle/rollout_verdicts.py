"""The gate's verdict that lets a candidate be rolled out, and the approval, where one is wanted."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from aios_platform.components.model_lifecycle.handoff import Candidate, Judged
from aios_platform.components.model_lifecycle.judging import judge, newest_exam
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.state import VERDICT
from aios_platform.contracts.decisions import Champion, Decision, Verdict
from aios_platform.contracts.rollouts import Rollout, RolloutState
from aios_platform.database import Database
from aios_platform.errors import RolloutError
from aios_platform.ledger.health import MOST_ROWS
from aios_platform.ledger.rollouts import begun_with

if TYPE_CHECKING:
    from aios_platform.resources.stores import Stores

CAUSE = "aios rollout"


def passed(
    names: Names, candidate: Candidate, live: Champion, stores: "Stores", as_of: datetime
) -> Judged:
    """The verdict that lets the candidate pass: on the ledger, or reached now.

    Raises:
        RolloutError: The gate does not let it pass, or its verdict was carried out before.
        StoreError: A store cannot be read.
        DatabaseUnavailable: A store does not answer.
    """
    found = _verdict(stores.database, names.model, candidate.version)
    if found is not None:
        row, verdict = found
        if (
            verdict.decision is Decision.PROMOTE
            and (verdict.champion_version, verdict.champion_digest)
            == (live.version, live.model_digest)
            and verdict.candidate_digest == candidate.model_digest
            and not _spent(stores.database, names.model, verdict)
        ):
            return Judged(verdict=verdict, candidate=candidate, ledger_row=row)
    exam = newest_exam(names, candidate, stores, as_of)
    judged = judge(names, candidate, exam, stores, cause=CAUSE).judged
    verdict = judged.verdict
    if verdict.decision is not Decision.PROMOTE or _spent(stores.database, names.model, verdict):
        why = (
            "; ".join(verdict.reasons)
            if verdict.decision is not Decision.PROMOTE
            else "this verdict was carried out before, and the champion was changed since"
        )
        raise RolloutError(
            f"Version {candidate.version} of {names.model} cannot be rolled out: the gate says "
            f"{verdict.decision} (row {judged.ledger_row}). {why}",
            remedy=f"`aios explain {judged.ledger_row}` has every rule; a shadow needs no verdict.",
        )
    return judged


def ask_approval(names: Names, judged: Judged, database: Database) -> tuple[int, RolloutState]:
    """The request for an approval, and whether the rollout waits for it.

    Raises:
        RolloutError: Somebody decided against the candidate.
    """
    from aios_platform.ledger import approvals

    asked = approvals.request(
        database,
        judged.verdict,
        author=judged.candidate.author,
        expires_at=datetime.now(UTC) + timedelta(days=names.declaration.gate.approval_days),
        candidate=judged.candidate.model_dump(mode="json"),
    )
    if asked.state not in ("pending", "approved"):
        raise RolloutError(
            f"Request {asked.ledger_row} about {names.model} version {asked.candidate_version} is "
            f"{asked.state}{f' by {asked.decided_by}' if asked.decided_by else ''}.",
            remedy="Roll out a version that nobody decided against.",
        )
    approved = asked.state == "approved"
    return asked.ledger_row, RolloutState.RUNNING if approved else RolloutState.PENDING


def judged_at_start(database: Database, rollout: Rollout) -> Judged:
    """The verdict and the candidate that the rollout began with."""
    from aios_platform.ledger.entries import entry

    beginning = begun_with(database, rollout)
    row = entry(database, int(beginning["verdict"]))
    return Judged(
        verdict=Verdict.model_validate(row.payload["verdict"]),
        candidate=Candidate.model_validate(beginning["candidate"]),
        ledger_row=row.seq,
    )


def refusal(database: Database, rollout: Rollout) -> str:
    """Why the newest verdict on the candidate does not let it pass any more; empty: it does."""
    found = _verdict(database, rollout.model, rollout.version)
    if found is None:
        return "No verdict on the candidate is on the ledger."
    row, verdict = found
    if verdict.decision is Decision.PROMOTE:
        return ""
    return f"The candidate was judged again: {verdict.decision} (row {row})."


def _verdict(database: Database, model: str, version: str) -> tuple[int, Verdict] | None:
    """The newest verdict on a version, with its row."""
    from aios_platform.ledger.entries import entries

    for row in entries(database, subject=model, kind=VERDICT, limit=MOST_ROWS):
        if row.payload["verdict"]["candidate_version"] == version:
            return row.seq, Verdict.model_validate(row.payload["verdict"])
    return None


def _spent(database: Database, model: str, verdict: Verdict) -> bool:
    from aios_platform.ledger.entries import entries

    promotions = entries(database, subject=model, kind="promotion", limit=MOST_ROWS)
    return any(verdict.evidence_digest in row.evidence for row in promotions)
