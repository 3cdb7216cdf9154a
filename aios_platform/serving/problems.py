"""Errors as RFC 9457 problem details, each with a stable code."""

import json
import logging
import traceback
from pathlib import Path
from typing import NamedTuple

from aios_platform.errors import (
    AccessDenied,
    AiosError,
    DatabaseUnavailable,
    DeadlineExceeded,
    FeatureError,
    Overloaded,
    RequestRefused,
    ScoringError,
)

logger = logging.getLogger(__name__)

MEDIA_TYPE = b"application/problem+json"


class Kind(NamedTuple):
    """One kind of problem."""

    status: int
    title: str


KINDS: dict[str, Kind] = {
    "malformed_body": Kind(400, "The body cannot be read"),
    "invalid_input": Kind(422, "The request does not fit its contract"),
    "invalid_request": Kind(400, "The request is wrong"),
    "unauthenticated": Kind(401, "No valid key was sent"),
    "forbidden": Kind(403, "The key does not allow this"),
    "unknown_model": Kind(404, "No such model is served"),
    "unknown_version": Kind(404, "No such version is served"),
    "unknown_contract": Kind(404, "No such contract is declared"),
    "not_found": Kind(404, "No such resource"),
    "method_not_allowed": Kind(405, "The method is not allowed here"),
    "timeout": Kind(408, "The request came too slowly"),
    "idempotency_in_progress": Kind(409, "The first request with this key is being answered"),
    "body_too_large": Kind(413, "The body is too large"),
    "too_many_rows": Kind(413, "Too many rows in one request"),
    "unsupported_media_type": Kind(415, "The body's type is not accepted"),
    "idempotency_key_reused": Kind(422, "The key was used with another body"),
    "feature_unavailable": Kind(422, "A feature is missing or too old"),
    "overloaded": Kind(429, "More is asked than can be answered"),
    "rate_limited": Kind(429, "The key's rate is spent"),
    "headers_too_large": Kind(431, "The headers are too large"),
    "internal_error": Kind(500, "The gateway failed"),
    "no_answer": Kind(503, "Neither the model nor a fallback could answer"),
    "no_champion": Kind(503, "The model has no version that serves"),
    "store_unreachable": Kind(503, "A store does not answer"),
    "deadline_exceeded": Kind(504, "The answer would come too late"),
}


class Problem(NamedTuple):
    """What a caller is told when there is no answer."""

    status: int
    code: str
    detail: str
    retry_after: float | None = None

    def body(self, request_id: str) -> bytes:
        """The problem as JSON: type, title, status, detail, code, request_id."""
        return json.dumps(
            {
                "type": f"urn:aios:problem:{self.code}",
                "title": KINDS[self.code].title,
                "status": self.status,
                "detail": self.detail,
                "code": self.code,
                "request_id": request_id,
            },
            ensure_ascii=False,
        ).encode("utf-8", "backslashreplace")


def problem(code: str, detail: str, *, retry_after: float | None = None) -> Problem:
    """A problem of a known kind."""
    return Problem(KINDS[code].status, code, detail, retry_after)


def problem_of(error: BaseException) -> Problem:
    """What a caller is told of an error; what is not for callers stays in the log."""
    if isinstance(error, RequestRefused):
        return problem(error.code, str(error))
    if isinstance(error, Overloaded):
        return problem(error.code, str(error), retry_after=error.retry_after)
    if isinstance(error, DeadlineExceeded):
        return problem("deadline_exceeded", str(error))
    if isinstance(error, AccessDenied):
        return problem("forbidden", "The key does not allow this.")
    if isinstance(error, ScoringError | FeatureError):
        return problem("no_answer", "No version could answer; the gateway's log says why.")
    if isinstance(error, DatabaseUnavailable):
        return problem(
            "store_unreachable", "A store does not answer. Try again later.", retry_after=5
        )
    if isinstance(error, AiosError):
        return problem("internal_error", "The gateway's log says what happened.")
    return problem("internal_error", "An unexpected error; the gateway's log has it.")


def told(error: BaseException, request_id: str) -> Problem:
    """What a caller is told of an error; what nobody foresaw is logged."""
    found = problem_of(error)
    if found.code == "internal_error":
        what = error.what if isinstance(error, AiosError) else traced(error)
        logger.error("Request %s failed: %s", request_id, what)
    return found


def traced(error: BaseException) -> str:
    """An unexpected error for the log: its type, and the way to it, innermost first.

    Without its message, which may quote what a caller sent.
    """
    frames = reversed(traceback.extract_tb(error.__traceback__)[-8:])
    way = " < ".join(f"{Path(at.filename).name}:{at.lineno} {at.name}" for at in frames)
    return f"{type(error).__name__} in {way}" if way else type(error).__name__
