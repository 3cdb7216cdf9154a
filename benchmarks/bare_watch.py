"""What is watched of a scored month, written plainly: drift, importance, estimate, performance."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from bare_model import Scorer
from scipy import stats

from aios_platform.resampling import metric_interval

SAMPLED_ROWS = 30_000
TESTED_ROWS = 5_000
IMPORTANCE_ROWS = 3_000
CALIBRATION_ROWS = 20_000
RESAMPLES, SLICE_RESAMPLES, DRAWS = 1000, 200, 200
DRIFTED_PSI, FALSE_DISCOVERY, MIN_SLICE_ROWS = 0.2, 0.05, 500


@dataclass(frozen=True)
class Bins:
    """Bins of one column of a reference, and the rows in each; the last holds missing values.

    Attributes:
        edges: Deciles of a number, None for a category.
        values: The most frequent categories.
        counts: Rows per bin.
    """

    edges: np.ndarray | None
    values: dict[str, int]
    counts: np.ndarray

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> "Bins":
        """Bin a column."""
        if numeric(column):
            present = finite(column)
            quantiles = np.linspace(0.1, 0.9, 9)
            edges = np.unique(np.quantile(present, quantiles)) if present.size else present
            made = cls(edges, {}, np.empty(0))
        else:
            ranked = pl.Series(column).drop_nulls().value_counts(sort=True)
            names = ranked.to_series(0)[:30].to_list()
            made = cls(None, {name: place for place, name in enumerate(names)}, np.empty(0))
        return cls(made.edges, made.values, made.count(column))

    def count(self, column: pa.ChunkedArray) -> np.ndarray:
        """How many rows of a column fall into each bin."""
        if self.edges is not None:
            present = finite(column)
            places = np.searchsorted(self.edges, present)
            counts = np.bincount(places, minlength=len(self.edges) + 1)
            return np.append(counts, len(column) - present.size)
        counts = np.zeros(len(self.values) + 2, dtype=np.int64)
        found = pc.value_counts(column)
        for value, number in zip(*(found.field(i).to_pylist() for i in (0, 1)), strict=True):
            place = -1 if value is None else self.values.get(value, len(self.values))
            counts[place] += number
        return counts

    def psi(self, column: pa.ChunkedArray) -> float:
        """Population stability index of a column against the reference."""
        r, c = ((x + 0.5) / (x.sum() + 0.5 * x.size) for x in (self.counts, self.count(column)))
        return float(((c - r) * np.log(c / r)).sum())


@dataclass(frozen=True)
class Reference:
    """What the months that a model scores are compared with, made once per model.

    Attributes:
        bins: Of every feature over all training rows.
        scores: Of the model's probabilities on a sample of them.
        sample: Training rows for the tests.
        weights: Part of each feature in what the model uses.
        calibration: Intercept and slope of outcomes given scores, and their covariance.
    """

    bins: dict[str, Bins]
    scores: Bins
    sample: pa.Table
    weights: dict[str, float]
    calibration: tuple[np.ndarray, np.ndarray]


def reference_of(scorer: Scorer, trained: pa.Table, exam: pa.Table) -> Reference:
    """Bin and sample the training rows; measure on the exam what the model uses."""
    names = scorer.schema.names
    sample = sampled(trained.select(names), SAMPLED_ROWS)
    return Reference(
        bins={name: Bins.of(trained[name]) for name in names},
        scores=Bins.of(pa.chunked_array([pa.array(scorer.predict(sample))])),
        sample=sampled(sample, TESTED_ROWS),
        weights=importance(scorer, exam),
        calibration=calibrate(scorer, exam),
    )


def drift(frame: pa.Table, scores: np.ndarray, reference: Reference) -> dict:
    """PSI over all rows, tests on a sample, and the weighted share of what drifted."""
    psi = {name: bins.psi(frame[name]) for name, bins in reference.bins.items()}
    current = sampled(frame.select(list(psi)), TESTED_ROWS)
    p = np.array([_p_value(bins, current[name], reference.sample[name])
                  for name, bins in reference.bins.items()])  # fmt: skip
    certain = stats.false_discovery_control(p, method="bh") < FALSE_DISCOVERY
    drifted = [n for n, sure in zip(psi, certain, strict=True) if sure and psi[n] > DRIFTED_PSI]
    return {
        "drifted": len(drifted),
        "weighted": round(sum(reference.weights[name] for name in drifted), 4),
        "scores": round(reference.scores.psi(pa.chunked_array([pa.array(scores)])), 4),
    }


def importance(scorer: Scorer, exam: pa.Table) -> dict[str, float]:
    """Each feature's part of the log loss that shuffling costs, one feature at a time."""
    rows = sampled(exam, IMPORTANCE_ROWS)
    truth = rows["is_late"].to_numpy(zero_copy_only=False)
    generator = np.random.default_rng(0)

    def losses(table: pa.Table) -> np.ndarray:
        p = np.clip(scorer.predict(table).astype(np.float64), 1e-7, 1 - 1e-7)
        return -np.log(np.where(truth, p, 1 - p))

    before, rises = losses(rows), {}
    for name in scorer.schema.names:
        place = rows.schema.get_field_index(name)
        shuffled = rows[name].take(pa.array(generator.permutation(rows.num_rows)))
        rise = losses(rows.set_column(place, name, shuffled)) - before
        sure = rise.mean() > 2 * rise.std(ddof=1) / np.sqrt(rise.size)
        rises[name] = float(rise.mean()) if sure else 0.0
    total = sum(rises.values()) or 1.0
    return {name: rise / total for name, rise in rises.items()}


