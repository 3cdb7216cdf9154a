"""The only entry point of Dagster: everything under `defs/`, loaded."""

from pathlib import Path

import dagster as dg

from aios_platform.preloading import collect_rarely


@dg.definitions
def defs() -> dg.Definitions:
    """All declared models, and what the platform adds to them."""
    collect_rarely()
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
