"""Export to a single-file ONNX model that takes raw features by name."""

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.errors import ExportError
from aios_platform.training.encoding import (
    UNKNOWN,
    Encoding,
    categorical_codes,
    numerical_matrix,
)

if TYPE_CHECKING:
    from torch import nn

OPSET = 20
TOLERANCE = 1e-5
OUTPUT = "probability"


def export_onnx(model: "nn.Module", schema: FeatureSchema, encoding: Encoding) -> bytes:
    """The model as ONNX bytes, without external data.

    One input per feature, in the schema's order: numericals float32 (n, 1), missing as NaN;
    categoricals string (n, 1), missing as "". One output `probability`, float32 (n,).

    Args:
        model: Takes raw numericals (n, f) and codes (n, c), gives probabilities (n,).
        schema: The model's inputs.
        encoding: Holds the vocabularies.

    Raises:
        ExportError: The exporter failed, or its graph is not valid.
    """
    import onnx
    from onnx import TensorProto, helper

    graph = _exported(model, schema).graph
    head: list[Any] = []
    if schema.numerical:
        head.append(helper.make_node("Concat", list(schema.numerical), ["numerical"], axis=1))
    codes = []
    for name, values in zip(schema.categorical, encoding.vocabularies, strict=True):
        codes.append(f"{name}.code")
        head.append(
            helper.make_node(
                "LabelEncoder",
                [name],
                [codes[-1]],
                domain="ai.onnx.ml",
                # An empty vocabulary is not allowed; the empty string is unknown anyway.
                keys_strings=[*values, ""],
                values_int64s=[*range(1, len(values) + 1), UNKNOWN],
                default_int64=UNKNOWN,
            )
        )
    if codes:
        head.append(helper.make_node("Concat", codes, ["categorical"], axis=1))
    if not schema.numerical:
        head += _no_numericals(helper)
    types = dict.fromkeys(schema.numerical, TensorProto.FLOAT) | dict.fromkeys(
        schema.categorical, TensorProto.STRING
    )
    inputs = [
        helper.make_tensor_value_info(name, types[name], ["rows", 1]) for name in schema.names
    ]
    outputs = [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows"])]
    whole = helper.make_model(
        helper.make_graph(
            [*head, *graph.node], "aios", inputs, outputs, initializer=list(graph.initializer)
        ),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 3)],
        producer_name="aios-platform",
        ir_version=10,
    )
    try:
        onnx.checker.check_model(whole, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(
            f"The exported graph is not valid ONNX: {error}",
            remedy="Look for an operator of the network that ONNX does not have.",
        ) from error
    content: bytes = whole.SerializeToString(deterministic=True)
    return content


def verify_parity(
    onnx: bytes, model: "nn.Module", schema: FeatureSchema, encoding: Encoding, rows: pa.Table
) -> float:
    """The largest difference between ONNX Runtime's and torch's probabilities.

    Args:
        onnx: The exported model.
        model: The network it came from.
        schema: The model's inputs.
        encoding: Holds the vocabularies.
        rows: Real raw rows.

    Raises:
        ExportError: They differ by more than 1e-5 somewhere, or are not finite.
    """
    import torch
    from onnxruntime import InferenceSession

    numerical = numerical_matrix(rows, schema)
    with torch.inference_mode():
        expected = model(
            torch.from_numpy(numerical),
            torch.from_numpy(categorical_codes(rows, schema, encoding.vocabularies)),
        ).numpy()
    feeds: dict[str, Any] = {
        name: numerical[:, [index]] for index, name in enumerate(schema.numerical)
    }
    for name in schema.categorical:
        texts = rows.column(name).cast(pa.string()).fill_null("")
        feeds[name] = np.array(texts.to_pylist(), dtype=object)[:, None]
    session = InferenceSession(onnx, providers=["CPUExecutionProvider"])
    (found,) = session.run([OUTPUT], feeds)
    difference = float(np.abs(found - expected).max()) if len(expected) else float("nan")
    if not difference <= TOLERANCE:
        raise ExportError(
            f"The ONNX model differs from the network by {difference:.2e} on {rows.num_rows:,} "
            f"real rows; {TOLERANCE:.0e} is tolerated.",
            remedy="Do not use the model; look at operators whose precision differs.",
        )
    return difference


def _no_numericals(helper: Any) -> list[Any]:
    """The input `numerical` of a model without numerical features: shape (n, 0)."""
    return [
        helper.make_node("Constant", [], ["numerical.zero"], value_ints=[0]),
        helper.make_node("Constant", [], ["numerical.axis"], value_ints=[1]),
        helper.make_node(
            "Slice",
            ["categorical", "numerical.zero", "numerical.zero", "numerical.axis"],
            ["numerical.codes"],
        ),
        helper.make_node(
            "Cast",
            ["numerical.codes"],
            ["numerical"],
            to=helper.np_dtype_to_tensor_dtype(np.dtype(np.float32)),
        ),
    ]


def _exported(model: "nn.Module", schema: FeatureSchema) -> Any:
    """The graph of the network proper, with inputs `numerical` and `categorical`."""
    import onnx
    import torch

    sample = (
        torch.zeros((2, len(schema.numerical)), dtype=torch.float32),
        torch.zeros((2, len(schema.categorical)), dtype=torch.int64),
    )
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # The exporter over TorchScript is deprecated but takes 0.3 s; the one over
            # torch.export gives the same operators in 6 s, a tenth of a whole lifecycle.
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(
                model,
                sample,
                buffer,
                dynamo=False,
                opset_version=OPSET,
                input_names=["numerical", "categorical"],
                output_names=[OUTPUT],
                dynamic_axes={name: {0: "rows"} for name in ("numerical", "categorical", OUTPUT)},
            )
    except Exception as error:
        raise ExportError(
            f"The network cannot be exported to ONNX: {error}",
            remedy="Use only operations that ONNX has.",
        ) from error
    return onnx.load_from_string(buffer.getvalue())
