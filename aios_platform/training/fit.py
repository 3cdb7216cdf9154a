"""One member of the ensemble through Lightning: early stopping, checkpoints, resumption."""

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl  # noqa: TID253
import torch  # noqa: TID253
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint  # noqa: TID253
from torch import nn  # noqa: TID253

from aios_platform.contracts.models import Epoch
from aios_platform.contracts.training import Training
from aios_platform.errors import TrainingError
from aios_platform.training.checkpoints import load_state, save_state
from aios_platform.training.data import InMemoryData, Rows, batches_of, stream_seed
from aios_platform.training.module import MONITOR, Reporting, Supervised, Tally
from aios_platform.training.networks import NetworkInputs, build_network
from aios_platform.training.objective import Objective

if TYPE_CHECKING:
    from aios_platform.training.distributed import Rank

STEPS_PER_EPOCH = 50
LAST = "last.ckpt"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What all members have in common.

    Attributes:
        training: The declared training.
        objective: The task.
        inputs: What the network takes.
        train: Encoded rows to learn from.
        validation: Encoded rows to stop on.
        folder: Checkpoints of exactly this training.
        on_epoch: Called after each epoch.
    """

    training: Training
    objective: Objective
    inputs: NetworkInputs
    train: Rows
    validation: Rows
    folder: Path
    on_epoch: Callable[[Epoch], None]

    @property
    def batch_size(self) -> int:
        """Rows per step: the declared number, or fewer, so that a small set has enough steps."""
        return max(1, min(self.training.batch_size, len(self.train[-1]) // STEPS_PER_EPOCH))

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return batches_of(len(self.train[-1]), self.batch_size, self.training.devices)

    def network(self, member: int) -> nn.Module:
        """A network with the member's initial weights.

        Raises:
            TrainingError: The declared network does not keep the contract.
        """
        torch.manual_seed(stream_seed(self.training.seed, member))
        return build_network(self.inputs, self.objective.outputs, self.training)


@dataclass(frozen=True)
class Member:
    """A trained network on the CPU.

    Attributes:
        network: With the weights of its best epoch, in evaluation mode.
        epochs: What each epoch reported.
        best_epoch: Number of the best one.
        resumed: Whether a checkpoint was taken up.
    """

    network: nn.Module
    epochs: tuple[Epoch, ...]
    best_epoch: int
    resumed: bool


def fit_member(plan: Plan, member: int) -> Member:
    """Train one member, or take up what a killed call left.

    Raises:
        TrainingError: A loss is not finite.
    """
    finished = plan.folder / f"member_{member}.pt"
    state = load_state(finished)
    resumed = state is not None
    with torch.random.fork_rng(), own_settings():
        if state is None:
            checkpoints = plan.folder / f"member_{member}"
            state, resumed = _fit(plan, member, checkpoints)
            save_state(state, finished)
            shutil.rmtree(checkpoints, ignore_errors=True)
        # Another than was trained, which is full of its trainer.
        network = plan.network(member)
    network.load_state_dict(state["weights"])
    network.eval()
    epochs = tuple(Epoch.model_validate(epoch) for epoch in json.loads(state["epochs"]))
    return Member(
        network=network,
        epochs=epochs,
        best_epoch=min(epochs, key=lambda e: e.validation[plan.objective.criterion]).epoch,
        resumed=resumed,
    )


def _fit(plan: Plan, member: int, checkpoints: Path) -> tuple[dict[str, Any], bool]:
    """Train a member here, or on several devices, and collect its best weights and its epochs."""
    resumed = load_state(checkpoints / LAST) is not None
    if not resumed:
        shutil.rmtree(checkpoints, ignore_errors=True)
    if plan.training.devices > 1:
        from aios_platform.training.distributed import fit_on_devices

        fit_on_devices(plan, member, checkpoints)
    else:
        fit_rank(plan, member, checkpoints)
    best, last = (
        torch.load(checkpoints / name, map_location="cpu", weights_only=True)
        for name in ("best.ckpt", LAST)
    )
    weights = {name.removeprefix("network."): w for name, w in best["state_dict"].items()}
    return {"weights": weights, "epochs": last["epochs"]}, resumed


def fit_rank(plan: Plan, member: int, checkpoints: Path, rank: "Rank | None" = None) -> None:
    """Train until the last epoch or an early stop; checkpoints after each epoch.

    Args:
        plan: What to train.
        member: Which network of the ensemble.
        checkpoints: Folder of `best.ckpt` and `last.ckpt`, which is taken up where it is there.
        rank: Which of several processes this is; unset, the only one.

    Raises:
        TrainingError: A loss is not finite, or the training was interrupted.
    """
    training = plan.training
    module = _module(plan, member, plan.network(member), rank)
    shard = (rank.number, rank.world) if rank else (0, 1)
    data = InMemoryData(
        plan.train,
        plan.validation,
        batch_size=plan.batch_size,
        seed=stream_seed(training.seed, member),
        blocks=isinstance(module, Supervised),
        shard=shard,
    )
    last = checkpoints / LAST
    trainer = pl.Trainer(
        max_epochs=training.epochs,
        accelerator=training.accelerator,
        devices=shard[1],
        strategy=training.strategy if rank else "auto",
        plugins=[rank.environment()] if rank else None,
        use_distributed_sampler=False,
        precision=_precision(training),
        deterministic=_on_gpu(training),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=plan.folder,
        callbacks=[
            EarlyStopping(MONITOR, patience=training.patience, check_on_train_epoch_end=True),
            ModelCheckpoint(
                dirpath=checkpoints,
                filename="best",
                monitor=MONITOR,
                save_last=True,
                save_on_train_epoch_end=True,
                enable_version_counter=False,
                auto_insert_metric_name=False,
            ),
        ],
    )
    trainer.fit(module, datamodule=data, ckpt_path=str(last) if last.exists() else None)
    if trainer.interrupted:
        raise TrainingError(
            f"The training of network {member} was interrupted.",
            remedy="Run the same command again; it goes on from the last epoch.",
        )


def _module(plan: Plan, member: int, network: nn.Module, rank: "Rank | None") -> Reporting:
    """The network as Lightning takes it; a Lightning module of one's own trains as it says."""
    training = plan.training
    seed = stream_seed(training.seed, member, *([rank.number] if rank and rank.number else []))
    if isinstance(network, pl.LightningModule):
        own = type(network)
        # The same object, whose class now also reports.
        network.__class__ = type(own.__name__, (Reporting, own), {"__module__": own.__module__})
        module: Reporting = network
    else:
        module = Supervised(
            network,
            plan.objective,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            steps=training.epochs * plan.steps,
        )
    # Each process reports the same; one is enough.
    on_epoch = plan.on_epoch if rank is None or rank.number == 0 else (lambda _: None)
    module.aios_tally = Tally(plan.objective, member=member, seed=seed, on_epoch=on_epoch)
    return module


def _on_gpu(training: Training) -> bool:
    return training.accelerator in ("auto", "gpu") and torch.cuda.is_available()


def _precision(training: Training) -> str:
    if _on_gpu(training):
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    return "32-true"


@contextmanager
def own_settings() -> Iterator[None]:
    """Quiet Lightning, and put back what it sets for the whole process."""
    chatter = [
        logging.getLogger(name)
        for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning")
    ]
    levels = [logger.level for logger in chatter]
    deterministic = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    # Deterministic mode would fill every new tensor with NaN first: a tenth of the time, and no
    # operation here reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False
    for logger in chatter:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="pytorch_lightning")
            warnings.filterwarnings("ignore", message=r".*LeafSpec.*", category=FutureWarning)
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = fill
        for logger, level in zip(chatter, levels, strict=True):
            logger.setLevel(level)
