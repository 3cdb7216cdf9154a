"""Candidates: trained and registered with their row in the ledger, and found again by version."""

import shutil
from typing import TYPE_CHECKING, Any

from aios_platform.components.model_lifecycle.faults import without_faults
from aios_platform.components.model_lifecycle.handoff import Candidate
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.plan import split_windows
from aios_platform.components.model_lifecycle.state import featured_keys, matured_keys
from aios_platform.contracts.datasets import TrainingSet
from aios_platform.errors import LifecycleError, PromotionError
from aios_platform.features.pinned_sets import recall, remember
from aios_platform.known import INSTANT
from aios_platform.settings import settings

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa
    import pyarrow.dataset as pad

    from aios_platform.artifacts import ArtifactStore
    from aios_platform.contracts.models import ModelVersion, TrainedModel
    from aios_platform.database import Database
    from aios_platform.features.leakage import LeakageReport
    from aios_platform.features.training_set import FeatureFrames
    from aios_platform.resources.stores import Stores

CANDIDATE = "candidate"
MOST_ROWS = 10_000


def pin_training_set(
    names: Names, stores: "Stores", as_of: "datetime", *, sample: float | None = None
) -> "tuple[TrainingSet, LeakageReport]":
    """Assemble the training windows and the exam, check them for leaks, and keep the record.

    Args:
        names: The model.
        stores: Where everything is.
        as_of: Nothing that became known later is looked at.
        sample: Share of the training rows that will be taken; None: all.

    Raises:
        LifecycleError: There are too few matured windows.
    """
    from aios_platform.features.leakage import audit

    declaration, store = names.declaration, stores.artifacts
    assembled, training = assemble_matured(names, stores, as_of)
    report = audit(declaration, names.sql_folder, assembled, store)
    record = TrainingSet(
        frames=assembled.versions[:training],
        exam=assembled.versions[training:],
        features=assembled.schema,
        service_digest=assembled.service_digest,
        as_of=as_of.isoformat(),
        cells_replayed=report.cells_compared,
        sample=sample,
    )
    remember(store, names.model, record)
    return record, report


def assemble_matured(
    names: Names, stores: "Stores", as_of: "datetime"
) -> "tuple[FeatureFrames, int]":
    """Frames of the windows to train on, then of the exam, as of a moment.

    Returns:
        The frames, oldest first, and how many of them are to train on.

    Raises:
        LifecycleError: There are too few matured windows.
    """
    from aios_platform.features.training_set import assemble

    declaration, store = names.declaration, stores.artifacts
    featured = featured_keys(names, store)
    matured = [key for key in matured_keys(declaration, as_of) if key in featured]
    sound = without_faults(names, store, matured)
    usable = [key for key in sound if _has_labels(names, store, key, as_of)]
    split = split_windows(declaration, usable)
    if split is None:
        raise LifecycleError(
            f"{names.model} has {len(usable)} matured windows to learn from "
            f"({len(matured) - len(sound)} more have a data fault, {len(sound) - len(usable)} "
            f"too few labels); training needs {declaration.training.min_windows} and the exam "
            f"{declaration.exam.windows}.",
            remedy=f"Score more windows first (the job '{names.job('score')}'), or lower "
            "training.min_windows.",
        )
    training, exam = ([declaration.windows.window(k) for k in keys] for keys in split)
    frames = assemble(declaration, [*training, *exam], as_of, store, stores.features)
    return frames, len(training)


def _has_labels(names: Names, store: "ArtifactStore", key: str, as_of: "datetime") -> bool:
    """Whether enough of a window's rows have a label that was known by a moment."""
    import pyarrow as pa
    import pyarrow.compute as pc

    label = names.declaration.label
    rows = store.read(store.require(names.raw_rows, key), [label.column, label.known_at])
    known = pc.less_equal(rows[label.known_at].cast(INSTANT), pa.scalar(as_of, INSTANT))
    found = pc.sum(pc.and_(pc.is_valid(rows[label.column]), pc.fill_null(known, False))).as_py()
    return bool(rows.num_rows > 0 and (found or 0) >= label.min_share * rows.num_rows)


