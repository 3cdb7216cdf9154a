"""Approvals: the job in Dagster's pages, and what happens to requests that nobody answered."""

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from aios_platform.components.model_lifecycle.liveness import living_executor
from aios_platform.components.model_lifecycle.names import MODEL_TAG, Names
from aios_platform.errors import ApprovalError

if TYPE_CHECKING:
    from aios_platform.contracts.decisions import ApprovalRequest
    from aios_platform.database import Database

EXPIRED = "approval_expired"


class Decide(dg.Config):
    """What an approver fills in. The code says who it is: Dagster's pages know no users."""

    request: int = Field(description="Number of the request; `aios approvals list` shows them.")
    decision: str = Field(description="approve, or reject.")
    reason: str = Field(description="Why; goes into the ledger.")
    code: str = Field(description="One-time code of the approver: `aios approvals code REQUEST`.")


def approval_job(names: Names) -> dg.JobDefinition:
    """`<model>__approval`: approve or reject a pending request from Dagster's pages."""

    @dg.op(name=names.job("decide"), description="Writes the decision to the ledger.")
    def decide_request(
        context: dg.OpExecutionContext, config: Decide, ledger: dg.ResourceParam[object]
    ) -> None:
        request = decide_by_code(
            ledger.open(),  # type: ignore[attr-defined]
            names.model,
            config.request,
            decision=config.decision,
            reason=config.reason,
            code=config.code,
        )
        context.log.info(
            f"Request {request.ledger_row} is {request.state} by {request.decided_by}. An "
            "approved promotion is carried out by the sensor within a minute."
        )
        context.add_output_metadata(
            {"request": request.ledger_row, "state": request.state, "by": request.decided_by}
        )

    @dg.job(
        name=names.job("approval"),
        description="Approve or reject a promotion that waits for a person. Take a one-time code "
        "with `aios approvals code REQUEST`, and fill in the launchpad.",
        tags={MODEL_TAG: names.model},
        executor_def=living_executor,
    )
    def approval() -> None:
        decide_request()

    return approval


def decide_by_code(
    database: "Database", model: str, request: int, *, decision: str, reason: str, code: str
) -> "ApprovalRequest":
    """Decide in the name of the approver whose one-time code this is.

    Raises:
        ApprovalError: The decision is neither word, the request is another model's, or the ledger
            refused it (by its author, replayed, expired, other evidence).
        AccessDenied: The code is unknown, used, expired, or of another request.
    """
    from aios_platform.ledger import approvals

    if decision not in ("approve", "reject"):
        raise ApprovalError(
            f"'{decision}' is no decision.", remedy="Fill in 'approve' or 'reject'."
        )
    found = approvals.request_of(database, request)
    if found.model != model:
        raise ApprovalError(
            f"Request {request} is about {found.model}, not {model}.",
            remedy=f"Launch {found.model}__approval instead.",
        )
    return approvals.decide(
        database,
        request,
        approve=decision == "approve",
        reason=reason,
        evidence_digest=found.evidence_digest,
        code=code,
    )


def note_expired(model: str, database: "Database") -> int:
    """Write a row for each request whose time ran out; returns how many are new."""
    from aios_platform.ledger import approvals
    from aios_platform.ledger.entries import append, entries

    expired = approvals.requests(database, model=model, state="expired")
    if not expired:
        return 0
    noted = {
        row.payload["request"] for row in entries(database, subject=model, kind=EXPIRED, limit=1000)
    }
    new = [request for request in expired if request.ledger_row not in noted]
    for request in new:
        with database.begin() as connection:
            append(
                connection,
                kind=EXPIRED,
                subject=model,
                payload={
                    "request": request.ledger_row,
                    "candidate_version": request.candidate_version,
                    "expires_at": request.expires_at.isoformat(),
                },
                key=f"{EXPIRED}:{request.ledger_row}",
                evidence=[request.evidence_digest],
            )
    return len(new)
