"""An installation with rows of revision 0001 keeps them, chained."""

import json

import pytest
from sqlalchemy import text

from aios_platform.database import MIGRATIONS
from aios_platform.ledger.champions import champion_of, roll_back
from aios_platform.ledger.entries import entries
from aios_platform.ledger.verification import verify
from tests.databases import ScratchDatabase

pytestmark = [pytest.mark.postgres]


@pytest.fixture
def old(database):
    """A ledger of revision 0001, with the gaps that its numbers had."""
    from alembic import command
    from alembic.config import Config

    scratch = ScratchDatabase(database, "of_0001")
    scratch.create(template="template0")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = scratch.engine
    command.upgrade(config, "0001")
    champion = {
        "model": "m", "version": "3", "model_digest": "d" * 64, "run_id": "r",
        "training_set_digest": "t", "trained_through": "2013-09", "baseline": {"roc_auc": 0.7},
        "promoted_at": "2026-01-01T00:00:00Z", "revision": 1,
    }  # fmt: skip
    with scratch.engine.begin() as connection:
        for number in range(1, 1501):
            payload = {"champion": champion} if number == 1500 else {"näme": number, "x": 1e-7}
            # A repeated key took a number of the sequence and left no row.
            for _ in range(2 if number == 7 else 1):
                connection.execute(
                    text(
                        "INSERT INTO ledger (actor, kind, subject, payload, idempotency_key) "
                        "VALUES ('user:old', :kind, 'm', CAST(:payload AS jsonb), :key) "
                        "ON CONFLICT (idempotency_key) DO NOTHING"
                    ),
                    {
                        "kind": "promotion" if number == 1500 else "note",
                        "payload": json.dumps(payload),
                        "key": f"k{number}",
                    },
                )
        connection.execute(
            text("INSERT INTO champion VALUES ('m', 1, '3', CAST(:record AS jsonb))"),
            {"record": json.dumps(champion)},
        )
    yield scratch
    scratch.drop()


def test_rows_and_champion_survive_and_the_chain_goes_on(old, judge, swap):
    with old.engine.connect() as connection:
        before = connection.execute(
            text("SELECT seq, recorded_at, actor, payload FROM ledger ORDER BY seq DESC")
        ).all()
    old.migrate()
    after = entries(old, limit=2000)
    assert [(r.seq, r.recorded_at, r.principal, r.payload) for r in after] == [
        tuple(row) for row in before
    ]
    found = verify(old)
    assert (found.holds, found.rows, found.last) == (True, 1500, 1501)

    first = champion_of(old, "m")
    assert first.version == "3"
    assert swap(old, judge("m", "4", champion="3")).revision == 2
    back = roll_back(old, "m", to=first, expected="4", reason="worse on Mondays")
    assert (back.version, back.revision) == ("3", 3)
    assert verify(old).last == 1503


def test_an_empty_one_upgrades_too(database, write):
    from alembic import command
    from alembic.config import Config

    scratch = ScratchDatabase(database, "empty_of_0001")
    scratch.create(template="template0")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = scratch.engine
    command.upgrade(config, "0001")
    scratch.migrate()
    write(scratch, 2)
    assert verify(scratch).last == 2
    scratch.drop()
