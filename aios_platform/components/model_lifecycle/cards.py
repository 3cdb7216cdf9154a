"""The stored model card of a version."""

from typing import TYPE_CHECKING

from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.state import VERDICT
from aios_platform.errors import LifecycleError
from aios_platform.ledger.health import MOST_ROWS

if TYPE_CHECKING:
    from aios_platform.resources.stores import Stores


def card_of(names: Names, version: str | None, stores: "Stores") -> str:
    """The card that came with the newest verdict on a version, Markdown.

    Args:
        names: The model.
        version: Registered version; None: the champion.
        stores: Where everything is.

    Raises:
        LifecycleError: There is no champion, or no verdict on that version.
        ArtifactMissing: The card is gone.
        ArtifactCorrupt: It is not what was written.
    """
    from aios_platform.ledger.champions import champion_of
    from aios_platform.ledger.entries import entries

    if version is None:
        champion = champion_of(stores.database, names.model)
        if champion is None:
            raise LifecycleError(
                f"{names.model} has no champion.", remedy="Name a version, or promote one first."
            )
        version = champion.version
    for row in entries(stores.database, subject=names.model, kind=VERDICT, limit=MOST_ROWS):
        if row.payload["verdict"]["candidate_version"] == version and "documents" in row.payload:
            return stores.artifacts.get(row.payload["documents"]["card"], ".md").decode()
    raise LifecycleError(
        f"There is no verdict with a card on version {version} of {names.model}.",
        remedy=f"`aios promote {names.model} --version {version} --dry-run` judges it.",
    )
