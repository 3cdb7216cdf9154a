"""Served traffic that never was."""

import numpy as np

from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.serving.recording import ReviewItem, ServedRows, ShadowPair

# The names of two features are those of columns of the record.
SCHEMA = FeatureSchema(
    fields=(
        FeatureField(name="size", kind=FieldKind.NUMERICAL, origin="request"),
        FeatureField(name="place", kind=FieldKind.CATEGORICAL, origin="request"),
        FeatureField(name="probability", kind=FieldKind.NUMERICAL, origin="rates"),
    )
)
AT = 1_380_000_000.25


def batch(requests, *, model="toy", version="1", rows=1, at=AT, source="full", features=SCHEMA):
    """A micro-batch of these requests, each with as many rows."""
    count = len(requests) * rows
    numbers = np.arange(count * len(features.numerical), dtype=np.float32).reshape(count, -1)
    return ServedRows(
        model=model,
        version=version,
        model_digest=f"{version}" * 64,
        features=features,
        request_ids=[name for name in requests for _ in range(rows)],
        places=list(range(rows)) * len(requests),
        row_ids=[f"{name}-{place}" for name in requests for place in range(rows)],
        served_at=at,
        moments=np.full(count, at - 60),
        matrix=numbers,
        texts=tuple(["here"] * count for _ in features.categorical),
        probabilities=np.linspace(0, 1, count, dtype=np.float32),
        sources=[source] * count,
    )


def pair(request="r1", place=0, **changes):
    given = {
        "model": "toy", "rollout": 1, "request_id": request, "place": place, "live_version": "1",
        "version": "2", "live": 0.25, "candidate": 0.5, "failure": None, "live_seconds": 0.001,
        "seconds": 0.002, "served_at": AT,
    }  # fmt: skip
    return ShadowPair(**(given | changes))


def item(request="r1", place=0, **changes):
    given = {
        "model": "toy", "version": "1", "request_id": request, "place": place, "row_id": "t1",
        "inputs": {"size": 1.5, "place": "here"}, "probability": 0.5, "reason": "abstained",
    }  # fmt: skip
    return ReviewItem(**(given | changes))
