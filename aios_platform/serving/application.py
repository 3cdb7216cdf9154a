"""The gateway as an ASGI application: every route, also those that the protocol shortens."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from aios_platform.errors import AiosError, RequestRefused
from aios_platform.serving import metrics
from aios_platform.serving.gateway import Gateway
from aios_platform.serving.openapi import document
from aios_platform.serving.openapi_page import page
from aios_platform.serving.problems import problem, told
from aios_platform.serving.replies import JSON, Reply, problem_reply
from aios_platform.serving.requests import Request, read_headers
from aios_platform.serving.streams import EVENTS, NDJSON, stream
from aios_platform.serving.tensors import V2

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Application:
    """Routes over a gateway.

    Args:
        gateway: Answers.
        most_bytes: Largest body.
        body_seconds: What a client may take to send it.
        beside: Runs as long as the application does.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        most_bytes: int = 16 << 20,
        body_seconds: float = 30.0,
        beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self.gateway = gateway
        self._beside = beside
        self._most_bytes = most_bytes
        self._body_seconds = body_seconds
        self._v2 = V2(gateway)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI event."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.gateway.start()
        except AiosError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        beside = asyncio.ensure_future(self._beside()) if self._beside else None
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if beside is not None:
            beside.cancel()
        await self.gateway.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await self._route(scope, receive, send)
        except Exception as error:
            reply = problem_reply(told(error, ""), "")
        if reply is not None:
            await respond(send, reply)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> Reply | None:
        method, path = scope["method"], scope["path"]
        plain = _PLAIN.get(path)
        if plain is not None:
            if method not in ("GET", "HEAD"):
                return _not_allowed(f"{path} is read with GET.", b"GET, HEAD")
            return plain(self)
        if path == "/v2" or path.startswith("/v2/"):
            body = b"" if method == "GET" else await self._body(receive)
            return await self._v2.answer(method, path, scope["headers"], body)
        if not path.startswith("/v1/models/"):
            return _problem("not_found", "There is nothing here; /docs describes what there is.")
        model, _, verb = path.removeprefix("/v1/models/").partition(":")
        if not verb:
            if method not in ("GET", "HEAD"):
                return _not_allowed(f"{path[:200]} is read with GET.", b"GET, HEAD")
            return _json(self._described(model))
        if verb not in ("predict", "stream"):
            return _problem("not_found", "There is nothing here; /docs describes what there is.")
        if method != "POST":
            return _not_allowed(f":{verb} is asked with POST.", b"POST")
        request = read_headers(model, await self._body(receive), scope["headers"])
        if verb == "predict":
            return await predicted(self.gateway, request)
        accept = next((v for n, v in scope["headers"] if n == b"accept"), b"")
        kind = EVENTS if EVENTS in accept else NDJSON
        await stream(self.gateway, request, kind, send)
        return None

    def _described(self, model: str) -> dict[str, Any]:
        deployment = self.gateway.deployment(model)
        serving = deployment.serving
        return {
            "model": model,
            "version": deployment.live.version,
            "digest": deployment.live.digest,
            "features": deployment.live.service_digest,
            "contracts": sorted(deployment.loaded.contracts),
            "contract": serving.contract.version,
            "inputs": {entry.name: entry.kind for entry in deployment.contract.sent},
            "tiers": [serving.tiers[place].name for place in deployment.live.every_tier],
            "rollout": deployment.trial.rollout.model_dump(mode="json")
            if deployment.trial
            else None,
            "coverage": deployment.live.conformal.model_dump(mode="json")
            if deployment.live.conformal
            else None,
        }

    def health(self) -> Reply:
        """Whether the process lives."""
        return _json({"status": "ok"})

    def ready(self) -> Reply:
        """Whether requests can be answered; what is degraded is said, and no reason to say no."""
        ready, state = self.gateway.readiness()
        return _json(state, 200 if ready else 503)

    def metrics(self) -> Reply:
        """Metrics as Prometheus reads them."""
        self.gateway.readiness()
        content, kind = metrics.page()
        return Reply(200, kind.encode(), content)

    def models(self) -> Reply:
        """The models that are served."""
        return _json(
            {
                "models": [
                    {"model": name, "version": deployment.live.version}
                    for name, deployment in sorted(self.gateway.deployments.items())
                ]
            }
        )

    def openapi(self) -> Reply:
        """The OpenAPI document."""
        return _json(document(self.gateway.deployments))

    def docs(self) -> Reply:
        """The OpenAPI document as a page."""
        content = page(document(self.gateway.deployments))
        return Reply(200, b"text/html; charset=utf-8", content, _PAGE_HEADERS)

    async def _body(self, receive: Receive) -> bytes:
        try:
            return await asyncio.wait_for(self._whole_body(receive), self._body_seconds)
        except TimeoutError:
            raise RequestRefused("The request came too slowly.", code="timeout") from None

    async def _whole_body(self, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise RequestRefused("The client hung up.", code="malformed_body")
            size += len(event.get("body", b""))
            if size > self._most_bytes:
                raise RequestRefused(
                    f"The body has more than {self._most_bytes:,} bytes.", code="body_too_large"
                )
            parts.append(event.get("body", b""))
            if not event.get("more_body", False):
                return b"".join(parts)


_PLAIN: dict[str, Callable[[Application], Reply]] = {
    "/healthz": Application.health,
    "/readyz": Application.ready,
    "/metrics": Application.metrics,
    "/v1/models": Application.models,
    "/openapi.json": Application.openapi,
    "/docs": Application.docs,
}
_PAGE_HEADERS = (
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    (b"x-content-type-options", b"nosniff"),
)


async def predicted(gateway: Gateway, request: Request) -> Reply:
    """A prediction's reply, for whoever can wait for it."""
    waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def send(reply: Reply) -> None:
        if not waiting.done():
            waiting.set_result(reply)

    gateway.predict(request, send)
    return await waiting


async def respond(send: Send, reply: Reply) -> None:
    """Send a reply over ASGI."""
    headers = [
        (b"content-type", reply.content_type),
        (b"content-length", str(len(reply.body)).encode()),
        *reply.headers,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def _json(content: Any, status: int = 200) -> Reply:
    return Reply(status, JSON, json.dumps(content, default=str).encode())


def _not_allowed(detail: str, allowed: bytes) -> Reply:
    reply = _problem("method_not_allowed", detail)
    return reply._replace(headers=((b"allow", allowed),))


def _problem(code: str, detail: str) -> Reply:
    return problem_reply(problem(code, detail), "")
