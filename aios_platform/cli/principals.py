"""Commands about who may do what."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aios_platform.access.principals import Principal

app = typer.Typer(
    help="Principals, their roles and their API keys. An installation without any key is open: "
    "its user may do everything but approve what he made. The first principal added must be an "
    "admin, and closes it. Roles: author (train, promote what the gate lets pass), approver "
    "(decide on others' candidates, grant waivers), operator (roll back, promote), auditor (read, "
    "verify), admin (this).",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="Lower-case name, e.g. 'ada' or 'ci'.")]
RoleOption = Annotated[
    str, typer.Option("--role", help="author, approver, operator, auditor or admin.")
]
Days = Annotated[
    float | None, typer.Option(min=0.001, help="The key expires after so many days; default never.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a machine to read.")]
TELL = "Its key, shown this once (set it as AIOS_API_KEY; never on a command line):"


@app.command()
def add(
    name: Name,
    role: Annotated[
        list[str] | None,
        typer.Option(help="A role; may be repeated. A caller of the gateway needs none."),
    ] = None,
    expires_days: Days = None,
    as_json: Json = False,
) -> None:
    """Add a principal with roles; prints its API key once."""
    from aios_platform.access import principals
    from aios_platform.database import database

    roles = [_role(each) for each in role or ()]
    _tell(principals.add(database(), name, roles, expires_in=_life(expires_days)), name, as_json)


@app.command("list")
def show(as_json: Json = False) -> None:
    """List principals, their roles and their keys (the public part of each)."""
    import json

    from aios_platform.access import principals
    from aios_platform.database import database

    listed = principals.principals(database())
    if as_json:
        print(json.dumps([each.model_dump(mode="json") for each in listed]))
        return
    if principals.is_open(database()):
        print("Open: no key was issued yet, so every user of this machine holds every role.")
    for each in listed:
        print(f"{each.name:24} {', '.join(sorted(each.roles)) or 'no role'}")
        for key in each.keys:
            ends = f", expires {key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else ""
            state = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "valid"
            print(f"{'':24} aios_{key.prefix}_…  {state}, issued {key.issued_at:%Y-%m-%d}{ends}")


@app.command()
def grant(name: Name, role: RoleOption) -> None:
    """Grant a role."""
    from aios_platform.access import principals
    from aios_platform.database import database

    _holds(principals.grant(database(), name, _role(role)))


@app.command()
def revoke(
    name: Name,
    role: Annotated[
        str | None, typer.Option(help="Only this role; default all roles, keys and calls.")
    ] = None,
) -> None:
    """Withdraw a role, or everything."""
    from aios_platform.access import principals
    from aios_platform.database import database

    _holds(principals.revoke(database(), name, _role(role) if role else None))


@app.command("rotate-key")
def rotate_key(name: Name, expires_days: Days = None, as_json: Json = False) -> None:
    """Revoke a principal's keys and print a new one: an admin's right, and everybody's own."""
    from aios_platform.access import principals
    from aios_platform.database import database

    _tell(principals.rotate_key(database(), name, expires_in=_life(expires_days)), name, as_json)


@app.command()
def whoami(as_json: Json = False) -> None:
    """Who acts in this shell, and with which roles."""
    from aios_platform.access import principals
    from aios_platform.database import database

    who = principals.acting(database())
    if as_json:
        print(who.model_dump_json())
    else:
        _holds(who)


def _role(value: str) -> str:
    from aios_platform.access.principals import Role
    from aios_platform.contracts.record import nearest

    if value not in set(Role):
        raise typer.BadParameter(f"'{value}' is no role. {nearest(value, Role)}")
    return value


def _life(days: float | None) -> timedelta | None:
    return None if days is None else timedelta(days=days)


def _tell(key: str, name: str, as_json: bool) -> None:
    import json

    print(json.dumps({"principal": name, "key": key}) if as_json else f"{name}. {TELL}\n{key}")


def _holds(who: "Principal") -> None:
    print(f"{who.name}: {', '.join(sorted(who.roles)) or 'no role'}")
