"""Models of every task, and inputs that are vectors and texts, through the gateway."""

import json
import uuid
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.rollouts import RolloutMode
from aios_platform.contracts.training import Training
from aios_platform.inference.session import Session
from aios_platform.monitoring.served import predictions_of, read_served
from aios_platform.monitoring.served_content import decode
from aios_platform.training.trainer import train
from tests.gateways import local_gateway, metric, roll_out
from tests.served_models import attributes, make_champion, network_of, training_set

pytestmark = pytest.mark.postgres

ARROW = "application/vnd.apache.arrow.stream"
CLASSES = ("left", "middle", "right")
THREE = AnswerSchema(task="multiclass_classification", classes=CLASSES)
LEVELS = AnswerSchema(task="regression", quantiles=(0.1, 0.5, 0.95))
VALUE = AnswerSchema(task="regression")
BOTH = AnswerSchema(task="multiclass_classification", classes=("no", "yes"))
LABELS = {
    "multiclass_classification": {"type": "string", "values": list(CLASSES)},
    "regression": {"type": "float"},
}
COLUMNS = {
    "image": {"type": "vector", "length": 3, "min": -10, "max": 10, "nullable": True},
    "message": {"type": "text"},
}


def field(name, kind, length=None):
    return FeatureField(name=name, kind=kind, origin="request", length=length)


NUMBERS = (field("size", FieldKind.NUMERICAL), field("weight", FieldKind.NUMERICAL))
COLOUR = field("colour", FieldKind.CATEGORICAL)
IMAGE = field("image", FieldKind.VECTOR, 3)
MESSAGE = field("message", FieldKind.TEXT)
EVERY = FeatureSchema(fields=(*NUMBERS, COLOUR, IMAGE, MESSAGE))
ROWS = [
    {
        "size": n / 4, "weight": n / 8, "colour": ["blue", "red"][n % 2],
        "image": [n / 10, -n / 10, 1.0], "message": ["red", "blue", "a line of a log"][n % 3],
    }
    for n in range(12)
]  # fmt: skip


def declared(name, answers, features, **serving):
    """A model of this task that takes these inputs from its callers."""
    content = attributes(name, **serving)
    content["task"] = answers.task
    columns = content["source"]["tables"]["toys"]["columns"]
    columns |= COLUMNS
    columns["broke"] = {**LABELS[answers.task], "nullable": True}
    if answers.classes:
        columns["broke"]["values"] = list(answers.classes)
        content["gate"] = {"metric": "accuracy", "guards": {}}
    content["features"]["request"] = list(features.names)
    content["training"] = {"quantiles": list(answers.quantiles)}
    return ModelDeclaration.model_validate(content)


@pytest.fixture
def model() -> str:
    return f"m_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def serve(database, store, model):
    """A gateway of one model of a task."""

    def start(answers, features=EVERY, content=None, **serving):
        content = content or network_of(features, answers)
        pinned = training_set(features, model=model)
        make_champion(database, store, content, model=model, pinned=pinned)
        return local_gateway(database, store, [declared(model, answers, features, **serving)])

    return start


def table(rows=ROWS, features=EVERY) -> pa.Table:
    kinds = {
        FieldKind.NUMERICAL: pa.float32(),
        FieldKind.CATEGORICAL: pa.string(),
        FieldKind.TEXT: pa.string(),
        FieldKind.VECTOR: pa.list_(pa.float32(), 3),
    }
    schema = pa.schema([(f.name, kinds[f.kind]) for f in features.fields])
    chosen = [{name: row[name] for name in features.names} for row in rows]
    return pa.Table.from_pylist(chosen, schema=schema)


def expected(answers, features=EVERY) -> list:
    return Session(network_of(features, answers)).predict(table(features=features)).tolist()


def stream(content: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, content.schema) as writer:
        writer.write_table(content)
    return sink.getvalue().to_pybytes()


def tensors(rows) -> list[dict]:
    datatypes = {"size": "FP32", "weight": "FP32", "colour": "BYTES", "message": "BYTES"}
    plain = [
        {"name": n, "shape": [len(rows)], "datatype": kind, "data": [row[n] for row in rows]}
        for n, kind in datatypes.items()
    ]
    images = [value for row in rows for value in row["image"]]
    image = {"name": "image", "shape": [len(rows), 3], "datatype": "FP32", "data": images}
    return [*plain, image]


