"""Which earlier champions nothing on the ledger speaks against."""

from aios_platform.contracts.decisions import Champion
from aios_platform.database import Database
from aios_platform.ledger.entries import entries

RETRAIN_DECISION = "retrain_decision"
ROLLBACK = "rollback"
# More rows than a model writes in decades of monthly windows.
MOST_ROWS = 10_000


def healthy(database: Database, model: str, history: list[Champion]) -> list[Champion]:
    """Earlier champions that could be live again, newest first.

    A version is out when it was judged degraded in production, or somebody rolled back from it.

    Args:
        database: Where the ledger lives.
        model: Name of the model.
        history: Its champions, newest first.
    """
    decisions = entries(database, subject=model, kind=RETRAIN_DECISION, limit=MOST_ROWS)
    degraded = {
        str(row.payload["version"])
        for row in decisions
        if row.payload["decision"]["cause"] == "degradation"
    }
    rollbacks = entries(database, subject=model, kind=ROLLBACK, limit=MOST_ROWS)
    left = {str(row.payload["previous"]) for row in rollbacks}
    found: dict[str, Champion] = {}
    for champion in history[1:]:
        if champion.version not in degraded | left | {history[0].version}:
            found.setdefault(champion.version, champion)
    return list(found.values())
