"""Assets `training_set` and `candidate`: a pinned set, then a trained and registered version."""

import shutil
from typing import TYPE_CHECKING

import dagster as dg

from aios_platform.components.model_lifecycle.handoff import (
    Candidate,
    TrainingSet,
    hand_on,
    remember,
    take,
)
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.plan import split_windows
from aios_platform.components.model_lifecycle.spans import clock_of
from aios_platform.components.model_lifecycle.state import featured_keys, matured_keys
from aios_platform.errors import LifecycleError
from aios_platform.resources.stores import Artifacts, Features, Ledger, Registry
from aios_platform.settings import settings
from aios_platform.telemetry import stage

if TYPE_CHECKING:
    import pyarrow as pa

    from aios_platform.artifacts import ArtifactStore

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
        context: dg.AssetExecutionContext, artifacts: Artifacts, features: Features
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from aios_platform.features.leakage import audit
        from aios_platform.features.training_set import assemble

        store, as_of = artifacts.open(), clock_of(context)
        featured = featured_keys(names, store)
        usable = [key for key in matured_keys(declaration, as_of) if key in featured]
        split = split_windows(declaration, usable)
        if split is None:
            raise LifecycleError(
                f"{names.model} has {len(usable)} matured windows with features; training needs "
                f"{declaration.training.min_windows} and the exam {declaration.exam.windows}.",
                remedy="Score more windows first (the job "
                f"'{names.job('score')}'), or lower training.min_windows.",
            )
        training, exam = ([declaration.windows.window(k) for k in keys] for keys in split)
        with stage(names.model, "training_set", f"{training[0]} to {training[-1]}") as made:
            assembled = assemble(declaration, [*training, *exam], as_of, store, features.open())
            report = audit(declaration, names.sql_folder, assembled, store)
            record = TrainingSet(
                frames=assembled.versions[: len(training)],
                exam=assembled.versions[len(training) :],
                features=assembled.schema,
                service_digest=assembled.service_digest,
                as_of=as_of.isoformat(),
                cells_replayed=report.cells_compared,
            )
            made.append(f"{record.rows:,} rows, {len(record.features.fields)} features")
        remember(store, names.model, record)
        if report.passed:
            hand_on(store, context, "training_set", record)
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
    def candidate(
        context: dg.AssetExecutionContext, artifacts: Artifacts, ledger: Ledger, registry: Registry
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from aios_platform.training.trainer import train

        store = artifacts.open()
        record = take(store, context, "training_set", TrainingSet)
        with stage(names.model, "candidate", f"{len(record.frames)} windows") as made:
            workdir = settings().home_path / "training" / names.model / record.digest[:16]
            trained = train(
                declaration.training,
                record.features,
                _frame(store, record),
                label=declaration.label.column,
                workdir=workdir,
            )
            with ledger.open().lock(f"register {names.model}"):
                version = registry.open().register(
                    declaration=declaration, trained=trained, training_set=record, store=store
                )
            shutil.rmtree(workdir, ignore_errors=True)
            made.append(f"version {version.version}")
        hand_on(
            store,
            context,
            "candidate",
            Candidate(
                version=version.version,
                run_id=version.run_id,
                model_digest=trained.digest,
                training_set_digest=record.digest,
                trained_through=record.windows[-1],
                training_set=record,
            ),
        )
        return dg.MaterializeResult(
            metadata={
                "summary": f"version {version.version}, {len(trained.epochs)} epochs on "
                f"{trained.rows:,} rows in {trained.seconds:.0f} s",
                "version": version.version,
                "mlflow": dg.MetadataValue.url(
                    f"{settings().mlflow_url}/#/models/{names.model}/versions/{version.version}"
                ),
                "mlflow_run": version.run_id,
                "model_digest": trained.digest,
                "onnx_parity": trained.parity,
                "resumed": trained.resumed,
                **{f"validation_{k}": v for k, v in trained.metrics.items()},
            }
        )

    return [training_set, candidate]


def _frame(store: "ArtifactStore", record: TrainingSet) -> "pa.Table":
    return store.scan(record.frames).to_table()
