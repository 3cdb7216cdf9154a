"""The whole model of each task: raw features in, answers out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch  # noqa: TID253
from numpy.typing import NDArray
from torch import Tensor, nn  # noqa: TID253

from aios_platform.contracts.models import Calibration
from aios_platform.training.calibration import (
    fit_intercept,
    fit_offsets,
    fit_slope,
    fit_temperature,
)
from aios_platform.training.encoder import InputEncoder
from aios_platform.training.objective import Objective


class BinaryHead(nn.Module):  # type: ignore[misc]
    """probability = sigmoid(slope · logit + intercept), shape (n,)."""

    def __init__(self, slope: float, intercept: float) -> None:
        super().__init__()
        self.register_buffer("slope", torch.tensor(slope, dtype=torch.float32))
        self.register_buffer("intercept", torch.tensor(intercept, dtype=torch.float32))

    def forward(self, outputs: Tensor) -> Tensor:
        """Probabilities from logits (n, 1)."""
        return torch.sigmoid(outputs[:, 0] * self.slope + self.intercept)


class MulticlassHead(nn.Module):  # type: ignore[misc]
    """probabilities = softmax(slope · logits), shape (n, classes)."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.register_buffer("slope", torch.tensor(slope, dtype=torch.float32))

    def forward(self, outputs: Tensor) -> Tensor:
        """Probabilities from logits (n, classes)."""
        return torch.softmax(outputs * self.slope, dim=1)


class RegressionHead(nn.Module):  # type: ignore[misc]
    """value = slope · output + intercept, then each quantile so, plus its offset, in rising order.

    Sorting is the rearrangement of Chernozhukov, Fernandez-Val and Galichon (2010, "Quantile and
    Probability Curves Without Crossing"), which never raises the pinball loss.
    """

    def __init__(self, slope: float, intercept: float, offsets: Sequence[float]) -> None:
        super().__init__()
        self._quantiles = len(offsets)
        for name, value in (("slope", slope), ("intercept", intercept), ("offsets", offsets)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32))

    def forward(self, outputs: Tensor) -> Tensor:
        """Answers (n, 1 + quantiles)."""
        answers: Tensor = outputs * self.slope + self.intercept
        if not self._quantiles:
            return answers
        quantiles, _ = torch.sort(answers[:, 1:] + self.offsets, dim=1)
        return torch.cat([answers[:, :1], quantiles], dim=1)


class CalibratedEnsemble(nn.Module):  # type: ignore[misc]
    """The whole model.

    Args:
        encoder: From raw inputs to what networks take.
        members: The trained networks; their outputs are averaged.
        head: From outputs to answers.
    """

    def __init__(
        self, encoder: InputEncoder, members: Sequence[nn.Module], head: nn.Module
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.members = nn.ModuleList(members)
        self.head = head

    def forward(self, *raw: Tensor) -> Tensor:
        """Answers.

        Args:
            raw: Numericals (n, f), float32, missing as NaN; codes (n, c), int64; each vector
                (n, length), float32; each text (n, tokens), integers.

        Returns:
            Shape (n,) of a binary model, else (n, answer columns), float32.
        """
        encoded = self.encoder(*raw)
        outputs = torch.stack([member(*encoded) for member in self.members]).mean(dim=0)
        answers: Tensor = self.head(outputs)
        return answers


class Judged(NamedTuple):
    """What the ensemble gave for labelled rows.

    Attributes:
        outputs: Shape (n, outputs), float64.
        truth: Shape (n,), labels as metrics take them.
    """

    outputs: NDArray[np.float64]
    truth: NDArray[Any]


def fit_head(
    objective: Objective, learnt: Judged, held_out: Judged, windows: NDArray[np.object_]
) -> tuple[nn.Module, Calibration]:
    """The calibrated head of a task.

    Args:
        objective: The task.
        learnt: Rows that the networks have learnt from.
        held_out: Rows that they have not.
        windows: Shape (n,), windows of the rows held out.

    Raises:
        TrainingError: The outputs say nothing about the labels.
    """
    task, outputs, truth = objective.answers.task, held_out.outputs, held_out.truth
    if task == "multiclass_classification":
        slope = fit_temperature(outputs, truth)
        return MulticlassHead(slope), Calibration(slope=slope, intercept=0.0)
    if task == "regression":
        slope, intercept = objective.scale, objective.center
        offsets = fit_offsets(
            outputs[:, 1:] * slope + intercept, truth, objective.answers.quantiles
        )
        head = RegressionHead(slope, intercept, offsets)
        return head, Calibration(slope=slope, intercept=intercept, offsets=offsets)
    slope = fit_slope(outputs[:, 0], truth, windows)
    intercept = fit_intercept(
        slope * np.concatenate([learnt.outputs[:, 0], outputs[:, 0]]),
        np.concatenate([learnt.truth, truth]),
    )
    return BinaryHead(slope, intercept), Calibration(slope=slope, intercept=intercept)
