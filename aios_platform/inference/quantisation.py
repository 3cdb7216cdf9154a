"""The int8 form of an exported network: its hidden layers multiply eight-bit integers.

Affine quantisation of Jacob et al. (2018, "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference"): x is about scale · (q - zero point). The range of
what enters a layer is measured once, on rows of the past. ONNX Runtime's own dynamic quantisation
takes it from each batch instead, so that a row's answer depends on the rows it happens to be
scored with: by 0.01 on flights, as much as quantisation costs altogether.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aios_platform.errors import ScoringError
from aios_platform.inference.session import BATCH_ROWS, Session, open_session

if TYPE_CHECKING:
    from collections.abc import Mapping

# A layer with fewer outputs costs next to nothing, and the last one's error is not averaged out.
SMALLEST_LAYER = 16
# Seven bits: processors without VNNI instructions add pairs of products in 16 bits, which two
# products of 255 and 127 overflow.
LARGEST_WEIGHT = 63
LARGEST_INPUT = 255
CONTRIB = "com.microsoft"


def quantised(onnx: bytes, rows: pa.Table) -> bytes:
    """The same model with eight-bit hidden layers: inputs and output as before.

    Weights are int8, symmetric, with a scale per output; what enters a layer is uint8 with one
    scale per layer, and saturates beyond the range seen on `rows`. A row's answer does not depend
    on its batch. The same model and rows give the same bytes.

    Args:
        onnx: A model as training exports it.
        rows: Real rows that the ranges are measured on; the first 1,024 are used.

    Raises:
        ScoringError: The model has no layer that is worth it, or does not score the rows.
    """
    import onnx as onnx_format

    session = Session(onnx)
    model = onnx_format.load_from_string(onnx)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    layers = [node for node in graph.node if _is_layer(node, weights)]
    if not layers:
        raise ScoringError(
            f"The model has no dense layer of {SMALLEST_LAYER} outputs or more to quantise.",
            remedy="Leave the int8 tier out of the declaration: a model as small gains nothing.",
        )
    if not rows.num_rows:
        raise ScoringError(
            "No rows to measure the ranges of the layers' inputs on.",
            remedy="Give rows of a past window.",
        )
    ranges = _ranges(onnx, [node.input[0] for node in layers], session, rows)
    nodes, constants = list(graph.node), list(graph.initializer)
    quantisers: set[str] = set()
    for node in layers:
        scale, zero = ranges[node.input[0]]
        replaced, added = _integer_layer(
            node, weights, scale, zero, first=node.input[0] not in quantisers
        )
        quantisers.add(node.input[0])
        place = nodes.index(node)
        nodes[place : place + 1] = replaced
        constants += added
    used = {name for node in nodes for name in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensor for tensor in constants if tensor.name in used)
    model.opset_import.append(onnx_format.helper.make_opsetid(CONTRIB, 1))
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _is_layer(node: Any, weights: "Mapping[str, Any]") -> bool:
    """Whether a node is `x · Wᵀ + b` with constant weights and enough outputs."""
    if node.op_type != "Gemm" or len(node.input) != 3 or node.input[1] not in weights:
        return False
    attributes = {attribute.name: attribute.f or attribute.i for attribute in node.attribute}
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0} | attributes
    return (plain["alpha"], plain["beta"], plain["transA"], plain.get("transB")) == (
        1,
        1,
        0,
        1,
    ) and weights[node.input[1]].dims[0] >= SMALLEST_LAYER


def _ranges(
    onnx: bytes, names: list[str], session: Session, rows: pa.Table
) -> dict[str, tuple[np.float32, np.uint8]]:
    """Scale and zero point of each named value, from its extremes on the rows."""
    import onnx as onnx_format

    observed = onnx_format.load_from_string(onnx)
    names = list(dict.fromkeys(names))
    for name in names:
        observed.graph.output.append(onnx_format.helper.make_empty_tensor_value_info(name))
    running = open_session(observed.SerializeToString(), 1)
    found = {}
    for name, values in zip(
        names, running.run(names, session.feeds(rows.slice(0, BATCH_ROWS))), strict=True
    ):
        # Zero is exact, since most of what enters a layer after the first is zero.
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        if not np.isfinite([low, high]).all():
            raise ScoringError(
                f"What enters the layer of '{name}' is not finite.", remedy="Do not use the model."
            )
        scale = (high - low) / LARGEST_INPUT or 1.0
        found[name] = np.float32(scale), np.uint8(round(-low / scale))
    return found


def _integer_layer(
    node: Any,
    weights: "Mapping[str, Any]",
    scale: np.float32,
    zero: np.uint8,
    *,
    first: bool,
) -> tuple[list[Any], list[Any]]:
    """Nodes and constants that take the place of a layer.

    Args:
        node: The layer.
        weights: Constants of the graph by name.
        scale: Scale of what enters.
        zero: Zero point of what enters.
        first: Whether what enters is not quantised yet for another layer.
    """
    from onnx import helper, numpy_helper

    entering, weight, bias = node.input
    integers, scales = _integers(numpy_helper.to_array(weights[weight]))
    prefix = f"{entering}.quantised"
    values = {
        f"{prefix}.scale": scale,
        f"{prefix}.zero": zero,
        f"{weight}.int8": integers,
        f"{weight}.scale": scales,
    }
    constants = [numpy_helper.from_array(np.asarray(v), name) for name, v in values.items()]
    quantiser = helper.make_node(
        "QuantizeLinear", [entering, f"{prefix}.scale", f"{prefix}.zero"], [prefix]
    )
    # What ONNX Runtime makes of the standard operators when it optimises a graph.
    product = helper.make_node(
        "MatMulIntegerToFloat",
        [
            prefix,
            f"{weight}.int8",
            f"{prefix}.scale",
            f"{weight}.scale",
            f"{prefix}.zero",
            "",
            bias,
        ],
        list(node.output),
        name=f"{node.name}.int8",
        domain=CONTRIB,
    )
    return ([quantiser, product], constants) if first else ([product], constants[2:])


def _integers(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights as integers, shape (inputs, outputs), and the scale of each output."""
    if not np.isfinite(weight).all():
        raise ScoringError("A layer's weights are not finite.", remedy="Do not use the model.")
    largest = np.abs(weight).max(axis=1)
    scales = (np.where(largest > 0, largest, 1) / LARGEST_WEIGHT).astype(np.float32)
    integers = np.rint(weight / scales[:, None]).clip(-LARGEST_WEIGHT, LARGEST_WEIGHT)
    return np.ascontiguousarray(integers.T.astype(np.int8)), scales
