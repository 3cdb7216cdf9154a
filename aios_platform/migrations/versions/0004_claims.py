"""Claims: one row per cause and attempt, and the term of the daemon that scheduled it.

Revision ID: 0004
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE cause_claim (
    cause_key text NOT NULL,
    attempt integer NOT NULL CHECK (attempt >= 1),
    model text NOT NULL,
    job text NOT NULL,
    cause text NOT NULL,
    asker text NOT NULL,
    term bigint NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    run_id text,
    outcome text CHECK (outcome IN ('succeeded', 'failed', 'gone')),
    PRIMARY KEY (cause_key, attempt)
);
COMMENT ON COLUMN cause_claim.asker IS 'the sensor, schedule or command that asked for the run';
COMMENT ON COLUMN cause_claim.term IS 'the newest when it was claimed; its daemon may be gone';
COMMENT ON COLUMN cause_claim.run_id IS 'the one run that may do the work, once it has begun';
COMMENT ON COLUMN cause_claim.outcome IS 'kept here: the records of runs can be purged';
CREATE INDEX cause_claim_model ON cause_claim (model, claimed_at);

CREATE TABLE daemon_term (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    term bigint NOT NULL
);
INSERT INTO daemon_term (term) VALUES (0);
"""


def upgrade() -> None:
    """Create the tables."""
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    """Refuse: what was claimed would be done a second time."""
    raise NotImplementedError("claims are never dropped by a migration")
