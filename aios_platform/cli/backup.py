"""Commands that copy an installation, and make one from a copy."""

from pathlib import Path
from typing import Annotated

import typer


def backup(
    destination: Annotated[Path, typer.Argument(help="A folder that is empty or not there.")],
) -> None:
    """Copy every database and every artifact into a folder, whole or not at all.

    Everything may go on meanwhile: the copy is of one moment. Who has it has all that the platform
    knows, hashes of keys included; keep it as you keep the database.
    """
    from aios_platform.backup.making import back_up
    from aios_platform.database import database
    from aios_platform.settings import settings

    made = back_up(database(), settings().artifact_root, destination)
    print(
        f"{len(made.databases)} databases and {len(made.artifacts)} artifacts, "
        f"{made.bytes:,} bytes, in {destination}"
    )
    print(f"Head {made.head.seq}:{made.head.hash}")


def restore(
    source: Annotated[Path, typer.Argument(help="A folder that `aios backup` wrote.")],
    check: Annotated[
        bool, typer.Option("--check", help="Only read the backup through; write nothing.")
    ] = False,
) -> None:
    """Make an installation from a backup: in an empty place, or not at all.

    Every file is compared with its digest before anything is written. AIOS_HOME, AIOS_DATABASE_URL
    and AIOS_ARTIFACTS say where. After a kill the same command ends what was begun.
    """
    from aios_platform.backup import restoring
    from aios_platform.database import connect_server
    from aios_platform.settings import settings

    if check:
        found = restoring.check(source)
        done = "Every file is what was written"
    else:
        configuration = settings()
        found = restoring.restore(
            connect_server(configuration),
            configuration.artifact_root,
            source,
            configuration.home_path,
        )
        done = f"Restored into {configuration.artifact_root}"
    print(
        f"{done}: {len(found.databases)} databases and {len(found.artifacts)} artifacts of "
        f"{found.made_at:%Y-%m-%d %H:%M} UTC."
    )
    print(f"Head {found.head.seq}:{found.head.hash}")
