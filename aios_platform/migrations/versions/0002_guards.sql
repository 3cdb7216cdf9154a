ALTER TABLE ledger DROP COLUMN old_payload;
ALTER TABLE ledger
    ALTER COLUMN payload_text SET NOT NULL,
    ALTER COLUMN previous SET NOT NULL,
    ALTER COLUMN hash SET NOT NULL,
    ADD COLUMN payload jsonb NOT NULL GENERATED ALWAYS AS (payload_text::jsonb) STORED,
    -- A fork of the chain would be two rows with one predecessor.
    ADD CONSTRAINT ledger_no_fork UNIQUE (previous),
    ADD CONSTRAINT ledger_hash_unique UNIQUE (hash),
    -- One line of an export, which readers can take for a row.
    ADD CONSTRAINT ledger_payload_is_an_object
        CHECK (jsonb_typeof(payload_text::jsonb) = 'object' AND payload_text !~ '[\n\r]'),
    ADD CONSTRAINT ledger_evidence_is_digests CHECK (
        coalesce(array_ndims(evidence), 1) = 1
        AND array_to_string(evidence, ',', 'null') ~ '^([0-9a-f]{64}(,[0-9a-f]{64})*)?$');

-- The bytes that are hashed: JSON, keys in order, no spaces (docs/ledger.md).
CREATE FUNCTION ledger_time(moment timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

CREATE FUNCTION ledger_content(entry ledger) RETURNS text LANGUAGE sql STABLE
SET search_path = @schema@, pg_temp AS $$
    SELECT '{"clock":' || coalesce('"' || ledger_time(entry.clock) || '"', 'null')
        || ',"evidence":[' || coalesce(
            (SELECT string_agg(to_json(digest)::text, ',' ORDER BY place)
             FROM unnest(entry.evidence) WITH ORDINALITY AS listed (digest, place)), '')
        || '],"key":' || to_json(entry.idempotency_key)::text
        || ',"kind":' || to_json(entry.kind)::text
        || ',"payload":' || entry.payload_text
        || ',"previous":' || to_json(entry.previous)::text
        || ',"principal":' || to_json(entry.principal)::text
        || ',"recorded_at":"' || ledger_time(entry.recorded_at)
        || '","seq":' || entry.seq
        || ',"subject":' || to_json(entry.subject)::text || '}'
$$;

-- Roles. Until the first key is issued, everybody at the machine may do everything.
CREATE FUNCTION holds_role(who text, wanted text) RETURNS boolean LANGUAGE sql STABLE
SET search_path = @schema@, pg_temp AS $$
    SELECT CASE
        WHEN who IN ('service:scheduler', 'service:dagster_ui')
            THEN wanted IN ('author', 'operator')
        WHEN who LIKE 'user:%'
            THEN NOT EXISTS (SELECT 1 FROM api_key)
        ELSE EXISTS (SELECT 1 FROM role_grant WHERE principal = who AND role = wanted)
    END
$$;

-- Whether the transaction carries the key, or the one-time code, of the principal it names. The
-- name alone proves nothing: whoever can connect can state any.
CREATE FUNCTION has_proof(who text, request_row bigint) RETURNS boolean LANGUAGE sql STABLE
SET search_path = @schema@, pg_temp AS $$
    WITH given AS (
        SELECT encode(sha256(convert_to(current_setting('aios.proof', true), 'UTF8')), 'hex') AS hash
    )
    SELECT who LIKE 'user:%' OR who LIKE 'service:%'
        OR EXISTS (
            SELECT 1 FROM api_key JOIN given USING (hash)
            WHERE principal = who AND revoked_at IS NULL
                AND (expires_at IS NULL OR expires_at > clock_timestamp()))
        OR EXISTS (
            SELECT 1 FROM approval_code JOIN given USING (hash)
            WHERE approver = who AND request = request_row
                AND expires_at > clock_timestamp())
$$;

-- Who may write which kind of row. SQLSTATE AI001: not allowed. AI002: the approval is refused.
CREATE FUNCTION ledger_admit(entry ledger) RETURNS void LANGUAGE plpgsql
SET search_path = @schema@, pg_temp AS $$
DECLARE
    body jsonb := entry.payload_text::jsonb;
    asked ledger;
    wanted text[] := CASE
        WHEN entry.kind IN ('approval', 'waiver', 'waiver_revoked') THEN '{approver}'
        WHEN entry.kind = 'rollback' THEN '{operator}'
        WHEN entry.kind = 'promotion' THEN '{author,operator}'
        WHEN entry.kind IN ('principal_added', 'role_granted', 'role_revoked') THEN '{admin}'
        ELSE NULL
    END;
BEGIN
    IF wanted IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM unnest(wanted) AS role WHERE holds_role(entry.principal, role))
    THEN
        RAISE EXCEPTION '% does not hold the role %, which a row of kind ''%'' needs.',
            entry.principal, array_to_string(wanted, ' or '), entry.kind
            USING ERRCODE = 'AI001',
            HINT = 'Set AIOS_API_KEY to the key of a principal that holds it (`aios principals list`).';
    END IF;
    IF entry.kind IN ('key_issued', 'key_revoked')
        AND NOT holds_role(entry.principal, 'admin')
        AND entry.subject <> 'principal:' || entry.principal
    THEN
        RAISE EXCEPTION '% may not change the keys of others.', entry.principal
            USING ERRCODE = 'AI001', HINT = 'Ask a principal with the role admin.';
    END IF;
    IF (wanted IS NOT NULL OR entry.kind IN ('key_issued', 'key_revoked'))
        AND NOT has_proof(entry.principal, (body ->> 'request')::bigint)
    THEN
        RAISE EXCEPTION 'Nothing proves that this transaction is by %.', entry.principal
            USING ERRCODE = 'AI001', HINT = 'Set AIOS_API_KEY to the principal''s own key.';
    END IF;

    IF entry.kind = 'approval' THEN
        SELECT * INTO asked FROM ledger
            WHERE seq = (body ->> 'request')::bigint AND kind = 'approval_request';
        IF asked.seq IS NULL OR asked.subject <> entry.subject THEN
            RAISE EXCEPTION 'There is no request % for %.', body ->> 'request', entry.subject
                USING ERRCODE = 'AI002', HINT = '`aios approvals list` shows the requests.';
        END IF;
        IF regexp_replace(asked.payload ->> 'author', '^user:', '')
            = regexp_replace(entry.principal, '^user:', '')
        THEN
            RAISE EXCEPTION '% is the author of what request % is about, and may not decide on it.',
                entry.principal, asked.seq
                USING ERRCODE = 'AI002', HINT = 'Another principal with the role approver decides.';
        END IF;
        IF EXISTS (SELECT 1 FROM ledger WHERE kind = 'approval' AND subject = entry.subject
                   AND payload ->> 'request' = body ->> 'request')
        THEN
            RAISE EXCEPTION 'Request % was decided already.', asked.seq
                USING ERRCODE = 'AI002', HINT = 'A decision stands; new evidence is a new request.';
        END IF;
        IF NOT (entry.recorded_at < (asked.payload ->> 'expires_at')::timestamptz) THEN
            RAISE EXCEPTION 'Request % expired at %.', asked.seq, asked.payload ->> 'expires_at'
                USING ERRCODE = 'AI002', HINT = 'Run the gate again; that makes a new request.';
        END IF;
        IF body ->> 'evidence_digest' IS DISTINCT FROM asked.payload ->> 'evidence_digest' THEN
            RAISE EXCEPTION 'Request % is about other evidence than the decision.', asked.seq
                USING ERRCODE = 'AI002',
                HINT = '`aios approvals show` has the evidence as it was judged.';
        END IF;
    END IF;

    -- Once somebody was asked, the answer counts.
    IF entry.kind = 'promotion' AND EXISTS (
        SELECT 1 FROM ledger AS request
        WHERE request.kind = 'approval_request' AND request.subject = entry.subject
            AND request.payload ->> 'evidence_digest' = ANY (entry.evidence)
    ) AND NOT EXISTS (
        SELECT 1 FROM ledger AS request JOIN ledger AS decision
            ON decision.kind = 'approval' AND decision.subject = entry.subject
            AND decision.payload ->> 'request' = request.seq::text
        WHERE request.kind = 'approval_request' AND request.subject = entry.subject
            AND request.payload ->> 'evidence_digest' = ANY (entry.evidence)
            AND (decision.payload ->> 'approve')::boolean
    ) THEN
        RAISE EXCEPTION 'This promotion of % waits for an approval.', entry.subject
            USING ERRCODE = 'AI002', HINT = '`aios approvals list` shows the requests.';
    END IF;
