"""Commands that train, judge, promote and roll back without Dagster; waivers."""

import json
import sys
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aios_platform.cli.arguments import AsOf, Model, clock, names_of

if TYPE_CHECKING:
    from aios_platform.components.model_lifecycle.promoting import Promotion

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for a machine.")]
Reason = Annotated[str, typer.Option(help="Why, for whoever reads the ledger later.")]

waivers = typer.Typer(
    help="Let one rule of the gate pass for one model, until a date; a row of the ledger.",
    no_args_is_help=True,
)


class ExitCode(IntEnum):
    """What `aios promote` ends with; 1 is any error."""

    PROMOTED = 0
    ERROR = 1
    REJECTED = 2
    INCONCLUSIVE = 3
    PENDING = 4
    CONFLICT = 5


def train(
    model: Model,
    sample: Annotated[
        float | None,
        typer.Option(min=0.001, max=0.999, help="Share of the training rows to take. A version "
                     "trained on a sample can be judged, and never promoted."),
    ] = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Train and register a candidate, without judging it.

    Needs matured windows with features (`aios run MODEL` makes them). The same rows, declaration
    and seed give the same version.
    """
    from aios_platform.components.model_lifecycle.candidates import (
        pin_training_set,
        train_candidate,
    )
    from aios_platform.features.leakage import refuse_leaks
    from aios_platform.resources.stores import Stores

    names, stores = names_of(model), Stores()
    record, report = pin_training_set(names, stores, clock(as_of), sample=sample)
    refuse_leaks(report)
    candidate, trained, _ = train_candidate(names, record, stores)
    if as_json:
        _print_json(
            model=model, version=candidate.version, author=candidate.author, sample=sample,
            model_digest=candidate.model_digest, mlflow_run=candidate.run_id,
            training_set_digest=candidate.training_set_digest,
            windows=list(record.windows), rows=trained.rows, validation=trained.metrics,
        )  # fmt: skip
        return
    share = f" (a sample of {sample:.1%}: never to be promoted)" if sample else ""
    print(f"{model}: version {candidate.version}, trained on {trained.rows:,} rows of "
          f"{record.windows[0]} to {record.windows[-1]}{share}.")  # fmt: skip
    if not sample:
        print(f"Go on with: aios promote {model} --version {candidate.version}")


def promote(
    model: Model,
    version: Annotated[str, typer.Option(help="Registered version; `aios train` prints it.")],
    dry_run: Annotated[bool, typer.Option(help="Judge, and write nothing.")] = False,
    as_of: AsOf = None,
    summary: Annotated[
        Path | None,
        typer.Option(help="Append the verdict as Markdown here ($GITHUB_STEP_SUMMARY in CI)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the gate on a version and carry the verdict out.

    The version is compared with the live champion on the newest matured windows after its
    training. Exit status: 0 promoted (or live already), 2 rejected, 3 inconclusive, 4 waits for an
    approval, 5 somebody promoted in between, 1 any error. Safe to repeat.
    """
    from aios_platform.components.model_lifecycle.promoting import promote_version
    from aios_platform.errors import ChampionConflict
    from aios_platform.resources.stores import Stores

    names = names_of(model)
    try:
        promotion = promote_version(names, version, Stores(), clock(as_of), dry_run=dry_run)
    except ChampionConflict as conflict:
        if as_json:
            _print_json(model=model, version=version, status="conflict", message=conflict.what)
        print(f"conflict: {conflict}", file=sys.stderr)
        raise typer.Exit(ExitCode.CONFLICT) from None
    if summary is not None:
        with summary.open("a", encoding="utf-8") as file:
            file.write(_page(model, promotion))
    if as_json:
        _print_json(**_as_record(model, version, promotion))
    else:
        print(_page(model, promotion))
    raise typer.Exit(exit_code(promotion))


def exit_code(promotion: "Promotion") -> ExitCode:
    """The exit status that says what a promotion came to."""
    return {
        "promoted": ExitCode.PROMOTED,
        "pending": ExitCode.PENDING,
        "rejected": ExitCode.REJECTED,
        "inconclusive": ExitCode.INCONCLUSIVE,
        "void": ExitCode.INCONCLUSIVE,
    }[promotion.carried.status]


def rollback(
    model: Model,
    reason: Reason,
    to: Annotated[
        str | None, typer.Option(help="Version to go back to; default: the newest healthy one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an earlier champion live again.

    Goes to the newest earlier champion that was neither judged degraded nor rolled back from;
    never simply to the one before. It must load by its digest, fit today's feature service and
    score the newest rows. Needs the role operator.
    """
    from aios_platform.components.model_lifecycle.rollback import roll_back
    from aios_platform.resources.stores import Stores

    done = roll_back(names_of(model), Stores(), reason=reason, to=to)
    if as_json:
        _print_json(
            model=model, version=done.champion.version, revision=done.champion.revision,
            instead_of=done.left, rows_tried=done.rows, message=done.message,
        )  # fmt: skip
    else:
        print(done.message)


@waivers.command("grant")
def grant_waiver(
    model: Model,
    rule: Annotated[str, typer.Argument(help="The rule, as the verdict names it.")],
    reason: Reason,
    expires: Annotated[str, typer.Option(help="Last moment, ISO 8601, UTC; at most 90 days off.")],
) -> None:
    """Let a rule that failed or is unknown pass. Needs the role approver."""
    from aios_platform.database import database
    from aios_platform.ledger.waivers import grant
    from aios_platform.promotion.rules import check_waivable

    check_waivable(rule, names_of(model).declaration.gate)
    waiver = grant(database(), model=model, rule=rule, reason=reason, expires_at=clock(expires))
    print(f"Row {waiver.ledger_row}: '{rule}' does not stop {model} until "
          f"{waiver.expires_at:%Y-%m-%d %H:%M} UTC.")  # fmt: skip


@waivers.command("list")
def list_waivers(model: Model, as_json: AsJson = False) -> None:
    """List the waivers of a model that are in force."""
    from datetime import UTC, datetime

    from aios_platform.database import database
    from aios_platform.ledger.waivers import active

    found = active(database(), model, datetime.now(UTC))
    if as_json:
        _print_json(waivers=[waiver.model_dump(mode="json") for waiver in found.values()])
        return
    for waiver in found.values():
        print(f"{waiver.ledger_row:6}  {waiver.rule:28} until {waiver.expires_at:%Y-%m-%d %H:%M}  "
              f"{waiver.principal}: {waiver.reason}")  # fmt: skip
    if not found:
        print(f"No waiver is in force for {model}.")


@waivers.command("revoke")
def revoke_waiver(
    row: Annotated[int, typer.Argument(help="Row of the waiver; `aios waivers list` shows it.")],
    reason: Reason,
) -> None:
    """End a waiver now. Needs the role approver."""
    from aios_platform.database import database
    from aios_platform.ledger.waivers import revoke

    revoke(database(), row, reason=reason)
    print(f"The waiver of row {row} has ended.")


def _as_record(model: str, version: str, promotion: "Promotion") -> dict[str, object]:
    carried, verdict = promotion.carried, promotion.verdict
    return {
        "model": model,
        "version": version,
        "status": str(carried.status),
        "message": carried.message,
        "dry_run": promotion.dry_run,
        "champion": carried.champion.version if carried.champion else None,
        "request": carried.request.ledger_row if carried.request else None,
        "ledger_row": promotion.row,
        "evidence_digest": verdict.evidence_digest if verdict else None,
        "verdict": verdict.model_dump(mode="json") if verdict else None,
    }


def _page(model: str, promotion: "Promotion") -> str:
    from aios_platform.promotion.report import verdict_markdown

    lines = [f"## {model}: {str(promotion.carried.status).upper()}", "", promotion.carried.message]
    if promotion.row:
        lines.append(f"Row {promotion.row} of the ledger: `aios explain {promotion.row}`.")
    if promotion.verdict is not None:
        lines += ["", verdict_markdown(promotion.verdict)]
    return "\n".join(lines) + "\n"


def _print_json(**values: object) -> None:
    print(json.dumps(values, default=str))
