"""`aios package`: what a version brings along to be served."""

from typing import Annotated

import typer

from aios_platform.cli.arguments import Model, names_of


def package(
    model: Model,
    version: Annotated[
        str | None, typer.Option(help="Registered version; default: the live one.")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option(help="Build it again, after `serving.uncertainty` changed, say.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for a machine.")
    ] = False,
) -> None:
    """Show a version's serving package: its tiers, simple model and prediction sets.

    Builds it where there is none. Every promotion builds one before the swap; a gateway that runs
    takes up a package that was built again when it next loads the version.
    """
    from aios_platform.components.model_lifecycle.packaging import (
        build_package,
        ensure_package,
        sets_line,
        tiers_table,
        version_of,
    )
    from aios_platform.resources.stores import Stores

    names, stores = names_of(model), Stores()
    digest, record = version_of(names, version, stores)
    make = build_package if rebuild else ensure_package
    made = make(names, stores.artifacts, digest, record)
    if as_json:
        print(made.model_dump_json())
        return
    print(f"{model}, model {digest[:12]}, measured on {', '.join(made.exam_windows)}\n")
    print(tiers_table(made))
    if made.conformal is not None:
        print(f"\n{sets_line(made.conformal)}")
