"""Which version scores a window: the live one, the one that was live then, or one by name."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.decisions import Champion
from aios_platform.errors import LifecycleError
from aios_platform.ledger.champions import history
from aios_platform.ledger.entries import entries

if TYPE_CHECKING:
    from aios_platform.database import Database

CANDIDATE = "candidate"
MOST_ROWS = 10_000


def live_at(champions: Sequence[Champion], moment: datetime) -> Champion | None:
    """The champion that was live at a moment of the lifecycle; None: there was none yet.

    Args:
        champions: As `ledger.champions.history` gives them, newest first.
        moment: An aware moment.
    """
    for champion in champions:
        if (champion.live_from or champion.promoted_at) <= moment:
            return champion
    return None


def scorer_of(names: Names, database: "Database", version: str) -> Champion:
    """A version that is or was champion, or that was trained and never promoted.

    The latter has no baseline: nothing is known of how well it should do.

    Raises:
        LifecycleError: The ledger knows no such version.
        DatabaseUnavailable: The ledger cannot be read.
    """
    for champion in history(database, names.model):
        if champion.version == version:
            return champion
    for row in entries(database, subject=names.model, kind=CANDIDATE, limit=MOST_ROWS):
        payload = row.payload
        if payload["version"] == version:
            return Champion(
                model=names.model,
                version=version,
                model_digest=payload["model_digest"],
                run_id=payload["mlflow_run"],
                training_set_digest=payload["training_set_digest"],
                trained_through=payload["windows"][-1],
                baseline={},
                promoted_at=row.recorded_at,
                revision=1,
            )
    raise LifecycleError(
        f"The ledger knows no version {version} of {names.model}.",
        remedy=f"`aios ledger show {names.model} --kind candidate` lists those that were trained.",
    )
