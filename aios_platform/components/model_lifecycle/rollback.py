"""Rolling back: to the last version that the ledger knows to have been healthy, in one step."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aios_platform.components.model_lifecycle.carrying_out import follow
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.decisions import Champion
from aios_platform.database import Database
from aios_platform.errors import ChampionConflict, PromotionError, ScoringError
from aios_platform.features.pinned_sets import recall
from aios_platform.ledger.health import ROLLBACK, healthy

if TYPE_CHECKING:
    import pyarrow as pa

    from aios_platform.artifacts import ArtifactStore
    from aios_platform.resources.stores import Stores

logger = logging.getLogger(__name__)

SAMPLE_ROWS = 500


@dataclass(frozen=True)
class RolledBack:
    """What a rollback did.

    Attributes:
        champion: The version that is live now.
        left: The version that was live before; None: this rollback had happened already.
        rows: Rows of the newest frame that it was tried on.
        message: For people.
    """

    champion: Champion
    left: str | None
    rows: int
    message: str


def roll_back(
    names: Names,
    stores: "Stores",
    *,
    reason: str,
    to: str | None = None,
    expected: int | None = None,
) -> RolledBack:
    """Make an earlier champion live again.

    Repeating the call with the same reason after a kill finishes what was begun, and does not go
    back a second step.

    Args:
        names: The model.
        stores: Where everything is.
        reason: Why; goes into the ledger.
        to: Version to go back to; None: the newest healthy one.
        expected: Revision of the champion that is to be taken back; None: whichever is live.

    Raises:
        AccessDenied: Who acts is no operator.
        PromotionError: There is nothing healthy to go back to, or not to that version.
        StoreError: Its bytes are gone or damaged.
        ScoringError: It cannot score today's rows, or its feature service has changed.
        ChampionConflict: Somebody changed the champion in between.
        DatabaseUnavailable: The ledger does not answer.
    """
    from aios_platform.access.principals import require
    from aios_platform.ledger import champions

    require("operator", database=stores.database)
    if not reason.strip():
        raise PromotionError("A rollback needs a reason.", remedy="Give --reason.")
    database = stores.database
    history = champions.history(database, names.model)
    if not history:
        raise PromotionError(
            f"{names.model} has no champion to roll back from.", remedy="Promote one first."
        )
    live = history[0]
    if live.version == to or (to is None and _done(database, live, reason)):
        return RolledBack(
            live, None, 0, f"Version {live.version} is live already.{follow(names.model, stores)}"
        )
    if expected is not None and live.revision != expected:
        raise ChampionConflict(
            f"The champion of {names.model} is version {live.version} now, which the rollback is "
            "not about.",
            remedy="Look at the live version first.",
        )
    target = _target(database, names.model, history, to)
    rows = try_out(names, target, stores)
    champion = champions.roll_back(
        database, names.model, to=target, expected=live.version, reason=reason
    )
    note = follow(names.model, stores)
    return RolledBack(
        champion,
        live.version,
        rows,
        f"Version {champion.version} is live again, instead of {live.version}.{note}",
    )


def try_out(names: Names, champion: Champion, stores: "Stores") -> int:
    """Load a version by its digest, hold its feature service against today's, and score with it.

    Returns:
        Rows scored.

    Raises:
        StoreError: Its bytes or the frame are gone or damaged.
        ScoringError: It cannot score the newest rows, or its feature service has changed.
    """
    from aios_platform.features.service import service_contract
    from aios_platform.inference.session import Session

    store = stores.artifacts
    digest = champion.model_digest
    session = Session(store.get(digest, ".onnx"), digest=digest)
    trained = recall(store, names.model, champion.training_set_digest).service_digest
    today = service_contract(names.declaration, stores.features).digest
    if trained != today:
        raise ScoringError(
            f"Version {champion.version} was trained on the feature service {trained[:12]}; "
            f"'{names.declaration.features.service}' is {today[:12]} now.",
            remedy="Bring the feature service back first, or go back to another version.",
        )
    frame = _newest_frame(names, store)
    if frame.num_rows == 0:
        raise ScoringError(
            f"The newest frame of {names.model} has no rows to try version {champion.version} on.",
            remedy="Score a window that has rows.",
        )
    return len(session.predict(frame))


def _newest_frame(names: Names, store: "ArtifactStore") -> "pa.Table":
    keys = store.keys(names.frames)
    if not keys:
        raise ScoringError(
            f"{names.model} has no scoring frame to try a version on.",
            remedy=f"Run the job '{names.job('score')}' first.",
        )
    return store.scan([store.require(names.frames, keys[-1])]).head(SAMPLE_ROWS)


def _target(database: Database, model: str, history: list[Champion], to: str | None) -> Champion:
    found = healthy(database, model, history)
    versions = ", ".join(champion.version for champion in found) or "none"
    if to is None and found:
        return found[0]
    for champion in found:
        if champion.version == to:
            return champion
    if to is None:
        raise PromotionError(
            f"The ledger knows no healthy earlier champion of {model}.",
            remedy=f"Train a new one: `aios train {model}`, then `aios promote`.",
        )
    raise PromotionError(
        f"Version {to} of {model} is no healthy earlier champion.",
        remedy=f"Healthy: {versions}. A version that was judged degraded, or was rolled back from, "
        "comes back only through the gate.",
    )


def _done(database: Database, live: Champion, reason: str) -> bool:
    """Whether the last change of the champion is this very rollback."""
    from aios_platform.ledger.entries import entries

    rows = entries(database, subject=live.model, kind=ROLLBACK, limit=1)
    return bool(
        rows
        and rows[0].payload["champion"]["revision"] == live.revision
        and rows[0].payload["reason"] == reason
    )
