"""Rows in memory, batches as slices of them.

A `DataLoader` over single rows collates them one by one, which doubles the cost of training on a
table. Here a batch is one indexing operation per array.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytorch_lightning as pl  # noqa: TID253
import torch  # noqa: TID253
from torch import Tensor  # noqa: TID253

Rows = tuple[Tensor, ...]
"""Encoded inputs of a network, in its order, and last the targets; the rows are the first axis."""

EVALUATION_BATCH = 8192
BLOCK = 16


def batches_of(rows: int, size: int, processes: int) -> int:
    """Batches of an epoch; a last one with fewer rows than processes is left out."""
    whole, rest = divmod(rows, size)
    return whole + (rest >= processes)


class SlicedBatches:
    """Batches of rows; any iterable with a length serves Lightning as a loader.

    Args:
        rows: Encoded inputs and targets.
        batch_size: Rows per batch; the last one may be smaller.
        seed: Unset, rows keep their order; else each epoch has its own permutation, which depends
            on nothing but the seed and the epoch, so that a resumed training sees the same.
        shard: Which of how many processes takes its part of each batch. A batch with fewer rows
            than processes is left out.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        *,
        seed: int | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.shard = shard
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return batches_of(len(self.rows[-1]), self.batch_size, self.shard[1])

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Rows]:
        rows = self.rows
        targets = rows[-1]
        if self.seed is None:
            for start in range(0, len(targets), self.batch_size):
                yield tuple(array[start : start + self.batch_size] for array in rows)
            return
        generator = torch.Generator().manual_seed(stream_seed(self.seed, self.epoch))
        order = torch.randperm(len(targets), generator=generator).to(targets.device)
        number, world = self.shard
        for batch in order.split(self.batch_size)[: len(self)]:
            chosen = batch[number::world]
            # Copies rows as a whole; indexing with brackets takes four times as long.
            yield tuple(array.index_select(0, chosen) for array in rows)


class Blocks:
    """Several batches as what Lightning takes for one.

    A step takes ten milliseconds, and what Lightning does around a batch takes one, whatever the
    batch is.

    Args:
        batches: The batches. They are made when they are asked for, one at a time.
    """

    def __init__(self, batches: SlicedBatches) -> None:
        self.batches = batches
        # Lightning tells the epoch to the `sampler` of a loader without `batch_sampler`.
        self.sampler = batches
        self.batch_sampler = None

    def __len__(self) -> int:
        return -(-len(self.batches) // BLOCK)

    def __iter__(self) -> Iterator[Iterator[Rows]]:
        every = iter(self.batches)
        for _ in range(len(self)):
            yield islice(every, BLOCK)


class InMemoryData(pl.LightningDataModule):  # type: ignore[misc]
    """Training and validation rows as Lightning wants them, kept on the device that trains.

    Args:
        train: Rows to learn from.
        validation: Rows to stop on; never learnt from.
        batch_size: Rows per training batch.
        seed: Seed of the order of rows.
        blocks: Whether a module steps through blocks of batches by itself.
        shard: Which of how many processes this is; each holds out all validation rows.
    """

    def __init__(
        self,
        train: Rows,
        validation: Rows,
        *,
        batch_size: int,
        seed: int,
        blocks: bool = True,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        super().__init__()
        self._shard = shard
        self._blocks = blocks
        self._train = train
        self._validation = validation
        self._batch_size = batch_size
        self._seed = seed
        self._handed_out: list[SlicedBatches] = []

    def train_dataloader(self) -> "Blocks | SlicedBatches":
        """Batches, or blocks of them, in an order of their own each epoch."""
        batches = self._batches(self._train, self._batch_size, seed=self._seed, shard=self._shard)
        return Blocks(batches) if self._blocks else batches

    def val_dataloader(self) -> SlicedBatches:
        """Batches in the order of rows."""
        return self._batches(self._validation, EVALUATION_BATCH)

    def teardown(self, stage: str) -> None:  # noqa: ARG002
        """Let go of the rows: a trainer is a cycle, which lives until cycles are collected."""
        del self._train, self._validation
        for batches in self._handed_out:
            del batches.rows

    def _batches(self, rows: Rows, size: int, **options: Any) -> SlicedBatches:
        device = self.trainer.strategy.root_device
        batches = SlicedBatches(tuple(array.to(device) for array in rows), size, **options)
        self._handed_out.append(batches)
        return batches


def stream_seed(*parts: int) -> int:
    """A seed for an independent stream of random numbers, derived from several integers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
