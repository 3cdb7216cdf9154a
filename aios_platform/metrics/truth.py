"""From stored columns to arrays: the truth of a task, and what was answered.

Training, exam, performance and replay read labels and answers here, so that a class has the same
code everywhere.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.policy import Task
from aios_platform.contracts.record import nearest
from aios_platform.errors import DataError


def label_type(task: Task) -> pa.DataType:
    """The Arrow type that a label of the task is read as."""
    if task == "multiclass_classification":
        return pa.string()
    return pa.float64() if task == "regression" else pa.bool_()


def truth_of(column: pa.Array | pa.ChunkedArray, answers: AnswerSchema) -> NDArray[Any]:
    """The truth that a label column without nulls holds.

    Args:
        column: Labels as they are stored, shape (n,).
        answers: What the model answers.

    Returns:
        Shape (n,): bool, intp (the place of the class among the declared ones) or float64.

    Raises:
        DataError: A label is missing, of another type, not a declared class, or not finite.
    """
    try:
        values = column.cast(label_type(answers.task))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"A label is not a {label_type(answers.task)}: {error}.",
            remedy="Declare the label's column with the type that the source delivers.",
        ) from None
    if values.null_count:
        raise DataError(
            f"{values.null_count:,} of {len(values):,} labels are missing.",
            remedy="Take the labelled rows only.",
        )
    if answers.task == "multiclass_classification":
        codes = pc.index_in(values, value_set=pa.array(answers.classes))
        if codes.null_count:
            stranger = pc.filter(values, pc.is_null(codes))[0].as_py()
            raise DataError(
                f"The label '{stranger}' is none of the declared classes. "
                f"{nearest(stranger, answers.classes)}",
                remedy="Add it to the `values` of the label's column, or mend the source.",
            )
        return np.asarray(codes.to_numpy(), dtype=np.intp)
    if isinstance(values, pa.Array):
        truth: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    else:
        truth = values.to_numpy()
    if answers.task == "regression" and not np.isfinite(truth).all():
        raise DataError(
            f"{int((~np.isfinite(truth)).sum()):,} of {truth.size:,} labels are not finite.",
            remedy="Reject such rows by min and max of the label's column.",
        )
    return truth


def answers_in(table: pa.Table, answers: AnswerSchema) -> NDArray[np.float64]:
    """The answers that a table of predictions holds; NaN where one is missing.

    Args:
        table: Has the answer columns.
        answers: What the model answers.

    Returns:
        Shape (n,), or (n, columns) where there are several.

    Raises:
        DataError: An answer column is missing.
    """
    found = []
    for name in answers.columns:
        if name not in table.column_names:
            raise DataError(
                f"The predictions have no column '{name}'. {nearest(name, table.column_names)}",
                remedy="Hand over the table as it was written.",
            )
        column = pc.fill_null(table[name].cast(pa.float64()), float("nan"))
        found.append(np.asarray(column.to_numpy()))
    return found[0] if answers.flat else np.column_stack(found)


def by_column(scores: NDArray[np.float32], answers: AnswerSchema) -> dict[str, NDArray[np.float32]]:
    """Answers column by column, each contiguous; what `answers_in` puts together again.

    Args:
        scores: Shape (n,) or (n, answer columns).
        answers: What they are.
    """
    if answers.flat:
        return {answers.columns[0]: scores}
    return dict(zip(answers.columns, np.ascontiguousarray(scores.T), strict=True))


def likeliest(scores: NDArray[Any], classes: Sequence[str]) -> pa.Array:
    """The likeliest class of each row, strings.

    Args:
        scores: Shape (n, classes), probabilities.
        classes: The classes, in their order.
    """
    return pa.array(classes, pa.string()).take(pa.array(scores.argmax(axis=1)))


def judged(scores: NDArray[Any], task: Task) -> NDArray[Any]:
    """The part of a model's answers that metrics are of: of a regression, its value.

    Args:
        scores: Shape (n,) or (n, columns).
        task: Kind of answer.
    """
    return scores[:, 0] if task == "regression" and scores.ndim == 2 else scores