def train_candidate(
    names: Names, record: TrainingSet, stores: "Stores"
) -> "tuple[Candidate, TrainedModel, ModelVersion]":
    """Train on a pinned set, register the version, and write who did it to the ledger.

    The same training gives the same version; a call that was killed is finished by the same call.
    The author is whoever registered the version first.

    Raises:
        AccessDenied: Who acts may not train.
        TrainingError: The training gave no usable model.
        RegistryError: MLflow refused.
        StoreError: A store cannot be reached or written.
    """
    from aios_platform.access.principals import require
    from aios_platform.registry.origin import source_digests
    from aios_platform.training.trainer import train

    require("author", "operator", database=stores.database)
    declaration = names.declaration
    workdir = settings().home_path / "training" / names.model / record.digest[:16]
    trained = train(
        declaration.training,
        record.features,
        training_frame(stores.artifacts, record),
        label=declaration.label.column,
        answers=declaration.answers,
        workdir=workdir,
    )
    with stores.database.lock(f"register {names.model}"):
        version = stores.registry.register(
            declaration=declaration,
            trained=trained,
            training_set=record,
            store=stores.artifacts,
            sources=source_digests(names.folder, names.sql_folder),
        )
        author = _record(names, stores.database, version, trained, record)
    shutil.rmtree(workdir, ignore_errors=True)
    stores.registry.set_author(names.model, version.version, author)
    candidate = Candidate(
        version=version.version,
        run_id=version.run_id,
        model_digest=trained.digest,
        training_set_digest=record.digest,
        trained_through=record.windows[-1],
        training_set=record,
        author=author,
        onnx_parity=trained.parity,
    )
    return candidate, trained, version


def candidate_of(names: Names, version: str, stores: "Stores") -> Candidate:
    """The candidate that a registered version is, as the ledger knows it.

    MLflow says where the version is; what it was trained on and by whom comes from the ledger,
    whose rows nobody can edit.

    Raises:
        RegistryError: There is no such version.
        PromotionError: No row of the ledger is about this version and these bytes.
        ArtifactMissing: Its training set's record is gone.
        DatabaseUnavailable: A store does not answer.
    """
    found = stores.registry.version(names.model, version)
    row = _row_of(stores.database, found)
    if row is None:
        raise PromotionError(
            f"The ledger has no row about version {version} of {names.model} with the bytes "
            f"{found.digest[:12]}: nobody knows who trained it, or its tags were edited.",
            remedy=f"Train it again: `aios train {names.model}`.",
        )
    record = recall(stores.artifacts, names.model, found.training_set_digest)
    return Candidate(
        version=version,
        run_id=found.run_id,
        model_digest=found.digest,
        training_set_digest=found.training_set_digest,
        trained_through=record.windows[-1],
        training_set=record,
        author=str(row["author"]),
        onnx_parity=None if row["onnx_parity"] is None else float(row["onnx_parity"]),
    )


def training_frame(store: "ArtifactStore", record: TrainingSet) -> "pa.Table | pad.Dataset":
    """The rows to train on, as they lie in files; of a sample, the same rows every time."""
    import numpy as np
    import pyarrow as pa

    files = store.scan(record.frames)
    if record.sample is None:
        return files
    frame = files.to_table()
    step = 1 / record.sample
    places = np.unique(np.arange(0, frame.num_rows, step).astype(np.int64))
    return frame.take(pa.array(places))


def _record(
    names: Names,
    database: "Database",
    version: "ModelVersion",
    trained: "TrainedModel",
    record: TrainingSet,
) -> str:
    from aios_platform.access.principals import acting
    from aios_platform.ledger.entries import append, payload_of

    with database.begin() as connection:
        row = append(
            connection,
            kind=CANDIDATE,
            subject=names.model,
            payload={
                "version": version.version,
                "author": acting(database).name,
                "model_digest": version.digest,
                "training_set_digest": version.training_set_digest,
                "windows": list(record.windows),
                "rows": trained.rows,
                "sample": record.sample,
                "onnx_parity": trained.parity,
                "validation": trained.metrics,
                "checks": [check.model_dump(mode="json") for check in trained.checks],
                "rows_per_second": trained.rows_per_second,
                "mlflow_run": version.run_id,
            },
            key=_key(version),
            evidence=[version.digest, version.training_set_digest],
        )
        return str(payload_of(connection, row)["author"])


def _key(version: "ModelVersion") -> str:
    # The bytes and rows are in the key: a registry made anew counts its versions from 1 again.
    return (
        f"candidate:{version.model}:{version.version}:{version.digest}:"
        f"{version.training_set_digest}:{version.run_id}"
    )


def _row_of(database: "Database", version: "ModelVersion") -> dict[str, Any] | None:
    from aios_platform.ledger.entries import entries

    for row in entries(database, subject=version.model, kind=CANDIDATE, limit=MOST_ROWS):
        named = row.payload
        if (named["version"], named["model_digest"], named["training_set_digest"]) == (
            version.version,
            version.digest,
            version.training_set_digest,
        ):
            return named
    return None
