"""BentoML with adaptive batching: `bentoml serve bentoml_server:Scorer`."""

from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import DType, Shape
from session import MOST_ROWS, load, score

Rows = Annotated[np.ndarray, Shape((-1, 20)), DType("float32")]


@bentoml.service(workers=1, traffic={"timeout": 30}, logging={"access": {"enabled": False}})
class Scorer:
    """Scores batches."""

    def __init__(self) -> None:
        self.session = load()

    @bentoml.api(batchable=True, max_batch_size=MOST_ROWS, max_latency_ms=1000)
    def predict(self, rows: Rows) -> list[float]:
        """Score a batch."""
        return score(self.session, rows)
