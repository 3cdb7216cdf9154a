"""Assets `training_set` and `candidate`: a pinned set, then a trained and registered version."""

import dagster as dg

from aios_platform.components.model_lifecycle.candidates import pin_training_set, train_candidate
from aios_platform.components.model_lifecycle.handoff import hand_on, take
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.principals import acting_for
from aios_platform.components.model_lifecycle.spans import clock_of
from aios_platform.contracts.datasets import TrainingSet
from aios_platform.resources.stores import Artifacts, Stores
from aios_platform.settings import settings
from aios_platform.telemetry import stage

NO_LEAKAGE = "no_leakage"


def training_assets(names: Names) -> list[dg.AssetsDefinition]:
    """`training_set` pins versions and refuses leaks; `candidate` is trained on exactly those."""
    declaration = names.declaration

    @dg.asset(
        key=names.asset("training_set"),
        group_name=names.model,
        deps=[names.asset("features")],
        kinds={"feast", "parquet"},
        owners=[declaration.owner],
        check_specs=[
            dg.AssetCheckSpec(
                NO_LEAKAGE,
                asset=names.asset("training_set"),
                blocking=True,
                description="Made again from what was known at sampled moments, every feature has "
                "the same value; none separates the label by itself.",
            )
        ],
        description="Point-in-time rows of the training windows and of the exam, pinned by digest.",
    )
    def training_set(
        context: dg.AssetExecutionContext, artifacts: Artifacts
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        stores = Stores(artifacts.open())
        with stage(names.model, "training_set", "matured windows") as made:
            record, report = pin_training_set(names, stores, clock_of(context))
            made.append(f"{record.rows:,} rows, {len(record.features.fields)} features")
        if report.passed:
            hand_on(stores.artifacts, context, "training_set", record)
        return dg.MaterializeResult(
            metadata={
                "summary": f"{record.rows:,} rows of {len(record.frames)} windows, "
                f"{len(record.features.fields)} features; exam {', '.join(record.exam_windows)}",
                "dagster/row_count": record.rows,
                "digest": record.digest,
                "windows": ", ".join(record.windows),
                "exam_windows": ", ".join(record.exam_windows),
                "as_of": record.as_of,
                "features": ", ".join(record.features.names),
            },
            check_results=[
                dg.AssetCheckResult(
                    passed=report.passed,
                    check_name=NO_LEAKAGE,
                    severity=dg.AssetCheckSeverity.ERROR,
                    metadata={"report": dg.MetadataValue.json(report.model_dump(mode="json"))},
                )
            ],
        )

    @dg.asset(
        key=names.asset("candidate"),
        group_name=names.model,
        deps=[names.asset("training_set")],
        kinds={"pytorch", "mlflow", "onnx"},
        owners=[declaration.owner],
        pool="training",
        description="Trained with Lightning, calibrated, exported to ONNX, registered in MLflow.",
    )
    def candidate(context: dg.AssetExecutionContext, artifacts: Artifacts) -> dg.MaterializeResult:  # type: ignore[type-arg]
        stores = Stores(artifacts.open())
        record = take(stores.artifacts, context, "training_set", TrainingSet)
        with stage(names.model, "candidate", f"{len(record.frames)} windows") as made:
            with acting_for(context.run):
                made_of, trained, version = train_candidate(names, record, stores)
            made.append(f"version {version.version}")
        hand_on(stores.artifacts, context, "candidate", made_of)
        return dg.MaterializeResult(
            metadata={
                "summary": f"version {version.version}, {len(trained.epochs)} epochs on "
                f"{trained.rows:,} rows in {trained.seconds:.0f} s",
                "version": version.version,
                "mlflow": dg.MetadataValue.url(
                    f"{settings().mlflow_url}/#/models/{names.model}/versions/{version.version}"
                ),
                "mlflow_run": version.run_id,
                "author": made_of.author,
                "model_digest": trained.digest,
                "onnx_parity": trained.parity,
                "resumed": trained.resumed,
                **{f"validation_{k}": v for k, v in trained.metrics.items()},
            }
        )

    return [training_set, candidate]
