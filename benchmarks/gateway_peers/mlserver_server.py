"""MLServer with adaptive batching, in one process: writes its settings and starts."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.cli import main
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from session import MOST_ROWS, WAIT_SECONDS, load, score


class Scorer(MLModel):
    """Scores batches."""

    async def load(self) -> bool:
        """Load the model."""
        self.session = load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Score a batch."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        found = np.array(score(self.session, rows), dtype=np.float32)
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("probability", found)]
        )


if __name__ == "__main__":
    port = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "host": "127.0.0.1",
            "http_port": port,
            "grpc_port": port + 1,
            "metrics_port": port + 2,
            "parallel_workers": 0,
            "debug": False,
        }
        model = {
            "name": "small",
            "implementation": "mlserver_server.Scorer",
            "max_batch_size": MOST_ROWS,
            "max_batch_time": WAIT_SECONDS,
        }
        (Path(folder) / "settings.json").write_text(json.dumps(settings))
        (Path(folder) / "model-settings.json").write_text(json.dumps(model))
        sys.argv = ["mlserver", "start", folder]
        main()