def test_several_classes_are_answered_with_the_likeliest_and_all_probabilities(serve, model):
    wanted = expected(THREE)
    with serve(THREE) as gateway:
        answer = gateway.predict(model, {"instances": ROWS})
        columns = gateway.predict(model, stream(table()), content_type=ARROW)
        v2 = gateway.ask(
            "POST", f"/v2/models/{model}/infer", json.dumps({"inputs": tensors(ROWS)}).encode()
        )
        document = gateway.ask("GET", "/openapi.json").json
        described = gateway.ask("GET", f"/v2/models/{model}").json
    for told, scores in zip(answer.json["predictions"], wanted, strict=True):
        assert told["predicted"] == CLASSES[int(np.argmax(scores))]
        assert told["probability"] == pytest.approx(max(scores), abs=1e-6)
        assert list(told["probabilities"].values()) == pytest.approx(scores, abs=1e-6)
        assert told["source"] == "full"
    read = pa.ipc.open_stream(columns.body).read_all()
    assert read.column_names[:4] == [*THREE.columns, "predicted"]
    found = np.column_stack([read[name].to_numpy() for name in THREE.columns])
    assert found == pytest.approx(np.array(wanted), abs=1e-6)
    assert read["predicted"].to_pylist() == [t["predicted"] for t in answer.json["predictions"]]
    outputs = {output["name"]: output["data"] for output in v2.json["outputs"]}
    assert outputs["probability_middle"] == pytest.approx([row[1] for row in wanted], abs=1e-6)
    assert outputs["predicted"] == read["predicted"].to_pylist()
    prediction = document["components"]["schemas"][f"{model}.Prediction"]
    assert prediction["required"] == ["predicted", "probability", "probabilities", "source"]
    row = document["components"]["schemas"][f"{model}.Row"]["properties"]
    assert "maxItems" in json.dumps(row["image"])
    assert {"name": "image", "datatype": "FP32", "shape": [-1, 3]} in described["inputs"]
    assert described["outputs"][3] == {"name": "predicted", "datatype": "BYTES", "shape": [-1]}


@pytest.mark.parametrize("answers", [LEVELS, VALUE], ids=["quantiles", "value"])
def test_a_regression_is_answered_with_its_value_and_quantiles(serve, model, answers):
    wanted = expected(answers)
    with serve(answers) as gateway:
        rows = gateway.predict(model, {"instances": ROWS}).json["predictions"]
        one = gateway.predict(model, {"instance": ROWS[3]}).json["prediction"]
        columns = gateway.predict(model, stream(table()), content_type=ARROW)
    read = pa.ipc.open_stream(columns.body).read_all()
    assert read.column_names[: len(answers.columns)] == list(answers.columns)
    values = [scores[0] if answers.quantiles else scores for scores in wanted]
    assert [row["value"] for row in rows] == pytest.approx(values, abs=1e-5)
    assert read["value"].to_pylist() == pytest.approx(values, abs=1e-5)
    assert one["value"] == pytest.approx(values[3], abs=1e-5)
    if answers.quantiles:
        assert list(one["quantiles"]) == ["0.1", "0.5", "0.95"]
        assert list(one["quantiles"].values()) == pytest.approx(wanted[3][1:], abs=1e-5)
    else:
        assert "quantiles" not in one


@pytest.mark.parametrize(
    "features",
    [FeatureSchema(fields=(IMAGE,)), FeatureSchema(fields=(MESSAGE,))],
    ids=["vector", "text"],
)
def test_a_vector_or_a_text_alone_is_enough(serve, model, features):
    wanted = expected(BOTH, features)
    rows = [{name: row[name] for name in features.names} for row in ROWS]
    with serve(BOTH, features) as gateway:
        found = gateway.predict(model, {"instances": rows}).json["predictions"]
    assert [row["probabilities"]["yes"] for row in found] == pytest.approx(
        [scores[1] for scores in wanted], abs=1e-6
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image": [1.0, 2.0]}, "length >= 3"),
        ({"image": [1.0, 2.0, 3.0, 4.0]}, "length <= 3"),
        ({"image": [1.0, None, 3.0]}, "Expected `float`, got `null`"),
        ({"image": [1.0, 2.0, 11.0]}, "<= 10"),
        ({"image": "abc"}, "Expected `array | null`"),
        ({"message": 3}, "Expected `str`"),
        ({"message": None}, "Expected `str`"),
        ({"message": "x" * 65_537}, "length <= 65536"),
    ],
)
def test_what_is_no_vector_or_text_is_refused(serve, model, change, told):
    with serve(THREE) as gateway:
        answer = gateway.predict(model, {"instance": ROWS[0] | change})
        assert gateway.predict(model, {"instance": ROWS[0]}).status == 200
    assert (answer.status, answer.code) == (422, "invalid_input")
    assert told in answer.json["detail"]


