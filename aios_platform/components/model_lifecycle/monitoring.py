"""Assets `performance`, `drift` and `retrain_decision`: what is seen of the live model."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from aios_platform.components.model_lifecycle.deciding import decide_on
from aios_platform.components.model_lifecycle.faults import search_faults
from aios_platform.components.model_lifecycle.freshness import LABELS_COMPLETE
from aios_platform.components.model_lifecycle.jobs import partitions_of
from aios_platform.components.model_lifecycle.measuring import (
    estimate_record,
    measure_window,
    revisions,
)
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.observations import observe_drift, trend
from aios_platform.components.model_lifecycle.principals import acting_for
from aios_platform.components.model_lifecycle.references import References
from aios_platform.components.model_lifecycle.served import measure_served, observe_served
from aios_platform.components.model_lifecycle.spans import (
    clock_of,
    past_clock,
    scored_windows,
    span,
)
from aios_platform.components.model_lifecycle.state import matured_keys
from aios_platform.components.model_lifecycle.tables import (
    decision_table,
    drift_table,
    performance_metadata,
    revision_table,
    served_drift_metadata,
    served_performance_metadata,
)
from aios_platform.resources.stores import Artifacts, Features, Ledger
from aios_platform.telemetry import stage

if TYPE_CHECKING:
    from aios_platform.monitoring.performance import Performance

NO_DATA_FAULT = "no_data_fault"


def monitoring_assets(names: Names) -> list[dg.AssetsDefinition]:
    """What became of the predictions, whether the data moved, and what follows."""
    declaration = names.declaration
    partitions = partitions_of(declaration.windows)
    one_run = dg.BackfillPolicy.single_run()

    @dg.asset(
        key=names.asset("performance"),
        group_name=names.model,
        # The labels are among the raw rows.
        deps=[names.asset("predictions"), names.asset("raw")],
        partitions_def=partitions,
        backfill_policy=one_run,
        output_required=False,
        owners=[declaration.owner],
        kinds={"python"},
        check_specs=[
            dg.AssetCheckSpec(
                LABELS_COMPLETE,
                asset=names.asset("performance"),
                description="Of each matured window, label.min_share of the predictions have a "
                "label.",
            )
        ],
        description="Predictions against the truth of windows whose labels are complete; of the "
        "others, what their scores promise. Figures that changed are restated, with their history.",
    )
    def performance(
        context: dg.AssetExecutionContext, artifacts: Artifacts, ledger: Ledger
    ) -> Iterator[Any]:
        store, found = artifacts.open(), []
        clock = clock_of(context)
        windows = scored_windows(context, names, store)
        if not windows:
            context.log.info("Nothing was predicted for these windows.")
            yield _labels_complete(names, [])
            return
        with stage(names.model, "performance", span(context)) as made:
            references = References(names, store, ledger.open())
            matured = matured_keys(declaration, clock)
            for window in windows:
                reference = references.of(window.key)
                result = measure_window(names, store, window, clock, reference)
                found.append(result)
                served = measure_served(names, store, ledger.open(), window, clock, references)
                context.add_asset_metadata(
                    {
                        **performance_metadata(result),
                        **served_performance_metadata(served),
                        "revisions": revision_table(revisions(names, store, window.key)),
                        "matured_through": matured[-1] if matured else "no window",
                        "estimates_so_far": estimate_record(names, store),
                    },
                    asset_key=context.asset_key,
                    partition_key=window.key,
                )
            texts = [_told(result) for result in found]
            made += texts
        yield dg.MaterializeResult(metadata={"summary": "; ".join(texts)})
        yield _labels_complete(names, found)

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
            ),
            dg.AssetCheckSpec(
                NO_DATA_FAULT,
                asset=names.asset("drift"),
                description="The delivered tables show nothing that only a broken feed explains; "
                "no model is trained on a window that does.",
            ),
        ],
        description="The window against the champion's own training data, with an HTML report.",
    )
    def drift(
        context: dg.AssetExecutionContext, artifacts: Artifacts, ledger: Ledger, features: Features
    ) -> Iterator[Any]:
        store, found, faults = artifacts.open(), [], {}
        with stage(names.model, "drift", span(context)) as made:
            windows = scored_windows(context, names, store)
            references = References(names, store, ledger.open())
            for window in windows:
                reference = references.of(window.key)
                broken = search_faults(names, store, window.key).faults
                if broken:
                    faults[window.key] = " ".join(fault.reason for fault in broken)
                result, shown = observe_drift(
                    names, store, reference, window, page=window is windows[-1]
                )
                found.append(result)
                served = observe_served(
                    names,
                    store,
                    ledger.open(),
                    window,
                    references,
                    features.open,
                    now=clock_of(context),
                    past=past_clock(context) is not None,
                )
                context.add_asset_metadata(
                    {
                        **served_drift_metadata(served),
                        "status": str(result.status),
                        "reason": result.reason,
                        "drifted": ", ".join(result.drifted),
                        "drifted_features": len(result.drifted),
                        "data_faults": faults.get(window.key, "none"),
                        **shown,
                        "psi": drift_table(result),
                    },
                    asset_key=context.asset_key,
                    partition_key=window.key,
                )
            texts = [f"{r.window} {len(r.drifted)} of {len(r.features)}" for r in found]
            made.append("features drifted: " + ", ".join(texts))
            made += [f"DATA FAULT in {key}" for key in faults]
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
                ),
                dg.AssetCheckResult(
                    passed=not faults,
                    check_name=NO_DATA_FAULT,
                    severity=dg.AssetCheckSeverity.ERROR,
                    metadata=faults,
                ),
            ],
        )

    @dg.asset(
        key=names.asset("retrain_decision"),
        group_name=names.model,
        deps=[names.asset("performance"), names.asset("drift")],
        partitions_def=partitions,
        backfill_policy=one_run,
        output_required=False,
        owners=[declaration.owner],
        kinds={"python"},
        description="Whether to train again, and why; one row of the ledger per matured window.",
    )
    def retrain_decision(
        context: dg.AssetExecutionContext, artifacts: Artifacts, ledger: Ledger
    ) -> Iterator[Any]:
        store, texts = artifacts.open(), []
        windows = scored_windows(context, names, store)
        if not windows:
            return
        with stage(names.model, "retrain_decision", span(context)) as made:
            past = past_clock(context) is not None
            for window in windows:
                with acting_for(context.run):
                    decision = decide_on(
                        names, store, ledger.open(), window, clock_of(context), past=past
                    )
                if decision is None:
                    texts.append(f"{window.key} labels not matured")
                    continue
                texts.append(f"{window.key} {decision.action} ({decision.cause})")
                context.add_asset_metadata(
                    {
                        "action": str(decision.action),
                        "cause": decision.cause,
                        "reason": decision.reason,
                        "alarm": decision.alarm,
                        "decisions": decision_table(ledger.open(), names.model),
                        **decision.evidence,
                    },
                    asset_key=context.asset_key,
                    partition_key=window.key,
                )
            made += texts
        # Of the newest window only: an image in the events of every window would weigh.
        context.add_asset_metadata(
            trend(names, store),
            asset_key=context.asset_key,
            partition_key=context.partition_keys[-1],
        )
        yield dg.MaterializeResult(metadata={"summary": "; ".join(texts)})

    return [performance, drift, retrain_decision]


def _labels_complete(names: Names, found: "list[Performance]") -> dg.AssetCheckResult:
    from aios_platform.monitoring.freshness import lacking_labels

    matured = [each for each in found if each.status != "not_matured"]
    lacking = {each.window: lacking_labels(names.declaration, each) for each in matured}
    few = {window: why for window, why in lacking.items() if why}
    return dg.AssetCheckResult(
        passed=not few,
        check_name=LABELS_COMPLETE,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=few,
    )


def _told(result: "Performance") -> str:
    """What is known of a window, in a few words."""
    if result.metrics:
        seen = " (trained on it)" if result.trained_on else ""
        return f"{result.window} {result.metric} {result.metrics[result.metric]:.4f}{seen}"
    expected = result.estimate.metrics.get(result.metric) if result.estimate else None
    if expected is None:
        return f"{result.window} {result.status}"
    return f"{result.window} {result.status}, {result.metric} estimated {expected.value:.4f}"