END $$;

CREATE FUNCTION ledger_append() RETURNS trigger LANGUAGE plpgsql
SET search_path = @schema@, pg_temp
SET lock_timeout = '60s' AS $$
DECLARE
    head ledger_head;
    moment timestamptz;
BEGIN
    -- Held until the caller's transaction ends: one writer at a time, so no fork and no gap.
    SELECT * INTO STRICT head FROM ledger_head FOR UPDATE;
    IF EXISTS (SELECT 1 FROM ledger WHERE idempotency_key = NEW.idempotency_key) THEN
        RETURN NULL;
    END IF;
    moment := clock_timestamp();
    NEW.clock := CASE WHEN moment < head.recorded_at THEN moment END;
    NEW.recorded_at := greatest(moment, head.recorded_at);
    NEW.seq := head.seq + 1;
    NEW.previous := head.hash;
    PERFORM ledger_admit(NEW);
    NEW.hash := encode(sha256(convert_to(ledger_content(NEW), 'UTF8')), 'hex');
    UPDATE ledger_head SET seq = NEW.seq, hash = NEW.hash, recorded_at = NEW.recorded_at;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the ledger is append-only: % refused', TG_OP;
        END $$;

CREATE TRIGGER ledger_append BEFORE INSERT ON ledger
    FOR EACH ROW EXECUTE FUNCTION ledger_append();
CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();

-- The head moves with an append, from inside its trigger, and never otherwise.
CREATE FUNCTION ledger_head_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND pg_trigger_depth() > 1 THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'the head of the ledger moves with an append only: % refused', TG_OP;
END $$;
CREATE TRIGGER ledger_head_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON ledger_head
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_head_refuse();

-- What changes who may do what, and which version is live, is in the ledger or does not happen.
CREATE FUNCTION access_recorded() RETURNS trigger LANGUAGE plpgsql
SET search_path = @schema@, pg_temp AS $$
DECLARE
    recorded boolean := false;
BEGIN
    IF TG_TABLE_NAME = 'principal' AND TG_OP = 'INSERT' THEN
        recorded := EXISTS (SELECT 1 FROM ledger WHERE seq = NEW.ledger_row
            AND kind = 'principal_added' AND subject = 'principal:' || NEW.name);
    ELSIF TG_TABLE_NAME = 'role_grant' AND TG_OP = 'INSERT' THEN
        recorded := EXISTS (SELECT 1 FROM ledger WHERE seq = NEW.ledger_row
            AND kind = 'role_granted' AND subject = 'principal:' || NEW.principal
            AND payload ->> 'role' = NEW.role);
    ELSIF TG_TABLE_NAME = 'role_grant' AND TG_OP = 'DELETE' THEN
        recorded := EXISTS (SELECT 1 FROM ledger WHERE seq > OLD.ledger_row
            AND kind = 'role_revoked' AND subject = 'principal:' || OLD.principal
            AND payload ->> 'role' = OLD.role);
    ELSIF TG_TABLE_NAME = 'api_key' AND TG_OP = 'INSERT' THEN
        recorded := EXISTS (SELECT 1 FROM ledger WHERE seq = NEW.ledger_row
            AND kind = 'key_issued' AND subject = 'principal:' || NEW.principal
            AND payload ->> 'prefix' = NEW.prefix) AND NEW.revoked_at IS NULL;
    ELSIF TG_TABLE_NAME = 'api_key' AND TG_OP = 'UPDATE' THEN
        recorded := OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL
            AND (NEW.prefix, NEW.principal, NEW.hash, NEW.issued_at, NEW.ledger_row)
                = (OLD.prefix, OLD.principal, OLD.hash, OLD.issued_at, OLD.ledger_row)
            AND NEW.expires_at IS NOT DISTINCT FROM OLD.expires_at
            AND EXISTS (SELECT 1 FROM ledger WHERE kind = 'key_revoked'
                AND subject = 'principal:' || OLD.principal
                AND payload ->> 'prefix' = OLD.prefix);
    END IF;
    IF NOT recorded THEN
        RAISE EXCEPTION 'no row of the ledger says so: % of % refused', TG_OP, TG_TABLE_NAME;
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE FUNCTION refuse_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'no row of the ledger says so: % of % refused', TG_OP, TG_TABLE_NAME;
END $$;
CREATE TRIGGER recorded BEFORE INSERT OR UPDATE OR DELETE ON principal
    FOR EACH ROW EXECUTE FUNCTION access_recorded();
