"""The gateway as the scorer of a queue: the same versions, features, limits and records."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

from aios_platform.database import database
from aios_platform.serving.gateway import Gateway
from aios_platform.serving.intake import work_of
from aios_platform.serving.postgres_queue import PostgresQueue
from aios_platform.serving.requests import JSON_TYPES, Request
from aios_platform.serving.server import build_gateway
from aios_platform.serving.worker import Worker, work
from aios_platform.settings import export, settings


class GatewayScorer:
    """Scores messages with the versions that a gateway serves.

    Args:
        gateway: Started.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def predict(self, model: str, body: bytes, request_id: str) -> tuple[str, dict[str, Any]]:
        """The version that answered, and the answer as a caller of the gateway gets it.

        Raises:
            AiosError: Why there is none.
        """
        deployment = self._gateway.deployment(model)
        request = Request(model, body, JSON_TYPES[-1], request_id=request_id)
        asked = work_of(request, deployment, request_id, time.monotonic())
        answered = await self._gateway.answer(asked, deployment)
        answer = json.loads(deployment.replies.json(answered).body)
        return answer["version"], answer


def score_queues(models: Sequence[str], *, once: bool, concurrency: int) -> int:
    """Score what is in the queues of models, with a gateway of this process's own.

    Returns:
        How many messages were scored.

    Raises:
        SettingsError: A setting is wrong.
        DatabaseUnavailable: The database does not answer at the start, or, with `once`, later.
    """
    # Idle threads of ONNX Runtime must not spin on cores that others need.
    export({"OMP_WAIT_POLICY": "PASSIVE"})
    return asyncio.run(_score_queues(models, once, concurrency))


async def _score_queues(models: Sequence[str], once: bool, concurrency: int) -> int:
    opened = database()
    chosen = settings().model_copy(update={"serve_models": ",".join(models)})
    gateway = build_gateway(opened, chosen)
    await gateway.start()
    try:
        worker = Worker(PostgresQueue(opened), GatewayScorer(gateway), concurrency=concurrency)
        return await work(worker, models, once=once)
    finally:
        await gateway.stop()
