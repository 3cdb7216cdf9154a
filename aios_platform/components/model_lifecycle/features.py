"""Assets `features` and `online_features`: feature tables per window, and their newest values."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dagster as dg

from aios_platform.components.model_lifecycle.jobs import partitions_of
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.spans import delivered_windows, span
from aios_platform.components.model_lifecycle.state import featured_keys
from aios_platform.preloading import preloading
from aios_platform.resources.stores import Artifacts, Features
from aios_platform.telemetry import stage

# A window reads raw tables only, so windows do not wait for each other; DuckDB works outside the
# interpreter's lock. Two bound the memory to that of two windows.
WINDOWS_AT_ONCE = 2


def feature_assets(names: Names) -> list[dg.AssetsDefinition]:
    """`features` from the model's SQL; `online_features` in Feast's online store."""
    declaration = names.declaration
    partitions = partitions_of(declaration.windows)
    one_run = dg.BackfillPolicy.single_run()

    @dg.asset(
        key=names.asset("features"),
        group_name=names.model,
        deps=[
            dg.AssetDep(
                names.asset("raw"),
                partition_mapping=dg.TimeWindowPartitionMapping(
                    start_offset=-declaration.features.lookback_windows,
                    allow_nonexistent_upstream_partitions=True,
                ),
            )
        ],
        partitions_def=partitions,
        backfill_policy=one_run,
        kinds={"duckdb", "parquet"},
        owners=[declaration.owner],
        description="Feature tables made by the model's SQL from what was known at each moment.",
    )
    def features(context: dg.AssetExecutionContext, artifacts: Artifacts) -> Iterator[Any]:
        # Before the block below, in which nothing else may be imported.
        import duckdb  # noqa: F401
        import pyarrow.dataset  # noqa: F401

        from aios_platform.features.tables import build_feature_tables

        store = artifacts.open()
        rows = tables = 0
        with stage(names.model, "features", span(context)) as made:
            windows = delivered_windows(context, names, store)
            # `online_features` needs Feast next; DuckDB works outside the interpreter's lock.
            with preloading("feast"), ThreadPoolExecutor(WINDOWS_AT_ONCE) as pool:
                built = pool.map(
                    lambda window: build_feature_tables(
                        declaration, names.sql_folder, window, store
                    ),
                    windows,
                )
                finished = list(zip(windows, built, strict=True))
            for window, versions in finished:
                written = sum(version.rows for version in versions)
                context.add_asset_metadata(
                    {
                        "dagster/row_count": written,
                        **{f"digest_{v.dataset.rsplit('/', 1)[-1]}": v.digest for v in versions},
                    },
                    asset_key=context.asset_key,
                    partition_key=window.key,
                )
                rows, tables = rows + written, len(versions)
            made.append(f"{tables} tables, {rows:,} rows")
        yield dg.MaterializeResult(
            metadata={"summary": f"{span(context)}: {tables} feature tables, {rows:,} rows"}
        )

    @dg.asset(
        key=names.asset("online_features"),
        group_name=names.model,
        deps=[names.asset("features")],
        partitions_def=partitions,
        backfill_policy=one_run,
        kinds={"feast", "postgres"},
        owners=[declaration.owner],
        description="Newest feature values per entity, for reads at request time.",
    )
    def online_features(
        context: dg.AssetExecutionContext, artifacts: Artifacts, features: Features
    ) -> Iterator[Any]:
        from aios_platform.features.materialize import materialize

        with stage(names.model, "online_features", span(context)) as made:
            store = artifacts.open()
            # Earlier windows too: what is there is passed over, and what a killed run left out
            # is made up for.
            last = context.partition_keys[-1]
            windows = [
                declaration.windows.window(key)
                for key in sorted(featured_keys(names, store))
                if key <= last
            ]
            written = materialize(declaration, windows, store, features.open())
            rows = sum(written.values())
            made.append(f"{rows:,} values of {len(written)} feature views")
        yield dg.MaterializeResult(
            metadata={
                "summary": f"{rows:,} entities' newest values of {len(written)} feature views",
                **{f"rows_{view}": count for view, count in written.items()},
            }
        )

    return [features, online_features]
