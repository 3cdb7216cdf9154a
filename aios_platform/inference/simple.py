"""A logistic model of what callers send: it answers when features cannot be read.

It reads numbers and kinds, no vector and no text: it is there to be small and fast. Numericals
enter standardised and clipped to the range of the training rows, with an indicator where training
rows lack them at times; categoricals as one weight per value, with none for a value that is rare or
new.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aios_platform.contracts.datasets import FeatureField, FieldKind
from aios_platform.errors import ScoringError
from aios_platform.inference.packed import NUMERICAL
from aios_platform.inference.session import OUTPUT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scipy.sparse import csr_matrix

KINDS = (FieldKind.NUMERICAL, FieldKind.CATEGORICAL)
"""The kinds of features that it reads."""
OPSET = 20
MIN_COUNT = 20
ITERATIONS = 100
# Beyond float32's comfortable range differences would overflow.
LARGEST = 1e30


@dataclass(frozen=True)
class _Number:
    """What is known of a numerical from the training rows."""

    name: str
    low: float
    high: float
    center: float
    scale: float


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
    numbers = [
        _number(field.name, _values(rows, field.name))
        for field in fields
        if field.kind is FieldKind.NUMERICAL
    ]
    vocabularies = {
        field.name: _vocabulary(rows[field.name])
        for field in fields
        if field.kind is FieldKind.CATEGORICAL
    }
    design = _design(rows, numbers, vocabularies)
    weights = _weights(design, labels)
    return _exported(fields, numbers, vocabularies, weights[:-1], float(weights[-1]))


def _values(table: pa.Table, name: str) -> NDArray[np.float64]:
    values = table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
    bounded: NDArray[np.float64] = np.clip(values, -LARGEST, LARGEST)
    return bounded


def _number(name: str, values: NDArray[np.float64]) -> _Number:
    present = values[~np.isnan(values)]
    if not present.size:
        return _Number(name, 0.0, 0.0, 0.0, 1.0)
    return _Number(
        name,
        float(present.min()),
        float(present.max()),
        float(present.mean()),
        float(present.std()) or 1.0,
    )


def _vocabulary(column: pa.ChunkedArray) -> tuple[str, ...]:
    counted = pc.value_counts(column.cast(pa.string()).drop_null()).to_pylist()
    return tuple(sorted(e["values"] for e in counted if e["values"] and e["counts"] >= MIN_COUNT))


def _design(
    table: pa.Table, numbers: "Sequence[_Number]", vocabularies: dict[str, tuple[str, ...]]
) -> "csr_matrix":
    """Shape (n, 2 · numericals + values): standardised, missing indicators, one-hot."""
    from scipy import sparse

    blocks: list[Any] = []
    for number in numbers:
        values = _values(table, number.name)
        absent = np.isnan(values)
        standard = np.where(absent, 0, (values - number.center) / number.scale)
        blocks.append(sparse.csr_matrix(np.column_stack([standard, absent])))
    for name, words in vocabularies.items():
        codes = pc.index_in(table[name].cast(pa.string()), pa.array(words, pa.string()))
        places = codes.to_numpy(zero_copy_only=False)
        known = np.flatnonzero(~np.isnan(places.astype(float)))
        blocks.append(
            sparse.csr_matrix(
                (np.ones(known.size), (known, places[known].astype(np.int64))),
                shape=(table.num_rows, len(words)),
            )
        )
    return sparse.hstack(blocks, format="csr")


def _weights(design: "csr_matrix", labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights and, last, the intercept: L2-penalised logistic regression by L-BFGS.

    The penalty is that of one standard normal prior per weight. scikit-learn has the same solver,
    and takes a second to import.
    """
    from scipy.optimize import minimize
    from scipy.special import expit, log_expit

    signs = np.where(labels, 1.0, -1.0)
    count = len(labels)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = signs * (design @ weights[:-1] + weights[-1])
        slopes = -signs * expit(-margins)
        penalised = np.append(weights[:-1], 0.0)
        value = penalised @ penalised / 2 - log_expit(margins).sum()
        gradient = np.append(design.T @ slopes, slopes.sum()) + penalised
        return value / count, gradient / count

    start = np.zeros(design.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    weights: NDArray[np.float64] = found.x
    return weights


def _exported(
    fields: "Sequence[FeatureField]",
    numbers: "Sequence[_Number]",
    vocabularies: dict[str, tuple[str, ...]],
    weights: NDArray[np.float64],
    intercept: float,
) -> bytes:
    from onnx import TensorProto, checker, helper, numpy_helper

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
    for name, words in vocabularies.items():
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
