"""Asset `predictions`: windows scored by a champion, skipped while there is none."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from aios_platform.components.model_lifecycle.freshness import ON_TIME
from aios_platform.components.model_lifecycle.jobs import partitions_of
from aios_platform.components.model_lifecycle.names import VERSION_TAG, Names
from aios_platform.components.model_lifecycle.scorers import live_at, scorer_of
from aios_platform.components.model_lifecycle.spans import (
    clock_of,
    delivered_windows,
    is_planned,
    span,
)
from aios_platform.contracts.decisions import Champion
from aios_platform.contracts.windows import Window
from aios_platform.resources.stores import Artifacts, Features, Ledger
from aios_platform.telemetry import stage

if TYPE_CHECKING:
    from aios_platform.artifacts import ArtifactStore
    from aios_platform.database import Database


def inference_assets(names: Names) -> list[dg.AssetsDefinition]:
    """`predictions`: made once, when a window comes, by the version that is live then.

    What was predicted is what was acted on: a later champion does not take its place. Only a
    back-fill scores a window again, with the version that was live when it ended, or one by name.
    """
    declaration = names.declaration

    @dg.asset(
        key=names.asset("predictions"),
        group_name=names.model,
        deps=[names.asset("features"), names.asset("champion")],
        partitions_def=partitions_of(declaration.windows),
        backfill_policy=dg.BackfillPolicy.single_run(),
        output_required=False,
        kinds={"onnx", "parquet"},
        owners=[declaration.owner],
        check_specs=[
            dg.AssetCheckSpec(
                ON_TIME,
                asset=names.asset("predictions"),
                description="Windows came and were scored within source.max_delay_hours of their "
                "end; a sensor looks for those that are not here at all.",
            )
        ],
        description="One answer per row of the window, with the version that gave it.",
    )
    def predictions(
        context: dg.AssetExecutionContext, artifacts: Artifacts, ledger: Ledger, features: Features
    ) -> Iterator[Any]:
        store = artifacts.open()
        chosen = scorers(names, context, store, ledger.open())
        if chosen is None:
            context.log.info("No champion yet: nothing to score with.")
            yield _on_time(names, [], clock_of(context))
            return

        from aios_platform.features.training_set import scoring_frame
        from aios_platform.inference.batch import score_window
        from aios_platform.inference.session import Session

        rows, sessions = 0, {}
        with stage(names.model, "predictions", span(context)) as made:
            for window, scorer in chosen:
                digest = scorer.model_digest
                if digest not in sessions:
                    sessions[digest] = Session(store.get(digest, ".onnx"), digest=digest)
                frames = scoring_frame(declaration, window, store, features.open())
                [frame] = frames.versions
                version = score_window(
                    sessions[digest],
                    store.scan([frame]),
                    store,
                    model=names.model,
                    version=scorer.version,
                    window=window.key,
                    row_id=declaration.source.row_id,
                    prediction_time=declaration.source.prediction_time,
                    inputs={"features": frames.service_digest, frame.dataset: frame.digest},
                    scored_at=clock_of(context),
                )
                context.add_asset_metadata(
                    {
                        "dagster/row_count": version.rows,
                        "dagster/uri": version.uri,
                        "model_version": scorer.version,
                        "digest": version.digest,
                        "version": version.version,
                    },
                    asset_key=context.asset_key,
                    partition_key=window.key,
                )
                rows += version.rows
            by = ", ".join(sorted({scorer.version for _, scorer in chosen})) or "none"
            made.append(f"{rows:,} rows by version {by}")
        yield dg.MaterializeResult(
            metadata={"summary": f"{span(context)}: {rows:,} rows scored by version {by}"}
        )
        yield _on_time(names, [window for window, _ in chosen], clock_of(context))

    return [predictions]


def _on_time(names: Names, windows: list[Window], now: datetime) -> dg.AssetCheckResult:
    patience = timedelta(hours=names.declaration.source.max_delay_hours)
    late = {window.key: now - window.end for window in windows if now > window.end + patience}
    return dg.AssetCheckResult(
        passed=not late,
        check_name=ON_TIME,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            key: f"scored {delay / timedelta(hours=1):,.0f} hours after its end"
            for key, delay in late.items()
        },
    )


def scorers(
    names: Names,
    context: dg.AssetExecutionContext,
    store: "ArtifactStore",
    database: "Database",
) -> list[tuple[Window, Champion]] | None:
    """The windows that a run is to score, each with its version; None while there is no champion.

    Raises:
        LifecycleError: The run names a version that the ledger does not know.
        DatabaseUnavailable: The ledger cannot be read.
    """
    from aios_platform.ledger.champions import history

    windows = delivered_windows(context, names, store)
    named = context.run.tags.get(VERSION_TAG)
    if named is not None:
        scorer = scorer_of(names, database, named)
        return [(window, scorer) for window in windows]
    champions = history(database, names.model)
    if not champions:
        return None
    live = champions[0]
    if is_planned(context):
        scored = set(store.keys(names.predictions))
        return [(window, live) for window in windows if window.key not in scored]
    return [(window, live_at(champions, window.end) or live) for window in windows]
