"""The ledger of decisions and the champions.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, and forbid every change of a ledger row."""
    op.create_table(
        "ledger",
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column(
            "recorded_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("payload", JSONB, nullable=False),
        sa.Column("idempotency_key", sa.Text, nullable=False, unique=True),
    )
    op.create_index("ledger_subject", "ledger", ["subject", "kind", "seq"])
    op.execute(
        """
        CREATE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the ledger is append-only: % refused', TG_OP;
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
        FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change()
        """
    )
    op.create_table(
        "champion",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("record", JSONB, nullable=False),
        sa.CheckConstraint("revision >= 1", name="champion_revision_positive"),
    )


def downgrade() -> None:
    """Refuse: a ledger is never dropped by a migration."""
    raise NotImplementedError("the ledger is never dropped by a migration")
