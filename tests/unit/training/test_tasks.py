"""Every task and kind of input, from frame to answers through the exported graph."""

import sys
import textwrap

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.errors import ScoringError, TrainingError
from aios_platform.inference.batch import score_window
from aios_platform.inference.session import Session
from aios_platform.training.trainer import train

CLASSES = ("left", "middle", "right")
THREE = AnswerSchema(task="multiclass_classification", classes=CLASSES)
WINDOWS = ("2024-01", "2024-02", "2024-03")
ROWS = 400


def field(name, kind, length=None):
    return FeatureField(name=name, kind=kind, origin="request", length=length)


NUMBER = field("size", FieldKind.NUMERICAL)
IMAGE = field("image", FieldKind.VECTOR, 16)
TEXT = field("message", FieldKind.TEXT)


@pytest.fixture(scope="module")
def rows():
    """A bright bar in one of three places, its size, and a message that says where it is."""
    random = np.random.default_rng(0)
    total = ROWS * len(WINDOWS)
    place = random.integers(0, 3, total)
    images = random.normal(0, 0.3, (total, 4, 4))
    images[np.arange(total), :, place] += 1.5
    size = random.lognormal(3, 0.5, total)
    noise = random.normal(0, 1, total)
    said = np.array(["look over there", "right HERE!", "somewhere else"])[place]
    filler = np.array(["hello", "dear", ""])[random.integers(0, 3, total)]
    return pa.table(
        {
            "row": pa.array([f"r{i}" for i in range(total)]),
            "at": pa.array([1_700_000_000_000_000 + i for i in range(total)]).cast(
                pa.timestamp("us", "UTC")
            ),
            "window": pa.array(np.repeat(WINDOWS, ROWS)),
            "size": pa.array(size),
            "image": pa.array(
                [None if i % 50 == 7 else list(v) for i, v in enumerate(images.reshape(total, 16))],
                pa.list_(pa.float32(), 16),
            ),
            "message": pa.array([f"{a} {b}" for a, b in zip(filler, said, strict=True)]),
            "place": pa.array(np.array(CLASSES)[place]),
            "is_right": pa.array(place == 2),
            "spend": pa.array(1000 + 50 * size * (1 + 0.2 * noise)),
        }
    )


def learn(declare, rows, fields, label, folder, answers=None, **options):
    return train(
        declare(**({"epochs": 12, "patience": 12} | options)),
        FeatureSchema(fields=tuple(fields)),
        rows,
        label=label,
        workdir=folder,
        answers=answers,
    )


def scored(model, rows, folder):
    session = Session(model.onnx, digest=model.digest)
    store = ArtifactStore(f"file://{folder}")
    version = score_window(
        session, rows, store, model="m", version="1", window="2024-03",
        row_id="row", prediction_time="at", inputs={"frame": "x"},
    )  # fmt: skip
    return session, store.read(version)


def test_images_are_told_apart_by_a_convolutional_network(training, rows, tmp_path):
    answers = THREE
    model = learn(
        training, rows, [IMAGE], "place", tmp_path, answers,
        network="convolutional", network_options={"shape": [1, 4, 4], "channels": [8]},
    )  # fmt: skip
    assert model.metrics["accuracy"] > 0.9
    session, table = scored(model, rows, tmp_path)
    assert session.answers == answers
    chances = np.column_stack([table[name].to_numpy() for name in answers.columns])
    assert np.allclose(chances.sum(axis=1), 1, atol=1e-5)
    likeliest = np.array(CLASSES)[chances.argmax(axis=1)].tolist()
    assert table["predicted"].to_pylist() == likeliest
    right = np.array(likeliest) == rows["place"].to_numpy(zero_copy_only=False)
    assert right.mean() > 0.9


def test_a_regression_answers_a_value_and_quantiles_that_cover(training, rows, tmp_path):
    answers = AnswerSchema(task="regression", quantiles=(0.1, 0.5, 0.9))
    model = learn(training, rows, [NUMBER], "spend", tmp_path, answers, quantiles=(0.1, 0.5, 0.9))
    assert model.metrics["r2"] > 0.5
    assert model.metrics["interval_coverage"] == pytest.approx(0.8, abs=0.02)
    assert model.parity <= 1e-5
    _, table = scored(model, rows, tmp_path)
    assert abs(np.mean(table["value"].to_numpy() - rows["spend"].to_numpy())) < 100
    assert (table["quantile_0.1"].to_numpy() <= table["quantile_0.9"].to_numpy()).all()


def test_a_regression_without_quantiles_has_one_column(training, rows, tmp_path):
    model = learn(
        training, rows, [NUMBER], "spend", tmp_path, AnswerSchema(task="regression"), epochs=2
    )
    assert Session(model.onnx).predict(rows).shape == (rows.num_rows,)


def test_words_of_a_text_tell_what_it_is(training, rows, tmp_path):
    model = learn(training, rows, [TEXT, NUMBER], "is_right", tmp_path, network="text_embedding",
                  network_options={"tokens": 8, "buckets": 64})  # fmt: skip
    assert model.metrics["roc_auc"] > 0.99
    session = Session(model.onnx)
    likely, unlikely, empty, absent = session.predict(
        pa.table(
            {
                "message": ["SOMEWHERE else... " + "x " * 20, "right here!", "", None],
                "size": [20.0, 20.0, 20.0, None],
            }
        )
    )
    assert likely > 0.9 > 0.1 > unlikely
    assert np.isfinite([empty, absent]).all()


