"""Export to a single-file ONNX model that takes raw features by name."""

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from aios_platform.contracts.answers import ANSWERS_PROPERTY, BINARY_OUTPUT, AnswerSchema
from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.errors import ExportError
from aios_platform.training.encoding import UNKNOWN, Encoding, raw_inputs, texts_of
from aios_platform.training.tokens import OPSET, opsets, words_type

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-5
NUMERICAL, CATEGORICAL = "numerical", "categorical"


def export_onnx(
    model: "nn.Module",
    schema: FeatureSchema,
    encoding: Encoding,
    answers: AnswerSchema | None = None,
) -> bytes:
    """The model as ONNX bytes, without external data.

    One input per feature, in the schema's order: numericals float32 (n, 1), missing as NaN;
    categoricals string (n, 1), missing as ""; vectors float32 (n, length), missing as NaN; texts
    string (n,), missing as "". One output: `probability`, float32 (n,), of a binary model, else
    `answers`, float32 (n, answer columns). The metadata property `aios.answers` holds the schema
    of the answers as JSON.

    Args:
        model: Takes raw inputs in the order of `raw_inputs`, gives answers.
        schema: The model's inputs.
        encoding: Holds the vocabularies.
        answers: What the model answers; unset, a probability.

    Raises:
        ExportError: The exporter failed, or its graph is not valid.
    """
    import onnx
    from onnx import TensorProto, helper

    answers = answers or AnswerSchema()
    graph = _exported(model, schema, encoding, answers).graph
    head, constants = _head(schema, encoding)
    lengths = {field.name: field.length for field in schema.fields}
    inputs = [
        *(_input(name, TensorProto.FLOAT, 1) for name in schema.numerical),
        *(_input(name, TensorProto.STRING, 1) for name in schema.categorical),
        *(_input(name, TensorProto.FLOAT, lengths[name]) for name in schema.vectors),
        *(_input(name, TensorProto.STRING) for name in schema.texts),
    ]
    inputs.sort(key=lambda entry: schema.names.index(entry.name))
    shape = ["rows"] if answers.output == BINARY_OUTPUT else ["rows", len(answers.columns)]
    outputs = [helper.make_tensor_value_info(answers.output, TensorProto.FLOAT, shape)]
    whole = helper.make_model(
        helper.make_graph(
            [*head, *graph.node],
            "aios",
            inputs,
            outputs,
            initializer=[*constants, *graph.initializer],
            value_info=[words_type(f"{name}.ids") for name in schema.texts],
        ),
        opset_imports=opsets(texts=bool(schema.texts)),
        producer_name="aios-platform",
        ir_version=10,
    )
    helper.set_model_props(whole, {ANSWERS_PROPERTY: answers.model_dump_json()})
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
    """The largest difference between ONNX Runtime's and torch's answers.

    Where answers are above 1, as a regression's may be, it is taken relative to the largest.

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

    raw = raw_inputs(rows, schema, encoding)
    with torch.inference_mode():
        expected = model(*(torch.from_numpy(array) for array in raw)).numpy()
    feeds: dict[str, Any] = {
        name: raw[0][:, [index]] for index, name in enumerate(schema.numerical)
    }
    for name in schema.categorical:
        texts = rows.column(name).cast(pa.string()).fill_null("")
        feeds[name] = np.array(texts.to_pylist(), dtype=object)[:, None]
    feeds |= dict(zip(schema.vectors, raw[2:], strict=False))
    feeds |= {name: texts_of(rows, name) for name in schema.texts}
    session = InferenceSession(onnx, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, feeds)
    largest = max(1.0, float(np.abs(expected).max())) if len(expected) else 1.0
    difference = float(np.abs(found - expected).max()) / largest if len(expected) else float("nan")
    if not difference <= TOLERANCE:
        raise ExportError(
            f"The ONNX model differs from the network by {difference:.2e} on {rows.num_rows:,} "
            f"real rows; {TOLERANCE:.0e} is tolerated.",
            remedy="Do not use the model; look at operators whose precision differs.",
        )
    return difference


def _input(name: str, kind: int, *shape: int | None) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, kind, ["rows", *shape])


def _head(schema: FeatureSchema, encoding: Encoding) -> tuple[list[Any], list[Any]]:
    """Nodes and constants from the named inputs to those of the network proper."""
    from onnx import helper

    head: list[Any] = []
    constants: list[Any] = []
    if schema.numerical:
        head.append(helper.make_node("Concat", list(schema.numerical), [NUMERICAL], axis=1))
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
        head.append(helper.make_node("Concat", codes, [CATEGORICAL], axis=1))
    for name, words in zip(schema.texts, encoding.texts, strict=True):
        nodes, further = words.nodes(name, f"{name}.ids")
        head += nodes
        constants += further
    present = [
        *([NUMERICAL] if schema.numerical else []),
        *([CATEGORICAL] if codes else []),
        *schema.vectors,
        *(f"{name}.ids" for name in schema.texts),
    ]
    for name, lacking, kind in (
        (NUMERICAL, not schema.numerical, np.float32),
        (CATEGORICAL, not codes, np.int64),
    ):
        if lacking:
            head += _nothing(present[0], name, np.dtype(kind))
    return head, constants


def _nothing(source: str, name: str, kind: "np.dtype[Any]") -> list[Any]:
    """An input (n, 0) of the network proper, with as many rows as `source` has."""
    from onnx import helper

    return [
        helper.make_node("Constant", [], [f"{name}.zero"], value_ints=[0]),
        helper.make_node("Constant", [], [f"{name}.axis"], value_ints=[1]),
        helper.make_node(
            "Slice", [source, f"{name}.zero", f"{name}.zero", f"{name}.axis"], [f"{name}.none"]
        ),
        helper.make_node(
            "Cast", [f"{name}.none"], [name], to=helper.np_dtype_to_tensor_dtype(kind)
        ),
    ]


def _exported(
    model: "nn.Module", schema: FeatureSchema, encoding: Encoding, answers: AnswerSchema
) -> Any:
    """The graph of the network proper, with inputs `numerical`, `categorical`, and the others."""
    import onnx
    import torch

    lengths = {field.name: field.length or 0 for field in schema.fields}
    sample = (
        torch.zeros((2, len(schema.numerical)), dtype=torch.float32),
        torch.zeros((2, len(schema.categorical)), dtype=torch.int64),
        *(torch.zeros((2, lengths[name]), dtype=torch.float32) for name in schema.vectors),
        *(torch.zeros((2, words.tokens), dtype=torch.int64) for words in encoding.texts),
    )
    names = [NUMERICAL, CATEGORICAL, *schema.vectors, *(f"{name}.ids" for name in schema.texts)]
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
                input_names=names,
                output_names=[answers.output],
                dynamic_axes={name: {0: "rows"} for name in (*names, answers.output)},
            )
    except Exception as error:
        raise ExportError(
            f"The network cannot be exported to ONNX: {error}",
            remedy="Use only operations that ONNX has.",
        ) from error
    return onnx.load_from_string(buffer.getvalue())