def test_columns_that_are_no_vectors_or_texts_are_refused(serve, model):
    whole = table()

    def changed(name, values, kind):
        place = whole.column_names.index(name)
        return stream(whole.set_column(place, name, pa.array(values, kind)))

    floats = pa.list_(pa.float64())
    bad = [
        changed("image", [[1.0, 2.0]] * 12, floats),
        changed("image", [[1.0, float("nan"), 2.0]] * 12, floats),
        changed("image", [[1.0, None, 2.0]] * 12, floats),
        changed("image", [[1.0, 2.0, 11.0]] * 12, floats),
        changed("image", [["a", "b", "c"]] * 12, pa.list_(pa.string())),
        changed("image", [1.0] * 12, pa.float32()),
        changed("message", ["x" * 65_537] * 12, pa.string()),
        changed("message", [1.0] * 12, pa.float32()),
    ]
    short = tensors(ROWS)
    short[-1] |= {"shape": [12, 2], "data": short[-1]["data"][:24]}
    with serve(THREE) as gateway:
        answers = [gateway.predict(model, body, content_type=ARROW) for body in bad]
        body = json.dumps({"inputs": short}).encode()
        answers.append(gateway.ask("POST", f"/v2/models/{model}/infer", body))
        lists = changed("image", [[1, 2, 3]] * 12, pa.list_(pa.int64()))
        assert gateway.predict(model, lists, content_type=ARROW).status == 200
    assert {(a.status, a.code) for a in answers} == {(422, "invalid_input")}, [
        a.body for a in answers
    ]


def test_a_missing_vector_is_what_the_model_was_trained_on(serve, model):
    rows = [row | {"image": None} for row in ROWS]
    wanted = Session(network_of(EVERY, THREE)).predict(table(rows))
    with serve(THREE) as gateway:
        found = gateway.predict(model, {"instances": rows}).json["predictions"]
        columns = gateway.predict(model, stream(table(rows)), content_type=ARROW)
    left = [scores[0] for scores in wanted.tolist()]
    assert [row["probabilities"]["left"] for row in found] == pytest.approx(left, abs=1e-6)
    read = pa.ipc.open_stream(columns.body).read_all()
    assert read["probability_left"].to_pylist() == pytest.approx(left, abs=1e-6)


def test_kept_answers_are_those_of_the_same_vector_and_text(serve, model):
    image = ROWS[0] | {"image": [5.0, 5.0, 5.0]}
    message = ROWS[0] | {"message": "blue"}
    with serve(THREE, cache={"entries": 100}) as gateway:
        first = [gateway.predict(model, {"instance": r}).json for r in (ROWS[0], image, message)]
        again = [gateway.predict(model, {"instance": r}).json for r in (ROWS[0], image, message)]
    assert [told["prediction"]["source"] for told in first] == ["full"] * 3
    assert [told["prediction"]["source"] for told in again] == ["cache"] * 3
    probabilities = [json.dumps(told["prediction"]["probabilities"]) for told in first]
    assert len(set(probabilities)) == 3
    assert probabilities == [json.dumps(told["prediction"]["probabilities"]) for told in again]


def test_what_was_served_is_recorded_with_vectors_texts_and_every_answer(serve, model):
    wanted = expected(THREE)
    with serve(THREE) as gateway:
        gateway.predict(model, {"instances": [r | {"id": f"r{n}"} for n, r in enumerate(ROWS)]})
    (row,) = gateway.rows("SELECT content FROM served_batch WHERE model = :m", m=model)
    found = decode(bytes(row.content))
    assert found.features == EVERY
    assert found.inputs.select(["image", "message"]).to_pylist() == [
        {"image": pytest.approx(row["image"]), "message": row["message"]} for row in ROWS
    ]
    scores = np.column_stack([found.answers[name].to_numpy() for name in THREE.columns])
    assert scores == pytest.approx(np.array(wanted), abs=1e-6)


def test_monitoring_reads_the_answers_of_several_classes_and_the_likeliest(serve, model, database):
    moments = pa.array([datetime(2013, 1, 5, tzinfo=UTC)] * 12, pa.timestamp("us", "UTC"))
    delivered = pa.table({"id": [f"r{n}" for n in range(12)], "at": moments})
    with serve(THREE) as gateway:
        sent = [row | {"id": f"r{n}", "at": "2013-01-05T00:00:00Z"} for n, row in enumerate(ROWS)]
        told = gateway.predict(model, {"instances": sent}).json["predictions"]
    window = declared(model, THREE, EVERY).windows.window("2013-01")
    [found] = read_served(database, model, window, delivered, "id", "at")
    truth = delivered.append_column("broke_at", moments)
    predictions, inputs = predictions_of(found, truth, "id", declared(model, THREE, EVERY).label)
    by_id = {row["id"]: row["predicted"] for row in told}
    assert (
        dict(zip(predictions["id"].to_pylist(), predictions["predicted"].to_pylist(), strict=True))
        == by_id
    )
    assert set(THREE.columns) <= set(predictions.column_names)
    assert inputs.column_names == list(EVERY.names)


