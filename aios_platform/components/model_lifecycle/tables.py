"""Monitoring's findings as tables of asset metadata."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from aios_platform.contracts.decisions import RetrainDecision
from aios_platform.ledger.entries import entries
from aios_platform.ledger.health import RETRAIN_DECISION

if TYPE_CHECKING:
    from aios_platform.components.model_lifecycle.served import DriftAndSkew, Served
    from aios_platform.database import Database
    from aios_platform.monitoring.drift import DriftReport
    from aios_platform.monitoring.estimation import EstimateScore
    from aios_platform.monitoring.performance import Performance
    from aios_platform.monitoring.skew import SkewReport

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


def performance_metadata(result: "Performance") -> dict[str, Any]:
    """A window's figures, what they rest on, its slices, and what had been expected."""
    from aios_platform.monitoring.labels import COUNTS

    counts = {name: getattr(result, name) for name in COUNTS}
    shown: dict[str, Any] = {
        "status": str(result.status),
        "reason": result.reason,
        "model_version": ", ".join(result.model_versions),
        "revision": result.revision,
        **({"restated": result.restated} if result.restated else {}),
        **(
            {"trained_on": "these rows: the figures flatter the version"}
            if result.trained_on
            else {}
        ),
        **counts,
        **result.metrics,
    }
    if result.by_slice:
        figures = ("rows", "base_rate", "value", "low", "high")
        shown["slices"] = _table(
            {"slice": "string", **dict.fromkeys(figures, "float")},
            [
                {"slice": name, **{f: _rounded(getattr(part, f)) for f in figures}}
                for name, part in result.by_slice.items()
            ],
        )
    if result.estimate is not None:
        shown["estimate"] = _table(
            {
                "metric": "string",
                **dict.fromkeys(("estimated", "low", "high", "measured", "error"), "float"),
                "inside": "string",
            },
            [
                {
                    "metric": name,
                    "estimated": _rounded(each.value),
                    "low": _rounded(each.low),
                    "high": _rounded(each.high),
                    **_held(result.estimate_scores.get(name)),
                }
                for name, each in result.estimate.metrics.items()
            ],
        )
        shown["estimate_calibrated_on"] = ", ".join(result.estimate.calibrated_on)
    return shown


def _held(score: "EstimateScore | None") -> dict[str, Any]:
    if score is None:
        return {"measured": "", "error": "", "inside": "labels not complete"}
    return {
        "measured": _rounded(score.measured),
        "error": _rounded(score.error),
        "inside": "yes" if score.inside else "no",
    }


def revision_table(found: "Sequence[Performance]") -> dg.TableMetadataValue:
    """Everything that was said about a window, newest first."""
    kinds = {"revision": "int", "as_of": "string", "version": "string", "status": "string"}
    return _table(
        {**kinds, "matched": "int", "value": "float", "restated": "string"},
        [
            {
                "revision": each.revision,
                "as_of": f"{each.as_of:%Y-%m-%d %H:%M}",
                "version": ", ".join(each.model_versions),
                "status": str(each.status),
                "matched": each.matched,
                "value": _rounded(each.metrics.get(each.metric)),
                "restated": each.restated,
            }
            for each in reversed(found)
        ],
    )


def served_performance_metadata(served: "Served[Performance]") -> dict[str, Any]:
    """Performance of served traffic, version by version; nothing where nothing was served."""
    if not served.found and not served.failure:
        return {}
    figures = ("answers", "unnamed", "predictions", "matched", "value", "low", "high", "recorded")
    kinds = {"version": "string", "status": "string", **dict.fromkeys(figures, "float")}
    records = [
        {
            "version": traffic.version,
            "status": str(each.status),
            "answers": float(traffic.answers.num_rows),
            "unnamed": float(traffic.unnamed),
            "predictions": float(each.predictions),
            "matched": float(each.matched),
            "value": _rounded(each.metrics.get(each.metric)),
            "low": _rounded(each.low),
            "high": _rounded(each.high),
            "recorded": _rounded(traffic.read),
            "by_source": ", ".join(f"{name} {rows}" for name, rows in traffic.by_source.items()),
        }
        for traffic, each in served.found
    ]
    return {
        **({"served": _table({**kinds, "by_source": "string"}, records)} if records else {}),
        **({"served_failed": served.failure} if served.failure else {}),
    }


def served_drift_metadata(served: "Served[DriftAndSkew]") -> dict[str, Any]:
    """Drift and skew of served traffic, version by version; nothing where nothing was served."""
    shown: dict[str, Any] = {"served_failed": served.failure} if served.failure else {}
    for traffic, found in served.found:
        name = f"served_version_{traffic.version}"
        shown[f"{name}_drift"] = found.drift.reason
        shown[f"{name}_psi"] = drift_table(found.drift)
        shown[f"{name}_skew"] = found.skew.reason
        shown[f"{name}_skew_by_feature"] = _skew_table(found.skew)
    return shown


def _skew_table(report: "SkewReport") -> dg.TableMetadataValue:
    kinds = {"feature": "string", "origin": "string"}
    figures = ("cells", "different", "share", "missing", "psi")
    return _table(
        {**kinds, **dict.fromkeys(figures, "float"), "skewed": "string", "example": "string"},
        [
            {
                "feature": each.name,
                "origin": each.origin,
                **{name: _rounded(getattr(each, name)) for name in figures},
                "skewed": "yes" if each.skewed else "no",
                "example": each.example,
            }
            for each in sorted(report.features, key=lambda each: -each.share)
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
