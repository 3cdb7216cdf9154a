"""Errors as callers are told of them: stable codes, and nothing of the inside."""

import ast
import json

import pytest
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from aios_platform import errors
from aios_platform.serving.problems import KINDS, problem_of, told, traced
from aios_platform.serving.replies import problem_reply
from aios_platform.settings import PROJECT_ROOT

SECRET = "Ada-Lovelace-1815"


def test_every_code_that_is_raised_is_known_and_has_a_status_that_http_has():
    used = set()
    for path in (PROJECT_ROOT / "aios_platform" / "serving").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                names = [k.value for k in node.keywords if k.arg == "code"]
                if getattr(node.func, "id", "") in ("problem", "_problem"):
                    names += node.args[:1]
                used |= {name.value for name in names if isinstance(name, ast.Constant)}
    assert len(used) > 15
    assert used <= set(KINDS)
    for kind in KINDS.values():
        assert kind.status in STATUS_LINE


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.RequestRefused("Why.", code="invalid_input"), 422, "invalid_input"),
        (errors.Overloaded("Full at this rate.", retry_after=2.5), 429, "overloaded"),
        (errors.Overloaded("Spent.", code="rate_limited"), 429, "rate_limited"),
        (errors.DeadlineExceeded("Late."), 504, "deadline_exceeded"),
        (errors.AccessDenied(SECRET), 403, "forbidden"),
        (errors.ScoringError(SECRET), 503, "no_answer"),
        (errors.FeatureError(SECRET), 503, "no_answer"),
        (errors.DatabaseUnavailable(SECRET), 503, "store_unreachable"),
        (errors.VersionUnusable(SECRET), 500, "internal_error"),
        (ValueError(SECRET), 500, "internal_error"),
    ],
)
def test_callers_are_told_what_is_theirs_to_know(error, status, code):
    reply = problem_reply(problem_of(error), "r1")
    content = json.loads(reply.body)
    assert (reply.status, content["status"], content["code"]) == (status, status, code)
    assert content["type"] == f"urn:aios:problem:{code}"
    assert content["request_id"] == "r1"
    assert set(content) == {"type", "title", "status", "detail", "code", "request_id"}
    assert SECRET not in reply.body.decode()
    assert ((b"retry-after", b"3") in reply.headers) is (code == "overloaded")


def test_an_error_that_nobody_foresaw_is_logged_by_its_way_and_not_by_its_words(caplog):
    def inner():
        raise ValueError(SECRET)

    with pytest.raises(ValueError, match=SECRET) as caught:
        inner()
    assert told(caught.value, "r1").code == "internal_error"
    assert "Request r1 failed: ValueError in test_problems.py:" in caplog.text
    assert " inner < " in caplog.text
    assert SECRET not in caplog.text
    assert traced(KeyError(SECRET)) == "KeyError"