CREATE TRIGGER recorded BEFORE INSERT OR UPDATE OR DELETE ON role_grant
    FOR EACH ROW EXECUTE FUNCTION access_recorded();
CREATE TRIGGER recorded BEFORE INSERT OR UPDATE OR DELETE ON api_key
    FOR EACH ROW EXECUTE FUNCTION access_recorded();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON principal
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON role_grant
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON api_key
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_truncate();

-- A code stands for an approver, so only the approver's own key makes one; it is used once.
CREATE FUNCTION approval_code_guard() RETURNS trigger LANGUAGE plpgsql
SET search_path = @schema@, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NEW.used_at IS NULL
        AND NEW.expires_at <= clock_timestamp() + interval '1 hour'
        AND holds_role(NEW.approver, 'approver') AND has_proof(NEW.approver, NULL)
    THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'UPDATE' AND OLD.used_at IS NULL AND NEW.used_at IS NOT NULL
        AND (NEW.hash, NEW.request, NEW.approver, NEW.expires_at)
            = (OLD.hash, OLD.request, OLD.approver, OLD.expires_at)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'Nothing proves that this code is made by an approver: % refused.', TG_OP
        USING ERRCODE = 'AI001', HINT = 'Set AIOS_API_KEY to the key of an approver.';
END $$;
CREATE TRIGGER guarded BEFORE INSERT OR UPDATE OR DELETE ON approval_code
    FOR EACH ROW EXECUTE FUNCTION approval_code_guard();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON approval_code
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_truncate();

CREATE FUNCTION champion_recorded() RETURNS trigger LANGUAGE plpgsql
SET search_path = @schema@, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' OR NOT EXISTS (
        SELECT 1 FROM ledger WHERE kind IN ('promotion', 'rollback') AND subject = NEW.model
            AND payload -> 'champion' = NEW.record
            AND (payload -> 'champion' ->> 'revision')::integer = NEW.revision
            AND payload -> 'champion' ->> 'version' = NEW.version
    ) OR (TG_OP = 'UPDATE' AND (NEW.model <> OLD.model OR NEW.revision <> OLD.revision + 1))
    THEN
        RAISE EXCEPTION 'no row of the ledger says so: % of % refused', TG_OP, TG_TABLE_NAME;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER recorded BEFORE INSERT OR UPDATE OR DELETE ON champion
    FOR EACH ROW EXECUTE FUNCTION champion_recorded();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON champion
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_truncate();

-- ALWAYS: session_replication_role = replica does not switch them off.
ALTER TABLE ledger ENABLE ALWAYS TRIGGER ledger_append;
ALTER TABLE ledger ENABLE ALWAYS TRIGGER ledger_append_only;
ALTER TABLE ledger_head ENABLE ALWAYS TRIGGER ledger_head_guard;
ALTER TABLE principal ENABLE ALWAYS TRIGGER recorded;
ALTER TABLE principal ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE role_grant ENABLE ALWAYS TRIGGER recorded;
ALTER TABLE role_grant ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE api_key ENABLE ALWAYS TRIGGER recorded;
ALTER TABLE api_key ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE approval_code ENABLE ALWAYS TRIGGER guarded;
ALTER TABLE approval_code ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE champion ENABLE ALWAYS TRIGGER recorded;
ALTER TABLE champion ENABLE ALWAYS TRIGGER no_truncate;
