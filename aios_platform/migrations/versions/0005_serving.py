"""What the gateway writes: records, figures, review queue, idempotent answers; queue of requests.

Revision ID: 0005
"""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Percent signs and colons in the statements are not placeholders.
RAW = {"no_parameters": True}
TABLES = """
CREATE TABLE served_batch (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text NOT NULL,
    version text NOT NULL,
    model_digest text NOT NULL,
    first_served timestamptz NOT NULL,
    last_served timestamptz NOT NULL,
    first_predicted timestamptz NOT NULL,
    last_predicted timestamptz NOT NULL,
    rows integer NOT NULL CHECK (rows >= 1),
    share real NOT NULL,
    content bytea NOT NULL
);
COMMENT ON COLUMN served_batch.content IS
    'Arrow IPC stream, zstd: served features and answers, a row each (docs/monitoring.md)';
COMMENT ON COLUMN served_batch.first_predicted IS 'least prediction time of its rows';
COMMENT ON COLUMN served_batch.share IS 'of the requests that were recorded, as declared';
CREATE INDEX served_batch_time ON served_batch (model, last_predicted, first_predicted);
CREATE INDEX served_batch_served ON served_batch (model, first_served);

-- A transaction whose end was not seen is written again: its number says whether it is there.
CREATE TABLE recorder (
    id text PRIMARY KEY,
    written bigint NOT NULL,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON COLUMN recorder.written IS 'the last transaction of this gateway process';

CREATE TABLE serving_minute (
    model text NOT NULL,
    version text NOT NULL,
    role text NOT NULL CHECK (role IN ('live', 'canary', 'shadow')),
    minute timestamptz NOT NULL,
    requests bigint NOT NULL DEFAULT 0,
    errors bigint NOT NULL DEFAULT 0,
    failures bigint NOT NULL DEFAULT 0,
    slow bigint NOT NULL DEFAULT 0,
    rows bigint NOT NULL DEFAULT 0,
    seconds double precision NOT NULL DEFAULT 0,
    seconds_squared double precision NOT NULL DEFAULT 0,
    prediction double precision NOT NULL DEFAULT 0,
    prediction_squared double precision NOT NULL DEFAULT 0,
    PRIMARY KEY (model, minute, version, role)
);
COMMENT ON COLUMN serving_minute.errors IS 'server errors: what the caller is not to blame for';
COMMENT ON COLUMN serving_minute.failures IS
    'server errors, and requests that another hop answered because the version could not';
COMMENT ON COLUMN serving_minute.slow IS 'answered later than serving.slo.latency_ms';
COMMENT ON COLUMN serving_minute.seconds IS 'sum of latencies of requests';
COMMENT ON COLUMN serving_minute.prediction IS 'sum of the probabilities of rows';

CREATE TABLE shadow_pair (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text NOT NULL,
    rollout integer NOT NULL,
    request_id text NOT NULL,
    place integer NOT NULL,
    live_version text NOT NULL,
    version text NOT NULL,
    live real NOT NULL,
    candidate real,
    failure text,
    live_seconds real NOT NULL,
    seconds real NOT NULL,
    served_at timestamptz NOT NULL
);
CREATE INDEX shadow_pair_rollout ON shadow_pair (model, rollout, version);
COMMENT ON COLUMN shadow_pair.candidate IS 'null where the candidate failed on the row';

CREATE TABLE review_item (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text NOT NULL,
    version text NOT NULL,
    request_id text NOT NULL,
    place integer NOT NULL,
    row_id text,
    inputs jsonb NOT NULL,
    probability real NOT NULL,
    reason text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    decided_at timestamptz,
    decided_by text,
    decision boolean
);
-- A request id is the caller's, and need not be unique.
CREATE INDEX review_item_open ON review_item (model, id) WHERE decided_at IS NULL;

CREATE TABLE idempotent_answer (
    principal text NOT NULL,
    model text NOT NULL,
    key text NOT NULL,
    body_digest text NOT NULL,
    holder text NOT NULL,
    held_until timestamptz NOT NULL,
    status integer,
    content_type text,
    answer bytea,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (principal, model, key)
);
COMMENT ON COLUMN idempotent_answer.status IS 'null while the first request is being answered';
COMMENT ON COLUMN idempotent_answer.held_until IS 'a killed holder gives way after this';
CREATE INDEX idempotent_answer_age ON idempotent_answer (created_at);

CREATE TABLE inference_request (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text NOT NULL,
    key text NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
    body jsonb NOT NULL CHECK (jsonb_typeof(body) = 'object'),
    enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    available_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts integer NOT NULL DEFAULT 0,
    error text
);
COMMENT ON COLUMN inference_request.available_at IS
    'not before: a worker has it until then, or it waits to be tried again';
COMMENT ON COLUMN inference_request.attempts IS 'how often it was taken';
CREATE INDEX inference_request_next ON inference_request (model, available_at, id);

CREATE TABLE inference_result (
    model text NOT NULL,
    key text NOT NULL,
    version text NOT NULL,
    answer jsonb NOT NULL,
    body_digest text NOT NULL,
    scored_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (model, key)
);
COMMENT ON COLUMN inference_result.body_digest IS 'SHA-256 (hex) of the body as text';

CREATE TABLE inference_dead_letter (
    id bigint PRIMARY KEY,
    model text NOT NULL,
    key text NOT NULL,
    body jsonb NOT NULL,
    attempts integer NOT NULL,
    error text NOT NULL,
    enqueued_at timestamptz NOT NULL,
    died_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX inference_dead_letter_model ON inference_dead_letter (model, id);

-- The gateway asks every second for the newest of each model.
CREATE INDEX ledger_rollout ON ledger (subject, seq DESC) WHERE kind = 'rollout';

-- Who may call which model; a key's own roles do not grant it.
CREATE TABLE call_grant (
    principal text NOT NULL REFERENCES principal (name),
    model text NOT NULL CHECK (model = '*' OR model ~ '^[a-z][a-z0-9_]{0,62}$'),
    requests_per_second double precision CHECK (requests_per_second > 0),
    ledger_row bigint NOT NULL,
    PRIMARY KEY (principal, model)
);
COMMENT ON COLUMN call_grant.model IS 'a model, or * for every one';
COMMENT ON COLUMN call_grant.requests_per_second IS 'null: no limit of its own';
"""


def upgrade() -> None:
    """Create the tables, and guard who may call."""
    connection = op.get_bind()
    connection.exec_driver_sql(TABLES, execution_options=RAW)
    # Functions pin where they look things up.
    schema = connection.execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    guards = Path(__file__).with_name("0005_guards.sql").read_text()
    connection.exec_driver_sql(guards.replace("@schema@", schema), execution_options=RAW)


def downgrade() -> None:
    """Refuse: records of what was answered would be lost."""
    raise NotImplementedError("what was served is never dropped by a migration")
