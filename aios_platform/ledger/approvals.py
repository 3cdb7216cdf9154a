"""Requests for approval, and the decisions on them: rows of the ledger, both.

A request's id is its row. A decision is bound to the evidence of the verdict it is about, counts
once, and is never the author's: the database refuses any other (`0002_guards.sql`), whatever the
program in front of it does. States are derived from the rows, so that none can be set.
"""

import secrets
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from aios_platform.contracts.decisions import ApprovalRequest, Decision, Verdict
from aios_platform.database import Database
from aios_platform.errors import AccessDenied, ApprovalError
from aios_platform.ledger.entries import append
from aios_platform.ledger.identity import Identity, identity, proof_of, stored_hash

PENDING, APPROVED, REJECTED, EXPIRED, VOID = "pending", "approved", "rejected", "expired", "void"
STATES = (PENDING, APPROVED, REJECTED, EXPIRED, VOID)
CODE_LIFE = timedelta(minutes=10)
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"

_REQUESTS = """
SELECT request.seq, request.subject, request.recorded_at, request.payload,
    decision.principal AS decided_by, decision.recorded_at AS decided_at,
    decision.payload AS decision,
    EXISTS (SELECT 1 FROM ledger WHERE subject = request.subject AND kind = 'promotion'
        AND seq > request.seq AND payload ->> 'approval' = request.seq::text) AS promoted,
    EXISTS (SELECT 1 FROM ledger WHERE subject = request.subject
        AND kind IN ('promotion', 'rollback') AND seq > request.seq
        AND payload ->> 'approval' IS DISTINCT FROM request.seq::text)
        OR EXISTS (SELECT 1 FROM ledger WHERE subject = request.subject
            AND kind = 'approval_void' AND payload ->> 'request' = request.seq::text)
        AS overtaken,
    (request.payload ->> 'expires_at')::timestamptz
        <= greatest(clock_timestamp(), (SELECT recorded_at FROM ledger_head)) AS expired
FROM ledger AS request LEFT JOIN ledger AS decision
    ON decision.kind = 'approval' AND decision.subject = request.subject
    AND decision.payload ->> 'request' = request.seq::text
WHERE request.kind = 'approval_request'
"""


def request(
    where: Connection | Database,
    verdict: Verdict,
    *,
    author: str,
    expires_at: datetime,
    candidate: Mapping[str, Any],
) -> ApprovalRequest:
    """Ask for the approval of a candidate that the gate would promote.

    Asking again about the same evidence gives the request that is there, also where it was
    decided; a new one is made only after it expired or became void.

    Args:
        where: The ledger, or a connection to it with an open transaction.
        verdict: The gate's verdict, which must be `promote`.
        author: Principal that trained the candidate; it may not decide.
        expires_at: An unanswered request is void from then on; real time, aware.
        candidate: What the promotion will need, JSON-able.

    Raises:
        ApprovalError: The verdict is not `promote`, nobody is named as author, or the request
            would be expired already.
    """
    if verdict.decision is not Decision.PROMOTE or not author:
        raise ApprovalError(
            f"An approval of {verdict.model} version {verdict.candidate_version} cannot be asked "
            f"for: the verdict is {verdict.decision}, the author '{author}'.",
            remedy="Only a candidate that the gate would promote, of a known author, is approved.",
        )
    if not expires_at > datetime.now(UTC):
        raise ApprovalError(
            f"The request would expire at {expires_at}, which is past.",
            remedy="Count gate.approval_days from now, not from the clock of a replay.",
        )
    digest = verdict.evidence_digest
    with _transaction(where) as connection:
        # The same lock as the swap's: what is asked and what is live do not change meanwhile.
        lock_champion(connection, verdict.model)
        same = [r for r in _select(connection, model=verdict.model) if r.evidence_digest == digest]
        if same and same[0].state not in (EXPIRED, VOID):
            return same[0]
        row = append(
            connection,
            kind="approval_request",
            subject=verdict.model,
            payload={
                "version": verdict.candidate_version,
                "author": author,
                "expires_at": expires_at.astimezone(UTC).isoformat(),
                "evidence_digest": digest,
                "verdict": verdict.model_dump(mode="json"),
                "candidate": dict(candidate),
            },
            key=f"approval_request:{verdict.model}:{digest}:{len(same)}",
            evidence=evidence_of(verdict),
        )
        return _one(connection, row)


