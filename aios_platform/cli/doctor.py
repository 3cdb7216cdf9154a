"""The command that says what is wrong with an installation."""

from typing import Annotated

import typer


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")] = False,
) -> None:
    """Say what is wrong with this installation, and how to mend it.

    Looks at packages, extensions, declarations, disk, artifact root, database, schema, clock and
    daemon, and changes none of them. Exit status 1 where something is wrong. `aios ledger verify`
    checks the ledger, `aios alerts test` the outputs of alerts.
    """
    from aios_platform.doctor import State, findings
    from aios_platform.settings import settings

    wrong = False
    for found in findings(settings()):
        wrong = wrong or found.state is State.WRONG
        if as_json:
            print(found.model_dump_json())
            continue
        print(f"{found.state:6}{found.check:13}{found.said}")
        if found.remedy is not None:
            print(f"{'':19}try: {found.remedy}")
    raise typer.Exit(1 if wrong else 0)
