"""What the platform logs holds no secret."""

import io
import logging

import pytest

from aios_platform.ledger.identity import prefix_of
from aios_platform.telemetry import RedactingFormatter, redact

PREFIX = "0123456789ab"
KEY = f"aios_{PREFIX}_{'s3cr3t-' * 6}A"


def test_it_has_the_form_of_a_key():
    assert prefix_of(KEY) == PREFIX


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f"the key {KEY}, sent", f"the key aios_{PREFIX}_***, sent"),
        (f"Authorization: Bearer {KEY}", "Authorization: Bearer ***"),
        ("authorization: bearer of.another-system", "authorization: bearer ***"),
        ("postgresql://aios:p%40ss@db:5432/x", "postgresql://aios:***@db:5432/x"),
        ("redis://:pass@db", "redis://:***@db"),
        (f"the key aios_{PREFIX}_… of ada", f"the key aios_{PREFIX}_… of ada"),
        ("http://127.0.0.1:8000/v1 by a@b.example", "http://127.0.0.1:8000/v1 by a@b.example"),
    ],
)
def test_secrets_are_blotted_out_and_the_rest_stays(line, shown):
    assert redact(line) == shown


def test_a_traceback_is_blotted_out_too():
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(RedactingFormatter("%(levelname)s %(message)s"))
    logger = logging.Logger("canary")
    logger.addHandler(handler)
    try:
        raise ValueError(f"no such key: {KEY}")
    except ValueError:
        logger.exception("Refused %r", {"authorization": f"Bearer {KEY}"})
    said = written.getvalue()
    assert "ERROR Refused" in said
    assert "ValueError: no such key" in said
    assert KEY.split("_", 2)[2] not in said
