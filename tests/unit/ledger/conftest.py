"""What the tests of the ledger share."""

import pytest

from aios_platform.ledger.champions import promote
from aios_platform.ledger.entries import append
from tests.verdicts import verdict


@pytest.fixture
def judge():
    """Makes a verdict."""
    return verdict


@pytest.fixture
def swap():
    """Promotes the candidate of a verdict."""

    def make(database, verdict, **extra):
        return promote(
            database,
            verdict,
            model_digest="d" * 64,
            run_id="r",
            training_set_digest="7" * 64,
            trained_through="2013-09",
            **extra,
        )

    return make


@pytest.fixture
def write():
    """Appends rows to a ledger."""

    def make(database, count: int, first: int = 1) -> None:
        with database.begin() as connection:
            for number in range(first, first + count):
                append(
                    connection,
                    kind="note",
                    subject="m",
                    payload={"number": number, "text": "naïve “quotes” \\u2028 \\ \n", "x": 0.1},
                    key=f"note:{number}",
                    evidence=[f"{number:064x}"],
                )

    return make
