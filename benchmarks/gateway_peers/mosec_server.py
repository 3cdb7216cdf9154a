"""mosec with dynamic batching; msgspec reads and checks the JSON."""

import os
import sys
from typing import Annotated

import msgspec
from mosec import Server, ValidationError, Worker
from session import MOST_ROWS, WAIT_SECONDS, load, score


class Row(msgspec.Struct):
    """One row."""

    features: Annotated[list[float], msgspec.Meta(min_length=20, max_length=20)]


class Scorer(Worker):
    """Scores batches."""

    def __init__(self):
        super().__init__()
        self.session = load()
        self.decoder = msgspec.json.Decoder(Row)
        self.encoder = msgspec.json.Encoder()

    def deserialize(self, data):
        """Read and check a row."""
        try:
            return self.decoder.decode(data)
        except msgspec.ValidationError as error:
            raise ValidationError(str(error)) from error

    def serialize(self, data):
        """Write an answer."""
        return self.encoder.encode(data)

    def forward(self, data):
        """Score a batch."""
        found = score(self.session, [row.features for row in data])
        return [{"probability": probability} for probability in found]


if __name__ == "__main__":
    port = sys.argv[1]
    sys.argv = [sys.argv[0], "--address", "127.0.0.1", "--port", port, "--log-level", "warning"]
    server = Server()
    server.append_worker(
        Scorer,
        num=1,
        max_batch_size=MOST_ROWS,
        max_wait_time=round(WAIT_SECONDS * 1000),
        env=[dict(os.environ)],
    )
    server.run()
