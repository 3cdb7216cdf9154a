"""The queue of inference requests, as the small interface that a worker needs.

At least once in: a message stays until its outcome is settled. Once in effect: a key has one
result, and it is written together with the removal of its message. `postgres_queue` is ours; Kafka
(take: poll; settle: produce and commit offsets in one transaction) or SQS (visibility timeout) can
stand in.
"""

import json
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

# Postgres holds no NUL in a text.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class Message(NamedTuple):
    """One request that waits to be scored."""

    id: int
    model: str
    key: str
    body: bytes
    """JSON, as a request to `/v1/models/{model}:predict` has it."""
    attempts: int
    """How often it was taken, this time included."""


class Fault(StrEnum):
    """Whose fault it is that a message was not scored."""

    MESSAGE = "message"
    """It never can be: a dead letter at once."""
    ATTEMPT = "attempt"
    """Unknown: tried again, ever later, and a dead letter after so many attempts."""
    SERVICE = "service"
    """Not the message's: tried again, and not counted."""


class Scored(NamedTuple):
    """A message that was scored."""

    message: Message
    version: str
    answer: str
    """JSON text, as `storable` makes it."""


class Failed(NamedTuple):
    """A message that was not scored."""

    message: Message
    error: str
    fault: Fault
    retry_seconds: float = 0.0
    """Least time until it is tried again."""


class InferenceQueue(Protocol):
    """What a worker needs of a queue, and nothing that only Postgres has."""

    @property
    def lease_seconds(self) -> float:
        """For how long what was taken is the taker's alone."""

    def put(self, model: str, key: str, body: Mapping[str, Any]) -> None:
        """Add a message; the same key again has no second effect."""

    def take(self, model: str, limit: int) -> list[Message]:
        """Lease up to `limit` messages of a model that are due; does not wait for any."""

    def settle(self, outcomes: Sequence[Scored | Failed]) -> None:
        """Write results and failures of messages that were taken, all or none."""


def storable(value: Any) -> str:
    """JSON text that Postgres can hold.

    Raises:
        TypeError: Something in it is not JSON.
        ValueError: So is NaN, an infinity, a NUL character or a lone surrogate.
        RecursionError: It is nested too deeply.
    """
    made = json.dumps(value, allow_nan=False, ensure_ascii=False)
    made.encode()
    if _NUL.search(made):
        raise ValueError("a text with a NUL character")
    return made