def requests(
    database: Database, model: str | None = None, state: str | None = None
) -> list[ApprovalRequest]:
    """Requests, newest first.

    Args:
        database: Where the ledger lives.
        model: Only those about this model.
        state: Only those in this state, one of `STATES`.
    """
    with database.begin() as connection:
        found = _select(connection, model=model)
    return [r for r in found if state is None or r.state == state]


def request_of(database: Database, number: int) -> ApprovalRequest:
    """One request.

    Raises:
        ApprovalError: There is none of this number.
    """
    with database.begin() as connection:
        return _one(connection, number)


def decide(
    where: Connection | Database,
    number: int,
    *,
    approve: bool,
    reason: str,
    evidence_digest: str,
    code: str | None = None,
) -> ApprovalRequest:
    """Approve or reject, as who acts in this process, or as who issued a one-time code.

    Args:
        where: The ledger, or a connection to it with an open transaction.
        number: The request.
        approve: Or reject.
        reason: Why, for whoever reads the ledger later.
        evidence_digest: Of the verdict that the decider has seen.
        code: One-time code (`issue_code`), where the place of the decision knows no users.

    Raises:
        AccessDenied: The decider is no approver, or the code is not valid.
        ApprovalError: The decider is the author; the request was decided, expired or overtaken;
            the evidence is not that of the request; the reason is empty.
    """
    if not reason.strip():
        raise ApprovalError("A decision wants a reason.", remedy="Say why in a sentence.")
    with _transaction(where) as connection:
        asked = _one(connection, number)
        decider = identity(connection) if code is None else _redeem(connection, number, code)
        if asked.state == VOID:
            raise ApprovalError(
                f"Request {number} is void: the champion of {asked.model} changed since.",
                remedy="Run the gate again against the live champion.",
            )
        append(
            connection,
            kind="approval",
            subject=asked.model,
            payload={
                "request": number,
                "approve": approve,
                "reason": reason.strip(),
                "version": asked.candidate_version,
                "evidence_digest": evidence_digest,
                "by": "key" if code is None else "code",
            },
            # No key that repeats: a replayed decision is to be refused, not taken for the first.
            key=f"approval:{number}:{uuid.uuid4().hex}",
            evidence=[evidence_digest],
            principal=decider.name,
            proof=decider.proof,
        )
        return _one(connection, number)


def issue_code(database: Database, number: int) -> str:
    """A one-time code that lets its holder decide one request as the approver who issued it.

    For places that know no users, like Dagster's pages. It is valid for ten minutes and once; the
    database holds its hash only.

    Raises:
        AccessDenied: Who acts is no approver.
        ApprovalError: The request is not pending, or its author is who acts.
    """
    code = "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(5))
    with database.begin() as connection:
        who, asked = identity(connection), _one(connection, number)
        if not _holds(connection, who.name, "approver"):
            raise AccessDenied(
                f"{who.name} does not hold the role approver, which a code needs.",
                remedy="Set AIOS_API_KEY to the key of a principal that holds it.",
            )
        if asked.state != PENDING or _person(asked.author) == _person(who.name):
            raise ApprovalError(
                f"{who.name} may not decide request {number}: it is {asked.state}, its author is "
                f"{asked.author}.",
                remedy="Another approver decides; or run the gate again for a new request.",
            )
        append(
            connection,
            kind="approval_code",
            subject=asked.model,
            payload={"request": number},
            key=f"approval_code:{number}:{uuid.uuid4().hex}",
            evidence=[asked.evidence_digest],
        )
        connection.execute(
            text(
                "INSERT INTO approval_code (hash, request, approver, expires_at) "
                "VALUES (:hash, :request, :approver, clock_timestamp() + :life)"
            ),
            {
                "hash": stored_hash(proof_of(code)),
                "request": number,
                "approver": who.name,
                "life": CODE_LIFE,
            },
        )
    return code


