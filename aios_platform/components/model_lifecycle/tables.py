"""Monitoring's findings as tables of asset metadata."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from aios_platform.components.model_lifecycle.state import RETRAIN_DECISION
from aios_platform.contracts.decisions import RetrainDecision
from aios_platform.ledger.entries import entries

if TYPE_CHECKING:
    from aios_platform.database import Database
    from aios_platform.monitoring.drift import DriftReport

SHOWN_DECISIONS = 24


def drift_table(report: "DriftReport") -> dg.TableMetadataValue:
    """Every column with its drift, the most drifted first."""
    columns = sorted(report.columns, key=lambda column: -(column.psi or 0.0))
    return _table(
        {"column": "string", "psi": "float", "bound": "float", "status": "string"},
        [
            {
                "column": column.name,
                "psi": round(column.psi, 4) if column.psi is not None else "",
                "bound": column.bound,
                "status": str(column.status),
            }
            for column in columns
        ],
    )


def decision_table(database: "Database", model: str) -> dg.TableMetadataValue:
    """The newest retrain decisions, newest first."""
    rows = entries(database, subject=model, kind=RETRAIN_DECISION, limit=SHOWN_DECISIONS)
    records = []
    for row in rows:
        decision = RetrainDecision.model_validate(row.payload["decision"])
        records.append(
            {
                "row": row.seq,
                "window": decision.window,
                "version": str(row.payload["version"]),
                "action": str(decision.action),
                "cause": decision.cause,
                "reason": decision.reason,
            }
        )
    kinds = dict.fromkeys(("window", "version", "action", "cause", "reason"), "string")
    return _table({"row": "int", **kinds}, records)


def _table(columns: dict[str, str], records: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        [dg.TableRecord(dict(record)) for record in records],
        schema=dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns.items()]),
    )
