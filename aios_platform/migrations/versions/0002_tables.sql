DROP TRIGGER ledger_append_only ON ledger;

ALTER TABLE ledger RENAME COLUMN actor TO principal;
ALTER TABLE ledger RENAME COLUMN payload TO old_payload;
ALTER TABLE ledger
    ALTER COLUMN seq DROP IDENTITY,
    ALTER COLUMN recorded_at DROP DEFAULT,
    ALTER COLUMN old_payload DROP NOT NULL,
    ADD COLUMN clock timestamptz,
    ADD COLUMN evidence text[] NOT NULL DEFAULT '{}',
    ADD COLUMN payload_text text,
    ADD COLUMN previous text,
    ADD COLUMN hash text;
COMMENT ON COLUMN ledger.clock IS 'what the clock said, where it was behind the previous row';
COMMENT ON COLUMN ledger.payload_text IS 'the exact text that was hashed';

CREATE TABLE ledger_head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    seq bigint NOT NULL,
    hash text NOT NULL,
    recorded_at timestamptz NOT NULL
);

CREATE TABLE principal (
    name text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9._-]{0,62}$'),
    ledger_row bigint NOT NULL
);

CREATE TABLE role_grant (
    principal text NOT NULL REFERENCES principal (name),
    role text NOT NULL CHECK (role IN ('author', 'approver', 'operator', 'auditor', 'admin')),
    ledger_row bigint NOT NULL,
    PRIMARY KEY (principal, role)
);

CREATE TABLE api_key (
    prefix text PRIMARY KEY,
    principal text NOT NULL REFERENCES principal (name),
    hash text NOT NULL UNIQUE,
    issued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    revoked_at timestamptz,
    ledger_row bigint NOT NULL
);

CREATE TABLE approval_code (
    hash text PRIMARY KEY,
    request bigint NOT NULL,
    approver text NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);
