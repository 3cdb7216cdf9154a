"""The live version of each model, swapped by compare-and-swap in one transaction."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, text

from aios_platform.contracts.decisions import Champion, Decision, Verdict
from aios_platform.contracts.record import canonical_json
from aios_platform.database import Database
from aios_platform.errors import ChampionConflict, PromotionError
from aios_platform.ledger.entries import append


def champion_of(database: Database, model: str) -> Champion | None:
    """The model's champion; None only when the ledger was read and holds none.

    Raises:
        DatabaseUnavailable: The ledger cannot be read. That is never "no champion".
    """
    with database.begin() as connection:
        return _read(connection, model)


def promote(
    database: Database,
    verdict: Verdict,
    *,
    model_digest: str,
    run_id: str,
    training_set_digest: str,
    trained_through: str,
) -> Champion:
    """Make the candidate of a verdict the champion, if the champion is still the one it beat.

    The swap and its ledger row are one transaction. Repeating a promotion that already happened
    returns the champion it made.

    Args:
        database: Where the ledger lives.
        verdict: The gate's verdict; its decision must be `promote`. The champion it was reached
            against (None for the first) is the one the swap expects to find.
        model_digest: SHA-256 of the candidate's ONNX bytes.
        run_id: MLflow run that trained the candidate.
        training_set_digest: Digest of the rows it was trained on.
        trained_through: Key of the last window it was trained on.

    Raises:
        PromotionError: The verdict is not `promote`.
        ChampionConflict: Another promotion came in between; nothing changed.
        DatabaseUnavailable: The ledger cannot be written; nothing changed.
    """
    if verdict.decision is not Decision.PROMOTE:
        raise PromotionError(
            f"{verdict.model} version {verdict.candidate_version} cannot be promoted: "
            f"the verdict is {verdict.decision}.",
            remedy="Train a better candidate; a verdict is not overridden.",
        )
    expected = verdict.champion_version
    with database.begin() as connection:
        live = _read(connection, verdict.model)
        if live is not None and live.version == verdict.candidate_version:
            return live
        successor = Champion(
            model=verdict.model,
            version=verdict.candidate_version,
            model_digest=model_digest,
            run_id=run_id,
            training_set_digest=training_set_digest,
            trained_through=trained_through,
            baseline=verdict.baseline,
            promoted_at=datetime.now(UTC),
            revision=(live.revision if live else 0) + 1,
        )
        found = live.version if live else None
        if found != expected or not _swap(connection, successor, live):
            raise ChampionConflict(
                f"The champion of {verdict.model} is no longer version {expected}, against which "
                f"version {verdict.candidate_version} was judged: somebody promoted in between.",
                remedy="Run the gate again against the live champion.",
            )
        append(
            connection,
            kind="promotion",
            subject=verdict.model,
            payload={
                "champion": successor.model_dump(mode="json"),
                "previous": expected,
                "verdict": verdict.model_dump(mode="json"),
            },
            key=f"promotion:{verdict.model}:{successor.revision}",
        )
    return successor


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
