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
    """Every column with its drift: what drifted and matters to the model first."""
    columns = sorted(
        report.columns,
        key=lambda c: (c.status != "drifted", -(c.importance or 0.0), -(c.psi or 0.0)),
    )
    figures = ("importance", "psi", "jensen_shannon", "wasserstein", "p_value", "adjusted_p")
    kinds = {"column": "string", "status": "string", **dict.fromkeys(figures, "float")}
    return _table(
        {**kinds, "bound": "float", "missing": "float", "reason": "string"},
        [
            {
                "column": column.name,
                "status": str(column.status),
                **{name: _rounded(getattr(column, name)) for name in figures},
                "bound": column.bound,
                "missing": _rounded(column.missing),
                "reason": column.reason,
            }
            for column in columns
        ],
    )


def _rounded(value: float | None) -> float | str:
    return "" if value is None else float(f"{value:.4g}")


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
