"""The `training` section of a declaration: how the model is trained."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from aios_platform.contracts.record import Record, nearest
from aios_platform.extensions import Kind, installed

CLASS = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
NETWORKS = ("embedding_mlp", "convolutional", "text_embedding")
"""Short names of the platform's own networks."""


class Training(Record):
    """How the model is trained."""

    network: str = Field(
        default="embedding_mlp",
        description="A network by its short name, or `package.module:Class` of your own "
        "(docs/training.md).",
    )
    network_options: dict[str, Any] = Field(
        default_factory=dict, description="Further options, as the network documents them."
    )
    quantiles: tuple[float, ...] = Field(
        default=(),
        description="Levels of the quantiles that a regression answers besides its value, "
        "e.g. [0.1, 0.5, 0.9].",
    )
    hidden: tuple[int, ...] = Field(default=(256, 128), description="Widths of hidden layers.")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="Share of units dropped.")
    epochs: int = Field(
        default=4,
        ge=1,
        description="Most passes over the training rows, over which the learning rate makes one "
        "cycle. Few suffice for 100,000 rows or more; take 10 to 30 for fewer.",
    )
    patience: int = Field(default=3, ge=1, description="Epochs without improvement before a stop.")
    batch_size: int = Field(
        default=2048,
        ge=1,
        description="Most rows per step; fewer where an epoch would else have under 50 steps.",
    )
    learning_rate: float = Field(default=3e-3, gt=0, description="Peak step size.")
    weight_decay: float = Field(default=1e-4, ge=0, description="Decoupled weight decay.")
    members: int = Field(default=1, ge=1, le=16, description="Networks averaged in the ensemble.")
    seed: int = Field(default=0, ge=0, description="Equal seeds and data give equal models.")
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = Field(
        default="auto", description="Where to train; auto takes a GPU where there is one."
    )
    devices: int = Field(
        default=1, ge=1, description="Devices that share each batch, a process each."
    )
    strategy: Literal["ddp", "ddp_find_unused_parameters_true"] = Field(
        default="ddp",
        description="How several devices train together; the second where a network leaves "
        "parameters unused.",
    )
    min_windows: int = Field(
        default=2, ge=2, description="Windows of matured data needed before the first training."
    )
    max_windows: int | None = Field(
        default=None, ge=2, description="Train on at most the last n windows; unset, on all."
    )
    validation_windows: int = Field(
        default=1,
        ge=1,
        description="Last training windows, held out for early stopping and calibration.",
    )

    @field_validator("network")
    @classmethod
    def _network(cls, value: str) -> str:
        known = (*NETWORKS, *installed(Kind.NETWORK))
        if value not in known and not CLASS.match(value):
            raise ValueError(
                f"'{value}' is neither a network nor of the form package.module:Class. "
                f"{nearest(value, known)}"
            )
        return value

    @model_validator(mode="after")
    def _room(self) -> "Training":
        if self.validation_windows >= self.min_windows:
            raise ValueError(
                f"validation_windows ({self.validation_windows}) leaves no window to train on: "
                f"min_windows is {self.min_windows}"
            )
        levels = self.quantiles
        if any(not 0 < level < 1 for level in levels) or list(levels) != sorted(set(levels)):
            raise ValueError(f"quantiles must rise strictly within 0 and 1; they are {levels}")
        return self
