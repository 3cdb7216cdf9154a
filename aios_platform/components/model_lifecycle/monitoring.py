"""Assets `performance`, `drift` and `retrain_decision`: what is seen of the live model."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from aios_platform.components.model_lifecycle.jobs import partitions_of
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.observations import (
    decide_on,
    measure_window,
    observe_drift,
)
from aios_platform.components.model_lifecycle.principals import acting_for
from aios_platform.components.model_lifecycle.spans import clock_of, span, windows_of
from aios_platform.resources.stores import Artifacts, Ledger
from aios_platform.telemetry import stage

if TYPE_CHECKING:
    from aios_platform.monitoring.drift import DriftReport


def monitoring_assets(names: Names) -> list[dg.AssetsDefinition]:
    """What became of the predictions, whether the data moved, and what follows."""
    declaration = names.declaration
    partitions = partitions_of(declaration.windows)
    one_run = dg.BackfillPolicy.single_run()

    @dg.asset(
        key=names.asset("performance"),
        group_name=names.model,
        deps=[names.asset("predictions")],
        partitions_def=partitions,
        backfill_policy=one_run,
        owners=[declaration.owner],
        kinds={"python"},
        description="Predictions against the truth, for windows whose labels are complete.",
    )
    def performance(
        context: dg.AssetExecutionContext, artifacts: Artifacts
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        store, found = artifacts.open(), []
        with stage(names.model, "performance", span(context)) as made:
            for window in windows_of(context, declaration):
                result = measure_window(names, store, window, clock_of(context))
                found.append(result)
                context.add_asset_metadata(
                    {
                        "status": str(result.status),
                        "reason": result.reason,
                        "matched": result.matched,
                        "unlabelled_predictions": result.unlabelled_predictions,
                        "unpredicted_labels": result.unpredicted_labels,
                        **result.metrics,
                    },
                    asset_key=context.asset_key,
                    partition_key=window.key,
                )
            texts = [
                f"{r.window} {r.metric} {r.metrics[r.metric]:.4f}" if r.metrics else
                f"{r.window} {r.status}" for r in found
            ]  # fmt: skip
            made += texts
        return dg.MaterializeResult(metadata={"summary": "; ".join(texts)})

    @dg.asset(
        key=names.asset("drift"),
        group_name=names.model,
        deps=[names.asset("predictions")],
        partitions_def=partitions,
        backfill_policy=one_run,
        owners=[declaration.owner],
        kinds={"evidently"},
        check_specs=[
            dg.AssetCheckSpec(
                "stable",
                asset=names.asset("drift"),
                description="At most the declared share of features drifted against the data the "
                "champion was trained on.",
            )
        ],
        description="The window against the champion's own training data, with an HTML report.",
    )
    def drift(
        context: dg.AssetExecutionContext, artifacts: Artifacts, ledger: Ledger
    ) -> Iterator[Any]:
        store, found = artifacts.open(), []
        with stage(names.model, "drift", span(context)) as made:
            windows = windows_of(context, declaration)
            for window in windows:
                result, links = observe_drift(
                    names, store, ledger.open(), window, page=window is windows[-1]
                )
                found.append(result)
                context.add_asset_metadata(
                    {
                        "status": str(result.status),
                        "reason": result.reason,
                        "drifted": ", ".join(result.drifted),
                        "drifted_features": len(result.drifted),
                        **links,
                        "psi": _psi_table(result),
                    },
                    asset_key=context.asset_key,
                    partition_key=window.key,
                )
            texts = [f"{r.window} {len(r.drifted)} of {len(r.features)}" for r in found]
            made.append("features drifted: " + ", ".join(texts))
        drifted = [r for r in found if r.status == "drifted"]
        yield dg.MaterializeResult(
            metadata={"summary": "features drifted: " + ", ".join(texts)},
            check_results=[
                dg.AssetCheckResult(
                    passed=not drifted,
                    check_name="stable",
                    # Drift alone is a thing to look at; only performance asks for a retraining.
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata={r.window: r.reason for r in found},
                )
            ],
        )

    @dg.asset(
        key=names.asset("retrain_decision"),
        group_name=names.model,
        deps=[names.asset("performance"), names.asset("drift")],
        partitions_def=partitions,
        backfill_policy=one_run,
        owners=[declaration.owner],
        kinds={"python"},
        description="Whether to train again, and why; one row of the ledger per matured window.",
    )
    def retrain_decision(
        context: dg.AssetExecutionContext, artifacts: Artifacts, ledger: Ledger
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        store, texts = artifacts.open(), []
        with stage(names.model, "retrain_decision", span(context)) as made:
            for window in windows_of(context, declaration):
                with acting_for(context.run):
                    decision = decide_on(names, store, ledger.open(), window, clock_of(context))
                if decision is None:
                    texts.append(f"{window.key} labels not matured")
                    continue
                texts.append(f"{window.key} {decision.action} ({decision.cause})")
                context.add_asset_metadata(
                    {
                        "action": str(decision.action),
                        "cause": decision.cause,
                        "reason": decision.reason,
                        **decision.evidence,
                    },
                    asset_key=context.asset_key,
                    partition_key=window.key,
                )
            made += texts
        return dg.MaterializeResult(metadata={"summary": "; ".join(texts)})

    return [performance, drift, retrain_decision]


def _psi_table(report: "DriftReport") -> dg.TableMetadataValue:
    columns = sorted(
        (c for c in (*report.features, report.prediction) if c is not None),
        key=lambda column: -(column.psi or 0.0),
    )
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "column": column.name,
                    "psi": round(column.psi, 4) if column.psi is not None else "",
                    "bound": column.bound,
                    "status": str(column.status),
                }
            )
            for column in columns
        ],
        schema=dg.TableSchema(
            [
                dg.TableColumn("column", "string"),
                dg.TableColumn("psi", "float"),
                dg.TableColumn("bound", "float"),
                dg.TableColumn("status", "string"),
            ]
        ),
    )
