"""Searches a window's delivered tables for data faults, and knows which windows have one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.deliveries import settled
from aios_platform.components.model_lifecycle.documents import (
    as_json,
    find_document,
    write_document,
)
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.record import digest_of

if TYPE_CHECKING:
    from aios_platform.monitoring.faults import FaultReport
    from aios_platform.monitoring.summaries import TableSummary

FAULTS = "faults"
# Enough to see how much a window varies by itself; more would hide a season's turn.
HISTORY = 3
LOOK_BACK = 12
LABELS = "labels"


def search_faults(names: Names, store: ArtifactStore, key: str) -> "FaultReport":
    """Look for faults in a window, against the last ones without, table by table.

    The report is kept, and made anew when the window's tables or the declaration changed, or its
    labels are complete.
    """
    from aios_platform.monitoring.faults import FaultReport, find_faults

    declaration = names.declaration
    made_from = _made_from(names, store, key)
    kept = find_document(names, store, FAULTS, key, FaultReport)
    if kept is not None and kept.made_from == made_from:
        return kept
    history, back = _history(names, store, key)
    report = find_faults(
        key,
        _summaries(names, store, key),
        history,
        declaration.source.tables,
        max_quarantine_share=declaration.source.max_quarantine_share,
        exempt=declaration.monitoring.fault_exempt,
        incomplete=not made_from[LABELS],
        back=back,
    ).model_copy(update={"made_from": made_from})
    write_document(names, store, FAULTS, key, report)
    return report


def without_faults(names: Names, store: ArtifactStore, keys: Sequence[str]) -> list[str]:
    """The windows without a data fault; no model is trained or examined on the others.

    Args:
        names: The model.
        store: The artifact root.
        keys: Windows that have rows, oldest first.
    """
    return [key for key in keys if not search_faults(names, store, key).faults]


def _made_from(names: Names, store: ArtifactStore, key: str) -> dict[str, str]:
    declaration = names.declaration
    found = {"exempt": digest_of(declaration.monitoring.fault_exempt)}
    for table in declaration.source.tables:
        for kind in ("raw", "quarantine"):
            version = store.current(f"{names.model}/{kind}/{table}", key)
            found[f"{kind}/{table}"] = version.digest if version else ""
    found[LABELS] = "complete" if settled(names, store, [key]) else ""
    return found


def _faulty(names: Names, store: ArtifactStore, key: str) -> set[str]:
    """The tables of a window that have a fault."""
    from aios_platform.monitoring.faults import FaultReport

    report = find_document(names, store, FAULTS, key, FaultReport)
    return {fault.table for fault in report.faults} if report else set()


def _history(
    names: Names, store: ArtifactStore, key: str
) -> "tuple[dict[str, dict[str, TableSummary]], dict[str, int]]":
    """Of each table the last windows before this one in which it has no fault, oldest first.

    A fault in one table is none in another: left out as a whole, a window would leave a gap over
    which every season is a jump.

    Returns:
        Tables by window, and how many windows before this one each is.
    """
    found: dict[str, dict[str, TableSummary]] = {}
    places: dict[str, int] = {}
    wanted = dict.fromkeys(names.declaration.source.tables, HISTORY)
    for back in range(1, LOOK_BACK + 1):
        earlier = names.declaration.windows.shift(key, -back)
        if earlier is None or not any(wanted.values()):
            break
        if not store.current(names.raw_rows, earlier):
            continue
        faulty = _faulty(names, store, earlier)
        good = [table for table, more in wanted.items() if more and table not in faulty]
        summaries = _summaries(names, store, earlier) if good else {}
        taken = {table: summaries[table] for table in good if table in summaries}
        if taken:
            found[earlier], places[earlier] = taken, back
        for table in taken:
            wanted[table] -= 1
    return dict(reversed(found.items())), places


def _summaries(names: Names, store: ArtifactStore, key: str) -> "dict[str, TableSummary]":
    """Each table of a window in a few numbers; made once per version of the table."""
    from aios_platform.monitoring.summaries import TableSummary, summarise

    found = {}
    for table, declared in names.declaration.source.tables.items():
        version = store.current(f"{names.model}/raw/{table}", key)
        bad = store.current(f"{names.model}/quarantine/{table}", key)
        if version is None:
            continue
        quarantined = bad.rows if bad else 0
        name = (
            f"observations/{names.model}/summaries/{table}/"
            f"{key}-{version.digest[:16]}-{quarantined}-{declared.fingerprint[:8]}.json"
        )
        kept = store.read_named(name)
        if kept is None:
            columns = list(declared.columns)
            summary = summarise(store.read(version, columns), declared, quarantined=quarantined)
            store.write_named(name, as_json(summary))
        else:
            summary = TableSummary.model_validate_json(kept)
        found[table] = summary
    return found
