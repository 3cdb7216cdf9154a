"""Asset `predictions`: windows scored by the live champion, skipped while there is none."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from aios_platform.components.model_lifecycle.jobs import partitions_of
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.spans import span, windows_of
from aios_platform.resources.stores import Artifacts, Features, Ledger
from aios_platform.telemetry import stage


def inference_assets(names: Names) -> list[dg.AssetsDefinition]:
    """`predictions`, pinned to the version that was live when the run asked the ledger."""
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
        description="One probability per row of the window, with the version that gave it.",
    )
    def predictions(
        context: dg.AssetExecutionContext, artifacts: Artifacts, ledger: Ledger, features: Features
    ) -> Iterator[Any]:
        from aios_platform.ledger.champions import champion_of

        champion = champion_of(ledger.open(), names.model)
        if champion is None:
            context.log.info("No champion yet: nothing to score with.")
            return

        from aios_platform.features.training_set import scoring_frame
        from aios_platform.inference.batch import score_window
        from aios_platform.inference.session import Session

        store = artifacts.open()
        rows = 0
        with stage(names.model, "predictions", span(context)) as made:
            session = Session(
                store.get(champion.model_digest, ".onnx"), digest=champion.model_digest
            )
            for window in windows_of(context, declaration):
                frames = scoring_frame(declaration, window, store, features.open())
                [frame] = frames.versions
                version = score_window(
                    session,
                    store.scan([frame]),
                    store,
                    model=names.model,
                    version=champion.version,
                    window=window.key,
                    row_id=declaration.source.row_id,
                    prediction_time=declaration.source.prediction_time,
                    inputs={"features": frames.service_digest, frame.dataset: frame.digest},
                )
                context.add_asset_metadata(
                    {
                        "dagster/row_count": version.rows,
                        "dagster/uri": version.uri,
                        "model_version": champion.version,
                        "digest": version.digest,
                        "version": version.version,
                    },
                    asset_key=context.asset_key,
                    partition_key=window.key,
                )
                rows += version.rows
            made.append(f"{rows:,} rows by version {champion.version}")
        yield dg.MaterializeResult(
            metadata={
                "summary": f"{span(context)}: {rows:,} rows scored by version {champion.version}"
            }
        )

    return [predictions]
