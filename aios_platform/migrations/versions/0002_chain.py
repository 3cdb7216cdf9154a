"""The ledger becomes a hash chain; principals, roles, keys and approvals.

Rows of revision 0001 keep their numbers, times and actors, and are chained in their order.

Revision ID: 0002
"""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import op
from sqlalchemy import Connection, text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

GENESIS = "0" * 64
BATCH = 1000
# Percent signs in the statements are not placeholders.
RAW = {"no_parameters": True}


def upgrade() -> None:
    """Chain what is there, then let the database chain every further row."""
    connection = op.get_bind()
    connection.exec_driver_sql(_sql("tables"), execution_options=RAW)
    seq, digest, recorded_at = _chain(connection)
    connection.execute(
        text("INSERT INTO ledger_head (seq, hash, recorded_at) VALUES (:seq, :hash, :at)"),
        {"seq": seq, "hash": digest, "at": recorded_at},
    )
    connection.exec_driver_sql(_sql("guards"), execution_options=RAW)


def _chain(connection: Connection) -> tuple[int, str, datetime]:
    seq, previous, recorded_at = 0, GENESIS, datetime(1970, 1, 1, tzinfo=UTC)
    while rows := connection.execute(
        text(
            "SELECT seq, recorded_at, principal, kind, subject, idempotency_key, old_payload "
            "FROM ledger WHERE seq > :seq ORDER BY seq LIMIT :batch"
        ),
        {"seq": seq, "batch": BATCH},
    ).all():
        for row in rows:
            moment = row.recorded_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            values: dict[str, Any] = {
                "clock": None,
                "evidence": [],
                "key": row.idempotency_key,
                "kind": row.kind,
                "payload": row.old_payload,
                "previous": previous,
                "principal": row.principal,
                "recorded_at": moment,
                "seq": row.seq,
                "subject": row.subject,
            }
            digest = hashlib.sha256(_canonical(values).encode()).hexdigest()
            connection.execute(
                text(
                    "UPDATE ledger SET payload_text = :payload, previous = :previous, "
                    "hash = :hash WHERE seq = :seq"
                ),
                {
                    "payload": _canonical(row.old_payload),
                    "previous": previous,
                    "hash": digest,
                    "seq": row.seq,
                },
            )
            seq, previous = row.seq, digest
            recorded_at = max(recorded_at, row.recorded_at)
    return seq, previous, recorded_at


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _sql(part: str) -> str:
    """The statements, with our schema's name where a function pins where it looks things up."""
    schema = op.get_bind().execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    source = Path(__file__).with_name(f"0002_{part}.sql").read_text()
    return source.replace("@schema@", schema)


def downgrade() -> None:
    """Refuse: a ledger is never unchained by a migration."""
    raise NotImplementedError("a ledger is never unchained by a migration")
