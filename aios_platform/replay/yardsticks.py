"""What the live model is held against: trained again with every window, or never.

Neither is a model of the platform: they are not registered, not judged, and never live.
"""

import shutil
import time
from datetime import datetime
from typing import TYPE_CHECKING

from aios_platform.components.model_lifecycle.candidates import (
    CANDIDATE,
    MOST_ROWS,
    assemble_matured,
    training_frame,
)
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.datasets import TrainingSet
from aios_platform.ledger.entries import entries
from aios_platform.replay.progress import EveryTraining
from aios_platform.settings import settings

if TYPE_CHECKING:
    from aios_platform.resources.stores import Stores


def train_every(
    names: Names, stores: "Stores", window: str, clock: datetime, *, shared_seconds: float
) -> EveryTraining:
    """Train as the loop would have, had it been asked to at this moment.

    Where it was, its model is taken: the same rows give the same bytes.

    Args:
        names: The model.
        stores: Where everything is.
        window: The window whose labels have just matured.
        clock: The moment; nothing that became known later is looked at.
        shared_seconds: What the loop's own training at this moment took.

    Raises:
        LifecycleError: There are too few matured windows.
        TrainingError: The training gave no usable model.
    """
    begin = time.perf_counter()
    record = _training_set(names, stores, clock)
    kept = _trained_by_the_loop(names, stores, record.digest)
    digest = kept or _train(names, stores, record)
    return EveryTraining(
        window=window,
        clock=clock,
        trained_through=record.windows[-1],
        training_set_digest=record.digest,
        model_digest=digest,
        seconds=shared_seconds if kept else time.perf_counter() - begin,
        shared=kept is not None,
    )


def _training_set(names: Names, stores: "Stores", clock: datetime) -> TrainingSet:
    frames, training = assemble_matured(names, stores, clock)
    return TrainingSet(
        frames=frames.versions[:training],
        exam=frames.versions[training:],
        features=frames.schema,
        service_digest=frames.service_digest,
        as_of=clock.isoformat(),
        # Features are those of the loop, which looks for leaks; a yardstick does not look again.
        cells_replayed=0,
    )


def _trained_by_the_loop(names: Names, stores: "Stores", training_set: str) -> str | None:
    for row in entries(stores.database, subject=names.model, kind=CANDIDATE, limit=MOST_ROWS):
        if row.payload["training_set_digest"] == training_set:
            return str(row.payload["model_digest"])
    return None


def _train(names: Names, stores: "Stores", record: TrainingSet) -> str:
    from aios_platform.training.trainer import train

    declaration = names.declaration
    workdir = settings().home_path / "training" / names.model / f"yardstick-{record.digest[:16]}"
    trained = train(
        declaration.training,
        record.features,
        training_frame(stores.artifacts, record),
        label=declaration.label.column,
        workdir=workdir,
    )
    stores.artifacts.put(trained.onnx, ".onnx")
    shutil.rmtree(workdir, ignore_errors=True)
    return trained.digest
