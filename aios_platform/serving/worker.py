"""Scores the messages of a queue until told to stop: what `aios worker` runs."""

import asyncio
import hashlib
import logging
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from aios_platform.errors import (
    AiosError,
    DatabaseUnavailable,
    Overloaded,
    RequestRefused,
    ServingError,
    StoreError,
    fault_of,
)
from aios_platform.serving.queue import Failed, Fault, InferenceQueue, Message, Scored, storable

logger = logging.getLogger(__name__)

T = TypeVar("T")
# Refusals that a later attempt may not meet; a model is promoted, a feature comes.
_FAULTS = {
    "no_champion": Fault.SERVICE,
    "unknown_model": Fault.SERVICE,
    "feature_unavailable": Fault.ATTEMPT,
}


class Scorer(Protocol):
    """Who scores a message: the gateway without HTTP."""

    async def predict(self, model: str, body: bytes, request_id: str) -> tuple[str, dict[str, Any]]:
        """Score one request.

        Args:
            model: Name of the model.
            body: JSON, as a request to `/v1/models/{model}:predict` has it.
            request_id: Same message, same id.

        Returns:
            The version that answered, and the answer.

        Raises:
            RequestRefused: The request never can be scored; but with the codes `no_champion`,
                `unknown_model` or `feature_unavailable` it may be later.
            AiosError: It may be later.
        """


class Worker:
    """Takes messages in batches, scores each batch at once, and settles it in one transaction.

    Several workers may share a queue: in one process (a lane per model) and in many.

    Args:
        queue: Where the messages are.
        scorer: Who scores them.
        concurrency: Messages of a model that are scored at once.
        poll_seconds: Between looks at an empty queue.
        wait_seconds: Until a queue that does not answer, or a service in trouble, is asked again.
    """

    def __init__(
        self,
        queue: InferenceQueue,
        scorer: Scorer,
        *,
        concurrency: int = 64,
        poll_seconds: float = 0.25,
        wait_seconds: float = 1.0,
    ) -> None:
        self._queue = queue
        self._scorer = scorer
        self._concurrency = concurrency
        self._poll_seconds = poll_seconds
        self._wait_seconds = wait_seconds
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Let it settle what it holds, and end."""
        self._stopped.set()

    async def run(self, models: Sequence[str], *, once: bool = False) -> int:
        """Work until stopped; with `once`, until nothing is due.

        A queue that does not answer is waited for, except with `once`. Where it stays away until
        the worker is stopped, what the worker holds comes back after its lease.

        Returns:
            How many messages were scored.

        Raises:
            DatabaseUnavailable: With `once`: the queue does not answer.
        """
        return sum(await asyncio.gather(*(self._lane(model, once) for model in models)))

    async def _lane(self, model: str, once: bool) -> int:
        scored = 0
        while not self._stopped.is_set():
            take = partial(self._queue.take, model, self._concurrency)
            messages = await self._patiently(take, once)
            if not messages:
                if once:
                    break
                await self._pause(self._poll_seconds)
                continue
            outcomes = await asyncio.gather(*map(self._score, messages))
            if await self._patiently(partial(self._settle, outcomes), once):
                scored += sum(isinstance(one, Scored) for one in outcomes)
            failed = [one for one in outcomes if isinstance(one, Failed)]
            if failed:
                _log(model, failed, len(outcomes))
            if any(one.fault is Fault.SERVICE for one in failed):
                await self._pause(self._wait_seconds)
        return scored

    def _settle(self, outcomes: Sequence[Scored | Failed]) -> bool:
        self._queue.settle(outcomes)
        return True

    async def _score(self, message: Message) -> Scored | Failed:
        try:
            async with asyncio.timeout(self._queue.lease_seconds):
                version, answer = await self._scorer.predict(
                    message.model, message.body, request_id(message)
                )
            return Scored(message, version, _checked(answer))
        except RequestRefused as error:
            fault = _FAULTS.get(error.code, Fault.MESSAGE)
            failed = Failed(message, f"{error.code}: {error}", fault)
        except Overloaded as error:
            failed = Failed(message, f"Overloaded: {error}", Fault.SERVICE, error.retry_after)
        except AiosError as error:
            fault = Fault.SERVICE if isinstance(error, StoreError) else Fault.ATTEMPT
            failed = Failed(message, f"{type(error).__name__}: {error}", fault)
        except TimeoutError:
            limit = self._queue.lease_seconds
            failed = Failed(message, f"no answer within {limit:g} s", Fault.ATTEMPT)
        except Exception as error:
            # Its text may hold what the message holds.
            failed = Failed(message, fault_of(error), Fault.ATTEMPT)
        return failed

    async def _patiently(self, ask: Callable[[], T], once: bool) -> T | None:
        """Ask the queue until it answers; None where the worker is stopped before it does."""
        said = False
        while True:
            try:
                return await asyncio.to_thread(ask)
            except DatabaseUnavailable as error:
                if once:
                    raise
                if not said:
                    logger.warning("The worker waits for its queue: %s", error.what)
                    said = True
                if self._stopped.is_set():
                    return None
                await self._pause(self._wait_seconds)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopped.wait(), seconds)
        except TimeoutError:
            return


def request_id(message: Message) -> str:
    """The id under which a message is scored: the same at every attempt, and for the same key."""
    text = f"{message.model}\0{message.key}"
    return f"queue-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


async def work(worker: Worker, models: Sequence[str], *, once: bool = False) -> int:
    """Run a worker that ends in order on SIGTERM and SIGINT.

    Returns:
        How many messages were scored.

    Raises:
        DatabaseUnavailable: With `once`: the queue does not answer.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    return await worker.run(models, once=once)


def _log(model: str, failed: Sequence[Failed], tried: int) -> None:
    # Only the kind: what comes after the colon may quote the message.
    kinds = Counter(one.error.partition(":")[0] for one in failed)
    what = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common(5))
    logger.warning("%s: %d of %d messages were not scored: %s.", model, len(failed), tried, what)


def _checked(answer: dict[str, Any]) -> str:
    try:
        return storable(answer)
    except (TypeError, ValueError, RecursionError) as error:
        raise ServingError(
            f"An answer cannot be stored as JSON ({type(error).__name__}: {error}).",
            remedy="It is a fault of the scorer's; report it.",
        ) from error
