"""What `aios run` and `aios status` print: tables a person wants to read."""

import io
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.state import VERDICT, read_state
from aios_platform.contracts.decisions import Champion, RetrainDecision, Verdict
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.database import Database
from aios_platform.ledger.approvals import requests
from aios_platform.ledger.champions import champion_of
from aios_platform.ledger.entries import entries
from aios_platform.ledger.health import RETRAIN_DECISION
from aios_platform.settings import settings

if TYPE_CHECKING:
    from aios_platform.components.model_lifecycle.runner import RunResult

WIDTH = 110


def opening(declaration: ModelDeclaration, as_of: datetime) -> str:
    """What is about to happen."""
    closed = declaration.windows.windows(as_of)
    span = f"{closed[0]} to {closed[-1]}" if closed else "none closed yet"
    return (
        f"{declaration.name}: {declaration.description or declaration.task}\n"
        f"{len(closed)} windows ({span}); state in {settings().home_path}\n"
    )


def runs(results: Sequence["RunResult"], seconds: float) -> str:
    """Each stage of each run, with its time and what it made."""
    if not results:
        return "Nothing to do: every window is ingested, scored and judged.\n"
    table = Table(title=f"{len(results)} runs in {seconds:.0f} s", title_justify="left")
    for column in ("run", "stage"):
        table.add_column(column)
    table.add_column("time", justify="right")
    table.add_column("made", overflow="fold")
    for result in results:
        table.add_section()
        for number, stage in enumerate(result.stages):
            time = "" if stage.skipped else f"{stage.seconds:.1f} s"
            label = str(result.run.job) if number == 0 else ""
            table.add_row(label, stage.name, time, stage.summary)
    return _render(table)


def status(names: Names, store: ArtifactStore, database: Database, as_of: datetime) -> str:
    """Where a model stands.

    Raises:
        DatabaseUnavailable: The ledger cannot be read.
    """
    state = read_state(names.declaration, names, store, database, as_of)
    table = Table(title=f"{names.model} as of {as_of:%Y-%m-%d %H:%M}", title_justify="left")
    table.add_column("")
    table.add_column("", overflow="fold")
    table.show_header = False
    table.add_row(
        "windows",
        f"{len(state.closed)} closed, {len(state.featured)} with features, "
        f"{len(state.matured)} matured, {len(state.scored)} scored",
    )
    table.add_row("champion", _champion(champion_of(database, names.model)))
    for request in requests(database, model=names.model, state="pending"):
        table.add_row(
            f"request {request.ledger_row}",
            f"version {request.candidate_version} waits for an approver other than "
            f"{request.author}, until {request.expires_at:%Y-%m-%d %H:%M}: "
            f"`aios approvals show {request.ledger_row}`",
        )
    verdicts = entries(database, subject=names.model, kind=VERDICT, limit=1)
    decisions = entries(database, subject=names.model, kind=RETRAIN_DECISION, limit=3)
    for row in decisions:
        decision = RetrainDecision.model_validate(row.payload["decision"])
        table.add_row(f"decision {decision.window}", f"{decision.action}: {decision.reason}")
    text = _render(table)
    if verdicts:
        text += _verdict(Verdict.model_validate(verdicts[0].payload["verdict"]))
    return text + (
        "Where to look next: `make ui` (assets, runs, reports), "
        f"`aios ledger show {names.model}` (every decision), `aios --help`."
    )


def _champion(champion: Champion | None) -> str:
    if champion is None:
        return "none yet"
    return (
        f"version {champion.version}, live since "
        f"{champion.live_from or champion.promoted_at:%Y-%m-%d %H:%M}, "
        f"trained through {champion.trained_through}, model {champion.model_digest[:12]}"
    )


def _verdict(verdict: Verdict) -> str:
    against = f"champion {verdict.champion_version}" if verdict.champion_version else "no champion"
    title = (
        f"Last verdict: version {verdict.candidate_version} against {against}, "
        f"exam {', '.join(verdict.exam_windows)}: {str(verdict.decision).upper()}"
    )
    table = Table(title=title, title_justify="left")
    for column in ("rule", "outcome", "observed", "bound", "interval", "reason"):
        table.add_column(column, overflow="fold")
    for rule in verdict.rules:
        low, high = _number(rule.low), _number(rule.high)
        table.add_row(
            rule.rule,
            str(rule.outcome),
            _number(rule.observed),
            _number(rule.bound),
            f"{low} to {high}" if rule.low is not None else "",
            rule.reason,
        )
    return _render(table)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _render(table: Table) -> str:
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]
