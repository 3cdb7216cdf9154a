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

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.contracts.models import Epoch, TrainedModel
from aios_platform.contracts.training import Training
from aios_platform.metrics import evaluate
from aios_platform.metrics.quantiles import quantile_metrics
from aios_platform.metrics.truth import judged
from aios_platform.training.preparation import prepare

if TYPE_CHECKING:
    from torch import nn

    from aios_platform.training.data import Rows
    from aios_platform.training.ensemble import Judged

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
    answers: AnswerSchema | None = None,
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
        label: Column of the label: bool, a class's name, or a number.
        workdir: Folder of checkpoints; delete it once the model is registered.
        answers: What the model answers; unset, a probability.
        window_column: Column of window keys, whose order is that of time.
        on_epoch: Called after each epoch, to show progress.

    Raises:
        TrainingError: The frame cannot be trained on, a loss is not finite, or what was trained
            answers a row by the rows beside it.
        ExportError: The exported graph does not reproduce the network.
    """
    from aios_platform.training.ensemble import CalibratedEnsemble, Judged, fit_head
    from aios_platform.training.export import export_onnx, verify_parity
    from aios_platform.training.fit import fit_member
    from aios_platform.training.soundness import check_networks

    started = monotonic()
    answers = answers or AnswerSchema()
    prepared = prepare(
        training, schema, frame, label=label, workdir=workdir, answers=answers,
        window_column=window_column, on_epoch=on_epoch,
    )  # fmt: skip
    split, encoding, encoder, plan = (
        prepared.split, prepared.encoding, prepared.encoder, prepared.plan,
    )  # fmt: skip
    objective = plan.objective
    members = [fit_member(plan, member) for member in range(training.members)]

    networks = [member.network for member in members]
    learnt, held_out = (
        Judged(_outputs(networks, rows), objective.learnt(rows[-1]))
        for rows in (plan.train, plan.validation)
    )
    head, calibration = fit_head(
        objective, learnt, held_out, split.validation.select([window_column])[0].to_numpy()
    )
    checks = check_networks(plan, networks)
    # The largest thing there is; what follows needs memory of its own.
    del prepared, plan
    model = CalibratedEnsemble(encoder, networks, head).eval()
    onnx = export_onnx(model, schema, encoding, answers)
    rows = split.validation.first(list(schema.names), PARITY_ROWS)
    parity = verify_parity(onnx, model, schema, encoding, rows)
    metrics = _metrics(answers, head, held_out)
    log.info(
        "trained in %.1f s: validation %s",
        monotonic() - started,
        ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()),
    )
    return TrainedModel(
        onnx=onnx,
        digest=hashlib.sha256(onnx).hexdigest(),
        metrics=metrics,
        parameters={
            **{name: str(value) for name, value in training.model_dump(mode="json").items()},
            "best_epochs": ",".join(str(member.best_epoch) for member in members),
            "network_parameters": sum(p.numel() for p in networks[0].parameters()),
        },
        calibration=calibration,
        epochs=tuple(epoch for member in members for epoch in member.epochs),
        checks=checks,
        train_windows=split.train.windows,
        validation_windows=split.validation.windows,
        rows=split.train.rows + split.validation.rows,
        parity=parity,
        seconds=monotonic() - started,
        resumed=any(member.resumed for member in members),
    )


def _metrics(answers: AnswerSchema, head: "nn.Module", rows: "Judged") -> dict[str, float]:
    """Metrics of held-out rows after calibration."""
    import torch

    with torch.inference_mode():
        found = head(torch.from_numpy(rows.outputs)).numpy().astype(np.float64)
    metrics = evaluate(rows.truth, judged(found, answers.task), task=answers.task)
    if answers.quantiles:
        metrics |= quantile_metrics(rows.truth, found[:, 1:], answers.quantiles)
    return metrics


def _outputs(networks: Sequence["nn.Module"], rows: "Rows") -> NDArray[np.float64]:
    """Mean outputs of the networks, shape (n, outputs)."""
    import torch

    *inputs, _ = (array.split(CHUNK) for array in rows)
    with torch.inference_mode():
        parts = [
            torch.stack([network(*batch) for network in networks]).mean(dim=0)
            for batch in zip(*inputs, strict=True)
        ]
        outputs: NDArray[np.float64] = torch.cat(parts).double().numpy()
    return outputs
