"""Carries a verdict out: the swap, or the request for an approval, or nothing.

The asset `champion`, the approvals' sensor and `aios promote` all end here.
"""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from aios_platform.components.model_lifecycle.alias import reconcile
from aios_platform.components.model_lifecycle.handoff import Judged
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.packaging import ensure_package
from aios_platform.components.model_lifecycle.state import VERDICT, VOID, void_requests
from aios_platform.contracts.decisions import ApprovalRequest, Champion, Decision, Verdict
from aios_platform.contracts.packages import ServingPackage
from aios_platform.contracts.policy import Approval
from aios_platform.contracts.record import Record
from aios_platform.database import Database
from aios_platform.errors import (
    ApprovalError,
    ArtifactCorrupt,
    ArtifactMissing,
    ChampionConflict,
    DatabaseUnavailable,
    RegistryError,
)
from aios_platform.ledger.health import MOST_ROWS

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from aios_platform.resources.stores import Stores


class Status(StrEnum):
    """What became of a verdict."""

    PROMOTED = "promoted"
    PENDING = "pending"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"
    VOID = "void"


class CarriedOut(Record):
    """What became of a verdict, and why."""

    status: Status
    message: str
    champion: Champion | None = None
    package: ServingPackage | None = None
    request: ApprovalRequest | None = None


def carry_out(
    names: Names, judged: Judged, stores: "Stores", *, as_of: datetime | None = None
) -> CarriedOut:
    """Promote the candidate, ask for an approval, or leave the champion alone.

    Safe to repeat after a kill at any point: one champion, one promotion row, one request.

    Args:
        names: The model.
        judged: The verdict and its candidate.
        stores: Where everything is.
        as_of: The lifecycle's clock, from which on a promoted version is live; unset, now.

    Raises:
        ChampionConflict: Somebody promoted since the verdict.
        AccessDenied: Who acts may not promote.
        StoreError: Its serving package cannot be built or kept; the champion stays.
        DatabaseUnavailable: The ledger or MLflow does not answer; the champion stays, or the same
            call finishes what was begun.
    """
    from aios_platform.ledger import approvals

    verdict, candidate = judged.verdict, judged.candidate
    if verdict.decision is not Decision.PROMOTE:
        rejected = verdict.decision is Decision.REJECT
        return CarriedOut(
            status=Status.REJECTED if rejected else Status.INCONCLUSIVE,
            message="The champion stays: " + "; ".join(verdict.reasons),
        )
    if not asks_a_person(names, verdict):
        return _promote(names, judged, stores, approval=None, as_of=as_of)
    days = names.declaration.gate.approval_days
    request = approvals.request(
        stores.database,
        verdict,
        author=candidate.author,
        expires_at=datetime.now(UTC) + timedelta(days=days),
        candidate=candidate.model_dump(mode="json"),
    )
    if request.state == "approved":
        return complete(names, request.ledger_row, stores)
    return pending(request)


def pending(request: ApprovalRequest) -> CarriedOut:
    """The answer for a request that waits, or that was decided against."""
    number = request.ledger_row
    if request.state == "pending":
        return CarriedOut(
            status=Status.PENDING,
            message=f"Waits for an approver other than {request.author}, until "
            f"{request.expires_at:%Y-%m-%d %H:%M} UTC: `aios approvals show {number}`, then "
            f"`aios approvals approve {number} --reason ...`, or reject.",
            request=request,
        )
    by = f" by {request.decided_by}: {request.reason}" if request.decided_by else ""
    return CarriedOut(
        status=Status.REJECTED,
        message=f"Request {number} is {request.state}{by}. The champion stays.",
        request=request,
    )


def complete(names: Names, request_id: int, stores: "Stores") -> CarriedOut:
    """Carry out an approved request, if what was approved still is what would be promoted.

    An approval is void when the candidate was judged again since, when its bytes or its verdict
    are not those that were approved, or when another champion was made in between. That is
    written to the ledger once; the request is then never looked at again.

    Raises:
        ApprovalError: The request is not approved.
        StoreError: Its serving package cannot be built or kept; the champion stays.
        DatabaseUnavailable: A store does not answer.
    """
    from aios_platform.ledger import approvals

    request = approvals.request_of(stores.database, request_id)
    if request_id in void_requests(stores.database, names.model):
        return _voided(request, "that was found before")
    if request.state != "approved":
        raise ApprovalError(
            f"Request {request_id} of {request.model} is {request.state}, not approved.",
            remedy="An approver decides: `aios approvals list`.",
        )
    judged = _approved(names, request, stores)
    if isinstance(judged, str):
        return _void(request, judged, stores.database)
    try:
        return _promote(names, judged, stores, approval=request_id)
    except ChampionConflict as conflict:
        return _void(request, conflict.what, stores.database)


