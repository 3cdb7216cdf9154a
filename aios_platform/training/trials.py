"""Training with other options than the declared ones, to compare them before a model is trained."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.contracts.models import Epoch
from aios_platform.contracts.training import Training
from aios_platform.training.preparation import Prepared, prepare
from aios_platform.training.tokens import text_options

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as pad


class Trials:
    """Trains one network at a time on rows that are split and encoded once.

    The rows that are learnt from and those that are held out are the same as in
    `trainer.train`; a trial is the first network of its ensemble, on one device.

    Args:
        schema: The model's inputs.
        frame: The training set.
        label: Column of the label.
        answers: What the model answers.
        workdir: Folder of checkpoints of trials on exactly these rows; a trial that was killed is
            taken up by the same trial.
    """

    def __init__(
        self,
        schema: FeatureSchema,
        frame: "pa.Table | pad.Dataset",
        *,
        label: str,
        answers: AnswerSchema,
        workdir: Path,
    ) -> None:
        self._schema, self._frame, self._label = schema, frame, label
        self._answers, self._workdir = answers, workdir
        self._prepared: Prepared | None = None

    def train(self, training: Training, on_epoch: Callable[[Epoch], None]) -> tuple[Epoch, ...]:
        """Train the first network, and say what its epochs came to.

        Args:
            training: The declared training with the trial's values.
            on_epoch: Called after each epoch with its `Epoch`; what it raises ends the trial.

        Raises:
            TrainingError: The frame cannot be trained on, or a loss is not finite
                (`TrainingDiverged`).
        """
        from aios_platform.training.fit import fit_member

        alone = training.model_copy(update={"members": 1, "devices": 1})
        plan = replace(
            self._prepare(alone).plan,
            training=alone,
            folder=self._folder(alone),
            on_epoch=on_epoch,
        )
        return fit_member(plan, 0).epochs

    def criterion(self, epoch: Epoch) -> float:
        """What an epoch is judged by; less is better."""
        if self._prepared is None:
            raise RuntimeError("no trial was trained yet")
        return epoch.validation[self._prepared.plan.objective.criterion]

    def forget(self, training: Training) -> None:
        """Remove the checkpoints of a trial that has ended."""
        alone = training.model_copy(update={"members": 1, "devices": 1})
        shutil.rmtree(self._folder(alone), ignore_errors=True)

    def _prepare(self, training: Training) -> Prepared:
        """The encoded rows, which only the options of texts depend on."""
        wanted = text_options(training.network_options)
        known = self._prepared
        if known is None or text_options(known.plan.training.network_options) != wanted:
            self._prepared = known = prepare(
                training, self._schema, self._frame, label=self._label, workdir=self._workdir,
                answers=self._answers,
            )  # fmt: skip
        return known

    def _folder(self, training: Training) -> Path:
        return self._workdir / training.fingerprint[:16]
