"""Whether the database still refuses what it must, and holds nothing that no row explains."""

import re
from collections.abc import Iterator
from functools import cache

from sqlalchemy import Connection, text

from aios_platform.database import MIGRATIONS

# Triggers without which the database would not refuse; all must fire in every session.
TRIGGERS = {
    "ledger": {"ledger_append", "ledger_append_only"},
    "ledger_head": {"ledger_head_guard"},
    "principal": {"recorded", "no_truncate"},
    "role_grant": {"recorded", "no_truncate"},
    "api_key": {"recorded", "no_truncate"},
    "approval_code": {"guarded", "no_truncate"},
    "call_grant": {"recorded", "no_truncate"},
    "champion": {"recorded", "no_truncate"},
}

_FUNCTION = re.compile(
    r"CREATE (?:OR REPLACE )?FUNCTION (\w+)\(.*?\$\$(.*?)\$\$", re.DOTALL | re.IGNORECASE
)
_LATEST = """
SELECT DISTINCT ON (subject, payload ->> '{what}')
    substr(subject, 11) AS principal, payload ->> '{what}' AS {what}, kind, payload
FROM ledger WHERE kind IN ('{given}', '{taken}')
ORDER BY subject, payload ->> '{what}', seq DESC
"""
_ROLES = _LATEST.format(what="role", given="role_granted", taken="role_revoked")
_KEYS = _LATEST.format(what="prefix", given="key_issued", taken="key_revoked")
_CALLS = _LATEST.format(what="model", given="call_granted", taken="call_revoked")


def findings(connection: Connection) -> Iterator[str]:
    """What is not as it must be, in sentences; nothing, where all is well."""
    yield from _triggers(connection)
    yield from _functions(connection)
    yield from _champions(connection)
    yield from _rights(connection)


def _triggers(connection: Connection) -> Iterator[str]:
    on: dict[str, set[str]] = {}
    for table, trigger in connection.execute(
        text(
            "SELECT relname, tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
            "WHERE tgenabled = 'A' AND NOT tgisinternal "
            "AND relnamespace = CAST(current_schema() AS regnamespace)"
        )
    ):
        on.setdefault(table, set()).add(trigger)
    for table, wanted in TRIGGERS.items():
        if off := wanted - on.get(table, set()):
            yield f"The table {table} is not guarded: {', '.join(sorted(off))} is off or gone."


def _functions(connection: Connection) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for name, body in connection.execute(
        text(
            "SELECT proname, prosrc FROM pg_proc "
            "WHERE pronamespace = CAST(current_schema() AS regnamespace)"
        )
    ):
        found.setdefault(name, []).append(body)
    for name, body in sorted(_installed().items()):
        if found.get(name) != [body]:
            yield f"The function {name} is not the one that was installed."


@cache
def _installed() -> dict[str, str]:
    """Bodies of the functions that the migrations make, the newest of each name."""
    return {
        name: body
        for path in sorted((MIGRATIONS / "versions").glob("*.sql"))
        for name, body in _FUNCTION.findall(path.read_text())
    }


def _champions(connection: Connection) -> Iterator[str]:
    for model, version in connection.execute(
        text(
            "SELECT model, version FROM champion WHERE record IS DISTINCT FROM ("
            "SELECT payload -> 'champion' FROM ledger WHERE subject = model "
            "AND kind IN ('promotion', 'rollback') ORDER BY seq DESC LIMIT 1) "
            "OR version IS DISTINCT FROM record ->> 'version'"
        )
    ):
        yield f"The champion of {model}, version {version}, is not the one the ledger says."


def _rights(connection: Connection) -> Iterator[str]:
    """Roles, valid keys and calls, held against what the ledger's rows add up to."""
    for principal, role in connection.execute(
        text(
            f"SELECT coalesce(held.principal, said.principal), coalesce(held.role, said.role) "  # noqa: S608
            f"FROM role_grant AS held FULL JOIN (SELECT * FROM ({_ROLES}) AS latest "
            f"WHERE kind = 'role_granted') AS said USING (principal, role) "
            "WHERE held.ledger_row IS NULL OR said.kind IS NULL ORDER BY 1, 2"
        )
    ):
        yield f"What the ledger says of {principal} and the role {role} is not what is there."
    for principal, prefix in connection.execute(
        text(
            f"SELECT held.principal, held.prefix FROM api_key AS held "  # noqa: S608
            f"LEFT JOIN ({_KEYS}) AS said USING (principal, prefix) "
            "WHERE said.kind IS NULL OR (said.kind = 'key_revoked') <> (revoked_at IS NOT NULL) "
            "ORDER BY 1, 2"
        )
    ):
        yield f"What the ledger says of {principal} and the key {prefix} is not what is there."
    for principal, model in connection.execute(
        text(
            f"SELECT coalesce(held.principal, said.principal), coalesce(held.model, said.model) "  # noqa: S608
            f"FROM call_grant AS held FULL JOIN (SELECT * FROM ({_CALLS}) AS latest "
            f"WHERE kind = 'call_granted') AS said USING (principal, model) "
            "WHERE held.ledger_row IS NULL OR said.kind IS NULL OR held.requests_per_second "
            "IS DISTINCT FROM CAST(said.payload ->> 'requests_per_second' AS double precision) "
            "ORDER BY 1, 2"
        )
    ):
        yield f"What the ledger says of {principal} and calls of {model} is not what is there."
