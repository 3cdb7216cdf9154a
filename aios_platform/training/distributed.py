"""One member on several devices of this machine: a process each, gradients averaged (DDP).

Lightning's own launcher would run the command line that started this process once more, which here
may be an orchestrator's. So the processes are started here, and each is told which one it is.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import torch.multiprocessing as mp  # noqa: TID253
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from pytorch_lightning.plugins.environments import LightningEnvironment  # noqa: TID253

from aios_platform.contracts.models import Epoch
from aios_platform.errors import AiosError, TrainingError
from aios_platform.training.fit import Plan, fit_rank, own_settings

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Rank:
    """Which process of how many this is.

    Attributes:
        number: From 0.
        world: How many there are.
        port: Where the first one listens, on loopback.
    """

    number: int
    world: int
    port: int

    def environment(self) -> LightningEnvironment:
        """What Lightning asks about the processes."""
        return _Started(self)


class _Started(LightningEnvironment):  # type: ignore[misc]
    """Processes that are there already."""

    creates_processes_externally = True
    main_address = "127.0.0.1"

    def __init__(self, rank: Rank) -> None:
        super().__init__()
        self._rank = rank
        self._main_port = rank.port

    def local_rank(self) -> int:
        return self._rank.number

    def node_rank(self) -> int:
        return 0


@dataclass(frozen=True)
class _Send:
    """Reports epochs to the process that started this one."""

    queue: Any

    def __call__(self, epoch: Epoch) -> None:
        self.queue.put(epoch)


def fit_on_devices(plan: Plan, member: int, checkpoints: Path) -> None:
    """Train a member on `training.devices` devices.

    Args:
        plan: What to train. Its rows are shared with the processes, not copied.
        member: Which network of the ensemble.
        checkpoints: Folder of `best.ckpt` and `last.ckpt`.

    Raises:
        TrainingError: A loss is not finite, or a process failed; the others are ended then.
    """
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    world = plan.training.devices
    sent = replace(plan, on_epoch=_Send(queue))
    processes = mp.start_processes(
        _work,
        args=(world, find_free_network_port(), sent, member, checkpoints, queue),
        nprocs=world,
        join=False,
        start_method="spawn",
    )
    failed: list[AiosError] = []

    def drain() -> None:
        while not queue.empty():
            found = queue.get()
            if isinstance(found, Epoch):
                plan.on_epoch(found)
            else:
                failed.append(found)

    try:
        while not processes.join(timeout=POLL_SECONDS):
            drain()
    except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
        drain()
        if failed:
            raise failed[0] from error
        raise TrainingError(
            f"A process of the training on {world} devices failed: {str(error).strip()[-2000:]}",
            remedy="Look at its output; the same command goes on from the last epoch.",
        ) from error
    finally:
        for process in processes.processes:
            if process.is_alive():
                process.kill()
    drain()


def _work(
    number: int,
    world: int,
    port: int,
    plan: Plan,
    member: int,
    checkpoints: Path,
    queue: Any,
) -> None:
    _end_with_parent(lambda: os._exit(1))
    try:
        with own_settings():
            fit_rank(plan, member, checkpoints, Rank(number, world, port))
    except AiosError as error:
        queue.put(error)
        raise


def _end_with_parent(end: Callable[[], None]) -> None:
    """Whatever ends the parent ends this process, so that nobody trains beside the next attempt."""
    parent = parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            end()

        threading.Thread(target=watch, daemon=True).start()
