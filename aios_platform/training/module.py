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
from aios_platform.errors import TrainingDiverged
from aios_platform.training.data import Rows, stream_seed
from aios_platform.training.objective import Objective

MONITOR = "validation_loss"

log = logging.getLogger(__name__)


class Tally:
    """What a module counts and reports; one object, so that nobody's own attributes clash with it.

    Args:
        objective: The task.
        member: Which network of the ensemble it is.
        seed: Seed of dropout; each epoch has its own stream, so that a resumed training repeats it.
        on_epoch: Called after each epoch.
    """

    def __init__(
        self, objective: Objective, *, member: int, seed: int, on_epoch: Callable[[Epoch], None]
    ) -> None:
        self.objective = objective
        self.member = member
        self.seed = seed
        self.on_epoch = on_epoch
        self.epochs: list[Epoch] = []
        self.loss = torch.zeros(())
        self.rows = 0
        self.started = 0.0
        self.outputs: list[Tensor] = []
        self.targets: list[Tensor] = []

    def start(self, epoch: int, device: torch.device) -> None:
        """Start an epoch's random stream and sums."""
        torch.manual_seed(stream_seed(self.seed, epoch))
        self.loss = torch.zeros((), device=device)
        self.rows = 0
        self.started = monotonic()

    def learnt(self, loss: Tensor, rows: int) -> None:
        """Count a step's mean loss towards the epoch's."""
        self.loss += loss.detach() * rows
        self.rows += rows

    def report(self, number: int) -> Epoch:
        """What an epoch came to.

        Raises:
            TrainingDiverged: A loss is not finite; such weights are never kept.
        """
        outputs = torch.cat(self.outputs).cpu().double()
        targets = torch.cat(self.targets)
        self.outputs, self.targets = [], []
        loss = float(self.loss) / max(self.rows, 1)
        if not (np.isfinite(loss) and bool(torch.isfinite(outputs).all())):
            raise TrainingDiverged(
                f"The loss of network {self.member} is not finite in epoch {number} "
                f"(training {loss}).",
                remedy="Lower training.learning_rate, and look for extreme feature values.",
            )
        epoch = Epoch(
            member=self.member,
            epoch=number,
            seconds=monotonic() - self.started,
            train_loss=loss,
            validation=self.objective.report(outputs, targets),
        )
        self.epochs.append(epoch)
        log.info(
            "network %d, epoch %d: training loss %.4f, validation %s (%.1f s)",
            epoch.member,
            epoch.epoch,
            epoch.train_loss,
            ", ".join(f"{name} {value:.4f}" for name, value in epoch.validation.items()),
            epoch.seconds,
        )
        return epoch


class Reporting(pl.LightningModule):  # type: ignore[misc]
    """What every module does here, whoever wrote it: seeds, validation, reports of epochs.

    It is mixed into a Lightning module of one's own before that module's class, so that only
    `forward`, `training_step` and `configure_optimizers` are needed there.
    """

    aios_tally: Tally

    def aios_outputs(self, *inputs: Tensor) -> Tensor:
        """What the network gives, shape (n, outputs)."""
        found: Tensor = self(*inputs)
        return found

    def on_train_epoch_start(self) -> None:
        """Start the epoch."""
        self.aios_tally.start(self.current_epoch, self.device)
        super().on_train_epoch_start()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the loss that a module of one's own returned."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            self.aios_tally.learnt(loss, len(batch[-1]))
        super().on_train_batch_end(outputs, batch, batch_idx)

    def validation_step(self, batch: Rows, _: int) -> None:
        """Collect outputs."""
        *inputs, targets = batch
        self.aios_tally.outputs.append(self.aios_outputs(*inputs).float())
        self.aios_tally.targets.append(targets)

    def on_validation_epoch_end(self) -> None:
        """Report the epoch.

        Raises:
            TrainingDiverged: A loss is not finite; such weights are never kept.
        """
        tally = self.aios_tally
        epoch = tally.report(self.current_epoch)
        self.log(MONITOR, epoch.validation[tally.objective.criterion])
        tally.on_epoch(epoch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the reports with the weights they describe."""
        epochs = [epoch.model_dump(mode="json") for epoch in self.aios_tally.epochs]
        checkpoint["epochs"] = json.dumps(epochs)
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the reports of the epochs that are done."""
        stored = json.loads(checkpoint["epochs"])
        self.aios_tally.epochs = [Epoch.model_validate(epoch) for epoch in stored]
        super().on_load_checkpoint(checkpoint)


class Supervised(Reporting):
    """The platform's own way of training: the task's loss, AdamW, one cycle of the learning rate.

    The cycle is that of Smith and Topin (2017, "Super-Convergence").

    Args:
        network: Gives outputs from encoded inputs.
        objective: The task.
        learning_rate: The peak of the cycle.
        weight_decay: Decoupled weight decay.
        steps: Steps of all epochs, over which the learning rate makes its cycle.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        *,
        learning_rate: float,
        weight_decay: float,
        steps: int,
    ) -> None:
        super().__init__()
        # Lightning steps once per batch of its own, which here is a block of ours.
        self.automatic_optimization = False
        self.network = network
        self._loss_of = objective.loss
        self._learning_rate = learning_rate
        self._weight_decay = weight_decay
        self._steps = steps

    def aios_outputs(self, *inputs: Tensor) -> Tensor:
        """What the network gives, shape (n, outputs)."""
        found: Tensor = self.network(*inputs)
        return found

    def training_step(self, batches: Iterator[Rows], _: int) -> None:
        """One step on the mean loss of each batch of a block."""
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        for *inputs, targets in batches:
            loss = self._loss_of(self.network(*inputs), targets)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            schedule.step()
            self.aios_tally.learnt(loss, len(targets))

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
