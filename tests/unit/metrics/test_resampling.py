"""Bootstrap intervals agree with resampling the rows themselves."""

import numpy as np
import pytest

from aios_platform.errors import MetricError
from aios_platform.metrics import METRICS, METRICS_OF, ON_REQUEST, checked, evaluate, gain
from aios_platform.resampling import (
    gain_interval,
    gain_intervals,
    metric_interval,
    metric_intervals,
    seed_of,
)
from aios_platform.resampling.weighted import statistic


def contest(rows=400, seed=0, digits=2):
    """Labels, and the scores of a better and a worse model, with ties."""
    generator = np.random.default_rng(seed)
    labels = generator.random(rows) < 0.3
    signal = generator.normal(size=rows) + 1.5 * labels - 1
    scores = [
        (1 / (1 + np.exp(-(signal + generator.normal(0, noise, rows))))).round(digits)
        for noise in (0.2, 0.6)
    ]
    return labels, *scores


def by_copying_rows(name, labels, scores, reference, resamples=1500, task="binary_classification"):
    """The paired bootstrap, spelled out; stratified where only the ranking counts."""
    generator = np.random.default_rng(1)
    everything = np.arange(labels.size)
    strata = [everything[labels], everything[~labels]] if name == "roc_auc" else [everything]
    found = []
    for _ in range(resamples):
        rows = np.concatenate([generator.choice(group, group.size) for group in strata])
        values = [
            evaluate(labels[rows], s[rows], [name], task=task)[name] for s in (scores, reference)
        ]
        found.append(gain(name, *values))
    return np.quantile(found, [0.025, 0.975])


@pytest.mark.parametrize("name", ["roc_auc", "pr_auc", "log_loss", "brier", "accuracy"])
def test_interval_is_that_of_copied_rows(name):
    labels, better, worse = contest()
    found = gain_interval(name, labels, better, worse, seed=7)
    low, high = by_copying_rows(name, labels, better, worse)
    width = high - low
    assert found.low == pytest.approx(low, abs=0.1 * width)
    assert found.high == pytest.approx(high, abs=0.1 * width)


def of_task(task, seed=0, rows=60):
    """Labels and scores of a task; few rows, with ties."""
    generator = np.random.default_rng(seed)
    if task == "regression":
        labels = generator.normal(size=rows)
        return labels, (labels + generator.normal(size=rows)).round(1)
    classes = 2 if task == "binary_classification" else 3
    labels = np.append(np.arange(classes), generator.integers(0, classes, rows - classes))
    # Sixteenths: ties are common, and they sum to 1 exactly.
    scores = generator.multinomial(14, generator.dirichlet([1] * classes, rows)) / 16
    scores[np.arange(rows), labels] += 2 / 16
    return (labels, scores) if classes > 2 else (labels == 1, scores[:, 1])


EVERY = [(task, name) for task, names in METRICS_OF.items() for name in names]


BINNED = ("ece", "ece_debiased", "reliability")  # in bins that stay those of the rows as they are


@pytest.mark.parametrize(("task", "name"), [each for each in EVERY if each[1] not in BINNED])
@pytest.mark.parametrize("seed", range(5))
def test_counting_rows_equals_copying_them(task, name, seed):
    truth, values = checked(*of_task(task, seed), task=task)
    order = np.argsort(~truth if task == "binary_classification" else truth, kind="stable")
    truth, values = truth[order], values[order]
    computed = statistic(name, truth, values, task=task)
    generator = np.random.default_rng(seed)
    for _ in range(20):
        rows = generator.integers(0, truth.size, truth.size)
        counts = np.bincount(rows, minlength=truth.size).astype(float)
        expected = evaluate(truth[rows], values[rows], [name], task=task)[name]
        assert computed(counts) == pytest.approx(expected)


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_rows_as_they_are_have_the_value_of_the_metric(task, name):
    truth, values = checked(*of_task(task), task=task)
    found = statistic(name, truth, values, task=task)(np.ones(truth.size))
    if name == "reliability":  # in a resample the noise of the labels is there twice
        assert found < evaluate(truth, values, [name], task=task)[name]
    else:
        assert found == pytest.approx(evaluate(truth, values, [name], task=task)[name])


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_every_metric_of_every_task_has_a_paired_interval(task, name):
    labels, scores = of_task(task, rows=600)
    _, other = of_task(task, seed=0, rows=600)
    same = gain_interval(name, labels, scores, other, seed=1, resamples=50, task=task)
    assert (same.estimate, same.low, same.high, same.standard_error) == (0, 0, 0, 0)
    shuffled = other[np.random.default_rng(0).permutation(600)]
    worse = gain_interval(name, labels, scores, shuffled, seed=1, resamples=50, task=task)
    assert worse.low <= worse.high
    assert worse.standard_error > 0
    if name not in BINNED:
        assert worse.estimate > worse.standard_error


