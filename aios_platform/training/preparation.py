"""What a training begins with: rows split by time and encoded, and the plan of its networks."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.dataset as pad

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.contracts.models import Epoch
from aios_platform.contracts.record import digest_of
from aios_platform.contracts.training import Training
from aios_platform.training.allocation import allocate
from aios_platform.training.encoding import Encoding, fit_encoding, raw_inputs
from aios_platform.training.split import Side, Split, split_windows
from aios_platform.training.tokens import text_options

if TYPE_CHECKING:
    from aios_platform.training.data import Rows
    from aios_platform.training.encoder import InputEncoder
    from aios_platform.training.fit import Plan
    from aios_platform.training.objective import Objective


@dataclass(frozen=True)
class Prepared:
    """Encoded rows and what they were encoded with.

    Attributes:
        split: The rows as they came, by time.
        encoding: What was learnt of the training rows.
        encoder: The encoding as a network's first layer.
        plan: What all networks of the ensemble have in common.
    """

    split: Split
    encoding: Encoding
    encoder: "InputEncoder"
    plan: "Plan"


def prepare(
    training: Training,
    schema: FeatureSchema,
    frame: pa.Table | pad.Dataset,
    *,
    label: str,
    workdir: Path,
    answers: AnswerSchema,
    window_column: str = "window",
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Prepared:
    """Split and encode the rows; the arguments are those of `trainer.train`.

    Raises:
        TrainingError: The frame cannot be trained on.
    """
    from aios_platform.training.encoder import InputEncoder
    from aios_platform.training.fit import Plan
    from aios_platform.training.objective import objective_of

    split = split_windows(frame, label, window_column, training.validation_windows, answers.task)
    objective = objective_of(answers, split.train, label)
    encoding = fit_encoding(split.train, schema, text_options(training.network_options))
    encoder = InputEncoder(encoding)
    train_rows, validation_rows = (
        _rows(side, schema, encoding, encoder, objective, label, workdir)
        for side in (split.train, split.validation)
    )
    plan = Plan(
        training=training,
        objective=objective,
        inputs=encoder.inputs,
        train=train_rows,
        validation=validation_rows,
        folder=workdir / _fingerprint(training, schema, answers, train_rows, validation_rows)[:16],
        on_epoch=on_epoch or (lambda _: None),
    )
    return Prepared(split, encoding, encoder, plan)


def _rows(
    side: Side,
    schema: FeatureSchema,
    encoding: Encoding,
    encoder: "InputEncoder",
    objective: "Objective",
    label: str,
    folder: Path,
) -> "Rows":
    """Encoded rows as tensors; the encoding has nothing to learn, so once is enough."""
    rows: Rows = ()
    done = 0
    for part in side.batches([*schema.names, label]):
        encoded = encoder.encode(raw_inputs(part, schema, encoding))
        arrays = [*encoded, objective.targets(objective.truth(part[label]))]
        rows = rows or allocate(side.rows, arrays, folder)
        for whole, array in zip(rows, arrays, strict=True):
            whole[done : done + part.num_rows] = array
        done += part.num_rows
    return rows


def _fingerprint(
    training: Training,
    schema: FeatureSchema,
    answers: AnswerSchema,
    train_rows: "Rows",
    validation_rows: "Rows",
) -> str:
    """Digest of everything that the weights depend on."""
    import torch

    from aios_platform.training.networks import network_source

    content = hashlib.sha256()
    for array in (*train_rows, *validation_rows):
        if array.numel():
            content.update(memoryview(array.numpy()).cast("B"))
    return digest_of(
        [
            training.fingerprint,
            schema.fingerprint,
            answers.fingerprint,
            network_source(training.network),
            content.hexdigest(),
            torch.__version__,
        ]
    )
