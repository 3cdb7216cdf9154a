"""A small labelled frame with signal, missing values and rare categories."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.contracts.training import Training

WINDOWS = ("2024-01", "2024-02", "2024-03", "2024-04")
ROWS = 500


def schema_of(numerical: tuple[str, ...], categorical: tuple[str, ...]) -> FeatureSchema:
    kinds = dict.fromkeys(numerical, FieldKind.NUMERICAL) | dict.fromkeys(
        categorical, FieldKind.CATEGORICAL
    )
    return FeatureSchema(
        fields=tuple(FeatureField(name=n, kind=k, origin="request") for n, k in kinds.items())
    )


def make_frame(seed: int = 0, rows: int = ROWS) -> pa.Table:
    random = np.random.default_rng(seed)
    total = rows * len(WINDOWS)
    distance = random.lognormal(6, 1, total)
    delay = random.normal(0, 30, total)
    carrier = random.choice(["AA", "BB", "CC", "ZZ"], total, p=[0.5, 0.3, 0.198, 0.002])
    logit = 0.05 * delay + (carrier == "BB") - 1 + random.normal(0, 0.5, total)
    missing = random.random(total) < 0.1
    return pa.table(
        {
            "row": pa.array([f"r{i}" for i in range(total)]),
            "window": pa.array(np.repeat(WINDOWS, rows)),
            "distance": pa.array(distance),
            "delay": pa.array(delay, mask=missing),
            "constant": pa.array(np.full(total, 7)),
            "absent": pa.nulls(total, pa.float32()),
            "carrier": pa.array(carrier, mask=random.random(total) < 0.05),
            "is_late": pa.array(logit > 0, mask=random.random(total) < 0.02),
        }
    )


@pytest.fixture(scope="session")
def frame() -> pa.Table:
    return make_frame()


@pytest.fixture(scope="session")
def schema() -> FeatureSchema:
    return schema_of(("distance", "delay", "constant", "absent"), ("carrier",))


@pytest.fixture
def training() -> Callable[..., Training]:
    def declare(**options: object) -> Training:
        defaults = {
            "hidden": (16, 8),
            "epochs": 3,
            "batch_size": 128,
            "learning_rate": 0.01,
            "accelerator": "cpu",
        }
        return Training.model_validate(defaults | options)

    return declare
