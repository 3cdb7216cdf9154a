from datetime import UTC, datetime, timedelta

import pytest

from aios_platform.errors import LedgerError
from aios_platform.ledger.attestations import attest, attestations
from aios_platform.ledger.entries import entries

pytestmark = [pytest.mark.postgres]


def give(database, **changed):
    given = {
        "model": "m", "test": "data_4", "evidence": "TICKET-7", "note": "all sources are allowed",
        "expires_at": datetime.now(UTC) + timedelta(days=90),
    }  # fmt: skip
    return attest(database, **{**given, **changed})


def test_an_attestation_is_a_row_of_the_ledger(own_database):
    first, second = give(own_database), give(own_database, test="data_5")
    give(own_database, model="other")
    assert attestations(own_database, "m") == [second, first]
    row = entries(own_database, subject="m", kind="attestation")[-1]
    assert (row.seq, row.principal) == (first.ledger_row, first.principal)
    assert row.payload["evidence"] == "TICKET-7"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"evidence": " "}, "needs evidence"),
        ({"note": ""}, "needs evidence"),
        ({"expires_at": datetime.now(UTC) - timedelta(seconds=1)}, "would expire"),
        ({"expires_at": datetime.now(UTC) + timedelta(days=367)}, "would expire"),
    ],
)
def test_what_nobody_could_look_up_is_refused(own_database, change, told):
    with pytest.raises(LedgerError, match=told):
        give(own_database, **change)
    assert attestations(own_database, "m") == []
