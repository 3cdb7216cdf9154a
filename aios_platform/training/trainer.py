"""Training of a declared model: labelled frame in, calibrated single-file ONNX out."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pad
from numpy.typing import NDArray

from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.contracts.models import Calibration, Epoch, TrainedModel
from aios_platform.contracts.record import digest_of
from aios_platform.contracts.training import Training
from aios_platform.metrics import evaluate
from aios_platform.training.calibration import fit_intercept, fit_slope
from aios_platform.training.encoding import (
    Encoding,
    categorical_codes,
    fit_encoding,
    numerical_matrix,
)
from aios_platform.training.split import Side, split_windows

if TYPE_CHECKING:
    from torch import nn

    from aios_platform.training.data import Rows
    from aios_platform.training.networks import NumericalEncoding

PARITY_ROWS = 8192
CHUNK = 8192

log = logging.getLogger(__name__)


def train(
    training: Training,
    schema: FeatureSchema,
    frame: pa.Table | pad.Dataset,
    *,
    label: str,
    workdir: Path,
    window_column: str = "window",
    on_epoch: Callable[[Epoch], None] | None = None,
) -> TrainedModel:
    """Train, calibrate and export.

    Early stopping and calibration use the last `validation_windows` windows, from which nothing
    is learnt: neither weights nor quantiles nor vocabularies. A call that was killed is taken up
    by the same call from its last epoch, and gives the same weights as one that was not.

    Args:
        training: The declared training.
        schema: The model's inputs.
        frame: The training set; rows without a label are left out. A dataset is read in pieces, and
            never held whole.
        label: Column of the label, bool.
        workdir: Folder of checkpoints; delete it once the model is registered.
        window_column: Column of window keys, whose order is that of time.
        on_epoch: Called after each epoch, to show progress.

    Raises:
        TrainingError: The frame cannot be trained on, or a loss is not finite.
        ExportError: The exported graph does not reproduce the network.
    """
    from aios_platform.training.export import export_onnx, verify_parity
    from aios_platform.training.fit import Plan, fit_member
    from aios_platform.training.networks import CalibratedEnsemble, NumericalEncoding

    started = monotonic()
    split = split_windows(frame, label, window_column, training.validation_windows)
    encoding = fit_encoding(split.train, schema)
    encoder = NumericalEncoding(encoding)
    train_rows = _rows(split.train, schema, encoding, encoder, label)
    validation_rows = _rows(split.validation, schema, encoding, encoder, label)
    plan = Plan(
        training=training,
        train=train_rows,
        validation=validation_rows,
        width=encoder.width,
        cardinalities=encoding.cardinalities,
        folder=workdir / _fingerprint(training, schema, train_rows, validation_rows)[:16],
        on_epoch=on_epoch or (lambda _: None),
    )
    members = [fit_member(plan, member) for member in range(training.members)]

    held_out = _logits([member.network for member in members], validation_rows)
    truth = validation_rows[2].numpy() > 0
    slope = fit_slope(held_out, truth, split.validation.select([window_column])[0].to_numpy())
    learnt = _logits([member.network for member in members], train_rows)
    intercept = fit_intercept(
        slope * np.concatenate([learnt, held_out]),
        np.concatenate([train_rows[2].numpy() > 0, truth]),
    )
    # The largest thing there is; what follows needs memory of its own.
    del plan, train_rows
    model = CalibratedEnsemble(
        encoder, [member.network for member in members], slope, intercept
    ).eval()
    onnx = export_onnx(model, schema, encoding)
    rows = split.validation.first(list(schema.names), PARITY_ROWS)
    parity = verify_parity(onnx, model, schema, encoding, rows)
    metrics = evaluate(truth, 1 / (1 + np.exp(-(slope * held_out + intercept))))
    log.info(
        "trained in %.1f s: validation ROC AUC %.4f, ECE %.4f",
        monotonic() - started,
        metrics["roc_auc"],
        metrics["ece"],
    )
    return TrainedModel(
        onnx=onnx,
        digest=hashlib.sha256(onnx).hexdigest(),
        metrics=metrics,
        parameters={
            **{name: str(value) for name, value in training.model_dump(mode="json").items()},
            "best_epochs": ",".join(str(member.best_epoch) for member in members),
            "network_parameters": sum(p.numel() for p in members[0].network.parameters()),
        },
        calibration=Calibration(slope=slope, intercept=intercept),
        epochs=tuple(epoch for member in members for epoch in member.epochs),
        train_windows=split.train.windows,
        validation_windows=split.validation.windows,
        rows=split.train.rows + split.validation.rows,
        parity=parity,
        seconds=monotonic() - started,
        resumed=any(member.resumed for member in members),
    )


def _rows(
    side: Side,
    schema: FeatureSchema,
    encoding: Encoding,
    encoder: "NumericalEncoding",
    label: str,
) -> "Rows":
    """Encoded rows as tensors; the encoding has nothing to learn, so once is enough."""
    import torch

    encoded = torch.empty((side.rows, encoder.width), dtype=torch.float32)
    codes = torch.empty((side.rows, len(schema.categorical)), dtype=torch.int64)
    labels = torch.empty(side.rows, dtype=torch.float32)
    done = 0
    for part in side.batches([*schema.names, label]):
        here = slice(done, done + part.num_rows)
        encoded[here] = encoder.encode(numerical_matrix(part, schema))
        codes[here] = torch.from_numpy(categorical_codes(part, schema, encoding.vocabularies))
        labels[here] = torch.from_numpy(part[label].to_numpy().astype(np.float32))
        done += part.num_rows
    return encoded, codes, labels


def _logits(networks: Sequence["nn.Module"], rows: "Rows") -> NDArray[np.float64]:
    """Mean logits of the networks, shape (n,)."""
    import torch

    encoded, codes, _ = rows
    with torch.inference_mode():
        parts = [
            torch.stack([network(*batch) for network in networks]).mean(dim=0)
            for batch in zip(encoded.split(CHUNK), codes.split(CHUNK), strict=True)
        ]
        logits: NDArray[np.float64] = torch.cat(parts).double().numpy()
    return logits


def _fingerprint(
    training: Training, schema: FeatureSchema, train_rows: "Rows", validation_rows: "Rows"
) -> str:
    """Digest of everything that the weights depend on."""
    import torch

    content = hashlib.sha256()
    for array in (*train_rows, *validation_rows):
        content.update(memoryview(array.numpy()).cast("B"))
    return digest_of(
        [training.fingerprint, schema.fingerprint, content.hexdigest(), torch.__version__]
    )
