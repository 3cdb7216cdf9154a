"""A gateway in this process, on an event loop of its own, asked through its ASGI application."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from sqlalchemy import text

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.rollouts import Rollout, RolloutMode, RolloutState
from aios_platform.contracts.serving import RolloutStep
from aios_platform.database import Database
from aios_platform.ledger.champions import champion_of
from aios_platform.ledger.rollouts import record, standing
from aios_platform.serving import tallies, watching
from aios_platform.serving.access import Access
from aios_platform.serving.application import Application, Send
from aios_platform.serving.deployment import Deployment
from aios_platform.serving.gateway import Gateway
from aios_platform.serving.idempotency import Idempotency
from aios_platform.serving.loading import Origins
from aios_platform.serving.metrics import REGISTRY
from aios_platform.serving.recording import Recorder
from aios_platform.serving.tracing import Tracer
from aios_platform.settings import settings

SECONDS = 30.0
JSON = "application/json"


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of a problem."""
        return str(self.json["code"])


class LocalGateway:
    """A started gateway.

    Args:
        database: Its ledger.
        store: Its artifact root.
        declarations: What it serves.
        processor: Takes its spans.
    """

    def __init__(
        self,
        database: Database,
        store: ArtifactStore,
        declarations: list[ModelDeclaration],
        processor: Any = None,
    ) -> None:
        self.database, self.store = database, store
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.gateway = Gateway(
            database,
            Origins(database, store, settings().feature_repo),
            {declared.name: declared for declared in declarations},
            Access(database, required=False),
            Recorder(database, flush_seconds=0.05),
            Idempotency(database),
            Tracer(processor, "gateway", 1.0),
        )
        self.application = Application(self.gateway)
        self.run(self.gateway.start())

    def run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        """Do something on the gateway's event loop."""
        return asyncio.run_coroutine_threadsafe(doing, self.loop).result(SECONDS)

    def close(self) -> None:
        self.run(self.gateway.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(SECONDS)
        self.loop.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        send: Send | None = None,
    ) -> Answer:
        """Ask over ASGI.

        Args:
            method: GET, POST, ...
            path: Route.
            body: Of the request.
            headers: Of the request.
            send: Sees what is sent, too, and takes the time that it takes.
        """
        return self.run(self.asked(method, path, body, headers, send=send))

    async def asked(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        send: Send | None = None,
    ) -> Answer:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def keep(message: dict[str, Any]) -> None:
            sent.append(message)
            if send is not None:
                await send(message)

        named = [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()]
        scope = {"type": "http", "method": method, "path": path, "headers": named}
        await self.application(scope, receive, keep)
        found = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
        assert [message["type"] for message in sent].count("http.response.start") == 1
        return Answer(sent[0]["status"], found, b"".join(m.get("body", b"") for m in sent[1:]))

    def predict(self, model: str, content: Any, **headers: str) -> Answer:
        """Ask for a prediction; `_` in the name of a header is `-`."""
        return self.run(self.predicted(model, content, **headers))

    async def predicted(self, model: str, content: Any, **headers: str) -> Answer:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        path = f"/v1/models/{model}:predict"
        return await self.asked("POST", path, body, {"content-type": JSON, **named})

    def together(self, model: str, contents: list[Any], **headers: str) -> list[Answer]:
        """Ask for several predictions in one turn of the event loop."""

        async def ask() -> list[Answer]:
            return await asyncio.gather(*(self.predicted(model, c, **headers) for c in contents))

        return self.run(ask())

    def deployment(self, model: str) -> Deployment:
        return self.gateway.deployments[model]

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.005)

    def serves(self, model: str, version: str) -> None:
        """Wait until a version is live."""

        def live() -> bool:
            found = self.gateway.deployments.get(model)
            return found is not None and found.live.version == version

        self.until(live)

    def rows(self, query: str, **values: Any) -> list[Any]:
        """Rows of our database."""
        with self.database.begin() as connection:
            return list(connection.execute(text(query), values))


@contextmanager
def local_gateway(
    database: Database,
    store: ArtifactStore,
    declarations: list[ModelDeclaration],
    processor: Any = None,
) -> Iterator[LocalGateway]:
    """A gateway that looks at the ledger often."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(watching, "POLL_SECONDS", 0.02)
        patched.setattr(tallies, "FLUSH_SECONDS", 0.02)
        started = LocalGateway(database, store, declarations, processor)
        try:
            yield started
        finally:
            started.close()


def metric(name: str, **labels: str) -> float:
    """The value of a metric of this process; 0 where it was never told."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


def roll_out(
    database: Database, model: str, content: bytes, store: ArtifactStore, **changes: Any
) -> Rollout:
    """Begin a rollout of a candidate, or move the one that there is."""
    before = standing(database, model)
    if before is not None and before.rollout.active:
        rollout = before.rollout.model_copy(update=changes)
    else:
        live = champion_of(database, model)
        assert live is not None
        now = datetime.now(UTC)
        described: dict[str, Any] = {
            "model": model,
            "number": before.rollout.number + 1 if before else 1,
            "mode": RolloutMode.CANARY,
            "state": RolloutState.RUNNING,
            "version": "candidate",
            "model_digest": store.put(content, ".onnx")[0],
            "training_set_digest": live.training_set_digest,
            "live_version": live.version,
            "live_revision": live.revision,
            "step": 0,
            "steps": tuple(RolloutStep(share=share) for share in (0.1, 0.5, 0.9, 1.0)),
            "started_at": now,
            "step_since": now,
            "reason": "try it",
        }
        rollout = Rollout(**described | changes)
    with database.begin() as connection:
        record(connection, rollout, after=before)
    return rollout
