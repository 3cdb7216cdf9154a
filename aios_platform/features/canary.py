"""How well a single feature separates a binary label."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.datasets import FieldKind
from aios_platform.metrics.truth import truth_of

FOLDS = 5
PRIOR_ROWS = 10.0

Booleans = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def single_feature_auc(values: pa.ChunkedArray, truth: Booleans, kind: FieldKind) -> float:
    """The larger of AUC and 1 - AUC when rows are ranked by one feature alone.

    A missing value ranks below all others. A category ranks by the label's rate among the rows
    of the other folds with that category (drawn to the overall rate where they are few), so that
    rare categories do not carry their own label.

    Args:
        values: The feature.
        truth: The label, same length.
        kind: Numerical or categorical.

    Returns:
        0.5 to 1; 0.5 where the label has one class only.
    """
    if not len(truth) or truth.all() or not truth.any():
        return 0.5
    if kind is FieldKind.CATEGORICAL:
        scores = _out_of_fold_rates(values, truth)
    else:
        scores = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        scores = np.where(np.isnan(scores), -np.inf, scores)
    auc = rank_auc(scores, truth)
    return max(auc, 1.0 - auc)


def one_against_rest(labels: pa.ChunkedArray, answers: AnswerSchema) -> list[Booleans]:
    """A label as binary ones: itself, each class against the rest, or above its median or not.

    Args:
        labels: Without nulls.
        answers: What the model answers.
    """
    truth = truth_of(labels, answers)
    if answers.task == "multiclass_classification":
        return [truth == code for code in range(len(answers.classes))]
    if answers.task == "regression":
        return [truth > np.median(truth)] if truth.size else [truth > 0]
    return [truth]


def rank_auc(scores: Floats, truth: Booleans) -> float:
    """Area under the ROC curve by the Mann-Whitney statistic, ties counted half."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2.0
    ranks = middle[place]
    positives = int(truth.sum())
    negatives = len(truth) - positives
    statistic = float(ranks[truth].sum()) - positives * (positives + 1) / 2.0
    return statistic / (positives * negatives)


def _out_of_fold_rates(values: pa.ChunkedArray, truth: Booleans) -> Floats:
    encoded = pc.fill_null(values.cast(pa.string()), "").dictionary_encode().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    codes = encoded.indices.to_numpy()
    categories = len(encoded.dictionary)
    fold = np.arange(len(truth)) % FOLDS
    rates = np.empty(len(truth), dtype=np.float64)
    for held_out in range(FOLDS):
        learn = fold != held_out
        prior = truth[learn].mean()
        late = np.bincount(codes[learn], weights=truth[learn], minlength=categories)
        rows = np.bincount(codes[learn], minlength=categories)
        rate = (late + PRIOR_ROWS * prior) / (rows + PRIOR_ROWS)
        rates[~learn] = rate[codes[~learn]]
    return rates
