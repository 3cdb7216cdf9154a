"""Command that lists retrain decisions."""

from typing import TYPE_CHECKING, Annotated

import typer

from aios_platform.cli.arguments import Model

if TYPE_CHECKING:
    from aios_platform.ledger.entries import LedgerEntry

ACTIONS = {"retrain": "train again", "hold": "leave it as it is"}


def decisions(
    model: Model,
    limit: Annotated[int, typer.Option(min=1, help="Newest first; at most this many.")] = 20,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines, for a machine to read.")
    ] = False,
) -> None:
    """List the decisions whether to train again, newest first, with their evidence.

    Each is one row of the ledger: `aios ledger show --row N` prints it whole, `aios explain`
    follows it to what it rests on.
    """
    import json

    from aios_platform.cli.arguments import names_of
    from aios_platform.database import database
    from aios_platform.ledger.entries import entries

    name = names_of(model).model
    found = entries(database(), subject=name, kind="retrain_decision", limit=limit)
    for row in found:
        if as_json:
            shown = {"row": row.seq, "version": row.payload["version"], **row.payload["decision"]}
            print(json.dumps({**shown, "documents": row.payload.get("documents", {})}))
        else:
            print(_page(row))
    if not found and not as_json:
        print(f"Nothing was decided about {name} yet: a decision needs a scored window whose "
              "labels are complete.")  # fmt: skip


def _page(row: "LedgerEntry") -> str:
    from aios_platform.contracts.decisions import RetrainDecision

    decision = RetrainDecision.model_validate(row.payload["decision"])
    alarm = "  ALARM" if decision.alarm else ""
    evidence = ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}" for name, value in decision.evidence.items()
    )
    return (
        f"{decision.window}  version {row.payload['version']}: "
        f"{ACTIONS[str(decision.action)]} ({decision.cause.replace('_', ' ')}){alarm}\n"
        f"    {decision.reason}\n"
        f"    row {row.seq}: {evidence}"
    )
