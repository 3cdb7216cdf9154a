"""What a declared search may vary, and what is refused before anything is tried."""

import pytest
from pydantic import ValidationError

from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.search import declared_value, with_values
from aios_platform.contracts.training import Training
from tests.unit.contracts.test_declaration import MINIMAL

TRAINING = {"hidden": [64], "network": "text_embedding", "network_options": {"width": 16}}


def declare(space, training=TRAINING, **search):
    declared = {"trials": 5, "space": space} | search
    return ModelDeclaration.model_validate(MINIMAL | {"training": training, "search": declared})


def test_ranges_and_choices_of_training_and_of_its_network_are_taken():
    found = declare(
        {
            "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
            "batch_size": {"low": 256, "high": 4096},
            "hidden": {"choices": [[64], [128, 64]]},
            "network_options.width": {"choices": [16, 32]},
        }
    )
    assert found.search.space["hidden"].choices == ([64], [128, 64])
    assert ModelDeclaration.model_validate(MINIMAL).search is None


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"learning_rat": {"low": 0.001, "high": 0.1}}, "Did you mean 'learning_rate'"),
        ({"seed": {"low": 0, "high": 9}}, "'seed', which cannot be searched"),
        ({"dropout": {"low": 0.1, "high": 1.5}}, "less than 1"),
        ({"hidden": {"choices": [[64], ["wide"]]}}, "valid integer"),
        ({"dropout": {"low": 0.4, "high": 0.5}}, "does not hold the declared 0.3"),
        ({"hidden": {"choices": [[32], [128]]}}, r"does not hold the declared \[64\]"),
        ({"network_options.buckets": {"low": 0, "high": 9}}, "does not declare"),
        ({"dropout": {"low": 0.5, "high": 0.5}}, "not below high"),
        ({"dropout": {"low": 0, "high": 0.5, "log": True}}, "must be above 0"),
        ({"dropout": {"low": 0.1}}, "give low and high"),
        ({"dropout": {"low": 0.1, "high": 0.5, "choices": [0.3, 0.4]}}, "not both"),
        ({"hidden": {"choices": [[64]]}}, "two values or more"),
        ({"hidden": {"choices": [[64], [64]]}}, "two values or more"),
        ({"dropout": {"low": 0.1, "hihg": 0.5}}, "Did you mean 'high'"),
        ({}, "at least 1 item"),
    ],
)
def test_what_cannot_be_searched_is_refused(space, message):
    with pytest.raises(ValidationError, match=message):
        declare(space)


def test_values_replace_those_declared_and_nothing_else():
    training = Training.model_validate(TRAINING)
    found = with_values(training, {"hidden": [32, 16], "network_options.width": 8, "dropout": 0.1})
    assert found.hidden == (32, 16)
    assert found.network_options == {"width": 8}
    assert training.network_options == {"width": 16}
    same = found.model_copy(
        update={"hidden": (64,), "dropout": 0.3, "network_options": {"width": 16}}
    )
    assert same == training
    assert declared_value(found, "hidden") == [32, 16]
    assert declared_value(found, "network_options.width") == 8
    assert declared_value(found, "network_options.depth") is None