def redeem_code(where: Connection | Database, number: int, code: str) -> str:
    """Use up a one-time code; returns the principal it stands for.

    Raises:
        AccessDenied: It is wrong, used, expired, or another request's.
    """
    with _transaction(where) as connection:
        return _redeem(connection, number, code).name


def evidence_of(verdict: Verdict) -> list[str]:
    """Digests of what a verdict rests on; the first is that of the whole."""
    parts = (verdict.exam_digest, verdict.candidate_digest, verdict.champion_digest)
    return [verdict.evidence_digest, *(part for part in parts if part)]


def lock_champion(connection: Connection, model: str) -> None:
    """Let nobody else swap the model's champion until this transaction ends."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('champion ' || :model, 0))"),
        {"model": model},
    )


def approved(connection: Connection, number: int, verdict: Verdict) -> None:
    """Refuse unless the request is approved, for exactly this verdict.

    Raises:
        ApprovalError: It is not.
    """
    asked = _one(connection, number)
    if asked.state != APPROVED or asked.evidence_digest != verdict.evidence_digest:
        about = "" if asked.evidence_digest == verdict.evidence_digest else ", about other evidence"
        raise ApprovalError(
            f"Request {number} does not allow the promotion of {verdict.model} version "
            f"{verdict.candidate_version}: it is {asked.state}{about}.",
            remedy=f"`aios approvals show {number}` has its state; new evidence is a new request.",
        )


def _redeem(connection: Connection, number: int, code: str) -> Identity:
    proof = proof_of(code.strip().upper())
    approver = connection.execute(
        text(
            "UPDATE approval_code SET used_at = clock_timestamp() WHERE hash = :hash "
            "AND request = :request AND used_at IS NULL AND expires_at > clock_timestamp() "
            "RETURNING approver"
        ),
        {"hash": stored_hash(proof), "request": number},
    ).scalar()
    if approver is None:
        raise AccessDenied(
            f"The code is not valid for request {number}: wrong, used, or older than ten minutes.",
            remedy=f"An approver issues a fresh one: `aios approvals code {number}`.",
        )
    return Identity(str(approver), proof)


def _holds(connection: Connection, name: str, role: str) -> bool:
    return bool(
        connection.execute(
            text("SELECT holds_role(:name, :role)"), {"name": name, "role": role}
        ).scalar()
    )


def _person(principal: str) -> str:
    return principal.removeprefix("user:")


def _one(connection: Connection, number: int) -> ApprovalRequest:
    found = _select(connection, number=number)
    if not found:
        raise ApprovalError(
            f"There is no request {number}.", remedy="`aios approvals list` shows the requests."
        )
    return found[0]


def _select(
    connection: Connection, *, model: str | None = None, number: int | None = None
) -> list[ApprovalRequest]:
    rows = connection.execute(
        text(
            _REQUESTS + "AND (CAST(:model AS text) IS NULL OR request.subject = :model) "
            "AND (CAST(:number AS bigint) IS NULL OR request.seq = :number) "
            "ORDER BY request.seq DESC"
        ),
        {"model": model, "number": number},
    ).mappings()
    return [_request(row) for row in rows]


def _request(row: Mapping[Any, Any]) -> ApprovalRequest:
    asked, decision = row["payload"], row["decision"] or {}
    if row["promoted"]:
        state = APPROVED
    elif decision and not decision["approve"]:
        state = REJECTED
    elif row["overtaken"]:
        state = VOID
    elif decision:
        state = APPROVED
    else:
        state = EXPIRED if row["expired"] else PENDING
    return ApprovalRequest(
        ledger_row=row["seq"],
        model=row["subject"],
        candidate_version=asked["version"],
        author=asked["author"],
        evidence_digest=asked["evidence_digest"],
        requested_at=row["recorded_at"],
        expires_at=asked["expires_at"],
        state=state,
        decided_by=row["decided_by"] or "",
        decided_at=row["decided_at"],
        reason=decision.get("reason", ""),
        promoted=row["promoted"],
        verdict=asked["verdict"],
        candidate=asked["candidate"],
    )


@contextmanager
def _transaction(where: Connection | Database) -> Iterator[Connection]:
    if isinstance(where, Database):
        with where.begin() as connection:
            yield connection
    else:
        yield where