def test_what_training_exports_of_every_kind_of_input_is_served(serve, model, tmp_path):
    random = np.random.default_rng(0)
    count = 300
    place = random.integers(0, 3, count)
    rows = [
        {
            "size": float(random.random()), "weight": float(p), "colour": ["blue", "red"][p % 2],
            "image": (np.eye(3)[p] + random.normal(0, 0.1, 3)).tolist(),
            "message": ["over there", "right here", "somewhere"][p],
        }
        for p in place
    ]  # fmt: skip
    known = table(rows)
    at = 1_700_000_000_000_000 + np.arange(count)
    frame = (
        known.append_column("broke", pa.array(np.array(CLASSES)[place]))
        .append_column("window", pa.array(np.repeat(["2024-01", "2024-02", "2024-03"], 100)))
        .append_column("at", pa.array(at).cast(pa.timestamp("us", "UTC")))
        .append_column("id", pa.array([f"r{n}" for n in range(count)]))
    )
    trained = train(
        Training(network="text_embedding", epochs=2),
        EVERY,
        frame,
        label="broke",
        workdir=tmp_path / "run",
        answers=THREE,
    )
    wanted = Session(trained.onnx).predict(known.slice(0, 20))
    with serve(THREE, content=trained.onnx) as gateway:
        told = gateway.predict(model, {"instances": rows[:20]}).json["predictions"]
    found = np.array([list(row["probabilities"].values()) for row in told])
    assert found == pytest.approx(wanted, abs=1e-6)


def test_a_shadow_and_a_canary_are_compared_by_their_likeliest_class_or_value(
    serve, model, database, store
):
    content = network_of(EVERY, LEVELS, seed=1)
    values = Session(content).predict(table())[:, 0]
    pinned = training_set(EVERY, model=model)
    with serve(LEVELS) as gateway:
        roll_out(
            database, model, content, store,
            mode=RolloutMode.SHADOW, training_set_digest=pinned.digest,
        )  # fmt: skip
        gateway.until(lambda: gateway.deployment(model).trial is not None)
        gateway.predict(model, {"instances": ROWS})
        gateway.until(
            lambda: len(gateway.rows("SELECT 1 FROM shadow_pair WHERE model = :m", m=model)) == 12
        )
        pairs = gateway.rows(
            "SELECT live, candidate FROM shadow_pair WHERE model = :m ORDER BY place", m=model
        )
        roll_out(database, model, content, store, mode=RolloutMode.CANARY, step=1)
        gateway.until(lambda: gateway.deployment(model)._split is not None)
        told = gateway.predict(model, {"instances": ROWS}).json["predictions"]
        assert metric("aios_prediction_count", model=model, version="candidate") > 0
    assert [pair.candidate for pair in pairs] == pytest.approx(values.tolist(), abs=1e-4)
    live = [scores[0] for scores in expected(LEVELS)]
    assert [pair.live for pair in pairs] == pytest.approx(live, abs=1e-4)
    assert {row["version"] for row in told} == {"1", "candidate"}
    by = {"1": live, "candidate": values.tolist()}
    assert [row["value"] for row in told] == pytest.approx(
        [by[row["version"]][place] for place, row in enumerate(told)], abs=1e-4
    )


def test_a_model_that_answers_other_classes_than_declared_is_not_served(serve, model, caplog):
    with serve(THREE, content=network_of(EVERY, BOTH)) as gateway:
        assert gateway.predict(model, {"instance": ROWS[0]}).status in (404, 503)
    assert "the declaration says" in caplog.text


@pytest.mark.parametrize(
    "serving",
    [
        {"safe_default": 0.5},
        {"uncertainty": {"abstain": True}, "safe_default": 0.5},
        {"uncertainty": {"abstain_band": {"low": 0.4, "high": 0.6}}, "safe_default": 0.5},
        {"tiers": [{"name": "a", "escalate": {"low": 0.4, "high": 0.6}}, {"name": "b"}]},
    ],
)
@pytest.mark.parametrize("answers", [THREE, LEVELS], ids=["classes", "regression"])
def test_what_only_a_probability_can_have_is_refused_when_it_is_declared(answers, serving):
    with pytest.raises(ValueError, match=r"which a model of .* does not answer: leave it out"):
        declared("toy", answers, EVERY, **serving)
