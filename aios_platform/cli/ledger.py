"""Commands that read the ledger."""

from typing import Annotated

import typer

app = typer.Typer(help="Show, verify and export the ledger of decisions.", no_args_is_help=True)


@app.command("show")
def show(
    model: Annotated[str | None, typer.Argument(help="Only rows about this model.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind, e.g. 'promotion'.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Newest rows first; at most this many.")] = 20,
    full: Annotated[bool, typer.Option(help="Print each row whole, as JSON lines.")] = False,
) -> None:
    """Show the ledger: every verdict, promotion and retrain decision, newest first."""
    from aios_platform.database import database
    from aios_platform.ledger.entries import entries

    for row in entries(database(), subject=model, kind=kind, limit=limit):
        if full:
            print(row.model_dump_json())
        else:
            print(f"{row.seq:6}  {row.recorded_at:%Y-%m-%d %H:%M:%S}  {row.principal:18} "
                  f"{row.subject:20} {row.kind:18} {_gist(row.payload)}")  # fmt: skip


def _gist(payload: dict[str, object]) -> str:
    for key in ("decision", "verdict", "champion"):
        part = payload.get(key)
        if isinstance(part, dict):
            parts = (part.get(k) for k in ("version", "candidate_version", "decision", "window",
                                           "action", "cause"))  # fmt: skip
            return " ".join(str(p) for p in parts if p is not None)
    return ""
