"""Asset `raw` and its checks: the source, validated, window by window."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from aios_platform.components.model_lifecycle.jobs import partitions_of
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.spans import span, windows_of
from aios_platform.errors import WindowRejected
from aios_platform.resources.stores import Artifacts
from aios_platform.telemetry import stage

VALID = "valid"


def data_assets(names: Names) -> list[dg.AssetsDefinition]:
    """`raw`: Parquet per window and table; a window that is refused stops everything behind it."""
    declaration = names.declaration

    @dg.asset(
        key=names.asset("raw"),
        group_name=names.model,
        partitions_def=partitions_of(declaration.windows),
        backfill_policy=dg.BackfillPolicy.single_run(),
        kinds={"parquet", "greatexpectations"},
        owners=[declaration.owner],
        check_specs=[
            dg.AssetCheckSpec(
                VALID,
                asset=names.asset("raw"),
                blocking=True,
                description="Schema, nulls, ranges, categories, uniqueness, volume, freshness and "
                "the share of quarantined rows are as declared.",
            )
        ],
        description="What the source delivered, validated; bad rows are in quarantine.",
    )
    def raw(context: dg.AssetExecutionContext, artifacts: Artifacts) -> Iterator[Any]:
        from aios_platform.data.ingest import ingest_window

        store = artifacts.open()
        rows = quarantined = 0
        checked: list[Any] = []
        with stage(names.model, "raw", span(context)) as made:
            for window in windows_of(context, declaration):
                try:
                    result = ingest_window(declaration, window, store)
                except WindowRejected as error:
                    yield dg.AssetCheckResult(
                        passed=False,
                        check_name=VALID,
                        severity=dg.AssetCheckSeverity.ERROR,
                        metadata={"window": window.key, "reason": error.what},
                    )
                    raise dg.Failure(str(error), allow_retries=False) from error
                delivered = sum(version.rows for version in result.versions.values())
                context.add_asset_metadata(
                    {
                        "dagster/row_count": delivered,
                        "quarantined": result.quarantined_rows,
                        **{f"digest_{t}": v.digest for t, v in result.versions.items()},
                    },
                    asset_key=context.asset_key,
                    partition_key=window.key,
                )
                rows += delivered
                quarantined += result.quarantined_rows
                checked += result.reports
            made.append(f"{rows:,} rows, {quarantined:,} quarantined")
        expectations = sum(len(report.results) for report in checked)
        yield dg.MaterializeResult(
            metadata={"summary": f"{span(context)}: {rows:,} rows, {quarantined:,} quarantined"},
            check_results=[
                dg.AssetCheckResult(
                    passed=True,
                    check_name=VALID,
                    metadata={"expectations_met": expectations, "quarantined": quarantined},
                )
            ],
        )

    return [raw]
