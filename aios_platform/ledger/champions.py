"""The live version of each model, swapped by compare-and-swap in one transaction."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, text

from aios_platform.contracts.decisions import Champion, Decision, Verdict
from aios_platform.contracts.record import canonical_json
from aios_platform.database import Database
from aios_platform.errors import ChampionConflict, PromotionError
from aios_platform.ledger.approvals import approved, evidence_of, lock_champion
from aios_platform.ledger.entries import LedgerEntry, append, select

# More swaps than a model sees in its life.
MOST_SWAPS = 10_000


def champion_of(database: Database, model: str) -> Champion | None:
    """The model's champion; None only when the ledger was read and holds none.

    Raises:
        DatabaseUnavailable: The ledger cannot be read. That is never "no champion".
    """
    with database.begin() as connection:
        return _read(connection, model)


def champions(database: Database) -> dict[str, Champion]:
    """The champion of every model that has one, by model.

    Raises:
        DatabaseUnavailable: The ledger cannot be read. That is never "no champions".
    """
    with database.begin() as connection:
        records = connection.execute(text("SELECT record FROM champion")).scalars()
        found = [Champion.model_validate(record) for record in records]
    return {champion.model: champion for champion in found}


def promote(
    database: Database,
    verdict: Verdict,
    *,
    model_digest: str,
    run_id: str,
    training_set_digest: str,
    trained_through: str,
    approval: int | None = None,
    live_from: datetime | None = None,
) -> Champion:
    """Make the candidate of a verdict the champion, if the champion is still the one it beat.

    The swap and its ledger row are one transaction. Repeating a promotion that already happened
    returns the champion it made; a verdict that was carried out and then rolled back is spent.

    Args:
        database: Where the ledger lives.
        verdict: The gate's verdict; its decision must be `promote`. The champion it was reached
            against (None for the first) is the one the swap expects to find.
        model_digest: SHA-256 of the candidate's ONNX bytes.
        run_id: MLflow run that trained the candidate.
        training_set_digest: Digest of the rows it was trained on.
        trained_through: Key of the last window it was trained on.
        approval: Request (`ledger.approvals`) that was approved for this verdict.
        live_from: The lifecycle's clock, aware, which a replay has in the past; unset, now.

    Raises:
        PromotionError: The verdict is not `promote`, is about other bytes, or was carried out
            before.
        ApprovalError: An approval was asked for, and is not there.
        AccessDenied: Who acts may not promote.
        ChampionConflict: Another promotion came in between; nothing changed.
        DatabaseUnavailable: The ledger cannot be written; nothing changed.
    """
    if verdict.decision is not Decision.PROMOTE:
        raise PromotionError(
            f"{verdict.model} version {verdict.candidate_version} cannot be promoted: "
            f"the verdict is {verdict.decision}.",
            remedy="Train a better candidate; a verdict is not overridden.",
        )
    if verdict.candidate_digest and verdict.candidate_digest != model_digest:
        raise PromotionError(
            f"The verdict on {verdict.model} version {verdict.candidate_version} is about the "
            f"model {verdict.candidate_digest[:12]}, not about {model_digest[:12]}.",
            remedy="Run the gate again on the bytes that are to go live.",
        )
    expected = verdict.champion_version
    with database.begin() as connection:
        lock_champion(connection, verdict.model)
        live = _read(connection, verdict.model)
        if live is not None and live.version == verdict.candidate_version:
            return live
        if (live.version if live else None) != expected:
            raise _conflict(verdict.model, expected, f"version {verdict.candidate_version}")
        _refuse_spent(connection, verdict)
        if approval is not None:
            approved(connection, approval, verdict)
        successor = Champion(
            model=verdict.model,
            version=verdict.candidate_version,
            model_digest=model_digest,
            run_id=run_id,
            training_set_digest=training_set_digest,
            trained_through=trained_through,
            baseline=verdict.baseline,
            promoted_at=datetime.now(UTC),
            live_from=live_from or datetime.now(UTC),
            revision=(live.revision if live else 0) + 1,
        )
        append(
            connection,
            kind="promotion",
            subject=verdict.model,
            payload={
                "champion": successor.model_dump(mode="json"),
                "previous": expected,
                "verdict": verdict.model_dump(mode="json"),
                "approval": approval,
            },
            key=f"promotion:{verdict.model}:{successor.revision}",
            evidence=[*evidence_of(verdict), model_digest, training_set_digest],
        )
        if not _swap(connection, successor, live):
            raise _conflict(verdict.model, expected, f"version {verdict.candidate_version}")
    return successor


def roll_back(
    database: Database, model: str, *, to: Champion, expected: str, reason: str
) -> Champion:
    """Make an earlier champion live again, if the champion is still the expected one.

    Args:
        database: Where the ledger lives.
        model: The model.
        to: The earlier champion, as `history` has it.
        expected: Version that is to be taken back.
        reason: Why, for whoever reads the ledger later.

    Returns:
        The champion: `to`, with a revision of its own. Repeating a rollback that already happened
        returns what it made.

    Raises:
        PromotionError: `to` was never champion, or the reason is empty.
        AccessDenied: Who acts is no operator.
        ChampionConflict: The champion is another; nothing changed.
        DatabaseUnavailable: The ledger cannot be written; nothing changed.
    """
    if not reason.strip() or to.version == expected:
        raise PromotionError(
            f"{model} cannot be rolled back from version {expected} to version {to.version}"
            f"{'' if reason.strip() else ' without a reason'}.",
            remedy="Say why, and name an earlier version than the live one.",
        )
    with database.begin() as connection:
        lock_champion(connection, model)
        past = [row.payload["champion"] for row in _swaps(connection, model)]
        known = [(c["version"], c["model_digest"]) for c in past]
        if (to.version, to.model_digest) not in known or to.model != model:
            raise PromotionError(
                f"Version {to.version} ({to.model_digest[:12]}) was never champion of {model}.",
                remedy=f"`aios ledger show {model} --kind promotion` lists those that were.",
            )
        live = _read(connection, model)
        if live is not None and live.version == to.version:
            return live
        if live is None or live.version != expected:
            raise _conflict(model, expected, f"the rollback to version {to.version}")
        now = datetime.now(UTC)
        successor = to.model_copy(
            update={"revision": live.revision + 1, "promoted_at": now, "live_from": now}
        )
        append(
            connection,
            kind="rollback",
            subject=model,
            payload={
                "champion": successor.model_dump(mode="json"),
                "previous": expected,
                "reason": reason.strip(),
            },
            key=f"promotion:{model}:{successor.revision}",
            evidence=[successor.model_digest],
        )
        if not _swap(connection, successor, live):
            raise _conflict(model, expected, f"the rollback to version {to.version}")
    return successor


def history(database: Database, model: str) -> list[Champion]:
    """Every champion the model had, as its promotion or rollback made it, newest first.

    Raises:
        DatabaseUnavailable: The ledger cannot be read.
    """
    with database.begin() as connection:
        return [
            Champion.model_validate(row.payload["champion"]) for row in _swaps(connection, model)
        ]


def _swaps(connection: Connection, model: str) -> list[LedgerEntry]:
    rows = [
        row
        for kind in ("promotion", "rollback")
        for row in select(connection, subject=model, kind=kind, limit=MOST_SWAPS)
    ]
    return sorted(rows, key=lambda row: row.seq, reverse=True)


def _conflict(model: str, expected: str | None, what: str) -> ChampionConflict:
    return ChampionConflict(
        f"The champion of {model} is no longer version {expected}, against which {what} was "
        "decided: somebody promoted in between.",
        remedy="Run the gate again against the live champion.",
    )


def _refuse_spent(connection: Connection, verdict: Verdict) -> None:
    spent = connection.execute(
        text(
            "SELECT max(seq) FROM ledger WHERE subject = :model AND kind = 'promotion' "
            "AND :digest = ANY (evidence)"
        ),
        {"model": verdict.model, "digest": verdict.evidence_digest},
    ).scalar()
    if spent is not None:
        raise PromotionError(
            f"The verdict on {verdict.model} version {verdict.candidate_version} was carried out "
            f"in row {spent} of the ledger, and the champion was changed since.",
            remedy="Run the gate again; a verdict counts once.",
        )


def _read(connection: Connection, model: str) -> Champion | None:
    record: Any = connection.execute(
        text("SELECT record FROM champion WHERE model = :model"), {"model": model}
    ).scalar()
    return None if record is None else Champion.model_validate(record)


def _swap(connection: Connection, successor: Champion, live: Champion | None) -> bool:
    values = {
        "model": successor.model,
        "revision": successor.revision,
        "version": successor.version,
        "record": canonical_json(successor.model_dump(mode="json")),
    }
    if live is None:
        statement = text(
            "INSERT INTO champion (model, revision, version, record) "
            "VALUES (:model, :revision, :version, CAST(:record AS jsonb)) "
            "ON CONFLICT (model) DO NOTHING"
        )
    else:
        values["expected"] = live.revision
        statement = text(
            "UPDATE champion SET revision = :revision, version = :version, "
            "record = CAST(:record AS jsonb) WHERE model = :model AND revision = :expected"
        )
    return connection.execute(statement, values).rowcount == 1