@pytest.mark.parametrize("name", METRICS)
def test_estimate_is_the_metric_of_the_rows(name):
    labels, better, worse = contest()
    values = [evaluate(labels, scores, [name])[name] for scores in (better, worse)]
    found = gain_interval(name, labels, better, worse, seed=1, resamples=200)
    near = 1e-2 if name == "reliability" else 1e-12  # over common bins
    assert found.estimate == pytest.approx(gain(name, *values), abs=near)
    alone = metric_interval(name, labels, better, seed=1, resamples=200)
    assert alone.estimate == values[0]
    assert found.low < found.high
    if name in ON_REQUEST and alone.estimate == 1:  # a budget without a miss: no resample has one
        assert (alone.low, alone.high) == (1, 1)
        return
    assert alone.low < alone.high
    if not name.startswith("ece"):  # resampling adds noise to the bins, which raises the error
        assert alone.low < alone.estimate < alone.high


@pytest.mark.parametrize("name", METRICS)
def test_equal_models_differ_by_exactly_nothing(name):
    labels, scores, _ = contest()
    found = gain_interval(name, labels, scores, scores.copy(), seed=3, resamples=200)
    assert (found.estimate, found.low, found.high) == (0, 0, 0)


def test_swapping_the_models_turns_the_interval_around():
    labels, better, worse = contest()
    there = gain_interval("roc_auc", labels, better, worse, seed=3, resamples=500)
    back = gain_interval("roc_auc", labels, worse, better, seed=3, resamples=500)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))


def test_same_seed_same_interval_other_seed_other():
    labels, better, worse = contest()
    one, again, other = (
        gain_interval("roc_auc", labels, better, worse, seed=seed, resamples=300)
        for seed in (5, 5, 6)
    )
    assert one == again != other


def test_equally_good_models_are_told_apart_as_rarely_as_promised():
    outside = 0
    for seed in range(150):
        generator = np.random.default_rng(seed)
        labels = generator.random(250) < 0.4
        signal = generator.normal(size=250) + labels
        pair = [1 / (1 + np.exp(-(signal + generator.normal(0, 0.7, 250)))) for _ in range(2)]
        found = gain_interval("roc_auc", labels, *pair, seed=seed, resamples=250)
        outside += not found.low <= 0 <= found.high
    # Expected 7.5; more than 16 has a probability below 0.2 %.
    assert outside <= 16


def test_scores_of_the_reference_are_checked_too():
    labels, better, worse = contest()
    worse[3] = np.nan
    with pytest.raises(MetricError, match="not probabilities"):
        gain_interval("roc_auc", labels, better, worse, seed=0)
    with pytest.raises(MetricError, match="no metric 'macro_f1'"):
        metric_interval("macro_f1", labels, better, seed=0)


def test_the_number_of_threads_has_no_influence(monkeypatch):
    labels, better, worse = contest(rows=900)
    names = ["roc_auc", "pr_auc", "log_loss", "reliability"]

    def found(many_rows):
        monkeypatch.setattr("aios_platform.resampling.bootstrap.MANY_ROWS", many_rows)
        return gain_intervals(names, labels, better, worse, seed=5, resamples=700)

    assert found(many_rows=1) == found(many_rows=10**9)


