"""States of a training on disk: written whole or not at all, and read as data, never run."""

import logging
from pathlib import Path
from typing import Any

import torch  # noqa: TID253

from aios_platform.errors import TrainingError

log = logging.getLogger(__name__)


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write a state.

    Raises:
        TrainingError: The disk does not take it.
    """
    temporary = path.with_suffix(".writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        raise TrainingError(
            f"Cannot write the checkpoint {path}: {error}",
            remedy="Free space or fix the permissions, then run the same command again.",
        ) from error


def load_state(path: Path) -> dict[str, Any] | None:
    """A checkpoint, or None when there is none that can be read; never runs code from it."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except Exception as error:
        log.warning("The checkpoint %s cannot be read (%s): training it anew.", path, error)
        return None
    return state
