"""The exported graph: one file, inputs by name, the network's own answers."""

import onnx
import onnxruntime
import pytest
import torch

from aios_platform.contracts.training import Training
from aios_platform.errors import ExportError
from aios_platform.training.encoder import InputEncoder
from aios_platform.training.encoding import fit_encoding
from aios_platform.training.ensemble import BinaryHead, CalibratedEnsemble
from aios_platform.training.export import OPSET, export_onnx, verify_parity
from aios_platform.training.networks import EmbeddingMLP
from tests.unit.training.conftest import schema_of


def build(frame, schema, seed=0):
    torch.manual_seed(seed)
    encoding = fit_encoding(frame, schema)
    encoder = InputEncoder(encoding)
    members = [
        EmbeddingMLP(encoder.inputs, 1, Training(hidden=(8,), dropout=0.1)).eval() for _ in range(2)
    ]
    return CalibratedEnsemble(encoder, members, BinaryHead(1.5, -0.25)).eval(), encoding


@pytest.mark.parametrize(
    "features",
    [
        (("distance", "delay", "constant", "absent"), ("carrier",)),
        (("distance", "delay"), ()),
        ((), ("carrier", "window")),
    ],
    ids=["both", "numerical only", "categorical only"],
)
def test_onnx_gives_what_torch_gives(frame, features):
    schema = schema_of(*features)
    model, encoding = build(frame, schema)
    content = export_onnx(model, schema, encoding)

    assert verify_parity(content, model, schema, encoding, frame) <= 1e-5
    graph = onnx.load_from_string(content)
    assert {o.domain: o.version for o in graph.opset_import}[""] == OPSET
    inputs = {i.name: i.type for i in onnxruntime.InferenceSession(content).get_inputs()}
    assert inputs == dict.fromkeys(schema.numerical, "tensor(float)") | dict.fromkeys(
        schema.categorical, "tensor(string)"
    )
    assert not any(tensor.external_data for tensor in graph.graph.initializer)
    assert content == export_onnx(model, schema, encoding), "the same network, the same bytes"


def test_a_graph_of_another_network_fails_the_run(frame, schema):
    model, encoding = build(frame, schema)
    other, _ = build(frame, schema, seed=1)
    with pytest.raises(ExportError, match="differs from the network"):
        verify_parity(export_onnx(other, schema, encoding), model, schema, encoding, frame)


def test_no_rows_prove_nothing(frame, schema):
    model, encoding = build(frame, schema)
    content = export_onnx(model, schema, encoding)
    with pytest.raises(ExportError):
        verify_parity(content, model, schema, encoding, frame.slice(0, 0))


def test_weights_that_are_not_finite_fail_the_run(frame, schema):
    model, encoding = build(frame, schema)
    with torch.no_grad():
        model.members[0].layers[0].weight.fill_(float("nan"))
    content = export_onnx(model, schema, encoding)
    with pytest.raises(ExportError):
        verify_parity(content, model, schema, encoding, frame)


def test_a_network_that_onnx_cannot_express_is_named(frame, schema):
    class Odd(torch.nn.Module):
        def forward(self, raw, codes):
            return torch.special.bessel_j0(raw.sum(1))

    with pytest.raises(ExportError, match="cannot be exported"):
        export_onnx(Odd(), schema, fit_encoding(frame, schema))
