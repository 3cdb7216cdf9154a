"""What every peer scores with: one thread, no spinning."""

import os

import numpy as np
import onnxruntime as ort

MOST_ROWS = 64
# A server that waits for its batch to fill waits this long.
WAIT_SECONDS = 0.001


def load() -> ort.InferenceSession:
    """The model that MODEL names."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])


def score(session: ort.InferenceSession, rows: list[list[float]] | np.ndarray) -> list[float]:
    """Probabilities of rows, shape (rows, 20)."""
    (found,) = session.run(["probability"], {"numerical": np.asarray(rows, dtype=np.float32)})
    return found.tolist()
