"""A model that takes its time, and for some rows far too much of it."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.served_models import network

WIDTH = 1000
SLOW = 500.0


def moody(layers: int, *, slow_layers: int | None = None, seed: int = 0) -> bytes:
    """A network with so many layers of a million weights each, which they share.

    Args:
        layers: Depth; each takes some 0.2 ms for a row.
        slow_layers: Depth for a batch in which an input is above `SLOW`; unset, the same.
        seed: Of the weights.
    """
    model = onnx.load_from_string(network(seed=seed, hidden=(WIDTH, WIDTH)))
    graph = model.graph
    weights = next(constant for constant in graph.initializer if constant.name == "w1")
    # The scale at which a signal lives through any depth (He et al. 2015, equation 10).
    scaled = numpy_helper.to_array(weights) * np.sqrt(2.0, dtype=np.float32)
    weights.CopyFrom(numpy_helper.from_array(scaled, "w1"))
    for name, value in (("layers", layers), ("slow_layers", slow_layers or layers)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    graph.initializer.append(numpy_helper.from_array(np.array(SLOW, np.float32), "bound"))
    graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Gemm", ["before", "w1", "b1"], ["pre"]),
            helper.make_node("Relu", ["pre"], ["after"]),
        ],
        "layer",
        [
            helper.make_tensor_value_info("layer", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, ["rows", WIDTH]),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, ["rows", WIDTH]),
        ],
    )
    place = next(i for i, node in enumerate(graph.node) if "pre1" in node.output)
    graph.node[place].input[0] = "deep"
    nodes = list(graph.node)
    nodes[place:place] = [
        helper.make_node("ReduceMax", ["present"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "bound"], ["is_slow"]),
        helper.make_node("Where", ["is_slow", "slow_layers", "layers"], ["depth"]),
        helper.make_node("Loop", ["depth", "always", "layer1"], ["deep"], body=body),
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
