"""The paired bootstrap of ROC AUC, beside the loop over scikit-learn that one would write.

    python benchmarks/bootstrap.py [--rows 28000] [--resamples 2000] [--naive 40]

Both draw the same kind of resamples (stratified, common to both models) and give the interval of
the same difference. The naive loop runs a sample of them, and its time is scaled up; that is said
in the output. Its standard error must agree with ours, and ours with DeLong's formula.
"""

import argparse
import statistics
import time

import numpy as np
from sklearn.metrics import roc_auc_score

from aios_platform.metrics import METRICS
from aios_platform.promotion.statistics import delong
from aios_platform.resampling import gain_interval


def main() -> None:
    """Run both and print them as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=28_000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--naive", type=int, default=40, help="resamples that the naive loop runs")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    labels, scores, reference = contest(arguments.rows)

    formula = delong(labels, scores, reference)
    ours = [timed(gain_interval, "roc_auc", labels, scores, reference, seed=round_,
                  resamples=arguments.resamples)
            for round_ in range(arguments.rounds)]  # fmt: skip
    found = ours[0][2]
    naive = [timed(naive_loop, labels, scores, reference, arguments.naive)
             for _ in range(arguments.rounds)]  # fmt: skip
    closed = [timed(delong, labels, scores, reference) for _ in range(20)]
    spread = np.std(np.concatenate([each[2] for each in naive]), ddof=1)
    check(found.standard_error, formula.standard_error, 0.1)
    check(spread, formula.standard_error, 0.35)

    factor = arguments.resamples / arguments.naive
    mine, his, formulas = (
        [statistics.median(each[i] for each in runs) for i in (0, 1)]
        for runs in (ours, naive, closed)
    )
    print(f"{arguments.rows:,} rows, {arguments.resamples:,} resamples, paired ROC AUC, "
          f"median of {arguments.rounds} rounds\n")  # fmt: skip
    print("| | wall, s | CPU, s | ratio of wall |")
    print("|---|---:|---:|---:|")
    print(f"| ours | {mine[0]:.2f} | {mine[1]:.2f} | 1 |")
    print(f"| loop over scikit-learn, {arguments.naive} resamples scaled by {factor:g} "
          f"| {his[0] * factor:.1f} | {his[1] * factor:.1f} | "
          f"**{his[0] * factor / mine[0]:.0f}** |")  # fmt: skip
    print(f"| DeLong | {formulas[0]:.4f} | {formulas[1]:.4f} | 1/{mine[0] / formulas[0]:.0f} |")
    print(f"\nDifference {found.estimate:+.5f}; standard error {found.standard_error:.6f} (ours), "
          f"{spread:.6f} (naive), {formula.standard_error:.6f} (DeLong)\n")  # fmt: skip
    print("| metric | wall, s |")
    print("|---|---:|")
    for name in METRICS:
        wall, _, _ = timed(gain_interval, name, labels, scores, reference, seed=0,
                           resamples=arguments.resamples)  # fmt: skip
        print(f"| {name} | {wall:.2f} |")


def contest(rows: int):
    """Labels, and the scores of two models that see the same signal."""
    generator = np.random.default_rng(0)
    labels = generator.random(rows) < 0.22
    signal = generator.normal(size=rows) + 1.05 * labels - 2
    pair = (1 / (1 + np.exp(-signal - generator.normal(0, noise, rows))) for noise in (0.2, 0.25))
    return labels, *pair


def naive_loop(labels, scores, reference, resamples):
    """The stratified paired bootstrap as it is usually written."""
    generator = np.random.default_rng(1)
    positives, negatives = np.flatnonzero(labels), np.flatnonzero(~labels)
    differences = []
    for _ in range(resamples):
        rows = np.concatenate([generator.choice(g, g.size) for g in (positives, negatives)])
        truth = labels[rows]
        differences.append(
            roc_auc_score(truth, scores[rows]) - roc_auc_score(truth, reference[rows])
        )
    return np.array(differences)


def timed(function, *args, **options):
    """Wall seconds, CPU seconds and result of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*args, **options)
    return time.perf_counter() - wall, time.process_time() - cpu, result


def check(value: float, expected: float, tolerance: float) -> None:
    """Stop when the contenders did not compute the same thing."""
    if not abs(value / expected - 1) <= tolerance:
        raise SystemExit(f"standard errors differ: {value:.6f} and {expected:.6f}")


if __name__ == "__main__":
    main()
