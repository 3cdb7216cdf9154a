"""The gateway without a protocol: a request in, an answer out, and everything around it."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection

from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.database import Database
from aios_platform.errors import AiosError, RequestRefused
from aios_platform.serving import metrics
from aios_platform.serving.abstentions import items_of
from aios_platform.serving.access import Access, Caller
from aios_platform.serving.answering import READ_SHARE
from aios_platform.serving.deployment import Deployment, Loaded
from aios_platform.serving.features import OnlineReader
from aios_platform.serving.flushes import record_one
from aios_platform.serving.idempotency import Idempotency, Stored
from aios_platform.serving.intake import work_of
from aios_platform.serving.loading import Origins, online_store_address
from aios_platform.serving.problems import told, traced
from aios_platform.serving.recording import Recorder, ServedRows
from aios_platform.serving.replies import Reply, problem_reply
from aios_platform.serving.requests import ARROW_TYPE, Request, RequestIds
from aios_platform.serving.tallies import Tallies
from aios_platform.serving.tracing import Span, Tracer
from aios_platform.serving.watching import Watcher
from aios_platform.serving.work import Work

logger = logging.getLogger(__name__)

FORGET_SECONDS = 3600.0

Send = Callable[[Reply], None]


class Gateway:
    """Answers requests for every declared model that has a champion.

    Args:
        database: Ledger, records, keys; Feast's online store beside it.
        origins: Where versions come from.
        declarations: The models.
        access: Who may call.
        recorder: Takes what was served.
        idempotency: Keeps answers under keys.
        tracer: Begins spans.
    """

    def __init__(
        self,
        database: Database,
        origins: Origins,
        declarations: dict[str, ModelDeclaration],
        access: Access,
        recorder: Recorder,
        idempotency: Idempotency,
        tracer: Tracer,
    ) -> None:
        self.database = database
        self.declarations = declarations
        self.deployments: dict[str, Deployment] = {}
        self.access = access
        self.recorder = recorder
        self.idempotency = idempotency
        self.tracer = tracer
        self.watcher = Watcher(origins, declarations, self.deployments, self._deploy)
        self.draining = False
        self._ids = RequestIds()
        self._tallies = Tallies(declarations, self.deployments, recorder)
        self._tasks: list[asyncio.Task[None]] = []
        self._pending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Read keys and the ledger once, then keep following both."""
        self.recorder.start()
        await self._refresh_access()
        await self.watcher.look()
        self._tasks = [
            asyncio.ensure_future(self.watcher.run()),
            asyncio.ensure_future(self._keep_access()),
            asyncio.ensure_future(self._tallies.run()),
            asyncio.ensure_future(self._forget_keys()),
        ]

    async def stop(self, seconds: float = 10.0) -> None:
        """Stop following, let every deployment end its work, and write what is to be written."""
        self.draining = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._pending, return_exceptions=True)
        retiring = [deployment.retire() for deployment in self.deployments.values()]
        self.deployments.clear()
        await asyncio.gather(*retiring, return_exceptions=True)
        await self.watcher.close()
        self._tallies.flush()
        await asyncio.to_thread(self.recorder.close, seconds)
        self.tracer.close()

    def predict(self, request: Request, send: Send) -> None:
        """Answer a request. Never raises; `send` is called once, now or later."""
        span = self.tracer.start("POST /v1/models/{model}:predict", request.traceparent)
        arrived = time.monotonic()
        request_id = request.request_id or self._ids.new()
        try:
            caller = self.access.admit(request.authorization, request.model)
            deployment = self.deployment(request.model)
            if span is not None:
                span.set_attribute("aios.model", request.model)
            if request.idempotency_key is not None:
                self._later(self._once(request, caller, request_id, arrived, send, span))
                return
            work = work_of(request, deployment, request_id, arrived)
            work.done = self._answered
            work.reply = (send, deployment, request.content_type == ARROW_TYPE, span)
            deployment.submit(work)
        except Exception as error:
            self._refuse(error, request_id, send, span)

    async def answer(self, work: Work, deployment: Deployment) -> Work:
        """Let a deployment answer; counted and recorded as any request.

        Raises:
            AiosError: Why there is no answer.
        """
        done: asyncio.Future[Work] = asyncio.get_running_loop().create_future()

        def ended(ended_work: Work) -> None:
            try:
                self._count(ended_work, deployment)
            finally:
                if not done.done():
                    done.set_result(ended_work)

        work.done = ended
        deployment.submit(work)
        await done
        if work.error is not None:
            raise work.error
        return work

    def new_id(self) -> str:
        """A name for a request that brought none."""
        return self._ids.new()

    def deployment(self, model: str) -> Deployment:
        """What serves a model.

        Raises:
            RequestRefused: Nothing does.
        """
        found = self.deployments.get(model)
        if found is not None:
            return found
        if model in self.declarations:
            raise RequestRefused(
                f"{model} has no version that serves.",
                code="no_champion",
                remedy="Promote one; `aios status` says how far the model is.",
            )
        raise RequestRefused("No such model is served.", code="unknown_model")

    def _answered(self, work: Work) -> None:
        send, deployment, as_arrow, span = work.reply
        error = work.error
        if span is not None:
            _tell(span, work)
        try:
            self._count(work, deployment)
            if error is None:
                replies = deployment.replies
                reply = replies.arrow(work) if as_arrow else replies.json(work)
        except Exception as failure:
            error = failure
        if error is not None:
            self._refuse(error, work.request_id, send, span, counted=True)
            return
        if span is not None:
            span.end()
        send(reply)

    def _count(self, work: Work, deployment: Deployment) -> None:
        for part in work.parts or (work,):
            self._tallies.count(part, deployment.serving.slo)
            if part.unsure is not None and part.error is None:
                for item in items_of(part, deployment.contract, deployment.live.features):
                    self.recorder.review(item)

    def _refuse(
        self,
        error: BaseException,
        request_id: str,
        send: Send,
        span: Span | None,
        *,
        counted: bool = False,
    ) -> None:
        problem = told(error, request_id)
        if not counted:
            metrics.REFUSED.labels(problem.code).inc()
        if span is not None:
            span.set_error(problem.code)
            span.end()
        send(problem_reply(problem, request_id))

    async def _once(
        self,
        request: Request,
        caller: Caller,
        request_id: str,
        arrived: float,
        send: Send,
        span: Span | None,
    ) -> None:
        """Answer a request that has an idempotency key: once, and recorded once."""
        assert request.idempotency_key is not None
        name = (caller.name, request.model, request.idempotency_key)
        try:
            stored = await self.idempotency.begin(*name, request.body)
            if stored is None:
                stored = await self._first(name, request, request_id, arrived, span)
            reply = Reply(stored.status, stored.content_type.encode(), stored.answer)
        except Exception as error:
            self._refuse(error, request_id, send, span)
            return
        if span is not None:
            span.end()
        send(reply)

    async def _first(
        self,
        name: tuple[str, str, str],
        request: Request,
        request_id: str,
        arrived: float,
        span: Span | None,
    ) -> Stored:
        try:
            # What serves now: another version may have come while the key was looked up.
            deployment = self.deployment(request.model)
            work = work_of(request, deployment, request_id, arrived)
            work.recorded = False
            await self.answer(work, deployment)
            if span is not None:
                _tell(span, work)
            as_arrow = request.content_type == ARROW_TYPE
            reply = deployment.replies.arrow(work) if as_arrow else deployment.replies.json(work)
            stored = Stored(reply.status, reply.content_type.decode(), reply.body)
            record = partial(_record, work.served) if work.served else None
            return await self.idempotency.finish(*name, stored, record)
        except BaseException:
            await self.idempotency.release(*name)
            raise

    def _later(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(doing)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    def _deploy(self, loaded: Loaded) -> Deployment:
        reader = None
        if loaded.plan is not None:
            reader = OnlineReader(
                loaded.plan,
                online_store_address(self.database, loaded.plan),
                places=loaded.contracts[loaded.declaration.serving.contract.version].places,
                policy=loaded.declaration.serving.features,
                # Before the batch gives up, so that it still gets what is remembered.
                statement_seconds=0.8 * READ_SHARE * loaded.declaration.serving.deadline_ms / 1000,
            )
        return Deployment(loaded, reader, record=self.recorder.offer, pair=self.recorder.pair)

    async def _keep_access(self) -> None:
        while True:
            await asyncio.sleep(self.access.refresh_seconds)
            await self._refresh_access()

    async def _forget_keys(self) -> None:
        """Remove idempotency keys that have had their time, now and then."""
        while True:
            await asyncio.sleep(FORGET_SECONDS)
            try:
                await asyncio.to_thread(self.idempotency.forget_old)
            except Exception as error:
                why = error if isinstance(error, AiosError) else traced(error)
                logger.warning("Old idempotency keys could not be removed: %s", why)

    async def _refresh_access(self) -> None:
        try:
            await self.access.refresh()
        except Exception as error:
            why = error if isinstance(error, AiosError) else traced(error)
            logger.warning("Keys could not be read again: %s", why)

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether requests can be answered, and the state of what that takes."""
        readers = [d.reader for d in self.deployments.values() if d.reader is not None]
        online = all(reader.reachable for reader in readers)
        metrics.REACHABLE.labels("online_features").set(online)
        metrics.REACHABLE.labels("records").set(self.recorder.reachable)
        ready = bool(self.deployments) and not self.draining
        return ready, {
            "ready": ready,
            "draining": self.draining,
            "degraded": not (online and self.recorder.reachable and self.watcher.reachable),
            "stores": {
                "ledger": self.watcher.reachable,
                "online_features": online,
                "records": self.recorder.reachable,
            },
            "models": {
                name: (
                    {"version": found.live.version, "rows_waiting": found.batcher.rows}
                    if (found := self.deployments.get(name)) is not None
                    else None
                )
                for name in self.declarations
            },
        }


def _tell(span: Span, work: Work) -> None:
    """Say in a span which versions were asked, and what took how long."""
    shift = time.time() - time.monotonic()
    for part in work.parts or (work,):
        span.set_attribute("aios.version", part.version.version)
        for name, begin, end in (("queue", part.arrived, part.taken), *part.stages):
            begun, ended = (int((moment + shift) * 1e9) for moment in (begin, end))
            span.stage(name, begun, ended, **{"aios.version": part.version.version})


def _record(served: Sequence[ServedRows], connection: Connection) -> None:
    for rows in served:
        record_one(connection, rows)