def asks_a_person(names: Names, verdict: Verdict) -> bool:
    """Whether the declaration wants a human to approve what this verdict lets pass."""
    gate = names.declaration.gate
    first = gate.bootstrap.approval if verdict.champion_version is None else None
    return (first or gate.approval) is Approval.HUMAN


def _promote(
    names: Names,
    judged: Judged,
    stores: "Stores",
    approval: int | None,
    as_of: datetime | None = None,
) -> CarriedOut:
    from aios_platform.ledger.champions import promote

    candidate = judged.candidate
    # Before the swap: the gateway takes a version up within seconds of it.
    package = ensure_package(
        names, stores.artifacts, candidate.model_digest, candidate.training_set
    )
    live = promote(
        stores.database,
        judged.verdict,
        model_digest=candidate.model_digest,
        run_id=candidate.run_id,
        training_set_digest=candidate.training_set_digest,
        trained_through=candidate.trained_through,
        approval=approval,
        live_from=as_of,
    )
    return CarriedOut(
        status=Status.PROMOTED,
        message=f"Version {live.version} is live.{follow(names.model, stores)}",
        champion=live,
        package=package,
    )


def follow(model: str, stores: "Stores") -> str:
    """Let the alias follow a swap that is done; what goes wrong undoes nothing.

    Returns:
        What to add to the message: empty when the alias is in step.
    """
    try:
        report = reconcile(model, stores.database, stores.registry)
    except (DatabaseUnavailable, RegistryError) as error:
        return f" MLflow's alias follows later (the reconcile sensor): {error.what}"
    return f" {report.message}" if report.alarming else ""


def _approved(names: Names, request: ApprovalRequest, stores: "Stores") -> Judged | str:
    """The judged candidate that was approved, or why it is not what would be promoted."""
    from aios_platform.components.model_lifecycle.handoff import Candidate
    from aios_platform.ledger.entries import entries

    candidate = Candidate.model_validate(request.candidate)
    rows = [
        row
        for row in entries(stores.database, subject=names.model, kind=VERDICT, limit=MOST_ROWS)
        if row.payload["verdict"]["candidate_version"] == request.candidate_version
    ]
    if not rows:
        return "no verdict on this version is on the ledger"
    verdict = Verdict.model_validate(rows[0].payload["verdict"])
    if verdict.evidence_digest != request.evidence_digest:
        return f"the version was judged again (row {rows[0].seq}) on other evidence"
    if verdict.candidate_digest != candidate.model_digest:
        return "the candidate's bytes are not those that were judged"
    try:
        stores.artifacts.get(candidate.model_digest, ".onnx")
    except (ArtifactMissing, ArtifactCorrupt) as error:
        return error.what
    return Judged(verdict=verdict, candidate=candidate, ledger_row=rows[0].seq)


def write_void(connection: "Connection", request: ApprovalRequest, why: str) -> None:
    """Write once that an approval does not count any more, inside the caller's transaction."""
    from aios_platform.ledger.entries import append

    append(
        connection,
        kind=VOID,
        subject=request.model,
        payload={"request": request.ledger_row, "why": why},
        key=f"{VOID}:{request.ledger_row}",
        evidence=[request.evidence_digest],
    )


def _void(request: ApprovalRequest, why: str, database: Database) -> CarriedOut:
    with database.begin() as connection:
        write_void(connection, request, why)
    return _voided(request, why)


def _voided(request: ApprovalRequest, why: str) -> CarriedOut:
    return CarriedOut(
        status=Status.VOID,
        message=f"The approval of request {request.ledger_row} is void: {why}. "
        "Run the gate again; that makes a new request.",
        request=request,
    )
