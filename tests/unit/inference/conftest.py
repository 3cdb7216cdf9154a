"""A hand-made ONNX model: sigmoid(delay / 10), plus 1 to the logit for carrier BB."""

from collections.abc import Callable

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper

from aios_platform.inference.session import Session


def make_onnx(
    scale: float = 0.1, output: str = "probability", kind: int = TensorProto.FLOAT
) -> bytes:
    nodes = [
        helper.make_node(
            "LabelEncoder",
            ["carrier"],
            ["bonus"],
            domain="ai.onnx.ml",
            keys_strings=["BB"],
            values_floats=[1.0],
            default_float=0.0,
        ),
        helper.make_node("IsNaN", ["delay"], ["absent"]),
        helper.make_node("Where", ["absent", "zero", "delay"], ["present"]),
        helper.make_node("Mul", ["present", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bonus"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["column"]),
        helper.make_node("Squeeze", ["column", "axis"], ["flat"]),
        helper.make_node("Cast", ["flat"], [output], to=kind),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info("delay", TensorProto.FLOAT, ["rows", 1]),
            helper.make_tensor_value_info("carrier", TensorProto.STRING, ["rows", 1]),
        ],
        [helper.make_tensor_value_info(output, kind, ["rows"])],
        initializer=[
            numpy_helper.from_array(np.array(scale, dtype=np.float32), "scale"),
            numpy_helper.from_array(np.array(0, dtype=np.float32), "zero"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"),
        ],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=10,
    )
    return bytes(model.SerializeToString())


@pytest.fixture(scope="session")
def content() -> bytes:
    return make_onnx()


@pytest.fixture(scope="session")
def session(content: bytes) -> Session:
    return Session(content)


@pytest.fixture
def make_frame() -> Callable[..., pa.Table]:
    def make(rows: int = 100, seed: int = 0) -> pa.Table:
        random = np.random.default_rng(seed)
        return pa.table(
            {
                "flight_id": pa.array([f"f{i}" for i in range(rows)], pa.string()),
                "asked_at": pa.array(np.arange(rows) * 1_000_000, pa.timestamp("us", "UTC")),
                "carrier": pa.array(
                    random.choice(["AA", "BB"], rows), pa.string(), mask=random.random(rows) < 0.1
                ),
                "delay": pa.array(
                    random.normal(0, 20, rows), pa.float64(), mask=random.random(rows) < 0.1
                ),
            }
        )

    return make


def save_with_external_data(content: bytes, folder: str) -> bytes:
    model = onnx.load_from_string(content)
    path = f"{folder}/external.onnx"
    onnx.save_model(model, path, save_as_external_data=True, size_threshold=0, location="weights")
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read()
