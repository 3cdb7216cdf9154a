"""Commands about promotions that wait for a person."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aios_platform.contracts.decisions import ApprovalRequest

app = typer.Typer(
    help="Promotions that wait for a person who is not their author.", no_args_is_help=True
)
Request = Annotated[int, typer.Argument(help="Number of the request; `list` shows it.")]
Reason = Annotated[str, typer.Option(help="Why, for whoever reads the ledger later.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]


@app.command("list")
def list_requests(
    model: Annotated[str | None, typer.Argument(help="Only about this model.")] = None,
    state: Annotated[
        str | None, typer.Option(help="pending, approved, rejected, expired or void.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List requests, newest first."""
    from aios_platform.database import database
    from aios_platform.ledger.approvals import requests

    found = requests(database(), model=model, state=state)
    if as_json:
        for request in found:
            print(request.model_dump_json(exclude={"verdict", "candidate"}))
        return
    for request in found:
        print(f"{request.ledger_row:6}  {request.model:20} version {request.candidate_version:6} "
              f"{request.state:9} by {request.author}, until "
              f"{request.expires_at:%Y-%m-%d %H:%M}  {request.reason}")  # fmt: skip
    if not found:
        print("No request.")


@app.command("show")
def show(request: Request, as_json: AsJson = False) -> None:
    """Show a request with the verdict that the decision is about."""
    from aios_platform.database import database
    from aios_platform.ledger.approvals import request_of

    found = request_of(database(), request)
    print(found.model_dump_json() if as_json else _page(found))


@app.command("approve")
def approve(request: Request, reason: Reason, as_json: AsJson = False) -> None:
    """Approve a promotion. Needs the role approver; the author may not.

    The approval counts for the evidence that `aios approvals show` prints, and for no other. The
    daemon carries the promotion out within a minute; without one, `aios promote` does.
    """
    _decide(request, reason, approve=True, as_json=as_json)


@app.command("reject")
def reject(request: Request, reason: Reason, as_json: AsJson = False) -> None:
    """Reject a promotion. Needs the role approver; the author may not."""
    _decide(request, reason, approve=False, as_json=as_json)


@app.command("code")
def code(request: Request) -> None:
    """Print a one-time code that decides this request in Dagster's pages, as you.

    Dagster's pages know no users: the job `MODEL__approval` asks for this code instead. It is
    valid for ten minutes, once, for this request only.
    """
    from aios_platform.database import database
    from aios_platform.ledger.approvals import issue_code

    print(issue_code(database(), request))


def _decide(number: int, reason: str, *, approve: bool, as_json: bool) -> None:
    from aios_platform.database import database
    from aios_platform.ledger.approvals import decide, request_of

    asked = request_of(database(), number)
    found = decide(
        database(), number, approve=approve, reason=reason, evidence_digest=asked.evidence_digest
    )
    if as_json:
        print(found.model_dump_json(exclude={"verdict", "candidate"}))
        return
    print(f"Request {number} is {found.state}.")
    if approve:
        print("The daemon carries it out within a minute; without one: "
              f"aios promote {found.model} --version {found.candidate_version}")  # fmt: skip


def _page(request: "ApprovalRequest") -> str:
    from aios_platform.promotion.report import verdict_markdown

    decided = f" by {request.decided_by}: {request.reason}" if request.decided_by else ""
    lines = [
        f"Request {request.ledger_row}: {request.model} version {request.candidate_version}",
        f"  state     {request.state}{decided}",
        f"  author    {request.author} (may not decide)",
        f"  asked     {request.requested_at:%Y-%m-%d %H:%M} UTC, until "
        f"{request.expires_at:%Y-%m-%d %H:%M} UTC",
        f"  evidence  {request.evidence_digest}",
        "",
    ]
    if request.verdict is not None:
        lines.append(verdict_markdown(request.verdict))
    return "\n".join(lines)
