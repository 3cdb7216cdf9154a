-- As in 0002; who may call a model is an admin's to say, and who rolls one out an operator's.
CREATE OR REPLACE FUNCTION ledger_admit(entry ledger) RETURNS void LANGUAGE plpgsql
SET search_path = @schema@, pg_temp AS $$
DECLARE
    body jsonb := entry.payload_text::jsonb;
    asked ledger;
    wanted text[] := CASE
        WHEN entry.kind IN ('approval', 'waiver', 'waiver_revoked') THEN '{approver}'
        WHEN entry.kind IN ('rollback', 'rollout') THEN '{operator}'
        WHEN entry.kind = 'promotion' THEN '{author,operator}'
        WHEN entry.kind IN ('principal_added', 'role_granted', 'role_revoked',
                            'call_granted', 'call_revoked') THEN '{admin}'
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

-- The newest row of the ledger about a principal and a model says whether it may be called.
CREATE FUNCTION calls_recorded() RETURNS trigger LANGUAGE plpgsql
SET search_path = @schema@, pg_temp AS $$
DECLARE
    about call_grant := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    newest ledger;
    recorded boolean;
BEGIN
    SELECT * INTO newest FROM ledger
        WHERE kind IN ('call_granted', 'call_revoked')
            AND subject = 'principal:' || about.principal AND payload ->> 'model' = about.model
        ORDER BY seq DESC LIMIT 1;
    IF TG_OP = 'DELETE' THEN
        recorded := newest.kind = 'call_revoked';
    ELSE
        recorded := newest.kind = 'call_granted' AND newest.seq = NEW.ledger_row
            AND (newest.payload ->> 'requests_per_second')::double precision
                IS NOT DISTINCT FROM NEW.requests_per_second;
    END IF;
    IF TG_OP = 'UPDATE' AND (NEW.principal, NEW.model) <> (OLD.principal, OLD.model) THEN
        recorded := false;
    END IF;
    IF recorded IS NOT TRUE THEN
        RAISE EXCEPTION 'no row of the ledger says so: % of % refused', TG_OP, TG_TABLE_NAME;
    END IF;
    RETURN about;
END $$;
CREATE TRIGGER recorded BEFORE INSERT OR UPDATE OR DELETE ON call_grant
    FOR EACH ROW EXECUTE FUNCTION calls_recorded();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON call_grant
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_truncate();
ALTER TABLE call_grant ENABLE ALWAYS TRIGGER recorded;
ALTER TABLE call_grant ENABLE ALWAYS TRIGGER no_truncate;
