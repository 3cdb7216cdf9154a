"""The Lightning side of training: one network of the ensemble."""

import json
import logging
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import numpy as np
import pytorch_lightning as pl  # noqa: TID253
import torch  # noqa: TID253
from torch import Tensor, nn  # noqa: TID253

from aios_platform.contracts.models import Epoch
from aios_platform.errors import TrainingError
from aios_platform.metrics import evaluate
from aios_platform.training.data import Rows, stream_seed

MONITOR = "validation_log_loss"

log = logging.getLogger(__name__)


class BinaryClassifier(pl.LightningModule):  # type: ignore[misc]
    """Logarithmic loss, AdamW, one cycle of the learning rate (Smith and Topin 2017).

    Args:
        network: Gives logits from encoded numericals and codes.
        member: Which network of the ensemble it is.
        learning_rate: The peak of the cycle.
        weight_decay: Decoupled weight decay.
        steps: Steps of all epochs, over which the learning rate makes its cycle.
        seed: Seed of dropout; each epoch has its own stream, so that a resumed training repeats it.
        on_epoch: Called after each epoch.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        member: int,
        learning_rate: float,
        weight_decay: float,
        steps: int,
        seed: int,
        on_epoch: Callable[[Epoch], None],
    ) -> None:
        super().__init__()
        # Lightning steps once per batch of its own, which here is a block of ours.
        self.automatic_optimization = False
        self.network = network
        self._member = member
        self._learning_rate = learning_rate
        self._weight_decay = weight_decay
        self._steps = steps
        self._seed = seed
        self._on_epoch = on_epoch
        self.epochs: list[Epoch] = []
        self._loss = torch.zeros(())
        self._rows = 0
        self._started = 0.0
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def on_train_epoch_start(self) -> None:
        """Start the epoch's random stream and sums."""
        torch.manual_seed(stream_seed(self._seed, self.current_epoch))
        self._loss = torch.zeros((), device=self.device)
        self._rows = 0
        self._started = monotonic()

    def training_step(self, batches: Iterator[Rows], _: int) -> None:
        """One step on the mean loss of each batch of a block."""
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        for encoded, codes, labels in batches:
            logits = self.network(encoded, codes)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            schedule.step()
            self._loss += loss.detach() * len(labels)
            self._rows += len(labels)

    def validation_step(self, batch: Rows, _: int) -> None:
        """Collect logits."""
        encoded, codes, labels = batch
        self._logits.append(self.network(encoded, codes).float())
        self._labels.append(labels)

    def on_validation_epoch_end(self) -> None:
        """Report the epoch.

        Raises:
            TrainingError: A loss is not finite; such weights are never kept.
        """
        logits = torch.cat(self._logits).double()
        labels = torch.cat(self._labels).cpu().numpy() > 0
        self._logits, self._labels = [], []
        train_loss = float(self._loss) / max(self._rows, 1)
        if not (np.isfinite(train_loss) and bool(torch.isfinite(logits).all())):
            raise TrainingError(
                f"The loss of network {self._member} is not finite in epoch {self.current_epoch} "
                f"(training {train_loss}).",
                remedy="Lower training.learning_rate, and look for extreme feature values.",
            )
        metrics = evaluate(labels, torch.sigmoid(logits).cpu().numpy(), ("log_loss", "roc_auc"))
        self.log(MONITOR, metrics["log_loss"])
        epoch = Epoch(
            member=self._member,
            epoch=self.current_epoch,
            seconds=monotonic() - self._started,
            train_loss=train_loss,
            validation=metrics,
        )
        self.epochs.append(epoch)
        log.info(
            "network %d, epoch %d: training loss %.4f, validation loss %.4f, ROC AUC %.4f (%.1f s)",
            epoch.member,
            epoch.epoch,
            epoch.train_loss,
            metrics["log_loss"],
            metrics["roc_auc"],
            epoch.seconds,
        )
        self._on_epoch(epoch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the reports with the weights they describe."""
        checkpoint["epochs"] = json.dumps([epoch.model_dump(mode="json") for epoch in self.epochs])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the reports of the epochs that are done."""
        stored = json.loads(checkpoint["epochs"])
        self.epochs = [Epoch.model_validate(epoch) for epoch in stored]

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW, and one cycle over the planned number of steps."""
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self._learning_rate, weight_decay=self._weight_decay
        )
        schedule = one_cycle(optimizer, self._steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def one_cycle(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """Warm up over a tenth of the steps, then anneal to a thousandth of the peak."""
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=optimizer.defaults["lr"],
        total_steps=max(steps, 2),
        pct_start=0.1,
        div_factor=10,
        final_div_factor=100,
    )
