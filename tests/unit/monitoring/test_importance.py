"""Permutation importance of a model whose use of its features is known."""

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.errors import MetricError
from aios_platform.monitoring.importance import Importance, permutation_importance

FEATURES = ("strong", "weak", "unused", "text")


def rows(count=4000, seed=0):
    generator = np.random.default_rng(seed)
    strong, weak, unused = generator.normal(size=(3, count)).astype(np.float32)
    text = generator.choice(["a", "b", None], count)
    chance = 1 / (1 + np.exp(-(2 * strong + 0.5 * weak + (text == "a"))))
    return pa.table(
        {
            "strong": strong, "weak": weak, "unused": unused,
            "text": pa.array(text, pa.string()), "late": generator.random(count) < chance,
        }
    )  # fmt: skip


def predict(table):
    text = np.array(table["text"].to_pylist(), dtype=object) == "a"
    strength = 2 * table["strong"].to_numpy() + 0.5 * table["weak"].to_numpy() + text
    return (1 / (1 + np.exp(-strength))).astype(np.float32)


def test_weights_follow_the_use_that_the_model_makes_of_a_feature():
    found = permutation_importance(predict, rows(), "late", FEATURES)
    weights = found.weights
    assert found.rows == 3000
    assert weights["strong"] > weights["text"] > 0
    assert weights["strong"] > 5 * weights["weak"] > 0
    assert weights["unused"] == 0 == found.increase["unused"]
    assert sum(weights.values()) == pytest.approx(1)
    assert Importance.model_validate_json(found.model_dump_json()) == found


def test_it_is_the_same_every_time():
    again = [permutation_importance(predict, rows(), "late", FEATURES) for _ in range(2)]
    assert again[0] == again[1]


def test_a_model_that_uses_nothing_weighs_all_features_alike():
    def constant(table):
        return np.full(table.num_rows, 0.5, np.float32)

    found = permutation_importance(constant, rows(500), "late", FEATURES)
    assert set(found.weights.values()) == {0.25}


def test_rows_of_one_class_give_no_importance():
    one = rows(200).drop_columns(["late"]).append_column("late", pa.array([True] * 200))
    with pytest.raises(MetricError):
        permutation_importance(predict, one, "late", FEATURES)
