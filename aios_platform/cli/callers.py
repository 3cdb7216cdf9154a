"""Commands about who may call models through the gateway."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aios_platform.access.callers import CallGrant

app = typer.Typer(
    help="Who may call which model through the gateway, and how often. A caller is a principal "
    "with a key (`aios principals add NAME`, without a role); what it may call is granted here, "
    "whatever roles it holds. The gateway follows within seconds.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="Name of the principal; `aios principals list`.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a machine to read.")]


@app.command()
def grant(
    name: Name,
    model: Annotated[str, typer.Option(help="A declared model, or '*' for every one.")],
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="Most requests per second; default no limit."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Let a principal call a model; granting it again sets its rate."""
    from aios_platform.access import callers
    from aios_platform.database import database
    from aios_platform.declarations import declaration_of

    if model != callers.EVERY_MODEL:
        declaration_of(model)
    _tell([callers.grant(database(), name, model, rate)], as_json)


@app.command()
def revoke(
    name: Name,
    model: Annotated[
        str | None, typer.Option(help="Only this model (or '*'); default all grants.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Withdraw a grant, or all of a principal's; shows those that are left."""
    from aios_platform.access import callers
    from aios_platform.database import database

    _tell(callers.revoke(database(), name, model), as_json)


@app.command("list")
def show(as_json: Json = False) -> None:
    """List who may call which model."""
    from aios_platform.access import callers
    from aios_platform.access.principals import is_open
    from aios_platform.database import database

    if not as_json and is_open(database()):
        print("Open: no key was issued yet, so everybody at this machine may call every model.")
    _tell(callers.grants(database()), as_json)


def _tell(grants: "list[CallGrant]", as_json: bool) -> None:
    import json

    if as_json:
        print(json.dumps([each.model_dump(mode="json") for each in grants]))
        return
    for each in grants:
        rate = each.requests_per_second
        most = "no limit" if rate is None else f"{rate:g} requests per second"
        print(f"{each.principal:24} {each.model:24} {most}")
    if not grants:
        print("No grant.")
