"""A logistic model of what callers send: it answers when features cannot be read.

It reads numbers and kinds, no vector and no text: it is there to be small and fast. It is the
`linear` model of these, as ONNX.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aios_platform.contracts.datasets import FeatureField, FieldKind
from aios_platform.errors import ScoringError
from aios_platform.inference.linear import Design, logistic
from aios_platform.inference.packed import NUMERICAL
from aios_platform.inference.session import OUTPUT

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = (FieldKind.NUMERICAL, FieldKind.CATEGORICAL)
"""The kinds of features that it reads."""
OPSET = 20


def fit_simple(rows: pa.Table, fields: "Sequence[FeatureField]", label: str) -> bytes:
    """Fit, and export to ONNX.

    Args:
        rows: Labelled training rows; ten thousand are plenty.
        fields: The inputs: request columns of `KINDS`, in order.
        label: Column of the label, bool, without nulls.

    Returns:
        ONNX bytes. One input per field: numericals float32 (n, 1), missing as NaN; categoricals
        string (n, 1), missing as "". One output `probability`, float32 (n,). The same rows give
        the same bytes on the same machine.

    Raises:
        ScoringError: There is no input, or the rows have one class only.
    """
    labels = rows[label].to_numpy(zero_copy_only=False).astype(bool)
    if not fields or not 0 < labels.sum() < len(labels):
        raise ScoringError(
            f"No simple model of {len(fields)} request columns and {len(labels):,} rows, "
            f"{int(labels.sum()):,} of them positive.",
            remedy="Declare request columns (features.request); train on windows with both "
            "classes.",
        )
    design = Design.of(rows, fields)
    weights = logistic(design.matrix(rows), labels)
    return _exported(fields, design, weights[:-1], float(weights[-1]))


def _exported(
    fields: "Sequence[FeatureField]",
    design: Design,
    weights: NDArray[np.float64],
    intercept: float,
) -> bytes:
    from onnx import TensorProto, checker, helper, numpy_helper

    numbers = design.numbers

    # With a dot before them, so that no feature is called the same.
    constants = {".intercept": np.array([intercept])}
    nodes: list[Any] = []
    terms = []
    if numbers:
        # The weight of a standardised value w·(x - c)/s, as slope·(x - c), missing as x = c.
        slopes, absences = weights[: 2 * len(numbers) : 2], weights[1 : 2 * len(numbers) : 2]
        constants |= {
            ".low": np.array([number.low for number in numbers]),
            ".high": np.array([number.high for number in numbers]),
            ".center": np.array([number.center for number in numbers]),
            ".slope": (slopes / [number.scale for number in numbers])[:, None],
            ".absence": absences[:, None],
        }
        nodes += [
            helper.make_node("Concat", [number.name for number in numbers], [NUMERICAL], axis=1),
            helper.make_node("IsNaN", [NUMERICAL], [".absent"]),
            helper.make_node("Where", [".absent", ".center", NUMERICAL], [".present"]),
            helper.make_node("Max", [".present", ".low"], [".above"]),
            helper.make_node("Min", [".above", ".high"], [".bounded"]),
            helper.make_node("Sub", [".bounded", ".center"], [".centered"]),
            helper.make_node("MatMul", [".centered", ".slope"], [".numerical"]),
            helper.make_node("Cast", [".absent"], [".indicators"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", [".indicators", ".absence"], [".missing"]),
        ]
        terms += [".numerical", ".missing"]
    place = 2 * len(numbers)
    for name, words in design.vocabularies.items():
        terms.append(f".{name}")
        nodes.append(
            helper.make_node(
                "LabelEncoder",
                [name],
                [terms[-1]],
                domain="ai.onnx.ml",
                # An empty vocabulary is not allowed; the empty string is a missing value.
                keys_strings=[*words, ""],
                values_floats=[*weights[place : place + len(words)].astype(np.float32), 0.0],
                default_float=0.0,
            )
        )
        place += len(words)
    nodes += [
        helper.make_node("Sum", [*terms, ".intercept"], [".logit"]),
        helper.make_node("Sigmoid", [".logit"], [".column"]),
        helper.make_node("Squeeze", [".column", ".axis"], [OUTPUT]),
    ]
    kinds = {FieldKind.NUMERICAL: TensorProto.FLOAT, FieldKind.CATEGORICAL: TensorProto.STRING}
    graph = helper.make_graph(
        nodes,
        "simple",
        [helper.make_tensor_value_info(f.name, kinds[f.kind], ["rows", 1]) for f in fields],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows"])],
        initializer=[
            *(numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()),
            numpy_helper.from_array(np.array([1], dtype=np.int64), ".axis"),
        ],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 3)],
        producer_name="aios-platform",
        ir_version=10,
    )
    checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content
