"""What is written together: the odd is left out, and nothing else with it."""

import numpy as np

from aios_platform.serving.flushes import Flush
from aios_platform.serving.recording import ServedRows
from tests.served_models import FEATURES


def served(name: str, moment: float) -> ServedRows:
    """A micro-batch of one row."""
    return ServedRows(
        model="m",
        version="1",
        model_digest="d" * 64,
        features=FEATURES,
        request_ids=[name],
        places=[0],
        row_ids=[None],
        served_at=0.0,
        moments=np.array([moment]),
        matrix=np.ones((1, 2), np.float32),
        texts=(["red"],),
        probabilities=np.array([0.5], np.float32),
        sources=["full"],
    )


def test_one_odd_micro_batch_costs_no_other_its_record():
    flush = Flush("r", 1, {}, [], [])
    failed = flush.encode([served("a", 0.0), served("b", 1e18), served("c", 1.0)], {"m": 1.0})
    assert [(model, rows) for model, rows, _ in failed] == [("m", 1)]
    assert flush.served == {"m": 2}
    assert sum(batch["rows"] for batch in flush.batches) == 2
