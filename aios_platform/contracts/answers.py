"""What a model of each task answers: the one shape that training, scoring, gate and gateway share.

A row's answer is one or more float32 numbers with names, its *answer columns*:

=========================== ============================================ ======================
task                        answer columns                               truth
=========================== ============================================ ======================
binary classification       `probability`                                bool
multiclass classification   `probability_<class>` of each class, in the  code of the class: its
                            declared order; they sum to 1                place in that order
regression                  `value`, then `quantile_<level>` of each     float64
                            declared level, rising
=========================== ============================================ ======================

An array of scores has the shape (n,) where there is one column, else (n, columns).
"""

from pydantic import Field, model_validator

from aios_platform.contracts.policy import Task
from aios_platform.contracts.record import Record

BINARY_OUTPUT = "probability"
"""ONNX output of a binary classifier, float32 (rows,)."""
OUTPUT = "answers"
"""ONNX output of every other model, float32 (rows, answer columns)."""
ANSWERS_PROPERTY = "aios.answers"
"""Property of an ONNX model that holds the schema of its answers as JSON."""
PREDICTED = "predicted"
"""Column of stored predictions with the likeliest class; multiclass only."""


class AnswerSchema(Record):
    """The answer columns of one model."""

    task: Task = Field(default="binary_classification", description="Kind of answer.")
    classes: tuple[str, ...] = Field(default=(), description="Classes of a multiclass label.")
    quantiles: tuple[float, ...] = Field(default=(), description="Levels of a regression.")

    @model_validator(mode="after")
    def _of_the_task(self) -> "AnswerSchema":
        if (self.task == "multiclass_classification") != bool(self.classes):
            raise ValueError("classes belong to multiclass classification, and to nothing else")
        if self.quantiles and self.task != "regression":
            raise ValueError("quantiles belong to regression, and to nothing else")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the answer columns, in the order of the ONNX output."""
        if self.task == "binary_classification":
            return ("probability",)
        if self.task == "multiclass_classification":
            return tuple(f"probability_{name}" for name in self.classes)
        return ("value", *(f"quantile_{level:g}" for level in self.quantiles))

    @property
    def output(self) -> str:
        """Name of the ONNX output."""
        return BINARY_OUTPUT if self.task == "binary_classification" else OUTPUT

    @property
    def flat(self) -> bool:
        """Whether scores are an array of shape (n,)."""
        return len(self.columns) == 1
