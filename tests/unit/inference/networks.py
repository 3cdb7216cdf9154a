"""Untrained networks of the platform's own form, exported."""

import pyarrow as pa
import torch

from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.contracts.training import Training
from aios_platform.training.encoder import InputEncoder
from aios_platform.training.encoding import fit_encoding
from aios_platform.training.ensemble import BinaryHead, CalibratedEnsemble
from aios_platform.training.export import export_onnx
from aios_platform.training.networks import EmbeddingMLP


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
    encoder = InputEncoder(encoding)
    networks = [
        EmbeddingMLP(encoder.inputs, 1, Training(hidden=hidden, dropout=0.0)).eval()
        for _ in range(members)
    ]
    return export_onnx(
        CalibratedEnsemble(encoder, networks, BinaryHead(slope, -0.25)).eval(), schema, encoding
    )
