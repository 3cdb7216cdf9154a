"""Commands about the ML Test Score: what it is, and what a person adds to it."""

from typing import TYPE_CHECKING, Annotated

import typer

from aios_platform.cli.arguments import Model, clock, names_of

if TYPE_CHECKING:
    from aios_platform.contracts.readiness import TestScore

app = typer.Typer(
    help="The ML Test Score (Breck et al. 2017): which of 28 tests were run for a model, with "
    "the evidence; the weakest of four sections decides.",
    no_args_is_help=True,
)


@app.command("show")
def show(
    model: Model,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the score: a point for a test that runs by itself, half for one done by hand.

    Nothing counts without evidence in the stores of this installation; evidence older than 92
    days, or an attestation that has expired, counts nothing.
    """
    from aios_platform.readiness.collecting import score_of
    from aios_platform.resources.stores import Stores

    found = score_of(names_of(model), Stores())
    print(found.model_dump_json() if as_json else _page(found))


@app.command("attest")
def attest(
    model: Model,
    test: Annotated[str, typer.Argument(help="Name of the test, e.g. data_4.")],
    evidence: Annotated[str, typer.Option(help="Where the result can be read.")],
    note: Annotated[str, typer.Option(help="What was done, and what was found.")],
    expires: Annotated[
        str, typer.Option(help="Last moment it counts, ISO 8601, UTC; at most a year off.")
    ],
) -> None:
    """Attest on the ledger that a test was done by hand. Needs the role approver."""
    from aios_platform.access.principals import Role, require
    from aios_platform.database import database
    from aios_platform.ledger.attestations import attest as write
    from aios_platform.readiness.rubric import require_test

    names_of(model)
    require_test(test)
    require(Role.APPROVER)
    made = write(
        database(), model=model, test=test, evidence=evidence, note=note, expires_at=clock(expires)
    )
    print(f"Row {made.ledger_row}: {made.principal} attests {test} of {model} until "
          f"{made.expires_at:%Y-%m-%d %H:%M} UTC.")  # fmt: skip


def _page(found: "TestScore") -> str:
    lines = [f"{found.model}: ML Test Score {found.score:g}: {found.band}."]
    for section, points in found.sections.items():
        lines += ["", f"{section}: {points:g} of 7"]
        for finding in found.findings:
            if finding.test.section is not section:
                continue
            lines.append(f"  {finding.points:3.1f}  {finding.test.name:17} {finding.test.asks}")
            if finding.trace is not None:
                lines.append(f"         {finding.trace.how}: {finding.trace.says}")
                lines.append(f"         {finding.trace.link}")
                continue
            if finding.stale is not None:
                lines.append(
                    f"         too old ({finding.stale.at:%Y-%m-%d}): {finding.stale.link}"
                )
            lines.append(f"         to do: {finding.test.remedy}")
    return "\n".join(
        "".join(letter if letter.isprintable() else "·" for letter in line) for line in lines
    )
