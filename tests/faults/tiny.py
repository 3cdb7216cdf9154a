"""A model whose whole life takes seconds: a table of sixty rows a day, and no feature view."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa

from aios_platform.components.model_lifecycle.component import lifecycle_definitions
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.windows import Window
from aios_platform.declarations import parse

FIRST, SECOND = (datetime(2024, 1, day, 12, tzinfo=UTC) for day in (6, 7))
"""Moments at which five and six days have come."""
ROWS = 60
DECLARED = {
    "name": "tiny",
    "owner": "team:tests",
    "windows": {"every": "day", "start": "2024-01-01", "end": "2024-01-07"},
    "source": {
        "entrypoint": "tests.faults.tiny:read_window",
        "rows": "rows",
        "prediction_time": "at",
        "tables": {
            "rows": {
                "row_id": ["row"],
                "timestamp": "at",
                "columns": {
                    "row": {"type": "string"},
                    "at": {"type": "timestamp"},
                    "size": {"type": "float"},
                    "kind": {"type": "string"},
                    "large": {"type": "bool", "nullable": True, "known_at": "told_at"},
                    "told_at": {"type": "timestamp", "nullable": True, "known_at": "told_at"},
                },
            }
        },
    },
    "features": {"request": ["size", "kind"], "max_single_feature_auc": 1.0},
    "label": {"column": "large", "known_at": "told_at", "maturity_days": 1},
    "training": {"hidden": [8], "epochs": 2, "min_windows": 3, "accelerator": "cpu"},
    "exam": {"windows": 1},
    "gate": {
        "margin": 0.3,
        "guards": {},
        "slices": [],
        "min_rows": 50,
        "resamples": 200,
        # What a busy machine measures must not decide.
        "max_latency_ms": 10_000,
        "max_latency_ratio": 1000,
    },
    "monitoring": {"report_rows": 100},
    "retrain": {"new_data": 0.5},
}


def read_window(window: Window) -> Mapping[str, pa.Table]:
    """The same sixty rows of a day, whenever they are asked for."""
    random = np.random.default_rng(window.start.day)
    at = [window.start + timedelta(minutes=place) for place in range(ROWS)]
    instant = pa.timestamp("us", "UTC")
    size = random.normal(0, 1, ROWS)
    return {
        "rows": pa.table(
            {
                "row": [f"{window.key}-{place}" for place in range(ROWS)],
                "at": pa.array(at, instant),
                "size": size,
                "kind": random.choice(["a", "b"], ROWS),
                "large": size + random.normal(0, 0.7, ROWS) > 0,
                "told_at": pa.array([moment + timedelta(hours=6) for moment in at], instant),
            }
        )
    }


def names() -> Names:
    """The model; its folder holds nothing that is read."""
    return Names(parse(DECLARED, Path(__file__)), Path(__file__).parent / "tiny")


def definitions(model: Names) -> dg.Definitions:
    """Its definitions, with the platform's own resources."""
    from aios_platform.defs.platform.resources import resources

    return dg.Definitions.merge(lifecycle_definitions(model), resources())
