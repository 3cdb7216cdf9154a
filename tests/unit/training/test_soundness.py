"""What every trained network is checked for."""

import pytest

from aios_platform.errors import TrainingError
from aios_platform.training.trainer import train

HERE = "tests.unit.training.unsound"


def checks_of(trained):
    return {check.name: check for check in trained.checks}


@pytest.fixture
def trained_with(frame, schema, training, tmp_path):
    def run(network, **more):
        declared = training(network=network, epochs=1, **more)
        return train(declared, schema, frame, label="is_late", workdir=tmp_path)

    return run


def test_the_platforms_network_is_sound(trained_with):
    found = checks_of(trained_with("embedding_mlp", dropout=0.2, members=2))
    assert set(found) == {"learns", "reached", "rows_alone", "bounded"}
    assert all(check.held for check in found.values()), found
    assert found["learns"].observed > 0.3


def test_a_network_that_answers_by_the_rows_beside_it_is_refused(trained_with):
    with pytest.raises(TrainingError, match="differently alone than among others"):
        trained_with(f"{HERE}:Crowd")


def test_one_that_cannot_learn_is_told_of(trained_with, caplog):
    found = checks_of(trained_with(f"{HERE}:Deaf"))
    assert [name for name, check in found.items() if not check.held] == ["learns", "reached"]
    assert "unused.weight" in found["reached"].says
    assert "'learns' of the network did not hold" in caplog.text


def test_one_with_an_enormous_weight_is_told_of(trained_with):
    found = checks_of(trained_with(f"{HERE}:Steep"))
    assert [name for name, check in found.items() if not check.held] == ["bounded"]
    assert found["bounded"].observed == pytest.approx(1e6)
