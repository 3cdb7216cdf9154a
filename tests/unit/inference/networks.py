"""Untrained networks of the platform's own form, exported."""

import pyarrow as pa
import torch

from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.training.encoding import fit_encoding
from aios_platform.training.export import export_onnx
from aios_platform.training.networks import CalibratedEnsemble, EmbeddingMLP, NumericalEncoding


def build(
    frame: pa.Table,
    schema: FeatureSchema,
    *,
    hidden: tuple[int, ...] = (16, 8),
    members: int = 2,
    slope: float = 1.5,
) -> bytes:
    torch.manual_seed(0)
    encoding = fit_encoding(frame, schema)
    encoder = NumericalEncoding(encoding)
    networks = [
        EmbeddingMLP(encoder.width, encoding.cardinalities, hidden, 0.0).eval()
        for _ in range(members)
    ]
    return export_onnx(CalibratedEnsemble(encoder, networks, slope, -0.25).eval(), schema, encoding)
