"""The exam of a candidate, written plainly: floors, a paired bootstrap, slices.

The rules are those that the flight-delay model declares; what the platform's gate asks besides
(latency, size, online parity, provenance, waivers, approval) is left out. The bootstrap is the
platform's own, so that neither side is cleverer.
"""

from statistics import NormalDist

import numpy as np

from aios_platform.metrics import evaluate
from aios_platform.resampling import gain_interval, gain_intervals, metric_intervals

RESAMPLES = 2000
SHOWN_RESAMPLES = 300
MARGINS = {"roc_auc": 0.005, "log_loss": 0.01, "reliability": 0.001}
SLICE_MARGIN, MIN_SLICE_ROWS = 0.02, 500
ALPHA, POWER = 0.025, 0.8
Z = NormalDist().inv_cdf(1 - ALPHA)


def examine(
    truth: np.ndarray,
    own: np.ndarray,
    other: np.ndarray | None,
    slices: dict[str, np.ndarray],
    floors: dict[str, float],
    *,
    shown: bool,
) -> list[str]:
    """Why a candidate may not become champion; nothing when it may.

    Args:
        truth: Labels of the exam.
        own: The candidate's scores.
        other: The champion's; None: there is none yet.
        slices: Columns whose values are judged by themselves.
        floors: Worst acceptable value per metric.
        shown: Also compute the intervals that are only shown.
    """
    metrics = evaluate(truth, own)
    worst = metrics
    if other is None:
        ends = metric_intervals(list(floors), truth, own, seed=0, resamples=RESAMPLES)
        worst = {m: e.low if m == "roc_auc" else e.high for m, e in ends.items()}
    against = [
        f"{metric} {worst[metric]:.4f}"
        for metric, floor in floors.items()
        if not (worst[metric] >= floor if metric == "roc_auc" else worst[metric] <= floor)
    ]
    if shown:
        metric_intervals([*MARGINS, "ece"], truth, own, seed=0, resamples=SHOWN_RESAMPLES)
    if other is None:
        constant = np.full(truth.size, truth.mean())
        gain = gain_interval("roc_auc", truth, own, constant, seed=0, resamples=RESAMPLES)
        return against if gain.low > 0 else [*against, "no better than a constant"]
    gains = gain_intervals(list(MARGINS), truth, own, other, seed=0, resamples=RESAMPLES)
    lows = {metric: gain.low for metric, gain in gains.items()}
    whole, error = delong(truth, own, other)
    lows["roc_auc"] = min(lows["roc_auc"], whole - Z * error)
    against += [f"{m} {low:+.4f}" for m, low in lows.items() if not low >= -MARGINS[m]]
    return against + _worse_slices(truth, own, other, slices)


def delong(truth: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Difference of two AUCs on the same rows, and its standard error."""
    first, second = _placements(truth, one), _placements(truth, other)
    parts = [a - b for a, b in zip(first, second, strict=True)]
    error = np.sqrt(sum(part.var(ddof=1) / part.size for part in parts))
    return float(parts[0].mean()), float(error)


def _placements(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sides = scores[truth], scores[~truth]
    found = []
    for values, among in (sides, sides[::-1]):
        ordered = np.sort(among)
        left = np.searchsorted(ordered, values, side="left")
        found.append((left + np.searchsorted(ordered, values, side="right")) / 2 / among.size)
    return found[0], 1 - found[1]


def _worse_slices(truth, own, other, slices: dict[str, np.ndarray]) -> list[str]:
    """Slices in which the candidate is worse, or in which it should have shown not to be."""
    cells = {}
    for column, values in slices.items():
        for value in np.unique(values):
            rows = values == value
            if rows.sum() >= MIN_SLICE_ROWS and min(truth[rows].sum(), (~truth[rows]).sum()) >= 20:
                gain, error = delong(truth[rows], own[rows], other[rows])
                p = NormalDist().cdf((gain + SLICE_MARGIN) / error) if error else 1.0
                cells[f"{column}={value}"] = (gain, error, p)
    ranked, largest, adjusted = sorted(cells, key=lambda name: cells[name][2]), 0.0, {}
    for place, name in enumerate(ranked):
        largest = max(largest, min(1.0, cells[name][2] * (len(ranked) - place)))
        adjusted[name] = largest
    power = NormalDist().inv_cdf(1 - (1 - POWER) / max(len(cells), 1))
    found = []
    for name, (gain, error, p) in cells.items():
        shown = gain - Z * error >= -SLICE_MARGIN
        able = (Z + power) * error <= SLICE_MARGIN
        if adjusted[name] <= ALPHA or (not shown and (able or p <= ALPHA)):
            found.append(f"{name} {gain:+.4f}")
    return found
