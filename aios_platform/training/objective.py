"""What a task learns to do: labels as targets, the loss, what an epoch reports.

=========================== ================================ =================================
task                        targets                          loss
=========================== ================================ =================================
binary classification       0 or 1, float32                  logarithmic
multiclass classification   code of the class, int64         logarithmic
regression                  standardised label, float32      squared error of the value, plus
                                                             the pinball loss of each quantile
                                                             (Koenker and Bassett 1978)
=========================== ================================ =================================
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch  # noqa: TID253
from numpy.typing import NDArray
from torch import Tensor, nn  # noqa: TID253

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.errors import DataError, TrainingError
from aios_platform.metrics import evaluate
from aios_platform.metrics.truth import truth_of
from aios_platform.training.split import Side


@dataclass(frozen=True)
class Objective:
    """The task of one training.

    Attributes:
        answers: What the model answers.
        center: Mean of the training labels; regression only.
        scale: Their standard deviation; regression only.
    """

    answers: AnswerSchema
    center: float = 0.0
    scale: float = 1.0

    @property
    def outputs(self) -> int:
        """Numbers that a network gives per row."""
        return len(self.answers.columns)

    @property
    def criterion(self) -> str:
        """What an epoch is judged by; less is better."""
        return "loss" if self.answers.task == "regression" else "log_loss"

    def truth(self, column: pa.ChunkedArray) -> NDArray[Any]:
        """Labels as metrics take them, shape (n,).

        Raises:
            TrainingError: A label is not one of the task.
        """
        try:
            return truth_of(column, self.answers)
        except DataError as error:
            raise TrainingError(error.what, remedy=error.remedy) from error

    def targets(self, truth: NDArray[Any]) -> Tensor:
        """Labels as the loss takes them, shape (n,)."""
        if self.answers.task == "multiclass_classification":
            return torch.from_numpy(truth.astype(np.int64))
        if self.answers.task == "regression":
            truth = (truth - self.center) / self.scale
        return torch.from_numpy(truth.astype(np.float32))

    def learnt(self, targets: Tensor) -> NDArray[Any]:
        """Targets back as metrics take them, shape (n,)."""
        values: NDArray[Any] = targets.cpu().numpy()
        if self.answers.task == "regression":
            return values.astype(np.float64) * self.scale + self.center
        return values > 0 if self.answers.task == "binary_classification" else values

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss.

        Args:
            outputs: Shape (n, outputs).
            targets: Shape (n,).
        """
        if self.answers.task == "binary_classification":
            return nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], targets)
        if self.answers.task == "multiclass_classification":
            return nn.functional.cross_entropy(outputs, targets)
        loss = nn.functional.mse_loss(outputs[:, 0], targets)
        for place, level in enumerate(self.answers.quantiles, 1):
            error = targets - outputs[:, place]
            loss = loss + torch.maximum(level * error, (level - 1) * error).mean()
        return loss

    def report(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Figures of held-out rows, the criterion among them.

        Args:
            outputs: Shape (n, outputs), float64.
            targets: Shape (n,).
        """
        truth = self.learnt(targets)
        if self.answers.task == "binary_classification":
            return evaluate(truth, torch.sigmoid(outputs[:, 0]).numpy(), ("log_loss", "roc_auc"))
        if self.answers.task == "multiclass_classification":
            chances = torch.softmax(outputs, dim=1).numpy()
            names = ("log_loss", "accuracy")
            return evaluate(truth, chances, names, task=self.answers.task)
        values = outputs[:, 0].numpy() * self.scale + self.center
        found = evaluate(truth, values, ("rmse", "r2"), task="regression")
        return {"loss": float(self.loss(outputs, targets.cpu().double())), **found}


def objective_of(answers: AnswerSchema, side: Side, label: str) -> Objective:
    """The objective, with the scale that the training labels have.

    Args:
        answers: What the model answers.
        side: The training rows.
        label: Column of the label.

    Raises:
        TrainingError: A label is not one of the task.
    """
    plain = Objective(answers)
    if answers.task != "regression":
        return plain
    truth = plain.truth(side.select([label])[label])
    return Objective(answers, float(truth.mean()), float(truth.std()) or 1.0)
