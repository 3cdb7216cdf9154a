"""A queue in a test: what it holds, and a scorer that does as the body says."""

import json
from typing import Any

from sqlalchemy import text

from aios_platform.database import Database
from aios_platform.errors import Overloaded, RequestRefused, ServingError, StoreError

FAULTS = {
    "refused": RequestRefused("No.", code="invalid_input"),
    "no_champion": RequestRefused("None.", code="no_champion"),
    "unavailable": RequestRefused("Old.", code="feature_unavailable"),
    "overloaded": Overloaded("Full.", retry_after=7.0),
    "store": StoreError("Away."),
    "failed": ServingError("Odd."),
    "bug": ZeroDivisionError("secret"),
}


class ScriptedScorer:
    """Answers a body's `n`, or raises the fault that the body names, so many `times`."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, str]] = []
        self._raised: dict[str, int] = {}

    async def predict(self, model: str, body: bytes, request_id: str) -> tuple[str, dict[str, Any]]:
        asked = json.loads(body)
        self.seen.append((model, asked["n"], request_id))
        times = self._raised.get(request_id, 0)
        if "fault" in asked and times < asked.get("times", 1_000):
            self._raised[request_id] = times + 1
            raise FAULTS[asked["fault"]]
        return "3", asked.get("answer", {"n": asked["n"]})


def results(database: Database) -> dict[str, Any]:
    """Answers by key."""
    with database.begin() as connection:
        rows = connection.execute(text("SELECT key, answer FROM inference_result"))
        return {row.key: row.answer for row in rows}


def waiting(database: Database) -> dict[str, tuple[int, str | None, float]]:
    """Attempts, error and seconds until it is due, by key, of what is in the queue."""
    with database.begin() as connection:
        rows = connection.execute(
            text(
                "SELECT key, attempts, error, "
                "extract(epoch FROM available_at - clock_timestamp()) AS seconds "
                "FROM inference_request"
            )
        )
        return {row.key: (row.attempts, row.error, float(row.seconds)) for row in rows}


def dead(database: Database) -> dict[str, tuple[int, str]]:
    """Attempts and error of dead letters, by key."""
    with database.begin() as connection:
        rows = connection.execute(text("SELECT key, attempts, error FROM inference_dead_letter"))
        return {row.key: (row.attempts, row.error) for row in rows}


def make_due(database: Database) -> None:
    """Let leases and waits run out."""
    with database.begin() as connection:
        connection.execute(text("UPDATE inference_request SET available_at = now()"))
