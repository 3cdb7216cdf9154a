"""Where the encoded rows of a training lie: in memory, or in a file that is mapped into it."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aios_platform.errors import TrainingError
from aios_platform.settings import settings

if TYPE_CHECKING:
    import torch


def allocate(rows: int, like: Sequence["torch.Tensor"], folder: Path) -> "tuple[torch.Tensor, ...]":
    """Uninitialised arrays for so many rows.

    Together larger than `AIOS_TRAINING_MEMORY_MIB`, they are a file, of which the operating system
    holds in memory what it has room for. The file has no name: it ends with the process, however
    that ends.

    Args:
        rows: Rows of each array.
        like: Some rows of each, which say its type and its other axes.
        folder: Where a file may lie.

    Raises:
        TrainingError: The disk has no room for them.
    """
    import torch

    shapes = [(rows, *some.shape[1:]) for some in like]
    sizes = [
        int(np.prod(shape)) * some.element_size() for shape, some in zip(shapes, like, strict=True)
    ]
    if sum(sizes) <= settings().training_memory_mib * 2**20:
        pairs = zip(shapes, like, strict=True)
        return tuple(torch.empty(shape, dtype=some.dtype) for shape, some in pairs)
    return tuple(
        _mapped(shape, some, size, folder)
        for shape, some, size in zip(shapes, like, sizes, strict=True)
    )


def _mapped(
    shape: tuple[int, ...], some: "torch.Tensor", size: int, folder: Path
) -> "torch.Tensor":
    import torch

    kind = some[:0].numpy().dtype
    if not size:
        return torch.empty(shape, dtype=some.dtype)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # A hole in the file would end the process where the disk is found full later.
            os.posix_fallocate(file.fileno(), 0, size)
            return torch.from_numpy(np.memmap(file, dtype=kind, mode="r+", shape=shape))
    except OSError as error:
        raise TrainingError(
            f"The encoded training rows need {size / 2**20:,.0f} MiB on the disk of {folder}: "
            f"{error}.",
            remedy="Free room there, train on fewer windows, or raise AIOS_TRAINING_MEMORY_MIB "
            "where there is memory.",
        ) from error
