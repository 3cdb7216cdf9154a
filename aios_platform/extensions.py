"""Parts that other installed packages add, found by their entry points.

A package declares, in its own `pyproject.toml`::

    [project.entry-points."aios_platform.networks"]
    wide_and_deep = "my_package.networks:WideAndDeep"

and a declaration may then say `network: wide_and_deep` (docs/how-to/extend.md). Names are looked up
without importing anything; a part is imported when it is used.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from aios_platform.errors import ExtensionError


class Kind(StrEnum):
    """What can be added; the value is the group of the entry points."""

    NETWORK = "aios_platform.networks"
    METRIC = "aios_platform.metrics"
    FEATURE_SQL = "aios_platform.feature_sql"
    GATE_RULE = "aios_platform.gate_rules"
    ALERT_OUTPUT = "aios_platform.alert_outputs"


def folder_of(kind: Kind, name: str) -> Path:
    """The folder of the package that a part is.

    Raises:
        ExtensionError: There is none, it cannot be imported, or it is no package.
    """
    part = load(kind, name)
    places = list(getattr(part, "__path__", ()))
    if not places:
        raise ExtensionError(
            f"'{name}' of {kind} is no package, whose folder would have the files.",
            remedy="Let the entry point name a package: a folder with __init__.py.",
        )
    return Path(places[0])


@cache
def installed(kind: Kind) -> Mapping[str, EntryPoint]:
    """The installed parts of a kind by their names; nothing is imported.

    Raises:
        ExtensionError: Two packages use one name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=kind), key=lambda entry: (entry.name, entry.value)):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise ExtensionError(
                f"Two installed packages add '{entry.name}' to {kind}: {other.value} and "
                f"{entry.value}.",
                remedy="Uninstall one of them, or rename its entry point.",
            )
    return found


def package_of(entry: EntryPoint) -> str | None:
    """Name and version of the package that has a part; None where it is not on record."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else None


def origin(kind: Kind, name: str) -> str:
    """A part and the package that has it, so that a record says by what it was made."""
    entry = installed(kind).get(name)
    package = package_of(entry) if entry else None
    return f"{name} of {package}" if package else name


def load(kind: Kind, name: str) -> Any:
    """Import the part of this name.

    Raises:
        ExtensionError: There is none, or it cannot be imported.
    """
    entry = installed(kind).get(name)
    if entry is None:
        raise ExtensionError(
            f"No installed package adds '{name}' to {kind}.",
            remedy=f"Install it, or take one of: {', '.join(installed(kind)) or 'none'}.",
        )
    try:
        return entry.load()
    except Exception as error:
        raise ExtensionError(
            f"'{name}' of {kind} ({entry.value}) cannot be imported: "
            f"{type(error).__name__}: {error}",
            remedy="Mend or reinstall the package that adds it.",
        ) from error