def calibrate(scorer: Scorer, exam: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes given scores on the exam: a logistic fit and its covariance."""
    rows = sampled(exam, CALIBRATION_ROWS)
    truth = rows["is_late"].to_numpy(zero_copy_only=False)
    x = np.stack([np.ones(rows.num_rows), logits(scorer.predict(rows))])
    beta = np.array([0.0, 1.0])
    for _ in range(20):
        p = 1 / (1 + np.exp(-beta @ x))
        information = (x * (p * (1 - p))) @ x.T
        step = np.linalg.solve(information, x @ (truth - p))
        beta = beta + step
        if np.abs(step).max() < 1e-8:
            break
    return beta, np.linalg.inv(information)


def estimate(scores: np.ndarray, reference: Reference) -> tuple[float, float]:
    """The interval in which the AUC of these scores will be measured, without their labels."""
    beta, covariance = reference.calibration
    values = np.sort(scores.astype(np.float64))
    at, ranks, generator = logits(values), stats.rankdata(values), np.random.default_rng(0)
    found = []
    for intercept, slope in generator.multivariate_normal(beta, covariance, DRAWS):
        truth = generator.random(values.size) < 1 / (1 + np.exp(-(intercept + slope * at)))
        positives = int(truth.sum())
        won = ranks[truth].sum() - positives * (positives + 1) / 2
        found.append(won / (positives * (truth.size - positives)))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def performance(truth: np.ndarray, scores: np.ndarray) -> tuple[float, float, float]:
    """AUC with its bootstrap interval."""
    found = metric_interval("roc_auc", truth, scores, seed=0, resamples=RESAMPLES)
    return found.estimate, found.low, found.high


def by_slice(truth: np.ndarray, scores: np.ndarray, columns: dict[str, np.ndarray]) -> dict:
    """The same for each value of each column that has enough rows."""
    found = {}
    for name, values in columns.items():
        for value in np.unique(values):
            rows = values == value
            if rows.sum() >= MIN_SLICE_ROWS:
                interval = metric_interval(
                    "roc_auc", truth[rows], scores[rows], seed=0, resamples=SLICE_RESAMPLES
                )
                found[f"{name}={value}"] = (interval.estimate, interval.low, interval.high)
    return found


def sampled(table: pa.Table, rows: int) -> pa.Table:
    """At most so many rows, the same ones every time."""
    if table.num_rows <= rows:
        return table
    chosen = np.random.default_rng(0).choice(table.num_rows, rows, replace=False)
    return table.take(pa.array(np.sort(chosen)))


def logits(scores: np.ndarray) -> np.ndarray:
    """Logit of each score, away from 0 and 1."""
    clipped = np.clip(scores.astype(np.float64), 1e-4, 1 - 1e-4)
    return np.log(clipped / (1 - clipped))


def numeric(column: pa.ChunkedArray) -> bool:
    """Whether a column holds numbers."""
    return pa.types.is_floating(column.type) or pa.types.is_integer(column.type)


def finite(column: pa.ChunkedArray) -> np.ndarray:
    """The values of a column of numbers that are there."""
    numbers = column.cast(pa.float64()).to_numpy()
    return numbers[np.isfinite(numbers)]


def _p_value(bins: Bins, current: pa.ChunkedArray, past: pa.ChunkedArray) -> float:
    counts = np.stack([bins.count(current), bins.count(past)])
    if bins.edges is None:
        return _chi_squared(counts)
    one, other = finite(current), finite(past)
    if not (one.size and other.size):
        return 1.0
    missing = np.stack([counts[:, :-1].sum(axis=1), counts[:, -1]], axis=1)
    return min(1.0, 2 * min(stats.ks_2samp(one, other, method="asymp").pvalue,
                            _chi_squared(missing)))  # fmt: skip


def _chi_squared(counts: np.ndarray) -> float:
    used = counts[:, counts.sum(axis=0) > 0]
    if used.shape[1] < 2:
        return 1.0
    return float(stats.chi2_contingency(used, correction=False).pvalue)
