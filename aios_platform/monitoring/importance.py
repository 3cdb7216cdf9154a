"""Which features a model uses: permutation importance on rows it was not trained on."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.policy import Task
from aios_platform.contracts.record import Record
from aios_platform.metrics import PROBABILITY_EPSILON, checked, log_losses
from aios_platform.metrics.truth import judged, truth_of

ROWS = 3_000
# A model that answers works outside the interpreter's lock, on one core.
FEATURES_AT_ONCE = 2


class Importance(Record):
    """How much worse a model becomes when a feature tells it nothing."""

    rows: int = Field(ge=1, description="Rows on which it was measured.")
    loss: float = Field(ge=0, description="Log loss with every feature in place.")
    increase: dict[str, float] = Field(
        description="Rise of the log loss when the feature's values are shuffled among the rows."
    )
    standard_error: dict[str, float] = Field(description="Standard error of each rise.")

    @property
    def weights(self) -> dict[str, float]:
        """Each feature's part of all rises; those within two standard errors of 0 count as 0.

        All equal where no feature shows anything.
        """
        shown = {
            name: rise if rise > 2 * self.standard_error[name] else 0.0
            for name, rise in self.increase.items()
        }
        total = sum(shown.values())
        if not total > 0:
            return {name: 1 / len(shown) for name in shown}
        return {name: rise / total for name, rise in shown.items()}


def permutation_importance(
    predict: Callable[[pa.Table], NDArray[np.float32]],
    frame: pa.Table,
    label: str,
    features: Sequence[str],
    *,
    answers: AnswerSchema | None = None,
    rows: int = ROWS,
    seed: int = 0,
) -> Importance:
    """Shuffle one feature at a time and see how much the loss rises.

    The loss is logarithmic; of a regression it is the squared error of its value.

    Source: Breiman (2001), Random Forests, section 10; Fisher, Rudin and Dominici (2019), All
    Models are Wrong, but Many are Useful, JMLR 20(177). Features that carry the same information
    share it: shuffling one of them costs little, which understates both.

    Args:
        predict: Gives the answers of each row of a table; two threads call it at once.
        frame: Rows with a truth, not used for training.
        label: Column of the truth.
        features: The columns to shuffle.
        answers: What they mean; unset, a probability.
        rows: Most rows that are looked at.
        seed: Of the rows taken and of the shuffles.

    Raises:
        MetricError: No loss can be computed of the rows.
        ScoringError: The frame does not fit the model.
    """
    generator = np.random.default_rng(seed)
    if frame.num_rows > rows:
        taken = np.sort(generator.choice(frame.num_rows, rows, replace=False))
        frame = frame.take(pa.array(taken))
    frame = frame.select([*features, label]).combine_chunks()
    answers = answers or AnswerSchema()
    truth = truth_of(frame[label], answers)

    def losses(table: pa.Table) -> NDArray[np.float64]:
        return _losses(truth, predict(table), answers.task)

    before = losses(frame)

    def rise_without(name: str, order: NDArray[np.int64]) -> NDArray[np.float64]:
        shuffled = frame[name].take(pa.array(order))
        place = frame.schema.get_field_index(name)
        other = frame.set_column(place, frame.schema.field(name), shuffled)
        return losses(other) - before

    orders = [generator.permutation(frame.num_rows) for _ in features]
    with ThreadPoolExecutor(FEATURES_AT_ONCE) as pool:
        rises = dict(zip(features, pool.map(rise_without, features, orders), strict=True))
    return Importance(
        rows=frame.num_rows,
        loss=float(before.mean()),
        increase={name: float(rise.mean()) for name, rise in rises.items()},
        standard_error={
            name: float(rise.std(ddof=1) / np.sqrt(rise.size)) for name, rise in rises.items()
        },
    )


def _losses(truth: NDArray[Any], scores: NDArray[np.float32], task: Task) -> NDArray[np.float64]:
    """Loss of each row, shape (n,)."""
    labels, values = checked(truth, judged(scores, task), task=task)
    if task == "regression":
        return np.asarray((labels - values) ** 2, dtype=np.float64)
    if task == "multiclass_classification":
        own = values[np.arange(len(labels)), labels]
        return np.asarray(-np.log(np.clip(own, PROBABILITY_EPSILON, 1.0)), dtype=np.float64)
    return log_losses(labels, values)
