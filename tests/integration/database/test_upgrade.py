"""A database of every earlier revision, with a row in every table, upgraded to the newest."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from aios_platform.access.principals import acting_with, add
from aios_platform.database import MIGRATIONS, newest_revision
from aios_platform.ledger import approvals
from aios_platform.ledger.champions import champion_of, promote
from aios_platform.ledger.entries import append, entries
from aios_platform.ledger.verification import verify
from tests.databases import ScratchDatabase
from tests.verdicts import verdict

pytestmark = [pytest.mark.postgres]
REVISIONS = sorted(path.stem[:4] for path in (MIGRATIONS / "versions").glob("0*.py"))

BY_TYPE = {
    "text": "'some'", "integer": "1", "bigint": "1", "boolean": "true", "bytea": "'\\x00ff'",
    "jsonb": """'{"a": [1, null, "ä"]}'""", "real": "0.5", "double precision": "0.5",
    "timestamp with time zone": "'2026-01-02 03:04:05.678901+00'", "ARRAY": "'{}'",
}  # fmt: skip
BY_COLUMN = {
    "severity": "'warning'", "state": "'pending'", "role": "'live'", "outcome": "'succeeded'",
    "model": "'m'",
}  # fmt: skip
# Filled by the platform's own functions: the database asks for the ledger's row, and a proof.
GUARDED = {
    "ledger", "ledger_head", "champion", "principal", "role_grant", "api_key", "approval_code",
    "call_grant",
}  # fmt: skip


def migrate(database, revision):
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = database.engine
    command.upgrade(config, revision)


def tables(database):
    """Every table of ours with its columns, those it fills itself last."""
    with database.engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT table_name, column_name, data_type, is_identity = 'YES' "
                "OR is_generated = 'ALWAYS' AS own FROM information_schema.columns "
                "JOIN information_schema.tables USING (table_schema, table_name) "
                "WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' "
                "AND table_name <> 'alembic_version' ORDER BY table_name, ordinal_position"
            )
        ).all()
    found = {}
    for table, column, kind, own in rows:
        found.setdefault(table, []).append((column, kind, own))
    return found


def content(database, columns):
    """The rows of every table as text, in these columns."""
    found = {}
    with database.engine.connect() as connection:
        for table, names in columns.items():
            listed = ", ".join(f'"{name}"' for name, *_ in names)
            rows = connection.execute(text(f'SELECT CAST(ROW({listed}) AS text) FROM "{table}"'))
            found[table] = sorted(rows.scalars())
    return found


def fill(database):
    """A row in every table that is still empty, of whatever its columns take."""
    references = {"alert_delivery": ("alert", "alert_message")}
    everything = tables(database)
    with database.engine.begin() as connection:
        # What refers to others comes after them.
        for table in sorted(everything.keys() - GUARDED, key=lambda t: (t in references, t)):
            if connection.execute(text(f'SELECT EXISTS (SELECT 1 FROM "{table}")')).scalar():
                continue
            written = [(name, kind) for name, kind, own in everything[table] if not own]
            values = [BY_COLUMN.get(name, BY_TYPE[kind]) for name, kind in written]
            names = ", ".join(f'"{name}"' for name, _ in written)
            # A colon is no placeholder.
            connection.exec_driver_sql(
                f'INSERT INTO "{table}" ({names}) VALUES ({", ".join(values)})',
                execution_options={"no_parameters": True},
            )


def fill_first(database):
    """Rows of revision 0001, whose ledger was no chain yet."""
    record = {
        "model": "m", "version": "3", "model_digest": "d" * 64, "run_id": "r",
        "training_set_digest": "t", "trained_through": "2013-09", "baseline": {"roc_auc": 0.7},
        "promoted_at": "2026-01-01T00:00:00Z", "revision": 1,
    }  # fmt: skip
    with database.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO ledger (actor, kind, subject, payload, idempotency_key) "
                "VALUES ('user:old', 'promotion', 'm', CAST(:payload AS jsonb), 'p')"
            ),
            {"payload": json.dumps({"champion": record})},
        )
        connection.execute(
            text("INSERT INTO champion VALUES ('m', 1, '3', CAST(:record AS jsonb))"),
            {"record": json.dumps(record)},
        )


def fill_governed(database):
    """Principals with roles and keys, a champion, and a one-time code."""
    with database.begin() as connection:
        append(connection, kind="note", subject="m", payload={"n": "naïve “\\”"}, key="note")
    swap(database, "3", None)
    root = add(database, "root", ["admin", "approver"])
    with acting_with(root):
        add(database, "ada", ["author", "operator"])
        judged = verdict("m", "4", champion="3")
        asked = approvals.request(
            database, judged, author="ada", candidate={},
            expires_at=datetime.now(UTC) + timedelta(days=1),
        )  # fmt: skip
        approvals.issue_code(database, asked.ledger_row)
    return root


def swap(database, version, live):
    return promote(
        database, verdict("m", version, champion=live), model_digest="d" * 64, run_id="r",
        training_set_digest="7" * 64, trained_through="2013-09",
    )  # fmt: skip


@pytest.mark.parametrize("revision", [r for r in REVISIONS if r < newest_revision()])
def test_it_keeps_every_row_and_goes_on(revision, database):
    scratch = ScratchDatabase(database, f"upgraded_from_{revision}")
    scratch.create(template="template0")
    migrate(scratch, revision)
    root = None
    if revision == "0001":
        fill_first(scratch)
    else:
        root = fill_governed(scratch)
        if "call_grant" in tables(scratch):
            from aios_platform.access.callers import grant

            with acting_with(root):
                grant(scratch, "ada", "m", requests_per_second=5)
    fill(scratch)
    old = tables(scratch)
    before = content(scratch, old)
    assert all(before.values()), [table for table, rows in before.items() if not rows]

    scratch.migrate()

    with scratch.engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == (
            newest_revision()
        )
    if revision == "0001":
        # The ledger's own columns changed, and its rows were chained.
        old.pop("ledger")
        before.pop("ledger")
        assert [row.principal for row in entries(scratch)] == ["user:old"]
    assert content(scratch, old) == before
    found = verify(scratch)
    found.require()
    assert champion_of(scratch, "m").version == "3"
    if root is None:
        assert swap(scratch, "4", "3").version == "4"
    else:
        with acting_with(root):
            add(scratch, "olga", ["operator"])
    assert verify(scratch).last > found.last
    scratch.drop()


def test_there_is_a_way_from_every_revision_and_one_head():
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [newest_revision()]
    assert [step.revision for step in script.walk_revisions()][::-1] == REVISIONS