def test_all_kinds_of_input_go_together(training, rows, tmp_path):
    category = field("window", FieldKind.CATEGORICAL)
    model = learn(
        training, rows, [TEXT, IMAGE, category, NUMBER], "is_right", tmp_path,
        network="text_embedding", epochs=2, members=2,
    )  # fmt: skip
    session = Session(model.onnx)
    assert list(session.inputs) == ["message", "image", "window", "size"]
    whole = session.predict(rows)
    assert np.array_equal(whole[5:9], session.predict(rows.slice(5, 4)))


def test_vectors_of_another_length_are_refused_when_they_are_scored(training, rows, tmp_path):
    model = learn(training, rows, [IMAGE], "is_right", tmp_path, epochs=1)
    session = Session(model.onnx)
    with pytest.raises(ScoringError, match="takes 16"):
        session.predict(pa.table({"image": pa.array([[1.0] * 15], pa.list_(pa.float32()))}))
    with pytest.raises(ScoringError, match="expected a vector of 16 numbers"):
        session.predict(pa.table({"image": [1.0]}))


@pytest.mark.parametrize(
    ("options", "fields", "message"),
    [
        ({"network": "convolutional"}, [IMAGE], "shape"),
        (
            {"network": "convolutional", "network_options": {"shape": [1, 5, 5]}},
            [IMAGE],
            "the vectors have the lengths",
        ),
        ({"network": "text_embedding"}, [NUMBER], "no text to read"),
        ({}, [TEXT], "reads no texts"),
        ({"network": "no_such_package:Network"}, [NUMBER], "cannot be imported"),
        ({"network": "pathlib:Path"}, [NUMBER], "expected a class that is a torch.nn.Module"),
        ({"network": "torch.nn:ReLU"}, [NUMBER], "cannot be made"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(training, rows, tmp_path, options, fields, message):
    with pytest.raises(TrainingError, match=message):
        learn(training, rows, fields, "is_right", tmp_path, **options)


@pytest.mark.parametrize(
    ("label", "answers", "message"),
    [
        ("spend", AnswerSchema(), "expected bool"),
        (
            "size",
            AnswerSchema(task="multiclass_classification", classes=CLASSES),
            "expected string",
        ),
        ("place", AnswerSchema(task="regression"), "expected double"),
        (
            "place",
            AnswerSchema(task="multiclass_classification", classes=("left", "up")),
            "none of",
        ),
    ],
)
def test_labels_of_another_task_are_refused(training, rows, tmp_path, label, answers, message):
    with pytest.raises(TrainingError, match=message):
        learn(training, rows, [NUMBER], label, tmp_path, answers)


def test_a_label_that_never_varies_cannot_be_learnt(training, rows, tmp_path):
    constant = rows.set_column(8, "spend", pa.repeat(pa.scalar(3.0), rows.num_rows))
    with pytest.raises(TrainingError, match=r"all of them 3\.0"):
        learn(training, constant, [NUMBER], "spend", tmp_path, AnswerSchema(task="regression"))


OWN = """
    import pytorch_lightning as pl
    import torch

    class Plain(torch.nn.Module):
        def __init__(self, inputs, outputs, training):
            super().__init__()
            self.layer = torch.nn.Linear(inputs.numerical, outputs)

        def forward(self, numerical, codes):
            return self.layer(numerical)

    class Own(pl.LightningModule):
        def __init__(self, inputs, outputs, training):
            super().__init__()
            self.epochs = training.network_options["speed"]
            self.layer = torch.nn.Linear(inputs.numerical, outputs)

        def forward(self, numerical, codes):
            return self.layer(numerical)

        def training_step(self, batch, index):
            numerical, codes, targets = batch
            loss = torch.nn.functional.huber_loss(self(numerical, codes)[:, 0], targets)
            self.log("own", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.epochs)

    class Wide(Plain):
        def forward(self, numerical, codes):
            return torch.cat([self.layer(numerical)] * 2, dim=1)
"""


@pytest.fixture
def own_package(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("own_networks", None)


@pytest.mark.parametrize("name", ["Plain", "Own"])
def test_a_network_of_ones_own_trains_and_exports(training, rows, tmp_path, own_package, name):
    def again(folder):
        return learn(
            training, rows, [NUMBER], "spend", tmp_path / folder, AnswerSchema(task="regression"),
            network=f"own_networks:{name}", network_options={"speed": 0.1}, epochs=4,
        )  # fmt: skip

    model = again("first")
    assert model.metrics["r2"] > 0.5
    assert [epoch.epoch for epoch in model.epochs] == [0, 1, 2, 3]
    assert all(np.isfinite(epoch.train_loss) for epoch in model.epochs)
    assert again("second").digest == model.digest
    assert again("second").resumed, "finished members are taken up"


def test_a_network_of_another_shape_is_named(training, rows, tmp_path, own_package):
    with pytest.raises(TrainingError, match=r"gives the shape \(2, 2\)"):
        learn(training, rows, [NUMBER], "is_right", tmp_path, network="own_networks:Wide")
