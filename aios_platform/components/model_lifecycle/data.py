"""Asset `raw` and its checks: the source, validated, window by window."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from aios_platform.components.model_lifecycle.alarms import alarm, calm
from aios_platform.components.model_lifecycle.deliveries import Missing, note_missing, note_read
from aios_platform.components.model_lifecycle.jobs import partitions_of
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.spans import (
    clock_of,
    delivered_windows,
    is_planned,
    past_clock,
    span,
    windows_of,
)
from aios_platform.contracts.alerts import AlertKind
from aios_platform.errors import WindowNotDelivered, WindowRejected
from aios_platform.resources.stores import Artifacts, Ledger
from aios_platform.telemetry import stage

VALID = "valid"


def data_assets(names: Names) -> list[dg.AssetsDefinition]:
    """`raw`: Parquet per window and table; a window that is refused stops everything behind it.

    A window that has not come, or whose repetition is refused, stops nothing: the one is asked for
    again, of the other the last good version stays.
    """
    declaration = names.declaration

    @dg.asset(
        key=names.asset("raw"),
        group_name=names.model,
        partitions_def=partitions_of(declaration.windows),
        backfill_policy=dg.BackfillPolicy.single_run(),
        output_required=False,
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
    def raw(
        context: dg.AssetExecutionContext, artifacts: Artifacts, ledger: Ledger
    ) -> Iterator[Any]:
        from aios_platform.data.ingest import ingest_window

        store, database, clock = artifacts.open(), ledger.open(), clock_of(context)
        past = past_clock(context)
        rows = quarantined = 0
        checked: list[Any] = []
        missing: dict[str, str] = {}
        with stage(names.model, "raw", span(context)) as made:
            for window in windows_of(context, declaration):
                try:
                    result = ingest_window(
                        declaration, window, store, clock=lambda: clock, as_of=past
                    )
                except WindowNotDelivered as error:
                    note_missing(names, store, window.key, Missing.LATE, error.what, clock)
                    missing[window.key] = error.what
                    continue
                except WindowRejected as error:
                    note_missing(names, store, window.key, Missing.REFUSED, error.what, clock)
                    alarm(
                        database, names.model, AlertKind.WINDOW_REJECTED, window.key,
                        f"The delivery of {window.key} was refused.",
                        now=clock, past=past is not None, evidence={"reason": error.what},
                    )  # fmt: skip
                    if is_planned(context) and store.current(names.raw_rows, window.key):
                        missing[window.key] = f"the last good version stays: {error.what}"
                        continue
                    yield dg.AssetCheckResult(
                        passed=False,
                        check_name=VALID,
                        severity=dg.AssetCheckSeverity.ERROR,
                        metadata={"window": window.key, "reason": error.what},
                    )
                    raise dg.Failure(str(error), allow_retries=False) from error
                note_read(names, store, window.key, clock)
                calm(
                    database, names.model, AlertKind.WINDOW_REJECTED, window.key,
                    "a good delivery came",
                )  # fmt: skip
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
            made += [f"{key} did not come" for key in missing]
        for key, why in missing.items():
            context.log.info(f"{key}: {why}")
        if delivered_windows(context, names, store):
            yield dg.MaterializeResult(
                metadata={
                    "summary": f"{span(context)}: {rows:,} rows, {quarantined:,} quarantined",
                    **({"did_not_come": "; ".join(missing.values())} if missing else {}),
                }
            )
        yield dg.AssetCheckResult(
            passed=True,
            check_name=VALID,
            metadata={
                "expectations_met": sum(len(report.results) for report in checked),
                "quarantined": quarantined,
                **missing,
            },
        )

    return [raw]
