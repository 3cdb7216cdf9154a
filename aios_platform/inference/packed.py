"""The same model fed one matrix of numericals instead of a column each.

Forty columns cost ONNX Runtime more than the network does at small batches. Only the first node
of the graph goes, so that the answers are bit for bit those of the model with columns.
"""

from typing import Any

from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.errors import ScoringError

NUMERICAL = "numerical"


def packed(onnx: bytes, features: FeatureSchema) -> bytes:
    """The model with the input `numerical` in place of one input per numerical feature.

    Args:
        onnx: A model as training exports it: its numerical inputs only enter one concatenation,
            in the schema's order.
        features: The model's inputs.

    Returns:
        ONNX bytes. Inputs: `numerical`, float32 (n, f), numericals in the schema's order, missing
        as NaN (there is no such input where the schema has no numericals); every other input, and
        the output, as it was.

    Raises:
        ScoringError: The bytes are not a model, or one whose inputs are used in another way.
    """
    import onnx as onnx_format
    from onnx import TensorProto, helper

    try:
        model = onnx_format.load_from_string(onnx)
    except Exception as error:
        raise ScoringError(
            f"The bytes are not an ONNX model: {error}",
            remedy="Load the model again through the registry.",
        ) from error
    graph = model.graph
    names = [entry.name for entry in graph.input]
    if sorted(names) != sorted(features.names):
        raise _other(f"its inputs {names} are not the features {list(features.names)}")
    if not features.numerical:
        return onnx
    head = _head(graph, features)
    graph.node.remove(head)
    kept = [entry for entry in graph.input if entry.name not in features.numerical]
    matrix = helper.make_tensor_value_info(
        NUMERICAL, TensorProto.FLOAT, ["rows", len(features.numerical)]
    )
    del graph.input[:]
    graph.input.extend([matrix, *kept])
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _head(graph: Any, features: FeatureSchema) -> Any:
    """The only node that takes numerical inputs: their concatenation, side by side."""
    numerical = set(features.numerical)
    takers = [node for node in graph.node if numerical & set(node.input)]
    if len(takers) != 1:
        raise _other(f"{len(takers)} of its nodes take numerical inputs")
    (node,) = takers
    axes = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
    if (node.op_type, list(node.input), list(node.output), axes) != (
        "Concat",
        list(features.numerical),
        [NUMERICAL],
        [1],
    ):
        raise _other(f"the node that takes them is {node.op_type} of {list(node.input)}")
    return node


def _other(why: str) -> ScoringError:
    return ScoringError(
        f"The model does not begin by putting its numerical features side by side: {why}.",
        remedy="Feed it one column per feature, or export it with the platform's training.",
    )
