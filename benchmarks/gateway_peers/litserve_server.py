"""LitServe with batching and its faster queue."""

import sys
from typing import Annotated

import litserve
from pydantic import BaseModel, Field
from session import MOST_ROWS, WAIT_SECONDS, load, score


class Row(BaseModel):
    """One row."""

    features: Annotated[list[float], Field(min_length=20, max_length=20)]


class Scorer(litserve.LitAPI):
    """Scores batches."""

    def setup(self, _):
        """Load the model."""
        self.session = load()

    def decode_request(self, request: Row):
        """Take the row."""
        return request.features

    def batch(self, inputs):
        """Rows stay a list."""
        return inputs

    def predict(self, x):
        """Score a batch."""
        return score(self.session, x)

    def unbatch(self, output):
        """Answers are a list already."""
        return output

    def encode_response(self, output):
        """Write an answer."""
        return {"probability": output}


if __name__ == "__main__":
    api = Scorer(max_batch_size=MOST_ROWS, batch_timeout=WAIT_SECONDS)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
