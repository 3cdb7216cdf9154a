"""Alerts, one row per occurrence, and what of them was told to whom.

Revision ID: 0003
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE alert (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text NOT NULL,
    kind text NOT NULL,
    subject text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('warning', 'critical')),
    summary text NOT NULL,
    evidence jsonb NOT NULL,
    ledger_row bigint,
    raised_at timestamptz NOT NULL,
    newest_at timestamptz NOT NULL,
    count bigint NOT NULL DEFAULT 1 CHECK (count >= 1),
    first_seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    resolved_at timestamptz,
    resolved_by text,
    resolution text
);
COMMENT ON COLUMN alert.raised_at IS 'by the clock of the lifecycle, which a replay sets back';
COMMENT ON COLUMN alert.newest_at IS 'the same clock, when the evidence was taken';

CREATE UNIQUE INDEX alert_open ON alert (key) WHERE resolved_at IS NULL;
CREATE INDEX alert_subject ON alert (subject, id);

CREATE TABLE alert_message (
    id text PRIMARY KEY,
    output text NOT NULL,
    subject text NOT NULL,
    critical boolean NOT NULL,
    content jsonb NOT NULL,
    composed_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'undeliverable')),
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    ended_at timestamptz,
    error text
);
COMMENT ON COLUMN alert_message.content IS 'fixed before the first attempt, as is the id';
CREATE INDEX alert_message_pending ON alert_message (next_attempt_at) WHERE state = 'pending';

CREATE TABLE alert_delivery (
    alert_id bigint NOT NULL REFERENCES alert (id) ON DELETE CASCADE,
    output text NOT NULL,
    message_id text REFERENCES alert_message (id) ON DELETE SET NULL,
    PRIMARY KEY (alert_id, output)
);
CREATE INDEX alert_delivery_new ON alert_delivery (output) WHERE message_id IS NULL;
"""


def upgrade() -> None:
    """Create the tables."""
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    """Refuse: an alert that nobody was told of yet would be lost."""
    raise NotImplementedError("alerts are never dropped by a migration")
