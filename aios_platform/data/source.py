"""Calling a model's source: the function that a declaration names, and what it delivers."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from aios_platform.contracts.declaration import Source
from aios_platform.contracts.record import nearest
from aios_platform.contracts.windows import Window
from aios_platform.errors import AiosError, DeclarationError, SourceError

ReadWindow = Callable[[Window], Mapping[str, Any]]


def load_source(entrypoint: str) -> ReadWindow:
    """Import the function that `source.entrypoint` names.

    Args:
        entrypoint: `package.module:function`.

    Raises:
        DeclarationError: The module does not import, or has no such function.
    """
    module_name, _, function_name = entrypoint.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise DeclarationError(
            f"source.entrypoint '{entrypoint}': the module '{module_name}' does not import: "
            f"{error}. {_nearest_module(module_name)}".rstrip(),
            remedy="Correct the module's name, or install what it imports.",
        ) from error
    found = getattr(module, function_name, None)
    if not callable(found):
        functions = [name for name, _ in inspect.getmembers(module, inspect.isfunction)]
        raise DeclarationError(
            f"source.entrypoint '{entrypoint}': the module has no function '{function_name}'. "
            f"{nearest(function_name, functions)}",
            remedy="Correct the function's name.",
        )
    function: ReadWindow = found
    return function


def read_source(source: Source, window: Window) -> dict[str, pa.Table]:
    """Read one window from the source, each table as an Arrow table.

    A table may be delivered as anything that speaks Arrow's stream protocol: pyarrow, polars,
    pandas 2.2, DuckDB.

    Args:
        source: The declared source.
        window: The window to read.

    Returns:
        Every delivered table by name, the undeclared ones included.

    Raises:
        DeclarationError: The entrypoint does not exist.
        SourceError: The source failed, or did not deliver tables.
    """
    if source.entrypoint is None:
        from aios_platform.data.stored import read_stored

        return read_stored(source, window)
    read = load_source(source.entrypoint)
    try:
        delivered = read(window)
    except AiosError:
        raise
    except Exception as error:
        raise SourceError(
            f"The source {source.entrypoint} failed on window {window}: "
            f"{type(error).__name__}: {error}",
            remedy="Mend the source or what it reads, then ingest the window again; "
            "what was ingested before is unchanged.",
        ) from error
    if not isinstance(delivered, Mapping):
        raise SourceError(
            f"The source {source.entrypoint} returned {type(delivered).__name__} for window "
            f"{window}; expected a mapping of table names to tables.",
            remedy="Return {'table': pyarrow.Table, ...}.",
        )
    return {str(name): _as_table(source, name, data) for name, data in delivered.items()}


def _as_table(source: Source, name: object, data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    try:
        return pa.table(data)
    except (TypeError, ValueError, pa.ArrowException, OSError) as error:
        raise SourceError(
            f"The source {source.entrypoint} delivered the table '{name}' as "
            f"{type(data).__name__}, which is not readable as Arrow: {error}",
            remedy="Deliver a pyarrow.Table.",
        ) from error


def _nearest_module(name: str) -> str:
    """The nearest name among the siblings of the first part of a dotted name that is missing."""
    import pkgutil

    parts = name.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        try:
            parent = importlib.import_module(".".join(parts[:depth]))
        except ImportError:
            continue
        siblings = [m.name for m in pkgutil.iter_modules(getattr(parent, "__path__", []))]
        return nearest(parts[depth], siblings) if parts[depth] not in siblings else ""
    return ""
