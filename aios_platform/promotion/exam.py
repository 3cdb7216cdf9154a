"""The exam: labelled rows that no contender was trained on, and what each contender answered."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.policy import Task
from aios_platform.contracts.record import nearest
from aios_platform.errors import MetricError, PromotionError
from aios_platform.metrics import BINARY, checked_answers, checked_labels
from aios_platform.metrics.checks import checked_codes, checked_targets
from aios_platform.metrics.truth import judged, truth_of

WINDOW = "window"


@dataclass(frozen=True)
class Exam:
    """Rows with known outcome. Nothing is checked here: the gate decides what a fault means.

    Attributes:
        row_ids: Name of each row, shape (n,).
        labels: Outcome of each row, shape (n,): bool, class codes, or numbers.
        windows: Keys of the windows the rows come from, oldest first.
        row_windows: Window key of each row, shape (n,); None where the exam is one window.
        columns: Features that slices and protected attributes look at, by name, shape (n,) each.
    """

    row_ids: ArrayLike
    labels: ArrayLike
    windows: tuple[str, ...]
    row_windows: ArrayLike | None = None
    columns: Mapping[str, ArrayLike] = field(default_factory=dict)

    @classmethod
    def from_frame(
        cls,
        frame: pa.Table,
        *,
        row_id: str,
        label: str,
        window: str = "window",
        columns: Iterable[str] = (),
        answers: AnswerSchema | None = None,
    ) -> "Exam":
        """The exam of a feature frame whose rows all have a label; see `labelled`.

        Args:
            frame: Feature frame with the row id, label and window columns.
            row_id: Column that names a row.
            label: Label column.
            window: Column of window keys.
            columns: Columns to carry for slices and protected attributes; one that the frame
                lacks is left out, and the gate then calls what needs it unknown.
            answers: What the model answers; unset, a probability.

        Raises:
            DataError: A label is none that the task has.
        """
        return cls(
            row_ids=frame[row_id].to_numpy(),
            labels=truth_of(frame[label], answers or AnswerSchema()),
            windows=tuple(sorted(str(key) for key in pc.unique(frame[window]).to_pylist())),
            row_windows=frame[window].to_numpy(),
            columns={
                name: frame[name].to_numpy() for name in columns if name in frame.schema.names
            },
        )


def labelled(frame: pa.Table, label: str) -> pa.Table:
    """The rows whose outcome is known: score these, and only these, for the exam."""
    return frame.filter(pc.is_valid(frame[label]))


@dataclass(frozen=True)
class Contender:
    """A model version and its answers to the exam, computed now, never taken from a record.

    Attributes:
        version: Registered version.
        row_ids: Name of each scored row, shape (n,); must be the exam's, in its order.
        scores: The model's answers: shape (n,), or (n, answer columns); of a regression the first
            column is judged, and the others are its quantiles. None where it could not be scored.
        trained_through: Key of the last window it was trained on.
        problem: Why it could not be scored.
        digest: SHA-256 (hex) of the ONNX bytes that gave the scores.
    """

    version: str
    row_ids: ArrayLike
    scores: ArrayLike | None
    trained_through: str
    problem: str = ""
    digest: str = ""

    @classmethod
    def unscorable(
        cls, version: str, trained_through: str, problem: str, *, digest: str = ""
    ) -> "Contender":
        """A contender that gave no answers, and why."""
        return cls(
            version=version,
            row_ids=(),
            scores=None,
            trained_through=trained_through,
            problem=problem or "no reason is known",
            digest=digest,
        )


def exam_digest(row_ids: Sequence[str], truth: NDArray[Any]) -> str:
    """SHA-256 (hex) over row ids and labels; the order of the rows has no influence."""
    rows = sorted(zip(row_ids, truth.tolist(), strict=True))
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Rows:
    """The exam's rows in canonical order (by id), checked: unique ids, labels of the task.

    Attributes:
        names: Row ids in the order they were given.
        order: Places that sort the rows by id.
        truth: Labels in canonical order: bool, class codes, or float64.
        windows: Window key of each row in canonical order.
        digest: SHA-256 over ids and labels.
        task: Kind of answer.
    """

    names: list[str]
    order: NDArray[np.intp]
    truth: NDArray[Any]
    windows: NDArray[np.str_]
    digest: str
    task: Task = BINARY

    @classmethod
    def of(cls, exam: Exam, *, task: Task = BINARY) -> "Rows":
        """Check an exam and bring it into canonical order.

        Args:
            exam: The exam.
            task: Kind of answer.

        Raises:
            PromotionError: The row ids do not name the rows one to one.
            MetricError: The labels allow no metric.
        """
        names = row_names(exam.row_ids)
        truth = _truth(exam.labels, task)
        if truth.size != len(names):
            raise PromotionError(
                f"The exam has {len(names):,} row ids and {truth.size:,} labels.",
                remedy="Give each row of the exam its id and its label.",
            )
        if len(set(names)) != len(names):
            raise PromotionError(
                f"{len(names) - len(set(names)):,} of the exam's row ids are repeated.",
                remedy="Deduplicate the exam's windows.",
            )
        if exam.row_windows is None:
            windows = np.full(len(names), exam.windows[0] if len(exam.windows) == 1 else "all")
        else:
            windows = np.asarray(row_names(exam.row_windows))
            strangers = sorted(set(windows.tolist()) - set(exam.windows))
            if strangers:
                raise PromotionError(
                    f"The exam has rows of {', '.join(strangers)}, which it does not name.",
                    remedy="Name every window that the exam's rows come from.",
                )
        if windows.shape != truth.shape:
            raise PromotionError(
                f"The exam has {len(names):,} rows and the windows of {windows.size:,}.",
                remedy="Give each row of the exam its window.",
            )
        order = np.argsort(np.asarray(names), kind="stable")
        return cls(names, order, truth[order], windows[order], exam_digest(names, truth), task)

    def column_of(self, exam: Exam, name: str) -> NDArray[Any]:
        """A column of the exam in canonical order; `window` is each row's window.

        Raises:
            PromotionError: The exam has no such column, or not one value per row.
        """
        if name == WINDOW:
            return self.windows
        if exam.columns is None or name not in exam.columns:
            known = ", ".join(sorted(exam.columns or ())) or "none"
            raise PromotionError(
                f"The exam has no column '{name}' (it carries: {known}).",
                remedy=f"{nearest(name, exam.columns or ())} Name a feature of the model.",
            )
        try:
            values = np.asarray(exam.columns[name])
        except ValueError:
            values = np.empty((0, 0))
        if values.shape != (len(self.names),):
            raise PromotionError(
                f"The column '{name}' has the shape {values.shape}, the exam "
                f"{len(self.names):,} rows.",
                remedy="Take the column from the frame that was scored.",
            )
        return values[self.order]

    def scores_of(self, contender: Contender) -> Any:
        """A contender's scores in canonical order.

        Raises:
            PromotionError: The contender was not scored, or not on exactly these rows.
            MetricError: A score is not a probability.
        """
        if contender.scores is None:
            raise PromotionError(
                f"Version {contender.version} could not be scored: {contender.problem}",
                remedy="Mend the model or its inputs and run the gate again.",
            )
        if row_names(contender.row_ids) != self.names:
            raise PromotionError(
                f"Version {contender.version} was scored on other rows than the exam's.",
                remedy="Score every contender on the same frame, in its order.",
            )
        given = self.truth[np.argsort(self.order)]
        scores = contender.scores
        if isinstance(scores, np.ndarray):
            scores = judged(scores, self.task)
        return checked_answers(scores, given, task=self.task)[self.order]

    def quantiles_of(self, contender: Contender) -> NDArray[Any]:
        """A scored regression's quantiles in canonical order, shape (n, levels)."""
        scores = np.asarray(contender.scores)
        return scores[self.order, 1:] if scores.ndim == 2 else np.empty((self.order.size, 0))


def _truth(labels: ArrayLike, task: Task) -> NDArray[Any]:
    if task == "multiclass_classification":
        return checked_codes(labels)
    truth: NDArray[Any] = checked_labels(labels) if task == BINARY else checked_targets(labels)
    if (truth == truth[0]).all():
        raise MetricError(
            f"All {truth.size:,} labels are {truth[0]}; nothing can be told apart by them.",
            remedy="Take more rows, or windows in which outcomes differ.",
        )
    return truth


def row_names(row_ids: ArrayLike) -> list[str]:
    """Row ids as text.

    Raises:
        PromotionError: An id is missing, or the ids are not a flat list.
    """
    try:
        values = np.asarray(row_ids)
    except ValueError:
        values = np.empty((0, 0))
    if values.ndim != 1:
        raise PromotionError("The row ids are not a flat list.", remedy="Give one id per row.")
    entries = values.tolist()
    # A number that is not equal to itself is how a missing integer id arrives.
    if any(entry is None or entry != entry for entry in entries):
        raise PromotionError("A row has no id.", remedy="Give every row of the exam an id.")
    return [str(entry) for entry in entries]
