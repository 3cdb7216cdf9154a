"""The command that shows what installed packages add."""

from typing import Annotated

import typer


def extensions(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")] = False,
) -> None:
    """List the parts that installed packages add, and whether they load.

    Networks, feature SQL, rules of the gate, outputs of alerts; docs/how-to/extend.md has an
    example package. Exit status 1 where one cannot be imported.
    """
    import json

    from aios_platform.errors import ExtensionError
    from aios_platform.extensions import Kind, installed, load, package_of

    failed = False
    for kind in Kind:
        for name, entry in installed(kind).items():
            line = {
                "group": str(kind), "name": name, "value": entry.value, "error": None,
                "package": package_of(entry),
            }  # fmt: skip
            try:
                load(kind, name)
            except ExtensionError as error:
                failed, line["error"] = True, error.what
            if as_json:
                print(json.dumps(line))
            else:
                print(
                    f"{kind:27} {name:20} {entry.value}  ({line['package'] or 'unknown package'})"
                )
                if line["error"]:
                    print(f"  {line['error']}")
    if not as_json and not any(installed(kind) for kind in Kind):
        print(f"No installed package adds to {' or '.join(Kind)}. See docs/how-to/extend.md.")
    raise typer.Exit(1 if failed else 0)
