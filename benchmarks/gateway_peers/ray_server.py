"""Ray Serve with its batching decorator, one replica."""

import logging
import os
import signal
import sys

import ray
from ray import serve
from ray.serve.schema import LoggingConfig
from session import MOST_ROWS, WAIT_SECONDS, load, score
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0.1})
class Scorer:
    """Scores batches."""

    def __init__(self) -> None:
        self.session = load()

    @serve.batch(max_batch_size=MOST_ROWS, batch_wait_timeout_s=WAIT_SECONDS)
    async def score(self, rows: list[list[float]]) -> list[float]:
        """Score a batch."""
        return score(self.session, rows)

    async def __call__(self, request: Request) -> dict[str, float]:
        """Answer a request."""
        features = (await request.json())["features"]
        if len(features) != 20:
            raise ValueError("20 features are needed")
        return {"probability": await self.score([float(value) for value in features])}


if __name__ == "__main__":
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        object_store_memory=100 << 20,
        runtime_env={"env_vars": {"MODEL": os.environ["MODEL"]}},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    quiet = LoggingConfig(enable_access_log=False, log_level="WARNING")
    serve.run(Scorer.bind(), logging_config=quiet)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