def test_several_metrics_at_once_have_the_intervals_they_have_alone():
    labels, scores, _ = contest()
    names = ["roc_auc", "brier", "ece"]
    together = metric_intervals(names, labels, scores, seed=5, resamples=300)
    for name in names:
        assert together[name] == metric_interval(name, labels, scores, seed=5, resamples=300)


def test_seed_depends_on_the_digest():
    assert seed_of("ab" * 32) == seed_of("ab" * 32) != seed_of("cd" * 32)


def test_several_metrics_at_once_are_the_same_as_one_by_one():
    labels, better, worse = contest()
    names = ["log_loss", "roc_auc", "ece", "brier"]
    found = gain_intervals(names, labels, better, worse, seed=5, resamples=200)
    assert list(found) == names
    for name in names:
        assert found[name] == gain_interval(name, labels, better, worse, seed=5, resamples=200)


@pytest.mark.parametrize(
    ("name", "rows"), [("reliability", 1500), ("log_loss", 400), ("brier", 400)]
)
def test_a_shifted_model_is_cleared_as_rarely_as_promised(name, rows):
    """The share of positives is part of the luck: with it held fixed, one in four was cleared."""
    cleared = condemned = 0
    shift, rounds = 0.05, 150
    for seed in range(rounds):
        generator = np.random.default_rng(seed)
        exact = generator.beta(2, 5, rows) * 0.8 + 0.05
        labels = generator.random(rows) < exact
        found = gain_interval(name, labels, exact + shift, exact, seed=seed, resamples=200)
        truth = -(shift**2)
        if name == "log_loss":
            wrong, right = exact + shift, exact
            truth = (
                exact * np.log(wrong / right) + (1 - exact) * np.log((1 - wrong) / (1 - right))
            ).mean()
        cleared += found.low > truth
        condemned += found.high < truth
    # Expected 3.75 on either side; 13 or more has a probability below 0.02 %.
    assert max(cleared, condemned) < 13


def test_p_values_invert_the_interval():
    labels, better, worse = contest()
    found = gain_interval("roc_auc", labels, better, worse, seed=7, resamples=999)
    assert found.p_at_most(found.low) == pytest.approx(0.025, abs=0.002)
    assert found.p_at_least(found.high) == pytest.approx(0.025, abs=0.002)
    assert found.p_at_most(-1) == found.p_at_least(1) == 1 / 1000
    assert found.p_at_most(1) == found.p_at_least(-1) == 1


def test_a_resample_without_a_value_is_refused():
    labels = np.zeros(30)
    labels[0] = 1.0
    with pytest.raises(MetricError, match=r"no value in .* resamples"):
        gain_interval("r2", labels, labels, labels + 0.1, seed=0, task="regression")


def test_the_rarest_class_is_in_every_resample():
    labels = np.arange(40) < 1
    scores = np.linspace(1, 0, 40)
    found = metric_interval("pr_auc", labels, scores, seed=0, resamples=300)
    assert (found.estimate, found.low, found.high) == (1, 1, 1)


def test_common_bins_free_the_difference_of_reliability_from_noise():
    """Two models that are equally well calibrated, and one that is off by 0.02."""
    equal, off = [], []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        exact = generator.beta(2, 5, 3000) * 0.8 + 0.05
        labels = generator.random(3000) < exact
        other = np.clip(exact + generator.normal(0, 0.01, 3000), 0, 1)
        pair = gain_interval("reliability", labels, other, exact, seed=seed, resamples=50)
        equal.append(pair)
        off.append(
            gain_interval("reliability", labels, other + 0.02, exact, seed=seed, resamples=50)
        )
    alone = metric_interval("reliability", labels, other, seed=0, resamples=200)
    assert np.mean([each.standard_error for each in equal]) < alone.standard_error / 4
    shifted = np.array([each.estimate for each in off])
    assert shifted.mean() == pytest.approx(-(0.02**2), abs=4 * shifted.std() / np.sqrt(60) + 2e-5)
