"""KServe's model server; its batcher is a part of Kubernetes, so there is none here."""

import sys

import numpy as np
from kserve import InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import get_predict_response
from session import load, score


class Scorer(Model):
    """Scores requests."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.session = load()
        self.ready = True

    def predict(self, payload: InferRequest, *_, **__) -> InferResponse:
        """Score the rows of a request."""
        found = np.array(score(self.session, payload.inputs[0].as_numpy()), dtype=np.float32)
        return get_predict_response(payload, found, self.name)


if __name__ == "__main__":
    ModelServer(
        http_port=int(sys.argv[1]), workers=1, enable_grpc=False, enable_latency_logging=False
    ).start([Scorer("small")])
