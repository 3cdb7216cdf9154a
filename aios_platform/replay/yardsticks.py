"""What the live model is held against: trained again with every window, or never.

Neither is a model of the platform: they are not registered, not judged, and never live.
"""

import time
from datetime import datetime
from typing import TYPE_CHECKING

from aios_platform.components.model_lifecycle.candidates import (
    CANDIDATE,
    MOST_ROWS,
    assemble_matured,
)
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.datasets import TrainingSet
from aios_platform.ledger.entries import entries
from aios_platform.replay.progress import AskedTraining, EveryTraining
from aios_platform.replay.yardstick_trainer import keep_training_set

if TYPE_CHECKING:
    from aios_platform.resources.stores import Stores


def pin_every(
    names: Names, stores: "Stores", window: str, clock: datetime, *, shared_seconds: float
) -> EveryTraining | AskedTraining:
    """What the loop would have trained on, had it been asked to at this moment.

    Where it was, its model is taken: the same rows give the same bytes.

    Args:
        names: The model.
        stores: Where everything is.
        window: The window whose labels have just matured.
        clock: The moment; nothing that became known later is looked at.
        shared_seconds: What the loop's own training at this moment took.

    Returns:
        The training that the loop did, or the one to ask a `YardstickTrainer` for.

    Raises:
        LifecycleError: There are too few matured windows.
    """
    begin = time.perf_counter()
    record = _training_set(names, stores, clock)
    kept = _trained_by_the_loop(names, stores, record.digest)
    asked = AskedTraining(
        window=window,
        clock=clock,
        trained_through=record.windows[-1],
        training_set_digest=record.digest,
        seconds=shared_seconds if kept else time.perf_counter() - begin,
    )
    if kept:
        return EveryTraining(**asked.model_dump(), model_digest=kept, shared=True)
    keep_training_set(stores.artifacts, names.model, record)
    return asked


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
