"""`aios promote` without Dagster: the gate and the swap for a registered version."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from aios_platform.components.model_lifecycle.candidates import candidate_of
from aios_platform.components.model_lifecycle.carrying_out import (
    CarriedOut,
    Status,
    carry_out,
    complete,
    follow,
    pending,
)
from aios_platform.components.model_lifecycle.judging import Judgement, judge, newest_exam
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.state import void_requests
from aios_platform.contracts.decisions import ApprovalRequest, Champion, Decision, Verdict
from aios_platform.database import Database

if TYPE_CHECKING:
    from aios_platform.resources.stores import Stores

CAUSE = "aios promote"


@dataclass(frozen=True)
class Promotion:
    """What `aios promote` came to.

    Attributes:
        carried: What became of it.
        verdict: The verdict it rests on; None: the version was live already.
        row: The verdict's row in the ledger; None: none was written.
        card: The model card, Markdown; empty where the gate did not run.
        dry_run: Whether nothing was written.
    """

    carried: CarriedOut
    verdict: Verdict | None = None
    row: int | None = None
    card: str = ""
    dry_run: bool = False


def promote_version(
    names: Names, version: str, stores: "Stores", as_of: datetime, *, dry_run: bool = False
) -> Promotion:
    """Judge a registered version on the newest exam, and carry the verdict out.

    Safe to repeat: the live champion is left alone, and a request that waits is not made twice.

    Args:
        names: The model.
        version: Registered version.
        stores: Where everything is.
        as_of: The clock: windows that matured later are not looked at.
        dry_run: Judge, and write nothing.

    Raises:
        RegistryError: There is no such version, or MLflow refused.
        PromotionError: The ledger does not know the version.
        ChampionConflict: Somebody promoted since the verdict.
        AccessDenied: Who acts may not promote.
        StoreError: A store cannot be read.
        DatabaseUnavailable: Postgres does not answer; the champion stays.
    """
    from aios_platform.ledger.champions import champion_of

    live = champion_of(stores.database, names.model)
    if live is not None and live.version == version:
        message = f"Version {version} is live already.{follow(names.model, stores)}"
        return Promotion(CarriedOut(status=Status.PROMOTED, message=message, champion=live))
    asked = None if dry_run else _asked(stores.database, names.model, version, live)
    if asked is not None:
        approved = asked.state == "approved"
        carried = complete(names, asked.ledger_row, stores) if approved else pending(asked)
        return Promotion(carried, asked.verdict)
    candidate = candidate_of(names, version, stores)
    judgement = judge(
        names,
        candidate,
        newest_exam(names, candidate, stores, as_of),
        stores,
        cause=CAUSE,
        record=not dry_run,
    )
    verdict = judgement.judged.verdict
    if dry_run:
        return Promotion(_would(judgement), verdict, card=judgement.card, dry_run=True)
    carried = carry_out(names, judgement.judged, stores)
    return Promotion(carried, verdict, judgement.judged.ledger_row, judgement.card)


def _asked(
    database: Database, model: str, version: str, live: Champion | None
) -> ApprovalRequest | None:
    """The open request about this version against the live champion."""
    from aios_platform.ledger.approvals import requests

    void = void_requests(database, model)
    for request in requests(database, model=model):
        if (
            request.candidate_version == version
            and request.state in ("pending", "approved")
            and not request.promoted
            and request.ledger_row not in void
            and request.verdict is not None
            and request.verdict.champion_version == (live.version if live else None)
        ):
            return request
    return None


def _would(judgement: Judgement) -> CarriedOut:
    verdict = judgement.judged.verdict
    status = {
        Decision.PROMOTE: Status.PROMOTED,
        Decision.REJECT: Status.REJECTED,
        Decision.INCONCLUSIVE: Status.INCONCLUSIVE,
    }[verdict.decision]
    return CarriedOut(
        status=status, message="Dry run, nothing was written: " + "; ".join(verdict.reasons)
    )
